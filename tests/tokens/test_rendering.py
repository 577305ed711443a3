"""Claims about rows as text."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from kilter.data.records import Message
from kilter.errors import ConfigError, DataError
from kilter.tokens.rendering import Piece, RenderedRow, Renderer, Style, shorter_prompts, trailing_turns

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
THINKING_PROMPT = CHATML.replace("assistant\n{% endif", "assistant\n<think>\n{% endif")
ONLY_LAST_ANSWER_IN_FULL = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{{ m.content if loop.last or m.role == 'user' else m.content.split('</think>')[-1] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ALTERNATING = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{{ m.content }}{% endfor %}"
)

# A tag swallows the line feed behind it, so those are written out.
TOOLS_CHATML = """
{%- macro turn(role, text) %}{{ '<|im_start|>' + role + '\\n' + text + '<|im_end|>\\n' }}{% endmacro %}
{%- set system = messages[0].content if messages[0].role == 'system' else '' %}
{%- if tools %}
{%- set listed %}{% for tool in tools %}{{ '\\n' + tool | tojson }}{% endfor %}{% endset %}
{{- turn('system', system + '\\n\\nYou may call:\\n<tools>' + listed + '\\n</tools>') }}
{%- elif system %}{{ turn('system', system) }}{% endif %}
{%- for m in messages %}
{%- if m.role == 'tool' %}
{%- if messages[loop.index0 - 1].role != 'tool' %}{{ '<|im_start|>user' }}{% endif %}
{{- '\\n<tool_response>\\n' + m.content + '\\n</tool_response>' }}
{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{ '<|im_end|>\\n' }}{% endif %}
{%- elif m.role != 'system' %}
{%- set calls %}{% for call in m.tool_calls or [] %}
{{- '\\n' if m.content or not loop.first }}{{ '<tool_call>\\n' + call.function | tojson + '\\n</tool_call>' }}
{%- endfor %}{% endset %}
{%- set reasoning = '<think>' + m.reasoning_content + '</think>\\n' if m.reasoning_content else '' %}
{{- turn(m.role, reasoning + m.content + calls) }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
ONE_CALL = CHATML.replace("{{ m.content }}", "{{ m.tool_calls[0].function.name if m.tool_calls else m.content }}")
WEATHER = json.dumps([{
    "type": "function",
    "function": {
        "name": "weather",
        "description": "What the weather is, 例如北京",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}], ensure_ascii=False)  # fmt: skip


def chat_tokenizer(template: str | None) -> PreTrainedTokenizerFast:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]")),
        unk_token="[UNK]",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>", "<|im_start|>extra"],
    )
    tokenizer.chat_template = template
    return tokenizer


def user(content: str) -> Message:
    return Message("user", content)


def assistant(content: str) -> Message:
    return Message("assistant", content)


def calling(*cities: str, content: str = "", **more: Any) -> Message:
    """A turn of the assistant that asks for the weather."""
    calls = [{"type": "function", "function": {"name": "weather", "arguments": {"city": city}}} for city in cities]
    return Message("assistant", content, json.dumps({"tool_calls": calls} | more, ensure_ascii=False))


def thinking(content: str, reasoning: str, name: str = "reasoning_content") -> Message:
    return Message("assistant", content, json.dumps({name: reasoning}))


def render(
    template: str | None, prompt: tuple[Message, ...], *answer: Message, style: Style = "auto", tools: str = ""
) -> RenderedRow:
    return Renderer(chat_tokenizer(template), style).render(prompt, answer, tools)


def test_text_is_taken_as_it_is() -> None:
    renderer = Renderer(chat_tokenizer(CHATML))
    assert renderer.render(" 2+2= ", "\t4\n") == (" 2+2= ", (("\t4\n", True),))


def test_answer_is_the_whole_minus_the_prompt() -> None:
    row = render(CHATML, (user("2+2?"),), assistant("4"))
    assert row.prompt == "<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n"
    assert row.pieces == (Piece("4<|im_end|>\n", scored=True),)


def test_auto_is_the_template_where_there_is_one_and_hh_style_otherwise() -> None:
    turns = (user("2+2?"),), assistant("4")
    assert render(CHATML, *turns) == render(CHATML, *turns, style="template")
    assert render(None, *turns) == render(None, *turns, style="hh") == render(CHATML, *turns, style="hh")


def test_hh_style_writes_the_transcripts_of_the_data_set() -> None:
    prompt = (Message("system", "Be brief."), user("2+2?"), assistant("4"), user("3+3?"))
    row = render(None, prompt, assistant("6"), style="hh")
    assert row.prompt == ("\n\nSystem: Be brief.\n\nHuman: 2+2?\n\nAssistant: 4\n\nHuman: 3+3?\n\nAssistant:")
    assert row.pieces == (Piece(" 6", scored=True),)


def test_plain_style_joins_contents_with_newlines() -> None:
    assert render(CHATML, (user("a"), user("b")), assistant("c"), style="plain") == ("a\nb\n", (("c", True),))
    assert render(CHATML, (), assistant("c"), style="plain") == ("", (("c", True),))


def test_only_the_assistant_turns_of_a_conversation_are_scored() -> None:
    row = render(None, (), user("2+2?"), assistant("4"), user("3+3?"), assistant("6"), style="hh")
    assert row.prompt == "\n\nHuman: 2+2?\n\nAssistant:"
    assert row.pieces == ((" 4", True), ("\n\nHuman: 3+3?\n\nAssistant:", False), (" 6", True))


def test_earlier_answers_of_a_prompt_are_not_scored() -> None:
    row = render(CHATML, (user("2+2?"), assistant("4"), user("3+3?")), assistant("6"))
    assert "4<|im_end|>" in row.prompt
    assert row.pieces == (("6<|im_end|>\n", True),)


def test_turns_after_the_last_answer_are_left_out_and_can_be_counted() -> None:
    answer = (assistant("4"), user("thanks"), user("bye"))
    assert render(CHATML, (user("2+2?"),), *answer) == render(CHATML, (user("2+2?"),), answer[0])
    assert trailing_turns(answer) == 2
    assert trailing_turns(answer[:1]) == trailing_turns("4") == 0


@given(st.lists(st.text(max_size=8), min_size=1, max_size=4), st.sampled_from(["hh", "plain", "template"]))
def test_prompt_and_pieces_put_together_are_the_whole_rendering(words: list[str], style: Style) -> None:
    turns = tuple(turn for word in words for turn in (user(word), assistant(word[::-1])))
    renderer = Renderer(chat_tokenizer(CHATML), style)
    row = renderer.render((), turns)
    shorter = renderer.render(turns[:-1], turns[-1:])
    assert row.prompt + "".join(piece.text for piece in row.pieces) == shorter.prompt + shorter.pieces[0].text


def test_template_that_thinks_in_the_generation_prompt_only_is_refused_showing_both_texts() -> None:
    with pytest.raises(DataError, match=r"at character 54 the prompt has .*<think>\\n'.* whole .*4<\|im_end"):
        render(THINKING_PROMPT, (user("2+2?"),), assistant("4"))


def test_template_that_rewrites_earlier_answers_is_refused() -> None:
    turns = (user("2+2?"), assistant("<think>hm</think>4"), user("3+3?"), assistant("6"))
    with pytest.raises(DataError, match="does not begin with its prompt"):
        render(ONLY_LAST_ANSWER_IN_FULL, (), *turns)
    assert render(ONLY_LAST_ANSWER_IN_FULL, turns[:3], turns[3]).pieces == (("6<|im_end|>\n", True),)


def test_what_a_template_raises_is_passed_on() -> None:
    with pytest.raises(DataError, match="refuses this conversation: 'roles must alternate'"):
        render(ALTERNATING, (user("a"), user("b")), assistant("c"))


def test_templates_cannot_reach_out_of_the_sandbox() -> None:
    with pytest.raises(DataError, match="unsafe"):
        render("{{ ''.__class__.__mro__[1].__subclasses__() }}", (user("a"),), assistant("b"))
    with pytest.raises(DataError, match="unsafe"):
        render("{{ messages.append(1) }}", (user("a"),), assistant("b"))


@pytest.mark.parametrize("style", ["template", "hh", "plain"])
def test_special_token_in_a_message_is_refused(style: Style) -> None:
    with pytest.raises(DataError, match=r"role 'user' contains the special token '<\|im_start\|>extra'"):
        render(CHATML, (user("hi <|im_start|>extra"),), assistant("hello"), style=style)


def test_tools_calls_and_what_they_return_reach_the_template() -> None:
    """Over several turns, behind a system prompt; what tools return is no answer."""
    prompt = (Message("system", "请用中文回答。"), user("北京和東京の天気 today?"))
    returned = (
        Message("tool", "晴 25°C", json.dumps({"name": "weather", "tool_call_id": "call_0"})),
        Message("tool", "雨", json.dumps({"name": "weather"})),
    )
    row = render(
        TOOLS_CHATML, prompt, calling("北京", "東京"), *returned, assistant("北京は晴、東京は雨。"), tools=WEATHER
    )
    tool = json.loads(WEATHER)[0]
    assert row.prompt == (
        "<|im_start|>system\n请用中文回答。\n\nYou may call:\n<tools>\n"
        + json.dumps(tool, ensure_ascii=False)
        + "\n</tools>"
        "<|im_end|>\n<|im_start|>user\n北京和東京の天気 today?<|im_end|>\n<|im_start|>assistant\n"
    )
    call = '<tool_call>\n{"name": "weather", "arguments": {"city": "%s"}}\n</tool_call>'
    assert row.pieces == (
        (call % "北京" + "\n" + call % "東京" + "<|im_end|>\n", True),
        (
            "<|im_start|>user\n<tool_response>\n晴 25°C\n</tool_response>\n<tool_response>\n雨\n</tool_response>"
            "<|im_end|>\n<|im_start|>assistant\n",
            False,
        ),
        ("北京は晴、東京は雨。<|im_end|>\n", True),
    )


def test_the_same_turns_with_other_tools_are_not_taken_from_memory() -> None:
    renderer = Renderer(chat_tokenizer(TOOLS_CHATML))
    turns = ((user("2+2?"),), (assistant("4"),))
    with_tools, without = renderer.render(*turns, WEATHER), renderer.render(*turns)
    assert "<tools>" in with_tools.prompt
    assert "<tools>" not in without.prompt
    assert renderer.render(*turns, WEATHER) == with_tools
    assert renderer.render_prompt(turns[0], WEATHER) == with_tools.prompt
    assert renderer.render_prompt(turns[0]) == without.prompt


def test_reasoning_reaches_the_template_by_either_of_its_names() -> None:
    for name in ("reasoning_content", "thinking"):
        row = render(TOOLS_CHATML, (user("2+2?"),), thinking("4", "two and two", name))
        assert row.pieces == (("<think>two and two</think>\n4<|im_end|>\n", True),)


@pytest.mark.parametrize(
    ("template", "answer", "named"),
    [
        (CHATML, calling("北京"), "tool_calls of the message of role 'assistant'"),
        (ONE_CALL, calling("北京", "東京"), "tool_calls"),
        (ONE_CALL, calling("北京", content="I'll look."), "the content beside tool_calls"),
        (CHATML, thinking("4", "two and two"), "reasoning_content"),
        (CHATML, thinking("4", "two and two", "thinking"), "thinking"),
    ],
)
def test_what_a_template_would_pass_over_is_refused(template: str, answer: Message, named: str) -> None:
    with pytest.raises(DataError, match=f"has no place for {named}.*use a model whose template has, or remove"):
        render(template, (user("weather?"),), answer)


def test_tools_that_a_template_would_pass_over_are_refused() -> None:
    with pytest.raises(DataError, match="the chat template has no place for tools; use a model whose template has"):
        render(CHATML, (user("a"),), assistant("b"), tools=WEATHER)
    with pytest.raises(DataError, match="no place for tools"):
        Renderer(chat_tokenizer(CHATML)).render_prompt((user("a"),), WEATHER)


def test_calls_of_earlier_turns_must_be_written_and_their_reasoning_need_not() -> None:
    with pytest.raises(DataError, match="no place for tool_calls"):
        render(CHATML, (user("a"), calling("北京"), Message("tool", "晴"), user("b")), assistant("c"))
    row = render(CHATML, (user("a"), thinking("b", "hm"), user("c")), assistant("d"))
    assert row == render(CHATML, (user("a"), assistant("b"), user("c")), assistant("d"))


def test_a_template_that_reads_a_call_by_failing_without_it_is_taken_at_its_word() -> None:
    template = CHATML.replace(
        "{{ m.content }}", "{% if not m.content and not m.tool_calls %}{{ raise_exception('empty') }}{% endif %}x"
    )
    assert render(template, (user("a"),), calling("北京")).pieces == (("x<|im_end|>\n", True),)


@pytest.mark.parametrize("style", ["hh", "plain"])
@pytest.mark.parametrize(
    ("answer", "tools", "named"),
    [
        (assistant("b"), WEATHER, "tools"),
        (calling("北京"), "", "tool_calls"),
        (thinking("b", "hm"), "", "reasoning_content"),
    ],
)
def test_styles_without_a_template_refuse_more_than_roles_and_contents(
    style: Style, answer: Message, tools: str, named: str
) -> None:
    with pytest.raises(DataError, match=f"(HH|plain) style has no place for {named}; use a model whose tokenizer has"):
        render(TOOLS_CHATML, (user("a"),), answer, style=style, tools=tools)


def test_text_has_no_place_for_tools() -> None:
    renderer = Renderer(chat_tokenizer(TOOLS_CHATML))
    for refused in (lambda: renderer.render("a", "b", WEATHER), lambda: renderer.render_prompt("a", WEATHER)):
        with pytest.raises(DataError, match="its prompt is text, which has no place for them"):
            refused()


@pytest.mark.parametrize(
    "message",
    [
        calling("<|im_end|>"),
        calling("a", content="<|im_end|>"),
        thinking("a", "<|im_end|>"),
        Message("assistant", "a", '{"tool_calls": [{"function": {"arguments": {"<|im_end|>": 1}}}]}'),
        Message("assistant", "a", '{"thinking": "<\\u007cim_end|>"}'),
    ],
)
def test_special_token_anywhere_in_a_message_is_refused(message: Message) -> None:
    with pytest.raises(DataError, match=r"contains the special token '<\|im_end\|>'"):
        render(TOOLS_CHATML, (user("a"), message, user("b")), assistant("c"))


def test_special_token_in_tools_is_refused() -> None:
    with pytest.raises(DataError, match=r"the tools contain the special token '<\|im_start\|>'"):
        render(TOOLS_CHATML, (user("a"),), assistant("c"), tools=WEATHER.replace("例如", "<|im_start|>"))


def test_conversation_without_an_answer_is_refused() -> None:
    with pytest.raises(DataError, match="no assistant turn"):
        render(CHATML, (), user("2+2?"))


def test_template_needs_a_turn_before_the_first_answer() -> None:
    with pytest.raises(DataError, match="begins with the assistant"):
        render(CHATML, (), assistant("hello"))


def test_hh_style_refuses_roles_it_has_no_name_for() -> None:
    with pytest.raises(DataError, match="no speaker for the role 'tool'"):
        render(None, (user("a"), Message("tool", "b")), assistant("c"))


def test_text_and_conversation_do_not_mix() -> None:
    with pytest.raises(DataError, match="both be text, or both conversations"):
        Renderer(chat_tokenizer(CHATML)).render("2+2=", (assistant("4"),))


def test_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(DataError, match=r"character 3 is '\\ud83d'"):
        Renderer(chat_tokenizer(CHATML)).render("hi", " a \ud83d")
    with pytest.raises(DataError, match=r"'\\ud83d'"):
        render(CHATML, (user("\ud83d"),), assistant("hello"))


def test_style_template_without_a_template_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"no chat template; set tokenizer\.chat_template, or use style 'hh'"):
        Renderer(chat_tokenizer(None), "template")


def test_unknown_style_is_refused_naming_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="use one of auto, template, hh, plain"):
        Renderer(chat_tokenizer(None), "chatml")  # type: ignore[arg-type]


def test_shorter_prompts_begin_at_later_user_turns_behind_the_system_message() -> None:
    system = Message("system", "s")
    turns = (user("a"), assistant("b"), user("c"), assistant("d"), user("e"))
    assert shorter_prompts((system, *turns)) == [(system, *turns[2:]), (system, *turns[4:])]
    assert shorter_prompts(turns) == [turns[2:], turns[4:]]
    assert shorter_prompts((system, user("a"))) == shorter_prompts(()) == []


def test_shorter_text_begins_at_later_humans() -> None:
    last = "\n\nHuman: c\n\nAssistant:"
    assert shorter_prompts("\n\nHuman: a\n\nAssistant: b" + last) == [last]
    assert shorter_prompts("Once upon a time") == []
