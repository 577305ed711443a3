"""Claims about adapters: they score and learn as peft's own forward does, and the reference is what they began from."""

from __future__ import annotations

import copy
import dataclasses
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, PreTrainedModel

from conftest import GROUPED, TINY, VOCABULARY
from kilter.errors import ConfigError, ModelError
from kilter.model import loading
from kilter.model.adapter import (
    CONFIG_FILE,
    REFERENCE,
    WEIGHTS_FILE,
    LoraSettings,
    add_adapter,
    default_targets,
    has_adapter,
    load_adapter_weights,
    merge,
    reference_of,
    save_adapter,
    train_adapter,
)
from kilter.model.head import head_rows
from kilter.model.loading import load_model, load_scorer
from kilter.model.row_functions import (
    ENTROPY,
    KL_POLICY_REFERENCE,
    KL_REFERENCE_POLICY,
    LOG_PROB,
    REFERENCE_LOG_PROB,
    Targets,
)
from kilter.model.scorer import Scorer
from model.plain import completion_scores, flat_gradient, in_float64, in_plain_float64, relative_difference
from model.test_architectures import SEQUENCES, SLOPE, _merged_blocks, scores, tree

__all__ = ["_merged_blocks"]  # a fixture that every test here uses

MakeModel = Callable[..., PreTrainedModel]
FOUR = ["llama", "qwen3", "gemma2", "gpt2"]
ENDS = {"gpt2": ("wte", "lm_head")}
PLAIN = LoraSettings(rank=3, alpha=5.0)
KINDS = {
    "lora": PLAIN,
    "rslora": LoraSettings(rank=3, alpha=2.0, rank_stabilised=True),
    "dora": LoraSettings(rank=3, weight_decomposed=True),
}


def learnt(model: PreTrainedModel, seed: int = 1) -> PreTrainedModel:
    """The model after its adapter has learnt something: all of the weights that it trains have moved."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=draw).to(parameter))
    return model


def adapted(model: PreTrainedModel, settings: LoraSettings = PLAIN) -> PreTrainedModel:
    add_adapter(model, settings)
    return learnt(model)


def targets_with_ends(shape: str, ends: tuple[str, ...]) -> tuple[str, ...]:
    return (*ends, *(("c_attn", "c_proj") if shape == "gpt2" else ("q_proj", "down_proj")))


def tiny_mixtral(make: MakeModel, monkeypatch: pytest.MonkeyPatch) -> PreTrainedModel:
    monkeypatch.setitem(TINY, "mixtral", ("mixtral", GROUPED | {"num_local_experts": 4}))
    model = make("mixtral")
    model.set_experts_implementation("eager")  # the fused one has no float64
    return model


def assert_scores_and_learns_as_peft_does(model: PreTrainedModel, tolerance: float = 1e-12) -> None:
    """Against the modules' own forward in float64, one sequence at a time: every adapter's gradient, and no other."""
    plain, fast = in_plain_float64(copy.deepcopy(model)), Scorer(in_float64(model))
    wanted, got = completion_scores(plain, SEQUENCES), scores(fast, tree())
    torch.testing.assert_close(got, wanted, rtol=0, atol=tolerance)
    (wanted @ SLOPE).backward()
    (got @ SLOPE).backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (".lora_" in name or "lora_magnitude" in name)
        assert (parameter.grad is not None) == parameter.requires_grad, name
    assert relative_difference(flat_gradient(model), flat_gradient(plain)) <= tolerance


def test_a_fresh_adapter_changes_no_score_and_a_learnt_one_does(tiny_model: MakeModel) -> None:
    scorer, prepared = Scorer(tiny_model("llama")), tree()
    with torch.no_grad():
        before = scores(scorer, prepared)
        add_adapter(scorer.model, PLAIN)
        assert torch.equal(scores(scorer, prepared), before)
        learnt(scorer.model)
        assert (scores(scorer, prepared) - before).abs().max() > 0.1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [*FOUR, "llama_biased", "gpt_neox"])
def test_scores_and_gradients_equal_pefts_own_forward_on_separate_sequences(
    shape: str, kind: str, tiny_model: MakeModel
) -> None:
    assert_scores_and_learns_as_peft_does(adapted(tiny_model(shape), KINDS[kind]))


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("shape", [*FOUR, "llama_tied"])
def test_adapters_on_head_and_embedding_equal_pefts_own_forward(shape: str, kind: str, tiny_model: MakeModel) -> None:
    targets = targets_with_ends(shape, ENDS.get(shape, ("embed_tokens", "lm_head")))
    settings = LoraSettings(rank=3, targets=targets, weight_decomposed=kind == "dora")
    assert_scores_and_learns_as_peft_does(adapted(tiny_model(shape), settings))


def test_of_a_mixture_of_experts_attention_is_adapted(tiny_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_mixtral(tiny_model, monkeypatch)
    assert default_targets(model) == ("k_proj", "o_proj", "q_proj", "v_proj")
    assert_scores_and_learns_as_peft_does(adapted(model), tolerance=1e-4)  # its router is in float32


def test_of_a_state_space_mixer_only_the_layer_that_goes_in_is_adapted(tiny_model: MakeModel) -> None:
    model = tiny_model("mamba")
    assert default_targets(model) == ("in_proj",)
    with pytest.raises(ConfigError, match="would be passed over by its mixer's kernel"):
        add_adapter(model, LoraSettings(targets=("in_proj", "x_proj")))


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [
        ("llama", {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}),
        ("gpt2", {"c_attn", "c_proj", "c_fc"}),
        ("gpt_neox", {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"}),
    ],
)
def test_the_default_is_every_linear_layer_of_the_blocks(shape: str, wanted: set[str], tiny_model: MakeModel) -> None:
    assert set(default_targets(tiny_model(shape))) == wanted


@pytest.mark.parametrize(
    ("target", "found"),
    [("q_porj", "names no layer"), ("self_attn", "is no linear layer"), ("input_layernorm", "is no linear layer")],
)
def test_a_target_that_fits_nothing_is_refused_naming_what_there_is(
    target: str, found: str, tiny_model: MakeModel
) -> None:
    model = tiny_model("llama")
    with pytest.raises(ConfigError, match=f"'{target}' {found}.*down_proj, embed_tokens, gate_proj"):
        add_adapter(model, LoraSettings(targets=("q_proj", target)))
    assert not has_adapter(model)


@pytest.mark.parametrize(
    "settings", [{"rank": 0}, {"alpha": 0.0}, {"dropout": 1.0}, {"dropout": -0.1}, {"targets": ()}]
)
def test_impossible_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="adapter"):
        LoraSettings(**settings)


def test_a_seed_gives_one_adapter_and_draws_from_no_other_randomness(tiny_model: MakeModel) -> None:
    state = torch.get_rng_state()
    first, again, other = (tiny_model("llama") for _ in range(3))
    for model, seed in ((first, 7), (again, 7), (other, 8)):
        add_adapter(model, LoraSettings(seed=seed))
    assert torch.equal(torch.get_rng_state(), state)
    name = "model.layers.1.mlp.up_proj.lora_A.default.weight"
    assert torch.equal(first.get_parameter(name), again.get_parameter(name))
    assert not torch.equal(first.get_parameter(name), other.get_parameter(name))


def test_alpha_is_twice_the_rank_and_scales_as_the_papers_say(tiny_model: MakeModel) -> None:
    def scale(settings: LoraSettings) -> float:
        model = tiny_model("llama")
        add_adapter(model, settings)
        value: float = model.get_submodule("model.layers.0.mlp.up_proj").scaling["default"]
        return value

    assert scale(LoraSettings(rank=4)) == 2
    assert scale(LoraSettings(rank=4, alpha=6)) == 1.5
    assert scale(LoraSettings(rank=4, alpha=6, rank_stabilised=True)) == 3


def test_adapter_weights_are_float32_on_a_bfloat16_base(tiny_model: MakeModel) -> None:
    model = tiny_model("llama").bfloat16()
    add_adapter(model, PLAIN)
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}


@pytest.mark.parametrize("shape", ["llama", "gemma2", "gpt2"])
def test_dropout_acts_on_a_training_policy_alone(shape: str, tiny_model: MakeModel) -> None:
    """The adapter's, and what the model itself drops out."""
    own = {"attn_pdrop": 0.0, "embd_pdrop": 0.5, "resid_pdrop": 0.5} if shape == "gpt2" else {}
    model = adapted(tiny_model(shape, **own), LoraSettings(rank=3, dropout=0.5))
    policy, prepared = Scorer(model), tree()
    with torch.no_grad():
        still = scores(policy, prepared)
        assert torch.equal(scores(policy, prepared), still)
        reference = scores(reference_of(policy), prepared)
        model.train()
        assert not torch.equal(scores(policy, prepared), scores(policy, prepared))
        assert torch.equal(scores(reference_of(policy), prepared), reference)


@pytest.mark.parametrize("shape", ["llama", "qwen3", "gpt2"])
def test_activation_checkpointing_does_not_change_the_gradient(shape: str, tiny_model: MakeModel) -> None:
    """Also where the reference is scored between forward and backward, with the adapter off."""
    dropout = dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop"), 0.0) if shape == "gpt2" else {}
    gradients = []
    for checkpointing in (False, True):
        model = in_float64(adapted(tiny_model(shape, **dropout))).train()
        if checkpointing:
            model.activation_checkpointing_enable()
        policy = Scorer(model)
        score = scores(policy, tree())
        scores(reference_of(policy), tree())
        (score @ SLOPE).backward()
        gradients.append(flat_gradient(model))
    assert relative_difference(*gradients) <= 1e-12


# The reference


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
@pytest.mark.parametrize("shape", [*FOUR, "mamba"])
def test_the_reference_is_the_untouched_base_model_to_the_last_bit(
    shape: str, autocast: torch.dtype | None, tiny_model: MakeModel
) -> None:
    untouched = Scorer(tiny_model(shape), autocast=autocast).frozen()
    policy = Scorer(tiny_model(shape), autocast=autocast)
    ends = () if shape == "mamba" else ENDS.get(shape, ("embed_tokens", "lm_head"))
    adapted(policy.model, LoraSettings(rank=3, targets=(*ends, *default_targets(policy.model))))
    reference, prepared = reference_of(policy).frozen(), tree(policy.node_multiple)
    assert (reference.path, reference.node_multiple) == (untouched.path, untouched.node_multiple)
    assert (reference.device, reference.head.vocabulary) == (policy.device, VOCABULARY)
    with torch.no_grad():
        wanted, got, moved = (scores(scorer, prepared) for scorer in (untouched, reference, policy))
        assert torch.equal(got, wanted)
        assert not torch.equal(moved, wanted)
        assert torch.equal(reference.hidden(prepared), untouched.hidden(prepared))


def test_the_reference_has_no_weights_of_its_own(tiny_model: MakeModel) -> None:
    policy = Scorer(adapted(tiny_model("llama")))
    reference = reference_of(policy)
    assert reference.model is policy.model
    assert list(reference.parameters()) == []
    reference.frozen().requires_grad_(False).train()
    assert any(p.requires_grad for p in policy.parameters())
    assert not policy.model.training


@pytest.mark.parametrize("with_state", [False, True], ids=["fresh", "loaded"])
@pytest.mark.parametrize("fails", [False, True])
def test_scoring_the_reference_leaves_the_policy_as_it_was(
    fails: bool, with_state: bool, tiny_model: MakeModel, tmp_path: Path
) -> None:
    model = loaded_from(tmp_path, tiny_model) if with_state else adapted(tiny_model("llama"))
    if with_state:
        train_adapter(model, None)
    model.train()
    model.get_submodule("model.layers.0.mlp").eval()
    policy = Scorer(model)

    def state() -> list[object]:
        flags: list[object] = [(name, p.requires_grad) for name, p in model.named_parameters()]
        flags += [(name, module.training) for name, module in model.named_modules()]
        return [*flags, model.active_adapters(), torch.get_rng_state().tolist()]

    before = state()
    with torch.no_grad():
        score = scores(policy, tree())
    if fails:
        with pytest.raises(RuntimeError):
            reference_of(policy).hidden(tree(), torch.zeros(3, 5))
    else:
        scores(reference_of(policy), tree())
    assert state() == before
    with torch.no_grad():
        assert torch.equal(scores(policy, tree()), score)


@pytest.mark.parametrize("shape", FOUR)
def test_divergences_from_the_reference_are_those_of_two_models_by_themselves(
    shape: str, tiny_model: MakeModel
) -> None:
    """The heads are evaluated among each other chunk by chunk, and both ends of this one are adapted."""
    base = in_float64(tiny_model(shape))
    ends = ENDS.get(shape, ("embed_tokens", "lm_head"))
    policy = Scorer(adapted(copy.deepcopy(base), LoraSettings(rank=3, targets=targets_with_ends(shape, ends))))
    functions = (LOG_PROB, REFERENCE_LOG_PROB, KL_POLICY_REFERENCE, KL_REFERENCE_POLICY, ENTROPY)
    got = policy(tree(), functions, reference=reference_of(policy))
    wanted = policy(tree(), functions, reference=Scorer(base).frozen())
    for ours, theirs in zip(got, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    assert (got[0] - got[1]).abs().max() > 0.01
    gradients = []
    for values in (got, wanted):
        (values[2] + values[3]).sum().backward()
        gradients.append(flat_gradient(policy.model))
    assert relative_difference(*gradients) <= 1e-12


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", ["llama_tied", "gemma2"])
def test_a_frozen_adapted_scorer_has_the_same_scores_under_autocast(
    shape: str, kind: str, tiny_model: MakeModel
) -> None:
    """To the last bit, though its linear weights are then kept in bfloat16: not those of tied ends or under a norm."""
    targets = (*default_targets(tiny_model(shape)), "lm_head")
    settings = dataclasses.replace(KINDS[kind], targets=targets)
    policy, frozen = (Scorer(adapted(tiny_model(shape), settings), autocast=torch.bfloat16) for _ in range(2))
    prepared = tree(policy.node_multiple)
    with torch.no_grad():
        assert torch.equal(scores(frozen.frozen(), prepared), scores(policy, prepared))


def test_without_an_adapter_there_is_nothing_to_switch_off(tiny_model: MakeModel) -> None:
    with pytest.raises(ModelError, match="no adapter to be switched off"):
        reference_of(Scorer(tiny_model("llama")))


# From an adapted model


def loaded_from(directory: Path, make: MakeModel, settings: LoraSettings = PLAIN, shape: str = "llama") -> Any:
    """The model of an adapter's directory, saved here by kilter beside its base."""
    base = make(shape)
    base.save_pretrained(directory / "base")
    save_adapter(adapted(base, settings), directory / "adapter", str(directory / "base"))
    return load_model(str(directory / "adapter"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", ["llama", "gpt2"])
def test_training_from_an_adapted_model_makes_that_state_the_reference(
    shape: str, kind: str, tiny_model: MakeModel, tmp_path: Path
) -> None:
    model = loaded_from(tmp_path, tiny_model, KINDS[kind], shape)
    start = Scorer(copy.deepcopy(model)).frozen()
    base = Scorer(load_model(str(tmp_path / "base")))
    size = sum(p.numel() for p in model.parameters())
    adapter = sum(p.numel() for name, p in model.named_parameters() if "lora_" in name)
    train_adapter(model, None)
    assert sum(p.numel() for p in model.parameters()) == size + adapter
    policy, prepared = Scorer(model), tree()
    reference = reference_of(policy)
    with torch.no_grad():
        wanted = scores(start, prepared)
        assert torch.equal(scores(policy, prepared), wanted)
        learnt(model, seed=2)
        assert torch.equal(scores(reference, prepared), wanted)
        for other in (policy, base):
            assert (scores(other, prepared) - wanted).abs().max() > 0.1
    (scores(policy, prepared) @ SLOPE.float()).backward()
    trained = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert trained == {n for n, _ in model.named_parameters() if "lora_" in n and f".{REFERENCE}" not in n}


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_the_reference_of_an_adapted_head_is_that_head(kind: str, tiny_model: MakeModel, tmp_path: Path) -> None:
    settings = LoraSettings(
        rank=3, dropout=0.3, targets=("embed_tokens", "lm_head", "q_proj"), weight_decomposed=kind == "dora"
    )
    model = loaded_from(tmp_path, tiny_model, settings)
    start = Scorer(copy.deepcopy(model)).frozen()
    train_adapter(model, None)
    policy = Scorer(learnt(model, seed=2).train())
    prepared = tree()
    with torch.no_grad():
        (got,) = policy(prepared, (REFERENCE_LOG_PROB,), reference=reference_of(policy))
        (wanted,) = head_rows(start.head, start.hidden(prepared), Targets(prepared.target_row_M, prepared.target_id_M))
        (own,) = policy(prepared)
    assert torch.equal(got, wanted)
    assert (own - wanted).abs().max() > 0.01


def test_a_loaded_adapter_is_frozen_and_has_no_reference_until_it_is_trained(
    tiny_model: MakeModel, tmp_path: Path
) -> None:
    model = loaded_from(tmp_path, tiny_model)
    assert not any(p.requires_grad for p in model.parameters())
    with pytest.raises(ModelError, match="call train_adapter"):
        reference_of(Scorer(model))
    train_adapter(model, None)
    with pytest.raises(ConfigError, match="being trained already"):
        train_adapter(model, None)


def test_an_adapter_and_settings_for_another_or_neither_are_refused(tiny_model: MakeModel, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has an adapter already.*merge it"):
        train_adapter(loaded_from(tmp_path, tiny_model), PLAIN)
    with pytest.raises(ConfigError, match="no adapter to go on with"):
        train_adapter(tiny_model("llama"), None)


# Saving, loading, merging


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [*FOUR, "llama_tied"])
def test_a_saved_adapter_is_loaded_by_peft_alone_and_by_kilter(
    shape: str, kind: str, tiny_model: MakeModel, tmp_path: Path
) -> None:
    ends = ENDS.get(shape, ("embed_tokens", "lm_head"))
    settings = dataclasses.replace(KINDS[kind], targets=targets_with_ends(shape, ends))
    ours = loaded_from(tmp_path, tiny_model, settings, shape)
    train_adapter(ours, None)
    learnt(ours, seed=3)
    save_adapter(ours, tmp_path / "later", str(tmp_path / "base"))
    assert {path.name for path in (tmp_path / "later").iterdir()} == {WEIGHTS_FILE, CONFIG_FILE}
    assert not [name for name in load_file(tmp_path / "later" / WEIGHTS_FILE) if REFERENCE in name]
    ids = torch.arange(1, 9)[None]
    ours.set_attn_implementation("eager")
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft's own, of tied weights
        base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", attn_implementation="eager")
        by_peft = PeftModel.from_pretrained(base, tmp_path / "later")
        by_name = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "later", attn_implementation="eager")
        again = load_model(str(tmp_path / "later"))
        again.set_attn_implementation("eager")
        wanted = ours(input_ids=ids).logits
        for model in (by_peft.eval(), by_name.eval(), again):
            assert torch.equal(model(input_ids=ids).logits, wanted)


def test_an_adapter_that_peft_saved_is_loaded(tiny_model: MakeModel, tmp_path: Path) -> None:
    """peft adds the base model's own embedding and head where those are adapted."""
    base = tiny_model("llama")
    base.save_pretrained(tmp_path / "base")
    base.name_or_path = str(tmp_path / "base")
    config = LoraConfig(r=2, target_modules=["q_proj", "lm_head"], init_lora_weights=False, task_type="CAUSAL_LM")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = get_peft_model(base, config)
        theirs.save_pretrained(tmp_path / "adapter")
    assert any("base_layer" in name for name in load_file(tmp_path / "adapter" / WEIGHTS_FILE))
    scorer = load_scorer(str(tmp_path / "adapter"), strict=True)
    with torch.no_grad():
        wanted = completion_scores(theirs.eval(), SEQUENCES)
        assert (scores(scorer, tree()) - wanted).abs().max() <= 1e-5 * wanted.abs().max()

    weights = load_file(tmp_path / "adapter" / WEIGHTS_FILE)
    weights["base_model.model.lm_head.base_layer.weight"] *= 2
    save_file(weights, tmp_path / "adapter" / WEIGHTS_FILE)
    with pytest.raises(ModelError, match=r"lm_head.base_layer.weight, which is neither"):
        load_model(str(tmp_path / "adapter"))


@pytest.mark.parametrize("targets", [None, ("lm_head", "q_proj")])
def test_the_proof_holds_with_the_adapter_in_place(
    targets: tuple[str, ...] | None, tiny_model: MakeModel, tmp_path: Path
) -> None:
    loaded_from(tmp_path, tiny_model, LoraSettings(targets=targets))
    assert load_scorer(str(tmp_path / "adapter"), strict=True).path == "tree"


def test_the_tokenizer_of_an_adapter_is_that_of_its_base(
    tiny_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kilter.model.scratch import fresh_tokenizer

    loaded_from(tmp_path, tiny_model)
    fresh_tokenizer(["one two"], 300).save_pretrained(tmp_path / "base")
    wanted = loading.load_tokenizer(str(tmp_path / "base"))
    assert loading.load_tokenizer(str(tmp_path / "adapter")).get_vocab() == wanted.get_vocab()


def test_resumed_weights_are_those_saved_to_the_last_bit(tiny_model: MakeModel, tmp_path: Path) -> None:
    model = adapted(tiny_model("llama"), KINDS["dora"])
    save_adapter(model, tmp_path, "base")
    saved = {name: p.clone() for name, p in model.named_parameters()}
    learnt(model, seed=5)
    load_adapter_weights(model, tmp_path)
    assert all(torch.equal(p, saved[name]) for name, p in model.named_parameters())
    assert all(p.requires_grad == ("lora_" in name) for name, p in model.named_parameters())


def test_weights_of_another_adapter_are_refused(tiny_model: MakeModel, tmp_path: Path) -> None:
    save_adapter(adapted(tiny_model("llama")), tmp_path, "base")
    for settings, found in (
        (LoraSettings(rank=4), "of shape .*give the rank"),
        (LoraSettings(rank=3, targets=("q_proj",)), "which is neither of the adapter"),
        (LoraSettings(rank=3, targets=(*default_targets(tiny_model("llama")), "lm_head")), "lacks 2 of"),
    ):
        model = tiny_model("llama")
        add_adapter(model, settings)
        with pytest.raises(ModelError, match=found):
            load_adapter_weights(model, tmp_path)
    with pytest.raises(ModelError, match=rf"has no {WEIGHTS_FILE}"):
        load_adapter_weights(model, tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"modules_to_save": ["lm_head"]}, r"\(modules_to_save\)"),
        ({"bias": "all"}, "changes biases"),
        ({"init_lora_weights": "pissa"}, "began by changing its base"),
        ({"use_bdlora": {}}, r"does not know \(use_bdlora\)"),
        ({"base_model_name_or_path": None}, "does not say which model"),
        ({"base_model_name_or_path": "./nowhere"}, "does not exist"),
        ({"target_modules": ["nothing"]}, "does not fit its base"),
        ({"target_parameters": ["mlp.up_proj.weight"]}, r"\(target_parameters\)"),
    ],
)
def test_an_adapter_that_is_more_or_other_than_low_rank_is_refused(
    change: dict[str, Any], found: str, tiny_model: MakeModel, tmp_path: Path
) -> None:
    loaded_from(tmp_path, tiny_model)
    path = tmp_path / "adapter" / CONFIG_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ModelError, match=found):
        load_model(str(tmp_path / "adapter"))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"peft_type": "IA3", "base_model_name_or_path": "base"}', "type IA3; kilter reads those of type LORA"),
        ('{"peft_type": "LORA"', "no configuration that peft reads"),
        ("{}", "kilter reads those of type LORA"),
        ('{"peft_type": "NEW"}', "no configuration that peft reads"),
    ],
)
def test_what_is_no_low_rank_adapter_is_refused(text: str, found: str, tmp_path: Path) -> None:
    (tmp_path / CONFIG_FILE).write_text(text)
    with pytest.raises(ModelError, match=found):
        load_model(str(tmp_path))


def test_an_adapter_on_an_adapter_and_one_inside_a_model_are_refused(tiny_model: MakeModel, tmp_path: Path) -> None:
    model = loaded_from(tmp_path, tiny_model)
    save_adapter(model, tmp_path / "second", str(tmp_path / "adapter"))
    with pytest.raises(ModelError, match="merge that one first"):
        load_model(str(tmp_path / "second"))
    save_adapter(model, tmp_path / "base", str(tmp_path / "base"))
    with pytest.raises(ModelError, match="a directory of its own"):
        load_model(str(tmp_path / "base"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [*FOUR, "gpt_neox"])
def test_merged_weights_score_as_the_adapter_does(shape: str, kind: str, tiny_model: MakeModel, tmp_path: Path) -> None:
    model = in_float64(tiny_model(shape, tie_word_embeddings=False))
    ends = ENDS.get(shape, ("embed_in", "lm_head") if shape == "gpt_neox" else ("embed_tokens", "lm_head"))
    settings = dataclasses.replace(KINDS[kind], targets=(*ends, *default_targets(model)))
    adapted(model, settings)
    with torch.no_grad():
        before = scores(Scorer(model), tree())
        merged = merge(model)
        torch.testing.assert_close(scores(Scorer(merged), tree()), before, rtol=0, atol=1e-12)
        assert torch.equal(scores(Scorer(model), tree()), before)
    assert not has_adapter(merged)
    assert set(merged.state_dict()) == set(tiny_model(shape, tie_word_embeddings=False).state_dict())
    assert not {p.data_ptr() for p in merged.parameters()} & {p.data_ptr() for p in model.parameters()}
    merged.float().save_pretrained(tmp_path)
    assert set(load_model(str(tmp_path)).state_dict()) == set(merged.state_dict())


def test_after_going_on_from_an_adapter_the_policy_is_merged_and_not_its_start(
    tiny_model: MakeModel, tmp_path: Path
) -> None:
    model = loaded_from(tmp_path, tiny_model)
    train_adapter(model, None)
    in_float64(learnt(model, seed=4))
    with torch.no_grad():
        wanted = scores(Scorer(model), tree())
        torch.testing.assert_close(scores(Scorer(merge(model)), tree()), wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("target", "named"), [("lm_head", "the head"), ("embed_tokens", "the embedding")])
def test_merging_an_end_whose_weight_is_tied_is_refused(target: str, named: str, tiny_model: MakeModel) -> None:
    with pytest.raises(ModelError, match=f"is on {named}, whose weight is tied"):
        merge(adapted(tiny_model("llama_tied"), LoraSettings(targets=("q_proj", target))))


def test_merging_what_is_not_there_is_too_coarse_or_broken_is_refused(tiny_model: MakeModel) -> None:
    with pytest.raises(ModelError, match="no adapter to be merged"):
        merge(tiny_model("llama"))
    with pytest.raises(ModelError, match="would round the adapter away"):
        merge(adapted(tiny_model("llama").bfloat16()))
    broken = adapted(tiny_model("llama"))
    with torch.no_grad():
        broken.get_parameter("model.layers.0.mlp.up_proj.lora_A.default.weight").fill_(torch.nan)
    with pytest.raises(ModelError, match=r"layers.0.mlp.up_proj cannot be merged"):
        merge(broken)


# The head


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_an_adapted_head_goes_through_the_head_as_a_module(autocast: torch.dtype | None, tiny_model: MakeModel) -> None:
    plain = Scorer(adapted(tiny_model("llama")), autocast=autocast).head
    assert plain.linear is not None
    assert plain.parameters == []
    head = Scorer(adapted(tiny_model("llama"), LoraSettings(targets=("lm_head",))), autocast=autocast).head
    assert head.linear is None
    assert head.vocabulary == VOCABULARY
    assert [tuple(p.shape) for p in head.parameters] == [(16, 32), (VOCABULARY, 16)]


@pytest.mark.parametrize("targets", [None, ("lm_head",), ("q_proj", "lm_head")])
def test_a_loss_formed_in_the_same_pass_has_the_gradient_of_the_log_probs(
    targets: tuple[str, ...] | None, tiny_model: MakeModel
) -> None:
    model = in_float64(adapted(tiny_model("llama"), LoraSettings(rank=3, targets=targets)))
    scorer = Scorer(model)
    loss, (score,) = scorer.loss(tree(), lambda sum_WC, _: sum_WC[0] @ SLOPE, None)
    loss.backward()
    got = flat_gradient(model)
    assert model.get_parameter("model.embed_tokens.weight").grad is None
    wanted = scores(scorer, tree())
    (wanted @ SLOPE).backward()
    torch.testing.assert_close(score, wanted.detach(), rtol=0, atol=1e-12)
    assert relative_difference(got, flat_gradient(model)) <= 1e-12


class GradientsOfTheHead(TorchDispatchMode):
    """Counts the matrix products that have the shape of the head's weight."""

    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **kwargs or {})
        products = (torch.ops.aten.mm.default, torch.ops.aten.addmm.default, torch.ops.aten.addmm_.default)
        self.count += function in products and out.shape in ((VOCABULARY, 32), (32, VOCABULARY))
        return out


@pytest.mark.parametrize("whole", [False, True], ids=["recomputed", "same pass"])
@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_no_gradient_of_a_frozen_heads_weight_is_computed(
    autocast: torch.dtype | None, whole: bool, tiny_model: MakeModel
) -> None:
    def products(model: PreTrainedModel) -> int:
        scorer = Scorer(model, autocast=autocast)
        with GradientsOfTheHead() as seen:
            if whole:
                loss, _ = scorer.loss(tree(), lambda sum_WC, _: sum_WC[0] @ SLOPE.float(), None)
            else:
                loss = scores(scorer, tree()) @ SLOPE.float()
            loss.backward()
        return seen.count

    assert products(tiny_model("llama")) > 0
    for targets in (("q_proj",), ("lm_head",), ("lm_head", "q_proj")):
        assert products(adapted(tiny_model("llama"), LoraSettings(rank=3, targets=targets))) == 0


@pytest.mark.parametrize("targets", [None, ("lm_head", "q_proj", "down_proj")])
@pytest.mark.parametrize("shape", FOUR)
def test_under_autocast_scores_and_gradients_err_at_most_twice_as_much_as_the_models_own(
    shape: str, targets: tuple[str, ...] | None, tiny_model: MakeModel
) -> None:
    if targets and shape == "gpt2":
        targets = ("lm_head", "c_attn", "c_proj")
    model = adapted(tiny_model(shape), LoraSettings(rank=3, targets=targets))
    scorer = Scorer(copy.deepcopy(model), autocast=torch.bfloat16)
    exact_model = in_plain_float64(copy.deepcopy(model))
    got = scores(scorer, tree(scorer.node_multiple))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        own = completion_scores(model, SEQUENCES)
    exact = completion_scores(exact_model, SEQUENCES)
    rounding = torch.finfo(torch.bfloat16).eps / 2
    assert (got - exact).norm() <= 2 * (own - exact).norm() + rounding * exact.norm()
    for score in (got, own, exact):
        (score.double() @ SLOPE).backward()
    wanted = flat_gradient(exact_model)
    own_error = relative_difference(flat_gradient(model), wanted)
    assert relative_difference(flat_gradient(scorer), wanted) <= 2 * own_error + rounding


# Quantised bases


def test_a_quantised_base_without_bitsandbytes_or_a_gpu_is_refused(
    tiny_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_model("llama").save_pretrained(tmp_path)
    for there, found in ((None, "needs bitsandbytes"), (object(), "runs on a GPU")):
        monkeypatch.setattr(loading.importlib.util, "find_spec", lambda name, there=there: there)
        with pytest.raises(ConfigError, match=found):
            load_model(str(tmp_path), quantise="4bit")
