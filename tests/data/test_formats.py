"""Each format: one row that it reads and what must come out, and rows that it must not misread."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kilter.data.formats import FORMATS, Row, RowError, printable, recognise
from kilter.data.records import Demonstration, Message, Origin, Pair
from kilter.errors import DataError

HERE = Origin("pairs.jsonl", 7)


def user(content: str) -> dict[str, object]:
    return {"role": "user", "content": content}


def assistant(content: str) -> dict[str, object]:
    return {"role": "assistant", "content": content}


def turns(*said: tuple[str, str]) -> tuple[Message, ...]:
    return tuple(Message(role, content) for role, content in said)


Q, YES, NO = turns(("user", "2+2?")), turns(("assistant", "4")), turns(("assistant", "5"))

EXAMPLES: dict[str, tuple[Row, Pair | Demonstration]] = {
    "pair-text": (
        {"prompt": "2+2? ", "chosen": "4\n", "rejected": "5"},
        Pair("2+2? ", "4\n", "5", HERE),
    ),
    "pair-chat": (
        {"prompt": [user("2+2?")], "chosen": [assistant("4")], "rejected": assistant("5")},
        Pair(Q, YES, NO, HERE),
    ),
    "pair-chat-implicit": (
        {"chosen": [user("2+2?"), assistant("4")], "rejected": [user("2+2?"), assistant("5")]},
        Pair(Q, YES, NO, HERE),
    ),
    "hh": (
        {"chosen": "\n\nHuman: 2+2?\n\nAssistant: 4", "rejected": "\n\nHuman: 2+2?\n\nAssistant: 5"},
        Pair(Q, YES, NO, HERE),
    ),
    "sft-text": (
        {"text": " Once upon a time"},
        Demonstration("", " Once upon a time", HERE),
    ),
    "sft-prompt": (
        {"prompt": "", "completion": "4"},
        Demonstration("", "4", HERE),
    ),
    "sft-messages": (
        {"messages": [user("2+2?"), assistant("4")]},
        Demonstration((), Q + YES, HERE),
    ),
}


def read(name: str, row: Row) -> Pair | Demonstration:
    return FORMATS[name].convert(row, HERE)


def refusal(name: str, row: Row) -> str:
    with pytest.raises(RowError) as caught:
        read(name, row)
    return str(caught.value)


def test_every_format_has_an_example_here() -> None:
    assert list(EXAMPLES) == list(FORMATS)


@pytest.mark.parametrize("name", FORMATS)
def test_a_row_is_recognised_by_its_own_format_alone_and_becomes_the_record_expected(name: str) -> None:
    row, expected = EXAMPLES[name]
    assert [known.name for known in FORMATS.values() if known.fits(row)] == [name]
    assert read(name, row) == expected
    assert isinstance(expected, FORMATS[name].yields)


@pytest.mark.parametrize("name", FORMATS)
def test_other_keys_and_null_ones_do_not_change_what_is_recognised(name: str) -> None:
    row, expected = EXAMPLES[name]
    absent = {key: None for key in ("prompt", "text", "messages", "completion", "label") if key not in row}
    row = row | absent | {"id": 3, "score_chosen": 0.5}
    assert [known.name for known in FORMATS.values() if known.fits(row)] == [name]
    assert read(name, row) == expected


@pytest.mark.parametrize("name", FORMATS)
def test_a_missing_or_mistyped_field_is_refused_by_its_name(name: str) -> None:
    row, _ = EXAMPLES[name]
    for key in FORMATS[name].keys:
        assert refusal(name, {k: v for k, v in row.items() if k != key}).startswith(f"{key}: is missing or null; ")
        assert refusal(name, row | {key: 3}).startswith(f"{key}: is a number; expected ")


@pytest.mark.parametrize("name", [known.name for known in FORMATS.values() if known.yields is Pair])
def test_a_pair_of_identical_answers_is_refused(name: str) -> None:
    row, _ = EXAMPLES[name]
    same = [row["chosen"]] if isinstance(row["chosen"], dict) else row["chosen"]
    assert "rejected: is identical to chosen" in refusal(name, row | {"rejected": same})


@pytest.mark.parametrize("nothing", ["", "  \n\t\u2003"])
def test_an_answer_without_text_is_refused(nothing: str) -> None:
    said = [user("2+2?"), assistant(nothing)]
    for name, row in {
        "pair-text": {"prompt": "2+2?", "chosen": nothing, "rejected": "5"},
        "pair-chat": {"prompt": [user("2+2?")], "chosen": [assistant(nothing)], "rejected": [assistant("5")]},
        "pair-chat-implicit": {"chosen": said, "rejected": [user("2+2?"), assistant("5")]},
        "hh": {"chosen": f"\n\nHuman: 2+2?\n\nAssistant:{nothing}", "rejected": "\n\nHuman: 2+2?\n\nAssistant: 5"},
    }.items():
        assert refusal(name, row).startswith("chosen: "), name
    assert refusal("sft-text", {"text": nothing}).startswith("text: is empty")
    assert refusal("sft-prompt", {"prompt": "2+2?", "completion": nothing}).startswith("completion: is empty")
    assert refusal("sft-messages", {"messages": said}).startswith("messages: has no turn by the assistant")


def test_a_pair_without_a_prompt_is_refused() -> None:
    assert refusal("pair-text", {"prompt": " ", "chosen": "4", "rejected": "5"}).startswith("prompt: is empty")
    only_answers = {"chosen": "\n\nAssistant: 4", "rejected": "\n\nAssistant: 5"}
    assert refusal("hh", only_answers).startswith("prompt: is empty")


def test_text_that_no_tokenizer_takes_is_refused() -> None:
    assert "half a surrogate pair (\\ud83d) at character 3" in refusal("sft-text", {"text": "ab\ud83d"})
    assert "NUL at character 2" in refusal("sft-text", {"text": "a\0b"})
    assert read("sft-text", {"text": "ab\U0001f600"}) == Demonstration("", "ab\U0001f600", HERE)


# Conversations.


def test_a_messages_flaw_is_named_by_its_place() -> None:
    def at(turn: object) -> str:
        return refusal("sft-messages", {"messages": [user("2+2?"), turn]})

    assert at("4").startswith("messages[1]: is text; expected a message")
    assert at({"content": "4"}).startswith("messages[1].role: is missing or null; expected one of system, ")
    assert at({"role": "gpt\x1b[2J", "content": "4"}).startswith("messages[1].role: is 'gpt\\x1b[2J'; expected one of")
    assert at({"role": ["x"], "content": "4"}).startswith("messages[1].role: is a list; ")
    assert at({"role": "assistant", "content": [{"type": "text"}]}).startswith("messages[1].content: is a list; ")


@pytest.mark.parametrize("extra", [{"tool_calls": [{"name": "add"}]}, {"weight": 0}, {"reasoning_content": "hm"}])
def test_a_messages_key_that_changes_its_meaning_is_refused(extra: dict[str, object]) -> None:
    said = refusal("sft-messages", {"messages": [user("2+2?"), assistant("4") | extra]})
    assert said.startswith(f"messages[1].{next(iter(extra))}: would be lost")
    read("sft-messages", {"messages": [user("2+2?"), assistant("4") | dict.fromkeys(extra)]})


def test_a_prompt_that_the_answers_repeat_is_refused_not_doubled() -> None:
    whole = [user("2+2?"), assistant("4")]
    other = [user("2+2?"), assistant("5")]
    repeated = {"prompt": [user("2+2?")], "chosen": whole, "rejected": other}
    assert FORMATS["pair-chat"].fits(repeated)
    assert refusal("pair-chat", repeated).startswith("prompt: is repeated in chosen")


def test_a_text_prompt_beside_conversations_is_refused_not_misread() -> None:
    row: Row = {
        "prompt": "2+2?",
        "chosen": [user("2+2?"), assistant("4")],
        "rejected": [user("2+2?"), assistant("5")],
    }
    assert recognise([(HERE, row)], {Pair}).name == "pair-chat-implicit"
    assert refusal("pair-chat-implicit", row).startswith("prompt: is text beside conversations")


def test_an_answer_that_is_not_the_assistants_is_refused() -> None:
    row = {"prompt": [user("2+2?")], "chosen": [user("4")], "rejected": [assistant("5")]}
    assert refusal("pair-chat", row).startswith("chosen: begins with a turn by the user")
    row |= {"chosen": [assistant("4"), user("thanks")]}
    assert refusal("pair-chat", row).startswith("chosen: ends with a turn by the user")


def test_the_implicit_prompt_is_the_longest_common_run_of_turns() -> None:
    common = [{"role": "system", "content": "Add."}, user("1+1?"), assistant("2"), user("2+2?")]
    pair = read("pair-chat-implicit", {"chosen": [*common, assistant("4")], "rejected": [*common, assistant("5")]})
    system = turns(("system", "Add."), ("user", "1+1?"), ("assistant", "2"), ("user", "2+2?"))
    assert pair == Pair(system, YES, NO, HERE)


def test_conversations_that_do_not_part_at_the_assistants_turn_are_refused() -> None:
    def said(chosen: list[dict[str, object]], rejected: list[dict[str, object]]) -> str:
        return refusal("pair-chat-implicit", {"chosen": chosen, "rejected": rejected})

    base = [user("2+2?"), assistant("4")]
    assert "no first turn in common" in said(base, [user("3+3?"), assistant("6")])
    assert "no first turn in common" in said([assistant("4")], [assistant("5")])
    assert "rejected: has nothing after the prompt" in said([*base, user("3+3?"), assistant("6")], base)
    parted = said([*base, user("3+3?"), assistant("6")], [*base, user("1+1?"), assistant("2")])
    assert "chosen: begins with a turn by the user" in parted


@given(
    st.lists(st.tuples(st.sampled_from(["user", "assistant"]), st.text("ab", max_size=2)), min_size=1, max_size=5),
)
def test_implicit_and_explicit_prompts_read_the_same(said: list[tuple[str, str]]) -> None:
    prompt = [{"role": role, "content": content} for role, content in said]
    answers = {"chosen": [assistant("yes")], "rejected": [assistant("no")]}
    whole = {key: prompt + answer for key, answer in answers.items()}
    assert read("pair-chat-implicit", whole) == read("pair-chat", {"prompt": prompt} | answers)


# Transcripts.

_said = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20).map(str.strip)


@given(st.lists(st.tuples(st.sampled_from(["Human", "Assistant"]), _said), min_size=1, max_size=6), _said, _said)
def test_a_transcript_gives_back_the_turns_it_was_written_from(
    said: list[tuple[str, str]], chosen: str, rejected: str
) -> None:
    def written(answer: str) -> str:
        return "".join(f"\n\n{speaker}: {content}" for speaker, content in [*said, ("Assistant", answer)])

    row: Row = {"chosen": written("y" + chosen), "rejected": written("n" + rejected)}
    role = {"Human": "user", "Assistant": "assistant"}
    assert read("hh", row) == Pair(
        turns(*((role[speaker], content) for speaker, content in said)),
        turns(("assistant", "y" + chosen)),
        turns(("assistant", "n" + rejected)),
        HERE,
    )


def test_a_speaker_is_named_only_at_the_start_of_a_paragraph() -> None:
    answer = "Human: is a word,\nHuman: too, and \n\nHumans: as well"
    row = {"chosen": f"\n\nHuman: Q\n\nAssistant: {answer}", "rejected": "Human: Q\n\nAssistant: 5"}
    assert read("hh", row) == Pair(turns(("user", "Q")), turns(("assistant", answer)), NO, HERE)


def test_transcripts_that_are_no_pair_are_refused() -> None:
    good = "\n\nHuman: Q\n\nAssistant: A"

    def said(rejected: str) -> str:
        return refusal("hh", {"chosen": good, "rejected": rejected})

    assert said("\n\nHuman: q\n\nAssistant: B").startswith("rejected: differs from chosen before the last turn")
    assert said(f"{good}\n\nHuman: R\n\nAssistant: B").startswith("rejected: differs from chosen before the last turn")
    assert said("\n\nHuman: Q\n\nHuman: B").startswith("rejected: begins with a turn by the user")
    assert said("Note.\n\nHuman: Q\n\nAssistant: B").startswith("rejected: is not a transcript")
    assert said("just text").startswith("rejected: is not a transcript")


def test_transcripts_beside_a_prompt_are_refused_not_read_as_answers() -> None:
    row: Row = EXAMPLES["hh"][0] | {"prompt": "\n\nHuman: 2+2?\n\nAssistant:"}
    assert recognise([(HERE, row)], {Pair}).name == "pair-text"
    assert refusal("pair-text", row).startswith("prompt: stands beside whole transcripts")
    assert refusal("hh", row).startswith("prompt: stands beside whole transcripts")


def test_a_text_answer_may_quote_a_transcript() -> None:
    row = {"prompt": "Write a chat.", "chosen": "Here:\n\nHuman: hi\n\nAssistant: hello", "rejected": "No."}
    assert isinstance(read("pair-text", row), Pair)


# Demonstrations.


def test_completions_may_be_text_or_messages_but_not_a_mixture() -> None:
    chat = {"prompt": [user("2+2?")], "completion": [assistant("4")]}
    assert recognise([(HERE, chat)], {Demonstration}).name == "sft-prompt"
    assert read("sft-prompt", chat) == Demonstration(Q, YES, HERE)
    assert refusal("sft-prompt", chat | {"prompt": "2+2?"}).startswith("completion: is a list; expected text")
    assert refusal("sft-prompt", chat | {"completion": "4"}).startswith("completion: is text; expected a list")


@pytest.mark.parametrize("name", ["sft-prompt", "sft-messages"])
def test_answers_marked_good_or_bad_are_not_read_as_demonstrations(name: str) -> None:
    assert refusal(name, EXAMPLES[name][0] | {"label": False}).startswith("label: marks answers as good or bad")


# Recognition.


def test_the_first_row_that_fits_a_format_decides() -> None:
    rows = [(HERE, row) for row in ({"prompt": 3}, EXAMPLES["hh"][0], EXAMPLES["pair-text"][0])]
    assert recognise(rows, {Pair}).name == "hh"


def test_pairs_are_found_beside_demonstrations_where_pairs_are_wanted() -> None:
    both = EXAMPLES["pair-text"][0] | EXAMPLES["sft-messages"][0]
    assert recognise([(HERE, both)], {Pair}).name == "pair-text"


def test_a_row_that_fits_several_formats_is_refused_with_their_names() -> None:
    both = EXAMPLES["sft-text"][0] | EXAMPLES["sft-messages"][0]
    with pytest.raises(
        DataError, match=r"pairs.jsonl:7: .*more than one way(.|\n)*sft-text(.|\n)*sft-messages"
    ) as caught:
        recognise([(HERE, both)], {Demonstration})
    assert "pair-text" not in str(caught.value)


def test_demonstrations_are_refused_where_pairs_are_wanted() -> None:
    with pytest.raises(DataError, match=r"found a demonstration, format sft-text .*; expected a pair"):
        recognise([(HERE, EXAMPLES["sft-text"][0])], {Pair})


def test_a_row_of_no_format_is_refused_with_its_keys_and_every_format() -> None:
    with pytest.raises(DataError, match="no format") as caught:
        recognise([(HERE, {"question": "q", "an\x1bswer": 4})], {Demonstration})
    said = str(caught.value)
    assert "question (text), an\\x1bswer (a number)" in said
    assert all(f"  {name} " in said for name in FORMATS)


# Words for users.


@given(st.text())
def test_printable_text_has_no_control_characters_and_is_short(text: str) -> None:
    shown = printable(text, 20)
    assert shown.isprintable()
    assert len(shown) <= 20 * len("\\U0001f600")


def test_printable_text_stays_as_it_is() -> None:
    assert printable("naïve 漢字 😀") == "naïve 漢字 😀"
    assert printable("a\x1b[31m\u202eb\n\ud800") == "a\\x1b[31m\\u202eb\\n\\ud800"
    assert printable("x" * 100, 5) == "xxxx…"


@given(
    st.dictionaries(
        st.sampled_from(["prompt", "chosen", "rejected", "text", "completion", "messages", "label"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.just("\n\nHuman: q\n\nAssistant: a"),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "x"]) | inner, "content": inner})
            ),
            max_leaves=6,
        ),
    )
)
def test_whatever_a_row_holds_it_is_a_record_or_a_row_error(row: Row) -> None:
    for known in FORMATS.values():
        known.fits(row)
        with suppress(RowError):
            assert isinstance(known.convert(row, HERE), known.yields)
