"""What `kilter check` prints: short sections with aligned numbers, then what must be mended and what is worth a look.

Whatever files say is shown as it is, never read as markup; control characters are escaped.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from kilter.data.formats import printable
from kilter.measure.config import CheckConfig
from kilter.measure.facts import Facts, FileFacts
from kilter.measure.findings import Finding
from kilter.measure.lengths import Spread
from kilter.measure.statistics import Interval

if TYPE_CHECKING:
    from kilter.measure.estimate import Estimate
    from kilter.measure.examples import Example, Stretch
    from kilter.measure.token_facts import TokenFacts

LABEL = 18  # cells of the column that says what a line is about
PROMPT_SHOWN, ANSWER_SHOWN, TAIL = 320, 240, 60  # characters
PROMPT_NAMED, OFTEN = 110, 3  # characters; rows that have a prompt before it is named
KEYS_SHOWN, SCRIPTS_SHOWN, LANGUAGES_SHOWN = 12, 6, 6

# What a section says: lines of a label and words.
Lines = Sequence[tuple[str, str | Text]]

# What rows of each kind train, by which command.
TRAINS: Mapping[str, str] = {
    "pair": "kilter align; kilter sft (the chosen answers)",
    "ranking": "kilter align (every two answers of different rank); kilter sft (the best)",
    "labelled": "kilter align --objective kto; kilter sft (the good answers)",
    "steps": "kilter align --objective kto (each step by itself)",
    "demonstration": "kilter sft",
}


def show(console: Console, facts: Facts, findings: Sequence[Finding], config: CheckConfig) -> None:
    """Print everything, the findings last."""
    if console.is_terminal:
        _show(console, facts, findings, config)
        return
    with console.capture() as captured:
        _show(console, facts, findings, config)
    for line in captured.get().splitlines():
        print(line.rstrip(), file=console.file)


def _show(console: Console, facts: Facts, findings: Sequence[Finding], config: CheckConfig) -> None:
    for file in facts.files:
        _section(console, _legible(file.name), _file(file))
    for file in facts.eval_files:
        _section(console, f"{_legible(file.name)}, to evaluate on", _file(file))
    _section(console, "Rows", list(_rows(facts)))
    _show_lengths(console, facts)
    if facts.tokens is not None:
        _section(console, "Tokens", list(_tokens(facts, facts.tokens)))
    _section(console, "Preferences", list(_preferences(facts)))
    _section(console, "Copies", list(_copies(facts)))
    _section(console, "Language", list(_language(facts)))
    if facts.estimate is not None:
        _section(console, "A run, estimated", list(_run(facts, facts.estimate, config)))
    _show_examples(console, facts.examples)
    _show_findings(console, findings)


def _section(console: Console, title: str, lines: Lines) -> None:
    if not lines:
        return
    _print(console, Text(title, style="bold"))
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=LABEL, style="dim", overflow="fold")
    grid.add_column(overflow="fold")
    for label, words in lines:
        grid.add_row(label, words if isinstance(words, Text) else Text(words))
    console.print(Padding(grid, (0, 0, 1, 2)))


def _file(file: FileFacts) -> Lines:
    known = f"{file.format}: {file.title}" if file.title else file.format
    lines = [("rows", f"{file.rows:,}"), ("format", known)]
    if file.bad_rows:
        lines.insert(1, ("bad rows", f"{file.bad_rows:,}, not counted below"))
    if file.read:
        lines.append(("keys read", ", ".join(map(printable, file.read))))
    if file.ignored:
        lines.append(("keys ignored", _listed([printable(key) for key in file.ignored], KEYS_SHOWN)))
    if file.note:
        lines.append(("found", _legible(file.note)))
    return lines


def _rows(facts: Facts) -> Iterator[tuple[str, str]]:
    for kind, rows in facts.kinds.items():
        yield _KINDS.get(kind, f"{kind}s"), f"{rows:,}, for {TRAINS[kind]}"
    turns = facts.turns
    if turns.conversations:
        parts = [f"{turns.several_answers:,} with earlier answers" if turns.several_answers else ""]
        parts += [f"{rows:,} with {part}" for part, rows in turns.parts.items()]
        said = ", ".join(filter(None, parts))
        yield "conversations", f"{turns.conversations:,}" + (f": {said}" if said else "")


def _show_lengths(console: Console, facts: Facts) -> None:
    lengths = facts.characters if facts.tokens is None else facts.tokens.lengths
    if not lengths:
        return
    unit = "characters (--model counts tokens)" if facts.tokens is None else "tokens"
    _print(console, Text(f"Lengths, in {unit}", style="bold"))
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    table.add_column("", width=LABEL, style="dim")
    for heading in ("half", "90%", "99%", "longest"):
        table.add_column(heading, justify="right", header_style="dim", min_width=8)
    for part, of in lengths.items():
        table.add_row(_PARTS.get(part, part), *_numbers(of))
    console.print(Padding(table, (0, 0, 1, 2)))


_PARTS = {"together": "prompt and answer", "tied": "tied answers", "ranked": "ranked answers"} | {
    part: f"{part} answer" for part in ("chosen", "rejected", "good", "bad")
}


def _numbers(of: Spread) -> tuple[str, ...]:
    return tuple(f"{number:,}" for number in (of.p50, of.p90, of.p99, of.longest))


def _tokens(facts: Facts, tokens: TokenFacts) -> Iterator[tuple[str, str]]:
    template = facts.template
    assert template is not None
    styles = {
        "template": "by the tokenizer's chat template",
        "hh": "in HH style (Human:, Assistant:)",
        "plain": "in plain style: contents alone",
        "text": "as they are: rows of text, to which no template is applied",
    }
    yield "rows are written", styles[template.style]
    bos = {
        "none": "no BOS",
        "added": "BOS put there by the tokenizer",
        "written": "BOS written by the template",
        "both": "one BOS (template and tokenizer would each write one)",
    }
    eos = {"added": "EOS put at the end", "written": "EOS written by the template"}
    yield "BOS and EOS", f"{bos[template.bos]}, {eos[template.eos]}"
    if tokens.nodes < tokens.tokens:
        yield "separate sequences", f"{tokens.tokens:,} tokens"
        yield (
            "in token trees",
            f"{tokens.nodes:,} nodes, {1 - tokens.nodes / tokens.tokens:.1%} saved by sharing starts",
        )
    elif tokens.tokens:
        yield "in all", f"{tokens.tokens:,} tokens"
    if facts.limit is not None:
        longer = tokens.overlong.rows
        over = f"{_counted(longer, 'row')} {'are' if longer != 1 else 'is'} longer" if longer else "every row fits"
        yield "limit", f"{facts.limit}; {over}"


def _preferences(facts: Facts) -> Iterator[tuple[str, str]]:
    bias = facts.bias if facts.tokens is None else facts.tokens.bias
    if bias is not None:
        equal = f"; {bias.equal:,} more of equal length" if bias.equal else ""
        yield "longer is better", f"in {_interval(bias.longer)} of {bias.pairs:,} pairs{equal}"
    if facts.ties:
        yield "ties", f"{facts.ties:,}, left out of training"
    if facts.graded:
        yield "graded", f"{facts.graded:,} pairs are preferred with less than certainty"
    if (balance := facts.balance) is not None:
        yield "labels", f"{balance.good:,} good, {balance.bad:,} bad; good are {_interval(balance.share)}"
    if (ranked := facts.ranked) is not None:
        longest = f", at most {ranked.longest:,}" if ranked.longest > ranked.p50 else ""
        yield "answers a ranking", f"{ranked.p50:,} in half of them or more{longest}" if longest else f"{ranked.p50:,}"


def _copies(facts: Facts) -> Iterator[tuple[str, str]]:
    found = facts.duplicates
    several = facts.rows - found.prompts
    yield "prompts", f"{found.prompts:,} different ones for {facts.rows:,} rows" if several else "all different"
    for label, count in (
        ("copies of rows", found.rows),
        ("contradictory rows", found.contradictory),
        ("differ in blanks", found.blank_pairs),
    ):
        if count:
            yield label, f"{count:,}"
    for often in found.frequent:
        if often.rows >= OFTEN:
            yield f"in {often.rows:,} rows", _clipped(often.text, PROMPT_NAMED)
    if (leaks := facts.leaks) is not None:
        if leaks.rows:
            yield "rows to evaluate on", f"{leaks.rows:,} of {leaks.eval_rows:,} are in the data"
        if leaks.prompts:
            yield "prompts of them", f"{leaks.prompts:,} of {leaks.eval_rows:,} are in the data, with other answers"
        if not leaks.rows and not leaks.prompts:
            yield "to evaluate on", f"none of {leaks.eval_rows:,} rows is in the data, nor its prompt"


def _language(facts: Facts) -> Iterator[tuple[str, str]]:
    scripts = [
        f"{script.name} {_share(script.share)}"
        + (f" (in {_counted(script.rows, 'row')})" if script.share < 0.1 else "")
        for script in facts.scripts
    ]
    if scripts:
        yield "letters", _listed(scripts, SCRIPTS_SHOWN)
    mix = [f"{_LANGUAGES.get(said.code, said.code)} {_share(said.share)}" for said in facts.languages.mix]
    if mix:
        sample = facts.languages.sample
        of = "all rows" if sample >= facts.rows else f"a sample of {sample:,} rows"
        yield "languages", f"{_listed(mix, LANGUAGES_SHOWN)} (of {of})"


def _listed(items: Sequence[str], most: int) -> str:
    more = [f"{len(items) - most:,} more"] if len(items) > most else []
    return ", ".join([*items[:most], *more])


# The ISO 639-1 codes met most often; others are shown as codes.
_LANGUAGES = {
    "": "unclear", "ar": "Arabic", "bn": "Bengali", "cs": "Czech", "da": "Danish", "de": "German", "el": "Greek",
    "en": "English", "es": "Spanish", "fa": "Persian", "fi": "Finnish", "fr": "French", "gu": "Gujarati",
    "he": "Hebrew", "hi": "Hindi", "hu": "Hungarian", "id": "Indonesian", "it": "Italian", "ja": "Japanese",
    "ko": "Korean", "la": "Latin", "mr": "Marathi", "ms": "Malay", "nl": "Dutch", "no": "Norwegian", "pl": "Polish",
    "pt": "Portuguese", "ro": "Romanian", "ru": "Russian", "sv": "Swedish", "sw": "Swahili", "ta": "Tamil",
    "te": "Telugu", "th": "Thai", "tl": "Tagalog", "tr": "Turkish", "uk": "Ukrainian", "ur": "Urdu",
    "vi": "Vietnamese", "zh": "Chinese",
}  # fmt: skip


def _run(facts: Facts, run: Estimate, config: CheckConfig) -> Iterator[tuple[str, str]]:
    yield (
        "assumed",
        (
            f"all {_short(run.parameters)} weights trained in float32 by AdamW, one epoch: {run.steps:,} steps of "
            f"{config.batch_size}, up to {config.node_budget:,} nodes at once, on {run.device}"
        ),
    )
    parts = {
        "weights": run.weights,
        "gradients": run.gradients,
        "moments": run.moments,
        "reference": run.reference,
        "activations": run.activations,
        "logits": run.logits,
    }
    yield "memory", f"about {_bytes(run.memory)}, and {_bytes(run.free)} are free"
    yield "", ", ".join(f"{name} {_bytes(size)}" for name, size in parts.items() if size)
    yield "time", f"about {_duration(run.seconds)}"
    yield (
        "",
        f"{_short(run.operations)} operations, {_PASSES[run.method]}, at {run.share_of_rate:.0%} of the "
        f"{_short(run.measured_rate)} a second that matrix products reach here now",
    )


_PASSES = {
    "pairs": "for forward and backward of the model and forward of its reference",
    "labelled": "for forward and backward of the model, and forward of both on all answers and on mismatched ones",
    "demonstrations": "for forward and backward of the model",
}


def _show_examples(console: Console, examples: Sequence[Example]) -> None:
    if not examples:
        return
    marked = "coloured" if console.is_terminal and not console.no_color else "in [brackets]"
    rendered = examples[0].tokens
    title = f"Examples; what is scored is {marked}" if rendered else "Examples, as read (--model shows tokens)"
    _print(console, Text(f"{title}; ↵ is a new line", style="bold"))
    for example in examples:
        _print(console, Text(f"  {_legible(str(example.origin))}"))
        lines: list[tuple[str, str | Text]] = []
        if example.prompt:
            lines.append(("prompt", Text(_ending(example.prompt), style="dim")))
        lines += [(answer.part, _stretches(answer.stretches, console)) for answer in example.answers]
        grid = Table.grid(padding=(0, 1))
        grid.add_column(width=10, style="dim")
        grid.add_column(overflow="fold")
        for label, words in lines:
            grid.add_row(label, words)
        console.print(Padding(grid, (0, 0, 1, 4)))


def _stretches(stretches: Sequence[Stretch], console: Console) -> Text:
    text = Text()
    coloured = console.is_terminal and not console.no_color
    room = max(ANSWER_SHOWN // max(len(stretches), 1), 30)
    for stretch in stretches:
        words = _clipped(stretch.text, room)
        if coloured:
            text.append(words, style="green" if stretch.scored else "dim")
        else:
            text.append(f"[{words}]" if stretch.scored else words)
    return text


def _show_findings(console: Console, findings: Sequence[Finding]) -> None:
    for title, style, some in (
        ("To mend", "bold red", [finding for finding in findings if finding.must]),
        ("Worth a look", "bold yellow", [finding for finding in findings if not finding.must]),
    ):
        if some:
            _print(console, Text(title, style=style))
        for finding in some:
            console.print(Padding(Text(f"{finding.what}."), (0, 0, 0, 2)))
            for line in finding.listed:
                console.print(Padding(Text(_legible(line), style="dim", overflow="fold"), (0, 0, 0, 6)))
            if finding.listed and finding.rows > len(finding.listed):
                more = f"and {finding.rows - len(finding.listed):,} more"
                console.print(Padding(Text(more, style="dim"), (0, 0, 0, 6)))
            console.print(Padding(Text(finding.remedy, style="italic"), (0, 0, 1, 4)))
    must = sum(finding.must for finding in findings)
    verdict = f"{_counted(must, 'thing')} must be mended." if must else "Nothing must be mended."
    _print(console, Text(verdict, style="bold red" if must else "bold green"))


def _print(console: Console, text: Text) -> None:
    console.print(text, overflow="fold", highlight=False)


# Words and numbers.


def _legible(text: str) -> str:
    """`text` on one line: ↵ for a new line, wide and other blanks as spaces, what cannot be seen written out."""
    flat = text.replace("\r\n", "↵").replace("\n", "↵").replace("\t", "    ").replace("\u3000", "  ")
    spaced = "".join(" " if unicodedata.category(c) == "Zs" else c for c in flat)
    return printable(spaced, len(spaced))


def _clipped(text: str, most: int) -> str:
    """The start and, of a longer text, the end."""
    if len(text) <= most:
        return _legible(text)
    tail = min(TAIL, most // 4)
    return f"{_legible(text[: most - tail])} … {_legible(text[-tail:])}"


def _ending(text: str) -> str:
    """The end of a prompt, which an answer follows."""
    return _legible(text) if len(text) <= PROMPT_SHOWN else f"… {_legible(text[-PROMPT_SHOWN:])}"


_KINDS = {"labelled": "labelled answers", "steps": "answers in steps"}


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _interval(share: Interval) -> str:
    return f"{share.value:.1%} ({share.low:.1%} to {share.high:.1%})"


def _share(share: float) -> str:
    if 0 < share < 0.001:
        return "under 0.1%"
    return "over 99.9%" if 0.9995 <= share < 1 else f"{share:.1%}"


def _short(number: float) -> str:
    """1,234 as 1.2 thousand, and so on."""
    for unit, name in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:.3g}{name}"
    return f"{number:.0f}"


def _bytes(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def _duration(seconds: float) -> str:
    for unit, name, most in ((1, "seconds", 90), (60, "minutes", 90 * 60), (3600, "hours", 48 * 3600)):
        if seconds < most:
            return f"{max(seconds / unit, 1):.0f} {name}"
    return f"{seconds / 86400:.1f} days"
