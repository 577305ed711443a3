"""Claims about who imports whom, read from the source: the table of docs/architecture.md holds."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "kilter"

# Each package, or module beside them, and what it may import besides itself.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "divergence": {"errors"},
    "data": {"errors"},
    "ranking": {"data", "errors"},
    "tokens": {"data", "errors"},
    "model": {"tokens", "divergence", "errors"},
    "objectives": {"divergence", "errors"},
    "measure": {"data", "tokens", "model", "divergence", "errors"},
    "train": {"data", "tokens", "model", "divergence", "objectives", "measure", "errors"},
    "demo": {"data", "tokens", "model", "divergence", "objectives", "measure", "train", "errors"},
}
# Within divergence each part imports only itself and those before it.
DIVERGENCE = ("namespaces", "exact", "estimates", "families")
# The surface and the command line may import everything; nobody imports them.
OPEN = {"__init__", "__main__", "calculators", "cli", "commands", "flags", "instruments"}

# Modules whose import, with everything that it brings along, must be quick.
LIGHT = re.compile(
    r"kilter(\.cli|\.commands|\.calculators|\.instruments|\.flags|\.errors|\.(data|tokens|divergence|ranking)(\..+)?|\.\w+\.config|\.measure\.kl(_\w+)?|\.train\.machine)?"
)
HEAVY = {"torch", "transformers"}
# Modules beside light ones that are for PyTorch alone, and imported when its tensors come.
FOR_TORCH = {"kilter.divergence.exact.fused"}
# What only some light modules may load.
TEXT_LIBRARIES = {"tokenizers", "jinja2"}
READS_TEXT = {"kilter.tokens.rendering", "kilter.tokens.encoding"}

NO_PACKAGE = {"utils", "common", "helpers", "core"}


class Import(NamedTuple):
    """One import of a module: its line, and whether it happens when the importing module is loaded."""

    module: str
    line: int
    on_load: bool


def modules_of(source: Path) -> dict[str, Path]:
    """Every module below a package's directory, by its dotted name."""
    return {
        ".".join([source.name, *path.relative_to(source).with_suffix("").parts]).removesuffix(".__init__"): path
        for path in source.rglob("*.py")
    }


def imports_of(module: str, modules: dict[str, Path]) -> Iterator[Import]:
    """The modules that a module imports, wherever in its text; `from a import b` is of a.b where that is one."""
    path = modules[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]

    def walk(node: ast.AST, on_load: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, on_load) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            whole = {f"{origin}.{alias.name}" for alias in node.names}
            yield from (Import(name if name in modules else origin, node.lineno, on_load) for name in sorted(whole))
        elif isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "not TYPE_CHECKING"):
            runs = node.body if isinstance(node.test, ast.UnaryOp) else node.orelse
            for part in [*node.body, *node.orelse]:
                yield from walk(part, on_load and part in runs)
        else:
            in_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for child in ast.iter_child_nodes(node):
                yield from walk(child, on_load and not in_function)

    yield from walk(ast.parse(path.read_text(encoding="utf-8")), on_load=True)


def part_of(module: str) -> str:
    """The package, or module beside the packages, that a module of kilter belongs to."""
    _, *below = module.split(".")
    return below[0] if below else "__init__"


def forbidden_edges(source: Path) -> list[str]:
    """Imports between packages that the table does not allow."""
    modules = modules_of(source)
    found = []
    for module in modules:
        importer = part_of(module)
        for imported in imports_of(module, modules):
            to = part_of(imported.module)
            if imported.module.split(".")[0] != source.name or importer in OPEN or importer == to:
                continue
            if to not in MAY_IMPORT.get(importer, set()):
                found.append(f"{module}:{imported.line} imports {imported.module}")
    return found


def place_in_divergence(module: str) -> int | None:
    """Where a module stands in the order of divergence, whose surface comes last; None for any other module."""
    _, package, part = [*module.split("."), "", ""][:3]
    if package != "divergence":
        return None
    return DIVERGENCE.index(part) if part in DIVERGENCE else len(DIVERGENCE)


def upward_edges(source: Path) -> list[str]:
    """Imports within divergence that go against its order."""
    modules = modules_of(source)
    found = []
    for module in modules:
        importer = place_in_divergence(module)
        for imported in imports_of(module, modules) if importer is not None else ():
            to = place_in_divergence(imported.module)
            if importer is not None and to is not None and to > importer:
                found.append(f"{module}:{imported.line} imports {imported.module}")
    return found


def heavy_loads(source: Path) -> list[str]:
    """Light modules that load what they must not, each with the chain of imports that does."""
    modules = modules_of(source)
    imports = {module: list(imports_of(module, modules)) for module in modules}
    found = []
    for start in set(filter(LIGHT.fullmatch, modules)) - FOR_TORCH:
        chain_to = {start: start}
        pending = [start]
        while pending:
            module = pending.pop()
            forbidden = HEAVY if module in READS_TEXT else HEAVY | TEXT_LIBRARIES
            for imported in imports[module]:
                if not imported.on_load:
                    continue
                if imported.module.split(".")[0] in forbidden:
                    found.append(f"{chain_to[module]} imports {imported.module}")
                # Loading a.b.c loads a and a.b first.
                parents = imported.module.split(".")
                for name in (".".join(parents[: i + 1]) for i in range(len(parents))):
                    if name in modules and name not in chain_to:
                        chain_to[name] = f"{chain_to[module]} -> {name}"
                        pending.append(name)
    return found


def test_no_package_imports_what_the_table_forbids() -> None:
    assert forbidden_edges(SOURCE) == []


def test_within_divergence_each_part_imports_only_those_before_it() -> None:
    assert upward_edges(SOURCE) == []
    parts = {path.stem for path in (SOURCE / "divergence").iterdir() if path.stem not in ("__init__", "__pycache__")}
    assert parts == set(DIVERGENCE)


def test_light_modules_load_neither_torch_nor_transformers() -> None:
    assert heavy_loads(SOURCE) == []


def test_every_package_has_a_row_and_none_is_a_dumping_ground() -> None:
    parts = {part_of(module) for module in modules_of(SOURCE)}
    assert parts == set(MAY_IMPORT) | OPEN
    assert not {name for module in modules_of(SOURCE) for name in module.split(".")} & NO_PACKAGE


def test_the_documented_table_is_this_one() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ([^|]*) \|", text, flags=re.MULTILINE)
    documented = {name: set(re.findall(r"`(\w+)`", may_import)) for name, may_import in rows}
    assert {name: documented.get(name) for name in MAY_IMPORT} == MAY_IMPORT


@pytest.mark.parametrize(
    "text",
    [
        "from kilter.train import loop",
        "from kilter import train",
        "import kilter.train.loop as loop",
        "from ..train.loop import fit",
        "from kilter import fit",
        "def late() -> None:\n    import kilter.cli",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from kilter.train.loop import fit",
    ],
)
def test_a_forbidden_edge_is_found_however_it_is_written(text: str, tmp_path: Path) -> None:
    assert len(forbidden_edges(made_package(tmp_path, {"model/scorer.py": text}))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "from kilter.divergence.families import closed_forms",
        "from kilter.divergence import kl",
        "def late() -> None:\n    from kilter.divergence.estimates import counts",
    ],
)
def test_an_import_against_the_order_of_divergence_is_found(text: str, tmp_path: Path) -> None:
    packages = {f"divergence/{part}/__init__.py": "" for part in DIVERGENCE}
    source = made_package(tmp_path, packages | {"divergence/__init__.py": "", "divergence/exact/rows.py": text})
    assert len(upward_edges(source)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "import torch",
        "from torch import nn",
        "try:\n    import torch\nexcept ImportError: ...",
        "import kilter.model.head",
    ],
)
def test_a_heavy_import_is_found_also_behind_others(text: str, tmp_path: Path) -> None:
    assert len(heavy_loads(made_package(tmp_path, {"train/config.py": text, "model/head.py": "import torch.nn"}))) == 1


def test_a_late_import_and_one_for_types_load_nothing(tmp_path: Path) -> None:
    text = "if TYPE_CHECKING:\n    import torch\ndef late() -> None:\n    import torch"
    assert heavy_loads(made_package(tmp_path, {"train/config.py": text})) == []


def made_package(directory: Path, texts: dict[str, str]) -> Path:
    """A package called kilter with the given modules, and empty ones to import."""
    source = directory / "kilter"
    empty = ["__init__.py", "cli.py", "model/__init__.py", "train/__init__.py", "train/loop.py"]
    for name, text in (dict.fromkeys(empty, "") | texts).items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(text, encoding="utf-8")
    return source
