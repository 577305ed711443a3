"""Claims about rows as token ids."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from kilter.data.records import Content, Demonstration, Labelled, Message, Origin, Pair, Prompt, Ranking
from kilter.errors import ConfigError, DataError, ModelError
from kilter.tokens.encoding import Encoder, EncodingReport, Limits
from kilter.tokens.sequence import TokenSequence

SHARED = Path(os.environ.get("KILTER_SHARED", Path(__file__).parents[2] / ".." / "shared"))
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"no real data and model in {SHARED}")

BOS, EOS, START = "<|bos|>", "<|eos|>", "<|start|>"
CHATML = (
    "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|eos|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
WRITES_BOS = (  # as Llama 3's
    "{{ bos_token }}{% for m in messages %}<|start|>{{ m.role }}\n\n{{ m.content }}<|eos|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n\n{% endif %}"
)
WITHOUT_EOS = (
    "{% for m in messages %}[{{ m.role }}] {{ m.content }} {% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
CORPUS = ["the cat sat on the mat and the user sat on the assistant", "a system of mats for cats"]
HERE = Origin("rows.jsonl", 7)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


def wrap(backend: Tokenizer, template: str | None, bos: bool) -> PreTrainedTokenizerFast:
    """The trained tokenizer as users have it, writing BOS by itself where `bos`."""
    if bos:
        backend.post_processor = processors.TemplateProcessing(
            single=f"{BOS} $A", special_tokens=[(BOS, backend.token_to_id(BOS))]
        )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=BOS, eos_token=EOS)
    tokenizer.chat_template = template
    return tokenizer


@cache
def byte_level(
    template: str | None = None, *, bos: bool = False, prefix_space: bool = False
) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=[BOS, EOS, START],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    return wrap(backend, template, bos)


@cache
def sentencepiece(scheme: str, template: str | None = None) -> PreTrainedTokenizerFast:
    """In the manner of SentencePiece; `legacy` writes its dummy space in the normalizer, as Llama 2 did."""
    backend = Tokenizer(models.BPE())
    if scheme == "legacy":
        steps = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        backend.normalizer = normalizers.Sequence(steps)
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    backend.decoder = decoders.Metaspace()
    words = [word for line in CORPUS for word in line.split()]
    trainer = trainers.BpeTrainer(
        vocab_size=90, special_tokens=[BOS, EOS, START], initial_alphabet=["\n", "▁"], show_progress=False
    )
    backend.train_from_iterator(words, trainer)
    return wrap(backend, template, bos=True)


def conversation(*contents: str) -> tuple[Message, ...]:
    """Contents in turn by the user and the assistant."""
    return tuple(Message(("user", "assistant")[i % 2], content) for i, content in enumerate(contents))


def encode(
    tokenizer: PreTrainedTokenizerFast, prompt: Content, completion: Content, limits: Limits | None = None
) -> TokenSequence:
    rows = [Demonstration(prompt, completion, HERE)]
    return Encoder(tokenizer, limits=limits).encode_demonstrations(rows).rows[0].sequence


def read(tokenizer: PreTrainedTokenizerFast, ids: np.ndarray) -> str:
    return str(tokenizer.backend_tokenizer.decode(ids.tolist(), skip_special_tokens=False))


def tokens(tokenizer: PreTrainedTokenizerFast, ids: np.ndarray) -> list[str]:
    return list(tokenizer.convert_ids_to_tokens(ids.tolist()))


def halves(tokenizer: PreTrainedTokenizerFast, sequence: TokenSequence) -> tuple[str, str]:
    return tuple(read(tokenizer, part) for part in np.split(sequence.ids, [sequence.first]))  # type: ignore[return-value]


def report_of(pairs: list[Pair], limits: Limits | None = None, **options: bool) -> EncodingReport:
    return Encoder(byte_level(CHATML), limits=limits, **options).encode_pairs(pairs).report


# Boundary, BOS and EOS


def test_prompt_and_answer_are_tokenised_apart_and_closed_with_eos() -> None:
    tokenizer = byte_level()
    sequence = encode(tokenizer, "the c", "at")
    assert tokens(tokenizer, sequence.ids[: sequence.first]) == ["the", "Ġ", "c"]
    assert tokens(tokenizer, sequence.ids[sequence.first :]) == ["at", EOS]
    assert sequence.ids.dtype == np.int32
    assert sequence.weights is None


@given(TEXT, TEXT, st.booleans())
def test_byte_level_ids_say_the_text_with_one_bos_and_one_eos(prompt: str, answer: str, bos: bool) -> None:
    tokenizer = byte_level(bos=bos)
    sequence = encode(tokenizer, prompt, answer)
    assert halves(tokenizer, sequence) == (BOS * bos + prompt, answer + EOS)
    assert np.count_nonzero(sequence.ids == tokenizer.eos_token_id) == 1
    assert np.count_nonzero(sequence.ids == tokenizer.bos_token_id) == bos


@given(TEXT, TEXT, st.sampled_from([CHATML, WRITES_BOS, WITHOUT_EOS]), st.booleans())
def test_rendered_conversations_have_one_bos_and_end_at_one_eos(
    question: str, answer: str, template: str, bos: bool
) -> None:
    tokenizer = byte_level(template, bos=bos)
    sequence = encode(tokenizer, (Message("user", question),), (Message("assistant", answer),))
    whole = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}, {"role": "assistant", "content": answer}], tokenize=False
    )
    if bos and template != WRITES_BOS:
        whole = BOS + whole
    assert "".join(halves(tokenizer, sequence)) == whole.removesuffix("\n").removesuffix(EOS) + EOS
    assert np.count_nonzero(sequence.ids[sequence.first :] == tokenizer.eos_token_id) == 1
    assert np.count_nonzero(sequence.ids == tokenizer.bos_token_id) == (bos or template == WRITES_BOS)


CJK = [
    ("你是一位厨师。", "麻婆豆腐怎么做？", "先把豆腐切块，再炒豆瓣酱。"),
    ("", "「東京タワー」は何メートルですか？", "333メートルです。"),
    (
        "You are brief. 简短。",
        "Python の list 和 tuple 有什么区别?",
        "list 可变、tuple は不変 (immutable)。\n𠮷野家も👍🏽",
    ),
]


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize(("system", "question", "answer"), CJK)
def test_chinese_and_japanese_keep_an_exact_boundary(system: str, question: str, answer: str, bos: bool) -> None:
    """Also where a character is of several byte tokens, and where scripts meet."""
    tokenizer = byte_level(CHATML, bos=bos)
    turns = (*([Message("system", system)] if system else []), *conversation(question, answer, question))
    sequence = encode(tokenizer, turns, (Message("assistant", answer),))
    prompt = "".join(f"{START}{turn.role}\n{turn.content}{EOS}\n" for turn in turns) + f"{START}assistant\n"
    assert halves(tokenizer, sequence) == (BOS * bos + prompt, answer + EOS)
    text = encode(byte_level(bos=bos), question, answer)
    assert halves(byte_level(bos=bos), text) == (BOS * bos + question, answer + EOS)


@pytest.mark.parametrize(("system", "question", "answer"), CJK)
def test_answers_of_several_turns_in_chinese_and_japanese_are_scored_and_nothing_else(
    system: str, question: str, answer: str
) -> None:
    tokenizer = byte_level(CHATML)
    sequence = encode(tokenizer, (), conversation(question, answer, answer, question))
    assert sequence.weights is not None
    completion = sequence.ids[sequence.first :]
    assert read(tokenizer, completion[sequence.weights == 1]) == f"{answer}{EOS}{question}{EOS}"


TOOLS = '[{"function":{"name":"天気","parameters":{}},"type":"function"}]'
WITH_TOOLS = (
    "{% if tools %}<|start|>system\n{{ tools | tojson }}<|eos|>\n{% endif %}"
    "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}"
    "{% for call in m.tool_calls or [] %}{{ call.function | tojson }}{% endfor %}<|eos|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)


def test_every_kind_of_row_takes_its_tools_and_calls_to_the_template() -> None:
    call = Message(
        "assistant", "", '{"tool_calls":[{"function":{"arguments":{"市":"東京"},"name":"天気"},"type":"function"}]}'
    )
    asked, answer = conversation("東京?"), Message("assistant", "わからない")
    tokenizer = byte_level(WITH_TOOLS)
    encoder = Encoder(tokenizer)
    prompt = (
        f'{START}system\n[{{"function": {{"name": "天気", "parameters": {{}}}}, "type": "function"}}]{EOS}\n'
        f"{START}user\n東京?{EOS}\n{START}assistant\n"
    )
    called = '{"arguments": {"市": "東京"}, "name": "天気"}' + EOS
    pair = encoder.encode_pairs([Pair(asked, (call,), (answer,), HERE, tools=TOOLS)]).rows[0]
    labelled = encoder.encode_labelled([Labelled(asked, (call,), False, HERE, TOOLS)]).rows[0]
    shown = encoder.encode_demonstrations([Demonstration(asked, (call,), HERE, TOOLS)])
    for sequence in (pair.chosen, labelled.sequence, shown.rows[0].sequence):
        assert halves(tokenizer, sequence) == (prompt, called)
    assert halves(tokenizer, pair.rejected) == (prompt, "わからない" + EOS)
    assert read(tokenizer, encoder.encode_prompts([Prompt(asked, HERE, TOOLS)]).rows[0].ids) == prompt
    assert shown.report.empty_answers == 0


def test_labelled_answers_keep_their_labels_where_rows_are_left_out() -> None:
    rows = [Labelled("the cat", text, good, Origin("a", i)) for i, (text, good) in enumerate(
        [("sat", True), ("sat " * 9, True), ("mat", False), ("on", True)]
    )]  # fmt: skip
    encoded = Encoder(byte_level(), limits=Limits(max_length=8, on_overflow="drop")).encode_labelled(rows)
    assert [(row.good, row.origin.line) for row in encoded.rows] == [(True, 0), (False, 2), (True, 3)]
    assert encoded.report.overlong == 1


def test_answers_of_a_ranking_follow_the_same_prompt_ids_and_keep_their_ranks() -> None:
    """As those of pairs do, and a ranking is left out whole."""
    encoder = Encoder(byte_level(), limits=Limits(max_length=12, on_overflow="drop"))
    answers = (" mat", " cat sat", " a")
    ranking = Ranking("the cat", answers, (2, 3.5, 1), Origin("f", 1))
    long = Ranking("the cat", (" mat", " x" * 12), (1, 2), Origin("f", 2))
    (row,), report = encoder.encode_rankings([ranking, long])
    assert (row.ranks, row.origin) == ((2, 3.5, 1), Origin("f", 1))
    pairs = [Pair("the cat", answer, " mat", HERE) for answer in answers]
    for sequence, pair in zip(row.sequences, encoder.encode_pairs(pairs).rows, strict=True):
        assert sequence.ids.tolist() == pair.chosen.ids.tolist()
        assert sequence.first == pair.chosen.first
    assert (report.rows, report.encoded, report.overlong) == (2, 1, 1)
    assert report.tokens == sum(len(sequence.ids) for sequence in row.sequences)


def test_turns_are_dropped_from_the_start_of_a_prompt_and_its_tools_stay() -> None:
    tokenizer = byte_level(WITH_TOOLS)
    turns = conversation("the cat", "sat on", "the mat")
    pair = Pair(turns, conversation("x", "sat")[1:], conversation("x", "mat")[1:], HERE, tools=TOOLS)
    full = Encoder(tokenizer).encode_pairs([pair]).rows[0].chosen
    limits = Limits(max_prompt=full.first - 1)
    cut = Encoder(tokenizer, limits=limits).encode_pairs([pair]).rows[0].chosen
    prompt = halves(tokenizer, cut)[0]
    assert "天気" in prompt
    assert "the mat" in prompt
    assert "the cat" not in prompt


def test_newline_that_chatml_writes_behind_eos_is_not_part_of_the_answer() -> None:
    tokenizer = byte_level(CHATML)
    sequence = encode(tokenizer, conversation("cat?"), (Message("assistant", "mat\n"),))
    assert halves(tokenizer, sequence)[1] == "mat\n" + EOS


@pytest.mark.parametrize("written", ["mat", "mat<|eos|>", "mat<|eos|> \n", "mat<|eos|>\n<|eos|>"])
def test_eos_that_text_already_has_is_not_doubled(written: str) -> None:
    tokenizer = byte_level()
    assert halves(tokenizer, encode(tokenizer, "cat", written)) == ("cat", "mat" + EOS)


def test_answer_without_a_prompt_begins_at_zero_or_behind_bos() -> None:
    assert encode(byte_level(), "", "the mat").first == 0
    sequence = encode(byte_level(bos=True), "", "the mat")
    assert halves(byte_level(bos=True), sequence) == (BOS, "the mat" + EOS)
    written = encode(byte_level(bos=True), "", BOS + "the mat")
    np.testing.assert_array_equal(written.ids, sequence.ids)


def test_truncation_left_on_the_users_tokenizer_cuts_nothing_and_stays() -> None:
    tokenizer = wrap(Tokenizer.from_str(byte_level().backend_tokenizer.to_str()), None, bos=False)
    tokenizer("the cat sat", truncation=True, max_length=2)
    assert tokenizer.backend_tokenizer.truncation["max_length"] == 2
    sequence = encode(tokenizer, "the cat sat", " on the mat")
    assert halves(tokenizer, sequence) == ("the cat sat", " on the mat" + EOS)
    assert tokenizer.backend_tokenizer.truncation["max_length"] == 2


# Dummy spaces

DUMMY_SPACE = {scheme: sentencepiece(scheme) for scheme in ("always", "first", "legacy")}


@pytest.mark.parametrize("scheme", DUMMY_SPACE)
def test_no_dummy_space_comes_before_an_answer(scheme: str) -> None:
    tokenizer = DUMMY_SPACE[scheme]
    sequence = encode(tokenizer, "the ", "cat")
    assert tokens(tokenizer, sequence.ids)[:2] == [BOS, "▁the"]
    assert tokens(tokenizer, sequence.ids[sequence.first :]) == ["cat", EOS]
    assert tokens(tokenizer, encode(tokenizer, "the", " cat").ids) == [BOS, "▁the", "▁cat", EOS]


def test_no_dummy_space_comes_before_an_answer_in_byte_level_tokenizers() -> None:
    tokenizer = byte_level(prefix_space=True)
    assert halves(tokenizer, encode(tokenizer, "the c", "at")) == (" the c", "at" + EOS)


@pytest.mark.parametrize("scheme", DUMMY_SPACE)
def test_document_without_a_prompt_begins_as_the_tokenizer_begins_it(scheme: str) -> None:
    tokenizer = DUMMY_SPACE[scheme]
    assert encode(tokenizer, "", "the cat").ids.tolist() == [*tokenizer("the cat").input_ids, tokenizer.eos_token_id]


@pytest.mark.parametrize("scheme", DUMMY_SPACE)
def test_conversation_in_pieces_is_tokenised_as_the_tokenizer_reads_it_whole(scheme: str) -> None:
    tokenizer = sentencepiece(scheme, CHATML)
    turns = conversation("the cat", "sat on", "the mat", "and the user")
    whole = tokenizer.apply_chat_template([asdict(turn) for turn in turns], tokenize=False)
    ids = tokenizer(whole.removesuffix("\n")).input_ids
    assert encode(tokenizer, (), turns).ids.tolist() == ids


# Conversations of several answers


@pytest.mark.parametrize("template", [CHATML, WRITES_BOS])
def test_weights_are_one_on_answers_through_their_eos_and_zero_between(template: str) -> None:
    tokenizer = byte_level(template, bos=True)
    sequence = encode(tokenizer, (), conversation("the cat?", "sat", "on?", "the mat"))
    assert sequence.weights is not None
    assert sequence.weights.dtype == np.float32
    answers = sequence.ids[sequence.first :]
    assert len(sequence.weights) == len(answers)
    assert read(tokenizer, answers[sequence.weights == 1]) == f"sat{EOS}the mat{EOS}"
    assert read(tokenizer, answers[sequence.weights == 0]).strip().startswith(f"{START}user")
    assert sequence.weights[0] == sequence.weights[-1] == 1


def test_one_answer_has_no_weights() -> None:
    assert encode(byte_level(CHATML), (), conversation("cat?", "mat")).weights is None


# Pairs


@given(TEXT, TEXT, TEXT)
def test_both_answers_of_a_pair_follow_the_same_prompt_ids(prompt: str, chosen: str, rejected: str) -> None:
    pair = Encoder(byte_level(bos=True)).encode_pairs([Pair(prompt, chosen, rejected, HERE)]).rows[0]
    first = pair.chosen.first
    assert pair.rejected.first == first
    np.testing.assert_array_equal(pair.chosen.ids[:first], pair.rejected.ids[:first])
    assert pair.origin == HERE
    assert [read(byte_level(), s.ids[first:]) for s in (pair.chosen, pair.rejected)] == [chosen + EOS, rejected + EOS]


def test_answers_that_begin_with_different_turns_are_refused() -> None:
    pair = Pair((), conversation("cat?", "mat"), conversation("mat?", "cat"), HERE)
    with pytest.raises(DataError, match=r"rows\.jsonl:7: the answers begin with different turns"):
        Encoder(byte_level(CHATML)).encode_pairs([pair])


# Limits


def test_prompt_over_its_limit_loses_whole_turns_behind_the_system_message() -> None:
    tokenizer = byte_level(CHATML)
    system = Message("system", "a system")
    turns = conversation("the cat", "sat", "on the", "mat", "and?")
    answer = (Message("assistant", "the user"),)
    expected = encode(tokenizer, (system, *turns[2:]), answer)
    for spare in (0, 3):
        sequence = encode(tokenizer, (system, *turns), answer, Limits(max_prompt=expected.first + spare))
        np.testing.assert_array_equal(sequence.ids, expected.ids)
    fewer = encode(tokenizer, (system, *turns), answer, Limits(max_prompt=expected.first - 1))
    np.testing.assert_array_equal(fewer.ids, encode(tokenizer, (system, *turns[4:]), answer).ids)


def test_prompt_of_text_loses_whole_turns_of_a_transcript() -> None:
    last = "\n\nHuman: the mat?\n\nAssistant:"
    room = encode(byte_level(), last, "").first
    sequence = encode(byte_level(), "\n\nHuman: the cat?\n\nAssistant: sat" + last, " on", Limits(max_prompt=room))
    assert halves(byte_level(), sequence) == (last, " on" + EOS)


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_last_turn_that_is_too_long_loses_tokens_behind_bos(limit: int) -> None:
    tokenizer = byte_level(WRITES_BOS, bos=True)
    turns, answer = conversation("mat?", "cat", "the cat sat on the mat"), (Message("assistant", "and"),)
    full, cut = encode(tokenizer, turns[2:], answer), encode(tokenizer, turns, answer, Limits(max_prompt=limit))
    assert cut.first == limit
    assert cut.ids[0] == tokenizer.bos_token_id
    np.testing.assert_array_equal(cut.ids[1:], full.ids[full.first - limit + 1 :])


def test_cut_prompts_and_tokens_are_counted() -> None:
    pairs = [Pair("the cat sat on", " the", " a", HERE), Pair("mat", " the", " a", HERE)]
    full = Encoder(byte_level()).encode_pairs(pairs)
    cut = Encoder(byte_level(), limits=Limits(max_prompt=2)).encode_pairs(pairs)
    assert cut.report.prompts_cut == 1
    assert cut.report.prompt_tokens_cut == full.rows[0].chosen.first - 2
    assert cut.report.tokens == full.report.tokens - 2 * cut.report.prompt_tokens_cut
    assert full.report.prompts_cut == full.report.prompt_tokens_cut == 0


def test_overlong_rows_are_refused_with_their_lengths() -> None:
    pairs = [Pair("the", " cat", " cat" * (i + 1), Origin("rows.jsonl", i)) for i in range(30)]
    with pytest.raises(DataError) as caught:
        report_of(pairs, Limits(max_length=4))
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("28 of 30 rows are longer than max_length = 4 tokens; raise it")
    assert lines[1] == "  rows.jsonl:2: prompt 1 tokens, answer 2 and 4"
    assert lines[-1] == "  and 8 more"
    assert len(lines) == 22


def test_pair_is_dropped_and_counted_where_either_answer_is_overlong() -> None:
    short, chosen, rejected = " cat", (" cat" * 9, " cat"), (" cat", " cat" * 9)
    pairs = [Pair("the", *answers, HERE) for answers in ((short, short), chosen, rejected)]
    encoded = Encoder(byte_level(), limits=Limits(max_length=5, on_overflow="drop")).encode_pairs(pairs)
    assert len(encoded.rows) == encoded.report.encoded == 1
    assert encoded.report.overlong == 2
    assert encoded.report.longest == 3


def test_limits_that_cannot_be_meant_are_refused() -> None:
    with pytest.raises(ConfigError, match="max_prompt is 0; use 1 or more"):
        Limits(max_prompt=0)
    with pytest.raises(ConfigError, match="without max_length"):
        Limits(on_overflow="drop")
    with pytest.raises(ConfigError, match="'refuse' or 'drop'"):
        Limits(on_overflow="truncate")  # type: ignore[arg-type]


# Rows refused and counted

GOOD = Pair(conversation("cat?"), (Message("assistant", "mat"),), (Message("assistant", "cat"),), HERE)


def injected(line: int) -> Pair:
    return Pair(conversation(f"cat?{EOS}"), GOOD.chosen, GOOD.rejected, Origin("rows.jsonl", line))


def test_bad_rows_are_refused_together_each_with_file_and_line() -> None:
    with pytest.raises(DataError) as caught:
        report_of([GOOD, *map(injected, range(1, 26))])
    lines = str(caught.value).splitlines()
    assert lines[0] == "25 of 26 rows cannot be used; mend or skip them:"
    assert lines[1].startswith("  rows.jsonl:1: the message of role 'user' contains the special token '<|eos|>'")
    assert lines[-1] == "  and 5 more"


def test_bad_rows_are_left_out_and_counted_with_skip_bad() -> None:
    encoded = Encoder(byte_level(CHATML), skip_bad=True).encode_pairs([injected(1), GOOD, injected(3)])
    assert [row.origin for row in encoded.rows] == [HERE]
    assert (encoded.report.rows, encoded.report.encoded, encoded.report.bad) == (3, 1, 2)


def test_special_tokens_in_text_are_read_as_such_and_counted() -> None:
    pairs = [Pair(f"{START}user\ncat?", " mat", " cat", HERE), Pair("cat?", " mat", " cat", HERE)]
    encoded = Encoder(byte_level()).encode_pairs(pairs)
    assert encoded.rows[0].chosen.ids[0] == byte_level().convert_tokens_to_ids(START)
    assert encoded.report.special_in_text == 1


def test_empty_answers_are_kept_and_counted() -> None:
    pairs = [Pair("cat?", " ", "mat", HERE), Pair("cat?", "a", "", HERE), Pair("cat?", "a", "b", HERE)]
    encoded = Encoder(byte_level()).encode_pairs(pairs)
    assert (encoded.report.encoded, encoded.report.empty_answers) == (3, 2)
    blank = Pair(GOOD.prompt, (Message("assistant", ""),), GOOD.rejected, HERE)
    assert report_of([GOOD, blank]).empty_answers == 1


def test_turns_after_the_last_answer_are_counted() -> None:
    rows = [Demonstration((), conversation("cat?", "mat", "thanks"), HERE)]
    assert Encoder(byte_level(CHATML)).encode_demonstrations(rows).report.trailing_turns == 1


def test_report_is_counts_alone_and_describes_itself_in_a_line() -> None:
    report = report_of([injected(1), GOOD], skip_bad=True)
    assert all(type(count) is int for count in asdict(report).values())
    assert re.fullmatch(r"1 of 2 rows encoded; \d+ tokens, longest \d+; 1 unusable rows left out", report.describe())


def test_nothing_encodes_to_nothing() -> None:
    encoded = Encoder(byte_level()).encode_pairs([])
    assert encoded.rows == []
    assert set(asdict(encoded.report).values()) == {0}


# Tokenizers


def test_slow_tokenizers_are_refused() -> None:
    with pytest.raises(ModelError, match="str is not a fast tokenizer"):
        Encoder("not a tokenizer")  # type: ignore[arg-type]


def test_tokenizer_without_eos_is_refused() -> None:
    backend = byte_level().backend_tokenizer
    with pytest.raises(ModelError, match=r"set tokenizer\.eos_token"):
        Encoder(PreTrainedTokenizerFast(tokenizer_object=backend))


def test_importing_the_encoder_loads_neither_torch_nor_transformers() -> None:
    code = "import sys, kilter.tokens.encoding as _; print({'torch', 'transformers'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


# Real data


@cache
def hh_tiny() -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(SHARED / "models" / "hh-tiny")


@cache
def hh_pairs() -> list[Pair]:
    """HH transcripts as text: the prompt ends where the last answer begins."""
    pairs = []
    with gzip.open(SHARED / "data" / "hh_harmless_test.jsonl.gz", "rt") as lines:
        for number, line in enumerate(lines, 1):
            (prompt, chosen), (other, rejected) = (
                split_transcript(json.loads(line)[k]) for k in ("chosen", "rejected")
            )
            if prompt == other:
                pairs.append(Pair(prompt, chosen, rejected, Origin("hh", number)))
    return pairs


def split_transcript(transcript: str) -> tuple[str, str]:
    start = transcript.rindex("\n\nAssistant:") + len("\n\nAssistant:")
    return transcript[:start], transcript[start:]


def as_conversation(prompt: str, answer: str) -> tuple[Message, ...]:
    speakers = {"Human": "user", "Assistant": "assistant"}
    parts = re.split(r"\n\n(Human|Assistant): ", prompt.removesuffix("\n\nAssistant:"))[1:]
    turns = [Message(speakers[name], said) for name, said in zip(parts[::2], parts[1::2], strict=True)]
    return (*turns, Message("assistant", answer.removeprefix(" ")))


@needs_shared
def test_real_pairs_are_encoded_without_losing_a_character() -> None:
    encoded = Encoder(hh_tiny()).encode_pairs(hh_pairs())
    assert encoded.report.encoded == len(hh_pairs()) > 2000
    for pair, row in zip(hh_pairs()[::50], encoded.rows[::50], strict=True):
        assert halves(hh_tiny(), row.chosen) == (pair.prompt, f"{pair.chosen}<|endoftext|>")
        assert halves(hh_tiny(), row.rejected) == (pair.prompt, f"{pair.rejected}<|endoftext|>")


@needs_shared
def test_real_conversations_in_hh_style_give_the_ids_of_their_transcripts() -> None:
    texts = [pair for pair in hh_pairs()[:300] if "\n\nAssistant:\n" not in str(pair.prompt)]
    conversations = []
    for pair in texts:
        chosen, rejected = (as_conversation(str(pair.prompt), str(a)) for a in (pair.chosen, pair.rejected))
        conversations.append(Pair(chosen[:-1], chosen[-1:], rejected[-1:], pair.origin))
    encoder = Encoder(hh_tiny(), style="hh")
    for text, turns in zip(encoder.encode_pairs(texts).rows, encoder.encode_pairs(conversations).rows, strict=True):
        np.testing.assert_array_equal(text.chosen.ids, turns.chosen.ids)
        assert text.rejected.first == turns.rejected.first


# Prompts alone


@pytest.mark.parametrize("limit", [None, 40, 9, 2])
@pytest.mark.parametrize("bos", [False, True])
def test_a_prompt_alone_has_the_ids_it_has_before_an_answer(limit: int | None, bos: bool) -> None:
    tokenizer = byte_level(WRITES_BOS, bos=bos)
    turns = conversation("mat?", "cat", "the cat sat on the mat")
    for prompt, answer in ((turns, (Message("assistant", "and"),)), ("the cat sat on", " the")):
        limits = Limits(max_prompt=limit)
        before = encode(tokenizer, prompt, answer, limits)
        (alone,), report = Encoder(tokenizer, limits=limits).encode_prompts([Prompt(prompt, HERE)])
        np.testing.assert_array_equal(alone.ids, before.ids[: before.first])
        assert alone.origin == HERE
        assert (report.tokens, report.empty_answers) == (len(alone.ids), 0)
        assert (report.prompts_cut > 0) == (limit is not None and before.first == limit)


def test_a_prompt_that_names_a_special_token_is_refused_in_a_conversation_and_counted_in_text() -> None:
    encoder = Encoder(byte_level(CHATML))
    with pytest.raises(DataError, match="contains the special token"):
        encoder.encode_prompts([Prompt((Message("user", "a" + EOS),), HERE)])
    assert encoder.encode_prompts([Prompt("a" + EOS, HERE)]).report.special_in_text == 1
