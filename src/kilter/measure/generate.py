"""`kilter generate`: what a model answers, alone or beside another model asked the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import PreTrainedTokenizerFast

from kilter.data.reading import read_prompts
from kilter.data.run_directory import rows_file
from kilter.data.tables import check_rows_path
from kilter.errors import ConfigError
from kilter.measure.config import GenerateConfig
from kilter.measure.judges import Judge, judge_named
from kilter.measure.samples import SampleEvaluation, sample_evaluation
from kilter.measure.side_by_side import show_answers, totals
from kilter.measure.win_rate import WinRate, win_rate
from kilter.model.loading import check_same_vocabulary, load_scorer, load_tokenizer, pick_device
from kilter.model.sampler import SamplingSettings, check_room
from kilter.model.scorer import Scorer
from kilter.tokens.encoding import EncodedPrompt, Encoder, Limits

ANSWERS_AT_ONCE = 16  # of each model, between one showing and writing and the next

# Each model's answers, by its name.
Answers = Mapping[str, SampleEvaluation]


@dataclass(frozen=True, eq=False)
class Generated:
    """What each model answered, scored with the other as its reference where there are two; not `complete` if it was
    stopped before the last prompt. With a judge, the win rate of the one over the other."""

    answers: Answers
    complete: bool
    win_rate: WinRate | None = None


def generate(config: GenerateConfig, console: Console | None = None) -> Generated:
    """Answer the prompts of a file; prints answers and totals, and writes every answer where `out` says so.

    Two models draw with the same noise. KeyboardInterrupt keeps what was done, if anything was.
    """
    console = console or Console()
    settings = SamplingSettings(config.max_new_tokens, config.temperature, config.top_p, config.top_k)
    device = pick_device(config.device)
    if config.out is not None:
        check_rows_path(config.out, overwrite=config.overwrite, sources=config.prompts)
    if config.against == config.model:
        raise ConfigError(f"--against is {config.against}, the model itself; name another, or leave it out")
    if config.judge is not None and config.against is None:
        raise ConfigError("--judge compares answers with those of another model; say with which: give --against")
    judge = None if config.judge is None else judge_named(config.judge)
    tokenizer = load_tokenizer(config.model)
    prompts = read_distinct_prompts(config, tokenizer, console)
    names = [config.model] if config.against is None else [config.model, config.against]
    models = {
        name: load_scorer(name, precision=config.precision, device=device, strict=config.strict) for name in names
    }
    check_same_vocabulary(models[names[0]], models[names[-1]])
    for scorer in models.values():
        _check_fits(scorer, prompts, config)

    parts: list[Answers] = []
    shown = 0
    with ExitStack() as stack:
        write = stack.enter_context(rows_file(config.out)) if config.out is not None else None
        advance = stack.enter_context(_progress(console, len(prompts)))
        try:
            for chunk, answers in _answered(models, prompts, settings, config, tokenizer):
                parts.append(answers)
                if write is not None:
                    for row in rows(chunk, answers, tokenizer, config.samples):
                        write(row)
                show_answers(console, chunk[: config.show - shown], answers, tokenizer, config.samples, before=shown)
                shown = min(config.show, shown + len(chunk))
                advance(len(chunk))
        except KeyboardInterrupt:
            if not parts:
                raise
    found = {name: SampleEvaluation([row for part in parts for row in part[name].scored], settings) for name in models}
    answered = len(found[config.model].scored) // config.samples
    if answered < len(prompts):
        console.print(f"stopped after {answered:,} of {len(prompts):,} prompts", highlight=False)
    elif 0 < shown < answered:
        console.print(f"shown: {shown:,} of {answered:,} prompts", highlight=False)
    console.print(totals(found))
    judged = None if judge is None else judged_answers(found, judge, tokenizer, config.seed)
    if judged is not None:
        console.print(judged.describe(), highlight=False)
    if config.out is not None:
        console.print(f"all answers: {config.out}", highlight=False, soft_wrap=True, markup=False)
    return Generated(found, complete=answered == len(prompts), win_rate=judged)


def judged_answers(answers: Answers, judge: Judge, tokenizer: PreTrainedTokenizerFast, seed: int) -> WinRate:
    """The win rate of the first of two models over the other."""
    first, second = answers.values()
    return win_rate(first.prompts(tokenizer), first.answers(tokenizer), second.answers(tokenizer), judge, seed=seed)


def read_distinct_prompts(
    config: GenerateConfig, tokenizer: PreTrainedTokenizerFast, console: Console
) -> list[EncodedPrompt]:
    """The prompts of the file, each once, rendered as for training; prints what was read and what was left out."""
    data = read_prompts(config.prompts, **config.reading)
    console.print(data.describe(), highlight=False, soft_wrap=True, markup=False)
    given = data.rows if config.last is None else data.rows[-config.last :]
    encoder = Encoder(tokenizer, config.style, Limits(max_prompt=config.max_prompt), skip_bad=config.skip_bad)
    encoded, report = encoder.encode_prompts(given)
    distinct: dict[bytes, EncodedPrompt] = {}
    for prompt in encoded:
        distinct.setdefault(prompt.ids.tobytes(), prompt)
    again = len(encoded) - len(distinct)
    repeated = f"; {again:,} the same as an earlier one, answered once" if again else ""
    console.print(report.describe() + repeated, highlight=False, soft_wrap=True)
    return list(distinct.values())


def rows(
    prompts: Sequence[EncodedPrompt], answers: Answers, tokenizer: PreTrainedTokenizerFast, samples: int
) -> Iterator[dict[str, object]]:
    """One flat row an answer, prompt by prompt; log-probs and KL in nats, summed over the answer's tokens."""
    written = {name: evaluation.rows(tokenizer) for name, evaluation in answers.items()}
    for place, prompt in enumerate(prompts):
        for name, answered in written.items():
            reference = next((other for other in answers if other != name), None)
            for number, row in enumerate(answered[place * samples : (place + 1) * samples], 1):
                origin = {"file": prompt.origin.file, "line": prompt.origin.line}
                yield origin | {"model": name, "reference": reference, "sample": number} | row


def _answered(
    models: Mapping[str, Scorer],
    prompts: Sequence[EncodedPrompt],
    settings: SamplingSettings,
    config: GenerateConfig,
    tokenizer: PreTrainedTokenizerFast,
) -> Iterator[tuple[Sequence[EncodedPrompt], Answers]]:
    """A few prompts at a time, with every model's answers to them, each prompt's next to each other."""
    step = max(1, ANSWERS_AT_ONCE // config.samples)
    for chunk in (prompts[start : start + step] for start in range(0, len(prompts), step)):
        asked = [prompt.ids for prompt in chunk for _ in range(config.samples)]
        yield (
            chunk,
            {
                name: sample_evaluation(
                    scorer,
                    next((other for other in models.values() if other is not scorer), None),
                    asked,
                    settings,
                    tokenizer=tokenizer,
                    seed=config.seed,
                    node_budget=config.node_budget,
                )
                for name, scorer in models.items()
            },
        )


def _check_fits(scorer: Scorer, prompts: Sequence[EncodedPrompt], config: GenerateConfig) -> None:
    """Raise before the first answer what would be raised at the longest prompt's."""
    for prompt in sorted(prompts, key=lambda prompt: -len(prompt.ids)):
        try:
            check_room(scorer, [prompt.ids], config.max_new_tokens)
        except ConfigError as error:
            raise ConfigError(f"{prompt.origin}: {error}") from None
        if (length := len(prompt.ids) + config.max_new_tokens) > config.node_budget:
            raise ConfigError(
                f"{prompt.origin}: the prompt and its answer may have {length:,} tokens and the node budget is "
                f"{config.node_budget:,}; raise --node-budget to {length}, or lower --max-new-tokens"
            )


class _Advance(Protocol):
    def __call__(self, prompts: int) -> None: ...


@contextmanager
def _progress(console: Console, prompts: int) -> Iterator[_Advance]:
    """A bar below what is printed, on the terminal that there is; it vanishes at the end."""
    columns = (TextColumn("answering"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    terminal = console if console.is_terminal else Console(stderr=True)
    with Progress(*columns, console=terminal, transient=True) as bar:
        task = bar.add_task("", total=prompts)

        def advance(prompts: int) -> None:
            bar.advance(task, prompts)

        yield advance
