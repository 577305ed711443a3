"""Claims about process-wide settings."""

from __future__ import annotations

import os
import sys

import pytest

from kilter.train import machine


@pytest.mark.skipif(sys.platform != "linux", reason="settings of glibc and libgomp")
@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "5"}, "5"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)],
    ids=["nothing", "a spin count", "a policy"],
)
def test_what_the_user_set_stands(given: dict[str, str], spins: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", dict(given))
    monkeypatch.setattr("ctypes.CDLL", lambda _: (_ for _ in ()).throw(OSError))
    machine.settle()
    assert os.environ.get("GOMP_SPINCOUNT") == spins
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == "1"
