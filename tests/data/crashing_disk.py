"""A disk that crashes and fails on demand.

`recorded` notes every operation that changes a directory tree: each is one at which a process may be killed, the power
may go, or the system may refuse. `Disk` repeats the operations on a model of the disk. What POSIX promises after a loss
of power is only what was synced: a file's contents by its own fsync, a name by that of its directory. So each file and
directory of the model keeps its states since its last fsync, and a loss of power may leave it in any one of them.
"""

from __future__ import annotations

import builtins
import io
import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

# Names and contents, as a disk may have them after a crash.
Image = dict[str, "bytes | Image"]


@dataclass(frozen=True)
class Operation:
    """One change, by the numbers of the inodes that it touches; `path` is for people, relative to the root."""

    kind: str  # make, make directory, write, truncate, sync, rename, remove; or mark, which is none
    path: str
    inode: int = 0
    parent: int = 0
    other: int = 0
    name: str = ""
    new_name: str = ""
    offset: int = 0
    data: bytes = b""
    note: Any = None


@dataclass
class Recording:
    """The disk as it was, and what was done to it."""

    start: Disk
    operations: list[Operation] = field(default_factory=list)

    def mark(self, note: object) -> None:
        """Note what the program has been told by now."""
        self.operations.append(Operation("mark", "", note=note))


Before = Callable[[str, str], None]


@contextmanager
def recorded(root: Path, before: Before = lambda kind, path: None) -> Iterator[Recording]:
    """Record what Python does below `root`; nothing is really synced.

    `before` is told of each operation, opening and closing among them, and may raise what the system would.
    Each write comes in two halves, that a crash may come between.
    """
    root = Path(os.path.realpath(root))
    recording = Recording(Disk(root))
    note = recording.operations.append
    real = {name: getattr(os, name) for name in ("mkdir", "rename", "unlink", "rmdir", "fsync", "truncate")}
    real_open = io.open
    names: dict[int, str] = {}

    def inside(path: Any, directory: int | None = None) -> str | None:
        """The path relative to the root, or None for what lies elsewhere."""
        if isinstance(path, int):
            return names.get(os.fstat(path).st_ino)
        above = root / names.get(os.fstat(directory).st_ino, "/") if directory is not None else Path.cwd()
        whole = above / os.fspath(path)
        with suppress(OSError):
            whole = Path(os.path.realpath(whole.parent)) / whole.name
        return str(whole.relative_to(root)) if whole.is_relative_to(root) else None

    def named(path: str) -> tuple[int, str]:
        """The number of the directory that holds a path, and the path's name there."""
        whole = root / path
        return whole.parent.stat().st_ino, whole.name

    def known(path: str) -> int:
        number = (root / path).lstat().st_ino
        names[number] = path
        return number

    def mkdir(path: Any, mode: int = 0o777, **rest: Any) -> None:
        if (place := inside(path)) is None:
            real["mkdir"](path, mode, **rest)
            return
        before("make directory", place)
        real["mkdir"](path, mode, **rest)
        parent, name = named(place)
        note(Operation("make directory", place, known(place), parent, name=name))

    def rename(source: Any, target: Any, **rest: Any) -> None:
        if (place := inside(source)) is None:
            real["rename"](source, target, **rest)
            return
        new_place = inside(target)
        assert new_place is not None
        before("rename", place)
        (parent, name), (other, new_name) = named(place), named(new_place)
        real["rename"](source, target, **rest)
        for number, former in names.items():
            if Path(former).is_relative_to(place):
                names[number] = str(new_place / Path(former).relative_to(place))
        note(Operation("rename", place, parent=parent, other=other, name=name, new_name=new_name))

    def remove(how: str) -> Callable[..., None]:
        def removed(path: Any, *, dir_fd: int | None = None) -> None:
            if (place := inside(path, dir_fd)) is None:
                real[how](path, dir_fd=dir_fd)
                return
            before("remove", place)
            real[how](path, dir_fd=dir_fd)
            parent, name = named(place)
            note(Operation("remove", place, parent=parent, name=name))

        return removed

    def fsync(handle: int) -> None:
        number = os.fstat(handle).st_ino
        if (place := names.get(number)) is None:
            real["fsync"](handle)
            return
        before("sync", place)
        note(Operation("sync", place, number))

    def truncate(path: Any, length: int) -> None:
        if (place := inside(path)) is None:
            real["truncate"](path, length)
            return
        before("truncate", place)
        real["truncate"](path, length)
        note(Operation("truncate", place, known(place), offset=length))

    class Written(io.FileIO):
        """An open file whose writes are noted."""

        place = ""

        def write(self, data: Any) -> int:
            whole = bytes(data)
            for half in (whole[: len(whole) // 2], whole[len(whole) // 2 :]):
                if half:
                    before("write", self.place)
                    super().write(half)
                    number = os.fstat(self.fileno()).st_ino
                    note(Operation("write", self.place, number, offset=self.tell() - len(half), data=half))
            return len(whole)

        def close(self) -> None:
            try:
                if not self.closed:
                    before("close", self.place)
            finally:
                super().close()

    def opened(
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        *rest: Any,
        **more: Any,
    ) -> Any:
        writes = not isinstance(file, int) and bool(set(mode) & set("wax"))
        if not writes or (place := inside(file)) is None:
            return real_open(file, mode, buffering, encoding, errors, newline, *rest, **more)
        existed = os.path.lexists(file)
        before("open", place)
        raw = Written(file, "".join(c for c in mode if c not in "bt"))
        raw.place = place
        if not existed:
            parent, name = named(place)
            note(Operation("make", place, known(place), parent, name=name))
        elif "w" in mode:
            note(Operation("truncate", place, known(place)))
        binary = io.BufferedWriter(raw)
        return binary if "b" in mode else io.TextIOWrapper(binary, encoding, errors, newline, buffering == 1)

    for entry in [root, *root.rglob("*")]:
        known(str(entry.relative_to(root)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "mkdir", mkdir)
        patch.setattr(os, "rename", rename)
        patch.setattr(os, "replace", rename)
        patch.setattr(os, "unlink", remove("unlink"))
        patch.setattr(os, "remove", remove("unlink"))
        patch.setattr(os, "rmdir", remove("rmdir"))
        patch.setattr(os, "fsync", fsync)
        patch.setattr(os, "truncate", truncate)
        patch.setattr(io, "open", opened)
        patch.setattr(builtins, "open", opened)
        yield recording


@dataclass(eq=False)
class Node:
    """A file or a directory: its state when it was last synced, and each one since."""

    states: list[Any]  # bytes, or nodes by name

    @property
    def is_directory(self) -> bool:
        return isinstance(self.states[0], dict)


class Disk:
    """The model of a disk: all that lies below `root` at the beginning is safely there."""

    def __init__(self, root: Path) -> None:
        self.nodes: dict[int, Node] = {}
        self.root = self._read(root)

    def _read(self, path: Path) -> Node:
        if path.is_dir():
            node = Node([{entry.name: self._read(entry) for entry in path.iterdir()}])
        else:
            node = Node([path.read_bytes()])
        self.nodes[path.stat().st_ino] = node
        return node

    def moved_to(self, root: Path) -> None:
        """Take the numbers of inodes from a copy of the tree as it stands, states not yet synced being kept."""
        self.nodes = {}

        def walk(node: Node, path: Path) -> None:
            self.nodes[path.stat().st_ino] = node
            if node.is_directory:
                for name, child in node.states[-1].items():
                    walk(child, path / name)

        walk(self.root, root)

    def do(self, operation: Operation) -> None:
        """Repeat what was recorded."""
        match operation.kind:
            case "make" | "make directory":
                node = Node([b"" if operation.kind == "make" else {}])
                self.nodes[operation.inode] = node
                self._change(operation.parent, {operation.name: node})
            case "write" | "truncate":
                states = self.nodes[operation.inode].states
                end = operation.offset + len(operation.data)
                rest = b"" if operation.kind == "truncate" else states[-1][end:]
                states.append(states[-1][: operation.offset].ljust(operation.offset, b"\0") + operation.data + rest)
            case "sync":
                node = self.nodes[operation.inode]
                node.states = node.states[-1:]
            case "rename":
                node = self.nodes[operation.parent].states[-1][operation.name]
                assert operation.parent == operation.other
                self._change(operation.parent, {operation.new_name: node}, gone=operation.name)
            case "remove":
                self._change(operation.parent, {}, gone=operation.name)

    def _change(self, directory: int, entries: dict[str, Node], gone: str | None = None) -> None:
        states = self.nodes[directory].states
        states.append({name: node for name, node in states[-1].items() if name != gone} | entries)

    def image(self, choose: Callable[[Node], Any]) -> Image:
        """The tree that a crash leaves which leaves each file and directory in the state that `choose` takes."""

        def seen(node: Node) -> Any:
            state = choose(node)
            return {name: seen(child) for name, child in state.items()} if node.is_directory else state

        tree: Image = seen(self.root)
        return tree

    def images(self, seeds: Sequence[int]) -> Iterator[tuple[str, Image]]:
        """Trees that a crash may leave now, each with what has happened."""
        for what, choose in CRASHES.items():
            yield what, self.image(choose)
        for seed in seeds:
            draw = random.Random(seed)
            yield f"power lost, mixture {seed}", self.image(lambda node: draw.choice(node.states))  # noqa: B023


def _zeros_for_contents(node: Node) -> Any:
    synced = len(node.states) == 1
    return node.states[-1] if node.is_directory or synced else bytes(len(node.states[-1]))


CRASHES: dict[str, Callable[[Node], Any]] = {
    "killed": lambda node: node.states[-1],
    "power lost, with all that was not synced": lambda node: node.states[0],
    "power lost, names before contents": lambda node: node.states[-1 if node.is_directory else 0],
    "power lost, names and lengths before contents": _zeros_for_contents,
    "power lost, contents before names": lambda node: node.states[0 if node.is_directory else -1],
}


def lay_out(image: Image, directory: Path) -> None:
    """Write an image's files and directories."""
    directory.mkdir()
    for name, content in image.items():
        if isinstance(content, bytes):
            (directory / name).write_bytes(content)
        else:
            lay_out(content, directory / name)


def fail_at(count: int, number: int, kinds: Sequence[str], *, lasting: bool) -> Before:
    """An operation that is refused with an error number: the one after `count` of those kinds; all after it too,
    if it is lasting."""
    seen = 0

    def before(kind: str, path: str) -> None:
        nonlocal seen
        if kind in kinds:
            seen += 1
            if seen == count + 1 or (lasting and seen > count):
                raise OSError(number, os.strerror(number), path)

    return before
