"""Claims about canonical rows: every record reads back from its own, by the format that it names."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kilter.data.canonical import canonical_format, canonical_row
from kilter.data.conversations import looks_like_chat, looks_like_transcript
from kilter.data.formats import FORMATS, PROMPT_FORMATS, recognise
from kilter.data.records import VIEWS, Demonstration, Labelled, Message, Origin, Pair, Prompt, Ranking, Record, Steps

HERE = Origin("rows.jsonl", 7)
KNOWN = FORMATS | PROMPT_FORMATS


def compact(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
said = words.filter(str.strip)
texts = said.filter(lambda text: not looks_like_chat(text) and not looks_like_transcript(text))
numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-5, 5).map(float)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | numbers | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=5,
)


@st.composite
def calls(draw: st.DrawFn) -> dict[str, Any]:
    call: dict[str, Any] = {
        "type": "function",
        "function": {"name": draw(said), "arguments": draw(st.dictionaries(words, plain, max_size=2))},
    }
    return call | ({"id": draw(said)} if draw(st.booleans()) else {})


@st.composite
def turns(draw: st.DrawFn, role: str) -> Message:
    more: dict[str, Any] = {}
    if role == "assistant" and draw(st.booleans()):
        more["tool_calls"] = draw(st.lists(calls(), min_size=1, max_size=2))
    if role == "assistant" and draw(st.booleans()):
        more["reasoning_content"] = draw(said)
    if role == "tool":
        more |= draw(st.fixed_dictionaries({}, optional={"name": said, "tool_call_id": said}))
    return Message(role, draw(words if "tool_calls" in more else said), compact(more) if more else "")


asking = st.lists(st.sampled_from(["system", "developer", "user", "assistant", "tool"]), max_size=3).flatmap(
    lambda roles: st.tuples(*(turns(role) for role in [*roles, "user"]))
)
replying = st.just(()) | st.tuples(turns("assistant"), turns("tool"))
answers = st.tuples(replying, turns("assistant")).map(lambda both: (*both[0], both[1]))
tools = st.lists(st.dictionaries(words, plain, max_size=3), max_size=2).map(
    lambda listed: compact(listed) if listed else ""
)
scores = st.none() | numbers


@st.composite
def records(draw: st.DrawFn) -> Record:
    is_text = draw(st.booleans())
    asked, answer = (texts, texts) if is_text else (asking, answers)
    listed = "" if is_text else draw(tools)
    prompt: Any = draw(asked)
    one, other = draw(st.lists(answer, min_size=2, max_size=2, unique=True))
    match draw(st.sampled_from([Pair, Labelled, Ranking, Steps, Demonstration, Prompt])):
        case kind if kind is Pair:
            grade = draw(st.floats(0.5, 1))
            return Pair(prompt, one, other, HERE, grade, draw(scores), draw(scores), draw(scores), listed)
        case kind if kind is Labelled:
            return Labelled(prompt, one, draw(st.booleans()), HERE, listed)
        case kind if kind is Ranking:
            return Ranking(prompt, (one, other), (draw(numbers), draw(numbers)), HERE, listed)
        case kind if kind is Steps:
            steps = draw(st.lists(said, min_size=1, max_size=3))
            right = draw(st.lists(st.booleans(), min_size=len(steps), max_size=len(steps)))
            return Steps(draw(texts), tuple(steps), tuple(right), HERE, draw(st.just("\n") | said))
        case kind if kind is Demonstration:
            whole = not is_text and draw(st.booleans())
            return Demonstration((), prompt + one, HERE, listed) if whole else Demonstration(prompt, one, HERE, listed)
    return Prompt(prompt, HERE, listed)


@given(records())
def test_a_record_reads_back_from_its_canonical_row(record: Record) -> None:
    line = json.dumps(canonical_row(record), ensure_ascii=False, allow_nan=False)
    row = json.loads(line)
    name = canonical_format(record)
    assert KNOWN[name].convert(row, HERE) == record
    assert recognise([(HERE, row)], tuple(VIEWS)).name == name
    assert list(KNOWN[name].unread(row)) == []


def test_what_says_nothing_is_not_written() -> None:
    pair = Pair("q", "a", "b", HERE)
    assert canonical_row(pair) == {"prompt": "q", "chosen": "a", "rejected": "b"}
    assert canonical_row(replace(pair, preference=0.5, margin=0.0)) == {
        "prompt": "q",
        "chosen": "a",
        "rejected": "b",
        "preference": 0.5,
        "margin": 0,
    }
