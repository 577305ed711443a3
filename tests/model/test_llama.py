"""Claims about the Llama family's own forward: it is what the modules compute, and it steps aside where it is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from conftest import TINY
from kilter.model import llama
from kilter.model.adapter import REFERENCE, LoraSettings, add_adapter, merge, reference_of
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


ADAPTED = {
    "all": None,
    "normed": ("q_proj", "v_proj", "up_proj"),
    "added": ("o_proj", "down_proj"),
    "first": ("layers.0.self_attn.k_proj", "layers.0.mlp.gate_proj"),
    "last": ("layers.1.mlp.down_proj",),
}


def adapted(model: PreTrainedModel, settings: LoraSettings, seed: int = 1) -> PreTrainedModel:
    """The model with an adapter all of whose weights matter."""
    add_adapter(model, settings)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.2, generator=draw)
    return model


@pytest.mark.parametrize("targets", ADAPTED)
@pytest.mark.parametrize("shape", SHAPES)
def test_adapted_layers_have_the_scores_and_gradients_of_the_modules(
    shape: str, targets: str, tiny_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = LoraSettings(rank=3, alpha=5.0, targets=ADAPTED[targets], rank_stabilised=targets == "added")
    model = in_float64(adapted(tiny_model(shape), settings))
    assert llama.serves(model)
    results = []
    for own in (True, False):
        monkeypatch.setattr(llama, "serves", lambda _, own=own: own)
        model.zero_grad()
        score, gradient = scores_and_gradient(model)
        with torch.no_grad():
            results.append((score, gradient, scores(reference_of(Scorer(model)), tree())))
    for got, wanted in zip(*results, strict=True):
        assert relative_difference(got, wanted) <= 1e-12
    score, gradient, reference = results[0]
    assert gradient.count_nonzero() == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert (score - reference).abs().max() > 0.1


@pytest.mark.parametrize("trained", ["lora_A", "lora_B", "q_proj.base_layer.weight", "down_proj.base_layer.weight"])
def test_of_an_adapted_layer_each_matrix_may_be_frozen(trained: str, tiny_model: MakeModel) -> None:
    whole, part = (in_float64(adapted(tiny_model("llama"), LoraSettings(rank=3))) for _ in range(2))
    whole.requires_grad_(True)
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


def test_what_was_given_to_a_frozen_layer_is_not_kept_for_its_weights_gradient(tiny_model: MakeModel) -> None:
    """The layers that add attention's output; all else is kept for the gradients of what they were given."""
    kept = {}
    for frozen in ("none", "o_proj"):
        model, sizes = tiny_model("llama"), []
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(frozen not in name)
        prepared = tree()
        with torch.autograd.graph.saved_tensors_hooks(lambda x, sizes=sizes: sizes.append(x.numel()) or x, lambda x: x):
            Scorer(model).hidden(prepared)
        kept[frozen] = sum(sizes)
    assert kept["none"] - kept["o_proj"] == 32 * (len(prepared) + len(prepared.row_N))


def test_an_adapter_that_does_more_is_left_to_the_modules(tiny_model: MakeModel) -> None:
    def model(**settings: Any) -> PreTrainedModel:
        return adapted(tiny_model("llama"), LoraSettings(rank=3, **settings))

    dropping = model(dropout=0.1)
    assert llama.serves(dropping)
    assert not llama.serves(dropping.train())
    assert not llama.serves(model(weight_decomposed=True))
    merged, several, biased = model(), model(), model()
    layer = merged.get_submodule("model.layers.1.mlp.up_proj")
    layer.merge()
    assert not llama.serves(merged)
    assert llama.serves(merge(model()))
    for part in several.modules():
        if isinstance(part, LoraLayer):
            part.update_layer(REFERENCE, 2, 2, several.peft_config["default"])
            part._active_adapter = ["default", REFERENCE]
    assert not llama.serves(several)
    biased.get_submodule("model.layers.0.self_attn.v_proj").lora_bias["default"] = True
    assert not llama.serves(biased)


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
    others = [
        tiny_model("llama", hidden_act="gelu"),
        tiny_model("llama", attention_dropout=0.1).train(),
        tiny_model("llama").bfloat16(),
    ]
    assert [llama.serves(model) for model in others] == [False] * 3
