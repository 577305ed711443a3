"""Claims about token trees."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kilter.tokens.sequence import TokenSequence
from kilter.tokens.tree import TokenTree

Prefix = tuple[int, tuple[int, ...]]  # the variant, and the tokens up to and with a node's own


def sequence(*ids: int, first: int = 1, weights: list[float] | None = None, variant: int = 0) -> TokenSequence:
    given_weights = None if weights is None else np.array(weights, np.float32)
    return TokenSequence(np.array(ids, np.int32), first, given_weights, variant)


@st.composite
def token_sequences(draw: st.DrawFn) -> TokenSequence:
    """From three tokens, so that prefixes, prefixes of others and duplicates are common."""
    ids = draw(st.lists(st.sampled_from([0, 1, 300]), min_size=1, max_size=7))
    first = draw(st.integers(0, len(ids) - 1))
    size = len(ids) - first
    weights = draw(st.none() | st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=size, max_size=size))
    return sequence(*ids, first=first, weights=weights, variant=draw(st.sampled_from([0, 0, 1])))


forests = st.lists(token_sequences(), max_size=8)
sharing_costs = st.sampled_from([0.0, 0.05, 0.4, 3.0])


def prefixes(sequences: list[TokenSequence]) -> set[Prefix]:
    return {(s.variant, tuple(s.ids[: i + 1].tolist())) for s in sequences for i in range(len(s.ids))}


def prefix_of_each_node(tree: TokenTree) -> list[Prefix]:
    """Each node's tokens from its root, followed up `parent_T` alone."""
    found: list[Prefix] = []
    for node, parent in enumerate(tree.parent_T.tolist()):
        above = found[parent][1] if parent >= 0 else ()
        found.append((int(tree.variant_T[node]), (*above, int(tree.ids_T[node]))))
    return found


def ancestors_or_self(tree: TokenTree) -> np.ndarray:
    allowed = np.eye(len(tree), dtype=bool)
    for node, parent in enumerate(tree.parent_T.tolist()):
        if parent >= 0:
            allowed[node] |= allowed[parent]
    return allowed


def test_two_answers_that_begin_alike_have_the_nodes_drawn_by_hand() -> None:
    #  9 - 8 - 1 - 2
    #          |
    #          3 - 4
    tree = TokenTree.build([sequence(9, 8, 3, 4, first=2), sequence(9, 8, 1, 2, first=2), sequence(9, 8, 3, first=2)])
    assert tree.ids_T.tolist() == [9, 8, 1, 2, 3, 4]
    assert tree.parent_T.tolist() == [-1, 0, 1, 2, 1, 4]
    assert tree.depth_T.tolist() == [0, 1, 2, 3, 2, 3]
    assert tree.exit_T.tolist() == [6, 6, 4, 4, 6, 6]
    assert tree.first_C.tolist() == [4, 2, 4]
    assert tree.last_C.tolist() == [5, 3, 4]
    assert tree.edge_start_C.tolist() == [0, 2, 4, 5]
    assert tree.edge_node_E.tolist() == [4, 5, 2, 3, 4]
    assert tree.segment_starts().tolist() == [0, 2, 4]
    assert tree.path(5).tolist() == [0, 1, 4, 5]


def test_an_answer_without_prompt_loses_its_first_token_with_a_count() -> None:
    tree = TokenTree.build([sequence(5, 6, first=0), sequence(5, first=0), sequence(5, 6, first=0, weights=[0, 1])])
    assert tree.unscored == 2
    assert tree.edge_start_C.tolist() == [0, 1, 1, 2]
    assert tree.edge_node_E.tolist() == [1, 1]


def test_weights_stay_with_their_tokens_and_zeros_are_not_stored() -> None:
    tree = TokenTree.build([sequence(1, 2, 3, 4, weights=[0.5, 0, 2])])
    assert tree.edge_node_E.tolist() == [1, 3]
    assert tree.edge_weight_E.tolist() == [0.5, 2]
    assert tree.unscored == 0


def test_variants_of_the_same_tokens_share_nothing() -> None:
    tree = TokenTree.build([sequence(1, 2), sequence(1, 2, variant=1), sequence(1, 2)])
    assert len(tree) == 4
    assert not tree.visible()[2:, :2].any()


def test_no_sequences_make_an_empty_tree() -> None:
    tree = TokenTree.build([])
    assert (len(tree), tree.completions, tree.unscored) == (0, 0, 0)
    assert tree.visible().shape == (0, 0)
    assert len(tree.segment_starts()) == len(tree.edge_node_E) == 0
    assert tree.edge_start_C.tolist() == [0]


@pytest.mark.parametrize("wrong", [sequence(1, 2, first=2), sequence(1, first=-1), sequence(1, 2, 3, weights=[1])])
def test_completion_without_a_token_or_with_missing_weights_is_refused(wrong: TokenSequence) -> None:
    with pytest.raises(ValueError, match="completion"):
        TokenTree.build([sequence(1, 2), wrong])


@given(forests)
def test_each_distinct_prefix_and_variant_is_one_node(sequences: list[TokenSequence]) -> None:
    nodes = prefix_of_each_node(TokenTree.build(sequences))
    assert len(nodes) == len(set(nodes))
    assert set(nodes) == prefixes(sequences)


@given(forests, sharing_costs)
def test_every_sequence_is_read_back_from_its_last_node(sequences: list[TokenSequence], sharing_cost: float) -> None:
    tree = TokenTree.build(sequences, sharing_cost=sharing_cost)
    nodes = prefix_of_each_node(tree)
    assert tree.completions == len(sequences)
    for s, first, last in zip(sequences, tree.first_C.tolist(), tree.last_C.tolist(), strict=True):
        path = tree.path(last)
        assert nodes[last] == (s.variant, tuple(s.ids.tolist()))
        assert tree.ids_T[path].tolist() == s.ids.tolist()
        assert path[s.first] == first


@given(forests, sharing_costs)
def test_visible_nodes_are_the_ancestors_and_the_node_itself(
    sequences: list[TokenSequence], sharing_cost: float
) -> None:
    tree = TokenTree.build(sequences, sharing_cost=sharing_cost)
    np.testing.assert_array_equal(tree.visible(), ancestors_or_self(tree))


@given(forests, sharing_costs)
def test_parent_depth_exit_and_segments_tell_one_story(sequences: list[TokenSequence], sharing_cost: float) -> None:
    tree = TokenTree.build(sequences, sharing_cost=sharing_cost)
    below = ancestors_or_self(tree)
    node = np.arange(len(tree))
    assert (tree.parent_T < node).all()
    np.testing.assert_array_equal(tree.depth_T, below.sum(1) - 1)
    np.testing.assert_array_equal(tree.exit_T, node + below.sum(0))
    children = np.bincount(tree.parent_T[tree.parent_T >= 0], minlength=len(tree))
    continues = [t for t in node if t and tree.parent_T[t] == t - 1 and children[t - 1] == 1]
    np.testing.assert_array_equal(tree.segment_starts(), np.setdiff1d(node, continues))


@given(forests, sharing_costs)
def test_edges_are_the_weighted_tokens_of_completions_except_roots(
    sequences: list[TokenSequence], sharing_cost: float
) -> None:
    tree = TokenTree.build(sequences, sharing_cost=sharing_cost)
    unscored = 0
    for c, s in enumerate(sequences):
        weights = [1.0] * (len(s.ids) - s.first) if s.weights is None else s.weights.tolist()
        path = tree.path(int(tree.last_C[c]))[s.first :].tolist()
        wanted = [(n, w) for n, w in zip(path, weights, strict=True) if w and tree.parent_T[n] >= 0]
        unscored += s.first == 0 and weights[0] != 0
        run = slice(tree.edge_start_C[c], tree.edge_start_C[c + 1])
        assert list(zip(tree.edge_node_E[run].tolist(), tree.edge_weight_E[run].tolist(), strict=True)) == wanted
    assert tree.unscored == unscored


@given(forests, sharing_costs)
def test_sharing_never_costs_nodes_and_never_goes_beyond_prefixes(
    sequences: list[TokenSequence], sharing_cost: float
) -> None:
    nodes = len(TokenTree.build(sequences, sharing_cost=sharing_cost))
    assert len(prefixes(sequences)) <= nodes <= sum(len(s.ids) for s in sequences)


@given(forests, st.integers(1, 9))
def test_padding_is_one_more_root_that_nothing_sees_and_nothing_scores(
    sequences: list[TokenSequence], multiple: int
) -> None:
    tree = TokenTree.build(sequences)
    padded = tree.padded(multiple)
    nodes = len(tree)
    assert len(padded) % multiple == 0
    assert len(padded) - nodes < multiple
    np.testing.assert_array_equal(padded.visible(), ancestors_or_self(padded))
    np.testing.assert_array_equal(padded.visible()[:nodes, :nodes], tree.visible())
    assert not padded.visible()[nodes:, :nodes].any()
    np.testing.assert_array_equal(padded.depth_T, padded.visible().sum(1) - 1)
    assert (padded.parent_T[nodes:] < 0).sum() == (len(padded) > nodes)
    for name in ("first_C", "last_C", "edge_start_C", "edge_node_E", "edge_weight_E", "unscored"):
        np.testing.assert_array_equal(getattr(padded, name), getattr(tree, name))


@pytest.mark.parametrize(("sharing_cost", "nodes"), [(0.0, 21), (0.049, 21), (0.05, 22), (1.0, 22)])
def test_one_shared_token_is_kept_only_if_it_saves_more_than_the_nodes_below_pay(
    sharing_cost: float, nodes: int
) -> None:
    """It saves 1 node, and 20 nodes lie below it."""
    pair = [sequence(9, *[1] * 10), sequence(9, *[2] * 10)]
    tree = TokenTree.build(pair, sharing_cost=sharing_cost)
    assert len(tree) == nodes
    assert (tree.parent_T < 0).sum() == nodes - 20


def test_below_a_repeated_start_longer_common_starts_are_still_shared() -> None:
    """The token 0 alone saves 1 node over 24; 0 and ten 1s save 11 nodes over 2."""
    four = [sequence(0, *[branch] * 10, answer) for branch in (1, 2) for answer in (7, 8)]
    assert len(TokenTree.build(four)) == 25
    tree = TokenTree.build(four, sharing_cost=0.05)
    assert len(tree) == 26
    assert np.flatnonzero(tree.parent_T < 0).tolist() == [0, 13]


def test_thousands_of_sequences_keep_one_node_for_each_prefix() -> None:
    generator = np.random.default_rng(0)
    prompts = [generator.integers(0, 1000, generator.integers(5, 60)) for _ in range(300)]
    sequences = []
    for _ in range(3000):
        prompt = prompts[generator.integers(len(prompts))]
        answer = generator.integers(0, 4, generator.integers(1, 40))
        sequences.append(sequence(*prompt.tolist(), *answer.tolist(), first=len(prompt)))
    tree = TokenTree.build(sequences)
    distinct = {s.ids[: i + 1].tobytes() for s in sequences for i in range(len(s.ids))}
    assert len(tree) == len(distinct)
    for s, last in zip(sequences, tree.last_C.tolist(), strict=True):
        assert tree.depth_T[last] == len(s.ids) - 1
        np.testing.assert_array_equal(tree.ids_T[tree.path(last)], s.ids)
