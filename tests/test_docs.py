"""Commands and Python of the README and the guides run as they are printed, on a small model and small files."""

from __future__ import annotations

import gzip
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from test_cli import KILTER

ROOT = Path(__file__).parents[1]
README, TRAINING = ROOT / "README.md", ROOT / "docs" / "guides" / "training.md"
# What is downloaded, or takes minutes, and what stands for it here.
SMALLER = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": "small-model",
    "--from-scratch 8m --epochs 2": "--from-scratch layers=1,hidden=16,heads=2,kv_heads=1,mlp=16,vocabulary=300",
    "--max-steps 250": "--max-steps 2",
}


def blocks(page: Path) -> list[tuple[str, str]]:
    """The language and the text of each block of code."""
    return re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[str]:
    printed = [smaller(text).replace("\\\n", " ") for language, text in blocks(page) if not language]
    return [line for text in printed for line in text.splitlines() if line.startswith("kilter ")]


def smaller(text: str) -> str:
    for printed, stand_in in SMALLER.items():
        text = text.replace(printed, stand_in)
    return text


def python(code: str, *arguments: str, directory: Path) -> str:
    command = [sys.executable, "-c", code, *arguments]
    ran = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


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
    printed = commands(README)
    assert len(printed) == 5
    for command in printed:
        if "--out runs/dpo" in command and (directory / "runs" / "dpo").exists():
            command += " --overwrite"  # the README has two examples of a run by that name
        python(KILTER, *shlex.split(command)[1:], directory=directory)


def test_python_runs(directory: Path) -> None:
    (code,) = (smaller(text) for language, text in blocks(README) if language == "python")
    python(code.replace("runs/dpo", "runs/python"), directory=directory)


def test_the_guide_to_training_runs_as_it_is_printed(directory: Path) -> None:
    here = directory / "guide"
    shutil.copytree(directory / "small-model", here / "runs" / "sft" / "model")
    shutil.copy(directory / "pairs.jsonl", here)
    printed = commands(TRAINING)
    assert len(printed) == 5
    for command in printed:
        command, _, file = command.partition(" > ")
        if "--resume" in command:
            shutil.rmtree(here / "runs" / "dpo" / "model")  # as if it had been stopped before its end
        said = python(KILTER, *shlex.split(command)[1:], directory=here)
        if file:
            (here / file).write_text(said)
