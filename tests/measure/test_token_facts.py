"""Claims about what a tokenizer makes of rows, each counted by eye: a token is a word, and EOS is one more."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from kilter.data.records import Demonstration, Labelled, Message, Origin, Pair, Ranking, Record
from kilter.measure import token_facts as module
from kilter.measure.token_facts import Found, TokenFacts, nodes_of, token_facts
from kilter.tokens.packing import SHARING_COST
from kilter.tokens.sequence import TokenSequence
from kilter.tokens.tree import TokenTree
from measure.words import FORGETFUL, word_tokenizer


def at(line: int) -> Origin:
    return Origin("rows.jsonl", line)


def pair(prompt: str, chosen: str, rejected: str, line: int = 1) -> Pair:
    return Pair(prompt, chosen, rejected, at(line))


def facts_of(*records: Record, tokenizer: PreTrainedTokenizerFast | None = None, **settings: Any) -> TokenFacts:
    given: dict[str, Any] = {"style": "auto", "max_prompt": None, "longest": None} | settings
    return token_facts(records, tokenizer or word_tokenizer(), **given)


def found(facts: Found) -> tuple[int, list[int]]:
    return facts.rows, [origin.line for origin, _ in facts.listed]


def test_lengths_and_nodes_of_a_pair_are_those_counted_by_eye() -> None:
    facts = facts_of(pair("a b c", "d e", "d f g"))
    lengths = {part: (of.count, of.total, of.longest) for part, of in facts.lengths.items()}
    assert lengths == {"prompt": (1, 3, 3), "chosen": (1, 3, 3), "rejected": (1, 4, 4), "together": (2, 13, 7)}
    # a b c d are there once.
    assert (facts.tokens, facts.nodes, facts.answer_tokens, facts.squares) == (13, 9, 7, 36 + 49)


def test_of_a_ranking_every_answer_shares_the_prompt() -> None:
    facts = facts_of(Ranking("a b", ("c", "d", "e f"), (1, 2, 3), at(1)))
    assert (facts.tokens, facts.nodes) == (4 + 4 + 5, 13 - 2 * 2)
    assert facts.lengths["ranked"].count == 3
    assert facts.bias is not None
    assert (facts.bias.longer.value, facts.bias.pairs) == (0, 1)  # of best and worst


def test_labelled_answers_and_demonstrations_share_nothing_within_a_row() -> None:
    facts = facts_of(Labelled("a", "b", True, at(1)), Labelled("a", "b c", False, at(2)), Demonstration("", "a", at(3)))
    assert facts.tokens == facts.nodes == 3 + 4 + 2
    assert [facts.lengths[part].longest for part in ("good", "bad", "completion")] == [2, 3, 2]
    assert facts.lengths["prompt"].count == 2  # a document has none


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=2, max_size=5))
def test_nodes_are_those_of_the_tree_that_packing_builds(texts: list[list[int]]) -> None:
    sequences = [TokenSequence(np.array(ids, np.int32), 0) for ids in texts]
    assert nodes_of(sequences) == len(TokenTree.build(sequences, sharing_cost=SHARING_COST))


def test_rows_are_counted_alike_whatever_the_size_of_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [pair("a b", "c " * (i + 1), "d", i) for i in range(7)]
    whole = facts_of(*rows, longest=6)
    monkeypatch.setattr(module, "BLOCK", 2)
    assert facts_of(*rows, longest=6) == whole
    assert found(whole.overlong) == (4, [3, 4, 5, 6])
    assert whole.overlong.listed[0] == (at(3), "7 tokens")


def test_rows_of_one_origin_are_told_apart() -> None:
    twice = (Ranking("a", ("b", "c"), (1, 2), at(1)), Ranking("a", ("d", "e f"), (1, 2), at(1)))
    facts = facts_of(*twice)
    assert (facts.rows, facts.tokens) == (2, 3 + 3 + 3 + 4)


def test_prompts_over_the_limit_are_cut_and_counted() -> None:
    facts = facts_of(pair("a b c d", "e", "f"), pair("a b", "e", "f"), max_prompt=3)
    assert (facts.prompts_cut, facts.prompt_tokens_cut, facts.lengths["prompt"].longest) == (1, 1, 3)


def test_bos_in_a_text_is_told_and_doubled_only_if_it_is_there_twice() -> None:
    rows = (pair("a", "b", "c", 1), pair("<s> a", "b", "c", 2), pair("<s> <s> a", "b", "c", 3))
    facts = facts_of(*rows, tokenizer=word_tokenizer(bos=True))
    assert found(facts.text_bos) == (2, [2, 3])
    assert found(facts.doubled_bos) == (1, [3])
    assert facts.lengths["prompt"].p50 == 2  # <s> a, written or put there


def test_eos_in_a_text_is_told_at_its_end_and_within() -> None:
    facts = facts_of(pair("a", "b </s>", "c", 1), pair("a", "b", "c </s> d", 2), pair("a </s> b", "c", "d", 3))
    assert found(facts.text_eos) == (1, [1])
    assert found(facts.inner_eos) == (1, [2])
    assert facts.lengths["chosen"].longest == 2  # one EOS, not two
    assert facts.other_special.rows == 0


def test_tokens_that_stand_for_anything_are_told() -> None:
    facts = facts_of(pair("a", "b", "c", 1), pair("a", "b", "ü", 2))
    assert (found(facts.unknown), facts.other_special.rows) == ((1, [2]), 0)


def test_rows_that_the_template_refuses_are_told_with_the_reason() -> None:
    chat = tuple((Message("user", text),) for text in ("a", "a </s>"))
    answers = (Message("assistant", "b"),), (Message("assistant", "c"),)
    rows = [Pair(prompt, *answers, at(i)) for i, prompt in enumerate(chat, 1)]
    facts = facts_of(*rows, tokenizer=word_tokenizer(FORGETFUL))
    assert facts.rows == 1
    [(origin, why)] = facts.refused.listed
    assert origin == at(2)
    assert "contains the special token '</s>'" in why


def test_pairs_that_differ_in_blanks_alone_are_the_same_tokens() -> None:
    facts = facts_of(pair("a", "b c", "b  c", 1), pair("a", "b c", "c b", 2))
    assert found(facts.same_ids) == (1, [1])


def test_bias_counts_pairs_whose_better_answer_has_more_tokens() -> None:
    rows = [pair("a", "b c", "d"), pair("a", "b c", "d"), pair("a", "b", "c d"), pair("a", "bbbbbb", "c")]
    tie = Pair("a", "b c", "d", at(1), preference=0.5)
    bias = facts_of(*rows, tie).bias
    assert bias is not None
    assert (bias.longer.value, bias.pairs, bias.equal) == (pytest.approx(2 / 3), 3, 1)
