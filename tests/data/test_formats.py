"""Each format: rows that it reads and what must come out, and rows that it must not misread."""

from __future__ import annotations

import json
import math
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kilter.data.canonical import canonical_row
from kilter.data.comparisons import SCORE_KEYS
from kilter.data.formats import FORMATS, PROMPT_FORMATS, Row, RowError, printable, recognise, serving
from kilter.data.records import VIEWS, Demonstration, Labelled, Message, Origin, Pair, Prompt, Ranking, Steps
from kilter.errors import DataError

HERE = Origin("pairs.jsonl", 7)


def user(content: str) -> dict[str, object]:
    return {"role": "user", "content": content}


def assistant(content: str) -> dict[str, object]:
    return {"role": "assistant", "content": content}


def turns(*said: tuple[str, str]) -> tuple[Message, ...]:
    return tuple(Message(role, content) for role, content in said)


Q, YES, NO = turns(("user", "2+2?")), turns(("assistant", "4")), turns(("assistant", "5"))

KINDS = (Pair, Labelled, Ranking, Steps, Demonstration)
KNOWN = FORMATS | PROMPT_FORMATS
FIXTURES = Path(__file__).with_name("formats")


def lines(name: str) -> list[Row]:
    return [json.loads(line) for line in (FIXTURES / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


EXAMPLES = {name: lines(name) for name in KNOWN}


def read(name: str, row: Row) -> Any:
    return KNOWN[name].convert(row, HERE)


def refusal(name: str, row: Row) -> str:
    with pytest.raises(RowError) as caught:
        read(name, row)
    return str(caught.value)


def fitting(row: Row, *wanted: type[Any]) -> list[str]:
    return [name for name, known in serving(wanted).items() if known.fits(row)]


# Every format, by its fixture: rows, and the canonical rows that they must become, written by hand.


def test_every_format_has_a_fixture_and_every_fixture_a_format() -> None:
    assert {path.name for path in FIXTURES.iterdir()} == {
        f"{name}{ending}" for name in KNOWN for ending in (".jsonl", ".expected.jsonl")
    }
    assert all(len(rows) >= 2 for rows in EXAMPLES.values())


@pytest.mark.parametrize("name", KNOWN)
def test_rows_become_the_records_expected(name: str) -> None:
    records = [read(name, row) for row in EXAMPLES[name]]
    assert [canonical_row(record) for record in records] == lines(f"{name}.expected")
    assert {type(record) for record in records} == {KNOWN[name].yields}


@pytest.mark.parametrize("name", FORMATS)
def test_rows_are_recognised_by_their_own_format_alone(name: str) -> None:
    for row in EXAMPLES[name]:
        assert fitting(row, *KINDS) == [name]
        assert recognise([(HERE, row)], KINDS).name == name
        assert recognise([(HERE, row)], [*KINDS, Prompt]).name == name
        for wanted in (Pair, Labelled, Demonstration, Prompt):
            expected = [name] if name in serving([wanted]) else fitting(row, wanted)[:1]
            assert fitting(row, wanted) == expected


@pytest.mark.parametrize("name", [name for name in PROMPT_FORMATS if name not in FORMATS])
def test_prompts_are_recognised_by_their_own_format_alone(name: str) -> None:
    for row in EXAMPLES[name]:
        assert fitting(row, Prompt) == [name]


@pytest.mark.parametrize(
    ("name", "serves"),
    [
        ("sft-prompt", "prompt"),
        ("sft-messages", "prompt-messages"),
        ("sft-alpaca", "prompt-alpaca"),
        ("sft-sharegpt", "prompt-sharegpt"),
    ],
)
def test_demonstrations_have_prompts_too(name: str, serves: str) -> None:
    for row in EXAMPLES[name]:
        assert fitting(row, Prompt) == [serves]
        asked, learnt = read(serves, row), read(name, row)
        whole = learnt.completion if learnt.prompt == () else learnt.prompt + learnt.completion
        assert whole[: len(asked.prompt)] == asked.prompt
        assert len(whole) > len(asked.prompt)


@pytest.mark.parametrize("name", FORMATS)
def test_other_keys_and_null_ones_do_not_change_what_is_recognised(name: str) -> None:
    keys = {key for known in KNOWN.values() for key in (*known.keys, *known.optional)}
    for row, expected in zip(EXAMPLES[name], lines(f"{name}.expected"), strict=True):
        row = row | {key: None for key in keys if key not in row} | {"id": 3, "source": "made up", "model": "m"}
        assert fitting(row, *KINDS) == [name]
        assert canonical_row(read(name, row)) == expected


@pytest.mark.parametrize("name", KNOWN)
def test_a_missing_mistyped_or_empty_field_is_refused_by_its_name(name: str) -> None:
    row = EXAMPLES[name][0]
    for key in KNOWN[name].keys:
        flaws = [refusal(name, {k: v for k, v in row.items() if k != key})]
        if name != "sft-prompt":  # what it completes may be empty
            flaws.append(refusal(name, row | {key: ""}))
        flaws += [refusal(name, row | {key: value}) for value in (3, {}, [], [3], [{}], math.nan, math.inf, 10**400)]
        for said in flaws:
            assert said.startswith(key), said
            assert "; " in said
            assert said.isprintable()
        assert "is missing or null; " in flaws[0]


@pytest.mark.parametrize("name", KNOWN)
def test_all_that_a_row_holds_is_kept_or_named_as_unread(name: str) -> None:
    known = KNOWN[name]
    for row in EXAMPLES[name]:
        assert {key for key in row if key not in known.keys and key not in known.optional} <= set(known.unread(row))
        assert set(known.unread(row | {"shoe_size": 43})) == {*known.unread(row), "shoe_size"}


def identical(name: str) -> Row:
    """The format's example with its second answer replaced by its first."""
    row = EXAMPLES[name][0]
    if name == "swift":
        return row | {"rejected_response": row["messages"][-1]["content"]}
    first, second = [key for key in known_answers(name) if key in row][:2]
    return row | {second: row[first]}


def known_answers(name: str) -> list[str]:
    asked = ("prompt", "instruction", "question", "conversations", "messages", "input", "history")
    return [key for key in FORMATS[name].keys if key not in asked]


@pytest.mark.parametrize("name", [name for name, known in FORMATS.items() if known.yields is Pair])
def test_a_pair_of_identical_answers_is_refused(name: str) -> None:
    assert "is identical to " in refusal(name, identical(name))


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
    assert at({"role": "assistant", "content": [{"type": "text"}]}).startswith(
        "messages[1].content[0].text: is missing"
    )


@pytest.mark.parametrize("extra", [{"weight": 0}, {"train": False}, {"loss": 0.5}])
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


def test_a_text_prompt_beside_conversations_must_be_one_of_their_turns() -> None:
    row: Row = {
        "prompt": "3+3?",
        "chosen": [user("2+2?"), assistant("4")],
        "rejected": [user("2+2?"), assistant("5")],
    }
    assert recognise([(HERE, row)], {Pair}).name == "ultrafeedback"
    assert refusal("ultrafeedback", row).startswith(
        "prompt: is not among the turns that chosen and rejected begin with"
    )
    assert read("ultrafeedback", row | {"prompt": " 2+2?\n"}) == Pair(Q, YES, NO, HERE)
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


@pytest.mark.parametrize("name", ["sft-prompt", "sft-messages", "sft-alpaca", "sft-sharegpt"])
def test_answers_marked_good_or_bad_are_not_read_as_demonstrations(name: str) -> None:
    assert refusal(name, EXAMPLES[name][0] | {"label": False}).startswith("label: marks answers as good or bad")


# Whole texts.


@pytest.mark.parametrize(
    ("chosen", "rejected", "prompt"),
    [
        ("The sky is blue.", "The sky is green.", "The sky is"),
        ("It is blueish", "It is bluest", "It is"),  # not within a word
        ("Sum:\n12", "Sum:\n13", "Sum:\n"),  # nor within a number; a line's end is the prompt's
        ("Name: Zoë", "Name: Zoe\u0301", "Name:"),
        ("Cafe\u0301 au lait", "Cafe\u0302 noir", ""),  # nor between a letter and its accent
        ("天空是蓝色的。", "天空是绿色的。", "天空是"),  # in Chinese any character ends a word
        ("Q: hi\nA: yes sir", "Q: hi\nA: yes", ""),  # one is all of the other's beginning: no answer is left
    ],
)
def test_whole_texts_are_cut_where_they_part_at_a_whole_word(chosen: str, rejected: str, prompt: str) -> None:
    row: Row = {"chosen": chosen, "rejected": rejected}
    if prompt:
        pair = read("pair-text-implicit", row)
        assert (pair.prompt, pair.chosen, pair.rejected) == (prompt, chosen[len(prompt) :], rejected[len(prompt) :])
    else:
        assert refusal("pair-text-implicit", row).startswith("rejected: ")


@given(st.text(max_size=30), st.text(max_size=30), st.text(max_size=30))
def test_a_cut_loses_nothing(shared: str, chosen: str, rejected: str) -> None:
    with suppress(RowError):
        pair = read("pair-text-implicit", {"chosen": shared + chosen, "rejected": shared + rejected})
        assert (pair.prompt + pair.chosen, pair.prompt + pair.rejected) == (shared + chosen, shared + rejected)


def test_whole_texts_that_share_nothing_and_transcripts_among_them_are_refused() -> None:
    unlike = refusal("pair-text-implicit", {"chosen": "Yes.", "rejected": "No."})
    assert unlike.startswith("rejected: shares no beginning with chosen; expected texts that begin with their prompt")
    transcripts = EXAMPLES["hh"][0]
    assert refusal("pair-text-implicit", transcripts).startswith("chosen: is a transcript among plain texts")


@pytest.mark.parametrize("key", ["prompt", "query", "context", "instruction", "messages"])
def test_texts_beside_a_question_are_not_read_as_whole_texts(key: str) -> None:
    row: Row = {"chosen": "The sea.", "rejected": "The sun.", key: "What is wet?"}
    assert "pair-text-implicit" not in fitting(row, *KINDS)


# Scores, grades and verdicts.


def test_scores_are_found_by_any_of_their_names_and_two_that_differ_are_refused() -> None:
    row = EXAMPLES["pair-chat"][0]
    for chosen, rejected in zip(*SCORE_KEYS.values(), strict=True):
        pair = read("pair-chat", row | {chosen: "7.5", rejected: 2})
        assert (pair.chosen_score, pair.rejected_score) == (7.5, 2.0)
    said = refusal("pair-chat", row | {"score_chosen": 1, "chosen_rating": 2})
    assert said.startswith("chosen_rating: differs from score_chosen; expected one score")


@pytest.mark.parametrize("key", ["margin", "score_chosen", "rejected-rating", "preference"])
@pytest.mark.parametrize("value", [math.nan, -math.inf, "nan", "1e999", "1_0", "much", True, [1], 10**400])
def test_a_score_that_is_no_finite_number_is_refused(key: str, value: object) -> None:
    assert refusal("pair-text", EXAMPLES["pair-text"][0] | {key: value}).startswith(f"{key}: is ")


@pytest.mark.parametrize("grade", [0.49, 1.01, -1, 2])
def test_a_grade_out_of_range_is_refused(grade: float) -> None:
    said = refusal("pair-text", EXAMPLES["pair-text"][0] | {"preference": grade})
    assert said.startswith(
        f"preference: is {grade}; expected the probability that chosen is better, 0.5 to 1; rename it"
    )


@pytest.mark.parametrize(
    ("preference", "first_is_chosen", "grade"),
    [(1, True, 1.0), (2, False, 1.0), ("1.25", True, 0.75), (1.75, False, 0.75), (1.5, True, 0.5), (0, True, 0.5)],
)
def test_an_alpaca_eval_preference_says_which_and_how_sure(
    preference: object, first_is_chosen: bool, grade: float
) -> None:
    row: Row = {"instruction": "2+2?", "output_1": "4", "output_2": "5", "preference": preference}
    pair = read("alpaca-eval", row)
    assert pair == Pair(Q, *((YES, NO) if first_is_chosen else (NO, YES)), HERE, preference=grade)
    for wrong in (0.5, 2.1, -1, 3):
        assert refusal("alpaca-eval", row | {"preference": wrong}).startswith(f"preference: is {wrong}; expected 1 (")


@pytest.mark.parametrize(
    ("name", "flaws", "told"),
    [
        ("pku", {"better_response_id": 2}, "better_response_id: is 2; expected 0 or 1"),
        ("pku", {"better_response_id": "first"}, "better_response_id: is 'first'; expected 0 or 1"),
        ("shp", {"labels": 2}, "labels: is 2; expected true or false (or 1 or 0)"),
        ("arena", {"winner": "model_c"}, "winner: is 'model_c'; expected one of model_a, model_b, tie, tie (bothbad)"),
        ("arena-one-hot", {"winner_tie": 1}, "winner_tie: is no verdict; expected 1 for one of three"),
        ("arena-one-hot", {"winner_model_a": 0}, "winner_model_a: is no verdict; expected 1 for one of three"),
        ("arena-one-hot", {"response_b": '["a", "b"]'}, "response_b: has 2 turns for 1 of the prompt"),
        ("arena-one-hot", {"response_a": "[null]"}, "response_a[0]: is missing or null; expected text"),
        ("kto", {"label": 0.5}, "label: is 0.5; expected true or false (or 1 or 0)"),
        ("kto", {"label": "good"}, "label: is 'good'; expected true or false"),
        ("kto-messages", {"messages": [user("2+2?")]}, "messages: begins with a turn by the user; expected one by the"),
        ("kto-messages", {"messages": [assistant("4")]}, "messages: has nothing before the answer"),
        ("steps", {"labels": [True]}, "labels: has 1 for 3 steps; expected one a step"),
        ("steps", {"labels": [True, -1, 1]}, "labels[1]: is -1; expected true or false"),
        ("steps", {"completions": ["one", " ", "three"]}, "completions[1]: is empty; expected an answer"),
        ("ranked", {"answers": [{"answer": "a", "rank": 1}]}, "answers: has 1; expected two answers or more"),
        ("ranked", {"answers": [{"answer": "a", "rank": 1}, {"answer": "b"}]}, "answers[1].rank: is missing or null; "),
        ("ranked", {"answers": [{"answer": "a", "rank": 1}, {"rank": 2}]}, "answers[1].answer: is missing or null; "),
        ("ranked", {"answers": [{"answer": "a", "rank": 1}] * 2}, "answers: are all identical"),
        (
            "ranked",
            {"answers": [{"answer": "a", "rank": 1}, {"answer": "a", "rank": 2}]},
            "answers[1].answer: stands in the list with another rank too",
        ),
        ("openai", {"input": {"messages": []}}, "input.messages: is an empty list; expected a list of messages"),
        ("openai", {"preferred_output": [user("4")]}, "preferred_output: begins with a turn by the user"),
        ("swift", {"messages": [user("2+2?")]}, "messages: ends with a turn by the user; expected the chosen answer"),
        ("swift", {"rejected_response": " "}, "rejected_response: has no text in its last turn"),
        ("argilla", {"chosen_response": " "}, "chosen_response: has no text in its last turn; expected an answer"),
        ("intel", {"question": "\n"}, "question: is empty; expected what the answers reply to"),
        ("alpaca-pair", {"history": [["only asked"]]}, "history[0]: is not a list of two; expected a question and"),
        (
            "sharegpt-pair",
            {"chosen": {"from": "bot", "value": "9"}},
            "chosen[0].from: is 'bot'; expected one of system,",
        ),
        (
            "sharegpt-pair",
            {"conversations": [{"from": None}]},
            "conversations[0].from: is missing or null; expected one of",
        ),
        ("messages-pair", {"images": ["cat.png"]}, "images: is given, but only text is read"),
    ],
)
def test_a_flaw_is_told_in_a_sentence_of_its_own(name: str, flaws: Row, told: str) -> None:
    assert refusal(name, EXAMPLES[name][0] | flaws).startswith(told)


def test_conversations_of_an_arena_must_have_one_user() -> None:
    row: Row = {"winner": "tie", "conversation_a": [user("2+2?"), assistant("4")]}
    other = row | {"conversation_b": [user("3+3?"), assistant("5")]}
    assert refusal("arena", other).startswith("conversation_b: asks other things than conversation_a")
    longer = row | {"conversation_b": [user("2+2?"), assistant("5"), user("Sure?"), assistant("Yes.")]}
    assert refusal("arena", longer).startswith("conversation_b: asks other things than conversation_a")
    unasked = row | {"conversation_a": [assistant("4")], "conversation_b": [assistant("5")]}
    assert refusal("arena", unasked).startswith("conversation_a: is empty; expected")


def test_a_ranking_is_not_torn_by_answers_that_are_tied() -> None:
    ranked = read("ranked", EXAMPLES["ranked"][0])
    assert ranked.ranks == (1.0, 2.0, 2.0)
    pairs = [(pair.chosen, pair.rejected) for pair in VIEWS[Pair][Ranking](ranked)]
    bananas, apples, figs = ranked.answers
    assert pairs == [(bananas, apples), (bananas, figs)]


def test_a_pair_is_a_ranking_of_two_with_its_prompt_and_tools() -> None:
    pair = Pair((user("2+2?"),), (assistant("4"),), (assistant("5"),), HERE, preference=0.8, tools="[]")
    (ranking,) = VIEWS[Ranking][Pair](pair)
    assert ranking == Ranking(pair.prompt, (pair.chosen, pair.rejected), (1, 2), HERE, "[]")
    (tied,) = VIEWS[Ranking][Pair](replace(pair, preference=0.5))
    assert tied.tied
    assert not ranking.tied


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
        recognise([(HERE, {"riddle": "q", "an\x1bswer": 4})], {Demonstration})
    said = str(caught.value)
    assert "riddle (text), an\\x1bswer (a number)" in said
    assert all(re.search(rf"\b{name}\b", said) for name in serving([Demonstration]))


def test_formats_that_a_row_nearly_fits_come_first_with_their_keys() -> None:
    with pytest.raises(DataError, match="no format") as caught:
        recognise([(HERE, {"history": "q", "human_ref_A": "a", "human_ref_B": "b"})], {Pair, Labelled})
    lines = str(caught.value).splitlines()
    assert lines[1].startswith("  shp                 history (text), human_ref_A (text), human_ref_B (text), labels ")
    assert {line.split()[0] for line in lines[2:-1]} >= {"pair-text", "kto"}
    assert lines[-1].startswith("or of these: pair-text-implicit, ")


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


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(
        ["\n\nHuman: q\n\nAssistant: a", '[{"role": "user", "content": "q"}]', "[", '["q"]', "1.5", "true", "model_a"]
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "tool", "x"]) | inner, "content": inner})
        | st.fixed_dictionaries({"from": st.sampled_from(["human", "gpt", "function_call"]) | inner, "value": inner})
        | st.fixed_dictionaries({"answer": inner, "rank": inner})
        | st.fixed_dictionaries({"messages": inner, "tools": inner})
        | st.dictionaries(st.sampled_from(["tool_calls", "function", "arguments", "name", "role", "type"]), inner)
    ),
    max_leaves=8,
)
KEYS = sorted({key for known in KNOWN.values() for key in (*known.keys, *known.optional)})


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.data(), st.sampled_from(sorted(KNOWN)))
def test_whatever_a_row_holds_it_is_a_record_that_reads_back_or_a_row_error(data: st.DataObject, name: str) -> None:
    row = data.draw(st.sampled_from(EXAMPLES[name]) | st.just({}))
    keys = st.sampled_from([*KNOWN[name].keys, *KNOWN[name].optional, *KEYS])
    row = row | data.draw(st.dictionaries(keys, ANYTHING, max_size=4))
    for known in KNOWN.values():
        known.fits(row)
        with suppress(RowError):
            record = known.convert(row, HERE)
            assert isinstance(record, known.yields)
            written = json.loads(json.dumps(canonical_row(record), allow_nan=False).encode())
            assert isinstance(written, dict)
