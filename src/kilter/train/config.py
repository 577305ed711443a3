"""The settings of a run. Imports no torch, so that `--help` is quick."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import Field, field_validator, model_validator

from kilter.data.config import ACCEPTED, ReadingConfig, Sources
from kilter.data.run_directory import CONFIG
from kilter.data.toml import read_settings, to_toml


def with_files(
    given: dict[str, Any],
    known: Collection[str],
    kind: str,
    begun: Callable[[Path, dict[str, Any]], dict[str, Any] | None],
) -> dict[str, Any]:
    """What was given, with the settings of the file that `config` names, and those of what `resume` names, a `kind` of
    run: `begun` puts the two together, or says None where there is none yet."""
    settings = dict(given)
    if (path := settings.get("config")) is not None:
        settings = read_settings(Path(path), known) | settings
    if (place := settings.get("resume")) is not None:
        if Path(settings.get("out") or place) != Path(place):
            raise ValueError(f"resume goes on in {place} and out is {settings['out']}; leave out away")
        if (taken_up := begun(Path(place), settings)) is not None:
            settings = taken_up
        elif "data" not in settings:
            raise ValueError(f"there is no {kind} in {place}; to begin one there, say on what: give data")
        settings["out"] = place
    return settings


class RunConfig(ReadingConfig):
    """Settings that every training method has.

    What is not given is looked for in the file `config`, then in what the run to `resume` was begun with.
    """

    # What a run that is taken up again may be given anew: none of it alters what is trained, beyond rounding.
    # Files and models may move: they are known by their contents.
    MAY_CHANGE: ClassVar[frozenset[str]] = frozenset({
        "data", "eval_data", "model", "reference", "out", "config", "resume", "overwrite",
        "save_every", "keep", "eval_every", "sample_eval", "sample_tokens", "sample_temperature", "judge",
        "node_budget", "activation_checkpointing", "device", "shard", "strict", "merge", "cache", "cache_dir",
    })  # fmt: skip

    config: Path | None = Field(None, description="TOML file of settings, by these names; flags come first.")
    resume: Path | None = Field(None, description="Run directory to go on in; a run begins there if there is none.")

    data: Sources = Field(description=f"Files of examples: {ACCEPTED}")
    out: Path = Field(description="Run directory to create.")
    overwrite: bool = Field(False, description="Replace an earlier run in that directory.")

    eval_data: Sources | None = Field(None, description="Files of examples to evaluate on, read the same way.")
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
    node_budget: Annotated[int, Field(ge=2)] | Literal["auto"] = Field(
        2048, description="Most tree nodes computed at once; bounds memory, not results. auto: as many as fit."
    )
    activation_checkpointing: bool = Field(
        False, description="Keep one activation a layer and compute the rest again: less memory, more time."
    )
    seed: int = Field(0, ge=0, description="Seed of the order of examples, of fresh weights and of dropout.")

    save_every: str = Field("30m", description="Steps between checkpoints, or minutes (30m) or seconds (90s).")
    keep: int = Field(2, ge=1, description="Checkpoints kept: the newest so many, and the best.")
    keep_best: bool = Field(False, description="The result is the model of the evaluation with the lowest loss.")
    patience: int | None = Field(
        None, ge=1, description="Stop after so many evaluations without a lower loss; the result is the best model."
    )

    optimizer: Literal["adamw", "adafactor", "adamw8bit"] = Field(
        "adamw", description="adafactor keeps least; adamw8bit keeps 8-bit moments (needs bitsandbytes)."
    )

    schedule: Literal["linear", "cosine", "constant"] = Field("linear", description="Learning rate after warm-up.")
    warmup: float = Field(0.1, ge=0, lt=1, description="Share of the steps that the learning rate climbs.")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's decoupled weight decay.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients of a larger norm are scaled down to this.")
    gradient_noise: float = Field(
        0.0, ge=0, description="Add Gaussian noise of variance this / (1 + step)^0.55 to gradients."
    )

    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="Type of matrix products; sums and log-probs stay in float32."
    )
    weights: Literal["float32", "bfloat16"] = Field(
        "float32", description="Type that weights are kept in; bfloat16 halves them, and rounds updates stochastically."
    )
    device: str = Field("auto", description="cpu, cuda or cuda:N; auto takes a GPU where there is one.")
    shard: bool = Field(False, description="Under torchrun: split weights over workers (FSDP2), not examples alone.")
    strict: bool = Field(False, description="Stop if the model fails its proof, instead of taking the slow path.")

    lora_rank: int | None = Field(None, ge=1, description="Train adapters of this rank instead of the weights.")
    lora_alpha: float | None = Field(None, gt=0, description="Scale of adapters; default: twice the rank.")
    lora_dropout: float | None = Field(None, ge=0, lt=1, description="Dropout of what adapters are given; default: 0.")
    lora_targets: tuple[str, ...] | None = Field(
        None, description="Names of layers to adapt; default: every linear layer of attention and MLP."
    )
    lora_variant: Literal["lora", "rslora", "dora"] | None = Field(
        None, description="rslora divides by the root of the rank (arXiv 2312.03732); dora: arXiv 2402.09353."
    )
    quantise: Literal["none", "8bit", "4bit"] = Field(
        "none", description="Bits of an adapter's frozen base; needs a GPU and bitsandbytes."
    )
    merge: bool = Field(False, description="Save the model with its adapter merged into the weights.")

    @model_validator(mode="before")
    @classmethod
    def _from_files(cls, given: dict[str, Any]) -> dict[str, Any]:
        def begun(run: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
            written = run / CONFIG
            return read_settings(written, cls.model_fields) | settings if written.is_file() else None

        return with_files(given, cls.model_fields, "run", begun)

    @field_validator("save_every")
    @classmethod
    def _steps_or_time(cls, value: str) -> str:
        if not re.fullmatch(r"[1-9]\d*[ms]?", value):
            raise ValueError("should be steps (200), minutes (30m) or seconds (90s)")
        return value

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.resume is not None and self.overwrite:
            raise ValueError("got both resume and overwrite; give one of them")
        if self.eval_data is not None and self.holdout:
            raise ValueError("got both eval_data and holdout; give one of them")
        if "-" in self.data and "-" in (self.eval_data or ()):
            raise ValueError("data and eval_data are both standard input, which is read once; give one of them a file")
        if self.eval_data is None and not self.holdout:
            for name in ("eval_every", "keep_best", "patience", "sample_eval"):
                if getattr(self, name, None):
                    raise ValueError(f"{name} needs something to evaluate on; give eval_data or holdout")
        for name in ("lora_alpha", "lora_dropout", "lora_targets", "lora_variant"):
            if self.lora_rank is None and getattr(self, name) is not None:
                raise ValueError(f"{name} belongs to an adapter; give lora_rank too")
        if self.patience is not None and self.eval_every is None:
            raise ValueError("patience counts evaluations on the way; give eval_every")
        return self

    @property
    def toml(self) -> str:
        """These settings as a file that `config` reads."""
        return to_toml(self.model_dump(mode="json", exclude={"config", "resume", "overwrite"}))

    @property
    def node_limit(self) -> int:
        """The node budget, once `auto` has become a number."""
        assert isinstance(self.node_budget, int)
        return self.node_budget

    @property
    def save_steps(self) -> int | None:
        """Steps between checkpoints, where they are counted in steps."""
        return None if self.save_every.endswith(("m", "s")) else int(self.save_every)

    @property
    def save_seconds(self) -> float | None:
        """Seconds between checkpoints, where they go by time."""
        unit = {"m": 60, "s": 1}.get(self.save_every[-1])
        return None if unit is None else unit * int(self.save_every[:-1])


# Those of kilter.objectives that learn from preferences, by name: that module loads torch (tests/test_cli.py compares).
OBJECTIVES = (
    "dpo", "soft_dpo", "robust", "margin_dpo", "dpo_norm", "ipo", "ipo_mean", "hinge", "exo", "discopop", "nca",
    "sppo", "sppo_soft", "apo_zero", "apo_down", "dpop", "fdpo_forward_kl", "fdpo_js", "fdpo_alpha", "tdpo1",
    "tdpo2", "ld_dpo", "ld_dpo_policy", "wpo", "wpo_clamped", "bco_pair", "aot", "aot_unpaired", "beta_dpo",
    "bt_kl", "bt_kl_reference", "simpo", "orpo", "cpo", "slic", "kto", "bco", "plackett_luce", "kl", "kl_reference",
)  # fmt: skip


# References that are no other model's name (a directory of such a name is ./none).
START, ADAPTER_OFF, NONE = "start", "adapter-off", "none"


class Moving(NamedTuple):
    """How a reference follows the policy: which share of the policy is mixed into it, every how many steps."""

    mix: float
    every: int


class AlignConfig(RunConfig):
    """Align a model with preferences: pairs, rankings, or answers labelled one by one."""

    model: str = Field(description="Directory or hub name of the model to align.")
    reference: str | None = Field(
        None,
        description="Model to measure against; default: start, the start of the run. adapter-off: the base that an "
        "adapter sits on; none: no model, for objectives that have no reference.",
    )
    cache: Literal["none", "log-probs", "hidden"] | None = Field(
        None,
        description="What to keep on disk of the reference: log-probs (default, where it neither moves nor is split "
        "by --shard), or its last hidden states too, for exact KL without running it.",
    )
    cache_dir: Path | None = Field(
        None, description="Where that is kept, for all runs; default: $KILTER_CACHE, or ~/.cache/kilter."
    )
    reference_mix: float | None = Field(
        None, gt=0, le=1, description="Share of the policy that is mixed into a reference that moves; default: 1."
    )
    reference_every: int | None = Field(
        None, ge=1, description="Steps between moves of the reference (TR-DPO); default, with --reference-mix: 1."
    )
    objective: str = Field(
        "dpo",
        description=f'Which loss, or a sum such as "dpo(beta=0.3) + 0.2*sft". There are: {", ".join(OBJECTIVES)}.',
    )
    # What an option may be is the objective's to say: kilter.objectives checks it.
    beta: float | None = Field(None, description="Strength of the tie to the reference; default: the objective's.")
    label_smoothing: float | None = Field(
        None, description="Chance that a label is wrong, where the objective allows for that."
    )
    desirable_weight: float | None = Field(None, description="kto: weight of desirable answers.")
    undesirable_weight: float | None = Field(None, description="kto: weight of undesirable answers.")
    learning_rate: float = Field(1e-6, gt=0, description="Peak learning rate.")

    kl_budget: float | None = Field(
        None, gt=0, description="End with so many nats of answer KL(policy, reference), within a tenth, or with fewer."
    )
    kl_control: Literal["budget", "ziegler"] = Field(
        "budget",
        description="What moves the weight of the penalty: kilter's controller, or the proportional one of RLHF.",
    )
    max_kl: float | None = Field(None, gt=0, description="Most nats of it that the result may have.")
    on_max_kl: Literal["stop", "rollback"] = Field(
        "stop", description="Beyond --max-kl: stop without a result, or take the last checkpoint within it for one."
    )
    kl_every: int | None = Field(
        None, ge=1, description="Steps between measurements of answer KL; default: a fiftieth of the run."
    )
    kl_samples: int = Field(64, ge=2, description="Answers that a measurement draws; four times as many at the end.")
    kl_tokens: int = Field(128, ge=1, description="Most tokens of such an answer.")
    trust_region: float | None = Field(
        None, gt=0, description="Weight of exact token KL to the policy as it was some steps before."
    )
    trust_region_every: int | None = Field(
        None, ge=1, description="Steps after which that policy is replaced by the present one; default: 50."
    )

    sample_eval: int = Field(0, ge=0, description="Answers to sample at each evaluation: measures the KL of answers.")
    sample_tokens: int = Field(128, ge=1, description="Most tokens of a sampled answer.")
    sample_temperature: float = Field(1.0, ge=0, description="Temperature of samples; the KL is unbiased at 1.")
    judge: str | None = Field(
        None,
        description="Python function to judge sampled answers against the reference's, as module:function or "
        "file.py:function: of (prompt, first, second), the preference for the first from 0 to 1, or of (prompt, "
        "answer), a reward.",
    )

    @model_validator(mode="after")
    def _samples(self) -> Self:
        for name in ("sample_tokens", "sample_temperature", "judge"):
            if not self.sample_eval and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is for sampled answers; give sample_eval too")
        return self

    @model_validator(mode="after")
    def _moves(self) -> Self:
        for name in ("shard", "lora_rank"):
            if self.moving is not None and getattr(self, name):
                raise ValueError(
                    f"a reference that moves does not go with {name}; leave that, or reference_mix and "
                    "reference_every, out"
                )
        return self

    @model_validator(mode="after")
    def _keeps(self) -> Self:
        if self.cache in (None, "none"):
            return self
        if self.moving is not None:
            raise ValueError(f"cache is {self.cache!r}, and scores of a reference that moves are old the step after")
        if self.shard:
            raise ValueError(f"cache is {self.cache!r}, and a reference that is split by shard runs on all workers")
        return self

    @property
    def keeps(self) -> Literal["none", "log-probs", "hidden"]:
        """What is kept of the reference's scores."""
        if self.cache is None:
            return "none" if self.moving is not None or self.shard else "log-probs"
        return self.cache

    @model_validator(mode="after")
    def _bounds_kl(self) -> Self:
        fields = type(self).model_fields
        for name in ("on_max_kl", "kl_every", "kl_samples", "kl_tokens"):
            if not self.measures_kl and getattr(self, name) != fields[name].default:
                raise ValueError(f"{name} is for a bound on the KL of answers; give kl_budget or max_kl too")
        if self.measures_kl and self.reference == NONE:
            raise ValueError("the KL of answers is to a reference, and reference is none; leave that out")
        if self.kl_budget is None and self.kl_control != fields["kl_control"].default:
            raise ValueError("kl_control says how kl_budget is kept; give that too")
        if self.max_kl is None and self.on_max_kl != fields["on_max_kl"].default:
            raise ValueError("on_max_kl says what happens beyond max_kl; give that too")
        if self.kl_budget is not None and self.max_kl is not None and self.max_kl <= self.kl_budget:
            raise ValueError(
                f"max_kl is {self.max_kl:g} and kl_budget, which a run comes near from both sides, {self.kl_budget:g}; "
                "allow more, or leave one of them out"
            )
        for name in ("keep_best", "patience"):
            if self.measures_kl and getattr(self, name):
                raise ValueError(
                    f"{name} chooses the result by its loss, and kl_budget and max_kl by its KL; leave {name} out"
                )
        if self.kl_budget is not None and self.moving is not None:
            raise ValueError(
                "kl_budget is kept to where the run began, and a reference that moves pulls elsewhere; leave "
                "reference_mix and reference_every, or kl_budget, out"
            )
        return self

    @model_validator(mode="after")
    def _trusts(self) -> Self:
        if self.trust_region is None and self.trust_region_every is not None:
            raise ValueError("trust_region_every belongs to a trust region; give trust_region too")
        for name in ("shard", "lora_rank"):
            if self.trust_region is not None and getattr(self, name):
                raise ValueError(
                    f"a trust region keeps a copy of all weights, and does not go with {name}; leave one out"
                )
        return self

    @property
    def measures_kl(self) -> bool:
        """Whether answer KL is measured, and bounded."""
        return self.kl_budget is not None or self.max_kl is not None

    @property
    def moving(self) -> Moving | None:
        """How the reference moves; None where it stays."""
        if self.reference_mix is None and self.reference_every is None:
            return None
        return Moving(1.0 if self.reference_mix is None else self.reference_mix, self.reference_every or 1)


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
        if self.from_scratch is not None and (self.lora_rank is not None or self.merge or self.quantise != "none"):
            raise ValueError("an adapter sits on a model, and from_scratch has none; leave the adapter out")
        return self
