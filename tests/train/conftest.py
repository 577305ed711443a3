"""A file of pairs and a model to begin with, made once."""

import pytest

from train.runs import make_start, write_pairs


@pytest.fixture(scope="session")
def pairs_file(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("data") / "pairs.jsonl")


@pytest.fixture(scope="session")
def start(pairs_file, tmp_path_factory):
    return make_start(pairs_file, tmp_path_factory.mktemp("runs") / "sft")
