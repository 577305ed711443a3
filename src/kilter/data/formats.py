"""The shapes in which preference data, demonstrations and prompts are kept, and how each is recognised.

A format is one row of `FORMATS` (of `PROMPT_FORMATS`, where prompts are wanted): a recogniser, which looks at a row
and says whether it is written that way, and a converter, which turns such a row into a record or raises `RowError`.
Everything else (recognition, the list of accepted formats in an error, which keys are metadata, the reference page)
is derived from the table.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kilter.data import answers, comparisons
from kilter.data.conversations import MESSAGE_KEYS, looks_like_chat, looks_like_transcript, refuse_media
from kilter.data.fields import Row, RowError, is_yes_no, kind_of, printable
from kilter.data.records import VIEWS, Demonstration, Labelled, Origin, Pair, Prompt, Ranking, Record, Steps
from kilter.errors import DataError

__all__ = [
    "FORMATS",
    "PROMPT_FORMATS",
    "Format",
    "Row",
    "RowError",
    "kind_of",
    "printable",
    "recognise",
    "serving",
]

Fits = Callable[[Row], bool]


@dataclass(frozen=True, slots=True)
class Format:
    """One way to write a row down.

    `keys` says what each key holds that a row must have, `optional` the same of those that are read where they are
    there; other keys are metadata. `used_by` names trainers and data sets that write rows this way.
    """

    name: str
    title: str
    keys: Mapping[str, str]
    yields: type[Record]
    fits: Fits
    reads: Callable[[Row, Origin], Record]
    optional: Mapping[str, str] = field(default_factory=dict)
    used_by: str = ""
    remarks: str = ""

    def convert(self, row: Row, origin: Origin) -> Record:
        """Return the record that `row` says; raises `RowError`."""
        refuse_media(row)
        return self.reads(row, origin)

    def unread(self, row: Row) -> Iterator[str]:
        """The keys of a row, and of what its keys hold, that no record keeps."""
        yield from (key for key in row if key not in self.keys and key not in self.optional)
        for key in (*self.keys, *self.optional):
            value = row.get(key)
            if key == "tools" or not isinstance(value, dict | list):
                continue
            place, items = (key, [value]) if isinstance(value, dict) else (f"{key}[]", value)
            within = _READ_WITHIN.get(key, MESSAGE_KEYS)
            for item in items:
                if isinstance(item, dict):
                    read = within | {"name"} if item.get("role") == "tool" else within
                    yield from (f"{place}.{k}" for k in item if k not in read)


# What is read of objects that are no messages.
_READ_WITHIN: Mapping[str, frozenset[str]] = {
    "answers": frozenset(("answer", "rank")),
    "input": frozenset(("messages", "tools")),
}


def recognise(rows: Sequence[tuple[Origin, Row]], wanted: Collection[type[Any]]) -> Format:
    """Return the format of the first of `rows` that has one, among those whose rows serve as one of `wanted`.

    Raises `DataError` where no row fits any, or one fits several.
    """
    accepted = list(serving(wanted).values())
    for origin, row in rows:
        fitting = [known for known in accepted if known.fits(row)]
        if len(wanted) > 1:  # a row that has an answer is more than a prompt
            fitting = [known for known in fitting if known.yields is not Prompt] or fitting
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            raise DataError(
                f"{origin}: the row can be read in more than one way; expected one; say which with "
                f"--format NAME, or remove the keys that are not meant:\n{_listing(fitting)}"
            )
    origin, row = rows[0]
    kinds = " or ".join(_NAMES[kind] for kind in wanted)
    for known in (FORMATS | PROMPT_FORMATS).values():
        if known.fits(row):
            raise DataError(
                f"{origin}: found {_NAMES[known.yields]}, format {known.name} ({known.title}); expected {kinds}; "
                f"give a file in one of these formats:\n{_listing(accepted)}"
            )
    near = _near(row, accepted)
    others = [known.name for known in accepted if known not in near]
    raise DataError(
        f"{origin}: found {_summary(row)}, which fits no format; {_hint(row)}"
        f"rename the keys with --columns (chosen=YOUR_KEY,...), or rearrange them, to fit one of:\n{_listing(near)}"
        + (f"\nor of these: {', '.join(others)}" if others else "")
    )


def _near(row: Row, formats: Sequence[Format]) -> list[Format]:
    """Return the formats whose keys the row has, those that lack least first, and then the plainest of each kind."""
    sharing = [known for known in formats if row.keys() & known.keys]
    sharing.sort(key=lambda known: len(known.keys.keys() - row.keys()) / len(known.keys))
    first = {known.yields: known for known in reversed(formats)}.values()
    return sharing[:6] + [known for known in formats if known in first and known not in sharing[:6]]


def _hint(row: Row) -> str:
    """Return what to say of comparisons that name their sides and hold no texts, as of players or models."""
    sides = (("left", "right"), ("model_a", "model_b"), ("player_a", "player_b"), ("a", "b"))
    verdict = row.keys() & {"winner", "preference", "outcome", "result", "score"}
    if verdict and any(one in row and other in row for one, other in sides):
        return (
            "it says which side won and not what either wrote, and a model learns from texts; join the prompt and both "
            "answers to it, then "
        )
    return ""


def serving(wanted: Collection[type[Any]]) -> dict[str, Format]:
    """Return the formats whose rows serve as one of `wanted`, by name."""
    if set(wanted) == {Prompt}:
        return PROMPT_FORMATS
    table = FORMATS | PROMPT_FORMATS
    return {
        name: known for name, known in table.items() if any(known.yields in VIEWS.get(kind, (kind,)) for kind in wanted)
    }


_NAMES: dict[type[Any], str] = {
    Pair: "a pair, with a chosen and a rejected answer",
    Labelled: "an answer labelled good or bad",
    Ranking: "ranked answers",
    Steps: "an answer in labelled steps",
    Demonstration: "a demonstration",
    Prompt: "a prompt",
}


def _summary(row: Row) -> str:
    most = 12
    keys = [f"{printable(key)} ({kind_of(value)})" for key, value in list(row.items())[:most]]
    more = [f"{len(row) - most} more"] if len(row) > most else []
    return "the keys " + ", ".join(keys + more) if row else "an object without keys"


def _listing(formats: Sequence[Format]) -> str:
    def line(known: Format) -> str:
        keys = ", ".join(f"{key} ({holds})" for key, holds in known.keys.items())
        return f"  {known.name:<20}{keys}"

    return "\n".join(map(line, formats))


# What a value looks like; recognisers glance, converters look closely.


def _text(value: object) -> bool:
    return isinstance(value, str) and not looks_like_chat(value)


def _plain(value: object) -> bool:
    return _text(value) and not looks_like_transcript(value)


def _there(value: object) -> bool:
    return value is not None


def _absent(value: object) -> bool:
    return value is None


def _no_text_nor_chat(value: object) -> bool:
    return not isinstance(value, str) and not looks_like_chat(value)


def _said(value: object) -> bool:
    return _text(value) or looks_like_chat(value)


def _list(value: object) -> bool:
    return isinstance(value, list) or (isinstance(value, str) and value.lstrip().startswith("["))


def _ranked(value: object) -> bool:
    if isinstance(value, list):
        return bool(value) and isinstance(value[0], dict) and "rank" in value[0]
    return _list(value) and '"rank"' in str(value)


def _request(value: object) -> bool:
    return '"messages"' in value if isinstance(value, str) else isinstance(value, dict) and "messages" in value


def _with_answer(value: object) -> bool:
    """Whether a conversation has a turn by the assistant, as far as a glance can tell."""
    if isinstance(value, str):
        return any(speaker in value for speaker in _ANSWERERS)
    turns = value if isinstance(value, list) else [value]
    return any(isinstance(turn, dict) and (turn.get("role") or turn.get("from")) in _ANSWERERS for turn in turns)


_ANSWERERS = ("assistant", "gpt", "chatgpt", "function_call", "tool_call")


def _holds(without: Collection[str] = (), **looks: Callable[[object], bool]) -> Fits:
    """Rows whose values look right, and that have nothing under the keys they are to be `without`."""
    return lambda row: (
        all(looks_right(row.get(key)) for key, looks_right in looks.items())
        and all(row.get(key) is None for key in without)
    )


def _either(*recognisers: Fits) -> Fits:
    return lambda row: any(fits(row) for fits in recognisers)


def _both(*recognisers: Fits) -> Fits:
    return lambda row: all(fits(row) for fits in recognisers)


def _labelled(row: Row) -> bool:
    return is_yes_no(row.get("label")) or is_yes_no(row.get("kto_tag"))


def _unlabelled(row: Row) -> bool:
    return not _labelled(row)


# Keys that hold what is asked.
_ASKING = (
    *("prompt", "instruction", "question", "input", "query", "messages", "conversations", "conversation", "history"),
    *("context", "post", "problem", "task"),
)
# Keys that hold answers which stand beside others: a row that has them is more than one answer.
_COMPARED = (
    *("chosen", "rejected", "chosen_response", "rejected_response", "preferred_output", "non_preferred_output"),
    *("output_1", "output_2", "response_0", "response_1", "response_a", "response_b"),
    *("human_ref_A", "human_ref_B", "conversation_a", "conversation_b", "answers", "completions"),
)

_KEPT = {
    **{key: "number" for keys in zip(*comparisons.SCORE_KEYS.values(), strict=True) for key in keys},
    "margin": "number",
    "preference": "probability that chosen is better, 0.5 to 1",
}
_TOOLS = {"tools": "list of tools"}
_SYSTEM = {"system": "text"}
_CHAT = _SYSTEM | _TOOLS
_ASKED = {"input": "text, put below the instruction", "history": "earlier rounds, each [asked, answered]", **_CHAT}
_TAG = {"kto_tag": "the same, instead of label"}
_JUDGED = "true or false"

FORMATS: dict[str, Format] = {
    known.name: known
    for known in (
        Format(
            "pair-text",
            "prompt and answers as text",
            {"prompt": "text", "chosen": "text", "rejected": "text"},
            Pair,
            _holds(prompt=_text, chosen=_text, rejected=_text),
            comparisons.pair_of_texts,
            _KEPT,
            "TRL, OpenRLHF (with `margin`), Axolotl",
            "Texts are taken as they are, to the last blank: no chat template is put around them.",
        ),
        Format(
            "pair-text-implicit",
            "texts that begin alike",
            {"chosen": "prompt and answer", "rejected": "prompt and answer"},
            Pair,
            _holds(_ASKING, chosen=_plain, rejected=_plain),
            comparisons.pair_of_whole_texts,
            _KEPT,
            "TRL (implicit prompt)",
            "The prompt is what both begin with, cut back to a whole word; a blank before the answers is theirs. "
            "Answers that begin alike lend it their first words: give the prompt a key of its own where you can.",
        ),
        Format(
            "pair-chat",
            "prompt and answers as messages",
            {"prompt": "messages", "chosen": "messages", "rejected": "messages"},
            Pair,
            _holds(prompt=looks_like_chat, chosen=looks_like_chat, rejected=looks_like_chat),
            comparisons.pair_of_chats,
            _CHAT | _KEPT,
            "TRL",
        ),
        Format(
            "pair-chat-implicit",
            "conversations that begin alike",
            {"chosen": "whole conversation", "rejected": "whole conversation"},
            Pair,
            _holds(
                ("messages", "conversations"),
                prompt=_no_text_nor_chat,
                chosen=looks_like_chat,
                rejected=looks_like_chat,
            ),
            comparisons.pair_of_whole_chats,
            _CHAT | _KEPT,
            "TRL, OpenRLHF, Argilla's mixes",
            "The prompt is the turns that both begin with.",
        ),
        Format(
            "hh",
            "Anthropic HH transcripts",
            {"chosen": "transcript", "rejected": "transcript"},
            Pair,
            _holds(prompt=_absent, chosen=looks_like_transcript, rejected=looks_like_transcript),
            comparisons.hh,
            _SYSTEM | _KEPT,
            "Anthropic/hh-rlhf",
            "`Human:` and `Assistant:` at the start of a paragraph become turns of a conversation.",
        ),
        Format(
            "ultrafeedback",
            "prompt as text, answers as conversations",
            {"prompt": "text", "chosen": "whole conversation", "rejected": "whole conversation"},
            Pair,
            _holds(prompt=_text, chosen=looks_like_chat, rejected=looks_like_chat),
            comparisons.ultrafeedback,
            _CHAT | _KEPT,
            "HuggingFaceH4/ultrafeedback_binarized, Argilla's binarized sets",
            "The prompt is taken from the conversations, which repeat it. Where they are answers alone, the text is "
            "the user's turn.",
        ),
        Format(
            "argilla",
            "an instruction and two responses",
            {"instruction": "text", "chosen_response": "text", "rejected_response": "text"},
            Pair,
            _holds(instruction=_text, chosen_response=_text, rejected_response=_text),
            comparisons.pair_on_instruction("instruction", ("chosen_response", "rejected_response")),
            _ASKED | _KEPT,
            "Argilla, distilabel",
        ),
        Format(
            "intel",
            "a question and two answers",
            {"question": "text", "chosen": "text", "rejected": "text"},
            Pair,
            _either(
                _holds(("prompt", "instruction", "messages"), question=_text, chosen=_text, rejected=_text),
                _holds(("prompt", "instruction", "messages", "question"), input=_text, chosen=_text, rejected=_text),
            ),
            comparisons.intel,
            {"input": "the same as question, instead of it", "history": _ASKED["history"]} | _CHAT | _KEPT,
            "Intel/orca_dpo_pairs, argilla/distilabel-intel-orca-dpo-pairs",
        ),
        Format(
            "alpaca-pair",
            "an instruction with input, and two answers",
            {"instruction": "text", "chosen": "text", "rejected": "text"},
            Pair,
            _holds(("prompt", "question", "messages"), instruction=_text, chosen=_text, rejected=_text),
            comparisons.pair_on_instruction("instruction", ("chosen", "rejected")),
            _ASKED | _KEPT,
            "LLaMA-Factory (alpaca, ranking)",
        ),
        Format(
            "sharegpt-pair",
            "a conversation and two answers to it",
            {"conversations": "messages", "chosen": "message", "rejected": "message"},
            Pair,
            _holds(("prompt", "messages"), conversations=looks_like_chat, chosen=_said, rejected=_said),
            comparisons.pair_after("conversations"),
            _CHAT | _KEPT,
            "LLaMA-Factory (ShareGPT, ranking)",
            "Messages have `from` (human, gpt, system, function_call, observation) and `value`; the words of a "
            "function_call are the call in JSON.",
        ),
        Format(
            "messages-pair",
            "messages and two answers to them",
            {"messages": "messages", "chosen": "message or text", "rejected": "message or text"},
            Pair,
            _holds(
                ("prompt", "conversations", "rejected_response"), messages=looks_like_chat, chosen=_said, rejected=_said
            ),
            comparisons.pair_after("messages"),
            _CHAT | _KEPT,
            "Axolotl, LLaMA-Factory (OpenAI messages, ranking)",
        ),
        Format(
            "openai",
            "a request with a preferred and another output",
            {
                "input": "object with messages",
                "preferred_output": "messages",
                "non_preferred_output": "messages",
            },
            Pair,
            _holds(input=_request, preferred_output=looks_like_chat, non_preferred_output=looks_like_chat),
            comparisons.openai,
            _KEPT,
            "OpenAI, Azure, Fireworks, Together",
            "`input.tools` are the tools.",
        ),
        Format(
            "swift",
            "a conversation that ends with the chosen answer, and a rejected one",
            {"messages": "whole conversation", "rejected_response": "text or messages"},
            Pair,
            _holds(("chosen", "rejected", "chosen_response"), messages=looks_like_chat, rejected_response=_said),
            comparisons.swift,
            _CHAT | _KEPT,
            "ms-swift",
            "The chosen answer is what the assistant says at the end of `messages`.",
        ),
        Format(
            "alpaca-eval",
            "an instruction and two outputs that a judge compared",
            {"instruction": "text", "output_1": "text", "output_2": "text", "preference": "1 to 2"},
            Pair,
            _holds(instruction=_text, output_1=_text, output_2=_text, preference=_there),
            comparisons.alpaca_eval,
            _ASKED,
            "alpaca_eval (annotations.json)",
            "Above 1.5 `output_2` is the better one; 1.5 is a tie, and so is 0, as older files have it. What lies "
            "between is kept as a grade: 1.2 says that `output_1` is better with probability 0.8. A preference of "
            "null is a judge's failure, and a bad row.",
        ),
        Format(
            "pku",
            "two responses, the better and the safer named",
            {"prompt": "text", "response_0": "text", "response_1": "text", "better_response_id": "0 or 1"},
            Pair,
            _holds(prompt=_text, response_0=_text, response_1=_text, better_response_id=_there),
            comparisons.pku,
            _CHAT,
            "PKU-Alignment/PKU-SafeRLHF",
            "The prompt is the user's turn. The better response is chosen; for the safer one: "
            "`--columns better_response_id=safer_response_id`.",
        ),
        Format(
            "shp",
            "a post and two comments, with their votes",
            {"history": "text", "human_ref_A": "text", "human_ref_B": "text", "labels": "1 where A is better, or 0"},
            Pair,
            _holds(history=_text, human_ref_A=_text, human_ref_B=_text, labels=_there),
            comparisons.shp,
            {"score_A": "number", "score_B": "number", **_TOOLS},
            "stanfordnlp/SHP",
            "Votes are kept as scores.",
        ),
        Format(
            "arena",
            "two conversations with one user, and the winner",
            {"conversation_a": "whole conversation", "conversation_b": "whole conversation", "winner": "model_a, ..."},
            Pair,
            _holds(conversation_a=looks_like_chat, conversation_b=looks_like_chat, winner=_there),
            comparisons.arena,
            _CHAT,
            "lmsys/chatbot_arena_conversations, lmarena-ai, MT-bench judgements",
            "`winner` is model_a, model_b, tie, tie (bothbad) or both_bad; both kinds of tie are ties. The user must "
            "have said the same to both. The prompt ends where the models first differ; the rest of each conversation "
            "is its answer, and all turns of the model in it count.",
        ),
        Format(
            "arena-one-hot",
            "turns of a prompt and of two models, and who won",
            {
                "prompt": "list of texts",
                "response_a": "list of texts",
                "response_b": "list of texts",
                "winner_model_a": "1 or 0",
                "winner_model_b": "1 or 0",
                "winner_tie": "1 or 0",
            },
            Pair,
            _holds(prompt=_there, response_a=_there, response_b=_there, winner_model_a=_there, winner_model_b=_there),
            comparisons.arena_one_hot,
            _TOOLS,
            "lmsys/lmsys-arena-human-preference-55k",
            "Lists may be JSON text; other text is one turn.",
        ),
        Format(
            "ranked",
            "a prompt and answers with ranks",
            {"prompt": "text, transcript or messages", "answers": "list of {answer, rank}"},
            Ranking,
            _holds(prompt=_said, answers=_ranked),
            comparisons.ranking,
            _CHAT,
            "berkeley-nest/Nectar",
            "A lower rank is better, equal ranks are tied. Where pairs are wanted, every two answers of different "
            "rank are one.",
        ),
        Format(
            "kto",
            "prompt and completion, labelled good or bad",
            {"prompt": "text or messages", "completion": "the same", "label": _JUDGED},
            Labelled,
            _both(
                _either(
                    _holds(_COMPARED, prompt=_text, completion=_text),
                    _holds(_COMPARED, prompt=looks_like_chat, completion=looks_like_chat),
                ),
                _labelled,
            ),
            answers.labelled,
            _CHAT | _TAG,
            "TRL (unpaired preference)",
        ),
        Format(
            "kto-messages",
            "conversations whose last answer is labelled",
            {"messages": "whole conversation", "label": _JUDGED},
            Labelled,
            _both(_holds(("prompt", "conversations", *_COMPARED), messages=looks_like_chat), _labelled),
            answers.labelled_conversation("messages"),
            _CHAT | _TAG,
            "ms-swift, LLaMA-Factory (OpenAI messages)",
            "The label is of the last turn.",
        ),
        Format(
            "kto-alpaca",
            "an instruction and its output, labelled",
            {"instruction": "text", "output": "text", "label": _JUDGED},
            Labelled,
            _both(
                _holds(("prompt", "messages", "conversations", *_COMPARED), instruction=_text, output=_text), _labelled
            ),
            answers.labelled_alpaca,
            _ASKED | _TAG,
            "LLaMA-Factory (alpaca)",
        ),
        Format(
            "kto-sharegpt",
            "ShareGPT conversations whose last answer is labelled",
            {"conversations": "whole conversation", "label": _JUDGED},
            Labelled,
            _both(_holds(("prompt", "messages", *_COMPARED), conversations=looks_like_chat), _labelled),
            answers.labelled_conversation("conversations"),
            _CHAT | _TAG,
            "LLaMA-Factory (ShareGPT)",
        ),
        Format(
            "steps",
            "steps of an answer, each labelled right or wrong",
            {"prompt": "text", "completions": "list of texts", "labels": "list of true or false"},
            Steps,
            _holds(prompt=_text, completions=_list, labels=_list),
            answers.steps,
            {"separator": "text between steps; a line break where absent"},
            "TRL (stepwise supervision), PRM800K, Math-Shepherd",
        ),
        Format(
            "sft-text",
            "plain documents",
            {"text": "text"},
            Demonstration,
            _holds(("instruction", *_COMPARED), text=_text),
            answers.document,
        ),
        Format(
            "sft-prompt",
            "prompt and completion",
            {"prompt": "text or messages", "completion": "the same"},
            Demonstration,
            _both(
                _either(
                    _holds(_COMPARED, prompt=_text, completion=_text),
                    _holds(_COMPARED, prompt=looks_like_chat, completion=looks_like_chat),
                ),
                _unlabelled,
            ),
            answers.completed_prompt,
            _CHAT,
            "TRL, OpenAI (older completions)",
        ),
        Format(
            "sft-messages",
            "whole conversations",
            {"messages": "messages"},
            Demonstration,
            _both(_holds(_COMPARED, messages=_with_answer), _holds(messages=looks_like_chat), _unlabelled),
            answers.conversation("messages"),
            _CHAT,
            "TRL, OpenAI, ms-swift",
            "Every turn by the assistant is learnt.",
        ),
        Format(
            "sft-alpaca",
            "an instruction with input, and its output",
            {"instruction": "text", "output": "text"},
            Demonstration,
            _both(
                _holds(("prompt", "messages", "conversations", *_COMPARED), instruction=_text, output=_text),
                _unlabelled,
            ),
            answers.alpaca,
            _ASKED,
            "Stanford Alpaca, LLaMA-Factory (alpaca)",
            "Answers in `history` are learnt too.",
        ),
        Format(
            "sft-sharegpt",
            "whole ShareGPT conversations",
            {"conversations": "messages"},
            Demonstration,
            _both(_holds(_COMPARED, conversations=_with_answer), _holds(conversations=looks_like_chat), _unlabelled),
            answers.conversation("conversations"),
            _CHAT,
            "LLaMA-Factory (ShareGPT), Axolotl",
            "Every turn by the assistant is learnt.",
        ),
    )
}

# Rows to answer. What compares or labels answers has prompts too; of a row to learn from, what is to be learnt is
# another key's business.
PROMPT_FORMATS: dict[str, Format] = {
    known.name: known
    for known in (
        *(known for known in FORMATS.values() if known.yields in VIEWS[Prompt]),
        Format(
            "prompt",
            "prompts, whatever answers stand beside them",
            {"prompt": "text or messages"},
            Prompt,
            lambda row: (
                _said(row.get("prompt"))
                and all(row.get(key) is None for key in _COMPARED)
                and not FORMATS["kto"].fits(row)
            ),
            answers.prompt,
            _CHAT,
            "TRL (prompt-only)",
        ),
        Format(
            "prompt-messages",
            "conversations, less an answer at their end",
            {"messages": "messages"},
            Prompt,
            _both(_holds(("prompt", *_COMPARED), messages=looks_like_chat), _unlabelled),
            answers.conversation_to_answer("messages"),
            _CHAT,
        ),
        Format(
            "prompt-alpaca",
            "instructions, with input",
            {"instruction": "text"},
            Prompt,
            _both(_holds(("prompt", "messages", "conversations", *_COMPARED), instruction=_text), _unlabelled),
            answers.alpaca_prompt,
            _ASKED,
        ),
        Format(
            "prompt-sharegpt",
            "ShareGPT conversations, less an answer at their end",
            {"conversations": "messages"},
            Prompt,
            _both(_holds(("prompt", "messages", *_COMPARED), conversations=looks_like_chat), _unlabelled),
            answers.conversation_to_answer("conversations"),
            _CHAT,
        ),
    )
}
