"""`kilter check`: a look at data before training. What it is, what must be mended, what a run would take."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import Progress

from kilter.data.formats import FORMATS, PROMPT_FORMATS
from kilter.data.reading import FileAccount, read_records
from kilter.data.records import Demonstration, Labelled, Pair, Ranking, Record, is_tie
from kilter.errors import ConfigError
from kilter.measure.check_table import show
from kilter.measure.config import CheckConfig
from kilter.measure.duplicates import PromptIndex
from kilter.measure.examples import examples_as_read, examples_as_trained
from kilter.measure.facts import LISTED, Balance, Facts, FileFacts, Limit, as_json
from kilter.measure.findings import Finding, findings_of
from kilter.measure.languages import language_mix, sampled_places
from kilter.measure.lengths import LengthBias, Spread, length_bias, spread
from kilter.measure.rows import PARTS, answers_of, best_and_worst, whole_rows, words
from kilter.measure.scripts import script_mix
from kilter.measure.statistics import wilson
from kilter.measure.templates import template_facts, turns

if TYPE_CHECKING:
    from kilter.measure.estimate import Estimate
    from kilter.measure.token_facts import TokenFacts

# Told what is done now, and how many steps of it there are; then of each step.
Stage = Callable[[str, int], Callable[[int], None]]


@dataclass(frozen=True)
class Checked:
    """What was found, and what to make of it."""

    facts: Facts
    findings: tuple[Finding, ...]

    @property
    def to_mend(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.must)

    @property
    def worth_a_look(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if not finding.must)

    def as_json(self) -> str:
        """The facts and findings, in ASCII: nothing in it can steer a terminal."""
        found = {"facts": self.facts, "to_mend": self.to_mend, "worth_a_look": self.worth_a_look}
        return json.dumps(as_json(found), indent=2)


def check(config: CheckConfig, console: Console | None = None) -> Checked:
    """Look at files before training on them; prints what was found, or the same as JSON.

    Raises DataError where a file cannot be read or has no usable row, ModelError where the model's tokenizer or
    configuration cannot be loaded.
    """
    console = console or Console()
    with _progress() as stage:
        facts = gather(config, stage)
    checked = Checked(facts, findings_of(facts, config))
    if config.as_json:
        print(checked.as_json(), file=console.file)
    else:
        show(console, facts, checked.findings, config)
    return checked


def gather(config: CheckConfig, stage: Stage = lambda name, steps: lambda done: None) -> Facts:
    """Find everything out, a stage at a time."""
    if not config.data:
        raise ConfigError("there is nothing to look at; name a file, as in: kilter check pairs.jsonl")
    stage("reading", 0)
    reading = config.reading | {"skip_bad": True}  # bad rows are counted, and the others looked at
    data = read_records(config.data, **reading)
    held_out = read_records(config.eval_data, **reading) if config.eval_data else None
    records = list(whole_rows(data.rows))

    stage("looking for copies", 0)
    index = PromptIndex(records)
    duplicates = index.find_duplicates()
    leaks = None if held_out is None else index.find_leaks(list(whole_rows(held_out.rows)))

    stage("looking at scripts and languages", 0)
    scripts = script_mix(map(_all_words, records))
    languages = language_mix([_all_words(records[place]) for place in sampled_places(len(records))])
    characters, bias = _characters(records)
    seen = turns(records)

    limit = template = tokens = estimate = None
    if config.model is None:
        examples = examples_as_read(records)
    else:
        stage("loading the tokenizer", 0)
        from kilter.measure.estimate import positions_of
        from kilter.measure.token_facts import token_facts
        from kilter.model.loading import load_tokenizer

        tokenizer = load_tokenizer(config.model)
        limit = _limit(config, positions_of(config.model))
        template = template_facts(tokenizer, config.style, seen)
        tokens = token_facts(
            records,
            tokenizer,
            style=config.style,
            max_prompt=config.max_prompt,
            longest=limit.tokens,
            on_progress=stage("tokenising", len(records)),
        )
        examples = examples_as_trained(records, tokenizer, config.style, config.max_prompt)
        stage("estimating memory and time", 0)
        estimate = _estimate(config, records, tokens)

    return Facts(
        files=tuple(map(_file_facts, data.files)),
        eval_files=() if held_out is None else tuple(map(_file_facts, held_out.files)),
        kinds=dict(Counter(type(record).__name__.lower() for record in data.rows)),
        ties=sum(map(is_tie, records)),
        graded=sum(isinstance(record, Pair) and 0.5 < record.preference < 1 for record in records),
        balance=_balance(records),
        ranked=_ranked(records),
        turns=seen,
        characters=characters,
        bias=bias,
        duplicates=duplicates,
        leaks=leaks,
        scripts=scripts,
        languages=languages,
        limit=limit,
        template=template,
        tokens=tokens,
        estimate=estimate,
        examples=examples,
    )


@contextmanager
def _progress() -> Iterator[Stage]:
    """A bar on a terminal, for as long as it takes."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)

        def stage(name: str, steps: int) -> Callable[[int], None]:
            bar.reset(task, description=name, total=steps or None)
            return lambda done: bar.advance(task, done)

        yield stage


def _file_facts(account: FileAccount) -> FileFacts:
    known = (FORMATS | PROMPT_FORMATS).get(account.format)
    return FileFacts(
        name=account.name,
        sha256=account.sha256,
        format=account.format,
        title=known.title if known else "",
        rows=account.rows,
        bad_rows=len(account.bad_rows),
        listed_bad_rows=tuple(map(str, account.bad_rows[:LISTED])),
        read=tuple(known.keys) if known else (),
        ignored=account.ignored,
        note=account.note,
    )


def _all_words(record: Record) -> str:
    return "\n".join([words(record.prompt), *(words(answer) for _, answer in answers_of(record))])


def _characters(records: Sequence[Record]) -> tuple[dict[str, Spread], LengthBias | None]:
    by_part: dict[str, list[int]] = {part: [] for part in ("prompt", *PARTS)}
    better_and_worse = []
    for record in records:
        lengths = [len(words(answer)) for _, answer in answers_of(record)]
        for (part, _), length in zip(answers_of(record), lengths, strict=True):
            by_part[part].append(length)
        if record.prompt:
            by_part["prompt"].append(len(words(record.prompt)))
        if extremes := best_and_worst(record):
            better_and_worse.append((lengths[extremes[0]], lengths[extremes[1]]))
    spreads = {part: spread(lengths) for part, lengths in by_part.items() if lengths}
    return spreads, length_bias(better_and_worse)


def _balance(records: Sequence[Record]) -> Balance | None:
    labels = [record.good for record in records if isinstance(record, Labelled)]
    good = sum(labels)
    return Balance(good, len(labels) - good, wilson(good, len(labels))) if labels else None


def _ranked(records: Sequence[Record]) -> Spread | None:
    answers = [len(record.answers) for record in records if isinstance(record, Ranking)]
    return spread(answers) if answers else None


def _limit(config: CheckConfig, positions: int | None) -> Limit:
    """The same that a run has (model/loading.py: `longest_sequence`)."""
    limits = {"max_length": config.max_length, "positions": positions, "node_budget": config.node_budget}
    return min((Limit(tokens, by) for by, tokens in limits.items() if tokens), key=lambda limit: limit.tokens)


def _estimate(config: CheckConfig, records: Sequence[Record], tokens: TokenFacts) -> Estimate | None:
    """None for prompts alone, and where no row can be encoded."""
    from kilter.measure.estimate import config_of, estimate

    kinds = {type(record) for record in records}
    methods = {Pair: "pairs", Ranking: "pairs", Labelled: "labelled", Demonstration: "demonstrations"}
    method = next((method for kind, method in methods.items() if kind in kinds), None)
    if method is None or not tokens.rows or config.model is None:
        return None
    return estimate(
        tokens,
        config_of(config.model),
        method=method,
        rows=tokens.rows,
        batch_size=config.batch_size,
        node_budget=config.node_budget,
        precision=config.precision,
        device_name=config.device,
    )
