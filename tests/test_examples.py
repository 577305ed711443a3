"""The examples run as they are printed, and say what they should."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def output_of(name: str) -> str:
    command = [sys.executable, "-W", "error", str(EXAMPLES / name)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout + ran.stderr


def number_after(label: str, text: str) -> float:
    found = re.search(re.escape(label) + r"\s*([-+\d.]+\d)", text)
    assert found is not None, text
    return float(found[1])


def test_the_alignment_example_prefers_better_answers_on_held_out_pairs() -> None:
    text = output_of("align_in_python.py")
    assert "token KL(policy, reference)" in text
    assert number_after("held-out accuracy:", text) > 0.8


def test_the_tree_example_starts_at_log_2_with_a_gradient() -> None:
    text = output_of("score_a_tree.py")
    assert "15 tokens in 10 nodes" in text
    assert number_after("loss", text) == pytest.approx(0.6931)
    assert number_after("gradient norm", text) > 0


def test_each_example_has_a_test() -> None:
    tested = set(re.findall(r'output_of\("(\w+\.py)"\)', Path(__file__).read_text(encoding="utf-8")))
    assert tested == {path.name for path in EXAMPLES.glob("*.py")}
