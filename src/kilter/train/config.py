"""The settings of a run. Imports no torch, so that `--help` is quick."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class RunConfig(BaseModel):
    """Settings that every training method has."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: Path = Field(description="File of examples: JSONL or JSON, also .gz.")
    out: Path = Field(description="Run directory to create.")
    overwrite: bool = Field(False, description="Replace an earlier run in that directory.")
    skip_bad: bool = Field(False, description="Leave out unusable rows, with a count, instead of refusing the file.")

    eval_data: Path | None = Field(None, description="File of examples to evaluate on.")
    holdout: int = Field(0, ge=0, description="Or: keep the last so many rows of the data for evaluation.")
    eval_every: int | None = Field(None, ge=1, description="Steps between evaluations; default: only at both ends.")

    style: Literal["auto", "template", "hh", "plain"] = Field(
        "auto", description="How conversations are rendered; auto: the tokenizer's chat template, else HH style."
    )
    max_prompt: int | None = Field(None, ge=1, description="Cut the start of longer prompts, in tokens, by turns.")
    max_length: int | None = Field(None, ge=2, description="Longest prompt with its answer, in tokens.")
    on_overflow: Literal["refuse", "drop"] = Field("refuse", description="What to do with rows over --max-length.")

    epochs: float = Field(1.0, gt=0, description="Passes over the data.")
    max_steps: int | None = Field(None, ge=1, description="Stop after so many steps instead.")
    batch_size: int = Field(8, ge=1, description="Examples a step (pairs, for preferences).")
    node_budget: int = Field(2048, ge=2, description="Most tree nodes computed at once; bounds memory, not results.")
    seed: int = Field(0, ge=0, description="Seed of the order of examples and of fresh weights.")

    schedule: Literal["linear", "cosine", "constant"] = Field("linear", description="Learning rate after warm-up.")
    warmup: float = Field(0.1, ge=0, lt=1, description="Share of the steps that the learning rate climbs.")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's decoupled weight decay.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients of a larger norm are scaled down to this.")

    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="Type of matrix products; weights, sums and log-probs stay in float32."
    )
    device: str = Field("auto", description="cpu, cuda or cuda:N; auto takes a GPU where there is one.")
    strict: bool = Field(False, description="Stop if the model fails its proof, instead of taking the slow path.")

    @model_validator(mode="after")
    def _one_evaluation_set(self) -> RunConfig:
        if self.eval_data is not None and self.holdout:
            raise ValueError("got both eval_data and holdout; give one of them")
        if self.eval_every is not None and self.eval_data is None and not self.holdout:
            raise ValueError("eval_every needs something to evaluate on; give eval_data or holdout")
        return self


class AlignConfig(RunConfig):
    """Align a model with preference pairs."""

    model: str = Field(description="Directory or hub name of the model to align.")
    reference: str | None = Field(None, description="Model to measure against; default: the start of the run.")
    objective: str = Field("dpo", description="Which loss: dpo, ipo, ipo_mean, hinge, kto.")
    beta: float | None = Field(None, gt=0, description="Strength of the tie to the reference; default: 0.1.")
    label_smoothing: float | None = Field(None, ge=0, lt=0.5, description="dpo: the chance that a label is wrong.")
    desirable_weight: float | None = Field(None, gt=0, description="kto: weight of desirable answers.")
    undesirable_weight: float | None = Field(None, gt=0, description="kto: weight of undesirable answers.")
    learning_rate: float = Field(1e-6, gt=0, description="Peak learning rate.")


class SftConfig(RunConfig):
    """Teach a model to say what the examples say."""

    model: str | None = Field(None, description="Directory or hub name of the model to tune.")
    from_scratch: str | None = Field(
        None, description="Or a shape for a fresh Llama model and tokenizer: tiny, 8m, 135m, or layers=4,hidden=128,..."
    )
    learning_rate: float | None = Field(None, gt=0, description="Peak learning rate; default: 2e-5, from scratch 2e-3.")
    batch_size: int = Field(16, ge=1, description="Examples a step.")

    @model_validator(mode="after")
    def _one_start(self) -> SftConfig:
        if (self.model is None) == (self.from_scratch is None):
            raise ValueError("give either model or from_scratch, to say where to start")
        return self
