"""What a chat template does with the parts of a conversation: does it write BOS and EOS, does it lose anything?"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from kilter.data.records import Message, Origin, Record
from kilter.errors import DataError
from kilter.measure.rows import answers_of
from kilter.tokens.rendering import Renderer, Style

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PROBE = "kilter_probe"
_FUNCTION = {"type": "function", "function": {"name": PROBE, "description": "", "parameters": {
    "type": "object", "properties": {}}}}  # fmt: skip
_CALL = {"type": "function", "function": {"name": PROBE, "arguments": {}}}
_ASK: dict[str, Any] = {"role": "user", "content": "x"}
# What is given to a template to see whether it writes the probe's name down: turns, and tools.
PROBES: Mapping[str, tuple[list[dict[str, Any]], list[Any] | None]] = {
    "system prompts": ([{"role": "system", "content": PROBE}, _ASK], None),
    "tools": ([_ASK], [_FUNCTION]),
    "tool calls": ([_ASK, {"role": "assistant", "content": "", "tool_calls": [_CALL]}], None),
    "reasoning": ([_ASK, {"role": "assistant", "content": "x", "reasoning_content": PROBE}], None),
}


@dataclass(frozen=True, slots=True)
class Turns:
    """What conversations consist of: rows with each part, and where it is first met."""

    conversations: int
    several_answers: int  # rows whose prompt holds an earlier answer
    parts: dict[str, int]  # names of PROBES
    first: dict[str, Origin]


@dataclass(frozen=True, slots=True)
class TemplateFacts:
    """How rows are written out, and what that loses of what the rows hold (names of `PROBES`)."""

    style: str  # template, hh, plain, or text where there are no conversations
    bos: str  # none, added, or written (by the template), both
    eos: str  # added, or written
    lost: tuple[str, ...]


def turns(records: Iterable[Record]) -> Turns:
    """Look through all conversations."""
    conversations = several = 0
    parts = dict.fromkeys(PROBES, 0)
    first: dict[str, Origin] = {}
    for record in records:
        if isinstance(record.prompt, str):
            continue
        conversations += 1
        several += any(turn.role == "assistant" for turn in record.prompt)
        said = [*record.prompt, *(turn for _, answer in answers_of(record) for turn in answer)]
        for part in _parts_of(said, getattr(record, "tools", "")):
            parts[part] += 1
            first.setdefault(part, record.origin)
    return Turns(conversations, several, {part: rows for part, rows in parts.items() if rows}, first)


def _parts_of(said: Sequence[Message | str], tools: str) -> set[str]:
    found = {"tools"} if tools else set()
    for turn in said:
        if isinstance(turn, str):
            continue
        if turn.role in ("system", "developer"):
            found.add("system prompts")
        if turn.more:
            more = json.loads(turn.more)
            found |= {"tool calls"} if "tool_calls" in more else set()
            found |= {"reasoning"} if {"reasoning_content", "thinking"} & more.keys() else set()
    return found


def template_facts(tokenizer: PreTrainedTokenizerFast, style: Style, seen: Turns) -> TemplateFacts:
    """What becomes of the special tokens, and of the parts that the conversations hold.

    A part that the template refuses is not lost: its rows are told as refused.
    """
    ids = tokenizer.backend_tokenizer.encode("x").ids
    adds = bool(ids) and ids[0] == tokenizer.bos_token_id
    if not seen.conversations:
        return TemplateFacts("text", "added" if adds else "none", "added", ())
    named = ("template" if tokenizer.chat_template else "hh") if style == "auto" else style
    writes_bos, writes_eos = _written(tokenizer, style)
    bos = "both" if adds and writes_bos else "added" if adds else "written" if writes_bos else "none"
    lost = tuple(part for part in seen.parts if named == "template" and _loses(tokenizer, part))
    return TemplateFacts(named, bos, "written" if writes_eos else "added", lost)


def _written(tokenizer: PreTrainedTokenizerFast, style: Style) -> tuple[bool, bool]:
    try:
        rendered = Renderer(tokenizer, style).render((Message("user", "x"),), (Message("assistant", "y"),))
    except DataError:
        return False, False
    bos, eos = tokenizer.bos_token, tokenizer.eos_token
    answer = rendered.pieces[-1].text
    return bool(bos) and rendered.prompt.startswith(str(bos)), bool(eos) and str(eos) in answer


def _loses(tokenizer: PreTrainedTokenizerFast, part: str) -> bool:
    said, tools = PROBES[part]
    try:
        text = tokenizer.apply_chat_template(said, tools=tools, tokenize=False, add_generation_prompt=False)
    except (TemplateError, TypeError, ValueError):
        return False
    return PROBE not in str(text)
