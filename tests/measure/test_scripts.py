"""Claims about scripts and languages; the oracle for letters is what Unicode calls each of them."""

from __future__ import annotations

import unicodedata

import pytest

from kilter.measure.languages import language_mix, sampled_places
from kilter.measure.scripts import RANGES, letters_by_script, script_mix

# How Unicode's names of letters begin.
NAMED = {
    "LATIN": "Latin", "FULLWIDTH LATIN": "Latin", "GREEK": "Greek", "CYRILLIC": "Cyrillic", "ARMENIAN": "Armenian",
    "HEBREW": "Hebrew", "ARABIC": "Arabic", "DEVANAGARI": "Devanagari", "BENGALI": "Bengali", "THAI": "Thai",
    "LAO": "Lao", "TIBETAN": "Tibetan", "MYANMAR": "Burmese", "GEORGIAN": "Georgian", "HANGUL": "Hangul",
    "ETHIOPIC": "Ethiopic", "KHMER": "Khmer", "HIRAGANA": "Kana", "KATAKANA": "Kana", "HALFWIDTH KATAKANA": "Kana",
    "CJK": "Han", "TAMIL": "other Indic", "TELUGU": "other Indic", "GUJARATI": "other Indic",
}  # fmt: skip


def counts(text: str) -> dict[str, int]:
    found = letters_by_script(text).tolist()
    assert sum(found) == len(text)
    return {name: count for name, count in zip(["none", *RANGES], found, strict=True) if count}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("abc, 12 Z.", {"Latin": 4, "none": 6}),
        ("café — naïve", {"Latin": 9, "none": 3}),
        ("Привет, мир", {"Cyrillic": 9, "none": 2}),
        ("مرحبا", {"Arabic": 5}),
        ("你好，world", {"Han": 2, "Latin": 5, "none": 1}),
        ("東京タワーへ", {"Han": 2, "Kana": 4}),
        ("한국어 ok 😀𠀀", {"Hangul": 3, "Latin": 2, "none": 3, "Han": 1}),
    ],
)
def test_letters_are_those_counted_by_eye(text: str, expected: dict[str, int]) -> None:
    assert counts(text) == expected


def test_letters_go_to_the_script_that_unicode_names() -> None:
    wrong = []
    for code in [*range(0x10000), *range(0x20000, 0x20100)]:
        character = chr(code)
        name = unicodedata.name(character, "")
        script = next((script for begins, script in NAMED.items() if name.startswith(begins + " ")), None)
        # Letters proper: marks and modifiers hang on others.
        letter = unicodedata.category(character) in ("Lu", "Ll", "Lt", "Lo")
        if script is not None and letter and counts(character) != {script: 1}:
            wrong.append(f"{code:04X} {name}: {counts(character)}")
    assert wrong == []


def test_shares_are_of_letters_and_rows_are_those_with_any() -> None:
    mix = script_mix(["abc", "ab 你", "12"])
    assert [(script.name, script.share, script.rows) for script in mix] == [("Latin", 5 / 6, 2), ("Han", 1 / 6, 1)]
    assert script_mix(["12", "", "?"]) == ()


def test_half_of_a_surrogate_pair_is_no_letter_and_no_error() -> None:
    assert counts("a\ud800") == {"Latin": 1, "none": 1}


def test_languages_of_plain_sentences_are_told_and_scraps_are_not() -> None:
    said = [
        "The weather has been lovely this week, and we went swimming in the lake.",
        "Das Wetter war diese Woche schön, und wir sind im See geschwommen.",
        "这个星期天气很好，我们去湖里游泳了，大家都很高兴，孩子们也玩得很开心。",
        "ok",
    ]
    mix = language_mix(said)
    assert mix.sample == 4
    assert {language.code: language.share for language in mix.mix} == {"en": 0.25, "de": 0.25, "zh": 0.25, "": 0.25}


def test_a_sample_is_spread_from_the_first_row_to_the_last() -> None:
    assert sampled_places(3, sample=5) == [0, 1, 2]
    places = sampled_places(1001, sample=11)
    assert places == list(range(0, 1001, 100))
