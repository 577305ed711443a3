"""Messages in every dialect, what chat templates read of them besides words, and what stands beside a conversation."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kilter.data.conversations import looks_like_chat, messages, tools, with_system
from kilter.data.fields import RowError
from kilter.data.records import Message


def refusal(*turns: object) -> str:
    with pytest.raises(RowError) as caught:
        messages("m", list(turns))
    return str(caught.value)


def more(message: Message) -> Any:
    return json.loads(message.more) if message.more else {}


def test_both_dialects_say_the_same() -> None:
    said = [("system", "system"), ("user", "human"), ("assistant", "gpt"), ("tool", "observation")]
    by_role = messages("m", [{"role": role, "content": role} for role, _ in said])
    by_from = messages("m", [{"from": name, "value": role} for role, name in said])
    assert by_role == by_from == tuple(Message(role, role) for role, _ in said)


def test_a_list_may_be_written_as_json_and_a_message_stand_alone() -> None:
    turn = {"role": "user", "content": "naïve 你好"}
    expected = (Message("user", "naïve 你好"),)
    for value in ([turn], turn, json.dumps([turn]), json.dumps(turn, ensure_ascii=False)):
        assert messages("m", value) == expected


@pytest.mark.parametrize(
    ("value", "is_chat"),
    [
        ([{"role": "user", "content": "a"}], True),
        ({"from": "gpt", "value": "a"}, True),
        ('[{"role": "user", "content": "a"}]', True),
        (' [ {"content": "a", "role": "user"}]', True),
        ("[{'role': 'user', 'content': 'a'}]", True),  # as Python writes it; refused when it is read
        ('[{"value": 1}, {"value": 2}]', False),  # an answer in JSON
        ('{"role": "user", "content": "a"}', False),
        ('He said: [{"role": "user", "content": "a"}]', False),
        ("text", False),
        ([], False),
        ([["a"]], False),
        (None, False),
    ],
)
def test_what_looks_like_a_conversation(value: object, is_chat: bool) -> None:
    assert looks_like_chat(value) is is_chat


def test_messages_that_python_wrote_are_refused_with_the_remedy() -> None:
    with pytest.raises(RowError, match=r"m: is text that begins like JSON but is not .*json\.dumps"):
        messages("m", "[{'role': 'user', 'content': 'a'}]")


@pytest.mark.parametrize("text", ['[{"role": "user", "role": "user"}]', '[{"role": NaN}]', "[" * 100_000, '[{"a": 1'])
def test_json_within_text_is_read_strictly(text: str) -> None:
    with pytest.raises(RowError, match=r"m: is (text that begins like JSON but is not|nested)"):
        messages("m", text)


def test_parts_of_text_are_joined_and_others_refused() -> None:
    parts = [{"type": "text", "text": "a "}, {"type": "text", "text": "b"}]
    assert messages("m", [{"role": "user", "content": parts}]) == (Message("user", "a b"),)
    image = {"type": "image_url", "image_url": {"url": "data:"}}
    said = refusal({"role": "user", "content": [*parts, image]})
    assert said == (
        "m[0].content[2]: is a part of type 'image_url'; expected text, for no images, sounds or files are read; "
        "leave the row out"
    )
    assert refusal({"role": "user", "content": ["a"]}).startswith("m[0].content[0]: is text; expected a part")
    assert refusal({"role": "user", "content": []}).startswith("m[0].content: is an empty list; expected text")


CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}


@pytest.mark.parametrize(
    "turn",
    [
        {"role": "assistant", "tool_calls": [CALL]},
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": '{"x": 1}'}}]},
        {"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": {"x": 1}}]},
        {"role": "assistant", "content": "", "tool_calls": json.dumps([CALL])},
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": '{"x":1}'}},
        {"role": "tool_call", "content": '{"name": "f", "arguments": {"x": 1}}'},
        {"from": "function_call", "value": '[{"name": "f", "arguments": {"x": 1}}]'},
    ],
)
def test_a_call_is_the_same_however_it_is_written(turn: object) -> None:
    [message] = messages("m", [turn])
    assert (message.role, message.content) == ("assistant", "")
    assert more(message) == {"tool_calls": [CALL]}


def test_what_a_template_reads_is_kept_in_canonical_order() -> None:
    [thought, result] = messages(
        "m",
        [
            {"role": "assistant", "content": "a", "thinking": "t", "reasoning_content": "因", "tool_calls": []},
            {"role": "tool", "content": "r", "name": "f", "tool_call_id": "c1"},
        ],
    )
    assert thought.more == '{"reasoning_content":"因","thinking":"t"}'
    assert result.more == '{"name":"f","tool_call_id":"c1"}'
    assert messages("m", [{"role": "user", "content": "a", "name": "Ann"}]) == (Message("user", "a"),)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        ("f", "m[0].tool_calls: is text; expected a call"),
        ([3], "m[0].tool_calls[0]: is a number; expected a call"),
        ([{"name": ""}], "m[0].tool_calls[0].name: is empty"),
        ([{"function": {"arguments": {}}}], "m[0].tool_calls[0].function.name: is missing or null"),
        ([{"function": [1]}], "m[0].tool_calls[0].function: is a list; expected an object"),
        ([{"name": "f", "arguments": "x=1"}], "m[0].tool_calls[0].arguments: is text; expected an object"),
        ([{"name": "f", "arguments": "{x"}], "m[0].tool_calls[0].arguments: is text that begins like JSON"),
        ([{"name": "f", "arguments": [1]}], "m[0].tool_calls[0].arguments: is a list; expected an object"),
        ([{"name": "f", "arguments": {"x": float("inf")}}], "m[0]: is infinite"),
        ([{"name": "f", "arguments": {"x": "\ud800"}}], "m[0]: has half a surrogate pair"),
        ([{"type": "custom", "name": "f"}], "m[0].tool_calls[0].type: is not 'function'"),
    ],
)
def test_a_call_that_is_none_is_refused(call: object, told: str) -> None:
    assert refusal({"role": "assistant", "content": "", "tool_calls": call}).startswith(told)


def test_arguments_that_are_nested_too_deeply_are_refused() -> None:
    deep: object = 1
    for _ in range(70):
        deep = [deep]
    said = refusal({"role": "assistant", "tool_calls": [{"name": "f", "arguments": {"x": deep}}]})
    assert said == "m[0]: is nested more than 64 deep; expected less"


def test_a_message_without_content_is_refused_unless_it_calls() -> None:
    assert refusal({"role": "assistant"}) == "m[0].content: is missing or null; expected text"
    assert refusal({"from": "gpt"}) == "m[0].value: is missing or null; expected text"
    assert refusal({"from": "function_call", "value": "call it"}).startswith("m[0].value: is text; expected a call")


# Beside the messages.


def test_tools_are_a_list_also_as_text() -> None:
    tool = {"name": "f", "b": 1, "a": "é"}
    written = '[{"a":"é","b":1,"name":"f"}]'
    assert tools({"tools": [tool]}) == tools({"tools": json.dumps([tool])}) == written
    assert {tools({"tools": nothing}) for nothing in (None, [], "", "[]")} | {tools({})} == {""}
    for wrong, told in ((3, "a number"), ("f", "text"), ({"a": 1}, "an object")):
        with pytest.raises(RowError, match=rf"tools: is {told}; expected a list of tools"):
            tools({"tools": wrong})
    with pytest.raises(RowError, match=r"tools\[0\]: is text; expected an object that describes a tool"):
        tools({"tools": ["f"]})


def test_a_system_message_beside_a_conversation_is_put_first_and_once() -> None:
    asked, told = Message("user", "q"), Message("system", "be kind")
    assert with_system({"system": "be kind"}, (asked,)) == (told, asked)
    assert with_system({"system": " "}, (asked,)) == with_system({"system": None}, (asked,)) == (asked,)
    assert with_system({"system": "be kind\n"}, (told, asked)) == (told, asked)
    with pytest.raises(RowError, match="system: differs from the conversation's own system message"):
        with_system({"system": "be cruel"}, (told, asked))
