"""What to make of the facts: what must be mended before training, and what is worth a look.

What must be mended makes training refuse to start (rows that cannot be used, rows too long), trains on something other
than what the data says (a template that loses parts, BOS twice), or makes an evaluation wrong (rows to evaluate on
that were trained on). All else is a remark: contradictory rows are what people who disagree leave behind, and copies
weigh more, but neither is an error by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kilter.data.records import VIEWS, Demonstration, Labelled, Pair, Ranking, Steps
from kilter.measure.config import CheckConfig
from kilter.measure.facts import Facts

if TYPE_CHECKING:
    from kilter.measure.token_facts import Found, TokenFacts

# A longer answer chosen as often as this, or as seldom as 1 minus this, is worth a look; so are labels.
LOPSIDED, LOPSIDED_LABELS = 0.6, 0.9
# A prompt that has this share of the rows, and so many of them.
FREQUENT_SHARE, FREQUENT_ROWS = 0.01, 10
KINDS = {kind.__name__.lower(): kind for kind in (Pair, Labelled, Ranking, Steps, Demonstration)}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something found: what, in which rows (the first ones), and what to do about it."""

    must: bool
    what: str
    rows: int
    listed: tuple[str, ...]
    remedy: str


def findings_of(facts: Facts, config: CheckConfig) -> tuple[Finding, ...]:
    """What must be mended first, then what is worth a look."""
    found = [*_of_files(facts, config), *_of_rows(facts)]
    if facts.tokens is not None:
        found += [*_of_limits(facts, facts.tokens, config), *_of_template(facts, facts.tokens, config)]
        found += _of_special_tokens(facts.tokens)
    found += [*_of_copies(facts), *_of_preferences(facts), *_of_memory(facts)]
    return tuple(sorted(found, key=lambda finding: not finding.must))


def _of_files(facts: Facts, config: CheckConfig) -> Iterator[Finding]:
    for file in (*facts.files, *facts.eval_files):
        if file.bad_rows:
            yield Finding(
                not config.skip_bad,
                f"{_rows(file.bad_rows)} of {file.rows + file.bad_rows:,} cannot be used",
                file.bad_rows,
                file.listed_bad_rows,
                "They are left out." if config.skip_bad else "Mend them, or train with --skip-bad to leave them out.",
            )


def _of_rows(facts: Facts) -> Iterator[Finding]:
    kinds = {KINDS[name] for name in facts.kinds}
    if not any(kinds <= VIEWS[kind].keys() for kind in (Pair, Labelled, Demonstration)):
        listed = tuple(f"{file.name}: {file.format}" for file in facts.files)
        yield Finding(True, "The files hold rows that do not go together", facts.rows, listed, "Train on one kind.")
    if facts.ties and facts.ties == facts.rows:
        yield Finding(True, "Every row is a tie", facts.ties, (), "Give pairs of which one answer is better.")
    if facts.balance is not None and not (facts.balance.good and facts.balance.bad):
        kind = "good" if facts.balance.good else "bad"
        remedy = "KTO learns from the contrast; add answers of the other kind" + (
            ", or learn these with kilter sft." if facts.balance.good else "."
        )
        yield Finding(False, f"Every answer is labelled {kind}", facts.rows, (), remedy)


def _of_limits(facts: Facts, tokens: TokenFacts, config: CheckConfig) -> Iterator[Finding]:
    assert facts.limit is not None
    why, remedy = {
        "max_length": ("--max-length", "Raise --max-length"),
        "positions": ("the positions the model has", "Shorten them"),
        "node_budget": ("--node-budget", f"Raise --node-budget to {_longest(tokens):,}"),
    }[facts.limit.by]
    longer = tokens.overlong.rows
    what = f"{_rows(longer)} of {tokens.rows:,} {_are(longer)} longer than {facts.limit.tokens:,} tokens ({why})"
    if tokens.overlong.rows and config.on_overflow == "refuse":
        remedy += ", cut long prompts with --max-prompt" if "prompt" in tokens.lengths else ""
        remedy += ", or leave the rows out with --on-overflow drop."
        yield _finding(True, what, tokens.overlong, remedy)
    elif tokens.overlong.rows:
        yield _finding(False, what, tokens.overlong, "They are left out (--on-overflow drop).")
    if tokens.prompts_cut:
        yield Finding(
            False,
            f"{tokens.prompts_cut:,} prompts are cut to {config.max_prompt:,} tokens, "
            f"by {tokens.prompt_tokens_cut:,} in all",
            tokens.prompts_cut,
            (),
            "Raise --max-prompt where the model has room.",
        )


def _longest(tokens: TokenFacts) -> int:
    return max((lengths.longest for lengths in tokens.lengths.values()), default=0)


def _of_template(facts: Facts, tokens: TokenFacts, config: CheckConfig) -> Iterator[Finding]:
    if tokens.refused.rows:
        remedy = "They are left out." if config.skip_bad else "Mend them, train with --skip-bad to leave them out, "
        remedy += "" if config.skip_bad else "or try another --style."
        what = f"{_rows(tokens.refused.rows)} cannot be written out for the model"
        yield _finding(not config.skip_bad, what, tokens.refused, remedy)
    for part in facts.template.lost if facts.template else ():
        yield Finding(
            True,
            f"The chat template loses the {part} of {_rows(facts.turns.parts[part])}",
            facts.turns.parts[part],
            (str(facts.turns.first[part]),),
            "Mend the tokenizer's chat template, or move their text into a turn that it writes.",
        )
    if tokens.same_ids.rows:
        what = f"Both answers of {_pairs(tokens.same_ids.rows)} are the same tokens"
        yield _finding(False, what, tokens.same_ids, "They teach nothing; remove them.")
    if tokens.empty_answers:
        what = f"{_rows(tokens.empty_answers)} have an answer without a word"
        yield Finding(False, what, tokens.empty_answers, (), "See whether an answer may be empty.")
    if tokens.trailing_turns:
        what = f"{tokens.trailing_turns:,} turns after a last answer are left out"
        yield Finding(False, what, tokens.trailing_turns, (), "No answer follows them; nothing is lost.")


def _of_special_tokens(tokens: TokenFacts) -> Iterator[Finding]:
    for must, found, what, remedy in (
        (True, tokens.doubled_bos, "begin with BOS twice", "Remove it from the text; one is put there."),
        (
            False,
            tokens.text_bos,
            "of text begin with BOS written out",
            "kilter keeps it as the only BOS; other trainers may add a second one.",
        ),
        (
            False,
            tokens.text_eos,
            "of text end with EOS written out",
            "kilter keeps it as the only EOS; other trainers may add a second one.",
        ),
        (False, tokens.inner_eos, "have EOS within an answer", "A model would stop there; split or mend them."),
        (False, tokens.other_special, "of text hold other special tokens", "They are read as such, not as text."),
        (
            False,
            tokens.unknown,
            "hold characters that the tokenizer does not know",
            "The model sees one token for all of them; take a model that knows them.",
        ),
    ):
        if found.rows:
            yield _finding(must, f"{_rows(found.rows)} {what}", found, remedy)


def _of_copies(facts: Facts) -> Iterator[Finding]:
    found, leaks = facts.duplicates, facts.leaks
    if leaks is not None and leaks.rows:
        yield Finding(
            True,
            f"{_rows(leaks.rows)} of {leaks.eval_rows:,} to evaluate on {_are(leaks.rows)} in the data",
            leaks.rows,
            _strings(leaks.listed_rows),
            "An evaluation would measure memory; take them out of one side.",
        )
    if leaks is not None and leaks.prompts:
        yield Finding(
            False,
            f"{leaks.prompts:,} of {leaks.eval_rows:,} prompts to evaluate on are in the data, with other answers",
            leaks.prompts,
            _strings(leaks.listed_prompts),
            "Split by prompt, so that the evaluation asks something new.",
        )
    if found.contradictory:
        says = "says" if found.contradictory == 1 else "say"
        yield Finding(
            False,
            f"{_rows(found.contradictory)} {says} the opposite of an earlier one about the same answers",
            found.contradictory,
            _strings(found.listed_contradictory),
            "They cancel out. Keep them if people disagreed; else find out which is right.",
        )
    if found.rows:
        yield Finding(
            False,
            f"{_rows(found.rows)} {'is a copy' if found.rows == 1 else 'are copies'} of an earlier one",
            found.rows,
            _strings(found.listed_rows),
            "Each copy counts again; remove them unless that is meant.",
        )
    if found.blank_pairs:
        yield Finding(
            False,
            f"Answers of {_pairs(found.blank_pairs)} differ in blanks alone",
            found.blank_pairs,
            _strings(found.listed_blank_pairs),
            "The model would learn about blanks; remove them unless that is meant.",
        )
    often = found.frequent[0] if found.frequent else None
    if often and often.rows >= max(FREQUENT_ROWS, FREQUENT_SHARE * facts.rows):
        yield Finding(
            False,
            f"One prompt has {_rows(often.rows)} of {facts.rows:,}",
            often.rows,
            (str(often.first),),
            "It weighs as much; keep fewer of them unless that is meant.",
        )


def _of_preferences(facts: Facts) -> Iterator[Finding]:
    bias = facts.bias if facts.tokens is None else facts.tokens.bias
    if bias is not None and bias.longer.low > 0.5 and bias.longer.value >= LOPSIDED:
        yield Finding(
            False,
            f"The longer answer is the better one in {bias.longer.value:.0%} of pairs",
            bias.pairs,
            (),
            "A model learns length from such data. --objective ipo_mean counts by token; watch answers grow.",
        )
    if bias is not None and bias.longer.high < 0.5 and bias.longer.value <= 1 - LOPSIDED:
        yield Finding(
            False,
            f"The shorter answer is the better one in {1 - bias.longer.value:.0%} of pairs",
            bias.pairs,
            (),
            "A model learns length from such data. --objective ipo_mean counts by token; watch answers shrink.",
        )
    if (balance := facts.balance) is not None and 1 - LOPSIDED_LABELS < balance.share.value < LOPSIDED_LABELS:
        return
    if balance is not None and balance.good and balance.bad:
        yield Finding(
            False,
            f"{balance.share.value:.0%} of answers are labelled good",
            balance.good + balance.bad,
            (),
            "KTO weighs the sides with --desirable-weight and --undesirable-weight.",
        )


def _of_memory(facts: Facts) -> Iterator[Finding]:
    if (run := facts.estimate) is not None and run.memory > run.free:
        yield Finding(
            False,
            f"Training all weights takes about {run.memory / 2**30:.1f} GiB, and {run.free / 2**30:.1f} are free",
            0,
            (),
            "Try --lora-rank 16, --weights bfloat16, --optimizer adafactor or --activation-checkpointing.",
        )


def _finding(must: bool, what: str, found: Found, remedy: str) -> Finding:
    listed = tuple(f"{origin}: {said}" if said else str(origin) for origin, said in found.listed)
    return Finding(must, what, found.rows, listed, remedy)


def _strings(listed: Iterable[object]) -> tuple[str, ...]:
    return tuple(map(str, listed))


def _rows(number: int) -> str:
    return f"{number:,} row{'s' * (number != 1)}"


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def _pairs(number: int) -> str:
    return f"{number:,} pair{'s' * (number != 1)}"
