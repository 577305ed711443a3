"""The settings of the instruments. Imports no torch, so that `--help` is quick."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self, TypeAlias

from pydantic import ConfigDict, Field, model_validator

from kilter.data.config import ACCEPTED, Overwrite, ReadingConfig, Sources

# Names in DIVERGENCES (model/row_functions.py) besides KL, which is always measured both ways.
DivergenceName: TypeAlias = Literal["jeffreys", "js", "total_variation", "squared_hellinger", "chi2", "reverse_chi2"]


class ScoreConfig(ReadingConfig):
    """Score preference pairs under a model, and against a reference."""

    model: str = Field(description="Directory or hub name of the model.")
    data: Sources = Field(description=f"Files of preference pairs: {ACCEPTED}")
    reference: str | None = Field(None, description="Model to compare with: adds log-ratios, margins and token KL.")
    cache: Literal["none", "log-probs", "hidden"] = Field(
        "none",
        description="Keep the scores of the reference (without one: of the model) where kilter align finds them: "
        "log-probs, or its last hidden states too.",
    )
    cache_dir: Path | None = Field(
        None, description="Where that is kept, for all runs; default: $KILTER_CACHE, or ~/.cache/kilter."
    )
    out: Path | None = Field(None, description="Write one row a pair there: .parquet, .csv or .jsonl.")
    overwrite: Overwrite = False
    last: int | None = Field(None, ge=1, description="Score only the last so many rows.")
    beta: float = Field(0.1, gt=0, description="Margins are beta times the gap of log-ratios.")
    style: Literal["auto", "template", "hh", "plain"] = Field(
        "auto", description="How conversations are rendered; auto: the tokenizer's chat template, else HH style."
    )
    max_prompt: int | None = Field(None, ge=1, description="Cut the start of longer prompts, in tokens, by turns.")
    max_length: int | None = Field(None, ge=2, description="Longest prompt with its answer, in tokens.")
    on_overflow: Literal["refuse", "drop"] = Field("refuse", description="What to do with rows over --max-length.")
    node_budget: int = Field(2048, ge=2, description="Most tree nodes computed at once; bounds memory, not results.")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="Type of matrix products.")
    device: str = Field("auto", description="cpu, cuda or cuda:N; auto takes a GPU where there is one.")
    strict: bool = Field(False, description="Stop if the model fails its proof, instead of taking the slow path.")


class CompareConfig(ReadingConfig):
    """Measure how far apart two models with one vocabulary are on the same text."""

    data: Sources = Field(
        description=f"Documents (in .txt: one a line), demonstrations, pairs or any rows with answers: {ACCEPTED}"
    )
    scored: Literal["answers", "all"] = Field(
        "answers", description="Measure along answers (of a document: all of it), or along prompts too."
    )
    also: tuple[DivergenceName, ...] = Field(
        (), description="Further divergences between the models' next-token distributions."
    )
    worst: int = Field(10, ge=0, description="Show this many tokens where the models are furthest apart.")
    token_report: Path | None = Field(
        None, description="Write one row a token there as they are measured: .parquet, .csv or .jsonl."
    )
    overwrite: Overwrite = False
    as_json: bool = Field(False, alias="json", description="Print the same as JSON.")
    last: int | None = Field(None, ge=1, description="Compare on the last so many rows only.")
    style: Literal["auto", "template", "hh", "plain"] = Field(
        "auto", description="How conversations are rendered; auto: the tokenizer's chat template, else HH style."
    )
    max_prompt: int | None = Field(None, ge=1, description="Cut the start of longer prompts, in tokens, by turns.")
    max_length: int | None = Field(None, ge=2, description="Longest text that a model is given at once, in tokens.")
    on_overflow: Literal["split", "refuse", "drop"] = Field(
        "split",
        description="What to do with texts over --max-length, --node-budget or the models' positions; split: measure "
        "them window by window.",
    )
    node_budget: int = Field(
        2048, ge=2, description="Most tree nodes computed at once; bounds memory. Longer texts overflow."
    )
    precision: Literal["float32", "bfloat16"] = Field("float32", description="Type of matrix products.")
    device: str = Field("auto", description="cpu, cuda or cuda:N; auto takes a GPU where there is one.")
    strict: bool = Field(False, description="Stop if a model fails its proof, instead of taking the slow path.")

    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True)


class GenerateConfig(ReadingConfig):
    """Let a model answer prompts, alone or beside another."""

    model: str = Field(description="Directory or hub name of the model.")
    prompts: Sources = Field(
        description="What to answer: .txt, a question a line, or rows with a prompt or messages, or any rows to learn "
        f"from: {ACCEPTED}"
    )
    against: str | None = Field(None, description="Another model to answer beside it: adds KL of the answers.")
    judge: str | None = Field(
        None,
        description="Python function for the win rate over --against, as module:function or file.py:function: of "
        "(prompt, first, second), the preference for the first from 0 to 1, or of (prompt, answer), a reward.",
    )
    out: Path | None = Field(None, description="Write one row an answer there as they are made: .jsonl.")
    overwrite: Overwrite = False
    samples: int = Field(1, ge=1, description="Answers to each prompt.")
    last: int | None = Field(None, ge=1, description="Answer only the last so many rows.")
    show: int = Field(10, ge=0, description="Prompts whose answers are printed.")
    max_new_tokens: int = Field(128, ge=1, description="Longest answer, in tokens.")
    temperature: float = Field(1.0, ge=0, allow_inf_nan=False, description="0 takes the likeliest token each time.")
    top_p: float = Field(1.0, gt=0, le=1, description="Draw from the likeliest tokens with this much probability.")
    top_k: int = Field(0, ge=0, description="Draw from this many of the likeliest tokens; 0: from all.")
    seed: int = Field(0, description="The same seed draws the same answers.")
    style: Literal["auto", "template", "hh", "plain"] = Field(
        "auto", description="How conversations are rendered; auto: the tokenizer's chat template, else HH style."
    )
    max_prompt: int | None = Field(None, ge=1, description="Cut the start of longer prompts, in tokens, by turns.")
    node_budget: int = Field(2048, ge=2, description="Most tree nodes scored at once; bounds memory, not results.")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="Type of matrix products.")
    device: str = Field("auto", description="cpu, cuda or cuda:N; auto takes a GPU where there is one.")
    strict: bool = Field(False, description="Stop if the model fails its proof, instead of taking the slow path.")


class CheckConfig(ReadingConfig):
    """Look at data before training: what it holds, what must be mended, what a run would take."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True)

    data: Sources | None = Field(None, description="The same files, as a flag.")
    model: str | None = Field(
        None, description="Directory or hub name of the model to train: adds tokens, its template, memory and time."
    )
    eval_data: Sources | None = Field(
        None,
        alias="eval",
        description="Files to evaluate on: rows and prompts that the data shares with them are told.",
    )
    as_json: bool = Field(False, alias="json", description="Print the same facts as JSON.")
    skip_bad: bool = Field(False, description="Unusable rows are to be left out of training: count them, and go on.")
    style: Literal["auto", "template", "hh", "plain"] = Field(
        "auto", description="How conversations are rendered; auto: the tokenizer's chat template, else HH style."
    )
    max_prompt: int | None = Field(None, ge=1, description="Cut the start of longer prompts, in tokens, by turns.")
    max_length: int | None = Field(None, ge=2, description="Longest prompt with its answer, in tokens.")
    on_overflow: Literal["refuse", "drop"] = Field("refuse", description="What to do with rows over --max-length.")
    batch_size: int = Field(8, ge=1, description="Examples a step, for the estimate.")
    node_budget: int = Field(2048, ge=2, description="Most tree nodes computed at once; bounds memory, not results.")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="Type of matrix products.")
    device: str = Field("auto", description="cpu, cuda or cuda:N; auto takes a GPU where there is one.")

    @model_validator(mode="after")
    def _needs_model(self) -> Self:
        if self.model is None:
            for name in ("max_prompt", "max_length"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} counts tokens; give model too")
        return self
