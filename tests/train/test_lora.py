"""Whole runs that train an adapter."""

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from kilter.data.run_directory import RunDirectory
from kilter.errors import ConfigError, StoppedError
from kilter.model.loading import load_scorer
from kilter.train.align import align
from kilter.train.config import AlignConfig, SftConfig
from kilter.train.sft import sft
from train.runs import assert_same_rows, quiet, run
from train.test_resume import stop_after

# peft 0.21 asks transformers 5.23 by an old name.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

LORA = {"lora_rank": 4, "learning_rate": 1e-2}


def test_an_adapter_prefers_the_chosen_answers_and_leaves_the_base_alone(start, pairs_file, tmp_path):
    base = load_file(start / "model.safetensors")
    aligned = run("dpo", start, pairs_file, tmp_path / "run", **LORA)
    assert (aligned.before.gap_P == 0).all()
    assert aligned.after.correct_P.mean() == 1.0
    assert {path.name for path in aligned.model.iterdir()} >= {"adapter_model.safetensors", "tokenizer.json"}
    assert not (aligned.model / "model.safetensors").exists()
    adapted = AutoPeftModelForCausalLM.from_pretrained(aligned.model)
    for name, weight in adapted.get_base_model().state_dict().items():
        if "lora" not in name:
            assert torch.equal(weight, base.get(name.replace(".base_layer", ""), weight)), name


def test_merged_weights_score_like_the_adapter(start, pairs_file, tmp_path):
    by_itself = run("dpo", start, pairs_file, tmp_path / "adapter", **LORA)
    merged = run("dpo", start, pairs_file, tmp_path / "merged", merge=True, **LORA)
    ids = torch.arange(2, 20)[None]
    with torch.no_grad():
        ours = AutoModelForCausalLM.from_pretrained(merged.model)(ids).logits
        theirs = AutoPeftModelForCausalLM.from_pretrained(by_itself.model)(ids).logits
    assert (ours - AutoModelForCausalLM.from_pretrained(start)(ids).logits).abs().max() > 0.05
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("variant", ["lora", "dora", "rslora"])
@pytest.mark.parametrize("objective", ["dpo", "kto"])
def test_a_run_with_adapter_dropout_resumes_to_the_last_bit(
    objective, variant, start, pairs_file, tmp_path, monkeypatch
):
    given = LORA | {"lora_dropout": 0.2, "lora_variant": variant, "node_budget": 128}
    whole = run(objective, start, pairs_file, tmp_path / "whole", **given)
    with monkeypatch.context() as patch:
        stop_after(3, patch)
        with pytest.raises(StoppedError):
            run(objective, start, pairs_file, tmp_path / "cut", **given)
    checkpoint = tmp_path / "cut" / "checkpoints" / "step-000003"
    assert (checkpoint / "adapter").is_dir()
    assert not (checkpoint / "model").exists()
    torch.manual_seed(99)
    resumed = align(AlignConfig.model_validate({"resume": tmp_path / "cut"}), quiet())
    ours, theirs = (load_file(a.model / "adapter_model.safetensors") for a in (resumed, whole))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert_same_rows(tmp_path / "cut", tmp_path / "whole")


def test_dropout_matters_to_training_and_not_to_evaluation(start, pairs_file, tmp_path):
    plain = run("dpo", start, pairs_file, tmp_path / "plain", **LORA)
    dropped = run("dpo", start, pairs_file, tmp_path / "dropped", lora_dropout=0.5, **LORA)
    assert abs(plain.after.gap_P - dropped.after.gap_P).max() > 1e-3
    scorer = load_scorer(str(dropped.model))
    assert not scorer.drops_out or not scorer.model.training
    rows = RunDirectory(tmp_path / "dropped").read_metrics()
    assert rows[1]["loss"] == pytest.approx(0.693147, abs=1e-5)


def test_an_adapted_model_is_its_own_reference_when_it_is_trained_on(start, pairs_file, tmp_path):
    first = run("dpo", start, pairs_file, tmp_path / "first", **LORA)
    assert first.after.gap_P.mean() > 1
    second = run("dpo", first.model, pairs_file, tmp_path / "second", learning_rate=1e-3, max_steps=2)
    assert (second.before.gap_P == 0).all()
    against_base = run(
        "dpo", first.model, pairs_file, tmp_path / "third", reference=str(start), learning_rate=1e-3, max_steps=1
    )
    assert against_base.before.gap_P.mean() == pytest.approx(first.after.gap_P.mean(), rel=1e-4)
    adapted = AutoPeftModelForCausalLM.from_pretrained(second.model)
    assert adapted.peft_config["default"].base_model_name_or_path == str(start)


def test_fine_tuning_takes_an_adapter_too(start, pairs_file, tmp_path):
    out = sft(
        SftConfig(data=pairs_file, out=tmp_path / "run", model=str(start), max_steps=3, save_every="2", lora_rank=2),
        quiet(),
    )
    AutoPeftModelForCausalLM.from_pretrained(out)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"merge": True}, "merge is for adapters"),
        ({"lora_rank": 4, "lora_targets": ("q_prj",)}, "'q_prj' names no layer of this model; there are"),
    ],
)
def test_settings_that_fit_no_adapter_are_refused(settings, told, start, pairs_file, tmp_path):
    with pytest.raises(ConfigError, match=told):
        run("dpo", start, pairs_file, tmp_path / "run", **settings)


def test_a_fresh_adapter_on_an_adapter_is_refused(start, pairs_file, tmp_path):
    first = run("dpo", start, pairs_file, tmp_path / "first", max_steps=1, **LORA)
    with pytest.raises(ConfigError, match="has an adapter already"):
        run("dpo", first.model, pairs_file, tmp_path / "second", **LORA)


@pytest.mark.parametrize("settings", [{}, LORA], ids=["all weights", "adapter"])
def test_activation_checkpointing_changes_nothing(settings, start, pairs_file, tmp_path):
    plain = run("dpo", start, pairs_file, tmp_path / "plain", **settings)
    again = run("dpo", start, pairs_file, tmp_path / "again", activation_checkpointing=True, **settings)
    assert (plain.after.gap_P == again.after.gap_P).all()
