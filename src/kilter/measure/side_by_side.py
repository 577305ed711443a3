"""Answers beside each other: in columns on a terminal, as plain text elsewhere; and a table of their totals.

Whatever models and files say is shown as it is, never read as markup; control characters are escaped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text
from transformers import PreTrainedTokenizerFast

from kilter.data.formats import printable
from kilter.divergence.estimates import Estimate
from kilter.measure.samples import NGRAM, SampleEvaluation, ScoredSample, answer_text, text_of
from kilter.model.sampler import SamplingSettings
from kilter.tokens.encoding import EncodedPrompt

PROMPT_SHOWN = 1000  # characters, of its end


def show_answers(
    console: Console,
    prompts: Sequence[EncodedPrompt],
    answers: Mapping[str, SampleEvaluation],
    tokenizer: PreTrainedTokenizerFast,
    samples: int,
    *,
    before: int = 0,
) -> None:
    """Print each prompt with every model's `samples` answers to it; `before` prompts were printed earlier."""
    for place, prompt in enumerate(prompts):
        heading = f"prompt {before + place + 1}, {prompt.origin}"
        asked = escaped(text_of(prompt.ids, tokenizer))
        asked = asked if len(asked) <= PROMPT_SHOWN else "… " + asked[-PROMPT_SHOWN:].partition(" ")[2]
        part = slice(place * samples, (place + 1) * samples)
        heard = {name: evaluation.scored[part] for name, evaluation in answers.items()}
        if console.is_terminal:
            console.print(Rule(Text(printable(heading, 1000)), align="left"))
            console.print(Padding(Text(asked, style="dim"), (0, 2)))
            console.print(_columns(heard, tokenizer))
        else:
            lines = [f"=== {printable(heading, 1000)}", _indented(asked)]
            for name, scored in heard.items():
                for row in scored:
                    lines += [f"--- {printable(name, 1000)} ({_remark(row)})", _indented(_answer(row, tokenizer))]
            console.print("\n".join(lines) + "\n", markup=False, highlight=False, emoji=False, soft_wrap=True)


def totals(answers: Mapping[str, SampleEvaluation]) -> Table:
    """Means over prompts for each model, with standard errors, and what each number means below."""
    found = list(answers.values())
    samples, settings = found[0].samples, found[0].settings
    prompts = len({row.prompt for row in found[0].scored})
    longest = f"at most {settings.max_new_tokens:,} tokens"
    title = f"{_counted(len(samples), 'answer')} to {_counted(prompts, 'prompt')}, {settings.describe()}, {longest}"
    table = Table(title=title, title_justify="left", caption_justify="left", box=box.SIMPLE)
    table.add_column("", no_wrap=True)
    for name in answers:
        table.add_column(Text(printable(name, 1000)), justify="right", overflow="fold")
    table.add_row("length, tokens", *(_shown(one.tokens, 1) for one in found))
    table.add_row("finished", *(_shown(one.finished, 3) for one in found))
    table.add_row(f"repeated {NGRAM}-grams", *(_shown(one.repetition, 3) for one in found))
    table.add_row("log-prob, nats a token", *(f"{one.log_prob:.3f}" for one in found))
    table.add_row("entropy, nats a token", *(f"{one.entropy:.3f}" for one in found))
    notes = [f"±: one standard error over {'prompts' if prompts > 1 else 'answers'}"]
    if kls := [kl for one in found if (kl := one.answer_kl) is not None]:
        table.add_row("KL(this, other), nats", *(_shown(kl.kl, 3) for kl in kls))
        table.add_row("log-ratio, nats", *(_shown(kl.log_ratio, 3) for kl in kls))
        cut = any(not sample.finished for one in found for sample in one.samples)
        notes += _kl_notes(settings, f"of answers cut at {settings.max_new_tokens:,} tokens" if cut else "of answers")
    apart = " and ".join(f"{one.disagreement.largest:.0e}" for one in found)
    notes.append(f"sampler and Scorer differ by at most {apart} nats a token")
    table.caption = Text("\n".join(notes))
    return table


def _kl_notes(settings: SamplingSettings, of_answers: str) -> list[str]:
    if settings.faithful:
        return [
            f"KL(this, other): {of_answers}, by exact token KL along them",
            "log-ratio: the same KL estimated from log-probs alone",
        ]
    return [
        "KL(this, other): exact token KL summed along these answers; not the KL of",
        "answers, which takes --temperature 1 without --top-p and --top-k",
        "log-ratio: of whole answers, at temperature 1",
    ]


def escaped(text: str) -> str:
    """Text without blank lines at its ends, tabs spread out, and every other control character written out."""
    lines = text.strip("\n").split("\n")
    return "\n".join(printable(line.expandtabs(4), len(line) * 4 + 1) for line in lines)


def _columns(heard: Mapping[str, Sequence[ScoredSample]], tokenizer: PreTrainedTokenizerFast) -> Table:
    table = Table(box=box.MINIMAL, expand=True, show_lines=True)
    for name in heard:
        table.add_column(Text(printable(name, 1000)), ratio=1, overflow="fold")
    for row in zip(*heard.values(), strict=True):
        table.add_row(*(Text.assemble(_answer(one, tokenizer), "\n", (_remark(one), "dim italic")) for one in row))
    return table


def _answer(scored: ScoredSample, tokenizer: PreTrainedTokenizerFast) -> str:
    return escaped(answer_text(scored.sample, tokenizer)).strip() or "(empty)"


def _remark(scored: ScoredSample) -> str:
    end = "" if scored.sample.finished else ", cut"
    kl = "" if scored.kl is None else f", KL {scored.kl.sum():.2f}"
    return f"{_counted(len(scored.sample.answer), 'token')}{end}{kl}"


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.split("\n"))


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _shown(estimate: Estimate, places: int) -> str:
    error = "" if math.isnan(estimate.standard_error) else f" ± {estimate.standard_error:.{places}f}"
    return f"{estimate.value:.{places}f}{error}"
