"""Fits against tables in print, to all the digits that are printed."""

from __future__ import annotations

import numpy as np
import pytest

from kilter.ranking import Comparisons, fit_comparisons
from kilter.ranking.iterations import newman
from kilter.ranking.plackett_luce import fit_rankings
from ranking.lists import rankings

TEAMS = ("Milwaukee", "Detroit", "Toronto", "New York", "Boston", "Cleveland", "Baltimore")
# American League East, 1987: row at home against column, as wins-losses. Agresti 2002, Categorical Data Analysis, 2nd
# edition, section 10.6 (also the data set `baseball` of the R package BradleyTerry2).
BASEBALL = """
 -  4-3 4-2 4-3 6-1 4-2 6-0
3-3  -  4-2 4-3 6-0 6-1 4-3
2-5 4-3  -  2-4 4-3 4-2 6-0
3-3 5-1 2-5  -  4-3 4-2 6-1
5-1 2-5 3-3 4-2  -  5-2 6-0
2-5 3-3 3-4 4-3 4-2  -  2-4
2-5 1-5 1-6 2-4 1-6 3-4  -
"""
JOURNALS = ("Biometrika", "Comm Statist", "JASA", "JRSS-B")
# Citations of the row by the column, from Stigler 1994 (Statistical Science 9), as in Agresti 2002, page 448.
CITED = [[714, 730, 498, 221], [33, 425, 68, 17], [320, 813, 1072, 142], [284, 276, 325, 188]]
# Preferred i, preferred j, neither, of brands i < j: Davidson 1970 (JASA 65), example 2, of chocolate puddings.
PUDDING = {
    "12": (19, 22, 16),
    "13": (16, 19, 12),
    "23": (19, 19, 10),
    "14": (18, 23, 13),
    "24": (23, 19, 9),
    "34": (19, 20, 15),
    "15": (13, 19, 18),
    "25": (16, 20, 12),
    "35": (16, 15, 17),
    "45": (17, 14, 16),
    "16": (18, 21, 12),
    "26": (22, 20, 12),
    "36": (13, 18, 10),
    "46": (14, 19, 18),
    "56": (11, 21, 12),
}


def table(rows: list[tuple[str, str, float, int]], items: tuple[str, ...]) -> Comparisons:
    left, right, outcome, count = zip(*[row for row in rows if row[3]], strict=True)
    return Comparisons.counted(left, right, outcome, count, items=items)


def baseball() -> Comparisons:
    rows = []
    for home, line in zip(TEAMS, BASEBALL.strip().splitlines(), strict=True):
        for away, cell in zip(TEAMS, line.split(), strict=True):
            if cell != "-":
                won, lost = map(int, cell.split("-"))
                rows += [(home, away, 1.0, won), (home, away, 0.0, lost)]
    return table(rows, TEAMS)


def pudding() -> Comparisons:
    rows = []
    for (i, j), counts in PUDDING.items():
        rows += [(i, j, outcome, count) for outcome, count in zip((1.0, 0.0, 0.5), counts, strict=True)]
    return table(rows, tuple("123456"))


def test_baseball_of_1987_is_agrestis_table() -> None:
    # Agresti 2002, table 10.11: estimates relative to Baltimore, standard errors of about 0.3.
    fit = fit_comparisons(baseball())
    assert np.round(fit.strengths - fit.strengths[-1], 2) == pytest.approx([1.58, 1.44, 1.29, 1.25, 1.11, 0.68, 0])
    errors = [fit.difference(team, "Baltimore").standard_error for team in TEAMS[:-1]]
    assert np.round(errors, 1) == pytest.approx([0.3] * 6)


def test_baseball_with_home_advantage_is_agrestis_too() -> None:
    # Agresti 2002, page 438: 0.302 for the home team; with it exp(strengths) that add up to one.
    fit = fit_comparisons(baseball(), order_effect=True)
    assert round(float(fit.extras[0]), 3) == 0.302
    assert np.round(fit.told_on("odds")[:, 0], 3) == pytest.approx([0.220, 0.190, 0.164, 0.157, 0.137, 0.088, 0.044])


def test_journals_are_as_in_firth() -> None:
    # Turner and Firth 2012 (Journal of Statistical Software 48:9): relative to Biometrika.
    rows = [
        (cited, citing, 1.0, CITED[i][j])
        for i, cited in enumerate(JOURNALS)
        for j, citing in enumerate(JOURNALS)
        if i != j
    ]
    fit = fit_comparisons(table(rows, JOURNALS))
    relative = fit.strengths - fit.strengths[0]
    assert np.round(relative, 2) == pytest.approx([0, -2.95, -0.48, 0.27])


def test_puddings_are_davidsons_by_three_ways() -> None:
    # Turner et al. 2020 (Computational Statistics 35), section 2: relative to brand 1, from iterations stopped after
    # seven; standard errors, the tie parameter and the deviance to all digits.
    fit = fit_comparisons(pudding(), ties="davidson")
    assert fit.strengths - fit.strengths[0] == pytest.approx([0, 0.2202, 0.1530, 0.1753, 0.1339, 0.3771], abs=2e-4)
    errors = [fit.difference(brand, "1").standard_error for brand in "23456"]
    assert errors == pytest.approx([0.1872, 0.1935, 0.1882, 0.1927, 0.1924], abs=5e-5)
    assert fit.extras[0] == pytest.approx(-0.2919, abs=5e-5)
    assert -2 * fit.log_likelihood == pytest.approx(1619.4, abs=0.05)
    orders = [order for pair in PUDDING for order in (pair, pair[::-1], [pair])]
    as_rankings = fit_rankings(rankings(orders, [count for counts in PUDDING.values() for count in counts]))
    iterated = newman(pudding(), ties="davidson")
    for other in (as_rankings, iterated):
        assert other.strengths == pytest.approx(fit.strengths, abs=1e-10)
    assert as_rankings.tie_parameters[0] == pytest.approx(fit.extras[0], abs=1e-10)
    assert iterated.tie_parameter == pytest.approx(fit.extras[0], abs=1e-10)
