"""Files of every kind and in every state of disrepair: what is read, what is refused, and in which words."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kilter.data import files, json_rows, reading
from kilter.data.reading import BadRow, FileAccount, read_demonstrations, read_pairs, read_prompts
from kilter.data.records import Demonstration, Message, Origin, Pair, Prompt
from kilter.errors import DataError

SHARED = Path(os.environ.get("KILTER_SHARED", Path(__file__).parents[3] / "shared"))
HH = SHARED / "data" / "hh_harmless_test.jsonl.gz"
needs_shared = pytest.mark.skipif(not HH.exists(), reason=f"{HH} is not on this machine")

ROWS = [{"prompt": f"{n} + {n} is", "chosen": f" {2 * n}", "rejected": " 0"} for n in range(1, 4)]
GOOD = json.dumps(ROWS[0])
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def written(tmp_path: Path, content: bytes | str, name: str = "pairs.jsonl") -> Path:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refusal(path: Path, *, skip_bad: bool = False) -> str:
    with pytest.raises(DataError) as caught:
        read_pairs(path, skip_bad=skip_bad)
    said = str(caught.value)
    assert said.replace("\n", "").isprintable()
    return said.replace(str(path), path.name)


def flaw(tmp_path: Path, line: bytes | str) -> str:
    """What is said of a line between two good ones, in a file of lines."""
    content = line if isinstance(line, bytes) else line.encode()
    path = written(tmp_path, b"\n".join([GOOD.encode(), content, GOOD.encode(), b""]))
    [bad] = read_pairs(path, skip_bad=True).bad_rows
    assert bad.origin == Origin(str(path), 2)
    return ": ".join(part for part in (bad.field, bad.message) if part)


# What is read.


@pytest.mark.parametrize("name", ["pairs.jsonl", "pairs.json", "pairs.jsonl.gz", "pairs"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "bom"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["unpacked", "gzip"])
@pytest.mark.parametrize(
    "content",
    [LINES, LINES.rstrip(), LINES.replace(b"\n", b"\r\n"), json.dumps(ROWS), json.dumps(ROWS, indent=2), "\n [\n{}]\n"],
    ids=["lines", "no last newline", "crlf", "array", "indented array", "array after blanks"],
)
def test_the_content_decides_how_a_file_is_read_not_its_name(
    tmp_path: Path, content: bytes | str, pack: Callable[[bytes], bytes], mark: bytes, name: str
) -> None:
    body = content if isinstance(content, bytes) else content.replace("{}", json.dumps(ROWS)[1:-1]).encode()
    path = written(tmp_path, pack(mark + body), name)
    dataset = read_pairs(path)
    assert dataset.rows == tuple(
        Pair(row["prompt"], row["chosen"], row["rejected"], Origin(str(path), line)) for line, row in enumerate(ROWS, 1)
    )
    assert dataset.files[0].sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert dataset.files == (FileAccount(str(path), dataset.files[0].sha256, "pair-text", 3),)


def test_blank_lines_are_skipped_and_lines_keep_their_physical_numbers(tmp_path: Path) -> None:
    path = written(tmp_path, f"\n{GOOD}\n  \r\n\n{GOOD}\n\n")
    assert [str(row.origin) for row in read_pairs(str(path)).rows] == [f"{path}:2", f"{path}:5"]


def test_only_a_newline_ends_a_line(tmp_path: Path) -> None:
    text = "a\u2028b\u0085c\x1cd"
    path = written(tmp_path, json.dumps({"text": text}, ensure_ascii=False))
    assert read_demonstrations(path).rows[0].completion == text


def test_gzip_files_put_one_after_the_other_are_read_through(tmp_path: Path) -> None:
    assert len(read_pairs(written(tmp_path, gzip.compress(LINES) + gzip.compress(LINES))).rows) == 6


def test_the_chosen_answers_of_pairs_are_demonstrations(tmp_path: Path) -> None:
    path = written(tmp_path, LINES)
    dataset = read_demonstrations(path)
    assert dataset.rows[1] == Demonstration("2 + 2 is", " 4", Origin(str(path), 2))
    assert dataset.describe() == (
        f"{path}: 3 pairs, format pair-text (prompt and answers as text), their chosen answers"
    )


def test_answers_that_all_have_one_rank_are_a_tie_left_out_and_counted(tmp_path: Path) -> None:
    answers = [{"answer": "a", "rank": 1}, {"answer": "b", "rank": 1}]
    tied, told = {"prompt": "p", "answers": answers}, {"prompt": "p", "answers": [*answers, {"answer": "c", "rank": 2}]}
    path = written(tmp_path, json.dumps(tied) + "\n" + json.dumps(told))
    pairs = read_pairs(path)
    assert ([(pair.chosen, pair.rejected) for pair in pairs.rows], pairs.ties) == ([("a", "c"), ("b", "c")], 1)
    assert pairs.describe().endswith("2 pairs in all, 1 tie left out")
    taught = read_demonstrations(path)
    assert ([row.completion for row in taught.rows], taught.ties) == (["a", "b"], 1)


def test_metadata_is_named_in_the_schema_line(tmp_path: Path) -> None:
    said = [{"role": "user", "content": "hi", "name": None}, {"role": "assistant", "content": "ho", "time": 3}]
    path = written(tmp_path, json.dumps([{"messages": said, "id\x1b": 1}, {"messages": said, "tags": ["a"]}]))
    dataset = read_demonstrations(path)
    assert dataset.rows[0].completion == (Message("user", "hi"), Message("assistant", "ho"))
    assert dataset.describe() == (
        f"{path}: 2 demonstrations, format sft-messages (whole conversations), "
        "ignored keys: id\\x1b, messages[].name, messages[].time, tags"
    )


def test_a_description_of_many_ignored_keys_stays_short(tmp_path: Path) -> None:
    path = written(tmp_path, json.dumps({"text": "a"} | {f"key{n}": n for n in range(100)}))
    assert read_demonstrations(path).describe().endswith("key6, key7, 92 more")


def test_one_row_is_a_pair_and_a_thousand_have_a_comma(tmp_path: Path) -> None:
    assert ": 1 pair, format pair-text" in read_pairs(written(tmp_path, GOOD)).describe()
    path = written(tmp_path, (GOOD + "\n") * 1234 + "x\n")
    assert read_pairs(path, skip_bad=True).describe().startswith(f"{path}: 1,234 pairs, format pair-text (")
    assert read_pairs(path, skip_bad=True).describe().endswith(", 1 bad row skipped")


# Bad rows.


def test_all_bad_rows_are_named_and_none_is_lost(tmp_path: Path) -> None:
    path = written(tmp_path, "\n".join([GOOD, "{", GOOD, '{"prompt": "q", "chosen": "", "rejected": "r"}', "[]"]))
    assert refusal(path).splitlines() == [
        "pairs.jsonl: 3 of 5 rows cannot be used:",
        "  pairs.jsonl:2: is not JSON at column 2: Expecting property name enclosed in double quotes; "
        "expected a complete object",
        "  pairs.jsonl:4: chosen: has nothing after the prompt; expected an answer",
        "  pairs.jsonl:5: is an empty list; expected an object",
        "Mend them, or pass --skip-bad to leave them out.",
    ]
    dataset = read_pairs(path, skip_bad=True)
    assert [row.origin.line for row in dataset.rows] == [1, 3]
    assert [row.origin.line for row in dataset.bad_rows] == [2, 4, 5]
    assert dataset.bad_rows[2] == BadRow(Origin(str(path), 5), "", "is an empty list; expected an object")


def test_twenty_bad_rows_are_listed_and_the_others_counted(tmp_path: Path) -> None:
    said = refusal(written(tmp_path, GOOD + "\n3" * 1500)).splitlines()
    assert said[0] == "pairs.jsonl: 1,500 of 1,501 rows cannot be used:"
    assert len(said) == 1 + 20 + 1 + 1
    assert said[-2] == "  and 1,480 more"


def test_rows_of_an_array_are_numbered_by_their_place(tmp_path: Path) -> None:
    path = written(tmp_path, json.dumps([ROWS[0], ROWS[1], {"prompt": 3}], indent=1), "pairs.json")
    said = refusal(path).splitlines()
    assert said[0] == "pairs.json: 1 of 3 rows cannot be used (numbered by their place in the array):"
    assert said[1] == "  pairs.json:3: prompt: is a number; expected text"


def test_a_file_of_bad_rows_only_is_refused_even_where_they_may_be_skipped(tmp_path: Path) -> None:
    said = refusal(written(tmp_path, '{"prompt": "q", "chosen": "a", "rejected": "a"}'), skip_bad=True)
    assert "1 of 1 row cannot be used" in said
    assert said.endswith("No usable row is left; mend them.")


def test_the_first_rows_decide_the_format_and_later_ones_must_fit_it(tmp_path: Path) -> None:
    hh = {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"}
    dataset = read_pairs(written(tmp_path, "\n".join(["x", GOOD, json.dumps(hh)])), skip_bad=True)
    assert dataset.files[0].format == "pair-text"
    assert [(row.origin.line, row.field) for row in dataset.bad_rows] == [(1, ""), (3, "prompt")]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"prompt": "a', "is not JSON at column 12: Unterminated string starting at; expected a complete object"),
        (GOOD + GOOD, f"is not JSON at column {len(GOOD) + 1}: More than one value on the line; "),
        (GOOD + ",", f"is not JSON at column {len(GOOD) + 1}: More than one value on the line; "),
        ("'a'", "is not JSON at column 1: Expecting value; "),
        ('{"a": "\t"}', "is not JSON at column 8: Invalid control character at; "),
        (b'{"a": "\0"}', "is not JSON at column 8: Invalid control character at; "),
        (b'{"prompt": "\xff"}', "is not UTF-8 (byte 0xff); "),
        (b'{"prompt": "\xed\xa0\x80"}', "is not UTF-8 (byte 0xed); "),
        ("\ufeff" + GOOD, "is not JSON at column 1: Expecting value; "),
        ("17", "is a number; expected an object"),
        ("null", "is missing or null; expected an object"),
        ('"text"', "is text; expected an object"),
        ('{"score": NaN, ' + GOOD[1:], "has NaN, which is not JSON; "),
        ('{"score": [-Infinity], ' + GOOD[1:], "has -Infinity, which is not JSON; "),
        ('{"prompt": "a", ' + GOOD[1:], "prompt: is given more than once in an object; "),
        ('{"meta": {"a\\u001b": 1, "a\\u001b": 2}, ' + GOOD[1:], "a\\x1b: is given more than once in an object; "),
        ('{"n": ' + "1" * 5000 + ", " + GOOD[1:], "has a number of too many digits; "),
        ("[" * 100_000, "is nested too deeply; "),
        ('{"a":' * 100_000, "is nested too deeply; "),
        ('{"prompt": null, "chosen": "a", "rejected": "b"}', "prompt: is missing or null; expected text"),
        ('{"prompt": "a", "chosen": ["b"], "rejected": "b"}', "chosen: is a list; expected text"),
        ('{"prompt": "a", "chosen": "b", "rejected": true}', "rejected: is true or false; expected text"),
        ('{"prompt": "a", "chosen": "b\\u0000", "rejected": "c"}', "chosen: has a NUL at character 2; "),
        ('{"prompt": "a", "chosen": "b", "rejected": "\\ud800"}', "rejected: has half a surrogate pair (\\ud800)"),
        ('{"prompt": "a", "chosen": "b", "rejected": "b"}', "rejected: is identical to chosen; "),
        ('{"prompt": "a", "chosen": " \\n", "rejected": "b"}', "chosen: is empty; expected an answer"),
    ],
)
def test_a_malformed_row_is_refused_in_these_words(tmp_path: Path, line: bytes | str, said: str) -> None:
    assert flaw(tmp_path, line).startswith(said)


def test_a_row_of_an_array_that_python_would_let_pass_is_a_bad_row_and_the_next_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, f'[{{"a": NaN}}, {GOOD}, {{"b": 1, "b": 1}}, 3, {GOOD}]')
    dataset = read_pairs(path, skip_bad=True)
    assert [row.origin.line for row in dataset.rows] == [2, 5]
    assert [(bad.origin.line, bad.field) for bad in dataset.bad_rows] == [(1, ""), (3, "b"), (4, "")]


# Files that cannot be read at all.


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "pairs.jsonl: is empty; expected rows, or text"),
        (b" \n\n", "pairs.jsonl: has no rows; "),
        (b"[ ]", "pairs.jsonl: has no rows; "),
        (gzip.compress(b""), "pairs.jsonl: has no rows; "),
        (b"prompt,chosen\n1,2\n", "pairs.jsonl: has no JSON object where rows begin; "),
        (b'"a"', "pairs.jsonl: has no JSON object where rows begin; "),
        (b"\xff\xfe{\0", "pairs.jsonl: expected JSON, found UTF-16 text; save it as UTF-8"),
        (b"PAR1\x15\x04", "pairs.jsonl: is damaged, truncated or unreadable Parquet (Parquet file size is 6 bytes"),
        (gzip.compress(gzip.compress(LINES)), "pairs.jsonl: expected JSON, found gzip inside gzip; "),
        (b'{\n  "prompt": "a"\n}', "pairs.jsonl: the first object takes many lines; "),
        (b'{"data": []}', "pairs.jsonl:1: found the keys data (an empty list), which fits no format; "),
        (b"{}", "pairs.jsonl:1: found an object without keys, which fits no format; "),
        (f"[\n{GOOD},\n{GOOD}\n".encode(), "pairs.jsonl: line 4 is not JSON at column 1: Expected ',' or ']' "),
        (f"[{GOOD},]".encode(), f"pairs.jsonl: line 1 is not JSON at column {len(GOOD) + 3}: Expecting value"),
        (f"[{GOOD}]\n[{GOOD}]".encode(), "pairs.jsonl: line 2 is not JSON at column 1: More after the end"),
        (f"[{GOOD} {GOOD}]".encode(), f"pairs.jsonl: line 1 is not JSON at column {len(GOOD) + 3}: Expected ','"),
        (b"[", "pairs.jsonl: line 1 is not JSON at column 2: Expecting value"),
        (b'[\n"\xff"]', "pairs.jsonl: line 2 is not UTF-8 (byte 0xff); "),
        (b'[{"n": ' + b"1" * 5000 + b"}]", "pairs.jsonl: a row has a number of too many digits; "),
        (b"[" * 100_000, "pairs.jsonl: a row is nested too deeply; "),
        (gzip.compress(LINES)[:-12], "pairs.jsonl: is damaged or truncated gzip ("),
        (gzip.compress(LINES)[:-8] + b"\0" * 8, "pairs.jsonl: is damaged or truncated gzip (CRC check failed"),
        (gzip.compress(LINES)[:12] + b"\xff" * 40, "pairs.jsonl: is damaged or truncated gzip ("),
        (gzip.compress(LINES) + b"more", "pairs.jsonl: is damaged or truncated gzip (Not a gzipped file"),
        (b"\x1f\x8b", "pairs.jsonl: is damaged or truncated gzip ("),
    ],
)
def test_a_file_that_is_no_data_is_refused_in_these_words(tmp_path: Path, content: bytes, said: str) -> None:
    assert refusal(written(tmp_path, content), skip_bad=True).startswith(said)


def test_what_is_not_a_file_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.jsonl").startswith("none.jsonl: cannot be read: No such file or directory; ")
    assert "is a directory; " in refusal(tmp_path)
    assert refusal(tmp_path / "a\0b").endswith("a\\x00b: cannot be read: embedded null byte; check the path")
    assert "File name too long" in refusal(tmp_path / ("a" * 300))
    assert "Not a directory" in refusal(written(tmp_path, GOOD) / "b")
    assert "is a device or a socket; " in refusal(Path("/dev/null"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD)
    path.chmod(0)
    assert "cannot be read: Permission denied; " in refusal(path)


def test_control_characters_in_a_files_name_are_escaped(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD, "a\x1b[2J.jsonl")
    assert "a\\x1b[2J.jsonl: 1 pair" in read_pairs(path).describe()


# Bounds.


def test_a_line_that_is_too_long_is_refused_by_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_rows, "LONGEST_LINE", 1 << 20)
    longest = '{"text": "' + "a" * ((1 << 20) - 13) + '"}\n'
    assert len(longest) == 1 << 20
    assert len(read_demonstrations(written(tmp_path, longest)).rows) == 1
    with pytest.raises(DataError, match=r"pairs.jsonl:2: is longer than 1 MiB; "):
        read_demonstrations(written(tmp_path, f"{longest}a{longest}"))


@pytest.mark.parametrize("form", ["{0}\n{0}\n", "[{0},{0}]"])
def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    monkeypatch.setattr(files, "LARGEST_UNPACKED", 1 << 16)
    bomb = form.replace("{0}", '{"text": "' + "a" * 500_000 + '"}').encode()
    with pytest.raises(DataError, match=r"unpacks to more than .* bytes; expected at most"):
        read_demonstrations(written(tmp_path, gzip.compress(bomb)))
    assert len(read_demonstrations(written(tmp_path, bomb)).rows) == 2


def test_reading_stops_where_nearly_everything_is_bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MOST_BAD_ROWS", 50)
    path = written(tmp_path, GOOD + "\nx" * 51)
    assert "more than 50 rows cannot be used" in refusal(path, skip_bad=True)
    assert len(read_pairs(written(tmp_path, GOOD + "\nx" * 50), skip_bad=True).bad_rows) == 50


def test_a_key_given_twice_among_many_is_found_quickly(tmp_path: Path) -> None:
    keys = ", ".join(f'"{n}": 0' for n in [*range(100_000), 99_999])
    assert flaw(tmp_path, f"{{{keys}}}").startswith("99999: is given more than once")


# No tracebacks.


_tokens = (
    rb"""{ } [ ] , : " \ \u NaN -Infinity 1e999 "prompt": "chosen": "rejected": "text": "messages": "role":""".split()
)
_bytes = [b"\n", b"\0", b"\xff", b"\xef\xbb\xbf", b"\x1f\x8b\x08\0", b"9" * 5000, GOOD.encode()]
_pieces = st.sampled_from(_tokens + _bytes)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.lists(_pieces | st.binary(max_size=8), max_size=12).map(b"".join), zipped=st.booleans())
def test_whatever_a_file_holds_it_is_read_or_a_data_error(tmp_path: Path, content: bytes, zipped: bool) -> None:
    path = written(tmp_path, zlib.compress(content, wbits=31) if zipped else content)
    for read in read_pairs, read_demonstrations:
        for skip_bad in False, True:
            try:
                assert read(path, skip_bad=skip_bad).describe().isprintable()
            except DataError as error:
                assert all(line.isprintable() for line in str(error).split("\n"))  # noqa: PT017


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_gzip_file_changed_in_any_byte_is_read_or_a_data_error(tmp_path: Path, data: st.DataObject) -> None:
    packed = bytearray(gzip.compress(LINES, mtime=0))
    packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        assert len(read_pairs(written(tmp_path, bytes(packed))).rows) == 3
    except DataError as error:
        assert str(error)  # noqa: PT017


def test_importing_and_reading_takes_neither_torch_nor_transformers(tmp_path: Path) -> None:
    path = written(tmp_path, LINES)
    code = (
        "import sys; from kilter.data.reading import read_pairs; read_pairs(sys.argv[1]); "
        "print(sorted({'torch', 'transformers', 'pydantic', 'numpy'} & set(sys.modules)))"
    )
    output = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "[]"


# Real files.


@needs_shared
def test_the_hh_file_is_2303_pairs_and_nine_bad_rows() -> None:
    dataset = read_pairs(HH, skip_bad=True)
    assert dataset.describe() == (f"{HH}: 2,303 pairs, format hh (Anthropic HH transcripts), 9 bad rows skipped")
    assert {bad.origin.line: bad.field for bad in dataset.bad_rows} == (
        dict.fromkeys((87, 517, 926, 1104), "chosen") | dict.fromkeys((1255, 1689, 1951, 1953, 2037), "rejected")
    )


@needs_shared
def test_hh_pairs_are_what_cutting_the_transcripts_at_the_last_answer_gives() -> None:
    speaker = {"user": "Human", "assistant": "Assistant"}
    with gzip.open(HH, "rt", encoding="utf-8") as file:
        raw = [json.loads(line) for line in file]
    for pair in read_pairs(HH, skip_bad=True).rows:
        assert not isinstance(pair.prompt, str)
        before = "".join(f"\n\n{speaker[turn.role]}: {turn.content}" for turn in pair.prompt)
        for name, [answer] in {"chosen": pair.chosen, "rejected": pair.rejected}.items():
            prompt, _, said = raw[pair.origin.line - 1][name].rpartition("\n\nAssistant:")
            assert answer == Message("assistant", said.strip())
            assert "".join(prompt.split()) == "".join(before.split())


@needs_shared
def test_answers_marked_good_are_demonstrations_and_plain_documents_read() -> None:
    good = [row["label"] for row in json.loads(gzip.decompress((SHARED / "data" / "kto_en_demo.json.gz").read_bytes()))]
    assert len(read_demonstrations(SHARED / "data" / "kto_en_demo.json.gz").rows) == sum(good)
    assert len(read_pairs(SHARED / "data" / "dpo_en_demo.json.gz").rows) == 300
    assert len(read_demonstrations(SHARED / "data" / "c4_demo.jsonl.gz").rows) == 300


# Prompts.


def test_pairs_have_prompts(tmp_path: Path) -> None:
    path = written(tmp_path, LINES)
    dataset = read_prompts(path)
    assert dataset.rows[1] == Prompt("2 + 2 is", Origin(str(path), 2))
    assert dataset.describe() == (f"{path}: 3 pairs, format pair-text (prompt and answers as text), their prompts")


@pytest.mark.parametrize("zipped", [False, True])
def test_each_line_of_text_is_what_a_user_says(zipped: bool, tmp_path: Path) -> None:
    text = '\ufeffhow big?\r\n\n  {"not": "JSON"}\n'.encode()
    path = tmp_path / ("p.txt.gz" if zipped else "p.txt")
    path.write_bytes(gzip.compress(text) if zipped else text)
    said = [(row.prompt, row.origin.line) for row in read_prompts(path).rows]
    assert said == [((Message("user", "how big?"),), 1), ((Message("user", '{"not": "JSON"}'),), 3)]


def test_a_line_that_is_not_text_is_refused_or_counted(tmp_path: Path) -> None:
    path = tmp_path / "p.txt"
    path.write_bytes(b"a\n\xff\nb\n")
    with pytest.raises(DataError, match=r"p\.txt:2: is not UTF-8"):
        read_prompts(path)
    dataset = read_prompts(path, skip_bad=True)
    assert (len(dataset.rows), len(dataset.bad_rows)) == (2, 1)
    assert (
        dataset.describe()
        == f"{path}: 2 prompts, format prompt (prompts, whatever answers stand beside them), 1 bad row skipped"
    )


def test_prompts_are_neither_pairs_nor_demonstrations(tmp_path: Path) -> None:
    path = written(tmp_path, '{"prompt": "hi"}')
    assert read_prompts(path).rows[0].prompt == "hi"
    for read in (read_pairs, read_demonstrations):
        with pytest.raises(DataError, match="found a prompt, format prompt"):
            read(path)


def test_an_answer_at_the_end_of_a_conversation_is_left_out_and_one_alone_is_refused(tmp_path: Path) -> None:
    user, assistant = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}
    path = written(tmp_path, json.dumps([{"messages": [user, assistant]}, {"messages": [user]}]))
    assert {row.prompt for row in read_prompts(path).rows} == {(Message("user", "hi"),)}
    with pytest.raises(DataError, match="messages: has nothing to answer"):
        read_prompts(written(tmp_path, json.dumps({"messages": [assistant]})))
