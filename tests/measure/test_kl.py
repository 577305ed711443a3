"""Claims about `kilter kl`: what it reads, what it says of what it cannot read, and what it prints."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from kilter.errors import ConfigError, DataError, DistributionError, KilterError
from kilter.measure.kl import QUANTITIES, Apart, kl
from kilter.measure.kl_derivation import derivations
from kilter.measure.kl_formulas import CLOSED_FORMS, closed_form
from kilter.measure.kl_input import Listed, Named, as_number, read_distribution
from kilter.measure.kl_picture import bars

FAIR, BENT = "0.5,0.5", "0.7,0.3"


def printed(*distributions: str, width: int = 80, explain: bool = False, **options: str) -> str:
    console = Console(file=io.StringIO(), width=width)
    kl(distributions, explain=explain, console=console, **options)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def quiet(*distributions: str, **options: str) -> Apart:
    return kl(distributions, console=Console(file=io.StringIO()), **options)


@pytest.mark.parametrize(
    "text",
    [
        "0.2,0.3,0.5", " 0.2, 0.3, 0.5 ", "0.2 0.3 0.5", "[0.2, 0.3, 0.5]", "(0.2, 0.3, 0.5)", ".2,.3,5e-1",
        "1/5,3/10,1/2", "20%,30%,50%",
        "probs:0.2,0.3,0.5", "counts:2,3,5", "counts(20,30,50)", "logits:0,0.4054651081,0.9162907319",
        "log-probs:-1.6094379124,-1.2039728043,-0.6931471806",
    ],
)  # fmt: skip
def test_one_distribution_however_it_is_written(text: str) -> None:
    read = read_distribution(text, "p")
    assert isinstance(read, Listed)
    assert list(read.probabilities) == pytest.approx([0.2, 0.3, 0.5], rel=1e-9)


def test_a_logit_of_minus_infinity_rules_an_outcome_out() -> None:
    read = read_distribution("logits:1,-inf,1", "p")
    assert isinstance(read, Listed)
    assert list(read.probabilities) == [0.5, 0, 0.5]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("0.2,0.9", "p sums to 1.1; probabilities sum to 1; mend a number, or divide by the sum: 0.2/1.1,0.9/1.1"),
        ("0.33,0.33,0.33", "p sums to 0.99; probabilities sum to 1; write more digits, or fractions"),
        ("3,5", "p sums to 8; probabilities sum to 1; say that they are counts: counts:3,5"),
        ("-0.2,1.2", "p: number 1, -0.2, is negative"),
        ("nan,1", "p: number 1, nan, is not finite"),
        ("0.2,,0.8", "p: there is nothing where number 2 should be"),
        ("0.2,O.8", "p: 'O.8' is no number"),
        ("0.2;0.8", "p: '0.2;0.8' is no number; separate numbers with commas"),
        ("0.2,1/0", "p: '1/0' is no number"),
        ("", "p is empty; expected numbers with commas between"),
        ("0.5", "p has one outcome only; expected two or more (0.2,0.8); a coin is bernoulli:0.5"),
        ("counts:3,-1", "p: number 2, -1, is no count"),
        ("counts:0,0", "counts p: found nothing but zeros"),
        ("log_probs:-1,-1", "p: probabilities of these logarithms sum to 0.735758882"),
        ("logits:-inf,-inf", "logits p: found -inf for every outcome"),
        ("logits:inf,0", "p: number 1, inf, is not finite"),
        ("count:3,5", "did you mean counts:3,5"),
        ("norml:0,1", "did you mean normal(mean, sd)"),
        ("normal:0", "sd is missing; write normal(mean, sd)"),
        ("normal:0,-1", "sd is -1"),
    ],
)
def test_bad_input_is_told_what_is_wrong_with_it(text: str, told: str) -> None:
    with pytest.raises(DistributionError) as caught:
        quiet(text, FAIR)
    assert told in str(caught.value)


@pytest.mark.parametrize("text", ["0.2/1.1,0.9/1.1", "counts:3,5", "1/3,2/3"])
def test_what_an_error_tells_to_write_is_accepted(text: str) -> None:
    assert isinstance(quiet(text, FAIR).p, Listed)


def test_q_is_called_q() -> None:
    with pytest.raises(DistributionError, match=r"^q sums to 1\.1;"):
        quiet(FAIR, "0.2,0.9")


@pytest.mark.parametrize(
    ("distributions", "told"),
    [
        ((), "found none"),
        (("0.2,0.8",), "found 1 (0.2,0.8)"),
        (("0.2,", "0.8", "0.8,0.2"), "found 3 (0.2, 0.8 0.8,0.2); write each without blanks, or in quotes"),
        ((FAIR, "0.2,0.3,0.5"), "p has 2 outcomes and q 3"),
        ((FAIR, "normal:0,1"), "p is a list of numbers and q a family"),
    ],
)
def test_what_is_not_two_distributions_of_a_kind_is_told(distributions: tuple[str, ...], told: str) -> None:
    with pytest.raises(KilterError) as caught:
        quiet(*distributions)
    assert told in str(caught.value)


def test_all_numbers_of_two_coins() -> None:
    apart = quiet("0.2,0.8", "1,0")
    own = -0.2 * math.log(0.2) - 0.8 * math.log(0.8)
    # Hand-computed: the middle is (0.6, 0.4).
    js = (0.2 * math.log(0.2 / 0.6) + 0.8 * math.log(0.8 / 0.4) + math.log(1 / 0.6)) / 2
    assert dict(apart.values) == pytest.approx(
        {
            "entropy_p": own, "entropy_q": 0.0, "cross_entropy_pq": math.inf, "cross_entropy_qp": math.log(5),
            "kl_pq": math.inf, "kl_qp": math.log(5), "js": js, "tv": 0.8,
        },
        rel=1e-12,
    )  # fmt: skip
    assert apart.remarks == ("KL(p, q) is inf: outcome 2 has probability 0.8 under p and 0 under q.",)


def test_numbers_are_printed_in_nats_and_in_bits_under_the_names_that_json_gives_them() -> None:
    lines = printed(FAIR, BENT).splitlines()
    found = json.loads(printed(FAIR, BENT, as_json=True))  # type: ignore[arg-type]
    assert found["nats"]["kl_pq"] == pytest.approx(0.0871767, abs=5e-8)
    assert found["nats"]["kl_qp"] == pytest.approx(0.0822829, abs=5e-8)
    for quantity in QUANTITIES:
        (line,) = (line for line in lines if quantity.symbol in line.replace("KL to", ""))
        values = [found["nats"][quantity.name], found["bits"][quantity.name]] if quantity.in_nats else [found["tv"]]
        assert [f"{value:.6f}" for value in values] == line.partition(quantity.symbol)[2].split()[: len(values)]
    assert found["bits"]["kl_pq"] == pytest.approx(found["nats"]["kl_pq"] / math.log(2), rel=1e-15)


def test_json_is_strict_and_says_inf_in_words() -> None:
    text = printed(FAIR, "1,0", as_json=True)  # type: ignore[arg-type]
    found = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert found["nats"]["kl_pq"] == found["bits"]["kl_pq"] == "inf"
    assert found["nats"]["entropy_q"] == 0


def test_every_sum_of_the_derivation_is_the_sum_of_its_lines() -> None:
    sections = printed("0.1,0.2,0.7", "0.3,0.3,0.4", explain=True).split("\n\n")
    sums = [section for section in sections if "\n  sum" in section]
    assert len(sums) == len(QUANTITIES)
    for section in sums:
        *lines, total = [line.split() for line in section.splitlines()[2:]]
        assert math.fsum(float(line[-1]) for line in lines) == pytest.approx(float(total[-1]), abs=3e-6), section


def test_a_derivation_says_where_infinity_and_zero_come_from() -> None:
    text = " ".join(printed("0,1", "0.5,0.5", explain=True).split())
    assert "KL(p, q) = sum of p ln(p/q) p q ln(p/q) p ln(p/q) 1 0 0.500000 -inf 0 2 1.000000" in text
    assert "KL(q, p) = sum of q ln(q/p) q p ln(q/p) q ln(q/p) 1 0.500000 0 inf inf 2" in text


def test_an_outcome_that_neither_has_adds_nothing() -> None:
    lines = [line.split() for line in printed("0.5,0.5,0", "0.4,0.6,0", explain=True).splitlines()]
    assert lines.count(["3", "0", "0", "0"]) >= 2  # p, q and what is added to either KL; ln(0 / 0) is left blank
    with_it, without = quiet("0.5,0.5,0", "0.4,0.6,0").values, quiet("0.5,0.5", "0.4,0.6").values
    assert with_it == without


@pytest.mark.parametrize(
    ("p", "q"),
    [
        ("normal:0,1", "normal:40,1"), ("beta:2,3", "beta:4,5"), ("uniform:0,1", "uniform:0,2"),
        ("poisson:3", "poisson:90"), ("gamma:0.3,1", "gamma:0.5,1"),
    ],
)  # fmt: skip
def test_the_stretches_of_every_integral_add_up_to_it(p: str, q: str) -> None:
    found = quiet(p, q)
    for derivation in list(derivations(found))[:-1]:
        if not derivation.heads:
            continue
        *lines, total = derivation.lines
        parts = [line.numbers[-1] for line in lines if line.label != "elsewhere"]
        if math.isfinite(total.numbers[-1]):  # type: ignore[arg-type]
            assert math.fsum(parts) == pytest.approx(total.numbers[-1], rel=1e-5, abs=5e-6), derivation  # type: ignore[arg-type]


def test_a_closed_form_that_does_not_hold_is_not_shown() -> None:
    assert [d for d in derivations(quiet("uniform:0,2", "uniform:0,1")) if d.formula.startswith("KL(p, q) = ln")] == []


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    text = printed("0.2,0.3,0.5", "counts:1,1,1000000", width=width, explain=width >= 60)
    assert max(map(len, text.splitlines())) <= width


def test_bars_are_as_long_as_probabilities_are_large() -> None:
    lines = printed("0.25,0.75", "0.5,0.5", width=120).splitlines()
    drawn = [[word.count("█") for word in line.split() if "█" in word] for line in lines if "█" in line]
    assert drawn == [[10, 21], [32, 21]]  # 0.75 is 32 cells long; an eighth of a cell is drawn besides


def test_bars_are_drawn_with_what_the_terminal_can_show() -> None:
    raw = io.BytesIO()
    console = Console(file=io.TextIOWrapper(raw, encoding="ascii"), width=80)
    kl((FAIR, BENT), console=console)
    console.file.flush()
    assert b"####" in raw.getvalue()


# Columns of files.


@pytest.fixture
def words(tmp_path: Path) -> Path:
    path = tmp_path / "words.csv"
    path.write_text("word,before,after\nyes,60,45\nno,30,30\nmaybe,10,25\n")
    return path


def test_columns_are_compared_as_if_they_had_been_typed(words: Path, tmp_path: Path) -> None:
    import pyarrow.csv
    import pyarrow.parquet as pq

    pq.write_table(pyarrow.csv.read_csv(words), tmp_path / "words.parquet")
    typed = quiet("counts:60,30,10", "counts:45,30,25").values
    for path in words, tmp_path / "words.parquet":
        assert quiet("counts:before", "counts(after)", data=str(path)).values == typed


def test_outcomes_are_called_by_their_column(words: Path) -> None:
    text = printed("counts:before", "counts:after", data=str(words), outcomes="word", explain=True)
    assert "\nmaybe      0.1 " in text
    assert "\n  maybe  " in text


def test_of_many_rows_those_that_differ_most_are_shown_and_the_others_summed(tmp_path: Path) -> None:
    path = tmp_path / "many.csv"
    rows = [f"{100 + 50 * (i in (3, 70))},{100 + 50 * (i == 70)}" for i in range(100)]
    path.write_text("\n".join(["p,q", *rows]))
    text = printed("counts:p", "counts:q", data=str(path), explain=True)
    assert "of 100 outcomes, those that add most to the divergences" in text
    assert "\n4  " in text  # numbered from 1
    assert "88 others" in text


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        (("counts:before", "counts:afer"), "no row has the column afer, which is to be q; did you mean after?"),
        (("before", "after"), "p sums to 100; probabilities sum to 1; say that they are counts: counts:before"),
        (("counts:before", "counts:word"), "column word holds 'yes'; expected a number"),
    ],
)
def test_bad_columns_are_told(words: Path, columns: tuple[str, str], told: str) -> None:
    with pytest.raises((DataError, DistributionError)) as caught:
        quiet(*columns, data=str(words))
    assert told in str(caught.value)


def test_a_column_of_counts_is_told_how_to_be_written(tmp_path: Path) -> None:
    data = tmp_path / "table.csv"
    data.write_text("n,m\n3,0.5\n5,0.4\n", encoding="utf-8")
    with pytest.raises(DistributionError, match=r"say that they are counts: counts:n$"):
        quiet("n", "m", data=str(data))
    with pytest.raises(
        DistributionError, match=r"q sums to 0\.9; probabilities sum to 1; divide the column by its sum"
    ):
        quiet("counts:n", "m", data=str(data))


def test_a_family_of_vectors_and_logarithms_of_few_digits_are_told_what_to_do() -> None:
    with pytest.raises(DistributionError, match="dirichlet is a family of vectors, which cannot be typed"):
        quiet("dirichlet:1,2", "dirichlet:2,1")
    with pytest.raises(
        DistributionError, match=r"sum to 0\.998\d* and not to 1; write more digits, or say .*: logits:-0.7,"
    ):
        quiet("log_probs:-0.7,-0.69", "0.5,0.5")


def test_every_bad_cell_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("p,q\n0.5,half\n0.5,\n")
    with pytest.raises(DataError) as caught:
        quiet("p", "q", data=str(path))
    assert str(caught.value).splitlines()[1:] == [
        f"  {path}:2: column q holds 'half'; expected a number",
        f"  {path}:3: column q is missing or null; expected a number",
    ]


def test_outcomes_without_a_file_are_refused() -> None:
    with pytest.raises(ConfigError, match="--outcomes names a column"):
        quiet(FAIR, BENT, outcomes="word")


def test_numbers_as_people_write_them() -> None:
    assert [as_number(word) for word in ("1/4", "25%", ".25", "2.5e-1", "x", "1/x", "")] == [0.25] * 4 + [None] * 3


# The process.


def test_the_command_loads_nothing_slow() -> None:
    code = "import sys; from kilter.cli import main\ntry: main()\nfinally: print(*sys.modules)"
    slow = {"torch", "scipy", "jax", "pydantic", "pyarrow", "transformers"}
    for arguments in (["0.2,0.8", "0.8,0.2", "--explain"], ["normal:0,1", "normal:1,1"]):
        ran = subprocess.run(
            [sys.executable, "-c", code, "kl", *arguments], capture_output=True, text=True, check=False
        )
        assert (ran.returncode, ran.stderr) == (0, "")
        assert "KL(p, q)" in ran.stdout
        assert slow & set(ran.stdout.splitlines()[-1].split()) == set()


def test_a_mistake_is_told_in_one_line() -> None:
    code = "from kilter.cli import main; main()"
    for arguments, told in (
        (["0.2,0.9", "0.5,0.5"], "error: p sums to 1.1;"),
        (["-0.2,1.2", "0.5,0.5"], "error: p: number 1, -0.2, is negative"),
        (["0.5,0.5", "0.5,0.5", "--explian"], "error: there is no flag --explian; did you mean --explain?"),
    ):
        ran = subprocess.run(
            [sys.executable, "-c", code, "kl", *arguments], capture_output=True, text=True, check=False
        )
        assert ran.returncode == 1
        assert ran.stderr.startswith(told)
        assert ran.stderr.count("\n") == 1


# Families.


def test_two_normals_have_the_numbers_that_are_worked_out_by_hand() -> None:
    apart = quiet("normal:0,1", "normal(1, 2)")
    own = math.log(2 * math.pi * math.e) / 2
    forward, reverse = math.log(2) - 0.25, 2 - math.log(2)
    expected = {"entropy_p": own, "entropy_q": own + math.log(2), "kl_pq": forward, "kl_qp": reverse}
    expected |= {"cross_entropy_pq": own + forward, "cross_entropy_qp": own + math.log(2) + reverse}
    assert {name: apart.values[name] for name in expected} == pytest.approx(expected, rel=1e-12)
    assert set(apart.errors) == {"js", "tv"}
    # TV of N(0, 1) and N(1, 1) is 2 Phi(1/2) - 1.
    assert quiet("normal:0,1", "normal:1,1").values["tv"] == pytest.approx(math.erf(0.5 / math.sqrt(2)), rel=1e-10)


def test_a_coin_is_the_same_as_a_family_and_as_a_list() -> None:
    family, listed = quiet("bernoulli:0.8", "bernoulli:0.3"), quiet("0.2,0.8", "0.7,0.3")
    assert dict(family.values) == pytest.approx(dict(listed.values), rel=1e-12)


def test_what_has_no_closed_form_is_integrated_and_says_so() -> None:
    apart = quiet("normal:0,1", "cauchy:0,1")
    assert {"kl_pq", "js", "tv"} <= set(apart.errors)
    assert max(apart.errors.values()) < 1e-9
    assert apart.values["kl_qp"] == math.inf
    why, how = apart.remarks
    assert why == "KL(q, p) is inf: q has something where p has too little for the integral to exist."
    assert how.startswith("Integrated, to within ")
    assert "KL(p, q)" in how


def test_outcomes_outside_the_others_support_are_named() -> None:
    (why, _) = quiet("exponential:1", "normal:0,1").remarks
    assert why == "KL(q, p) is inf: q has outcomes below 0, which p rules out."


def test_counts_too_large_for_a_picture_have_their_numbers_all_the_same() -> None:
    said = printed("binomial:1e9,0.5", "binomial:1e9,0.4")
    assert "no picture: neither has much below 100,000" in said
    kl = 1e9 * (0.5 * math.log(0.5 / 0.4) + 0.5 * math.log(0.5 / 0.6))
    assert quiet("binomial:1e9,0.5", "binomial:1e9,0.4").values["kl_pq"] == pytest.approx(kl, rel=1e-9)


def test_what_one_number_cannot_be_computed_for_leaves_the_others() -> None:
    found = quiet("beta:1e-5,1", "beta:1,1")
    assert found.values["kl_pq"] == pytest.approx(math.log(1e-5) - (1e-5 - 1) / 1e-5, rel=1e-9)
    assert math.isnan(found.values["js"])
    assert found.remarks[-1] == "Not computed: JS(p, q), TV(p, q): p integrates to 0.00742745226 between 0 and 1."
    assert quiet("beta:1,1", "beta:1e-5,1").remarks[-1].endswith("q integrates to 0.00742745226 between 0 and 1.")
    assert "JS(p, q)   not computed" in printed("beta:1e-5,1", "beta:1,1")
    told = json.loads(found.as_json(), parse_constant=pytest.fail)
    assert told["nats"]["js"] is None
    assert told["tv"] is None


def test_an_entropy_of_zero_has_no_sign() -> None:
    assert math.copysign(1, quiet("binomial:5,0", "binomial:5,0.1").values["entropy_p"]) == 1


def test_whole_numbers_are_not_compared_with_real_ones() -> None:
    with pytest.raises(DistributionError, match=r"p \(poisson\) is a distribution of whole numbers and q \(normal\)"):
        quiet("poisson:3", "normal:0,1")


PAIRS = [
    ("normal:0,1", "normal:1,2"), ("exponential:2", "exponential:0.5"), ("poisson:3", "poisson:5"),
    ("laplace:0,1", "laplace:1.5,2"), ("uniform:0,1", "uniform:-1,2"),
]  # fmt: skip


@pytest.mark.parametrize(("p", "q"), PAIRS)
def test_terms_of_a_closed_form_add_up_to_kl(p: str, q: str) -> None:
    one, other = read_distribution(p, "p"), read_distribution(q, "q")
    assert isinstance(one, Named)
    assert isinstance(other, Named)
    found = closed_form(one.family, other.family)
    assert found is not None
    assert math.fsum(term.value for term in found[1]) == pytest.approx(quiet(p, q).values["kl_pq"], rel=1e-12)


def test_every_closed_form_that_is_explained_is_tested() -> None:
    assert {text.partition(":")[0] for text, _ in PAIRS} == {family.family_name() for family in CLOSED_FORMS}


@pytest.mark.parametrize(
    ("p", "q"),
    [*PAIRS, ("exponential:1", "exponential:1000"), ("gamma:0.3,1", "gamma:0.5,1"), ("poisson:3000", "poisson:3100")],
)
def test_stretches_of_a_derivation_hold_the_mass_that_scipy_finds_there(p: str, q: str) -> None:
    stats = pytest.importorskip("scipy.stats")
    frozen = {
        "normal": stats.norm, "exponential": lambda rate: stats.expon(scale=1 / rate),
        "poisson": stats.poisson, "laplace": stats.laplace, "uniform": lambda a, b: stats.uniform(a, b - a),
        "gamma": lambda shape, rate: stats.gamma(shape, scale=1 / rate),
    }  # fmt: skip
    *_, derivation, _ = derivations(quiet(p, q))
    for place, text in enumerate((p, q)):
        name, _, parameters = text.partition(":")
        cdf = frozen[name](*map(float, parameters.split(","))).cdf
        for line in derivation.lines:
            if line.label[0].isdigit() or line.label[0] == "-":
                ends = [float(end) for end in line.label.split(" to ")]
                mass = cdf(ends[-1]) - cdf(ends[0] - 1 if name == "poisson" else ends[0])
                assert line.numbers[place] == pytest.approx(mass, rel=1e-6, abs=1e-9), (text, line)


def test_the_picture_shows_where_the_mass_is_whatever_the_scale() -> None:
    for p, q, middle in (("normal:1000,0.1", "normal:1000.2,0.1", 1000), ("gamma:1000,0.01", "gamma:1100,0.01", 1e5)):
        rows, _ = bars(read_distribution(p, "p"), read_distribution(q, "q"))
        assert 5 <= len(rows) <= 16
        highest = max(rows, key=lambda bar: bar.p)
        assert float(highest.label) == pytest.approx(middle, rel=0.01)
        assert 0 < min(rows[0].p, rows[-1].q) < 0.2 * highest.p


def test_a_density_that_is_infinite_somewhere_is_drawn() -> None:
    assert "\n0        inf █" in printed("gamma:0.5,1", "gamma:0.5,2")
