"""Claims about tree attention, against a dense softmax written out (plain.py)."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import PreTrainedModel

from kilter.errors import ModelError
from kilter.model import blocks
from kilter.model.attention import tree_attention, use_tree_attention
from kilter.model.flex import flex_tree_attention
from kilter.model.prepared import PreparedTree
from kilter.tokens.sequence import TokenSequence
from kilter.tokens.tree import TokenTree
from model.plain import plain_tree_attention

HUGE = 10**9
SEGMENTS, SQUARES, MIXED = (0, 0), (HUGE, 0), (12, 1)
COVERS = {"segments": SEGMENTS, "squares": SQUARES, "mixed": MIXED, "measured": (blocks.CALL_COST, blocks.MERGE_COST)}
HEADS, KEY_HEADS, WIDTH = 4, 2, 8

# Two roots, answers that branch at once, late and never, and one that ends inside another.
FOREST = [
    [1, 2, 3, 4, 5, 6, 7, 8, 9],
    [1, 2, 3, 4, 5, 6, 7, 3],
    [1, 2, 3, 4, 5, 6],
    [1, 2, 3, 4, 8, 9, 9, 9, 9, 9],
    [1, 2, 9],
    [2, 2, 2, 2, 2, 2, 2, 2],
    [2, 2, 2, 2, 3],
]


def tree_of(sequences: list[list[int]]) -> PreparedTree:
    return PreparedTree(TokenTree.build([TokenSequence(np.array(ids, np.int32), 0) for ids in sequences]))


@pytest.fixture(params=COVERS.values(), ids=COVERS.keys())
def _cover(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Covers a tree by segments or squares, as the costs have it."""
    monkeypatch.setattr(blocks, "CALL_COST", request.param[0])
    monkeypatch.setattr(blocks, "MERGE_COST", request.param[1])


def query_key_value(nodes: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(1, heads, nodes, WIDTH) for heads in (HEADS, KEY_HEADS, KEY_HEADS)]
    return [(2 * torch.randn(shape, generator=generator)).to(dtype).requires_grad_() for shape in shapes]


def value_and_gradients(attend: Callable[..., Tensor], inputs: list[Tensor]) -> list[Tensor]:
    """The output, and the gradients of its product with fixed random numbers."""
    out = attend(*inputs)
    slope = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype)
    return [out.detach(), *torch.autograd.grad(out, inputs, slope)]


def test_a_query_averages_the_values_of_its_path_where_all_scores_are_equal() -> None:
    tree = tree_of([[1, 2, 3], [1, 4]])
    _, key, value = query_key_value(4)
    out = tree_attention(torch.zeros(1, HEADS, 4, WIDTH, dtype=torch.float64), key, value, tree)
    paths = [[0], [0, 1], [0, 1, 2], [0, 3]]
    by_hand = torch.stack([value[:, :, path].mean(2) for path in paths], dim=2).repeat_interleave(2, dim=1)
    torch.testing.assert_close(out, by_hand, rtol=0, atol=1e-14)


@pytest.mark.usefixtures("_cover")
@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("window", [None, 1, 3, 6])
@pytest.mark.parametrize("scale", [None, 0.6])
def test_value_and_gradients_equal_the_dense_softmax(
    window: int | None, softcap: float | None, scale: float | None
) -> None:
    tree = tree_of(FOREST)
    inputs = query_key_value(len(tree))
    options = {"window": window, "softcap": softcap, "scale": scale}
    fast = value_and_gradients(lambda *qkv: tree_attention(*qkv, tree, **options), inputs)
    plain = value_and_gradients(lambda *qkv: plain_tree_attention(*qkv, tree, **options), inputs)
    for got, wanted in zip(fast, plain, strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-10)


def test_a_sink_that_scores_as_high_as_the_one_key_halves_the_output() -> None:
    query, key, value = (x[:, :, :1].detach() for x in query_key_value(1))
    sinks = (query * key.repeat_interleave(2, dim=1)).sum((0, 2, 3)) / math.sqrt(WIDTH)
    out = tree_attention(query, key, value, tree_of([[1]]), sinks=sinks)
    torch.testing.assert_close(out, value.repeat_interleave(2, dim=1) / 2, rtol=0, atol=1e-14)


@pytest.mark.usefixtures("_cover")
@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("window", [None, 3])
def test_sinks_join_each_softmax_once_however_many_blocks_it_is_merged_from(
    window: int | None, softcap: float | None
) -> None:
    tree = tree_of(FOREST)
    sinks = torch.tensor([-1.0, 0.5, 2.0, 4.0], dtype=torch.float64, requires_grad=True)
    inputs = [*query_key_value(len(tree)), sinks]
    options = {"window": window, "softcap": softcap}
    fast = value_and_gradients(lambda q, k, v, s: tree_attention(q, k, v, tree, sinks=s, **options), inputs)
    plain = value_and_gradients(lambda q, k, v, s: plain_tree_attention(q, k, v, tree, sinks=s, **options), inputs)
    for got, wanted in zip(fast, plain, strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("width", [3, WIDTH + 3])
def test_values_may_be_narrower_or_wider_than_keys(width: int) -> None:
    tree = tree_of(FOREST)
    query, key, _ = query_key_value(len(tree))
    value = torch.randn(1, KEY_HEADS, len(tree), width, dtype=torch.float64, requires_grad=True)
    fast = value_and_gradients(lambda *qkv: tree_attention(*qkv, tree), [query, key, value])
    plain = value_and_gradients(lambda *qkv: plain_tree_attention(*qkv, tree), [query, key, value])
    for got, wanted in zip(fast, plain, strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-10)


@given(
    st.lists(st.lists(st.sampled_from([0, 1]), min_size=1, max_size=12), min_size=1, max_size=8),
    st.none() | st.integers(1, 5),
    st.sampled_from([None, 3.0]),
    st.sampled_from([SEGMENTS, SQUARES, MIXED]),
)
@settings(max_examples=60)
def test_any_forest_window_and_cover_equals_the_dense_softmax(
    sequences: list[list[int]], window: int | None, softcap: float | None, costs: tuple[int, int]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "CALL_COST", costs[0])
        patch.setattr(blocks, "MERGE_COST", costs[1])
        tree = tree_of(sequences)
        tree.blocks(window, torch.float64)
    inputs = query_key_value(len(tree))
    fast = value_and_gradients(lambda *qkv: tree_attention(*qkv, tree, window=window, softcap=softcap), inputs)
    plain = value_and_gradients(lambda *qkv: plain_tree_attention(*qkv, tree, window=window, softcap=softcap), inputs)
    for got, wanted in zip(fast, plain, strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-10)


def test_covers_split_and_merge_as_their_names_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """That the tests above meet merged softmaxes, masks, and queries that see none of a block's keys."""
    counts = {}
    for name, (call_cost, merge_cost) in COVERS.items():
        monkeypatch.setattr(blocks, "CALL_COST", call_cost)
        monkeypatch.setattr(blocks, "MERGE_COST", merge_cost)
        counts[name] = len(tree_of(FOREST).blocks(None, torch.float64))
    assert counts["segments"] > counts["mixed"] > counts["squares"] == 1
    monkeypatch.setattr(blocks, "CALL_COST", 0)
    monkeypatch.setattr(blocks, "MERGE_COST", 0)
    assert any(block.blind is not None for block in tree_of(FOREST).blocks(3, torch.float64))


@pytest.mark.usefixtures("_cover")
@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precision_errs_at_most_twice_as_much_as_the_dense_softmax(
    dtype: torch.dtype, window: int | None, softcap: float | None
) -> None:
    tree = tree_of(FOREST)
    inputs = query_key_value(len(tree), dtype)
    exact = [x.detach().double().requires_grad_() for x in inputs]
    options = {"window": window, "softcap": softcap}
    fast = value_and_gradients(lambda *qkv: tree_attention(*qkv, tree, **options), inputs)
    plain = value_and_gradients(lambda *qkv: plain_tree_attention(*qkv, tree, **options), inputs)
    slope = torch.randn(plain[0].shape, generator=torch.Generator().manual_seed(1)).to(dtype).double()
    out = plain_tree_attention(*exact, tree, **options)
    truth = [out.detach(), *torch.autograd.grad(out, exact, slope)]
    # Backward, fused kernels take probabilities as exp(score - logsumexp): what rounding does to that sum is relative.
    score = exact[0] @ exact[1].repeat_interleave(HEADS // KEY_HEADS, dim=1).mT / math.sqrt(WIDTH)
    kept = 1 + score.logsumexp(-1).square().mean().sqrt().item()
    for got, same_type, wanted, units in zip(fast, plain, truth, (1, kept, kept, kept), strict=True):
        rounding = units * torch.finfo(dtype).eps / 2 * wanted.norm()
        assert (got - wanted).norm() <= 2 * (same_type - wanted).norm() + rounding


@pytest.mark.usefixtures("_cover")
def test_under_autocast_mixed_types_are_attended_in_float32_and_gradients_keep_theirs() -> None:
    tree = tree_of(FOREST)
    query, key, value = query_key_value(len(tree), torch.float32)
    rounded = value.detach().bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = value_and_gradients(lambda *qkv: tree_attention(*qkv, tree), [query, key, rounded])
    single = value_and_gradients(
        lambda *qkv: tree_attention(*qkv, tree), [query, key, rounded.detach().float().requires_grad_()]
    )
    assert [x.dtype for x in mixed] == [torch.float32] * 3 + [torch.bfloat16]
    for got, wanted in zip(mixed, single, strict=True):
        torch.testing.assert_close(got, wanted.to(got.dtype), rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")
@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("sinks", [None, torch.tensor([-1.0, 0.5, 2.0, 4.0], dtype=torch.float64)], ids=["", "sinks"])
def test_flex_attention_equals_the_dense_softmax(
    window: int | None, softcap: float | None, sinks: Tensor | None
) -> None:
    tree = tree_of(FOREST)
    query, key, value = (x.detach() for x in query_key_value(len(tree)))
    scale = 1 / math.sqrt(WIDTH)
    out = flex_tree_attention(query, key, value, tree, scale=scale, window=window, softcap=softcap, sinks=sinks)
    plain = plain_tree_attention(query, key, value, tree, window=window, softcap=softcap, sinks=sinks)
    torch.testing.assert_close(out, plain, rtol=0, atol=1e-10)


def test_the_layer_refuses_to_run_without_a_tree(tiny_model: Callable[..., PreTrainedModel]) -> None:
    model = tiny_model("llama")
    use_tree_attention(model)
    with pytest.raises(ModelError, match="without its token tree"):
        model(input_ids=torch.tensor([[1, 2, 3]]))


def test_the_layer_refuses_dropout_only_while_training(tiny_model: Callable[..., PreTrainedModel]) -> None:
    model = tiny_model("llama", attention_dropout=0.1)
    use_tree_attention(model)
    tree = tree_of([[1, 2, 3]])
    model(input_ids=tree.ids_T[None], position_ids=tree.depth_T[None], tree=tree)
    with pytest.raises(ModelError, match=r"dropout of 0\.1"):
        model.train()(input_ids=tree.ids_T[None], position_ids=tree.depth_T[None], tree=tree)
