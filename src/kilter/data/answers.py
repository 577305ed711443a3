"""Rows with one answer, or none, as records: labelled answers, steps, demonstrations and prompts.

What is an answer, and what is a prompt, is checked here for every format, so that none has its own idea of an empty
one.
"""

from __future__ import annotations

from collections.abc import Callable

from kilter.data.conversations import calls_tools, chat, looks_like_chat, messages, tools, with_system
from kilter.data.conversations import instruction as asked
from kilter.data.fields import Row, RowError, clean, kind_of, optional_text, parsed, text, yes_no
from kilter.data.records import Content, Demonstration, Labelled, Message, Origin, Prompt, Steps


def check_answer(field: str, answer: Content) -> None:
    if isinstance(answer, str):
        if not answer.strip():
            raise RowError(field, "is empty; expected an answer")
        return
    for where, turn in ("begins", answer[0]), ("ends", answer[-1]):
        if turn.role != "assistant":
            raise RowError(field, f"{where} with a turn by the {turn.role}; expected one by the assistant")
    if not answer[-1].content.strip() and not calls_tools(answer[-1]):
        raise RowError(field, "has no text in its last turn; expected an answer")


def check_prompt(field: str, prompt: Content, expected: str = "what the answers reply to") -> None:
    if not prompt or (isinstance(prompt, str) and not prompt.strip()):
        raise RowError(field, f"is empty; expected {expected}")


def like(value: object) -> Callable[[Row, str], Content]:
    """How to read a key whose content is of the same nature as `value`: text, or messages."""
    return chat if looks_like_chat(value) else text


def _tools_of(row: Row, prompt: Content) -> str:
    return "" if isinstance(prompt, str) else tools(row)


def _parted(field: str, turns: tuple[Message, ...]) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    """Cut a conversation before its last turn, which must be an answer to something."""
    prompt, answer = turns[:-1], turns[-1:]
    check_answer(field, answer)
    if not prompt:
        raise RowError(field, "has nothing before the answer; expected what it replies to")
    return prompt, answer


# Labelled answers.


def _label(row: Row) -> bool:
    key = "kto_tag" if row.get("label") is None and row.get("kto_tag") is not None else "label"
    return yes_no(key, row.get(key))


def labelled(row: Row, origin: Origin) -> Labelled:
    take = like(row.get("prompt"))
    prompt, completion = take(row, "prompt"), take(row, "completion")
    if isinstance(prompt, tuple):
        prompt = with_system(row, prompt)
    check_prompt("prompt", prompt, "what the answer replies to")
    check_answer("completion", completion)
    return Labelled(prompt, completion, _label(row), origin, _tools_of(row, prompt))


def labelled_conversation(key: str) -> Callable[[Row, Origin], Labelled]:
    def convert(row: Row, origin: Origin) -> Labelled:
        prompt, completion = _parted(key, with_system(row, chat(row, key)))
        return Labelled(prompt, completion, _label(row), origin, tools(row))

    return convert


def labelled_alpaca(row: Row, origin: Origin) -> Labelled:
    prompt, completion = asked(row, "instruction"), (Message("assistant", text(row, "output")),)
    check_answer("output", completion)
    return Labelled(prompt, completion, _label(row), origin, tools(row))


def steps(row: Row, origin: Origin) -> Steps:
    prompt = text(row, "prompt")
    check_prompt("prompt", prompt, "what the steps solve")
    said, judged = _list(row, "completions", "steps, each a text"), _list(row, "labels", "judgements, one a step")
    written = tuple(clean(f"completions[{index}]", step) for index, step in enumerate(said))
    for index, step in enumerate(written):
        check_answer(f"completions[{index}]", step)
    if len(said) != len(judged):
        raise RowError("labels", f"has {len(judged)} for {len(said)} steps; expected one a step")
    right = tuple(yes_no(f"labels[{index}]", label) for index, label in enumerate(judged))
    separator = optional_text(row, "separator")
    return Steps(prompt, written, right, origin, separator) if separator else Steps(prompt, written, right, origin)


def _list(row: Row, key: str, of: str) -> list[object]:
    found = parsed(key, row.get(key))
    if not isinstance(found, list) or not found:
        raise RowError(key, f"is {kind_of(found)}; expected a list of {of}")
    return found


# Demonstrations.


def document(row: Row, origin: Origin) -> Demonstration:
    written = text(row, "text")
    check_answer("text", written)
    return Demonstration("", written, origin)


def completed_prompt(row: Row, origin: Origin) -> Demonstration:
    _refuse_labels(row)
    take = like(row.get("prompt"))
    prompt, completion = take(row, "prompt"), take(row, "completion")
    if isinstance(prompt, tuple):
        prompt = with_system(row, prompt)
    check_answer("completion", completion)
    return Demonstration(prompt, completion, origin, _tools_of(row, prompt))


def conversation(key: str) -> Callable[[Row, Origin], Demonstration]:
    def convert(row: Row, origin: Origin) -> Demonstration:
        _refuse_labels(row)
        turns = with_system(row, chat(row, key))
        if not any(turn.role == "assistant" and (turn.content.strip() or calls_tools(turn)) for turn in turns):
            raise RowError(key, "has no turn by the assistant with content; expected one to learn")
        return Demonstration((), turns, origin, tools(row))

    return convert


def alpaca(row: Row, origin: Origin) -> Demonstration:
    _refuse_labels(row)
    answer = Message("assistant", text(row, "output"))
    check_answer("output", (answer,))
    return Demonstration((), (*asked(row, "instruction"), answer), origin, tools(row))


def _refuse_labels(row: Row) -> None:
    for key in ("label", "kto_tag"):
        if isinstance(row.get(key), bool):
            raise RowError(
                key,
                "marks answers as good or bad, which a demonstration cannot; "
                "expected good answers only; keep the rows marked true and remove the key",
            )


# Prompts.

_TO_ANSWER = "words or a user's turn"


def prompt(row: Row, origin: Origin) -> Prompt:
    given = like(row.get("prompt"))(row, "prompt")
    if isinstance(given, tuple):
        given = with_system(row, given)
    _check_question("prompt", given)
    return Prompt(given, origin, _tools_of(row, given))


def conversation_to_answer(key: str) -> Callable[[Row, Origin], Prompt]:
    def convert(row: Row, origin: Origin) -> Prompt:
        turns = messages(key, row.get(key))
        given = turns[:-1] if turns[-1].role == "assistant" else turns
        _check_question(key, given)
        return Prompt(with_system(row, given), origin, tools(row))

    return convert


def alpaca_prompt(row: Row, origin: Origin) -> Prompt:
    return Prompt(asked(row, "instruction"), origin, tools(row))


def _check_question(field: str, prompt: Content) -> None:
    if not prompt or (isinstance(prompt, str) and not prompt.strip()):
        raise RowError(field, f"has nothing to answer; expected {_TO_ANSWER}")
