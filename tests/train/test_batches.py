import threading

import numpy as np
import pytest
import torch

from kilter.data.records import Origin
from kilter.objectives import OBJECTIVES
from kilter.tokens.encoding import EncodedLabelled, EncodedPair, EncodedRanking
from kilter.tokens.sequence import TokenSequence
from kilter.train.batches import batches_of, labelled_batch, made_ahead, pair_batch, ranking_batch, shuffled_stream
from kilter.train.held_out import evaluation_batches
from train import ranked


def pair(prompt, chosen, rejected):
    def sequence(answer):
        return TokenSequence(np.array(prompt + answer, np.int32), len(prompt))

    return EncodedPair(sequence(chosen), sequence(rejected), Origin("made", 1))


def test_each_epoch_shows_every_position_once_in_an_order_of_its_own():
    stream = shuffled_stream(7, seed=1)
    first, second = ([next(stream) for _ in range(7)] for _ in range(2))
    assert sorted(first) == sorted(second) == list(range(7))
    assert first != second
    again = shuffled_stream(7, seed=1)
    assert [next(again) for _ in range(7)] == first


def test_batches_are_full_and_span_epochs():
    batches = list(batches_of(iter(range(100)), 4, 3))
    assert batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


def test_an_error_while_making_a_batch_is_raised_where_the_batch_is_used():
    def make(item):
        if item == 2:
            raise ValueError("row 2")
        return item

    batches = made_ahead(iter([0, 1, 2, 3]), make)
    assert [next(batches), next(batches)] == [(0, 0), (1, 1)]
    with pytest.raises(ValueError, match="row 2"):
        next(batches)


def test_leaving_early_ends_the_worker():
    batches = made_ahead(iter(range(1000)), lambda item: item)
    next(batches)
    batches.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "kilter-batches"]


def test_mismatched_answers_keep_their_prompt_and_take_the_like_answer_of_the_next_pair():
    pairs = [pair([1, 2], [10], [11]), pair([3, 4], [20], [21])]
    batch = pair_batch(pairs, node_budget=100, mismatched=True)
    assert batch.chosen.tolist() == [0, 2]
    assert batch.rejected.tolist() == [1, 3]
    assert batch.mismatched.tolist() == [4, 5, 6, 7]
    assert paths_of(batch) == [        [1, 2, 10], [1, 2, 11], [3, 4, 20], [3, 4, 21],
        [1, 2, 20], [1, 2, 21], [3, 4, 10], [3, 4, 11],
    ]  # fmt: skip


def labelled(prompt, answer, good):
    return EncodedLabelled(TokenSequence(np.array(prompt + answer, np.int32), len(prompt)), good, Origin("made", 1))


def paths_of(batch):
    """The tokens of each completion, by its place."""
    paths = {}
    for micro in batch.scored:
        tree = micro.tree.tree
        for c, place in enumerate(micro.place_C.tolist()):
            paths[place] = tree.ids_T[tree.path(int(tree.last_C[c]))].tolist()
    return [paths[place] for place in range(batch.completions)]


def test_labelled_answers_are_parted_by_label_and_mismatched_with_the_next_answer_to_another_prompt():
    """The first two answer one prompt, so both take the third's answer, and the last, round the batch, the first's."""
    rows = [
        labelled([1, 2], [10], True),
        labelled([1, 2], [11], False),
        labelled([3, 4], [20], False),
        labelled([5], [30], True),
    ]
    batch = labelled_batch(rows, node_budget=100, mismatched=True)
    assert batch.chosen.tolist() == [0, 3]
    assert batch.rejected.tolist() == [1, 2]
    assert batch.mismatched.tolist() == [4, 5, 6, 7]
    assert paths_of(batch) == [
        [1, 2, 10], [1, 2, 11], [3, 4, 20], [5, 30],
        [1, 2, 20], [1, 2, 20], [3, 4, 30], [5, 10],
    ]  # fmt: skip
    assert sum(len(micro.place_C) for micro in batch.trained) == 4
    assert batch.denominator(OBJECTIVES["kto"]) == 4


def ranking(prompt, answers, ranks):
    sequences = [TokenSequence(np.array(prompt + answer, np.int32), len(prompt)) for answer in answers]
    return EncodedRanking(tuple(sequences), ranks, Origin("made", 1))


def test_a_ranking_computes_its_prompt_once_and_its_best_answers_are_chosen():
    rows = [ranking([1, 2, 3], [[10], [11], [12, 13]], (2, 1, 1)), ranking([4, 5], [[20], [21]], (1, 3))]
    batch = ranking_batch(rows, node_budget=100)
    assert batch.nodes == 3 + 4 + 2 + 2
    assert paths_of(batch) == [[1, 2, 3, 10], [1, 2, 3, 11], [1, 2, 3, 12, 13], [4, 5, 20], [4, 5, 21]]
    assert batch.chosen.tolist() == [1, 2, 3]
    assert batch.rejected.tolist() == [0, 4]
    assert [places.tolist() for places in batch.compared] == [[1, 2, 3], [0, 0, 4]]
    assert batch.denominator(ranked.OBJECTIVE) == 2
    assert batch.denominator(OBJECTIVES["sft"]) == 1 + 2 + 1


def test_an_objective_is_given_rankings_whose_answers_are_all_present_numbered_anew():
    rows = [ranking([p], [[10 + p], [20 + p]], (2, 1)) for p in range(4)]
    batch = ranking_batch(rows, node_budget=100)
    present = torch.tensor([True, True, True, False, True, True, False, False])
    sums = {"log_prob": -torch.arange(8.0)}
    answers, ranking_A, rank_A = batch.scores(ranked.OBJECTIVE, sums, present)
    assert answers.log_prob_A.tolist() == [0, -1, -4, -5]
    assert ranking_A.tolist() == [0, 0, 1, 1]
    assert rank_A.tolist() == [2, 1, 2, 1]
    everything = batch.scores(ranked.OBJECTIVE, sums)
    assert everything.ranking_A.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    nothing = batch.scores(ranked.OBJECTIVE, sums, torch.zeros(8, dtype=torch.bool))
    assert len(nothing.answers) == len(nothing.ranking_A) == len(nothing.rank_A) == 0


def test_pairs_on_one_prompt_are_mismatched_with_the_next_pair_on_another():
    """As the pairs of one ranking lie in a file."""
    pairs = [pair([1, 2], [10], [11]), pair([1, 2], [12], [13]), pair([3], [20], [21])]
    assert paths_of(pair_batch(pairs, node_budget=100, mismatched=True))[6:] == [
        [1, 2, 20], [1, 2, 21], [1, 2, 20], [1, 2, 21], [3, 10], [3, 11],
    ]  # fmt: skip


def test_a_batch_on_one_prompt_takes_the_next_answer_and_one_answer_alone_none():
    rows = [labelled([1, 2], [answer], True) for answer in (10, 11, 12)]
    assert paths_of(labelled_batch(rows, node_budget=100, mismatched=True))[3:] == [[1, 2, 11], [1, 2, 12], [1, 2, 10]]
    assert labelled_batch(rows[:1], node_budget=100, mismatched=True).completions == 1


def test_evaluation_leaves_no_example_by_itself():
    assert evaluation_batches(17, 8) == [range(8), range(8, 17)]
    assert evaluation_batches(16, 8) == [range(8), range(8, 16)]
    assert evaluation_batches(3, 8) == [range(3)]
    assert evaluation_batches(1, 8) == [range(1)]


def test_padding_adds_nodes_and_changes_no_weight():
    pairs = [pair([1, 2, 3], [10, 12], [11])]
    plain, padded = pair_batch(pairs, node_budget=100), pair_batch(pairs, node_budget=100, node_multiple=64)
    assert (plain.nodes, padded.nodes) == (6, 64)
    assert plain.weight_C.tolist() == padded.weight_C.tolist() == [2.0, 1.0]


def test_a_stream_goes_on_where_it_was_left_in_any_epoch():
    stream = shuffled_stream(7, seed=3)
    whole = [next(stream) for _ in range(30)]
    for taken in (0, 1, 6, 7, 8, 20):
        rest = shuffled_stream(7, seed=3, taken=taken)
        assert [next(rest) for _ in range(30 - taken)] == whole[taken:]
