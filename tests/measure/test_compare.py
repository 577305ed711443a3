"""Claims about `kilter compare`, against the models' own forward with all logits at once."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from kilter.divergence.estimates import UNBIASED, Estimate
from kilter.errors import ConfigError, DataError, NonFiniteError
from kilter.measure import compare as compare_module
from kilter.measure import texts as texts_module
from kilter.measure.compare import Comparison, compare
from kilter.measure.compare_table import TITLES, shown
from kilter.measure.config import CompareConfig, DivergenceName
from kilter.measure.texts import windows
from kilter.measure.vocabularies import vocabulary_difference
from kilter.model.adapter import LoraSettings, save_adapter, train_adapter
from kilter.model.row_functions import DIVERGENCES
from kilter.model.token_values import token_values
from kilter.tokens.sequence import TokenSequence

MakeModel = Callable[..., PreTrainedModel]
Save = Callable[..., str]


def tokenizer(eos: str = "<eos>", words: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """One token a byte."""
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *words]
    backend = Tokenizer(models.BPE({eos: 0} | {piece: i for i, piece in enumerate(pieces, 1)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=eos)


@pytest.fixture(scope="module")
def save(tiny_model: MakeModel, tmp_path_factory: pytest.TempPathFactory) -> Save:
    """Saves a tiny model with a tokenizer, and returns its path."""

    def make(name: str, *, own: PreTrainedTokenizerFast | None = None, spread: float = 0.1, **changes: Any) -> str:
        own = own or tokenizer()
        directory = tmp_path_factory.mktemp("models") / name
        tiny_model("llama", spread=spread, **({"vocab_size": len(own)} | changes)).save_pretrained(directory)
        own.save_pretrained(directory)
        return str(directory)

    return make


@pytest.fixture(scope="module")
def both(save: Save) -> tuple[str, str]:
    return save("a"), save("b", seed=1)


ROWS = [
    {"prompt": "how big is a bee?", "chosen": " small", "rejected": " a giant"},
    {"prompt": "who?", "chosen": " me", "rejected": " you, perhaps"},
    {"prompt": "how big is a bee?", "chosen": " very small", "rejected": " no"},
    {"prompt": "?", "chosen": "yes", "rejected": "no"},
]


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def run(models: tuple[str, str], *, terminal: bool = False, width: int = 80, **settings: Any) -> tuple[Comparison, str]:
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=terminal, color_system=None)
    return compare(*models, CompareConfig(**{"device": "cpu"} | settings), console), stream.getvalue()


def report(models: tuple[str, str], path: Path, **settings: Any) -> tuple[Comparison, dict[str, np.ndarray]]:
    found, _ = run(models, token_report=path, **settings)
    table = pq.read_table(path)
    return found, {name: table[name].to_numpy() for name in table.column_names}


def of_whole_logits(models: tuple[str, str], prompt: str, answer: str) -> dict[str, np.ndarray]:
    """What a report should say of an answer's tokens and the end token after it, from all logits in float64."""
    own = tokenizer()
    ids = own(prompt + answer)["input_ids"] + [own.eos_token_id]
    first = max(1, len(own(prompt)["input_ids"]))
    rows = torch.arange(first - 1, len(ids) - 1)
    with torch.no_grad():
        log_p, log_q = (
            AutoModelForCausalLM.from_pretrained(name, dtype=torch.float64)(torch.tensor([ids]))
            .logits[0, rows]
            .log_softmax(-1)
            for name in models
        )
    target = torch.tensor(ids[first:])[:, None]
    p, q = log_p.exp(), log_q.exp()
    middle = ((p + q) / 2).log()
    columns = {
        "position": rows + 1,
        "token_id": target[:, 0],
        "log_prob_a": log_p.gather(1, target)[:, 0],
        "log_prob_b": log_q.gather(1, target)[:, 0],
        "kl_a_b": (p * (log_p - log_q)).sum(-1),
        "kl_b_a": (q * (log_q - log_p)).sum(-1),
        "top_a": log_p.argmax(-1),
        "top_b": log_q.argmax(-1),
        "js": (p * (log_p - middle) + q * (log_q - middle)).sum(-1) / 2,
        "total_variation": (p - q).abs().sum(-1) / 2,
    }
    return {name: column.numpy() for name, column in columns.items()}


@pytest.mark.parametrize("node_budget", [33, 2048])
def test_every_token_of_the_report_is_what_whole_logits_say(
    node_budget: int, both: tuple[str, str], pairs: Path, tmp_path: Path
) -> None:
    settings = {"data": pairs, "also": ("js", "total_variation"), "node_budget": node_budget}
    found, columns = report(both, tmp_path / "tokens.parquet", **settings)
    wanted = [
        (line, part, of_whole_logits(both, row["prompt"], row[part]))
        for line, row in enumerate(ROWS, 1)
        for part in ("chosen", "rejected")
    ]
    assert columns["line"].tolist() == [line for line, _, of in wanted for _ in of["position"]]
    assert columns["part"].tolist() == [part for _, part, of in wanted for _ in of["position"]]
    for name in wanted[0][2]:
        together = np.concatenate([of[name] for _, _, of in wanted])
        np.testing.assert_allclose(columns[name], together, rtol=2e-4, atol=1e-6, err_msg=name)
    assert "".join(columns["token"][:7]) == " small<eos>"
    assert found.tokens == len(columns["line"])
    assert found.documents == 4


def test_the_summary_is_that_of_the_report(both: tuple[str, str], pairs: Path, tmp_path: Path) -> None:
    found, columns = report(both, tmp_path / "tokens.parquet", data=pairs, also=("js",))
    lines = columns["line"]

    def estimate(value: np.ndarray) -> tuple[float, float]:
        """Mean over tokens; its error from the rows' sums of what each token differs from the mean by."""
        residual = np.array([(value - value.mean())[lines == line].sum() for line in np.unique(lines)])
        rows = len(residual)
        return value.mean(), math.sqrt(rows / (rows - 1) * (residual**2).sum()) / len(value)

    def pair(found: Estimate) -> tuple[float, float]:
        assert found.samples == len(lines)
        return found.value, found.standard_error

    for name in ("kl_a_b", "kl_b_a", "js"):
        spread = found.divergences[name]
        assert pair(spread.mean) == pytest.approx(estimate(columns[name]), rel=1e-6)
        for at, value in spread.percentiles.items():
            wanted = np.percentile(columns[name], float(at), method="inverted_cdf")
            assert value == pytest.approx(wanted, rel=2e-4)
        assert spread.largest == columns[name].max()
    a, b = columns["log_prob_a"], columns["log_prob_b"]
    assert pair(found.nats_a) == pytest.approx(estimate(-a), rel=1e-6)
    assert found.perplexity_a.value == pytest.approx(math.exp(-a.mean()))
    assert found.perplexity_b.value == pytest.approx(math.exp(-b.mean()))
    ratio = estimate(b - a)
    assert found.perplexity_ratio.value == pytest.approx(found.perplexity_a.value / found.perplexity_b.value)
    assert found.perplexity_ratio.standard_error == pytest.approx(math.exp(ratio[0]) * ratio[1], rel=1e-6)
    assert pair(found.same_top) == pytest.approx(estimate(1.0 * (columns["top_a"] == columns["top_b"])), rel=1e-6)
    assert found.correlation == pytest.approx(np.corrcoef(a, b)[0, 1])
    change = np.exp(a) - np.exp(b)
    assert pair(found.probability_change) == pytest.approx(estimate(change), rel=1e-6)
    assert found.probability_change_rms == pytest.approx(math.sqrt((change**2).mean()))
    # The first token of an answer is predicted alike for both answers, whatever it is.
    apart = np.maximum(columns["kl_a_b"], columns["kl_b_a"])
    distinct = {(line, at, token): x for line, at, token, x in
                zip(lines, columns["position"], columns["token_id"], apart, strict=True)}  # fmt: skip
    assert [token.apart for token in found.worst] == sorted(distinct.values(), reverse=True)[:10]


def test_the_other_way_round_directions_and_the_ratio_are_swapped(both: tuple[str, str], pairs: Path) -> None:
    there, back = (run(models, data=pairs)[0] for models in (both, both[::-1]))
    assert there.divergences["kl_a_b"].mean == pytest.approx(back.divergences["kl_b_a"].mean)
    assert there.divergences["kl_a_b"].mean.value != pytest.approx(there.divergences["kl_b_a"].mean.value, rel=1e-3)
    assert there.perplexity_ratio.value == pytest.approx(1 / back.perplexity_ratio.value)
    assert there.probability_change.value == pytest.approx(-back.probability_change.value)


def test_a_model_and_itself_are_apart_by_exactly_nothing(both: tuple[str, str], pairs: Path) -> None:
    found, text = run((both[0], both[0]), data=pairs, worst=1)
    for spread in found.divergences.values():
        assert (spread.mean.value, spread.mean.standard_error) == (0, 0)
        assert {*spread.percentiles.values(), spread.largest} == {0}
    for estimate in (found.perplexity_ratio, found.same_top):
        assert (estimate.value, estimate.standard_error) == (1, 0)
    assert found.correlation == 1
    assert "0 ± 0" in text


@pytest.mark.parametrize("block_tokens", [1, 60])
def test_the_result_does_not_depend_on_the_cut_into_blocks(
    block_tokens: int, both: tuple[str, str], pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(both, data=pairs)[0]
    monkeypatch.setattr(texts_module, "BLOCK_TOKENS", block_tokens)
    monkeypatch.setattr(texts_module, "LOOKED_AT_ONCE", 2)
    cut = run(both, data=pairs)[0]
    assert cut.texts == whole.texts
    for name in ("value", "standard_error"):
        got, wanted = (getattr(of.divergences["kl_a_b"].mean, name) for of in (cut, whole))
        assert got == pytest.approx(wanted, rel=1e-5)
    assert cut.correlation == pytest.approx(whole.correlation, abs=1e-6)
    assert [token.position for token in cut.worst] == [token.position for token in whole.worst]


def test_prompts_are_measured_on_demand_and_once_for_each_row(
    both: tuple[str, str], pairs: Path, tmp_path: Path
) -> None:
    _, columns = report(both, tmp_path / "tokens.parquet", data=pairs, scored="all")
    first = [int(at) for at, line, part in zip(*(columns[n] for n in ("position", "line", "part")), strict=True)
             if (line, part) == (1, "chosen")]  # fmt: skip
    other = [int(at) for at, line, part in zip(*(columns[n] for n in ("position", "line", "part")), strict=True)
             if (line, part) == (1, "rejected")]  # fmt: skip
    assert first == list(range(1, 24))
    assert other == list(range(17, 26))


def test_a_first_token_without_anything_before_it_is_counted_and_not_measured(
    both: tuple[str, str], pairs: Path
) -> None:
    assert run(both, data=pairs)[0].texts.without_context == 0
    found, text = run(both, data=pairs, scored="all")
    assert found.texts.without_context == 4
    assert "4 first tokens have nothing before them and are not measured" in text
    _, text = run(both, data=pairs, scored="all", last=1)
    assert "1 first token has nothing before it and is not measured" in text


def test_documents_demonstrations_and_text_are_read(both: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a bee is small\n\nso is a flea\n")
    (tmp_path / "b.jsonl").write_text('{"text": "a bee is small"}\n{"text": "so is a flea"}\n')
    (tmp_path / "c.jsonl").write_text('{"prompt": "a bee is", "completion": " small"}\n')
    text, documents, answered = (run(both, data=tmp_path / name)[0] for name in ("a.txt", "b.jsonl", "c.jsonl"))
    assert text.tokens == documents.tokens == 14 + 12
    assert text.divergences == documents.divergences
    assert answered.tokens == 7
    assert {token.part for token in documents.worst} == {"completion"}


def test_prompts_alone_are_refused(both: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "how big?"}\n')
    with pytest.raises(DataError, match=r"prompts\.jsonl"):
        run(both, data=tmp_path / "prompts.jsonl")


@pytest.mark.parametrize("length", [2, 3, 4, 9, 10, 11])
@pytest.mark.parametrize("first", [0, 1, 5, 9])
def test_windows_score_every_token_of_the_completion_exactly_once(length: int, first: int) -> None:
    ids = np.arange(10, 20, dtype=np.int32)
    for weights in (None, np.array([1, 0] * 5, np.float32)[: 10 - first]):
        scored = []
        for start, window in windows(TokenSequence(ids, first, weights), length):
            assert window.ids.tolist() == ids[start : start + length].tolist()
            assert len(window.ids) <= length
            passage = texts_module.Passage(None, "", start, window)  # type: ignore[arg-type]
            scored += (start + passage.scored).tolist()
        places = range(first, 10) if weights is None else first + np.flatnonzero(weights)
        assert scored == [place for place in places if place > 0]


LONG = " ".join(["how small a bee is"] * 8)  # 151 tokens and the end


def test_a_text_longer_than_the_model_is_measured_window_by_window(both: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text(LONG + "\n")
    found, columns = report(both, tmp_path / "tokens.parquet", data=tmp_path / "long.txt")
    assert columns["position"].tolist() == list(range(1, 152))
    assert found.texts.windowed == 1
    assert "1 long text measured in windows of 64 tokens (the model's positions)" in found.texts.describe()
    for setting, flag in (("max_length", "--max-length"), ("node_budget", "--node-budget")):
        _, text = run(both, data=tmp_path / "long.txt", **{setting: 40})
        assert f"1 long text measured in windows of 40 tokens ({flag})" in text
    own = tokenizer()
    ids = own(LONG)["input_ids"] + [own.eos_token_id]
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(both[0])(torch.tensor([ids[63:127]])).logits[0]
    wanted = logits.log_softmax(-1)[:-1].gather(1, torch.tensor(ids[64:127])[:, None])[:, 0]
    np.testing.assert_allclose(columns["log_prob_a"][63:126], wanted.numpy(), rtol=1e-4)


def test_long_texts_are_refused_or_dropped_on_demand(both: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "some.txt").write_text(f"a bee\n{LONG}\n")
    with pytest.raises(DataError, match=r"1 of 2 rows are longer than 64 tokens.*split.*\n.*some\.txt:2: 152 tokens"):
        run(both, data=tmp_path / "some.txt", on_overflow="refuse")
    found, text = run(both, data=tmp_path / "some.txt", on_overflow="drop")
    assert (found.texts.dropped, found.tokens) == (1, 5)
    assert "1 over-long row left out" in text
    (tmp_path / "long.txt").write_text(LONG)
    with pytest.raises(DataError, match="no token is left to compare models on"):
        run(both, data=tmp_path / "long.txt", on_overflow="drop")


def test_rows_that_cannot_be_used_are_refused_together_or_left_out(both: tuple[str, str], tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl"
    good = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}
    bad = {"messages": [{"role": "user", "content": "<eos>"}, {"role": "assistant", "content": "ho"}]}
    path.write_text("".join(json.dumps(row) + "\n" for row in (bad, good, bad)))
    with pytest.raises(DataError, match=r"2 of 3 rows cannot be used(.|\n)*chats\.jsonl:1: (.|\n)*chats\.jsonl:3: "):
        run(both, data=path)
    found, text = run(both, data=path, skip_bad=True)
    assert (found.documents, found.texts.refused) == (1, 2)
    assert "2 unusable rows left out" in text


@pytest.mark.parametrize(
    ("own", "told"),
    [
        (tokenizer(words=["bee", "flea"]), r'257 tokens against 259; only the second has "bee", "flea"'),
        (tokenizer(eos="<end>"), r'only the first has "<eos>"; only the second has "<end>"'),
    ],
)
def test_different_vocabularies_are_refused_with_the_difference_named(
    own: PreTrainedTokenizerFast, told: str, both: tuple[str, str], save: Save, pairs: Path
) -> None:
    other = save("other", own=own)
    with pytest.raises(ConfigError, match=told) as caught:
        run((both[0], other), data=pairs)
    assert both[0] in str(caught.value)
    assert other in str(caught.value)


def test_tokens_with_another_id_are_named_with_both() -> None:
    wanted = '2 of 3 tokens have another id: "a" (0 and 1), "b" (1 and 0)'
    assert vocabulary_difference({"a": 0, "b": 1, "c": 2}, {"a": 1, "b": 0, "c": 2}) == wanted
    five = {name: place for place, name in enumerate("abcde")}
    assert vocabulary_difference(five, {}) == '5 tokens against 0; only the first has "a", "b", "c" and 2 more'


def test_every_divergence_of_the_table_can_be_asked_for_and_has_a_heading() -> None:
    asked = set(get_args(DivergenceName))
    assert asked == DIVERGENCES.keys() - {"kl", "reverse_kl"}
    assert TITLES.keys() == asked | {"kl_a_b", "kl_b_a"}


def test_heads_of_different_size_are_refused_with_both_sizes(both: tuple[str, str], save: Save, pairs: Path) -> None:
    with pytest.raises(ConfigError, match=r"257 logits and .* 264, and their tokenizer 257 tokens \(what is beyond"):
        run((both[0], save("padded", vocab_size=264)), data=pairs)


def test_tokenizers_that_split_otherwise_are_told_and_compared(both: tuple[str, str], save: Save, pairs: Path) -> None:
    spaced = tokenizer()
    spaced.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False)
    spaced.chat_template = "{{ messages }}"
    found, text = run((both[0], save("spaced", own=spaced, seed=1)), data=pairs)
    assert found.divergences == run(both, data=pairs)[0].divergences
    assert "share their tokens but not their pre_tokenizer" in text
    assert "the chat templates differ" in text


def test_an_adapter_is_compared_with_its_base(save: Save, pairs: Path, tmp_path: Path) -> None:
    base = save("base")
    model = AutoModelForCausalLM.from_pretrained(base)
    train_adapter(model, LoraSettings(rank=2))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(0))
    save_adapter(model, tmp_path / "adapter", base)
    found, _ = run((str(tmp_path / "adapter"), base), data=pairs)
    assert found.divergences["kl_a_b"].mean.value > 1e-4


def test_scores_that_are_no_numbers_are_told_with_the_row(
    both: tuple[str, str], pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: Any, **settings: Any) -> Any:
        values = token_values(*arguments, **settings)
        values[2][1][-1] = math.nan
        return values

    monkeypatch.setattr(compare_module, "token_values", broken)
    with pytest.raises(NonFiniteError, match=r"pairs\.jsonl:2: a log-prob of model B is not a number"):
        run(both, data=pairs)


def test_json_holds_what_is_printed_and_nothing_else_goes_to_standard_output(
    both: tuple[str, str], pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, text = run(both, data=pairs, as_json=True, also=("js",))
    said = json.loads(text)
    assert said["divergences"]["kl_a_b"]["mean"]["value"] == found.divergences["kl_a_b"].mean.value
    assert said["divergences"]["js"]["percentiles"]["99.9"] == found.divergences["js"].percentiles["99.9"]
    assert said["worst"][0]["origin"].startswith(str(pairs))
    assert "4 rows" in capsys.readouterr().err


def test_infinity_is_written_to_json_by_name(both: tuple[str, str], pairs: Path) -> None:
    found, text = run(both, data=pairs, last=1, as_json=True)
    assert math.isnan(found.divergences["kl_a_b"].mean.standard_error)
    assert json.loads(text)["divergences"]["kl_a_b"]["mean"]["standard_error"] == "nan"


def test_the_worst_tokens_are_shown_in_context(both: tuple[str, str], pairs: Path) -> None:
    found, text = run(both, data=pairs, worst=3)
    assert "the 3 tokens where they are furthest apart, by the larger KL" in text
    for token in found.worst:
        assert f"{pairs}:{token.origin.line}, {token.part}, token {token.position}: KL(A, B) {token.kl_a_b:.4g}" in text
        assert f"[{token.token}]" in text
    worst = found.worst[0]
    row = ROWS[worst.origin.line - 1]
    whole = row["prompt"] + row[worst.part] + "<eos>"
    assert whole.startswith(worst.context + worst.token)


def test_what_is_printed_fits_eighty_columns(both: tuple[str, str], pairs: Path) -> None:
    also = ("jeffreys", "js", "total_variation", "squared_hellinger", "chi2", "reverse_chi2")
    _, text = run(both, data=pairs, also=also, worst=0)
    assert "…" not in text
    assert all(len(line) <= 80 for line in text.splitlines() if "±" in line)
    for heading in ("KL(A, B)", "KL(B, A)", "JS", "squared Hellinger", "chi2(B, A)"):
        assert heading in text


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (1.23456, 0.0123, "1.235 ± 0.012"),
        (59.83, 4.2, "59.8 ± 4.2"),
        (0.0, 0.0, "0 ± 0"),
        (2.5e-7, 3.1e-8, "(2.50 ± 0.31)e-07"),
        (1.000000025, 6.0e-8, "1.000000025 ± 0.000000060"),
        (2.0, math.nan, "2"),
        (math.inf, math.nan, "inf"),
    ],
)
def test_errors_have_two_digits_and_values_as_many_places(value: float, error: float, text: str) -> None:
    assert shown(Estimate(value, error, 1, UNBIASED)) == text


def test_a_report_with_another_ending_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no ending that names a table"):
        run(("no-model", "none"), data="none", token_report=tmp_path / "tokens.xlsx")


def test_a_report_does_not_replace_the_texts_or_anything_else_unasked(pairs: Path, tmp_path: Path) -> None:
    before = pairs.read_bytes()
    for settings in ({}, {"overwrite": True}):
        with pytest.raises(ConfigError, match=r"pairs.jsonl is one of the files to read"):
            run(("no-model", "none"), data=pairs, token_report=pairs, **settings)
    assert pairs.read_bytes() == before
    (tmp_path / "tokens.csv").touch()
    with pytest.raises(ConfigError, match=r"tokens.csv exists; .*--overwrite"):
        run(("no-model", "none"), data=pairs, token_report=tmp_path / "tokens.csv")


def test_a_model_beside_itself_has_no_token_apart(both: tuple[str, str], pairs: Path) -> None:
    found, text = run((both[0], both[0]), data=pairs)
    assert found.worst == ()
    assert "no token is apart" in text
    assert "furthest apart" not in text
