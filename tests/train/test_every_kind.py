"""From pairs to a result that transformers loads, on each kind of architecture."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from kilter.data.checkpoints import Checkpoints
from kilter.data.reading import read_pairs
from kilter.train.align import align
from kilter.train.config import AlignConfig
from train.runs import quiet, run

KINDS = ("llama", "qwen3", "gemma2", "gpt2", "mixtral", "mamba")


@pytest.fixture
def begun(tiny_model, start, tmp_path):
    """Makes a model of a kind, with the tokenizer of the tests' other runs beside it."""

    def make(kind):
        tokenizer = AutoTokenizer.from_pretrained(start)
        longest = {} if kind == "mamba" else {"max_position_embeddings": 128}
        ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
        model = tiny_model(kind, spread=0.1, vocab_size=len(tokenizer), **longest, **ends)
        for part in (model, tokenizer):
            part.save_pretrained(tmp_path / "begun")
        return tmp_path / "begun"

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_an_aligned_model_loads_with_transformers_and_scores_as_reported(kind, begun, pairs_file, tmp_path):
    aligned = run("dpo", begun(kind), pairs_file, tmp_path / "run", max_steps=4, save_every="2")
    assert (aligned.before.gap_P == 0).all()
    assert aligned.after.gap_P.mean() > 0.1
    model, tokenizer = (auto.from_pretrained(aligned.model) for auto in (AutoModelForCausalLM, AutoTokenizer))
    pair = read_pairs(pairs_file).rows[-16]
    prompt = tokenizer(pair.prompt).input_ids
    answer = [*tokenizer(pair.chosen, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
    with torch.no_grad():
        log_p = model.eval()(torch.tensor([prompt + answer])).logits[0].double().log_softmax(-1)
    expected = sum(float(log_p[len(prompt) - 1 + i, token]) for i, token in enumerate(answer))
    assert aligned.after.chosen.log_prob_A[0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_gives_back_the_run_to_the_last_bit(kind, begun, pairs_file, tmp_path):
    """As if the run had been killed after its last checkpoint."""
    aligned = run("dpo", begun(kind), pairs_file, tmp_path / "run", max_steps=4, save_every="2")
    whole = AutoModelForCausalLM.from_pretrained(aligned.model).state_dict()
    assert [c.step for c in Checkpoints(tmp_path / "run" / "checkpoints")] == [2]
    aligned.model.rename(tmp_path / "whole")
    resumed = align(AlignConfig.model_validate({"resume": tmp_path / "run"}), quiet())
    for name, value in AutoModelForCausalLM.from_pretrained(resumed.model).state_dict().items():
        assert torch.equal(value, whole[name]), name
