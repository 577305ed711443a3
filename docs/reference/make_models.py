"""Writes models.md beside this file, from the table that the Scorer reads and the tests prove."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from kilter.model.architectures import ARCHITECTURES

PAGE = Path(__file__).with_name("models.md")

TOP = """\
# Models

<!-- Written by docs/reference/make_models.py from ARCHITECTURES in src/kilter/model/architectures.py. -->

kilter scores any causal language model that `AutoModelForCausalLM` of transformers loads without code of its own. The
model's type (`model_type` in its `config.json`) decides how:

- **tree**: every token of a batch is computed once, by tree attention.
- **separate**: each sequence is run by itself, unpadded, by the model's own attention. Shared prompts are computed
  again for each answer; scores and gradients are as exact.
- **unsupported**: refused, with the reason.

Whatever the type, a model is compared with its own forward when it is loaded ([proof on
load](../architecture.md#proof-on-load)). A tree that fails the comparison gives way to separate sequences with a
warning, or with `--strict` to an error; if separate sequences fail too, kilter stops.
"""

PROVEN = {
    "tree": "scores and all gradients equal those of plain float64 code on separate sequences to 1e-12; in float32, "
    "scores are those of the model's own forward to 1e-5; in bfloat16, both err at most twice as much as its own",
    "separate": "scores and all gradients equal those of the model's own forward in float64 to 1e-12",
}

UNLISTED = """\
Types that are not listed are scored as separate sequences after the proof on load, in which any that would be scored
wrongly is refused. So are models that have one of a listed type within, such as Gemma 3 with its vision tower.
"""

UNSUPPORTED = {
    "encoder-decoders (T5)": "they are no causal language models, and do not load as one",
    "encoders (BERT), and Gemma 3 with `use_bidirectional_attention`": "a token sees those after it, so it has no "
    "log-prob given what came before",
    "an unlisted type that scales or caps its logits (RecurrentGemma, Granite MoE)": "kilter reads the head's output "
    "and does not know what the model does to it next; the proof names the head",
    "training of routed experts with `output_router_logits` true": "it asks for an auxiliary loss that kilter's losses "
    "do not include; set it to false. Scoring is not affected",
    "rows longer than the limit of dynamic or long RoPE": "beyond it positions depend on the longest sequence of a "
    "call, so a shared prefix has no one score; leave them out with `--max-length`",
    "attention dropout in a tree": "tree attention has none; the commands run every model without dropout, and a model "
    "of your own in `train()` mode needs it set to 0",
    "models that bring code of their own": "code that comes with a model is never run",
}


def page() -> str:
    """The whole page."""
    sections = [TOP]
    for path, heading, last in (("tree", "Scored as a tree", "peculiar"), ("separate", "Scored separately", "why")):
        rows = [(f"`{kind}`", row.families, row.note) for kind, row in ARCHITECTURES.items() if row.path == path]
        sections.append(f"## {heading}\n\n" + _table(("model type", "models", last), rows))
    sections += [f"## Other types\n\n{UNLISTED}", "## Unsupported\n\n" + _table(("what", "why"), UNSUPPORTED.items())]
    proven = ("scored as", "proven in `tests/model/test_architectures.py`, on small models of each type")
    sections.append("## What is proven\n\n" + _table(proven, PROVEN.items()))
    return "\n".join(sections)


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [heads, ("---",) * len(heads), *rows]
    return "".join(f"| {' | '.join(cells)} |\n".replace("|  |", "| |") for cells in lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
