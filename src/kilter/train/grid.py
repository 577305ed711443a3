"""The settings of a sweep: those of `kilter align`, some with several values. Imports no torch."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    create_model,
    model_validator,
)
from pydantic.fields import FieldInfo

from kilter.data.sweep_directory import SweepDirectory
from kilter.data.toml import to_toml
from kilter.train.config import AlignConfig, with_files

# What may differ from run to run. Model, reference, data and what is held out may not: then nothing could be compared.
MAY_VARY = (
    "objective", "beta", "label_smoothing", "desirable_weight", "undesirable_weight", "reference_mix",
    "reference_every", "learning_rate", "epochs", "max_steps", "batch_size", "schedule", "warmup", "optimizer",
    "weight_decay", "max_grad_norm", "gradient_noise", "kl_budget", "kl_control", "trust_region", "trust_region_every",
    "lora_rank", "lora_alpha", "lora_dropout", "lora_variant", "seed",
)  # fmt: skip


class Combination(NamedTuple):
    """One run of a sweep: what its directory is called, the values that tell it from the others, and its settings."""

    name: str
    varied: dict[str, Any]
    config: AlignConfig

    def __str__(self) -> str:
        return described(self.varied)


class Grid(BaseModel):
    """Align a model again and again, over a grid of settings, and show what each run has in reward for its KL."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    world: Literal["demo"] | None = Field(
        None, description="Model and data are of that world: tell the true reward, and the most there is, too."
    )

    if TYPE_CHECKING:  # all settings of `kilter align` are there; these are named outside of loops
        out: Path
        model: str

        def __init__(self, **settings: Any) -> None: ...

    @model_validator(mode="before")
    @classmethod
    def _from_files(cls, given: dict[str, Any]) -> dict[str, Any]:
        def begun(sweep: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
            directory = SweepDirectory(sweep)
            return _added(directory.read()["settings"], settings) if directory.exists else None

        return with_files(given, cls.model_fields, "sweep", begun)

    @model_validator(mode="after")
    def _makes_runs(self) -> Self:
        if self.given("resume") is not None and self.given("overwrite"):
            raise ValueError("got both resume and overwrite; give one of them")
        if not self.given("eval_data") and not self.given("holdout"):
            raise ValueError("a sweep compares its runs on held-out examples; give eval_data or holdout")
        if not self.varies:
            raise ValueError(
                "nothing varies; give several values, with commas, such as --beta 0.01,0.03, or use kilter align"
            )
        self.combinations()
        return self

    def given(self, name: str) -> Any:
        """A setting, if it was given; else None."""
        return getattr(self, name) if name in self.model_fields_set else None

    @property
    def varies(self) -> list[str]:
        """The settings with several values."""
        return [name for name in MAY_VARY if len(self.given(name) or ()) > 1]

    @property
    def settings(self) -> dict[str, Any]:
        """What was given, as JSON has it."""
        return self.model_dump(mode="json", exclude_unset=True, exclude={"config", "resume", "overwrite"})

    @property
    def toml(self) -> str:
        """The same as a file that `config` reads."""
        return to_toml(self.settings)

    def combinations(self) -> list[Combination]:
        """Every run, one objective after the other; each begins, or goes on, in a directory of its own.

        Raises ValueError, naming it, where a combination is none that `kilter align` takes, or is there twice.
        """
        given = self.model_fields_set & AlignConfig.model_fields.keys() - {"config", "overwrite", *self.varies}
        fixed = {name: getattr(self, name) for name in given}
        fixed |= {name: values[0] for name, values in fixed.items() if name in MAY_VARY}
        runs: dict[str, Combination] = {}
        for values in itertools.product(*(getattr(self, name) for name in self.varies)):
            varied = dict(zip(self.varies, values, strict=True))
            name = directory_name(varied)
            if name in runs:
                raise ValueError(f"{described(varied)} is the same run as {runs[name]}; give each once")
            place = self.out / name
            config = _align_config(fixed | varied | {"out": place, "resume": place}, varied)
            runs[name] = Combination(name, varied, config)
        return list(runs.values())


def described(varied: Mapping[str, Any]) -> str:
    """What tells a run from the others, for people: `dpo, beta 0.1`."""
    parts = (as_text(value) if name == "objective" else f"{name} {as_text(value)}" for name, value in varied.items())
    return ", ".join(parts)


def directory_name(varied: Mapping[str, Any]) -> str:
    """The same for the file system: `dpo_beta=0.1`. Nothing in it needs quotes in a shell.

    >>> directory_name({"objective": "simpo(beta=2, gamma=1) + 0.2*sft", "seed": 0})
    'simpo_beta=2_gamma=1_+_0.2_sft_seed=0'
    """
    parts = (as_text(value) if name == "objective" else f"{name}={as_text(value)}" for name, value in varied.items())
    return "_".join(re.sub(r"[^\w.=+-]+", "_", part).strip("_") for part in parts)


def as_text(value: Any) -> str:
    """A value of a setting, short."""
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def _added(begun: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a sweep was begun with and what is given now: of what may vary, further values."""

    def known_by(value: Any) -> Any:
        try:
            return float(value)
        except ValueError:
            return value

    settings = dict(begun) | dict(given)
    for name in begun.keys() & given.keys() & set(MAY_VARY):
        values = {known_by(value): value for value in (*begun[name], *_parts(given[name]))}
        settings[name] = list(values.values())
    return settings


def _parts(given: Any) -> list[Any]:
    """Values as they were given: in a list, or in text with commas, or in a list of such texts."""
    items = given if isinstance(given, list | tuple) else [given]
    return [part for item in items for part in (split(item) if isinstance(item, str) else [item])]


def split(text: str) -> list[str]:
    """The parts of a text between commas, those within brackets aside.

    >>> split("simpo(beta=2, gamma=1),dpo")
    ['simpo(beta=2, gamma=1)', 'dpo']
    """
    parts, depth = [""], 0
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth <= 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


def several(field: FieldInfo) -> Any:
    """The type of a setting that takes several values of a field's type, in a list or in a text with commas."""
    hint: Any = Annotated[field.annotation, field]
    one = TypeAdapter[Any](hint)

    def values(given: Any) -> tuple[Any, ...]:
        if not (parts := _parts(given)):
            raise ValueError("has no value; give at least one")
        return tuple(map(one.validate_python, parts))

    schema = {"type": "array", "items": one.json_schema()}
    return Annotated[tuple[str, ...], PlainValidator(values), PlainSerializer(list), WithJsonSchema(schema)]


def _align_config(settings: dict[str, Any], varied: Mapping[str, Any]) -> AlignConfig:
    try:
        return AlignConfig(**settings)
    except ValidationError as error:
        if any(problem["loc"] for problem in error.errors()):
            raise  # about a setting, which it names
        said = "; ".join(problem["msg"].removeprefix("Value error, ") for problem in error.errors())
        raise ValueError(f"{described(varied)}: {said}") from None


# What is not the same here as there.
_MEANT = {
    "out": "Directory of the sweep to create, with a directory for each run.",
    "resume": "Directory of a sweep to go on with, also with more values; one begins there if there is none.",
    "overwrite": "Replace an earlier sweep in that directory.",
}


def _field(name: str, field: FieldInfo) -> tuple[Any, FieldInfo]:
    """A setting of `kilter align` as one of a sweep."""
    described = Field(description=_MEANT.get(name, field.description))
    if name in MAY_VARY:
        return several(field), Field(field.default, description=field.description)
    return Annotated[field.annotation, field], described


if TYPE_CHECKING:
    SweepConfig = Grid
else:
    SweepConfig = create_model(
        "SweepConfig",
        __base__=Grid,
        __doc__=Grid.__doc__,
        **{name: _field(name, field) for name, field in AlignConfig.model_fields.items()},
    )
