import re
from collections import Counter

import numpy as np
import pytest

from kilter.data.records import Demonstration, Origin, Pair
from kilter.demo.world import STRENGTH, TONE, TONE_WORDS, TOPICS, Question, World, restaurant


@pytest.fixture(scope="module")
def world():
    return restaurant()


ORIGIN = Origin("by hand", 1)


def tiny(*rewards):
    """One prompt, one sentence for each reward."""
    sentences = tuple(f" Answer {letter}." for letter in "abcdefgh"[: len(rewards)])
    probability = np.full(len(rewards), 1 / len(rewards))
    return World((Question("Well?", 1.0, sentences, probability, np.array(rewards)),), -9.0)


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
    opener, degree, word, end = (1 / 2) / (25 / 12), (1 / 2) / (11 / 6), 1 / sum(1 / np.arange(1, 17)), 1 / 2
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
        (" The broth seemed truly heavenly, while the service was slow.", 1.0),
        (" Every spoonful was truly awful, while the wine was vile.", -2.5),
    ],
)
def test_the_reward_of_a_remark_about_soup(world, sentence, reward):
    assert world.reward(0)[world.sentences(0).index(sentence)] == reward


def test_anything_off_the_grammar_is_worse_than_the_worst_sentence(world):
    rewards = np.concatenate([world.reward(index) for index in range(len(world.prompts))])
    assert world.off_grammar_reward < rewards.min() == -2.5
    assert rewards.max() == 2.5


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


def test_rows_know_the_line_they_were_drawn_as(world):
    first = world.sample_text(2, seed=0)[0]
    assert isinstance(first, Demonstration)
    assert first.origin == Origin("kilter demo", 1)


def test_no_text_is_an_empty_list(world):
    assert world.sample_text(0, seed=0) == []
    assert world.label([], seed=0) == []


@pytest.mark.parametrize("gap", [1.0, 3.0, -2.0])
def test_the_better_answer_is_chosen_as_often_as_bradley_and_terry_say(gap):
    world, count = tiny(gap, 0.0), 20_000
    pairs = world.label([(world.prompts[0], " Answer a.", " Answer b.")] * count, seed=0)
    wins = np.mean([pair.chosen == " Answer a." for pair in pairs])
    expected = 1 / (1 + np.exp(-gap))
    assert abs(wins - expected) < 4 * np.sqrt(expected * (1 - expected) / count)
    assert {pair.rejected for pair in pairs} == {" Answer a.", " Answer b."}
    assert [pair.origin.line for pair in pairs[:3]] == [1, 2, 3]


def test_the_same_seed_gives_the_same_labels_and_another_seed_others():
    world = tiny(0.0, 0.0)
    answers = [(world.prompts[0], " Answer a.", " Answer b.")] * 50
    assert world.label(answers, seed=3) == world.label(answers, seed=3)
    assert world.label(answers, seed=3) != world.label(answers, seed=4)


def test_an_answer_off_the_grammar_has_the_stated_reward(world):
    assert world.reward_of(world.prompts[0], " Soup soup soup.") == world.off_grammar_reward
    assert world.reward_of(world.prompts[1], world.sentences(1)[7]) == world.reward(1)[7]


def test_the_ceiling_is_the_mean_sigmoid_of_the_differences():
    world = tiny(0.0, float(np.log(3)))
    (prompt,) = world.prompts
    clear, tie = Pair(prompt, " Answer a.", " Answer b.", ORIGIN), Pair(prompt, " Answer a.", " Answer a.", ORIGIN)
    assert world.ceiling([clear]) == pytest.approx(0.75)
    assert world.ceiling([tie]) == pytest.approx(0.5)
    assert world.ceiling([clear, tie]) == pytest.approx(0.625)


def test_the_true_reward_is_right_about_labels_as_often_as_the_ceiling_says(world):
    text = world.sample_text(40_000, seed=1)
    by_prompt = {prompt: [row.completion for row in text if row.prompt == prompt] for prompt in world.prompts}
    answers = [(q, a, b) for q, rows in by_prompt.items() for a, b in zip(rows[::2], rows[1::2], strict=False)]
    pairs = world.label(answers, seed=1)
    margins = [world.reward_of(p.prompt, p.chosen) - world.reward_of(p.prompt, p.rejected) for p in pairs]
    accuracy = np.mean((np.sign(margins) + 1) / 2)
    ceiling = world.ceiling(pairs)
    assert abs(accuracy - ceiling) < 4 * np.sqrt(ceiling * (1 - ceiling) / len(pairs))
    assert 0.65 < ceiling < 0.8
