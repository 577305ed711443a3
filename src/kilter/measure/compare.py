"""`kilter compare`: how far two language models with one vocabulary are apart on the same text.

Both score the same tokens. Next-token distributions are compared over the whole vocabulary, a chunk of rows at a time
(model/head.py), and what is kept of a token are a few sums: memory does not grow with the number of tokens.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import PreTrainedTokenizerFast

from kilter.data.reading import read_texts
from kilter.data.records import Origin
from kilter.data.tables import check_table_path, table_in_parts
from kilter.divergence.estimates import Estimate
from kilter.errors import NonFiniteError
from kilter.measure.config import CompareConfig
from kilter.measure.facts import Limit, as_json
from kilter.measure.rows import whole_rows
from kilter.measure.streams import Correlation, DocumentMeans, Percentiles
from kilter.measure.texts import Passage, TextFacts, Texts
from kilter.measure.vocabularies import Sides, check_same_heads, check_same_tokens
from kilter.model.loading import load_scorer, load_tokenizer, longest_sequence, pick_device
from kilter.model.row_functions import (
    DIVERGENCES,
    KL_POLICY_REFERENCE,
    KL_REFERENCE_POLICY,
    LOG_PROB,
    REFERENCE_LOG_PROB,
    REFERENCE_TOP,
    TOP,
    RowFunction,
)
from kilter.model.scorer import Scorer
from kilter.model.token_values import token_values

PERCENTS = (50.0, 90.0, 99.0, 99.9)
CONTEXT_TOKENS = 48  # before a token that is shown

# The columns of every comparison, in the names of the token report. A is the policy of the row functions.
COLUMNS: Mapping[str, RowFunction] = {
    "log_prob_a": LOG_PROB,
    "log_prob_b": REFERENCE_LOG_PROB,
    "kl_a_b": KL_POLICY_REFERENCE,
    "kl_b_a": KL_REFERENCE_POLICY,
    "top_a": TOP,
    "top_b": REFERENCE_TOP,
}
# Those that are looked at for NaN, in the words of the error.
NUMBERS = {
    "log_prob_a": "a log-prob of model A",
    "log_prob_b": "a log-prob of model B",
    "kl_a_b": "KL(A, B)",
    "kl_b_a": "KL(B, A)",
}
Columns = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Spread:
    """A divergence over all tokens, in nats where it is a KL or JS: mean with its standard error over documents,
    percentiles by name ("99.9"; off by at most 0.012% of themselves), and the largest."""

    mean: Estimate
    percentiles: Mapping[str, float]
    largest: float


@dataclass(frozen=True, slots=True)
class Token:
    """A token where the models are apart: what stood before it, what each gave it, and what each thought likeliest."""

    origin: Origin
    part: str
    position: int  # in the text's tokens
    context: str
    token: str
    kl_a_b: float
    kl_b_a: float
    log_prob_a: float
    log_prob_b: float
    top_a: str
    top_b: str

    @property
    def place(self) -> tuple[Origin, int, str, str]:
        """The same for a token that answers of a row share."""
        return self.origin, self.position, self.context, self.token

    @property
    def apart(self) -> float:
        """The larger KL."""
        return max(self.kl_a_b, self.kl_b_a)


@dataclass(frozen=True, slots=True)
class Comparison:
    """How far two models are apart on some texts.

    Errors are standard errors clustered by document (a row of the data). `nats_*` are mean negative log-probs, and a
    perplexity is exp of that; `perplexity_ratio` is that of A divided by that of B, its error from the difference of
    both token by token. `probability_change` is that of the text's own tokens, A less B.
    """

    model_a: str
    model_b: str
    documents: int
    tokens: int
    texts: TextFacts
    divergences: Mapping[str, Spread]
    nats_a: Estimate
    nats_b: Estimate
    perplexity_a: Estimate
    perplexity_b: Estimate
    perplexity_ratio: Estimate
    same_top: Estimate
    correlation: float
    probability_change: Estimate
    probability_change_rms: float
    worst: tuple[Token, ...]
    notes: tuple[str, ...]
    seconds: float

    def as_json(self) -> str:
        """All of it in ASCII; numbers that JSON does not have are the strings "inf" and "nan"."""
        return json.dumps(as_json(self, non_finite=str), indent=2)


def compare(model_a: str, model_b: str, config: CompareConfig, console: Console | None = None) -> Comparison:
    """Measure how far two models are apart on texts; prints it, or the same as JSON.

    Raises ConfigError where their vocabularies differ, naming how; DataError where rows cannot be used; NonFiniteError
    where a model's log-probs are no numbers.
    """
    from kilter.measure.compare_table import show

    console = console or Console()
    told = Console(stderr=True) if config.as_json else console
    device = pick_device(config.device)
    if config.token_report is not None:
        check_table_path(config.token_report, overwrite=config.overwrite, sources=config.data)
    tokenizer, other = load_tokenizer(model_a), load_tokenizer(model_b)
    notes = check_same_tokens(Sides(tokenizer, other, model_a, model_b))
    data = read_texts(config.data, **config.reading)
    told.print(data.describe(), highlight=False, soft_wrap=True, markup=False)
    rows = data.rows if config.last is None else data.rows[-config.last :]

    loading = {"precision": config.precision, "device": device, "strict": config.strict}
    a, b = (load_scorer(name, **loading).frozen() for name in (model_a, model_b))  # type: ignore[arg-type]
    check_same_heads(Sides(a, b, model_a, model_b), len(tokenizer))
    with _progress() as stage:
        records = list(whole_rows(rows))
        texts = Texts(
            records,
            tokenizer,
            limit=_limit((a, b), config),
            scored=config.scored,
            on_overflow=config.on_overflow,
            style=config.style,
            max_prompt=config.max_prompt,
            skip_bad=config.skip_bad,
            on_progress=stage("reading", len(records)),
        )
        told.print(texts.facts.describe(), highlight=False, soft_wrap=True)
        comparing = Comparing(tokenizer, config)
        begin = time.perf_counter()
        comparing.run(a, b, texts, stage("comparing, in tokens", texts.facts.tokens))
        seconds = time.perf_counter() - begin
    comparison = comparing.result(model_a, model_b, texts.facts, tuple(notes), seconds)
    if config.as_json:
        print(comparison.as_json(), file=console.file)
    else:
        show(console, comparison, config)
    return comparison


def _limit(scorers: Sequence[Scorer], config: CompareConfig) -> Limit:
    """The longest text that both models can be given at once."""
    lengths = [longest_sequence(scorer, config.max_length, config.node_budget) for scorer in scorers]
    tokens = min([*lengths, *(scorer.exact_up_to for scorer in scorers if scorer.exact_up_to is not None)])
    by = {config.max_length: "max_length", config.node_budget: "node_budget"}
    return Limit(tokens, by.get(tokens, "positions"))


class Comparing:
    """A comparison under way: sums over the tokens so far, and the tokens where the models were furthest apart."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, config: CompareConfig) -> None:
        self._config = config
        self._words = _Words(tokenizer)
        self._functions = dict(COLUMNS) | {name: DIVERGENCES[name] for name in dict.fromkeys(config.also)}
        self._spread = {name: Percentiles() for name in ("kl_a_b", "kl_b_a", *dict.fromkeys(config.also))}
        self._means = DocumentMeans([*self._spread, "log_prob_a", "log_prob_b", *DERIVED])
        self._correlation = Correlation()
        self._worst: list[Token] = []

    def run(self, a: Scorer, b: Scorer, texts: Texts, on_progress: Callable[[int], None] = lambda tokens: None) -> None:
        """Measure all texts, and write the token report where one is wanted."""
        with ExitStack() as stack:
            path = self._config.token_report
            write = None if path is None else stack.enter_context(table_in_parts(path))
            for passages in texts.blocks():
                found = self._measured(a, b, passages)
                for _, document in groupby(zip(passages, found, strict=True), key=lambda pair: pair[0].origin):
                    self._add([columns for _, columns in document])
                for passage, columns in zip(passages, found, strict=True):
                    self._keep_worst(passage, columns)
                if write is not None and passages:
                    write(self._report(passages, found))
                on_progress(sum(len(columns["kl_a_b"]) for columns in found))

    def _measured(self, a: Scorer, b: Scorer, passages: Sequence[Passage]) -> list[Columns]:
        """The columns of each passage's scored tokens."""
        functions = list(self._functions.values())
        values = token_values(
            a,
            [passage.sequence for passage in passages],
            functions,
            reference=b,
            node_budget=self._config.node_budget,
        )
        found: list[Columns] = [dict(zip(self._functions, columns, strict=True)) for columns in values]
        for passage, columns in zip(passages, found, strict=True):
            for name, what in NUMBERS.items():
                if np.isnan(columns[name]).any():
                    raise NonFiniteError(
                        f"{passage.origin}: {what} is not a number there; the model's weights may be damaged, or "
                        "overflow in --precision bfloat16; look at the model, or leave the row out"
                    )
        return found

    def _add(self, passages: Sequence[Columns]) -> None:
        """The passages of one document."""
        document = {name: np.concatenate([columns[name] for columns in passages]) for name in self._functions}
        with np.errstate(invalid="ignore"):
            document |= {name: derive(document) for name, derive in DERIVED.items()}
        self._means.add(document)
        self._correlation.add(document["log_prob_a"], document["log_prob_b"])
        for name, percentiles in self._spread.items():
            percentiles.add(document[name])

    def _keep_worst(self, passage: Passage, columns: Columns) -> None:
        """Of equal ones the first is kept; what answers of a row have in common counts once, and what is not apart
        never."""
        most = self._config.worst
        apart = np.maximum(columns["kl_a_b"], columns["kl_b_a"])
        for place in np.argsort(-apart, kind="stable")[:most].tolist():
            if apart[place] <= (self._worst[-1].apart if len(self._worst) == most else 0):
                break
            token = self._token(passage, columns, place)
            if all(token.place != kept.place for kept in self._worst):
                self._worst.append(token)
                self._worst = sorted(self._worst, key=lambda kept: -kept.apart)[:most]

    def _token(self, passage: Passage, columns: Columns, place: int) -> Token:
        at = int(passage.scored[place])
        ids = passage.sequence.ids
        number = {name: float(column[place]) for name, column in columns.items()}
        return Token(
            origin=passage.origin,
            part=passage.part,
            position=passage.start + at,
            context=self._words.text(ids[max(0, at - CONTEXT_TOKENS) : at]),
            token=self._words.token(int(ids[at])),
            kl_a_b=number["kl_a_b"],
            kl_b_a=number["kl_b_a"],
            log_prob_a=number["log_prob_a"],
            log_prob_b=number["log_prob_b"],
            top_a=self._words.token(int(number["top_a"])),
            top_b=self._words.token(int(number["top_b"])),
        )

    def _report(self, passages: Sequence[Passage], found: Sequence[Columns]) -> dict[str, Sequence[Any]]:
        """The token report's columns: where each token is, and all numbers of it."""
        table: dict[str, list[Any]] = {name: [] for name in ("file", "line", "part", "position", "token_id", "token")}
        for passage in passages:
            scored = passage.scored
            ids = passage.sequence.ids[scored].tolist()
            for name, constant in (
                ("file", passage.origin.file),
                ("line", passage.origin.line),
                ("part", passage.part),
            ):
                table[name] += [constant] * len(ids)
            table["position"] += (passage.start + scored).tolist()
            table["token_id"] += ids
            table["token"] += map(self._words.token, ids)
        for name in self._functions:
            column = np.concatenate([columns[name] for columns in found])
            table[name] = (column.astype(np.int64) if name in ("top_a", "top_b") else column).tolist()
        return dict(table)

    def result(
        self, model_a: str, model_b: str, texts: TextFacts, notes: tuple[str, ...], seconds: float
    ) -> Comparison:
        """What was found so far."""
        mean = self._means.mean
        nats_a, nats_b = (replace(found, value=-found.value) for found in map(mean, ("log_prob_a", "log_prob_b")))
        return Comparison(
            model_a=model_a,
            model_b=model_b,
            documents=self._means.documents,
            tokens=self._means.tokens,
            texts=texts,
            divergences={
                name: Spread(mean(name), {f"{at:g}": spread.at(at) for at in PERCENTS}, spread.largest)
                for name, spread in self._spread.items()
            },
            nats_a=nats_a,
            nats_b=nats_b,
            perplexity_a=_exponential(nats_a),
            perplexity_b=_exponential(nats_b),
            perplexity_ratio=_exponential(mean("log_ratio")),
            same_top=mean("same_top"),
            correlation=self._correlation.value,
            probability_change=mean("probability_change"),
            probability_change_rms=math.sqrt(mean("squared_change").value),
            worst=tuple(self._worst),
            notes=notes,
            seconds=seconds,
        )


# What follows from a document's columns, token by token; `log_ratio` is that of perplexities, A by B.
DERIVED: Mapping[str, Callable[[Columns], NDArray[Any]]] = {
    "log_ratio": lambda of: of["log_prob_b"] - of["log_prob_a"],
    "same_top": lambda of: (of["top_a"] == of["top_b"]).astype(np.float64),
    "probability_change": lambda of: np.exp(of["log_prob_a"]) - np.exp(of["log_prob_b"]),
    "squared_change": lambda of: (np.exp(of["log_prob_a"]) - np.exp(of["log_prob_b"])) ** 2,
}


def _exponential(log: Estimate) -> Estimate:
    """exp of an estimate, with the error that it has to first order."""
    value = math.exp(log.value) if log.value < 700 else math.inf
    return replace(log, value=value, standard_error=value * log.standard_error)


class _Words:
    """Tokens as text; special ones are written out."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, str] = {}

    def text(self, ids: Sequence[int] | NDArray[Any]) -> str:
        return str(self._tokenizer.decode(list(map(int, ids)), clean_up_tokenization_spaces=False))

    def token(self, token: int) -> str:
        if token not in self._known:
            self._known[token] = self.text([token])
        return self._known[token]


class _Stage(NamedTuple):
    bar: Progress
    task: Any

    def __call__(self, name: str, steps: int) -> Callable[[int], None]:
        self.bar.reset(self.task, description=name, total=steps or None)
        return lambda done: self.bar.advance(self.task, done)


@contextmanager
def _progress() -> Iterator[_Stage]:
    """A bar on a terminal, for as long as it takes."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        yield _Stage(bar, bar.add_task("", total=None))
