"""Data sets on a hub that runs on this machine: which files are meant, at which commit, and what is refused how."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from kilter.data import hub
from kilter.data.hub import is_on_hub

NEW, OLD = "b" * 40, "a" * 40
REVISIONS = {"main": NEW, "v1": OLD, "refs/pr/1": OLD, NEW: NEW, OLD: OLD}


def pairs(prompt: str, number: int = 1) -> bytes:
    row = {"prompt": prompt, "chosen": "a", "rejected": "b"}
    return (json.dumps(row) + "\n").encode() * number


# Each data set's files.
REPOSITORIES: dict[str, dict[str, bytes]] = {
    "org/plain": {
        "README.md": b"x",
        "dataset_infos.json": b"{}",
        "data/train-00000-of-00002.jsonl": pairs("one"),
        "data/train-00001-of-00002.jsonl": pairs("two", 2),
        "data/test-00000-of-00001.jsonl": pairs("test"),
    },
    "org/several": {"train_prefs.jsonl.gz": gzip.compress(pairs("p")), "train_sft.jsonl": pairs("s")},
    "org/one": {"rows.jsonl": pairs("only")},
    "org/none": {"README.md": b"x"},
    "org/two": {"b.jsonl": pairs("b"), "c.csv": b"prompt,chosen,rejected\nq,a,b\n"},
}


class Hub(BaseHTTPRequestHandler):
    """The few answers of the hub that fetching a data set asks for."""

    asked: list[str]

    def do_GET(self) -> None:
        self.answer()

    def do_HEAD(self) -> None:
        self.answer()

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        type(self).asked.append(path)
        parts = path.removeprefix("/api").strip("/").split("/", 4)
        name = "/".join(parts[1:3])
        if name == "org/gated":
            return self.refuse(403, "GatedRepo")
        if name == "org/broken":
            return self.refuse(500, "")
        if name not in REPOSITORIES:
            return self.refuse(401, "RepoNotFound")
        if path.startswith("/api"):
            revision = path.partition("/revision/")[2] or "main"
            if revision not in REVISIONS:
                return self.refuse(404, "RevisionNotFound")
            files = [{"rfilename": file} for file in REPOSITORIES[name]]
            return self.send(json.dumps({"id": name, "sha": REVISIONS[revision], "siblings": files}).encode(), {})
        commit, file = parts[4].split("/", 1)
        content = REPOSITORIES[name].get(file)
        if content is None:
            return self.refuse(404, "EntryNotFound")
        return self.send(content, {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'})

    def refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send(self, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(200)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    Hub.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


READ = """
import json, sys
from kilter.data.reading import read_pairs
from kilter.errors import DataError
for names in json.load(sys.stdin):
    try:
        data = read_pairs(names)
        print(json.dumps([[row.prompt for row in data.rows], str(data.rows[0].origin), data.describe()]))
    except DataError as error:
        print(json.dumps(str(error)))
"""


def read(names: Sequence[str | list[str]], endpoint: str, home: Path, **environment: str) -> list[Any]:
    """What reading each of `names` gives in a process of its own: prompts, an origin, a description; or an error."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": endpoint, "HF_HOME": str(home), **environment}
    ran = subprocess.run(
        [sys.executable, "-c", READ],
        input=json.dumps(names),
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    return [json.loads(line) for line in ran.stdout.splitlines()]


def test_the_files_that_are_meant_are_fetched_at_one_commit(endpoint: str, tmp_path: Path) -> None:
    whole, pinned, tag, globbed, path, only, packed = read(
        [
            "hf://datasets/org/plain",
            f"hf://datasets/org/plain@{OLD}",
            "hf://datasets/org/plain@v1/data/test*",
            "hf://datasets/org/plain@refs%2Fpr%2F1/**/*.jsonl",
            "hf:/datasets/org/plain@refs/pr/1/data/train-00001-of-00002.jsonl",
            "hf://datasets/org/one/",
            "hf://datasets/org/several/train_[!s]*.gz",
        ],
        endpoint,
        tmp_path,
    )
    first = f"hf://datasets/org/plain@{NEW}/data/train-00000-of-00002.jsonl"
    assert whole[:2] == [["one", "two", "two"], f"{first}:1"]
    assert whole[2].splitlines()[0] == (
        f"{first}: 1 pair, format pair-text (prompt and answers as text), "
        "the newest commit of its main branch; name it as here to pin it"
    )
    assert pinned[0] == ["one", "two", "two"]
    assert "newest" not in pinned[2]
    assert tag[:2] == [["test"], f"hf://datasets/org/plain@{OLD}/data/test-00000-of-00001.jsonl:1"]
    assert "the newest commit of v1; " in tag[2]
    assert globbed[0] == ["test", "one", "two", "two"]
    assert path[0] == ["two", "two"]
    assert only[0] == ["only"]
    assert packed[0] == ["p"]


def test_a_data_set_that_cannot_be_read_is_refused_in_these_words(endpoint: str, tmp_path: Path) -> None:
    told = {
        "hf://datasets/org/several": "has more than one table to train on; say which, as "
        "hf://datasets/org/several/FILES; there are: train_prefs.jsonl.gz, train_sft.jsonl",
        "hf://datasets/org/two": "has no file with train in its name; say which, as hf://datasets/org/two/FILES; "
        "there are: b.jsonl, c.csv",
        "hf://datasets/org/none": "holds no files of rows; expected JSONL, JSON, CSV, TSV, Parquet or Arrow",
        "hf://datasets/org/plain/*.csv": "has no file *.csv; there are: data/test-00000-of-00001.jsonl, ",
        "hf://datasets/org/nothing": "there is no such data set, or it is private; check the name, or run ",
        "hf://datasets/org/gated": "its owner asks you to accept terms first; accept them on its page",
        "hf://datasets/org/plain@v9": "the data set has no such revision; name a branch, a tag or a commit",
        "hf://datasets/org/broken": "the hub answers: ",
        "hf://datasets/plain": "is no data set's name; expected hf://datasets/ORG/NAME",
        "hf://models/org/plain": "is no data set's name; ",
    }
    for (name, said), heard in zip(told.items(), read(list(told), endpoint, tmp_path), strict=True):
        assert isinstance(heard, str), name
        assert heard.startswith(name.partition("/*")[0])
        assert said in heard
        assert "\n" not in heard


def test_a_file_twice_is_refused_and_two_that_are_alike_are_not(endpoint: str, tmp_path: Path) -> None:
    twice, alike = read(
        [
            ["hf://datasets/org/one", "hf://datasets/org/one/rows.jsonl"],
            ["hf://datasets/org/one@v1", "hf://datasets/org/one"],
        ],
        endpoint,
        tmp_path,
    )
    assert twice == f"hf://datasets/org/one@{NEW}/rows.jsonl: is given twice; expected each file once; leave one out"
    assert alike[0] == ["only", "only"]


def test_what_is_in_the_cache_is_read_without_the_hub(endpoint: str, tmp_path: Path) -> None:
    name = f"hf://datasets/org/one@{NEW}/rows.jsonl"
    [fetched] = read([name], endpoint, tmp_path)
    nowhere = "http://127.0.0.1:9"
    begun = time.monotonic()
    for offline in "0", "1":
        again, newest, other = read(
            [name, "hf://datasets/org/one", f"hf://datasets/org/plain@{NEW}/x.jsonl"],
            nowhere,
            tmp_path,
            HF_HUB_OFFLINE=offline,
        )
        assert again == fetched
        said = "the hub may not be asked, as HF_HUB_OFFLINE is set; " if offline == "1" else "the hub cannot be reached"
        assert said in newest
        assert said in other
    assert time.monotonic() - begun < 30


def test_without_its_library_a_data_set_is_refused_by_saying_what_to_install(tmp_path: Path) -> None:
    code = "import sys; sys.modules['huggingface_hub'] = None\n" + READ
    ran = subprocess.run(
        [sys.executable, "-c", code], input='["hf://datasets/a/b"]', capture_output=True, text=True, check=True
    )
    assert "huggingface_hub is not installed; pip install 'kilter[hub]', or download the files" in ran.stdout


def test_names_on_the_hub_are_known_also_from_paths() -> None:
    assert is_on_hub(str(Path("hf://datasets/org/name")))
    assert not is_on_hub("hf/datasets.jsonl")
    assert not is_on_hub("data/hf:/x")


@pytest.mark.parametrize(
    ("files", "meant"),
    [
        (["train.jsonl"], ["train.jsonl"]),
        (["a/train-00000-of-00002-0123456789abcdef.parquet", "a/train-00001-of-00002-fedcba9876543210.parquet"], 2),
        (["TRAIN.CSV.md", "my_train.csv", "test.csv"], ["my_train.csv"]),
        (["data/x.parquet", "dataset_info.json", "data/state.json"], ["data/x.parquet"]),
    ],
)
def test_the_train_split_is_the_one_table_with_train_in_its_name(files: list[str], meant: list[str] | int) -> None:
    chosen = hub._train_split(files, "hf://datasets/a/b")
    assert chosen == (files if isinstance(meant, int) else meant)
