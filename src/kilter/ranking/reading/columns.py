"""What a table of comparisons holds, recognised from the names of its columns: LAYOUTS is all that is known."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from kilter.errors import ConfigError, DataError

SHOWN_COLUMNS = 30


class Part(NamedTuple):
    """Roles that columns take together, and the names by which they are known: a name for each role."""

    roles: tuple[str, ...]
    known: tuple[tuple[str, ...], ...]


class Layout(NamedTuple):
    """One way to write comparisons: what its columns are, and what they say in words."""

    parts: tuple[Part, ...]
    says: str

    @property
    def roles(self) -> tuple[str, ...]:
        """What its columns are called here, whatever the table calls them."""
        return tuple(role for part in self.parts for role in part.roles)

    @property
    def example(self) -> str:
        """Its columns by the first names that are known."""
        return ", ".join(name for part in self.parts for name in part.known[0])


SIDES = Part(
    ("left", "right"),
    (
        ("model_a", "model_b"),
        ("left", "right"),
        ("item_a", "item_b"),
        ("player_a", "player_b"),
        ("team_a", "team_b"),
        ("option_a", "option_b"),
        ("model_1", "model_2"),
        ("item_1", "item_2"),
        ("player_1", "player_2"),
        ("team_1", "team_2"),
        ("generator_1", "generator_2"),
        ("home_team", "away_team"),
        ("home", "away"),
        ("a", "b"),
    ),
)
WON = Part(
    ("left_won", "right_won", "tied"),
    (
        ("winner_model_a", "winner_model_b", "winner_tie"),
        ("winner_a", "winner_b", "winner_tie"),
        ("winner_a", "winner_b", "tie"),
        ("left_won", "right_won", "tied"),
    ),
)
SCORES = Part(
    ("left_score", "right_score"),
    (
        ("home_score", "away_score"),
        ("home_goals", "away_goals"),
        ("home_points", "away_points"),
        ("FTHG", "FTAG"),
        ("left_score", "right_score"),
        ("score_left", "score_right"),
        ("score_a", "score_b"),
        ("score_1", "score_2"),
    ),
)
BETTER = Part(("chosen", "rejected"), (("winner", "loser"), ("chosen", "rejected"), ("preferred", "other")))


def _either(role: str, *names: str) -> Part:
    return Part((role,), tuple((name,) for name in names))


LAYOUTS: Mapping[str, Layout] = {
    "one-hot": Layout((SIDES, WON), "{left} against {right}; one of {left_won}, {right_won} and {tied} is 1"),
    "words": Layout(
        (SIDES, _either("winner", "winner", "verdict", "FTR")), "{left} against {right}; {winner} says who won"
    ),
    "preference": Layout(
        (SIDES, _either("preference", "preference")),
        "{left} against {right}; {preference} goes from 1 for {left} to 2 for {right}, 1.5 or 0 is a tie",
    ),
    "scores": Layout((SIDES, SCORES), "{left} against {right}; the higher of {left_score} and {right_score} wins"),
    "outcome": Layout(
        (SIDES, _either("outcome", "outcome")),
        "{left} against {right}; {outcome} is 1 where {left} won, 0 where {right} did, 0.5 for a tie, or a word",
    ),
    "winners": Layout((BETTER,), "{chosen} won against {rejected}"),
    "places": Layout(
        (
            _either("ranking", "ranking", "ranking_id", "race", "race_id", "ballot", "ballot_id", "voter", "heat"),
            _either("item", "item", "model", "candidate", "runner", "driver", "player", "team", "horse", "name"),
            _either("place", "place", "rank", "position"),
        ),
        "{item} took {place} (1 is the best) in {ranking}",
    ),
    "rankings": Layout((_either("ranking", "ranking", "ranks", "order"),), "{ranking} holds items from best to worst"),
}
ROLES = tuple(dict.fromkeys(role for layout in LAYOUTS.values() for role in layout.roles))


class Words(NamedTuple):
    """How the winner is told in words; letters' case, blanks and punctuation do not matter."""

    left: tuple[str, ...]
    right: tuple[str, ...]
    tie: tuple[str, ...]


TIES = (
    "tie", "tied", "draw", "drawn", "equal", "even", "same", "neither", "both", "both good", "both bad",
    "tie (both good)", "tie (bothbad)",
)  # fmt: skip
LETTERS = Words(("left", "model_a", "a", "first"), ("right", "model_b", "b", "second"), TIES)
NUMBERS = Words((*LETTERS.left, "1"), (*LETTERS.right, "2"), TIES)
GROUNDS = Words(("home", "left", "h", "1"), ("away", "right", "a", "2"), (*TIES, "d", "x"))


@dataclass(frozen=True)
class Columns:
    """Which column of a table is what: a layout of LAYOUTS, and the column of each of its roles."""

    layout: str
    of: Mapping[str, str]

    @property
    def says(self) -> str:
        """What was understood, in words."""
        return LAYOUTS[self.layout].says.format(**self.of)

    @property
    def ranks(self) -> bool:
        """Whether these are rankings, not comparisons of two."""
        return "ranking" in self.of

    @property
    def sides(self) -> tuple[str, str]:
        """The roles of the two items; outcomes are the first one's."""
        return ("chosen", "rejected") if "chosen" in self.of else ("left", "right")

    @property
    def verdict(self) -> tuple[str, ...]:
        """The roles that tell the outcome."""
        return tuple(role for role in self.of if role not in self.sides)

    @property
    def words(self) -> Words:
        """The words that name the sides: those of their kind, and the columns' own names."""
        left, right = self.of["left"], self.of["right"]
        at_home = "home" in plain(left) and "away" in plain(right)
        kind = GROUNDS if at_home else NUMBERS if left.endswith("1") else LETTERS
        return Words(tuple(dict.fromkeys((left, *kind.left))), tuple(dict.fromkeys((right, *kind.right))), kind.tie)


def plain(name: str) -> str:
    """A name or word in small letters, without blanks and punctuation: `Home_Team` and `home team` are one."""
    return re.sub(r"[\W_]+", "", name).lower()


def recognise(names: Sequence[str], given: Mapping[str, str] | None = None) -> Columns:
    """Which column is what, of a table's column names; `given` says it of some of ROLES, the others are recognised.

    Raises DataError where no layout fits, ConfigError for a role that is none.
    """
    given = dict(given or {})
    for role, name in given.items():
        if role not in ROLES:
            near = difflib.get_close_matches(role, ROLES, n=1)
            meant = f"did you mean {near[0]}? " if near else ""
            raise ConfigError(f"a column cannot be {role!r}; {meant}it can be: {', '.join(ROLES)}")
        check_column(name, names, f"to be {role}")
    for layout, known in LAYOUTS.items():
        if set(given) <= set(known.roles) and (of := _filled(known, names, given)) is not None:
            return Columns(layout, of)
    raise DataError(_unknown(names, given))


def check_column(name: str, names: Iterable[str], wanted: str) -> None:
    """Raise DataError where a table has no such column."""
    there = list(names)
    if name not in there:
        near = difflib.get_close_matches(name, there, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}? " if near else ""
        raise DataError(f"there is no column {name!r} {wanted}; {hint}there are: {_listed(there)}")


def _filled(layout: Layout, names: Sequence[str], given: Mapping[str, str]) -> dict[str, str] | None:
    of: dict[str, str] = {}
    for part in layout.parts:
        missing = [role for role in part.roles if role not in given]
        found = {role: given[role] for role in part.roles if role in given}
        if missing:
            free = [name for name in names if name not in given.values()]
            by_name = {plain(name): name for name in reversed(free)} | {name: name for name in free}
            for known in part.known:
                taken = [by_name.get(name, by_name.get(plain(name))) for name in known]
                there = {role: name for role, name in zip(part.roles, taken, strict=True) if role in missing and name}
                if len(there) == len(missing):
                    found |= there
                    break
            else:
                return None
        of |= {role: found[role] for role in part.roles}
    return of if len(set(of.values())) == len(of) else None


def _unknown(names: Sequence[str], given: Mapping[str, str]) -> str:
    known = "; ".join(layout.example for layout in LAYOUTS.values())
    fixed = f" with {', '.join(f'{name} as {role}' for role, name in given.items())}" if given else ""
    return (
        f"the columns are {_listed(names)}{fixed}: that is no layout of comparisons that is known; name the columns "
        f"that hold them (columns: left=..., right=..., winner=...), or rename them. Known are: {known}"
    )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN_COLUMNS:,} more" if len(names) > SHOWN_COLUMNS else ""
    return (", ".join(map(str, names[:SHOWN_COLUMNS])) or "none") + more
