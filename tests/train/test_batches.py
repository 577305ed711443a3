import threading

import numpy as np
import pytest

from kilter.data.records import Origin
from kilter.tokens.encoding import EncodedPair
from kilter.tokens.sequence import TokenSequence
from kilter.train.batches import batches_of, made_ahead, pair_batch, shuffled_stream


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
    paths = {}
    for micro in batch.scored:
        tree = micro.tree.tree
        for c, place in enumerate(micro.place_C.tolist()):
            paths[place] = tree.ids_T[tree.path(int(tree.last_C[c]))].tolist()
    assert [paths[place] for place in range(8)] == [
        [1, 2, 10], [1, 2, 11], [3, 4, 20], [3, 4, 21],
        [1, 2, 20], [1, 2, 21], [3, 4, 10], [3, 4, 11],
    ]  # fmt: skip


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
