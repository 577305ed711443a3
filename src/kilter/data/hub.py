"""Data sets on the hub: `hf://datasets/ORG/NAME@REVISION/GLOB`, fetched at one commit into the hub's own cache.

Without a glob: the files of the train split, known by `train` in their names. Without a revision: the newest commit,
and the names of the files say which that was.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

from kilter.data.formats import printable
from kilter.errors import DataError

# pathlib makes one slash of two.
_SCHEME = re.compile(r"hf:/{1,2}(?=[^/])")
_DATA_SET = re.compile(
    r"datasets/(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>refs/(?:convert|pr)/[^/]+|[^/]+))?(?:/(?P<glob>.+))?/?"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHARD = re.compile(r"[-_.]?\d+-of-\d+(-[0-9a-f]{8,})?")
_READABLE = re.compile(r"\.(jsonl|json|ndjson|csv|tsv|parquet|arrow|feather)(\.gz|\.zst)?$")
# The hub has it as a file of the repository; it holds no rows.
_NO_ROWS = re.compile(r"(^|/)(dataset_infos?|state|config|package)\.json$")

SECONDS = 10  # to wait for an answer about a data set
SHOWN_FILES = 12

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a data set: its name with the commit, where it lies in the cache, and a note on the commit."""

    name: str
    path: Path
    note: str


def is_on_hub(name: str) -> bool:
    """Whether a name is of something on the hub."""
    return _SCHEME.match(name) is not None


def fetched(name: str) -> list[HubFile]:
    """Return the files that a name of a data set stands for, after fetching those that the cache has not.

    Raises DataError where there are none, it is not clear which are meant, or the hub cannot be asked.
    """
    parts = _DATA_SET.fullmatch(_SCHEME.sub("", name, count=1))
    if parts is None:
        raise DataError(
            f"{printable(name, 300)}: is no data set's name; expected hf://datasets/ORG/NAME, "
            "with @REVISION and /FILES (a path or a glob) after it where wanted"
        )
    repository, glob = parts["repository"], parts["glob"] or ""
    revision = None if parts["revision"] is None else unquote(parts["revision"])
    asked = f"hf://datasets/{repository}" + (f"@{parts['revision']}" if parts["revision"] else "")
    hub = _Hub(repository, asked)
    pinned = revision is not None and bool(_COMMIT.fullmatch(revision))
    if revision is not None and pinned and (path := hub.cached(glob, revision)) is not None:
        return [hub.file(glob, revision, path, "")]  # nothing to ask the hub
    commit, files = hub.files(revision)
    chosen = _matching(files, glob, asked) if glob else _train_split(files, asked)
    note = "" if pinned else f"the newest commit of {revision or 'its main branch'}; name it as here to pin it"
    return [hub.file(file, commit, hub.download(file, commit), note) for file in chosen]


class _Hub:
    """What is asked of the hub about one data set, each failure told in a sentence."""

    def __init__(self, repository: str, asked: str) -> None:
        try:
            import huggingface_hub
        except ImportError:
            raise DataError(
                f"{asked}: is on the hub, and huggingface_hub is not installed; pip install 'kilter[hub]', "
                "or download the files and name those"
            ) from None
        self._library = huggingface_hub
        self._repository = repository
        self._asked = asked

    def files(self, revision: str | None) -> tuple[str, list[str]]:
        """The commit that a revision is now, and the paths of its files."""
        api = self._library.HfApi()
        found: Any = self._told(lambda: api.dataset_info(self._repository, revision=revision, timeout=SECONDS))
        return str(found.sha), sorted(sibling.rfilename for sibling in found.siblings or [])

    def cached(self, file: str, commit: str) -> Path | None:
        """Where a file of a commit lies in the cache; None if it does not, or is no file but a glob."""
        from huggingface_hub import try_to_load_from_cache

        path = try_to_load_from_cache(self._repository, file, revision=commit, repo_type="dataset") if file else None
        return Path(path) if isinstance(path, str) and Path(path).is_file() else None

    def download(self, file: str, commit: str) -> Path:
        return Path(
            self._told(
                lambda: self._library.hf_hub_download(
                    self._repository, file, repo_type="dataset", revision=commit, etag_timeout=SECONDS
                ),
                file,
            )
        )

    def file(self, file: str, commit: str, path: Path, note: str) -> HubFile:
        return HubFile(f"hf://datasets/{self._repository}@{commit}/{printable(file, 300)}", path, note)

    def _told(self, ask: Callable[[], T], file: str = "") -> T:
        from huggingface_hub import errors

        try:
            return ask()
        except errors.GatedRepoError:
            problem = "its owner asks you to accept terms first; accept them on its page, then run `hf auth login`"
        except errors.RepositoryNotFoundError:
            problem = "there is no such data set, or it is private; check the name, or run `hf auth login`"
        except errors.RevisionNotFoundError:
            problem = "the data set has no such revision; name a branch, a tag or a commit that it has"
        except errors.LocalEntryNotFoundError:
            problem = f"{file} is not in the cache and the hub cannot be reached; check the network"
        except errors.EntryNotFoundError:
            problem = f"has no file {printable(file, 300)}; check the path"
        except errors.OfflineModeIsEnabled:
            problem = (
                "the hub may not be asked, as HF_HUB_OFFLINE is set; unset it, or name a file in the cache by its "
                "commit: @COMMIT/PATH"
            )
        except errors.HFValidationError as error:
            problem = f"is no name that the hub has: {_line(error)}; check it"
        except ValueError:
            problem = "something else answers in the hub's place; check the network, or HF_ENDPOINT"
        except errors.HfHubHTTPError as error:
            problem = f"the hub answers: {_line(error)}; try again later"
        except OSError as error:
            problem = f"cannot be fetched: {_line(error)}; check the network and the space on disk"
        except Exception as error:
            # The hub's library tells of a network in the words of whichever HTTP library it was built on.
            if not type(error).__module__.startswith(("httpx", "httpcore", "requests", "urllib3")):
                raise
            problem = f"the hub cannot be reached: {_line(error)}; check the network, or name files on disk"
        raise DataError(f"{self._asked}: {problem}")


def _line(error: Exception) -> str:
    return printable(" ".join(str(error).split()) or type(error).__name__, 200)


def _matching(files: Sequence[str], glob: str, asked: str) -> list[str]:
    pattern = re.compile("".join(map(_as_expression, re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]]+\])", glob))))
    matching = [file for file in files if file == glob or pattern.fullmatch(file)]
    if not matching:
        raise DataError(f"{asked}: has no file {printable(glob, 300)}; {_there_are(files)}")
    return matching


def _as_expression(piece: str) -> str:
    """A piece of a glob as a regular expression; as in a shell, `*` stops at a slash and `**` does not."""
    if piece.startswith("[") and piece.endswith("]"):
        return ("[^/" if piece[1] in "!^" else "[") + re.escape(piece[1:-1].lstrip("!^")).replace(r"\-", "-") + "]"
    return {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(piece, re.escape(piece))


def _train_split(files: Sequence[str], asked: str) -> list[str]:
    """The files of the one table whose name has `train` in it; the shards of a table count as one."""
    tables: dict[str, list[str]] = {}
    for file in files:
        if _READABLE.search(file) and not _NO_ROWS.search(file):
            tables.setdefault(_SHARD.sub("", file), []).append(file)
    if not tables:
        raise DataError(f"{asked}: holds no files of rows; expected JSONL, JSON, CSV, TSV, Parquet or Arrow")
    meant = [name for name in tables if "train" in name.lower()]
    if not meant and len(tables) == 1:
        meant = list(tables)
    if len(meant) == 1:
        return tables[meant[0]]
    problem = "has more than one table to train on" if meant else "has no file with train in its name"
    shown = tables if not meant else {name: tables[name] for name in meant}
    globs = [shards[0] if len(shards) == 1 else _SHARD.sub("*", shards[0]) for shards in shown.values()]
    raise DataError(f"{asked}: {problem}; say which, as {asked}/FILES; {_there_are(globs)}")


def _there_are(files: Sequence[str]) -> str:
    readable = [file for file in files if _READABLE.search(file)] or list(files)
    shown = [printable(file, 200) for file in readable[:SHOWN_FILES]]
    more = [f"{len(readable) - SHOWN_FILES} more"] if len(readable) > SHOWN_FILES else []
    return f"there are: {', '.join(shown + more)}" if shown else "it holds no files"
