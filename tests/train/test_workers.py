"""Two workers make the gradients, the losses and the weights that one makes; real processes, started by torchrun."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from train.test_step import policy_and_reference

TESTS = Path(__file__).parents[1]


def torchrun(*arguments: object, workers: int = 2, check: bool = True) -> subprocess.CompletedProcess[str]:
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(workers)]
    paths = [str(TESTS), *(path for path in sys.path if path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        [sys.executable, *launch, *map(str, arguments)],
        env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert not check or done.returncode == 0, done.stderr[-4000:]
    return done


@pytest.fixture(scope="module")
def gradients(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    directory = tmp_path_factory.mktemp("gradients")
    from conftest import tiny_models

    for name, model in zip(("policy", "reference"), policy_and_reference(tiny_models(), spread=0.3), strict=True):
        model.save_pretrained(directory / name)
    torchrun(TESTS / "train" / "two_workers.py", "gradients", directory)
    return directory
