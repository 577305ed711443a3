"""Rows that compare answers, as records: pairs and rankings.

Where a row names the winner, the other answer is the rejected one; a verdict that is no choice becomes a Pair whose
`preference` is 1/2 (a tie) or between 1/2 and 1 (a grade).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from typing import NamedTuple

from kilter.data.answers import check_answer, check_prompt, like
from kilter.data.conversations import (
    answered,
    chat,
    instruction,
    looks_like_chat,
    looks_like_transcript,
    messages,
    tools,
    transcript,
    with_system,
)
from kilter.data.fields import (
    Row,
    RowError,
    clean,
    kind_of,
    number,
    optional_number,
    parsed,
    printable,
    shown,
    text,
    yes_no,
)
from kilter.data.records import Content, Message, Origin, Pair, Ranking

# Where raters' scores of the two answers are found, whatever else a format is made of.
SCORE_KEYS: Mapping[str, tuple[str, ...]] = {
    "chosen": ("score_chosen", "chosen_score", "chosen-rating", "chosen_rating", "chosen_avg_rating", "rating_chosen"),
    "rejected": (
        "score_rejected",
        "rejected_score",
        "rejected-rating",
        "rejected_rating",
        "rejected_avg_rating",
        "rating_rejected",
    ),
}


class Side(NamedTuple):
    """An answer, the key that holds it, and the score that raters gave it."""

    key: str
    answer: Content
    score: float | None = None


def _pair(
    row: Row,
    origin: Origin,
    prompt: Content,
    chosen: Side,
    rejected: Side,
    *,
    preference: float = 1.0,
    margin: float | None = None,
    asks: str = "prompt",
) -> Pair:
    check_prompt(asks, prompt)
    if chosen.answer == rejected.answer:
        raise RowError(rejected.key, f"is identical to {chosen.key}; expected two different answers")
    for side in (chosen, rejected):
        if not side.answer:
            raise RowError(side.key, "has nothing after the prompt; expected an answer")
    for side in (chosen, rejected):
        check_answer(side.key, side.answer)
    listed = "" if isinstance(prompt, str) else tools(row)
    return Pair(
        prompt, chosen.answer, rejected.answer, origin, preference, chosen.score, rejected.score, margin, listed
    )


def _chosen_pair(
    row: Row,
    origin: Origin,
    prompt: Content,
    chosen: Content,
    rejected: Content,
    keys: tuple[str, str] = ("chosen", "rejected"),
    asks: str = "prompt",
) -> Pair:
    """A pair whose row says which answer is chosen; its scores, margin and grade are kept."""
    better, worse = (Side(key, answer) for key, answer in zip(keys, (chosen, rejected), strict=True))
    return _pair(
        row,
        origin,
        with_system(row, prompt) if isinstance(prompt, tuple) and prompt else prompt,
        better._replace(score=_score(row, "chosen")),
        worse._replace(score=_score(row, "rejected")),
        preference=_grade(row),
        margin=optional_number(row, "margin"),
        asks=asks,
    )


def _score(row: Row, side: str) -> float | None:
    found = {key: score for key in SCORE_KEYS[side] if (score := optional_number(row, key)) is not None}
    if len(set(found.values())) > 1:
        raise RowError(list(found)[1], f"differs from {next(iter(found))}; expected one score; remove one of them")
    return next(iter(found.values()), None)


def _grade(row: Row) -> float:
    """How likely the chosen answer is the better one, where a row says so."""
    if row.get("preference") in (None, ""):
        return 1.0
    expected = "the probability that chosen is better, 0.5 to 1; rename it if it means something else"
    grade = number("preference", row["preference"], expected)
    if not 0.5 <= grade <= 1:
        raise RowError("preference", f"is {shown(grade)}; expected {expected}")
    return grade


def _voted_pair(
    row: Row, origin: Origin, prompt: Content, first: Side, second: Side, for_first: float, asks: str = "prompt"
) -> Pair:
    """A pair whose row says how likely the first answer is the better one."""
    if for_first >= 0.5:
        return _pair(row, origin, prompt, first, second, preference=for_first, asks=asks)
    return _pair(row, origin, prompt, second, first, preference=1 - for_first, asks=asks)


def _answer(row: Row, key: str) -> tuple[Message, ...]:
    """An answer within a conversation: messages, or the words of one."""
    value = row.get(key)
    if isinstance(value, str) and not looks_like_chat(value):
        return answered(text(row, key))
    return chat(row, key)


# Texts.


def pair_of_texts(row: Row, origin: Origin) -> Pair:
    prompt, chosen, rejected = (text(row, key) for key in ("prompt", "chosen", "rejected"))
    if looks_like_transcript(chosen):
        raise RowError(
            "prompt",
            "stands beside whole transcripts; expected answers only; remove it to have them read as hh",
        )
    return _chosen_pair(row, origin, prompt, chosen, rejected)


def pair_of_whole_texts(row: Row, origin: Origin) -> Pair:
    chosen, rejected = text(row, "chosen"), text(row, "rejected")
    for key, whole in ("chosen", chosen), ("rejected", rejected):
        if not whole.strip():
            raise RowError(key, "is empty; expected a prompt with an answer")
        if looks_like_transcript(whole):
            raise RowError(key, "is a transcript among plain texts; expected one or the other; see the format hh")
    if chosen == rejected:
        raise RowError("rejected", "is identical to chosen; expected two different answers")
    shared = _shared_beginning(chosen, rejected)
    if not shared.strip():
        raise RowError(
            "rejected",
            "shares no beginning with chosen; expected texts that begin with their prompt; give it a key, prompt",
        )
    return _chosen_pair(row, origin, shared, chosen[len(shared) :], rejected[len(shared) :])


def _shared_beginning(one: str, other: str) -> str:
    """What both texts begin with, cut back to a whole word; a blank before the answers is theirs."""
    differing = (place for place, (mine, yours) in enumerate(zip(one, other, strict=False)) if mine != yours)
    cut = next(differing, min(len(one), len(other)))
    while cut and any(_within_word(whole, cut) for whole in (one, other)):
        cut -= 1
    return one[:cut].rstrip(" ")


def _within_word(whole: str, cut: int) -> bool:
    """Whether a cut would part a word, or a character from its accents."""
    if cut >= len(whole):
        return False
    before, after = whole[cut - 1], whole[cut]
    if unicodedata.category(after).startswith("M") or "\u200d" in (before, after):
        return True
    return all(c.isalnum() and not _stands_alone(c) for c in (before, after))


def _stands_alone(character: str) -> bool:
    """Whether words are not parted by blanks in its script (Chinese, Japanese, Thai, Lao, Khmer, Burmese)."""
    return unicodedata.name(character, "").startswith(
        ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")
    )


def hh(row: Row, origin: Origin) -> Pair:
    if row.get("prompt") is not None:
        raise RowError("prompt", "stands beside whole transcripts; expected it to be absent; remove it")
    (*prompt, chosen), (*other_prompt, rejected) = transcript(row, "chosen"), transcript(row, "rejected")
    if prompt != other_prompt:
        raise RowError("rejected", "differs from chosen before the last turn; expected two answers to one prompt")
    return _chosen_pair(row, origin, tuple(prompt), (chosen,), (rejected,))


# Conversations.


def pair_of_chats(row: Row, origin: Origin) -> Pair:
    prompt, chosen, rejected = (chat(row, key) for key in ("prompt", "chosen", "rejected"))
    _refuse_repeated("prompt", prompt, "chosen", chosen)
    return _chosen_pair(row, origin, prompt, chosen, rejected)


def _refuse_repeated(asks: str, prompt: tuple[Message, ...], key: str, answer: tuple[Message, ...]) -> None:
    if answer[: len(prompt)] == prompt:
        raise RowError(
            asks,
            f"is repeated in {key}; expected it once; remove it to have the rows read as pair-chat-implicit",
        )


def pair_of_whole_chats(row: Row, origin: Origin) -> Pair:
    if row.get("prompt") is not None:
        raise RowError(
            "prompt",
            f"is {kind_of(row['prompt'])} beside conversations; expected none, or messages in every row; "
            "remove it if chosen and rejected repeat it, else write it as a list of messages",
        )
    return _chosen_pair(row, origin, *_apart(chat(row, "chosen"), chat(row, "rejected")))


def _apart(
    chosen: tuple[Message, ...], rejected: tuple[Message, ...]
) -> tuple[tuple[Message, ...], tuple[Message, ...], tuple[Message, ...]]:
    """The turns that two conversations begin with, and what follows in each."""
    parting = (turn for turn, (one, other) in enumerate(zip(chosen, rejected, strict=False)) if one != other)
    shared = next(parting, min(len(chosen), len(rejected)))
    if not shared:
        raise RowError("rejected", "has no first turn in common with chosen; expected two answers to one prompt")
    return chosen[:shared], chosen[shared:], rejected[shared:]


def ultrafeedback(row: Row, origin: Origin) -> Pair:
    """The prompt is a text that the conversations repeat; where they are answers alone, it is the user's turn."""
    asked, chosen, rejected = text(row, "prompt"), chat(row, "chosen"), chat(row, "rejected")
    check_prompt("prompt", asked)
    if chosen[0].role == rejected[0].role == "assistant":
        return _chosen_pair(row, origin, (Message("user", asked),), chosen, rejected)
    prompt, chosen, rejected = _apart(chosen, rejected)
    if chosen != rejected and all(turn.content.strip() != asked.strip() for turn in prompt):
        raise RowError(
            "prompt",
            "is not among the turns that chosen and rejected begin with; expected one of them, or answers alone; "
            "rename it if the conversations say all",
        )
    return _chosen_pair(row, origin, prompt, chosen, rejected)


def pair_after(key: str) -> Callable[[Row, Origin], Pair]:
    """Messages, and two answers to them: messages, or their words."""

    def convert(row: Row, origin: Origin) -> Pair:
        prompt, chosen, rejected = chat(row, key), _answer(row, "chosen"), _answer(row, "rejected")
        _refuse_repeated(key, prompt, "chosen", chosen)
        return _chosen_pair(row, origin, prompt, chosen, rejected, asks=key)

    return convert


def openai(row: Row, origin: Origin) -> Pair:
    given = parsed("input", row.get("input"))
    if not isinstance(given, dict):
        raise RowError("input", f"is {kind_of(given)}; expected an object with messages, and tools where there are any")
    prompt = messages("input.messages", given.get("messages"))
    preferred, other = chat(row, "preferred_output"), chat(row, "non_preferred_output")
    beside = row | {"tools": row["tools"] if given.get("tools") is None and "tools" in row else given.get("tools")}
    keys = ("preferred_output", "non_preferred_output")
    return _chosen_pair(beside, origin, prompt, preferred, other, keys, asks="input.messages")


def swift(row: Row, origin: Origin) -> Pair:
    """A conversation that ends with the chosen answer, and what was rejected in its place."""
    turns = chat(row, "messages")
    answers = next((i for i, turn in enumerate(reversed(turns)) if turn.role != "assistant"), len(turns))
    prompt, chosen = turns[: len(turns) - answers], turns[len(turns) - answers :]
    if not chosen:
        raise RowError("messages", f"ends with a turn by the {turns[-1].role}; expected the chosen answer last")
    rejected = _answer(row, "rejected_response")
    if rejected[: len(prompt)] == prompt and len(rejected) > len(prompt):
        rejected = rejected[len(prompt) :]
    check_prompt("messages", prompt, "what the answer replies to, before it")
    return _chosen_pair(row, origin, prompt, chosen, rejected, ("messages", "rejected_response"), asks="messages")


# Instructions.


def pair_on_instruction(key: str, answers: tuple[str, str], more: str = "input") -> Callable[[Row, Origin], Pair]:
    """What a user asks under `key`, and two answers in words."""

    def convert(row: Row, origin: Origin) -> Pair:
        chosen, rejected = (answered(text(row, answer)) for answer in answers)
        return _chosen_pair(row, origin, instruction(row, key, more), chosen, rejected, answers, asks=key)

    return convert


def intel(row: Row, origin: Origin) -> Pair:
    key = "input" if row.get("question") is None and row.get("input") is not None else "question"
    return pair_on_instruction(key, ("chosen", "rejected"), more="")(row, origin)


def alpaca_eval(row: Row, origin: Origin) -> Pair:
    """Above 1.5 the second output is the better one; 1.5, and in older files 0, is a draw."""
    prompt = instruction(row, "instruction")
    first, second = (Side(key, answered(text(row, key))) for key in ("output_1", "output_2"))
    expected = "1 (output_1 is better) to 2 (output_2 is), or 0 for a draw"
    preference = number("preference", row.get("preference"), expected)
    if not (preference == 0 or 1 <= preference <= 2):
        raise RowError("preference", f"is {shown(preference)}; expected {expected}")
    grade = abs(preference - 1.5) + 0.5 if preference else 0.5
    better, worse = (second, first) if preference > 1.5 else (first, second)
    return _voted_pair(row, origin, prompt, better, worse, grade, asks="instruction")


def pku(row: Row, origin: Origin) -> Pair:
    prompt = instruction(row, "prompt", more="")
    first, second = (Side(key, answered(text(row, key))) for key in ("response_0", "response_1"))
    better = number("better_response_id", row.get("better_response_id"), "0 or 1")
    if better not in (0, 1):
        raise RowError("better_response_id", f"is {shown(better)}; expected 0 or 1")
    return _voted_pair(row, origin, prompt, first, second, 1 - better)


def shp(row: Row, origin: Origin) -> Pair:
    asked = text(row, "history")
    check_prompt("history", asked)
    first, second = (
        Side(f"human_ref_{side}", answered(text(row, f"human_ref_{side}")), optional_number(row, f"score_{side}"))
        for side in "AB"
    )
    first_is_better = yes_no("labels", row.get("labels"))
    return _voted_pair(row, origin, (Message("user", asked),), first, second, float(first_is_better), asks="history")


# Arenas.

_VERDICTS = {"model_a": 1.0, "model_b": 0.0, "tie": 0.5, "tie (bothbad)": 0.5, "both_bad": 0.5}


def arena(row: Row, origin: Origin) -> Pair:
    one, other = chat(row, "conversation_a"), chat(row, "conversation_b")
    asked, also_asked = ([turn if turn.role != "assistant" else None for turn in turns] for turns in (one, other))
    if asked != also_asked:
        raise RowError("conversation_b", "asks other things than conversation_a; expected the same turns by the user")
    if one == other:
        raise RowError("conversation_b", "is identical to conversation_a; expected two different answers")
    winner = row.get("winner")
    if not isinstance(winner, str) or winner not in _VERDICTS:
        found = f"'{printable(winner)}'" if isinstance(winner, str) else kind_of(winner)
        raise RowError("winner", f"is {found}; expected one of {', '.join(_VERDICTS)}")
    shared = next(turn for turn, (mine, yours) in enumerate(zip(one, other, strict=True)) if mine != yours)
    check_prompt("conversation_a", one[:shared], "a user's turn before the answers")
    sides = Side("conversation_a", one[shared:]), Side("conversation_b", other[shared:])
    return _voted_pair(row, origin, with_system(row, one[:shared]), *sides, _VERDICTS[winner], asks="conversation_a")


_ONE_HOT = {"winner_model_a": 1.0, "winner_model_b": 0.0, "winner_tie": 0.5}


def arena_one_hot(row: Row, origin: Origin) -> Pair:
    asked, *answers = (_rounds(row, key) for key in ("prompt", "response_a", "response_b"))
    for key, said in zip(("response_a", "response_b"), answers, strict=True):
        if len(said) != len(asked):
            raise RowError(key, f"has {len(said)} turns for {len(asked)} of the prompt; expected as many")
    won = [key for key in _ONE_HOT if yes_no(key, row.get(key))]
    if len(won) != 1:
        raise RowError(won[1] if won else "winner_model_a", "is no verdict; expected 1 for one of three, 0 for others")
    one, other = (
        tuple(Message(role, said) for turns in zip(asked, answer, strict=True) for role, said in _named(turns))
        for answer in answers
    )
    if one == other:
        raise RowError("response_b", "is identical to response_a; expected two different answers")
    shared = next(turn for turn, (mine, yours) in enumerate(zip(one, other, strict=True)) if mine != yours)
    sides = Side("response_a", one[shared:]), Side("response_b", other[shared:])
    return _voted_pair(row, origin, one[:shared], *sides, _ONE_HOT[won[0]])


def _named(turns: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    return ("user", turns[0]), ("assistant", turns[1])


def _rounds(row: Row, key: str) -> list[str]:
    """A list of turns, also as JSON text; other text is a turn by itself."""
    value = row.get(key)
    if isinstance(value, str) and value.lstrip().startswith(('["', "[null", "[]")):
        value = parsed(key, value)
    if not isinstance(value, list):
        return [_turn(key, value)]
    if not value:
        raise RowError(key, "is an empty list; expected turns, each a text")
    return [_turn(f"{key}[{index}]", turn) for index, turn in enumerate(value)]


def _turn(field: str, said: object) -> str:
    written = clean(field, said)
    if not written.strip():
        raise RowError(field, "is empty; expected words")
    return written


# Rankings.


def ranking(row: Row, origin: Origin) -> Ranking:
    prompt = _ranked_prompt(row)
    listed = parsed("answers", row.get("answers"))
    if not isinstance(listed, list):
        raise RowError("answers", f"is {kind_of(listed)}; expected a list of answers, each with its rank")
    if len(listed) < 2:
        raise RowError("answers", f"has {len(listed)}; expected two answers or more")
    ranked: dict[Content, float] = {}
    answers, ranks = [], []
    for index, item in enumerate(listed):
        field = f"answers[{index}]"
        if not isinstance(item, dict):
            raise RowError(field, f"is {kind_of(item)}; expected an object with answer and rank")
        answer = _ranked_answer(f"{field}.answer", item, prompt)
        rank = number(f"{field}.rank", item.get("rank"), "a number, lower for better")
        if ranked.setdefault(answer, rank) != rank:
            raise RowError(f"{field}.answer", "stands in the list with another rank too; expected one rank an answer")
        answers.append(answer)
        ranks.append(rank)
    if len(ranked) < 2:
        raise RowError("answers", "are all identical; expected two different answers or more")
    return Ranking(prompt, tuple(answers), tuple(ranks), origin, "" if isinstance(prompt, str) else tools(row))


def _ranked_prompt(row: Row) -> Content:
    if not looks_like_transcript(row.get("prompt")):
        prompt = like(row.get("prompt"))(row, "prompt")
    else:
        turns = transcript(row, "prompt")
        prompt = turns[:-1] if turns[-1] == Message("assistant", "") else turns
    if isinstance(prompt, tuple) and prompt:
        prompt = with_system(row, prompt)
    check_prompt("prompt", prompt)
    return prompt


def _ranked_answer(field: str, item: Row, prompt: Content) -> Content:
    value = item.get("answer")
    if isinstance(prompt, str):
        answer: Content = clean(field, value)
    elif isinstance(value, str) and not looks_like_chat(value):
        answer = answered(clean(field, value))
    else:
        answer = messages(field, value)
    check_answer(field, answer)
    return answer
