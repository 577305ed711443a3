"""A world of restaurant remarks in which every probability and every reward is known exactly.

A guest is asked about one of eight things and answers in a sentence:

    answer   ->  first "."  |  first ", while" aside "."
    first    ->  opener degree word           "The broth seemed a little salty"
    aside    ->  "the" noun "was" word        "the service was friendly"

Every list below stands commonest first, and the k-th choice of a list is 1/k as likely as the first. An answer's
true reward is the sum of its tone words' values, each times the strength of the degree before it.
"""

# S sentences that answer one prompt, N draws

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from kilter.data.records import Demonstration, Origin, Pair

Floats: TypeAlias = NDArray[np.float64]
Indices: TypeAlias = NDArray[np.int64]
Choice = TypeVar("Choice")

SOURCE = "kilter demo"
OFF_GRAMMAR_REWARD = -3.0  # the worst sentence is worth -2.5

ASIDES = 0.5  # the share of answers that have an aside

STRENGTH = {"": 1.0, "very": 1.5, "truly": 1.5, "a little": 0.5, "not": -1.0}

# What may stand before a tone word, by the word's value.
DEGREES = {
    1.0: ("", "truly"),
    0.5: ("", "very", "not"),
    -0.5: ("", "a little", "very"),
    -1.0: ("", "truly"),
}

TONE_WORDS = {
    1.0: """beautiful brilliant delicious divine enchanting excellent exquisite fantastic glorious
            gorgeous heavenly impeccable magnificent marvellous outstanding perfect stunning superb
            wonderful""",
    0.5: """aromatic attentive bright cheerful clean cosy creamy crisp elegant flaky fragrant fresh
            friendly fruity gentle hearty juicy kind light lively mellow moist pleasant polite quick
            quiet rich smooth soft soothing spacious sweet tasty tender velvety warm""",
    -0.5: """bitter bland bony burnt careless chewy clumsy cold cramped dark draughty dry dull flat
            forgetful gloomy greasy harsh heavy loud lukewarm noisy repetitive rubbery salty sharp shrill
            slow soggy sour stale sugary thin tough watery weak""",
    -1.0: """appalling awful deafening disgusting dreadful filthy foul hopeless horrible inedible
            insulting revolting rotten squalid terrible unbearable undrinkable vile""",
}
TONE = {word: value for value, words in TONE_WORDS.items() for word in words.split()}


class Topic(NamedTuple):
    """What may be asked about: how answers open, the words that fit it, and what asides may turn to."""

    noun: str
    openers: tuple[str, ...]
    words: str
    asides: tuple[str, ...]


TOPICS = (
    Topic(
        "soup",
        ("It was", "The soup was", "The broth seemed", "Every spoonful was"),
        """tasty salty warm wonderful bland awful fresh lukewarm
           superb greasy fragrant thin heavenly inedible hearty revolting""",
        ("service", "wine"),
    ),
    Topic(
        "service",
        ("It was", "The service was", "Our waiter was", "The whole staff seemed"),
        """friendly slow kind outstanding careless appalling quick forgetful
           impeccable cold polite hopeless attentive clumsy brilliant insulting""",
        ("soup", "room"),
    ),
    Topic(
        "fish",
        ("It was", "The fish was", "The fillet tasted", "Each bite was"),
        """dry fresh excellent tender tough terrible perfect bony
           flaky chewy juicy rotten exquisite rubbery moist inedible""",
        ("wine", "service"),
    ),
    Topic(
        "wine",
        ("It was", "The wine was", "The red tasted", "Every glass was"),
        """smooth sour outstanding fruity flat terrible crisp watery
           magnificent sharp mellow undrinkable divine harsh elegant vile""",
        ("fish", "room"),
    ),
    Topic(
        "coffee",
        ("It was", "The coffee was", "My espresso tasted", "The second cup was"),
        """bitter rich fantastic weak aromatic dreadful smooth cold
           perfect burnt fresh foul velvety stale marvellous undrinkable""",
        ("cake", "music"),
    ),
    Topic(
        "cake",
        ("It was", "The cake was", "My slice tasted", "The last crumb was"),
        """sweet stale delicious soft heavy disgusting light sugary
           divine dry creamy dreadful moist soggy glorious horrible""",
        ("coffee", "service"),
    ),
    Topic(
        "room",
        ("It was", "The room was", "The dining area felt", "Our corner seemed"),
        """noisy cosy gorgeous cramped bright filthy quiet dark
           stunning cold clean unbearable spacious draughty enchanting squalid""",
        ("music", "service"),
    ),
    Topic(
        "music",
        ("It was", "The music was", "The piano sounded", "Every song seemed"),
        """loud gentle beautiful dull lively unbearable pleasant gloomy
           enchanting repetitive cheerful horrible soothing shrill brilliant deafening""",
        ("room", "wine"),
    ),
)
WORDS = {topic.noun: topic.words.split() for topic in TOPICS}


class Remark(NamedTuple):
    """A stretch of text, how likely it is, and the sum of its tones."""

    text: str
    probability: float
    tone: float


@dataclass(frozen=True, eq=False)
class Question:
    """A prompt, how often it is asked, and all of its answers, each beginning with a space: arrays (S,)."""

    prompt: str
    share: float
    sentences: tuple[str, ...]
    probability: Floats
    reward: Floats


@dataclass(frozen=True, eq=False)
class World:
    """Prompts, the exact distribution of answers to each, and the exact reward of each answer.

    Anything that is no sentence of the prompt's grammar is one outcome, worth `off_grammar_reward`.
    """

    questions: tuple[Question, ...]
    off_grammar_reward: float

    @property
    def prompts(self) -> tuple[str, ...]:
        return tuple(question.prompt for question in self.questions)

    @property
    def prompt_probability(self) -> Floats:
        return np.array([question.share for question in self.questions])

    @property
    def words(self) -> tuple[str, ...]:
        """Every word, with the space before it, and punctuation mark: a whole vocabulary, sorted."""
        texts = {text for question in self.questions for text in (question.prompt, *question.sentences)}
        return tuple(sorted({word for text in texts for word in re.findall(r" ?\w+|[^\w ]", text)}))

    def sentences(self, prompt_index: int) -> tuple[str, ...]:
        """All answers to a prompt, to be appended to it as they are."""
        return self.questions[prompt_index].sentences

    def probability(self, prompt_index: int) -> Floats:
        """The probability of each answer to a prompt, shape (S,), read-only; they sum to 1."""
        return self.questions[prompt_index].probability

    def reward(self, prompt_index: int) -> Floats:
        """The true reward of each answer to a prompt, shape (S,), read-only."""
        return self.questions[prompt_index].reward

    def sample_text(self, count: int, seed: int) -> list[Demonstration]:
        """Draw prompts, and an answer to each."""
        rng = np.random.default_rng(seed)
        prompt_N = rng.choice(len(self.questions), size=count, p=self.prompt_probability)
        asked_N = [self.questions[prompt] for prompt in prompt_N]
        answer_N = _draw(prompt_N, [question.probability for question in self.questions], rng)
        return [
            Demonstration(question.prompt, question.sentences[answer], Origin(SOURCE, line))
            for line, (question, answer) in enumerate(zip(asked_N, answer_N, strict=True), start=1)
        ]

    def reward_of(self, prompt: str, answer: str) -> float:
        """The true reward of any text as an answer to a prompt."""
        return self._rewards[prompt].get(answer, self.off_grammar_reward)

    def label(self, answers: Iterable[tuple[str, str, str]], seed: int) -> list[Pair]:
        """Label (prompt, a, b) as Bradley and Terry would: a is preferred with probability
        sigmoid(reward(a) - reward(b))."""
        rng = np.random.default_rng(seed)
        pairs = []
        for line, (prompt, a, b) in enumerate(answers, start=1):
            a_wins = rng.random() < _sigmoid(self.reward_of(prompt, a) - self.reward_of(prompt, b))
            pairs.append(Pair(prompt, *((a, b) if a_wins else (b, a)), Origin(SOURCE, line)))
        return pairs

    def ceiling(self, pairs: Iterable[Pair]) -> float:
        """The expected accuracy of the true reward on pairs that were labelled so: E[sigmoid(|difference|)].

        Nothing has more, however good: the rest is the noise of the labels. A tie counts one half.
        """
        return float(
            np.mean(
                [
                    _sigmoid(
                        abs(
                            self.reward_of(str(p.prompt), str(p.chosen))
                            - self.reward_of(str(p.prompt), str(p.rejected))
                        )
                    )
                    for p in pairs
                ]
            )
        )

    @cached_property
    def _rewards(self) -> dict[str, dict[str, float]]:
        return {q.prompt: dict(zip(q.sentences, q.reward.tolist(), strict=True)) for q in self.questions}


def restaurant() -> World:
    """The world that this module's tables describe."""
    return World(tuple(_question(topic, share) for topic, share in _zipf(TOPICS)), OFF_GRAMMAR_REWARD)


def _question(topic: Topic, share: float) -> Question:
    answers = list(_answers(topic))
    probability = np.array([answer.probability for answer in answers])
    reward = np.array([answer.tone for answer in answers])
    probability.setflags(write=False)
    reward.setflags(write=False)
    sentences = tuple(answer.text for answer in answers)
    return Question(f"How was the {topic.noun}?", share, sentences, probability, reward)


def _answers(topic: Topic) -> Iterator[Remark]:
    asides = list(_asides(topic))
    for first in _firsts(topic):
        yield Remark(f" {first.text}.", first.probability * (1 - ASIDES), first.tone)
        for aside in asides:
            text = f" {first.text}, while {aside.text}."
            yield Remark(text, first.probability * aside.probability * ASIDES, first.tone + aside.tone)


def _firsts(topic: Topic) -> Iterator[Remark]:
    for opener, p_opener in _zipf(topic.openers):
        for word, p_word in _zipf(WORDS[topic.noun]):
            for degree, p_degree in _zipf(DEGREES[TONE[word]]):
                text = " ".join(filter(None, (opener, degree, word)))
                yield Remark(text, p_opener * p_word * p_degree, STRENGTH[degree] * TONE[word])


def _asides(topic: Topic) -> Iterator[Remark]:
    for noun, p_noun in _zipf(topic.asides):
        for word, p_word in _zipf(WORDS[noun]):
            yield Remark(f"the {noun} was {word}", p_noun * p_word, TONE[word])


def _zipf(choices: Sequence[Choice]) -> list[tuple[Choice, float]]:
    """Each choice with its probability, the k-th being 1/k as likely as the first."""
    total = sum(1 / rank for rank in range(1, len(choices) + 1))
    return [(choice, 1 / rank / total) for rank, choice in enumerate(choices, start=1)]


def _draw(prompt_N: Indices, distributions: Sequence[Floats], rng: np.random.Generator) -> Indices:
    """One answer to each prompt."""
    answer_N = np.empty_like(prompt_N)
    for prompt, probability_S in enumerate(distributions):
        asked_N = prompt_N == prompt
        answer_N[asked_N] = rng.choice(len(probability_S), size=np.count_nonzero(asked_N), p=probability_S)
    return answer_N


def _sigmoid(x: float) -> float:
    return 0.5 + 0.5 * math.tanh(x / 2)  # exp(-x) would overflow
