"""The README's commands and its Python run as they are printed, on a small model and small files."""

from __future__ import annotations

import gzip
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from test_cli import KILTER

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
# What is downloaded, or takes minutes, and what stands for it here.
SMALLER = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": "small-model",
    "--from-scratch 8m --epochs 2": "--from-scratch layers=1,hidden=16,heads=2,kv_heads=1,mlp=16,vocabulary=300",
    "--max-steps 250": "--max-steps 2",
}


def smaller(text: str) -> str:
    for printed, stand_in in SMALLER.items():
        text = text.replace(printed, stand_in)
    return text


def python(code: str, *arguments: str, directory: Path) -> None:
    command = [sys.executable, "-c", code, *arguments]
    ran = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("readme")
    pairs = [{"prompt": f"Letter {i}.", "chosen": f" b{i}", "rejected": f" {i}"} for i in range(216)]
    (directory / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    with gzip.open(directory / "hh_harmless_test.jsonl.gz", "wt") as stream:
        for i in range(316):
            sides = {side: f"\n\nHuman: Hi {i}\n\nAssistant: {side} {i}" for side in ("chosen", "rejected")}
            stream.write(json.dumps(sides) + "\n")
    scratch = "layers=1,hidden=16,heads=2,kv_heads=1,mlp=16,vocabulary=300"
    python(KILTER, "sft", "--from-scratch", scratch, "--data", "pairs.jsonl", "--out", "start", directory=directory)
    (directory / "start" / "model").rename(directory / "small-model")
    return directory


def test_every_stand_in_stands_for_something_printed() -> None:
    assert all(printed in README.read_text(encoding="utf-8") for printed in SMALLER)


def test_commands_run_in_the_order_they_are_printed(directory: Path) -> None:
    blocks = [smaller(text).replace("\\\n", " ") for language, text in BLOCKS if not language]
    commands = [line for text in blocks for line in text.splitlines() if line.startswith("kilter ")]
    assert len(commands) == 5
    for command in commands:
        if "--out runs/dpo" in command and (directory / "runs" / "dpo").exists():
            command += " --overwrite"  # the README has two examples of a run by that name
        python(KILTER, *shlex.split(command)[1:], directory=directory)


def test_python_runs(directory: Path) -> None:
    (code,) = (smaller(text) for language, text in BLOCKS if language == "python")
    python(code.replace("runs/dpo", "runs/python"), directory=directory)
