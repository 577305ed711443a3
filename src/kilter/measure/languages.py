"""In which languages a data set is written, told from a sample of its rows by py3langid."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SAMPLE = 2000  # rows
READ = 1000  # characters of a row
SHORTEST, SUREST = 20, 0.7  # fewer characters, or a lower probability, are no answer


@dataclass(frozen=True, slots=True)
class Language:
    """One language, by its ISO 639-1 code; "" for rows too short or too mixed to tell."""

    code: str
    share: float


@dataclass(frozen=True, slots=True)
class Languages:
    """The commonest first, and of how many rows."""

    sample: int
    mix: tuple[Language, ...]


def sampled_places(rows: int, sample: int = SAMPLE) -> list[int]:
    """Places of at most so many rows, evenly spread."""
    if rows <= sample:
        return list(range(rows))
    return [int(place) for place in np.linspace(0, rows - 1, sample)]


def language_mix(texts: Sequence[str]) -> Languages:
    """The languages of texts, one a row."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    codes: Counter[str] = Counter()
    for text in texts:
        text = text[:READ].strip()
        code, probability = identifier.classify(text) if len(text) >= SHORTEST else ("", 0.0)
        codes[code if probability >= SUREST else ""] += 1
    return Languages(len(texts), tuple(Language(code, count / len(texts)) for code, count in codes.most_common()))
