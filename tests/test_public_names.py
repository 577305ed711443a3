"""Claims about `import kilter`: what it offers, that all of it is there, and that it costs nothing until used."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest

import kilter

NAMES = [name for name in kilter.__all__ if name != "__version__"]


def names_for_type_checkers() -> dict[str, str]:
    """Each name that `kilter/__init__.py` imports for type checkers, and the module it is said to come from."""
    tree = ast.parse(Path(kilter.__file__).read_text(encoding="utf-8"))
    blocks = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: str(node.module) for node in imports for alias in node.names}


@pytest.mark.parametrize("name", NAMES)
def test_each_public_name_is_the_one_type_checkers_are_told_of(name: str) -> None:
    module = import_module(names_for_type_checkers()[name])
    assert getattr(kilter, name) is getattr(module, name)


def test_all_and_dir_name_the_whole_surface() -> None:
    assert sorted(kilter.__all__) == sorted([*names_for_type_checkers(), "__version__"])
    assert set(kilter.__all__) <= set(dir(kilter))


def test_the_version_is_the_installed_one() -> None:
    assert kilter.__version__ == version("kilter")


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'algin'"):
        getattr(kilter, "algin")  # noqa: B009 mypy knows that it is not there


def test_importing_kilter_loads_none_of_it() -> None:
    code = "import sys, kilter; print(*(m for m in sys.modules if m.split('.')[0] in ('torch', 'numpy', 'pydantic')))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == []
