"""Files of comparisons, read by DuckDB out of core: CSV, TSV, JSON, JSON lines, Parquet, Arrow; packed ones too."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from kilter.data.files import DataFile, listed
from kilter.errors import DataError
from kilter.ranking.reading.sources import Predicate, Row, Source, connected, first_row

if TYPE_CHECKING:
    import duckdb

SUFFIXES = {
    ".csv": "CSV",
    ".tsv": "TSV",
    ".json": "JSON",
    ".jsonl": "JSON",
    ".ndjson": "JSON",
    ".parquet": "Parquet",
    ".arrow": "Arrow",
    ".feather": "Arrow",
}
MAGIC = {b"PAR1": "Parquet", b"ARROW1": "Arrow", b"\xff\xff\xff\xff": "Arrow stream"}
PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
HEAD = 1 << 12
LONGEST_HEADER = 1 << 20
SEPARATORS = (",", ";", "\t", "|")


def source_of_files(paths: Sequence[str | Path]) -> Source:
    """Files of one kind and with the same columns, as one table; globs stand for all that they match.

    Raises DataError where there is no such file, or it is of no kind that is known.
    """
    import duckdb
    import narwhals as nw

    files = listed(list(paths))
    held: list[Any] = []
    there = [str(_spooled(held) if file.path is None else file.path) for file in files]
    kinds = {_kind(Path(path), file.name) for path, file in zip(there, files, strict=True)}
    name = files[0].name if len(files) == 1 else f"{files[0].name} and {len(files) - 1:,} more"
    if len(kinds) > 1:
        found = ", ".join(sorted(" ".join(filter(None, kind)) for kind in kinds))
        raise DataError(f"{name}: are of several kinds ({found}); expected files of one kind, packed alike")
    ((kind, packed),) = kinds
    connection = connected()
    try:
        relation = READERS[kind](connection, there, packed)
    except duckdb.Error as error:
        raise DataError(f"{name}: {told(error)}") from None
    named = [DataFile(file.name, Path(path)) for path, file in zip(there, files, strict=True)]

    def find(columns: Sequence[str], holds: Predicate) -> str:
        return first_row(_numbered(named), holds)

    return Source(name, nw.from_native(relation), find, (connection, *held))


def told(error: Exception) -> str:
    """What DuckDB says of a file, in a line."""
    said = " ".join(str(error).split("Possible")[0].split())
    return f"cannot be read as it is ({said[:400]}); mend the file"


def _separated(connection: duckdb.DuckDBPyConnection, paths: list[str], packed: str) -> duckdb.DuckDBPyRelation:
    """CSV and TSV, every cell as text: what it means is decided for each text once, not guessed from some rows."""
    headers = [_header(Path(path), packed) for path in paths]
    names, separator = headers[0]
    for path, (other, _) in zip(paths, headers, strict=True):
        if other != names:
            raise DataError(
                f"{path}: has the columns {', '.join(other)}, and {paths[0]} {', '.join(names)}; expected the same"
            )
    columns = ", ".join(f"{_quoted(name)}: 'VARCHAR'" for name in names)
    return connection.sql(
        f"SELECT * FROM read_csv({_all_quoted(paths)}, auto_detect = false, header = true, columns = {{{columns}}}, "
        f"delim = '{separator}', quote = '\"', escape = '\"', compression = '{packed or 'none'}')"
    )


def _header(path: Path, packed: str) -> tuple[list[str], str]:
    """The names of a file's columns, and what separates them: what the header has most of."""
    with _unpacked(path, packed) as stream, io.TextIOWrapper(stream, "utf-8-sig", "replace", newline="") as lines:
        first = lines.readline(LONGEST_HEADER)
        separator = "\t" if path.name.lower().removesuffix(".gz").endswith(".tsv") else max(SEPARATORS, key=first.count)
        names = next(csv.reader(itertools.chain([first], lines), delimiter=separator), [])
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice or not all(name.strip() for name in names):
        raise DataError(
            f"{path}:1: the header {f'names {twice[0]} twice' if twice else 'has a column without a name'}; expected a "
            "name for each column, each once"
        )
    return names, separator


def _all_quoted(paths: Sequence[str]) -> str:
    # Not as parameters, for which DuckDB loads pandas.
    return f"[{', '.join(map(_quoted, paths))}]"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _json(connection: duckdb.DuckDBPyConnection, paths: list[str], packed: str) -> duckdb.DuckDBPyRelation:
    return connection.sql(
        f"SELECT * FROM read_json({_all_quoted(paths)}, compression = '{packed or 'uncompressed'}', "
        "union_by_name = true, sample_size = 100000)"
    )


def _parquet(connection: duckdb.DuckDBPyConnection, paths: list[str], packed: str) -> duckdb.DuckDBPyRelation:
    if packed:
        raise DataError(f"{paths[0]}: is Parquet packed by {packed}; unpack it first (Parquet packs its own columns)")
    return connection.read_parquet(paths)


def _arrow(connection: duckdb.DuckDBPyConnection, paths: list[str], packed: str) -> duckdb.DuckDBPyRelation:
    import pyarrow.dataset as ds

    return connection.from_arrow(ds.dataset(paths, format="ipc"))


def _arrow_stream(connection: duckdb.DuckDBPyConnection, paths: list[str], packed: str) -> duckdb.DuckDBPyRelation:
    import pyarrow as pa

    return connection.from_arrow(pa.concat_tables([pa.ipc.open_stream(path).read_all() for path in paths]))


READERS: Mapping[str, Callable[[Any, list[str], str], Any]] = {
    "CSV": _separated,
    "TSV": _separated,
    "JSON": _json,
    "Parquet": _parquet,
    "Arrow": _arrow,
    "Arrow stream": _arrow_stream,
}


def _kind(path: Path, name: str) -> tuple[str, str]:
    """What a file is, and by what it is packed: by its first bytes where they can say, else by its name."""
    from kilter.data.files import opened

    if not path.is_file():
        with opened(DataFile(name, path)):  # which says what is wrong with it
            raise DataError(f"{name}: is no file")
    with path.open("rb") as stream:
        head = stream.read(HEAD)
    packed = next((kind for magic, kind in PACKED.items() if head.startswith(magic)), "")
    with _unpacked(path, packed) as unpacked:
        try:
            head = unpacked.read(HEAD)
        except (OSError, EOFError) as error:
            raise DataError(f"{name}: is damaged or truncated {packed} ({error}); write it again") from None
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in (".gz", ".zst")]
    by_name = SUFFIXES.get(suffixes[-1] if suffixes else "")
    by_bytes = next((kind for magic, kind in MAGIC.items() if head.startswith(magic)), None)
    if not head:
        raise DataError(f"{name}: is empty; expected rows")
    if (kind := by_bytes or by_name or _looks_like(head)) is None:
        raise DataError(f"{name}: is of no kind that is known; expected a name that ends in {', '.join(SUFFIXES)}")
    return kind, packed


def _unpacked(path: Path, packed: str) -> BinaryIO:
    if packed == "gzip":
        return gzip.open(path)  # type: ignore[return-value]
    if packed == "zstd":
        import zstandard

        return zstandard.open(path, "rb")  # type: ignore[no-any-return]
    return path.open("rb")


def _looks_like(head: bytes) -> str | None:
    """What a file without a name that says it begins like."""
    first = head.lstrip(b"\xef\xbb\xbf").lstrip().split(b"\n")[0]
    if first.startswith((b"{", b"[")):
        return "JSON"
    return "TSV" if b"\t" in first else "CSV" if b"," in first else None


def _spooled(held: list[Any]) -> Path:
    """Standard input as a file, for it can be read once."""
    if sys.stdin is None or sys.stdin.isatty():
        raise DataError("standard input: is a terminal; expected rows; name a file, or give one by `<`")
    spool = tempfile.NamedTemporaryFile(prefix="kilter-")  # noqa: SIM115 it lives as long as the source
    held.append(spool)
    shutil.copyfileobj(sys.stdin.buffer, spool)
    spool.flush()
    return Path(spool.name)


def _numbered(files: Sequence[DataFile]) -> Iterator[tuple[str, Row]]:
    """The rows of files one by one, with their lines, or their places where rows are not lines."""
    from kilter.data.containers import container_of
    from kilter.data.files import opened
    from kilter.data.formats import RowError

    for file in files:
        with opened(file) as open_file, ExitStack() as stack:
            container = container_of(open_file, ())
            for origin, row in container.rows(open_file, stack):
                if not isinstance(row, RowError):
                    where = f"{file.name}: row {origin.line:,}" if container.numbered else f"{file.name}:{origin.line}"
                    yield where, row
