"""In which scripts a data set is written: letters counted by Unicode's ranges."""

from __future__ import annotations

import string
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

# The ranges of letters by script, as Unicode 16 has them; in scripts of India and its neighbours with vowel signs.
RANGES: dict[str, tuple[tuple[int, int], ...]] = {
    "Latin": (
        (0x41, 0x5A), (0x61, 0x7A), (0xAA, 0xAA), (0xBA, 0xBA), (0xC0, 0xD6), (0xD8, 0xF6), (0xF8, 0x2AF),
        (0x1D00, 0x1D25), (0x1D6B, 0x1D9A), (0x1E00, 0x1EFF), (0x2184, 0x2184), (0x2C60, 0x2C7F), (0xA720, 0xA7FF),
        (0xAB30, 0xAB64), (0xAB66, 0xAB68), (0xFB00, 0xFB06), (0xFF21, 0xFF3A), (0xFF41, 0xFF5A),
    ),
    "Greek": (
        (0x370, 0x373), (0x376, 0x377), (0x37B, 0x37D), (0x37F, 0x37F), (0x386, 0x386), (0x388, 0x3FF),
        (0x1D26, 0x1D2A), (0x1F00, 0x1FFF), (0xAB65, 0xAB65),
    ),
    "Cyrillic": (
        (0x400, 0x481), (0x48A, 0x52F), (0x1C80, 0x1C8F), (0x1D2B, 0x1D2B), (0x2DE0, 0x2DFF), (0xA640, 0xA69F),
    ),
    "Armenian": ((0x531, 0x556), (0x560, 0x588), (0xFB13, 0xFB17)),
    "Hebrew": ((0x5D0, 0x5F2), (0xFB1D, 0xFB4F)),
    "Arabic": (
        (0x620, 0x64A), (0x66E, 0x6D3), (0x6D5, 0x6D5), (0x6E5, 0x6EF), (0x6FA, 0x6FF), (0x750, 0x77F),
        (0x870, 0x88E), (0x8A0, 0x8C9), (0xFB50, 0xFDFF), (0xFE70, 0xFEFC),
    ),
    "Devanagari": ((0x900, 0x963), (0x971, 0x97F), (0xA8F2, 0xA8FE)),
    "Bengali": ((0x980, 0x9E3), (0x9F0, 0x9F1), (0x9FC, 0x9FC)),
    "other Indic": (
        (0xA01, 0xA65), (0xA70, 0xAE5), (0xAF9, 0xB65), (0xB71, 0xB71), (0xB82, 0xBD7), (0xC00, 0xC65),
        (0xC80, 0xCE5), (0xCF1, 0xD65), (0xD7A, 0xDE5),
    ),
    "Thai": ((0xE01, 0xE3A), (0xE40, 0xE4E)),
    "Lao": ((0xE81, 0xECE), (0xEDC, 0xEDF)),
    "Tibetan": ((0xF00, 0xF00), (0xF40, 0xFBC)),
    "Burmese": ((0x1000, 0x103F), (0x1050, 0x108F), (0xA9E0, 0xA9EF), (0xA9FA, 0xA9FE), (0xAA60, 0xAA7F)),
    "Georgian": ((0x10A0, 0x10FF), (0x1C90, 0x1CBF), (0x2D00, 0x2D2D)),
    "Hangul": ((0x1100, 0x11FF), (0x3131, 0x318E), (0xA960, 0xA97C), (0xAC00, 0xD7A3), (0xD7B0, 0xD7FB)),
    "Ethiopic": ((0x1200, 0x135A), (0x1380, 0x138F), (0x2D80, 0x2DDE), (0xAB01, 0xAB2E)),
    "Khmer": ((0x1780, 0x17D3), (0x17DC, 0x17DC)),
    "Mongolian": ((0x1820, 0x18AA),),
    "Kana": (
        (0x3041, 0x3096), (0x309D, 0x309F), (0x30A1, 0x30FA), (0x30FC, 0x30FF), (0x31F0, 0x31FF), (0xFF66, 0xFF9D),
    ),
    "Han": ((0x3005, 0x3007), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAD9), (0x20000, 0x323AF)),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Script:
    """One script: its share of all letters, and in how many rows it is met."""

    name: str
    share: float
    rows: int


def script_mix(texts: Iterable[str]) -> tuple[Script, ...]:
    """The scripts of texts, one a row, the commonest first; empty where there are no letters."""
    letters = np.zeros(1 + len(RANGES), np.int64)
    rows = np.zeros_like(letters)
    for text in texts:
        found = letters_by_script(text)
        letters += found
        rows += found > 0
    total = max(int(letters[1:].sum()), 1)
    mix = [Script(name, int(letters[i]) / total, int(rows[i])) for i, name in enumerate(RANGES, 1) if letters[i]]
    return tuple(sorted(mix, key=lambda script: -script.share))


def letters_by_script(text: str) -> NDArray[np.int64]:
    """Letters of each script, in the order of `RANGES`, after the number of all other characters."""
    if text.isascii():
        counts = np.zeros(1 + len(RANGES), np.int64)
        counts[1] = len(text.encode().translate(None, _NO_ASCII_LETTERS))
        counts[0] = len(text) - counts[1]
        return counts
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    return np.bincount(_script_of_code()[codes], minlength=1 + len(RANGES))


_NO_ASCII_LETTERS = bytes(sorted(set(range(128)) - set(string.ascii_letters.encode())))


@cache
def _script_of_code() -> NDArray[np.uint8]:
    table = np.zeros(0x110000, np.uint8)
    for place, ranges in enumerate(RANGES.values(), 1):
        for low, high in ranges:
            table[low : high + 1] = place
    return table
