"""Who says which of two answers is the better one: a function of one's own, or the rewards that a function gives."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from kilter.errors import ConfigError

# Of (prompt, first answer, second answer): how much the first is preferred, from 0 to 1; 1/2 is a tie.
Judge: TypeAlias = Callable[[str, str, str], float]
# Of (prompt, answer): how good it is, on any scale.
Reward: TypeAlias = Callable[[str, str], float]

WANTED = "a function of (prompt, first, second) or of (prompt, answer)"


def judge_by_reward(reward: Reward) -> Judge:
    """A judge that prefers the answer with the higher reward; the same reward is a tie.

    Each answer is scored once. Raises ConfigError for a reward that is no number.

    >>> brief = judge_by_reward(lambda prompt, answer: -len(answer))
    >>> brief("how?", "so", "like this"), brief("how?", "so", "or"), brief("how?", "like this", "so")
    (1.0, 0.5, 0.0)
    """

    @cache
    def scored(prompt: str, answer: str) -> float:
        if math.isnan(value := float(reward(prompt, answer))):
            raise ConfigError(f"the reward of the answer {answer[:60]!r} is {value}; it should be a number")
        return value

    def judge(prompt: str, first: str, second: str) -> float:
        one, other = scored(prompt, first), scored(prompt, second)
        return 0.5 * (1 + (one > other) - (one < other))

    return judge


def judge_named(name: str) -> Judge:
    """The judge that "module:function" or "file.py:function" names; one that takes (prompt, answer) gives rewards.

    The module or file is imported, which runs it. Raises ConfigError where there is no such function.
    """
    where, _, called = name.rpartition(":")
    if not where or not called.isidentifier():
        raise ConfigError(f"judge is {name!r}; name {WANTED}, as module:function or file.py:function")
    function = getattr(_module(where), called, None)
    if not callable(function):
        raise ConfigError(f"there is no function {called!r} in {where}; wanted {WANTED}")
    try:
        taken = len(inspect.signature(function).parameters)
    except ValueError:  # some functions written in C do not say
        taken = 0
    if taken not in (2, 3):
        raise ConfigError(f"{name} takes {taken} arguments; wanted {WANTED}")
    return function if taken == 3 else judge_by_reward(function)


def _module(where: str) -> Any:
    path = Path(where)
    try:
        if path.suffix != ".py":
            return importlib.import_module(where)
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except (ImportError, OSError) as error:
        raise ConfigError(
            f"{where} cannot be imported: {error}; give an installed module, or the path of a file, as mine.py:function"
        ) from None
    return module
