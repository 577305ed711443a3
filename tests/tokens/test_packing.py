"""Claims about cutting a batch into micro-batches."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kilter.errors import ConfigError
from kilter.tokens.packing import Packing, deal, pack, pack_dealt
from kilter.tokens.sequence import TokenSequence
from kilter.tokens.tree import TokenTree

LONGEST = 7

Units = list[list[TokenSequence]]


def sequence(ids: list[int], first: int = 1) -> TokenSequence:
    return TokenSequence(np.array(ids, np.int32), first, np.linspace(0.5, 1, len(ids) - first, dtype=np.float32))


tokens = st.lists(st.sampled_from([0, 1, 2]), min_size=2, max_size=LONGEST)
units_of_sequences = st.lists(st.lists(tokens.map(sequence), max_size=4), max_size=6)
budgets = st.integers(LONGEST, 30)
sharing_costs = st.sampled_from([0.0, 0.05, 0.4, 3.0])


def groups(packing: Packing) -> list[list[int]]:
    return [micro.completion_C.tolist() for micro in packing.micro_batches]


def places(packing: Packing) -> list[int]:
    return [place for group in groups(packing) for place in group]


@given(units_of_sequences, budgets, sharing_costs)
def test_no_micro_batch_is_empty_or_above_the_budget(units: Units, node_budget: int, sharing_cost: float) -> None:
    packing = pack(units, node_budget=node_budget, sharing_cost=sharing_cost)
    assert all(0 < len(micro.tree) <= node_budget for micro in packing.micro_batches)


@given(units_of_sequences, budgets, sharing_costs)
def test_every_completion_is_in_one_place_and_is_itself(units: Units, node_budget: int, sharing_cost: float) -> None:
    sequences = [s for unit in units for s in unit]
    packing = pack(units, node_budget=node_budget, sharing_cost=sharing_cost)
    assert sorted(places(packing)) == list(range(len(sequences)))
    for micro in packing.micro_batches:
        tree = micro.tree
        assert tree.completions == len(micro.completion_C)
        for c, place in enumerate(micro.completion_C.tolist()):
            given_ = sequences[place]
            path = tree.path(int(tree.last_C[c]))
            edges = slice(tree.edge_start_C[c], tree.edge_start_C[c + 1])
            np.testing.assert_array_equal(tree.ids_T[path], given_.ids)
            np.testing.assert_array_equal(tree.edge_node_E[edges], path[given_.first :])
            np.testing.assert_array_equal(tree.edge_weight_E[edges], given_.weights)


@given(units_of_sequences, budgets, sharing_costs)
def test_units_that_fit_are_kept_together_and_whole_says_if_all_did(
    units: Units, node_budget: int, sharing_cost: float
) -> None:
    packing = pack(units, node_budget=node_budget, sharing_cost=sharing_cost)
    micro_batch_of = {place: i for i, group in enumerate(groups(packing)) for place in group}
    all_fit, place = True, 0
    for unit in units:
        fits = len(TokenTree.build(unit, sharing_cost=sharing_cost)) <= node_budget
        all_fit &= fits
        if fits:
            assert len({micro_batch_of[place + i] for i in range(len(unit))}) <= 1
        place += len(unit)
    assert packing.whole == all_fit


def test_units_with_a_common_prompt_come_together_and_share_it() -> None:
    here, there = [1, 2, 3, 4, 5, 6], [7, 8, 9, 7, 8, 9]
    units = [[sequence([*prompt, answer])] for answer in (10, 11) for prompt in (here, there)]
    packing = pack(units, node_budget=8)
    assert groups(packing) == [[0, 2], [1, 3]]
    assert [len(micro.tree) for micro in packing.micro_batches] == [8, 8]


@pytest.mark.parametrize(("node_budget", "sizes"), [(13, [13]), (12, [11, 7]), (9, [9, 9]), (7, [7, 7, 7, 7])])
def test_splitting_a_unit_repeats_its_prompt(node_budget: int, sizes: list[int]) -> None:
    group = [sequence([1, 2, 3, 4, 5, answer, answer], first=5) for answer in (6, 7, 8, 9)]
    packing = pack([group], node_budget=node_budget)
    assert [len(micro.tree) for micro in packing.micro_batches] == sizes
    assert packing.whole == (len(sizes) == 1)


def test_other_units_stay_whole_where_one_is_split() -> None:
    large = [sequence([1, 2, 3, 4, 5, answer, answer], first=5) for answer in (6, 7, 8, 9)]
    small = [sequence([1, 2, 3, 4, 5, answer], first=5) for answer in (6, 8)]
    packing = pack([small, large], node_budget=9)
    assert not packing.whole
    assert any({0, 1} <= set(group) for group in groups(packing))


def test_a_shared_start_that_does_not_pay_is_repeated() -> None:
    units = [[sequence([9, *[answer] * 10])] for answer in (1, 2)]
    assert [len(m.tree) for m in pack(units, node_budget=22, sharing_cost=0.05).micro_batches] == [22]
    assert [len(m.tree) for m in pack(units, node_budget=22, sharing_cost=0.04).micro_batches] == [21]
    assert [len(m.tree) for m in pack(units, node_budget=21, sharing_cost=0.05).micro_batches] == [11, 11]


def test_a_sequence_above_the_budget_is_refused_with_both_numbers() -> None:
    units = [[sequence([1, 2])], [sequence([1] * 1200), sequence([1, 3])]]
    with pytest.raises(ConfigError, match=r"1,200 tokens .* budget is 1,199; .*at least 1,200"):
        pack(units, node_budget=1199)
    assert max(len(micro.tree) for micro in pack(units, node_budget=1200).micro_batches) == 1200


def test_nothing_packs_into_nothing() -> None:
    for units in ([], [[], []]):
        packing = pack(units, node_budget=1)
        assert (packing.micro_batches, packing.whole) == ((), True)


def test_thousands_of_completions_keep_the_budget_and_are_all_there() -> None:
    generator = np.random.default_rng(0)
    units = []
    for _ in range(1000):
        prompt = generator.integers(0, 50, generator.integers(1, 40)).tolist()
        answers = [generator.integers(0, 50, generator.integers(1, 40)).tolist() for _ in range(3)]
        units.append([sequence([*prompt, *answer], first=len(prompt)) for answer in answers])
    packing = pack(units, node_budget=512)
    assert packing.whole
    assert max(len(micro.tree) for micro in packing.micro_batches) <= 512
    assert sorted(places(packing)) == list(range(3000))


@given(units_of_sequences, budgets, st.integers(1, 4))
def test_workers_have_every_completion_once_and_as_many_micro_batches(
    units: Units, node_budget: int, workers: int
) -> None:
    packings = pack_dealt(units, deal(units, workers), workers, node_budget=node_budget)
    assert len(packings) == workers
    assert len({len(packing.micro_batches) for packing in packings}) == 1
    flat = [member for unit in units for member in unit]
    places = []
    for micro in (micro for packing in packings for micro in packing.micro_batches):
        assert micro.tree.completions == len(micro.completion_C)
        for c, place in enumerate(micro.completion_C.tolist()):
            assert micro.tree.ids_T[micro.tree.path(int(micro.tree.last_C[c]))].tolist() == flat[place].ids.tolist()
            places.append(place)
    assert sorted(places) == list(range(len(flat)))


def test_workers_are_dealt_the_longest_units_first() -> None:
    units = [[sequence([1] * size)] for size in (2, 9, 3, 4)]
    assert deal(units, 2).tolist() == [1, 0, 1, 1]
    assert deal(units, 1).tolist() == [0, 0, 0, 0]
