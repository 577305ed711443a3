"""Flags by subject: the panels of `--help` and the sections of the command-line reference."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cyclopts.help import DefaultFormatter, HelpPanel
    from rich.console import Console, ConsoleOptions

# A setting's subject is the same in every command that has it.
SUBJECTS: dict[str, tuple[str, ...]] = {
    "Model": ("model", "from_scratch", "reference", "against", "cache", "cache_dir", "strict"),
    "Data": (
        "data", "prompts", "columns", "weight", "prompt", "format", "skip_bad", "skip_missing", "last", "scored",
        "outcomes",
    ),
    "Run and output": (
        "out", "overwrite", "token_report", "explain", "as_json", "resume", "config", "print_config", "seed",
        "save_every", "keep", "csv", "plot", "top",
    ),
    "Text and length": ("style", "max_prompt", "max_length", "on_overflow"),
    "Objective": (
        "objective", "beta", "label_smoothing", "desirable_weight", "undesirable_weight", "reference_mix",
        "reference_every",
    ),
    "Bounds on KL": (
        "kl_budget", "kl_control", "max_kl", "on_max_kl", "kl_every", "kl_samples", "kl_tokens", "trust_region",
        "trust_region_every",
    ),
    "Training": (
        "epochs", "max_steps", "batch_size", "learning_rate", "schedule", "warmup", "optimizer", "weight_decay",
        "max_grad_norm", "gradient_noise",
    ),
    "Evaluation": (
        "holdout", "eval_data", "eval_every", "keep_best", "patience", "sample_eval", "sample_tokens", "judge",
        "sample_temperature",
    ),
    "Adapters": (
        "lora_rank", "lora_alpha", "lora_dropout", "lora_targets", "lora_variant", "quantise", "merge",
    ),
    "Machine": ("device", "precision", "weights", "node_budget", "activation_checkpointing", "shard"),
    "Comparison": ("also", "worst"),
    "Strengths": (
        "ties", "order_effect", "covariate", "prior", "disconnected", "scale", "anchor", "level", "intervals",
        "predict", "suggest",
    ),
    "Answers": ("samples", "show", "max_new_tokens", "temperature", "top_p", "top_k"),
    "World": ("world", "sentences", "sft_epochs", "pairs", "align_epochs", "held_out", "sweep"),
}  # fmt: skip
OTHER = "Other"
# What a flag takes, where its type would not say it.
TAKES = {"columns": "FIELD=COLUMN,..."}


def by_subject(settings: Iterable[str]) -> dict[str, list[str]]:
    """Settings under their subjects, both in the order of the table; those that it does not have come last."""
    left = list(settings)
    found = {subject: [name for name in names if name in left] for subject, names in SUBJECTS.items()}
    placed = {name for names in found.values() for name in names}
    found[OTHER] = [name for name in left if name not in placed]
    return {subject: names for subject, names in found.items() if names}


class PanelsBySubject:
    """Prints help as cyclopts does, but a command's flags in a panel for each subject."""

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        show = _as_cyclopts_does()
        if panel.format != "parameter":
            show(console, options, panel)
            return
        # What is only told by its place has no flag; it is called as it is shown.
        entries = {_setting(entry.positive_names) or str(entry.positional_label): entry for entry in panel.entries}
        entries |= {name: entries[name].copy(metavar=shown) for name, shown in TAKES.items() if name in entries}
        subjects = by_subject(entries)
        for subject, names in subjects.items():
            title = panel.title if list(subjects) == [OTHER] else subject
            show(console, options, panel.copy(title=title, entries=[entries[name] for name in names]))

    def render_usage(self, console: Console, options: ConsoleOptions, usage: Any) -> None:
        _as_cyclopts_does().render_usage(console, options, usage)

    def render_description(self, console: Console, options: ConsoleOptions, description: Any) -> None:
        _as_cyclopts_does().render_description(console, options, description)


def _as_cyclopts_does() -> DefaultFormatter:
    from cyclopts.help import DefaultFormatter  # only help needs it

    return DefaultFormatter()


def _setting(flags: tuple[str, ...]) -> str:
    """`node_budget` of `--node-budget`; "" of what has no flag."""
    return flags[0].removeprefix("--").replace("-", "_") if flags else ""
