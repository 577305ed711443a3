import re
from collections import Counter

import numpy as np
import pytest

from kilter.data.records import Demonstration, Origin
from kilter.demo.world import STRENGTH, TONE, TONE_WORDS, TOPICS, Question, World, restaurant
from kilter.errors import DataError


@pytest.fixture(scope="module")
def world():
    return restaurant()


def tiny(*rewards, probability=None):
    """One prompt, one sentence for each reward."""
    sentences = tuple(f" Answer {letter}." for letter in "abcdefgh"[: len(rewards)])
    probability = np.full(len(rewards), 1 / len(rewards)) if probability is None else np.array(probability)
    return World((Question("Well?", 1.0, sentences, probability, np.array(rewards)),), -9.0)


def brute_force_ceiling(probability, reward, scale=1.0):
    pairs = [(a, b) for a in range(len(reward)) for b in range(len(reward)) if a != b]
    weights = [probability[a] * probability[b] for a, b in pairs]
    wins = [1 / (1 + np.exp(-scale * (reward[a] - reward[b]))) for a, b in pairs]
    return np.average([max(win, 1 - win) for win in wins], weights=weights)


def read_tone(sentence):
    """The reward by its rule, from the words alone."""
    degree = "a little|" + "|".join(degree for degree in STRENGTH if degree)
    found = re.findall(rf"(?:({degree}) )?\b({'|'.join(TONE)})\b", sentence)
    return sum(STRENGTH[degree] * TONE[word] for degree, word in found)


def test_no_two_derivations_of_a_prompt_give_the_same_sentence(world):
    for index in range(len(world.prompts)):
        assert len(set(world.sentences(index))) == len(world.sentences(index))
    assert len(set(world.prompts)) == len(world.prompts)


def test_all_sentences_fit_one_token_tree(world):
    assert 20_000 <= sum(len(world.sentences(index)) for index in range(len(world.prompts))) <= 50_000


def test_the_sentences_of_each_prompt_are_certain_together_and_possible_each(world):
    assert world.prompt_probability.sum() == pytest.approx(1.0, abs=1e-12)
    for index in range(len(world.prompts)):
        assert world.probability(index).sum() == pytest.approx(1.0, abs=1e-12)
        assert (world.probability(index) > 0).all()


def test_the_probability_of_a_sentence_is_the_product_of_its_choices(world):
    index = world.sentences(0).index(" The soup was very tasty.")
    opener, degree, word, end = (1 / 2) / (25 / 12), (1 / 2) / (11 / 6), 1 / sum(1 / np.arange(1, 17)), 6 / 11
    assert world.probability(0)[index] == pytest.approx(opener * degree * word * end)


def test_the_reward_of_a_sentence_is_what_its_tone_words_say(world):
    for index in range(len(world.prompts)):
        assert world.reward(index).tolist() == list(map(read_tone, world.sentences(index)))


@pytest.mark.parametrize(
    ("sentence", "reward"),
    [
        (" It was tasty.", 0.5),
        (" It was not tasty.", -0.5),
        (" It was a little salty.", -0.25),
        (" The broth seemed truly heavenly, but the service was slow.", 1.0),
        (" Every spoonful was truly awful, and the wine was vile.", -2.5),
    ],
)
def test_the_reward_of_a_remark_about_soup(world, sentence, reward):
    assert world.reward(0)[world.sentences(0).index(sentence)] == reward


def test_anything_off_the_grammar_is_worse_than_the_worst_sentence(world):
    rewards = np.concatenate([world.reward(index) for index in range(len(world.prompts))])
    assert world.off_grammar_reward < rewards.min() == -2.5
    assert rewards.max() == 2.5


def test_and_joins_tones_that_agree_and_but_tones_that_differ(world):
    for index in range(len(world.prompts)):
        for sentence in world.sentences(index):
            first, comma, aside = sentence.partition(",")
            if comma:
                agree = read_tone(first) * read_tone(aside) > 0
                assert aside.startswith(" and the " if agree else " but the ")


def test_every_tone_word_has_one_tone():
    assert sum(len(words.split()) for words in TONE_WORDS.values()) == len(TONE)


def test_every_topic_has_sixteen_tone_words_and_every_tone_word_a_topic():
    for topic in TOPICS:
        words = topic.words.split()
        assert len(set(words)) == 16
        assert set(words) <= set(TONE)
    assert {word for topic in TOPICS for word in topic.words.split()} == set(TONE)


def test_words_spell_every_prompt_and_sentence_in_one_way(world):
    word = re.compile("|".join(sorted(map(re.escape, world.words), key=len, reverse=True)))
    for index, prompt in enumerate(world.prompts):
        for sentence in world.sentences(index)[::7]:
            assert "".join(word.findall(prompt + sentence)) == prompt + sentence
            assert sentence.startswith(" ")
            assert "  " not in sentence
    assert 150 <= len(world.words) <= 300


def test_arrays_of_the_world_cannot_be_overwritten(world):
    with pytest.raises(ValueError, match="read-only"):
        world.reward(0)[0] = 5.0


def test_text_is_drawn_as_often_as_its_probability_says(world):
    count = 20_000
    drawn = Counter((row.prompt, row.completion) for row in world.sample_text(count, seed=0))
    for index, prompt in enumerate(world.prompts):
        asked = sum(times for (of, _), times in drawn.items() if of == prompt)
        share = world.prompt_probability[index]
        assert abs(asked / count - share) < 4 * np.sqrt(share * (1 - share) / count)
        likeliest = world.probability(index).argmax()
        share = world.probability(index)[likeliest]
        times = drawn[prompt, world.sentences(index)[likeliest]]
        assert abs(times / asked - share) < 4 * np.sqrt(share * (1 - share) / asked)


def test_the_same_seed_draws_the_same_rows_and_another_seed_others(world):
    assert world.sample_text(50, seed=3) == world.sample_text(50, seed=3)
    assert world.sample_text(50, seed=3) != world.sample_text(50, seed=4)
    assert world.sample_pairs(50, seed=3) == world.sample_pairs(50, seed=3)
    assert world.sample_pairs(50, seed=3) != world.sample_pairs(50, seed=4)


def test_rows_know_the_line_they_were_drawn_as(world):
    first = world.sample_text(2, seed=0)[0]
    assert isinstance(first, Demonstration)
    assert first.origin == Origin("kilter demo", 1)
    assert [pair.origin.line for pair in world.sample_pairs(3, seed=0)] == [1, 2, 3]


def test_no_pairs_is_an_empty_list(world):
    assert world.sample_text(0, seed=0) == []
    assert world.sample_pairs(0, seed=0) == []


def test_the_two_answers_of_a_pair_differ_and_answer_its_prompt(world):
    answers = {prompt: set(world.sentences(index)) for index, prompt in enumerate(world.prompts)}
    for pair in world.sample_pairs(2_000, seed=0):
        assert pair.chosen != pair.rejected
        assert {pair.chosen, pair.rejected} <= answers[pair.prompt]


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_the_better_answer_is_chosen_as_often_as_bradley_and_terry_say(scale):
    world, count = tiny(1.0, 0.0), 20_000
    wins = np.mean([pair.chosen == " Answer a." for pair in world.sample_pairs(count, seed=0, scale=scale)])
    expected = 1 / (1 + np.exp(-scale))
    assert abs(wins - expected) < 4 * np.sqrt(expected * (1 - expected) / count)


def test_pairs_are_two_independent_draws_given_that_they_differ():
    world, count = tiny(0.0, 0.0, 0.0, probability=[0.6, 0.3, 0.1]), 20_000
    pairs = Counter(frozenset((pair.chosen, pair.rejected)) for pair in world.sample_pairs(count, seed=0))
    expected = 0.6 * 0.3 / (0.6 * 0.3 + 0.6 * 0.1 + 0.3 * 0.1)
    share = pairs[frozenset((" Answer a.", " Answer b."))] / count
    assert abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / count)


def test_pairs_come_from_the_given_distributions_whatever_their_sum():
    world = tiny(0.0, 1.0, 2.0)
    pairs = world.sample_pairs(100, seed=0, distributions=[np.array([0.1, 0.0, 0.3])])
    assert {text for pair in pairs for text in (pair.chosen, pair.rejected)} == {" Answer a.", " Answer c."}


def test_the_ceiling_of_two_answers_is_the_sigmoid_of_their_difference():
    assert tiny(0.0, np.log(3)).label_ceiling() == pytest.approx(0.75)
    assert tiny(0.0, np.log(3)).label_ceiling(scale=2.0) == pytest.approx(0.9)


def test_the_ceiling_of_equal_rewards_is_one_half():
    assert tiny(2.0, 2.0, 2.0).label_ceiling() == pytest.approx(0.5)


def test_the_ceiling_equals_the_average_over_every_pair():
    rewards, probability = [0.5, -1.0, 0.5, 2.0, 0.0], np.array([0.4, 0.1, 0.2, 0.25, 0.05])
    world = tiny(*rewards)
    assert world.label_ceiling() == pytest.approx(brute_force_ceiling(np.ones(5), rewards), rel=1e-14)
    on_policy = world.label_ceiling(scale=2.0, distributions=[0.9 * probability])
    assert on_policy == pytest.approx(brute_force_ceiling(probability, rewards, scale=2.0), rel=1e-14)


def test_the_true_reward_is_right_about_labels_as_often_as_the_ceiling_says(world):
    reward = {
        (prompt, sentence): value
        for index, prompt in enumerate(world.prompts)
        for sentence, value in zip(world.sentences(index), world.reward(index), strict=True)
    }
    pairs = world.sample_pairs(20_000, seed=1)
    margins = [reward[pair.prompt, pair.chosen] - reward[pair.prompt, pair.rejected] for pair in pairs]
    accuracy = np.mean((np.sign(margins) + 1) / 2)
    ceiling = world.label_ceiling()
    assert abs(accuracy - ceiling) < 4 * np.sqrt(ceiling * (1 - ceiling) / len(pairs))
    assert 0.65 < ceiling < 0.8


@pytest.mark.parametrize(
    ("distributions", "message"),
    [
        ([], "got 0 distributions"),
        ([np.ones(3)], r"got shape \(3,\), wanted \(2,\)"),
        ([np.log([0.5, 0.5])], "not their logs"),
        ([np.array([np.nan, 1.0])], "not finite"),
        ([np.zeros(2)], "all 0"),
        ([np.array([1.0, 0.0])], "the same 100.00% of the time"),
    ],
)
def test_distributions_that_give_no_pairs_are_refused(distributions, message):
    world = tiny(0.0, 1.0)
    with pytest.raises(DataError, match=message):
        world.sample_pairs(1, seed=0, distributions=distributions)
    with pytest.raises(DataError, match=message):
        world.label_ceiling(distributions=distributions)
