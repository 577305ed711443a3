"""Claims about how objectives and their weighted sums are written, read and added up."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from kilter.errors import ConfigError
from kilter.objectives import OBJECTIVES, Mixture, parse


def terms(text: str, given: dict[str, float | None] | None = None) -> list[tuple[float, str, dict[str, float]]]:
    return [(term.weight, term.name, term.options) for term in parse(text, given).terms]


def refused(text: str, given: dict[str, float | None] | None = None) -> str:
    with pytest.raises(ConfigError) as error:
        parse(text, given)
    return str(error.value)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_name_alone_is_that_objective_with_its_defaults_and_a_weight_of_1(name: str) -> None:
    assert terms(name) == [(1.0, name, OBJECTIVES[name].defaults)]


def test_terms_have_weights_and_options_of_their_own() -> None:
    assert terms("2*simpo(beta=3, gamma=0.5) + 0.25*sft + dpo") == [
        (2, "simpo", {"beta": 3, "gamma": 0.5}),
        (0.25, "sft", {}),
        (1, "dpo", {"beta": 0.1, "label_smoothing": 0}),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "0.5*ipo(beta=0.25)+sft",
        "  0.5 * ipo ( beta = 0.25 )  +  sft  ",
        ".5*ipo(beta=25e-2)\n+ 1*sft",
        "5E-1*ipo(beta=.25)+1.*sft",
    ],
)
def test_spaces_and_the_form_of_numbers_do_not_matter(text: str) -> None:
    assert terms(text) == [(0.5, "ipo", {"beta": 0.25}), (1, "sft", {})]


def test_empty_parentheses_set_nothing() -> None:
    assert terms("dpo()") == terms("dpo")


def test_options_given_besides_go_to_every_term_that_has_them_and_does_not_set_them_itself() -> None:
    given = {"beta": 0.3, "label_smoothing": None}
    assert terms("dpo + ipo(beta=0.7) + sft", given) == [
        (1, "dpo", {"beta": 0.3, "label_smoothing": 0}),
        (1, "ipo", {"beta": 0.7}),
        (1, "sft", {}),
    ]


def test_zero_is_given_and_none_is_not() -> None:
    assert terms("dpo(label_smoothing=0.2)", {"label_smoothing": 0.0})[0][2]["label_smoothing"] == 0.2
    assert terms("cpo", {"nll_weight": 0.0})[0][2] == {"beta": 0.1, "nll_weight": 0}
    assert terms("sft", {"beta": None, "gamma": None}) == [(1, "sft", {})]


@pytest.mark.parametrize(
    ("text", "option", "has"),
    [
        ("dpo", "desirable_weight", "beta, label_smoothing"),
        ("ipo", "label_smoothing", "beta"),
        ("kto", "label_smoothing", "beta, desirable_weight, undesirable_weight"),
        ("sft", "beta", "no options"),
        ("ipo + slic", "gamma", "beta, delta, nll_weight"),
    ],
)
def test_an_option_that_no_term_would_use_is_refused_with_those_there_are(text: str, option: str, has: str) -> None:
    assert f"objective {text!r} does not use {option} (it has: {has}); leave that out" in refused(text, {option: 0.2})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dpo(gamma=1)", "objective 'dpo' has no option 'gamma'; it has: beta, label_smoothing"),
        ("sft(beta=1)", "objective 'sft' has no option 'beta'; it has: none"),
        ("bco(desirable_mean=1)", "objective 'bco' has no option 'desirable_mean'; it has: beta, momentum"),
        ("ipo + dop", "there is no objective 'dop'; choose one of: dpo, "),
        ("DPO", "there is no objective 'DPO'"),
        ("dpo + sft + dpo", "objective 'dpo + sft + dpo' has dpo twice; write it once, with one weight"),
        ("dpo(beta=1, beta=2)", "objective 'dpo(beta=1, beta=2)' sets beta of dpo twice; set it once"),
        ("0*dpo", "objective '0*dpo' has a weight of 0; expected a number above 0, or leave that term out"),
        ("1e999*dpo", "objective '1e999*dpo' has a weight of inf; expected a number above 0"),
    ],
)
def test_what_can_be_read_but_makes_no_sense_is_refused(text: str, message: str) -> None:
    assert message in refused(text)


@pytest.mark.parametrize(
    ("text", "found", "place", "wanted"),
    [
        ("", "the end", 1, "a name"),
        ("   ", "the end", 4, "a name"),
        ("dpo +", "the end", 6, "a name"),
        ("+ dpo", "'+'", 1, "a name"),
        ("dpo + + sft", "'+'", 7, "a name"),
        ("dpo sft", "'sft'", 5, "+ or the end"),
        ("dpo - sft", "'-'", 5, "+ or the end"),
        ("-1*dpo", "'-'", 1, "a name"),
        ("dpo*2", "'*'", 4, "+ or the end"),
        ("2 dpo", "'dpo'", 3, "*"),
        ("2*", "the end", 3, "a name"),
        ("2*3*dpo", "'3'", 3, "a name"),
        ("dpo(beta)", "')'", 9, "="),
        ("dpo(beta=)", "')'", 10, "a number"),
        ("dpo(beta=x)", "'x'", 10, "a number"),
        ("dpo(beta=--1)", "'-'", 11, "a number"),
        ("dpo(0.3)", "'0.3'", 5, "a name"),
        ("dpo(beta=0.3", "the end", 13, ", or )"),
        ("dpo(beta=0.3 label_smoothing=0.1)", "'label_smoothing'", 14, ", or )"),
        ("dpo(beta=0.3,)", "')'", 14, "a name"),
        ("dpo(,beta=0.3)", "','", 5, "a name"),
        ("dpo)", "')'", 4, "+ or the end"),
        ("dpo; sft", "';'", 4, "+ or the end"),
        ("(dpo)", "'('", 1, "a name"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place_and_what_should_be_there(
    text: str, found: str, place: int, wanted: str
) -> None:
    message = refused(text)
    assert message.startswith(f"objective {text!r}: {found} at character {place}, where {wanted} should be; ")
    assert "expected something like" in message


@pytest.mark.parametrize(
    ("text", "option", "value", "range_"),
    [
        ("dpo", "beta", 0.0, "above 0"),
        ("dpo", "beta", -0.1, "above 0"),
        ("dpo", "label_smoothing", 0.5, "at least 0 and below 0.5"),
        ("dpo", "label_smoothing", -0.01, "at least 0 and below 0.5"),
        ("bt_kl", "beta", -1.0, "at least 0"),
        ("beta_dpo", "keep", 0.0, "above 0 and at most 1"),
        ("beta_dpo", "keep", 1.5, "above 0 and at most 1"),
        ("bco", "momentum", 1.0, "at least 0 and below 1"),
        ("dpo", "beta", float("inf"), "above 0"),
        ("dpo", "beta", float("nan"), "above 0"),
    ],
)
def test_a_value_out_of_its_range_is_refused_with_the_range(text: str, option: str, value: float, range_: str) -> None:
    message = f"{option} of {text} is {value:g}; expected a number {range_}"
    assert message in refused(text, {option: value})
    if value == value and abs(value) != float("inf"):
        assert message in refused(f"{text}({option}={value})")


@pytest.mark.parametrize(
    ("text", "option", "value"),
    [("bt_kl", "beta", 0.0), ("dpo", "label_smoothing", 0.0), ("beta_dpo", "keep", 1.0), ("bco", "momentum", 0.0)],
)
def test_the_ends_that_belong_to_a_range_are_in_it(text: str, option: str, value: float) -> None:
    assert terms(f"{text}({option}={value})")[0][2][option] == value


@pytest.mark.parametrize("text", ["plackett_luce + dpo", "0.1*kto + plackett_luce"])
def test_rankings_do_not_go_with_what_learns_from_pairs_or_labels(text: str) -> None:
    assert "mixes terms that learn from rankings with terms that do not" in refused(text)


@pytest.mark.parametrize(
    ("text", "takes"),
    [
        ("dpo", "pairs"),
        ("sft", "answers"),
        ("kl", "all answers"),
        ("kto", "labelled"),
        ("sft + 0.1*kl", "answers"),
        ("0.2*sft + dpo", "pairs"),
        ("kto + dpo", "pairs"),
        ("kto + kl", "labelled"),
        ("plackett_luce + 0.2*sft + kl", "rankings"),
    ],
)
def test_a_mixture_learns_from_what_its_terms_can_all_be_given(text: str, takes: str) -> None:
    assert parse(text).takes == takes


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_is_read_as_it_is_written(name: str) -> None:
    mixture = parse(name)
    assert parse(str(mixture)) == mixture


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("dpo", "dpo(beta=0.1, label_smoothing=0)"),
        (" 1*ipo( beta=2e0 )+0.20*sft", "ipo(beta=2) + 0.2*sft"),
        ("1e-7*sft + ipo(beta=0.30000000000000004)", "1e-07*sft + ipo(beta=0.30000000000000004)"),
        ("1234567.5*sft", "1234567.5*sft"),
    ],
)
def test_a_mixture_is_written_in_one_way_to_the_last_digit(text: str, written: str) -> None:
    assert str(parse(text)) == written
    assert parse(written) == parse(text)


def test_a_mixture_needs_what_any_of_its_terms_needs() -> None:
    mixture = parse("simpo + 0.1*kl")
    assert mixture.needs == OBJECTIVES["simpo"].needs | OBJECTIVES["kl"].needs
    assert mixture.needs_reference
    assert not parse("simpo + sft").needs_reference


def test_a_mixture_is_coupled_where_a_term_is() -> None:
    assert parse("sft + 0.1*aot").coupled
    assert not parse("sft + 0.1*dpo").coupled


def test_rewards_have_the_first_beta_that_there_is() -> None:
    assert parse("sft + ipo(beta=0.7) + dpo").beta == 0.7
    assert parse("orpo + sft").beta == 1


def test_the_state_of_terms_is_told_apart_by_their_names() -> None:
    assert parse("dpo + 0.5*bco + beta_dpo").state == {
        "bco.desirable_mean": 0,
        "bco.undesirable_mean": 0,
        "beta_dpo.mean": 0,
        "beta_dpo.deviation": 0,
        "beta_dpo.batches": 0,
    }


def test_the_total_is_the_weighted_sum() -> None:
    mixture = parse("2*dpo + 0.25*sft + ipo")
    assert mixture.names == ["dpo", "sft", "ipo"]
    assert mixture.total({"ipo": 5.0, "dpo": 3.0, "sft": 8.0}) == 13
    leaf = torch.tensor([3.0, 8.0, 5.0], requires_grad=True)
    losses: dict[str, Any] = dict(zip(mixture.names, leaf, strict=True))
    (slope,) = torch.autograd.grad(mixture.total(losses), leaf)
    assert slope.tolist() == [2, 0.25, 1]


def test_a_description_names_each_term_and_its_paper() -> None:
    said = parse("dpo(beta=0.3) + 0.2*sft").describe()
    assert re.fullmatch(r"dpo\(beta=0\.3, .*\): .* \(arXiv 2305\.18290, eq\. 7\); 0\.2\*sft: .* \(.*\)", said)
    assert isinstance(parse("dpo"), Mixture)
