"""Claims about copies: rows, prompts, judgements turned round, and what an evaluation has seen."""

from __future__ import annotations

from collections.abc import Sequence

from kilter.data.records import Demonstration, Labelled, Message, Origin, Pair, Ranking, Record
from kilter.measure.duplicates import Again, Duplicates, PromptIndex, digest


def at(line: int, file: str = "rows") -> Origin:
    return Origin(file, line)


def look(*records: Record) -> Duplicates:
    return PromptIndex(records).find_duplicates()


def places(listed: Sequence[Again]) -> list[tuple[int, int]]:
    return [(again.row.line, again.first.line) for again in listed]


def test_copies_are_rows_with_the_same_prompt_answers_and_judgement() -> None:
    rows = [
        Pair("p", "a", "b", at(1)),
        Pair("p", "a", "c", at(2)),
        Pair("p", "a", "b", at(3)),
        Pair("q", "a", "b", at(4)),
        Pair("p", "a", "b", at(5)),
    ]
    found = look(*rows)
    assert (found.prompts, found.rows, found.contradictory) == (2, 2, 0)
    assert places(found.listed_rows) == [(3, 1), (5, 1)]
    assert [(often.rows, often.text) for often in found.frequent] == [(4, "p")]


def test_a_run_of_blanks_is_one_space() -> None:
    found = look(Pair("p  q", "a", "b", at(1)), Pair("p\nq ", "a", "b\t", at(2)))
    assert (found.prompts, found.rows) == (1, 1)
    assert digest("a b") != digest("ab")


def test_the_same_answers_the_other_way_round_contradict() -> None:
    found = look(Pair("p", "a", "b", at(1)), Pair("p", "b", "a", at(2)), Pair("q", "b", "a", at(3)))
    assert (found.rows, found.contradictory) == (0, 1)
    assert places(found.listed_contradictory) == [(2, 1)]


def test_a_tie_contradicts_nothing_and_is_the_same_either_way() -> None:
    tie, turned = Pair("p", "a", "b", at(1), preference=0.5), Pair("p", "b", "a", at(2), preference=0.5)
    found = look(tie, turned, Pair("p", "b", "a", at(3)))
    assert (found.rows, found.contradictory) == (1, 0)


def test_an_answer_labelled_good_and_bad_contradicts_itself() -> None:
    rows = [Labelled("p", "a", True, at(1)), Labelled("p", "a", False, at(2)), Labelled("p", "b", False, at(3))]
    assert places(look(*rows).listed_contradictory) == [(2, 1)]


def test_rankings_contradict_where_two_answers_change_places() -> None:
    first = Ranking("p", ("a", "b", "c"), (1, 2, 3), at(1))
    agreeing = Ranking("p", ("c", "a"), (9, 1), at(2))
    tied = Ranking("p", ("a", "b"), (1, 1), at(3))
    against = Ranking("p", ("c", "b"), (1, 2), at(4))
    found = look(first, agreeing, tied, against)
    assert places(found.listed_contradictory) == [(4, 1)]
    assert look(first, Ranking("p", ("b", "a", "c"), (2, 1, 3), at(2))).rows == 1


def test_documents_are_told_apart_by_their_text_and_conversations_by_their_question() -> None:
    texts = [Demonstration("", text, at(i)) for i, text in enumerate(["a", "b", "a"], 1)]
    assert (look(*texts).prompts, look(*texts).rows) == (2, 1)
    chats = [Demonstration((), (Message("user", "q"), Message("assistant", said)), at(1)) for said in "ab"]
    assert (look(*chats).prompts, look(*chats).rows) == (1, 0)


def test_roles_and_tool_calls_tell_conversations_apart() -> None:
    said = [(Message("user", "a"),), (Message("system", "a"),), (Message("user", "a", '{"name":"f"}'),)]
    assert len({digest(content) for content in said}) == 3


def test_answers_that_differ_in_blanks_alone_are_told() -> None:
    rows = [Pair("p", "a b", "a  b", at(1)), Pair("p", "a b", "a c", at(2)), Pair("p", " x" * 90, "x " * 90, at(3))]
    found = look(*rows)
    assert (found.blank_pairs, [origin.line for origin in found.listed_blank_pairs]) == (2, [1, 3])


def test_leaks_are_whole_rows_or_prompts_alone() -> None:
    index = PromptIndex([Pair("p", "a", "b", at(1)), Pair("q", "a", "b", at(2))])
    held_out = [
        Pair("p", "b", "a", at(1, "eval")),  # the same answers, whichever is better
        Pair("q", "c", "d", at(2, "eval")),
        Pair("r", "a", "b", at(3, "eval")),
        Labelled("q", "a", True, at(4, "eval")),
    ]
    leaks = index.find_leaks(held_out)
    assert (leaks.eval_rows, leaks.rows, leaks.prompts) == (4, 2, 1)
    assert [str(again) for again in leaks.listed_rows] == ["eval:1: see rows:1", "eval:4: see rows:2"]
    assert [str(again) for again in leaks.listed_prompts] == ["eval:2: see rows:2"]
