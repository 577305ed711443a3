"""From a row to text: the prompt, and the pieces of each completion.

Strings are taken as they are. A conversation is written out in one of the `STYLES`; its completion is the
whole as rendered minus the prompt as rendered, and where the whole does not begin with the prompt the row is
refused. So is a row whose tools, tool calls or reasoning are not found in the text. Transformers renders chat templates
in jinja's immutable sandbox.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from jinja2 import TemplateError

from kilter.data.records import Content, Message
from kilter.errors import ConfigError, DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Conversation: TypeAlias = tuple[Message, ...]
Style: TypeAlias = Literal["auto", "template", "hh", "plain"]
# Writes a conversation out, with the words that open the assistant's turn where the flag is set; last, the tools.
Write: TypeAlias = Callable[[Conversation, bool, str], str]

HH_SPEAKERS = {"user": "Human", "assistant": "Assistant", "system": "System"}
REASONING = ("reasoning_content", "thinking")  # names of one thing: transformers gives a template each for the other


class Piece(NamedTuple):
    """A stretch of a completion: an answer, which is scored, or what stands between two answers."""

    text: str
    scored: bool


class RenderedRow(NamedTuple):
    """A prompt and one completion as text; the pieces, put together, are the completion."""

    prompt: str
    pieces: tuple[Piece, ...]


class Renderer:
    """Writes the rows of one data set out as text, in one style.

    `auto` is the tokenizer's chat template where it has one, and HH style otherwise. A message that contains
    the text of a special token is refused: among the template's own special tokens it could not be told apart.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, style: Style = "auto") -> None:
        if style == "auto":
            style = "template" if tokenizer.chat_template else "hh"
        if style not in STYLES:
            raise ConfigError(f"unknown style {style!r}; use one of auto, {', '.join(STYLES)}")
        # The answers of a row share their prompt, and each turn of a conversation is rendered as often.
        self._write = lru_cache(maxsize=16)(STYLES[style](tokenizer))
        added = tokenizer.backend_tokenizer.get_added_tokens_decoder().values()
        self._special = any_of(token.content for token in added if token.special)

    def render(self, prompt: Content, completion: Content, tools: str = "") -> RenderedRow:
        """The row as text; raises DataError, saying why, where it cannot be rendered faithfully."""
        if isinstance(prompt, str) and isinstance(completion, str):
            self._refuse_tools_of_text(tools)
            return RenderedRow(_writable(prompt), (Piece(_writable(completion), True),))
        if isinstance(prompt, str) or isinstance(completion, str):
            raise DataError("the prompt and the answer must both be text, or both conversations")
        self._refuse_special(prompt + completion, tools)
        return self._split(prompt, completion, tools)

    def render_prompt(self, prompt: Content, tools: str = "") -> str:
        """The text of a prompt alone, as it stands before a completion; raises DataError as `render` does."""
        if isinstance(prompt, str):
            self._refuse_tools_of_text(tools)
            return _writable(prompt)
        self._refuse_special(prompt, tools)
        text = self._write(prompt, True, tools)
        self._refuse_unread(prompt, len(prompt), tools)
        return _writable(text)

    def names_special_token(self, text: str) -> bool:
        """Whether the tokenizer would read a special token out of `text`."""
        return self._special.search(text) is not None

    def _split(self, prompt: Conversation, completion: Conversation, tools: str) -> RenderedRow:
        """Cut the rendering before and after each of the completion's answers; it ends with the last."""
        messages = prompt + completion
        answers = [i for i in range(len(prompt), len(messages)) if messages[i].role == "assistant"]
        if not answers:
            raise DataError("the conversation has no assistant turn to score; add one")
        texts = []
        for i in answers:
            texts += [self._write(messages[:i], True, tools), self._write(messages[: i + 1], False, tools)]
        parts = [_remainder(start, whole) for start, whole in pairwise(texts)]
        self._refuse_unread(messages[: answers[-1] + 1], len(prompt), tools)
        pieces = tuple(Piece(part, scored=i % 2 == 0) for i, part in enumerate(parts))
        return RenderedRow(_writable(texts[0]), pieces)

    def _refuse_unread(self, messages: Conversation, prompt: int, tools: str) -> None:
        """Raise DataError where the text would be the same without the tools, without a tool call, or without the
        reasoning of an answer; of the `prompt`'s turns templates leave the reasoning out on purpose."""
        if tools and self._same(messages, tools, messages, ""):
            raise DataError("the chat template has no place for tools; use a model whose template has, or remove them")
        for i, message in enumerate(messages):
            here = messages[: i + 1]
            for key, lesser in _lesser(message):
                if i < prompt and key in REASONING:
                    continue
                if self._same(here, tools, (*messages[:i], lesser), tools):
                    called = "the content beside tool_calls" if key == "content" else key
                    raise DataError(
                        f"the chat template has no place for {called} of the message of role {message.role!r}; "
                        "use a model whose template has, or remove them"
                    )

    def _same(self, messages: Conversation, tools: str, others: Conversation, other_tools: str) -> bool:
        """Whether two conversations are written alike; one that cannot be written is like no other."""
        try:
            return self._write(messages, False, tools) == self._write(others, False, other_tools)
        except DataError:
            return False

    def _refuse_tools_of_text(self, tools: str) -> None:
        if tools:
            raise DataError(
                "the row has tools, and its prompt is text, which has no place for them; "
                "give the conversation as messages, or remove the tools"
            )

    def _refuse_special(self, messages: Conversation, tools: str) -> None:
        texts = [(f"the message of role {m.role!r} contains", text) for m in messages for text in _texts_of(m)]
        texts += [("the tools contain", text) for text in _strings(tools)]
        for where, text in texts:
            if found := self._special.search(text):
                raise DataError(
                    f"{where} the special token {found[0]!r}, which the model would read as markup; "
                    "remove or rewrite it"
                )


def _texts_of(message: Message) -> Iterator[str]:
    """What a message has to say: its content, and each text within what else there is."""
    yield message.content
    yield from _strings(message.more)


def _strings(given: str) -> Iterator[str]:
    """A JSON value as it is written, then its texts (names of fields too) as they read without escapes."""
    if not given:
        return
    yield given
    waiting = [json.loads(given)]
    while waiting:
        match waiting.pop():
            case str(text):
                yield text
            case dict(fields):
                waiting += [*fields, *fields.values()]
            case list(items):
                waiting += items


def _lesser(message: Message) -> Iterator[tuple[str, Message]]:
    """What a template may pass over in silence, each with the message as it would be without."""
    if not message.more:
        return
    more: dict[str, Any] = json.loads(message.more)

    def without(*keys: str, **changed: Any) -> Message:
        kept = {key: value for key, value in more.items() if key not in keys} | changed
        return replace(message, more=json.dumps(kept, ensure_ascii=False) if kept else "")

    if calls := more.get("tool_calls"):
        yield "tool_calls", without("tool_calls", **({"tool_calls": calls[:-1]} if len(calls) > 1 else {}))
        if message.content.strip():
            yield "content", replace(message, content="")
    if reasoning := next((key for key in REASONING if more.get(key)), None):
        yield reasoning, without(*REASONING)


def any_of(words: Iterable[str]) -> re.Pattern[str]:
    """A pattern for any of `words`, the longest first; without words it matches nothing."""
    return re.compile("|".join(map(re.escape, sorted(words, key=len, reverse=True))) or "(?!)")


def shorter_prompts(prompt: Content) -> list[Content]:
    """What is left of a prompt as whole leading turns are dropped, longest first.

    A conversation begins again at a later user turn, behind its leading system message; text begins again at
    a later `Human:` of an HH transcript.
    """
    if isinstance(prompt, str):
        return [prompt[turn.start() :] for turn in re.finditer(r"\n\nHuman:", prompt) if turn.start()]
    system = prompt[:1] if prompt and prompt[0].role == "system" else ()
    return [system + prompt[i:] for i, turn in enumerate(prompt) if turn.role == "user" and i > len(system)]


def trailing_turns(completion: Content) -> int:
    """How many turns follow the last answer; no score depends on them, so rendering leaves them out."""
    if isinstance(completion, str):
        return 0
    return next((i for i, turn in enumerate(reversed(completion)) if turn.role == "assistant"), 0)


def _template_style(tokenizer: PreTrainedTokenizerFast) -> Write:
    if not tokenizer.chat_template:
        raise ConfigError(
            "the tokenizer has no chat template; set tokenizer.chat_template, or use style 'hh' or 'plain'"
        )

    def write(messages: Conversation, generation_prompt: bool, tools: str = "") -> str:
        if not messages:
            raise DataError(
                "the conversation begins with the assistant, but a chat template needs a turn before; add one"
            )
        turns = [{"role": m.role, "content": m.content, **(json.loads(m.more) if m.more else {})} for m in messages]
        try:
            text = tokenizer.apply_chat_template(
                turns,
                tools=json.loads(tools) if tools else None,
                tokenize=False,
                add_generation_prompt=generation_prompt,
            )
        except (TemplateError, TypeError, ValueError) as error:
            raise DataError(f"the chat template refuses this conversation: {str(error)!r}") from error
        return str(text)

    return write


def _hh_style(tokenizer: PreTrainedTokenizerFast) -> Write:
    return write_hh


def write_hh(messages: Conversation, generation_prompt: bool, tools: str = "") -> str:
    """Anthropic's HH transcripts: a blank line, the speaker's name, a colon, a space, the words."""
    _refuse_more("HH style", messages, tools)
    for message in messages:
        if message.role not in HH_SPEAKERS:
            raise DataError(f"HH style has no speaker for the role {message.role!r}; use {', '.join(HH_SPEAKERS)}")
    text = "".join(f"\n\n{HH_SPEAKERS[message.role]}: {message.content}" for message in messages)
    return text + "\n\nAssistant:" * generation_prompt


def _plain_style(tokenizer: PreTrainedTokenizerFast) -> Write:
    return write_plain


def write_plain(messages: Conversation, generation_prompt: bool, tools: str = "") -> str:
    """Contents alone, a newline between turns; the newline before an answer belongs to its prompt."""
    _refuse_more("plain style", messages, tools)
    text = "\n".join(message.content for message in messages)
    return text + "\n" * (generation_prompt and bool(messages))


def _refuse_more(style: str, messages: Conversation, tools: str) -> None:
    """Raise DataError where there is more than roles and contents."""
    more = ["tools"] if tools else []
    more += [key for message in messages if message.more for key in json.loads(message.more)]
    if more:
        raise DataError(
            f"{style} has no place for {more[0]}; use a model whose tokenizer has a chat template for it "
            "(style 'template'), or remove it"
        )


STYLES: dict[str, Callable[[PreTrainedTokenizerFast], Write]] = {
    "template": _template_style,
    "hh": _hh_style,
    "plain": _plain_style,
}


def _remainder(start: str, whole: str) -> str:
    """`whole` after `start`; raises DataError, showing where they part, if it does not begin with it."""
    if whole.startswith(start):
        return _writable(whole[len(start) :])
    differing = (i for i, (a, b) in enumerate(zip(start, whole, strict=False)) if a != b)
    part = next(differing, min(len(start), len(whole)))
    near = slice(max(part - 30, 0), part + 30)
    raise DataError(
        f"the conversation as rendered does not begin with its prompt as rendered: at character {part} the "
        f"prompt has {start[near]!r}, the whole {whole[near]!r}; use a chat template that writes a turn alike "
        "wherever it stands, or style 'hh' or 'plain'"
    )


def _writable(text: str) -> str:
    """`text`; raises DataError where it holds half a surrogate pair, as a JSON escape cut in two leaves."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = text[error.start]
        raise DataError(f"character {error.start} is {half!r}, half of a surrogate pair; mend it") from error
    return text
