"""Claims about the Llama family's own forward: it is what the modules compute, and it steps aside where it is not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from conftest import TINY
from kilter.model import llama
from kilter.model.architectures import ARCHITECTURES
from kilter.model.scorer import Scorer
from model.plain import flat_gradient, in_float64, relative_difference
from model.test_architectures import SLOPE, scores, tree

MakeModel = Callable[..., PreTrainedModel]
SHAPES = [shape for shape, (kind, _) in TINY.items() if ARCHITECTURES[kind].llama_like]


def scores_and_gradient(model: PreTrainedModel, embeddings_TD: Tensor | None = None) -> tuple[Tensor, Tensor]:
    prepared = tree()
    score = scores(Scorer(model), prepared, embeddings_TD)
    (score @ SLOPE).backward()
    return score.detach(), flat_gradient(model)


@pytest.mark.parametrize("shape", SHAPES)
def test_scores_and_gradients_are_those_of_the_modules(
    shape: str, tiny_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = in_float64(tiny_model(shape))
    embeddings = [torch.randn(len(tree()), 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))]
    embeddings += [embeddings[0].clone()]
    results = []
    for own, given in zip((True, False), embeddings, strict=True):
        monkeypatch.setattr(llama, "serves", lambda _, own=own: own)
        model.zero_grad()
        results.append((*scores_and_gradient(model), *scores_and_gradient(model, given.requires_grad_()), given.grad))
    for got, wanted in zip(*results, strict=True):
        assert relative_difference(got, wanted) <= 1e-12


def test_the_last_layer_is_computed_for_scored_rows_alone(tiny_model: MakeModel) -> None:
    model, seen = tiny_model("llama"), []
    model.base_model.norm.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    prepared = tree()
    Scorer(model).hidden(prepared)
    assert seen == [len(prepared.row_N)]
    assert len(prepared.row_N) < len(prepared)


@pytest.mark.parametrize(
    "trained", ["embed", "q_proj", "k_proj.bias", "layernorm", "o_proj", "up_proj", "down_proj.bias"]
)
def test_a_frozen_parameter_has_no_gradient_and_changes_that_of_no_other(trained: str, tiny_model: MakeModel) -> None:
    whole, part = (in_float64(tiny_model("llama_biased")) for _ in range(2))
    for name, parameter in part.named_parameters():
        parameter.requires_grad_(trained in name)
    for model in (whole, part):
        (scores(Scorer(model), tree()) @ SLOPE).backward()
    wanted = dict(whole.named_parameters())
    for name, parameter in part.named_parameters():
        if trained in name:
            torch.testing.assert_close(parameter.grad, wanted[name].grad, rtol=0, atol=1e-12)
        else:
            assert parameter.grad is None


class Wrapped(nn.Linear):
    """A linear layer that does something more, as an adapter does."""

    def forward(self, given: Tensor) -> Tensor:
        return 2 * super().forward(given)


def wrapped(model: PreTrainedModel) -> None:
    model.base_model.layers[1].mlp.up_proj.__class__ = Wrapped


def hooked(model: PreTrainedModel) -> None:
    model.base_model.layers[0].self_attn.o_proj.register_forward_hook(lambda module, given, out: 2 * out)


def steered(model: PreTrainedModel) -> None:
    model.base_model.layers[0].register_forward_pre_hook(lambda layer, given: (given[0] + 1, *given[1:]))


@pytest.mark.parametrize("change", [wrapped, hooked, steered])
def test_a_changed_layer_is_run_as_it_is(change: Callable[[PreTrainedModel], None], tiny_model: MakeModel) -> None:
    plain, changed = tiny_model("llama"), tiny_model("llama")
    change(changed)
    assert llama.serves(plain)
    assert not llama.serves(changed)
    with torch.no_grad():
        assert (scores(Scorer(changed), tree()) - scores(Scorer(plain), tree())).abs().max() > 0.1


def test_what_it_cannot_compute_is_left_to_the_model(tiny_model: MakeModel) -> None:
    checkpointed = tiny_model("llama").train()
    checkpointed.activation_checkpointing_enable()
    others = [
        tiny_model("llama", hidden_act="gelu"),
        tiny_model("llama", attention_dropout=0.1).train(),
        tiny_model("llama").bfloat16(),
        checkpointed,
    ]
    assert [llama.serves(model) for model in others] == [False] * 4
