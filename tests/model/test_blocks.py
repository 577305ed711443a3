"""Claims about covering a tree's attention with rectangles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kilter.model import blocks
from kilter.model.blocks import Block, attention_blocks
from kilter.tokens.sequence import TokenSequence
from kilter.tokens.tree import TokenTree

HUGE = 10**9
COSTS = [(blocks.CALL_COST, blocks.MERGE_COST), (0, 0), (HUGE, 0), (0, HUGE), (6, 1), (1, 6)]


@pytest.fixture(autouse=True)
def _restored_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests may set the costs as they like."""
    monkeypatch.setattr(blocks, "CALL_COST", blocks.CALL_COST)
    monkeypatch.setattr(blocks, "MERGE_COST", blocks.MERGE_COST)


def cover(tree: TokenTree, window: int | None, call_cost: int, merge_cost: int) -> list[Block]:
    blocks.CALL_COST, blocks.MERGE_COST = call_cost, merge_cost
    return attention_blocks(tree, window)


def tree_of(*sequences: list[int]) -> TokenTree:
    return TokenTree.build([TokenSequence(np.array(ids, np.int32), 0) for ids in sequences])


trees = st.lists(st.lists(st.sampled_from([0, 1]), min_size=1, max_size=14), max_size=8).map(lambda ids: tree_of(*ids))
windows = st.none() | st.integers(1, 6)
costs = st.sampled_from(COSTS)

#  9 - 8 - 1 - 2
#          |
#          3
FORK = tree_of([9, 8, 1, 2], [9, 8, 3])


def allowed_pairs(tree: TokenTree, cover: list[Block]) -> np.ndarray:
    """How often each pair of nodes is allowed, by all blocks together."""
    times = np.zeros((len(tree), len(tree)), int)
    for block in cover:
        shape = block.query_end - block.query_start, block.key_end - block.key_start
        causal = np.tri(*shape, dtype=bool)
        times[block.query_start : block.query_end, block.key_start : block.key_end] += (
            causal if block.mask is None else block.mask
        )
    return times


def test_segments_of_a_fork_are_the_rectangles_drawn_by_hand() -> None:
    assert cover(FORK, None, 0, 0) == [Block(0, 5, 0, 2, None), Block(2, 4, 2, 4, None), Block(4, 5, 4, 5, None)]


def test_where_calls_cost_all_a_fork_is_one_masked_square() -> None:
    (square,) = cover(FORK, None, HUGE, 0)
    assert square[:4] == (0, 5, 0, 5)
    np.testing.assert_array_equal(square.mask, FORK.visible())


def test_where_merging_costs_all_leaves_stay_apart_only_without_a_common_start() -> None:
    assert [block[:4] for block in cover(FORK, None, 0, HUGE)] == [(0, 5, 0, 5)]
    apart = tree_of([1, 2], [3, 4, 5])
    assert cover(apart, None, 0, HUGE) == [Block(0, 2, 0, 2, None), Block(2, 5, 2, 5, None)]


def test_a_window_ends_a_block_with_the_last_query_that_sees_into_it() -> None:
    """Of the path 0 to 4, a window of 2 shows each node itself and its parent."""
    path = cover(tree_of([5, 6, 7, 8, 9]), 2, 0, 0)
    assert [block[:4] for block in path] == [(0, 3, 0, 2), (2, 5, 2, 4), (4, 5, 4, 5)]
    np.testing.assert_array_equal(path[0].mask, [[True, False], [True, True], [False, True]])


@given(trees, windows, costs)
def test_blocks_allow_each_visible_pair_once_and_no_other(
    tree: TokenTree, window: int | None, costs: tuple[int, int]
) -> None:
    wanted = tree.visible()
    if window is not None:
        wanted &= tree.depth_T[:, None] - tree.depth_T[None, :] < window
    np.testing.assert_array_equal(allowed_pairs(tree, cover(tree, window, *costs)), wanted)


@given(trees, windows, costs)
def test_each_key_is_in_exactly_one_block_and_blocks_come_in_pre_order(
    tree: TokenTree, window: int | None, costs: tuple[int, int]
) -> None:
    keys = [key for block in cover(tree, window, *costs) for key in range(block.key_start, block.key_end)]
    assert keys == list(range(len(tree)))


@given(trees, costs)
def test_the_cover_is_never_dearer_than_that_by_segments(tree: TokenTree, costs: tuple[int, int]) -> None:
    call_cost, merge_cost = costs

    def price(cover: list[Block]) -> int:
        area = sum((b.query_end - b.query_start) * (b.key_end - b.key_start) for b in cover)
        return call_cost * len(cover) + area + merge_cost * sum(b.query_end - b.key_end for b in cover)

    assert price(cover(tree, None, *costs)) <= price(cover(tree, None, 0, 0))


def test_attention_of_many_answers_costs_what_their_paths_cost() -> None:
    """64 answers of 100 tokens behind a prompt of 100: 65 causal rectangles, not one square of 6500 x 6500."""
    prompt = [1] * 100
    tree = tree_of(*[prompt + [answer] * 100 for answer in range(2, 66)])
    area = sum((b.query_end - b.query_start) * (b.key_end - b.key_start) for b in attention_blocks(tree))
    assert area == 6500 * 100 + 64 * 100 * 100
