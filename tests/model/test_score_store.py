"""The store of scores: what is found again, by whom, and after which accidents."""

import os
import resource
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager

import numpy as np
import pytest

from kilter.model.score_store import HEADER, KEY_BYTES, Index, MappedStore, ScoreStore, default_directory, path_keys
from kilter.tokens.sequence import TokenSequence
from kilter.tokens.tree import TokenTree


def tree(*paths, first=1, sharing_cost=0.0, variant=0):
    sequences = [TokenSequence(np.array(ids, np.int32), first, variant=variant) for ids in paths]
    return TokenTree.build(sequences, sharing_cost=sharing_cost)


def keys_by_path(built):
    """Each node's tokens from the root, and its key."""
    keys = path_keys(built)
    return {tuple(built.ids_T[built.path(node)].tolist()): tuple(keys[node].tolist()) for node in range(len(built))}


def test_a_path_has_one_key_in_whatever_tree_order_and_cut_it_stands():
    whole = keys_by_path(tree([7, 8, 1, 2], [7, 8, 1, 3], [7, 9]))
    assert len(set(whole.values())) == len(whole) == 6
    for other in (tree([7, 9], [7, 8, 1, 3]), tree([7, 8, 1]), tree([7, 8, 1, 2], [7, 8, 1, 3], sharing_cost=1e9)):
        for path, key in keys_by_path(other).items():
            assert whole[path] == key
    padded = tree([7, 8, 1]).padded(8)
    assert (path_keys(padded)[:3] == path_keys(tree([7, 8, 1]))).all()


def test_a_key_tells_the_order_of_tokens_where_a_path_ends_and_its_variant():
    keys = [
        keys_by_path(tree(path, variant=variant))[tuple(path)]
        for path, variant in (([1, 2, 3], 0), ([1, 3, 2], 0), ([2, 3], 0), ([1, 2], 0), ([1, 2, 3], 1), ([1, 515], 0))
    ]
    assert len(set(keys)) == len(keys)


def drawn(count, seed=0, width=2):
    draw = np.random.default_rng(seed)
    return draw.integers(0, 2**64, (count, 2), np.uint64), draw.standard_normal((count, width)).astype(np.float32)


def test_an_index_finds_what_a_dictionary_finds_and_of_two_the_first():
    draw = np.random.default_rng(1)
    index, oracle = Index(np.int64, 1), {}
    for number in range(200):
        # Few halves, so that many keys share their first and many are the same.
        keys = draw.integers(0, 7, (int(draw.integers(0, 9)), 2)).astype(np.uint64)
        index.add(keys, np.full((len(keys), 1), number))
        for key in keys.tolist():
            oracle.setdefault(tuple(key), number)
        wanted = draw.integers(0, 8, (20, 2)).astype(np.uint64)
        rows, found = index.find(wanted)
        assert found.tolist() == [tuple(key) in oracle for key in wanted.tolist()]
        assert rows[found, 0].tolist() == [oracle[tuple(key)] for key in wanted[found].tolist()]
        assert not rows[~found].any()


KINDS = pytest.mark.parametrize("kind", [ScoreStore, MappedStore])


def opened(kind, directory, said=None, width=2):
    return kind(directory, np.float32, width, pytest.fail if said is None else said.append)


@KINDS
def test_what_was_appended_is_found_by_this_store_by_another_and_after_opening_anew(kind, tmp_path):
    ours, theirs = opened(kind, tmp_path), opened(kind, tmp_path)
    (keys, values), (more_keys, more) = drawn(500), drawn(300, seed=1)
    for part in np.array_split(np.arange(500), 7):
        ours.append(keys[part], values[part])
    theirs.append(more_keys, more)
    for store in (ours, theirs, opened(kind, tmp_path)):
        order = np.random.default_rng(2).permutation(800)
        got, found = store.find(np.concatenate([keys, more_keys])[order])
        assert found.all()
        assert (got == np.concatenate([values, more])[order]).all()
        assert not store.find(drawn(50, seed=3)[0])[1].any()
    assert ours.bytes_on_disk == 800 * (KEY_BYTES + 8) + 8 * HEADER.size


@KINDS
def test_the_memory_of_a_key_is_24_bytes_whatever_the_width_on_disk(kind, tmp_path):
    store = opened(kind, tmp_path, width=2 if kind is ScoreStore else 500)
    keys, values = drawn(1000, width=store.width)
    store.append(keys, values)
    assert sum(part.nbytes for run in store.index._runs for part in run) == 24_000


@KINDS
def test_a_torn_end_is_passed_over_in_silence_at_every_length(kind, tmp_path):
    store = opened(kind, tmp_path)
    (keys, values), (more_keys, more) = drawn(3), drawn(2, seed=1)
    store.append(keys, values)
    (file,) = tmp_path.glob("*.scores")
    length = file.stat().st_size
    store.append(more_keys, more)
    whole = file.read_bytes()
    for cut in range(length, len(whole)):
        file.write_bytes(whole[:cut])
        again = opened(kind, tmp_path)
        assert again.find(keys)[1].all()
        assert not again.find(more_keys)[1].any()
        file.write_bytes(whole)  # as when another process was not done with writing
        assert again.find(more_keys)[1].all()


@KINDS
def test_every_flipped_bit_is_noticed_the_block_named_and_the_others_found(kind, tmp_path):
    store = opened(kind, tmp_path)
    blocks = [drawn(2, seed=seed) for seed in range(3)]
    for keys, values in blocks:
        store.append(keys, values)
    (file,) = tmp_path.glob("*.scores")
    whole = file.read_bytes()
    size = len(whole) // 3
    for at in range(size, 2 * size):
        for bit in (1, 128):
            flipped = bytearray(whole)
            flipped[at] ^= bit
            file.write_bytes(flipped)
            said = []
            again = opened(kind, tmp_path, said)
            for number, (keys, values) in enumerate(blocks):
                got, found = again.find(keys)
                assert found.tolist() == [number != 1] * 2
                assert (got == (0 if number == 1 else values)).all()
            (text,) = said
            assert text.startswith(f"{file}, block 2: is not what was written; its scores are passed over")
            again.append(*blocks[1])
            assert (again.find(blocks[1][0])[0] == blocks[1][1]).all()
            (new,) = set(tmp_path.glob("*.scores")) - {file}
            new.unlink()


@contextmanager
def files_of_at_most(size):
    """A disk that is full, as far as this process can tell."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@KINDS
def test_on_a_full_disk_a_store_goes_on_with_what_it_has_and_says_so_once(kind, tmp_path):
    said = []
    store = opened(kind, tmp_path, said)
    (keys, values), (lost_keys, lost), (later_keys, later) = drawn(10), drawn(10, seed=1), drawn(10, seed=2)
    store.append(keys, values)
    with files_of_at_most(400):
        store.append(lost_keys, lost)
        store.append(later_keys, later)
    (text,) = said
    assert text.startswith(f"no more scores can be kept in {tmp_path}: File too large; going on without")
    assert store.find(keys)[1].all()
    # Held in memory they are known to this process; mapped ones are computed again.
    assert store.find(lost_keys)[1].all() == (kind is ScoreStore)
    (file,) = tmp_path.glob("*.scores")
    assert file.stat().st_size == HEADER.size + 10 * (KEY_BYTES + 8)
    again = opened(kind, tmp_path)
    assert again.find(keys)[1].all()
    assert not again.find(lost_keys)[1].any()


def test_a_directory_that_cannot_be_made_costs_a_warning_and_no_run(tmp_path):
    (tmp_path / "file").write_text("")
    said = []
    store = opened(ScoreStore, tmp_path / "file" / "store", said)
    keys, values = drawn(3)
    store.append(keys, values)
    assert store.find(keys)[1].all()
    assert len(said) == 1
    assert "Not a directory" in said[0]


@KINDS
def test_threads_that_fill_one_directory_at_once_lose_nothing(kind, tmp_path):
    def fill(seed):
        store = opened(kind, tmp_path)
        for part in range(20):
            store.append(*drawn(5, seed=[seed, part]))

    threads = [threading.Thread(target=fill, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    watching = opened(kind, tmp_path)
    while any(thread.is_alive() for thread in threads):
        for seed in range(4):
            keys, values = drawn(5, seed=[seed, 19])
            got, found = watching.find(keys)
            assert (got[found] == values[found]).all()
    for thread in threads:
        thread.join()
    for seed in range(4):
        for part in range(20):
            keys, values = drawn(5, seed=[seed, part])
            got, found = watching.find(keys)
            assert found.all()
            assert (got == values).all()


FILLING = """
import sys
import numpy as np
from pathlib import Path
from kilter.model.score_store import ScoreStore
store = ScoreStore(Path(sys.argv[1]), np.float32, 2, sys.exit)
for number in range(100_000):
    draw = np.random.default_rng(number)
    store.append(draw.integers(0, 2**64, (50, 2), np.uint64), draw.standard_normal((50, 2)).astype(np.float32))
    print(number, flush=True)
"""


def test_of_a_process_killed_while_it_fills_all_that_it_told_of_is_there(tmp_path):
    for kill in range(3):
        directory = tmp_path / str(kill)
        process = subprocess.Popen(
            [sys.executable, "-c", FILLING, str(directory)], stdout=subprocess.PIPE, text=True, env=os.environ
        )
        told = [process.stdout.readline() for _ in range(20 * (kill + 1))]
        process.send_signal(signal.SIGKILL)
        told += process.stdout.readlines()
        process.wait()
        process.stdout.close()
        last = int([line for line in told if line.endswith("\n")][-1])
        store = opened(ScoreStore, directory)
        for number in range(last + 1):
            draw = np.random.default_rng(number)
            keys = draw.integers(0, 2**64, (50, 2), np.uint64)
            got, found = store.find(keys)
            assert found.all()
            assert (got == draw.standard_normal((50, 2)).astype(np.float32)).all()
        assert len(store) <= (last + 2) * 50  # of the one in flight all or nothing


def test_where_stores_lie_by_default(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("KILTER_CACHE", raising=False)
    assert str(default_directory()) == "/home/someone/.cache/kilter"
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert str(default_directory()) == "/caches/kilter"
    monkeypatch.setenv("KILTER_CACHE", str(tmp_path))
    assert default_directory() == tmp_path
