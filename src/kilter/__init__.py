"""kilter aligns language models with preferences: every token computed once, every nat accounted for.

The names below are imported when they are first used: `import kilter` alone loads nothing heavy.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kilter import divergence, objectives, ranking
    from kilter.data.config import ConvertConfig
    from kilter.data.convert import convert
    from kilter.data.reading import read_demonstrations, read_pairs, read_prompts, read_records
    from kilter.errors import KilterError
    from kilter.measure.check import check
    from kilter.measure.compare import compare
    from kilter.measure.config import CheckConfig, CompareConfig, GenerateConfig, ScoreConfig
    from kilter.measure.generate import generate
    from kilter.measure.judges import judge_by_reward
    from kilter.measure.score import score
    from kilter.measure.win_rate import WinRate, win_rate
    from kilter.model.loading import load_scorer, load_tokenizer
    from kilter.model.prepared import PreparedTree
    from kilter.model.sampler import SamplingSettings, TransformersSampler
    from kilter.model.scorer import Scorer
    from kilter.tokens.encoding import Encoder
    from kilter.tokens.packing import pack
    from kilter.tokens.sequence import TokenSequence
    from kilter.tokens.tree import TokenTree
    from kilter.train.align import align
    from kilter.train.config import AlignConfig, SftConfig
    from kilter.train.grid import SweepConfig
    from kilter.train.sft import sft
    from kilter.train.sweep import sweep

    __version__: str

__all__ = [
    "AlignConfig",
    "CheckConfig",
    "CompareConfig",
    "ConvertConfig",
    "Encoder",
    "GenerateConfig",
    "KilterError",
    "PreparedTree",
    "SamplingSettings",
    "ScoreConfig",
    "Scorer",
    "SftConfig",
    "SweepConfig",
    "TokenSequence",
    "TokenTree",
    "TransformersSampler",
    "WinRate",
    "__version__",
    "align",
    "check",
    "compare",
    "convert",
    "divergence",
    "generate",
    "judge_by_reward",
    "load_scorer",
    "load_tokenizer",
    "objectives",
    "pack",
    "ranking",
    "read_demonstrations",
    "read_pairs",
    "read_prompts",
    "read_records",
    "score",
    "sft",
    "sweep",
    "win_rate",
]

_MODULE_OF = {
    "AlignConfig": "kilter.train.config",
    "CheckConfig": "kilter.measure.config",
    "CompareConfig": "kilter.measure.config",
    "ConvertConfig": "kilter.data.config",
    "Encoder": "kilter.tokens.encoding",
    "GenerateConfig": "kilter.measure.config",
    "KilterError": "kilter.errors",
    "PreparedTree": "kilter.model.prepared",
    "SamplingSettings": "kilter.model.sampler",
    "ScoreConfig": "kilter.measure.config",
    "Scorer": "kilter.model.scorer",
    "SftConfig": "kilter.train.config",
    "SweepConfig": "kilter.train.grid",
    "TokenSequence": "kilter.tokens.sequence",
    "TokenTree": "kilter.tokens.tree",
    "TransformersSampler": "kilter.model.sampler",
    "WinRate": "kilter.measure.win_rate",
    "align": "kilter.train.align",
    "check": "kilter.measure.check",
    "compare": "kilter.measure.compare",
    "convert": "kilter.data.convert",
    "generate": "kilter.measure.generate",
    "judge_by_reward": "kilter.measure.judges",
    "load_scorer": "kilter.model.loading",
    "load_tokenizer": "kilter.model.loading",
    "pack": "kilter.tokens.packing",
    "read_demonstrations": "kilter.data.reading",
    "read_pairs": "kilter.data.reading",
    "read_prompts": "kilter.data.reading",
    "read_records": "kilter.data.reading",
    "score": "kilter.measure.score",
    "sft": "kilter.train.sft",
    "sweep": "kilter.train.sweep",
    "win_rate": "kilter.measure.win_rate",
}
_PACKAGES = ("divergence", "objectives", "ranking")


# Type checkers know the names from the imports above, and are to miss those that are not there.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name == "__version__":
            value = version("kilter")
        elif name in _PACKAGES:
            value = import_module(f"kilter.{name}")
        elif name in _MODULE_OF:
            value = getattr(import_module(_MODULE_OF[name]), name)
        else:
            raise AttributeError(f"module 'kilter' has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
