"""The world of `kilter demo` as one start model sees it: what it may answer, drawn, judged, trained on, enumerated.

Axes: S sentences of one prompt (with the off-grammar outcome last where a docstring says so), A answers of one batch,
P pairs of them, N rows of logits, E edges, V vocabulary.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from kilter.data.records import Demonstration, Origin
from kilter.demo.frontier import tilt, with_off_grammar
from kilter.demo.wind_tunnel import text_rows, write_rows
from kilter.demo.world import World
from kilter.model.loading import copy_of, load_scorer, load_tokenizer
from kilter.model.prepared import PreparedTree
from kilter.model.sampler import SamplingSettings, TransformersSampler
from kilter.model.scorer import Scorer
from kilter.objectives import Mixture
from kilter.tokens.encoding import Encoder
from kilter.tokens.sequence import TokenSequence
from kilter.tokens.tree import TokenTree
from kilter.train.batches import Batch, PreparedMicroBatch
from kilter.train.config import SftConfig
from kilter.train.optimizer import Updater, rate_at
from kilter.train.sft import sft
from kilter.train.step import accumulate_gradient

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]

SHAPE = "layers=3,hidden=64,heads=4,kv_heads=4,mlp=192,vocabulary=1024,length=64"
LONGEST = 24  # tokens of an answer that is drawn; those of a sentence are at most 15
MISMATCHED = 16  # answers to another prompt that each prompt is given, for objectives that ask for such

# What is drawn to be compared: what an optimum says often has to be seen, and so has what it hardly ever says.
TILTED_BY = 0.5
OFF_GRAMMAR = 0.08
VERDICTS = 32  # of the judge on each two answers

# Off the grammar there are endless texts, and an objective whose f' has a limit hardly corrects one that has become
# likely before it was ever drawn. So every so many steps half of those to draw from are the policy's own.
OWN_TEXTS = 200
OWN_TEXTS_EVERY = 250

CLIP = 1.0
MEMORY = 0.99  # of squared gradients: those of the first steps are ten times as large as the last


class Question(NamedTuple):
    """A prompt's sentences as token sequences, answers off its grammar that the start model gives, and the rewards of
    all outcomes, (S,)."""

    sentences: list[TokenSequence]
    off_grammar: list[TokenSequence]
    reward_S: Floats


@dataclass(frozen=True)
class Tunnel:
    """The questions, how often each is asked, and the start model: log-probs of all outcomes for each question."""

    start: Scorer
    eos_token_id: int
    questions: list[Question]
    share: Floats
    every_sentence: PreparedTree
    log_start: list[Floats]

    def enumerate(self, model: Scorer) -> list[Floats]:
        """Log-probs of all outcomes under a model, (S,) for each question."""
        return outcomes(model, self.every_sentence, len(self.questions))

    def texts_off_grammar(self, model: Scorer, count: int, seed: int) -> list[list[TokenSequence]]:
        """So many answers to each prompt that are no sentences, as a model says them."""
        prompts = len(self.questions)
        texts = answers_off_grammar(model, self.every_sentence, prompts, count, self.eos_token_id, seed)
        firsts = [question.sentences[0].first for question in self.questions]
        return [[TokenSequence(ids, first) for ids in of_one] for of_one, first in zip(texts, firsts, strict=True)]


def start_model(world: World, directory: Path, sentences: int, seed: int) -> Path:
    """A small model of the world's language, trained from scratch unless it is there already."""
    if not (directory / "model" / "config.json").is_file():
        directory.mkdir(parents=True, exist_ok=True)
        text = directory.with_suffix(".jsonl")
        write_rows(text_rows(world.sample_text(sentences, seed)), text)
        with directory.with_suffix(".txt").open("w") as log:
            config = SftConfig(
                data=text,
                from_scratch=SHAPE,
                out=directory,
                overwrite=True,
                batch_size=128,
                learning_rate=6e-3,
                schedule="cosine",
                seed=seed,
            )
            sft(config, Console(file=log))
    return directory / "model"


def tunnel(world: World, start: Path, seed: int, off_grammar: int) -> Tunnel:
    """The world as a start model sees it, with so many answers off the grammar for each prompt."""
    scorer, tokenizer = load_scorer(str(start)), load_tokenizer(str(start))
    rows = [
        Demonstration(prompt, sentence, Origin("every sentence", 1))
        for i, prompt in enumerate(world.prompts)
        for sentence in world.sentences(i)
    ]
    sequences = [row.sequence for row in Encoder(tokenizer).encode_demonstrations(rows).rows]
    tree = PreparedTree(TokenTree.build(sequences))
    prompts = len(world.prompts)
    size = len(sequences) // prompts
    assert all(len(world.sentences(i)) == size for i in range(prompts))
    off = answers_off_grammar(scorer, tree, prompts, off_grammar, tokenizer.eos_token_id, seed)
    questions = [
        Question(
            sequences[i * size : (i + 1) * size],
            [TokenSequence(ids, sequences[i * size].first) for ids in off[i]],
            np.append(world.reward(i), world.off_grammar_reward),
        )
        for i in range(prompts)
    ]
    return Tunnel(
        scorer.frozen(),
        tokenizer.eos_token_id,
        questions,
        world.prompt_probability,
        tree,
        outcomes(scorer, tree, prompts),
    )


@torch.no_grad()
def outcomes(model: Scorer, every_sentence: PreparedTree, prompts: int) -> list[Floats]:
    """Log-probs of each prompt's sentences, and of anything else, under a model: (S,) for each."""
    (log_prob,) = model(every_sentence)
    sums = every_sentence.sum_edges(log_prob.double()).numpy()
    return [with_off_grammar(part) for part in np.split(sums, prompts)]


@torch.no_grad()
def answers_off_grammar(
    model: Scorer, every_sentence: PreparedTree, prompts: int, count: int, eos: int, seed: int
) -> list[list[Any]]:
    """Token ids of prompts with answers that are no sentences, drawn from the model's own such answers: `count` each.

    Where an answer leaves the grammar is drawn from the exact distribution over all places, then the token that leaves
    it; the model finishes the text.
    """
    tree, rng = every_sentence.tree, np.random.default_rng([seed, 1])
    target_row, target_id = every_sentence.target_row_M.numpy(), every_sentence.target_id_M.numpy()
    hidden_ND = model.hidden(every_sentence)
    log_prob_M = model(every_sentence)[0].double().numpy()

    edge_target = every_sentence.edge_target_E.numpy()
    completion_E = every_sentence.edge_completion_E.numpy()
    row_E, log_prob_E = target_row[edge_target], log_prob_M[edge_target]
    until_E = np.cumsum(log_prob_E) - log_prob_E
    reached_N, prompt_N = np.zeros(len(hidden_ND)), np.zeros(len(hidden_ND), np.int64)
    reached_N[row_E] = until_E - until_E[tree.edge_start_C[:-1]][completion_E]
    prompt_N[row_E] = completion_E // (tree.completions // prompts)
    stays_N = np.bincount(target_row, np.exp(log_prob_M), len(hidden_ND))
    leaves_N = np.exp(reached_N) * np.maximum(1 - stays_N, 0)

    begun: list[list[Any]] = []
    for prompt in range(prompts):
        places = np.flatnonzero(prompt_N == prompt)
        drawn = rng.choice(places, count, p=leaves_N[places] / leaves_N[places].sum())
        rows, row_of = np.unique(drawn, return_inverse=True)
        token_p = torch.softmax(model.head(hidden_ND[rows]), dim=-1).double().numpy()
        inside = np.isin(target_row, rows)
        token_p[np.searchsorted(rows, target_row[inside]), target_id[inside]] = 0
        below = np.cumsum(token_p, axis=1)[row_of]
        token = (rng.random((count, 1)) * below[:, -1:] < below).argmax(axis=1)
        nodes = every_sentence.row_N.numpy()[drawn]
        paths = {node: tree.ids_T[tree.path(node)] for node in np.unique(nodes).tolist()}
        begun.append([np.append(paths[node], np.int32(t)) for node, t in zip(nodes.tolist(), token, strict=True)])

    sampler = TransformersSampler(model, frozenset([eos]), SamplingSettings(LONGEST), batch_tokens=65_536)
    open_ids = [ids for texts in begun for ids in texts if ids[-1] != eos]
    finished = iter([sample.sequence.ids for sample in sampler.sample(open_ids, seed=seed)])
    return [[ids if ids[-1] == eos else next(finished) for ids in texts] for texts in begun]


def drawn_batch(
    tunnel: Tunnel, own_texts: list[list[TokenSequence]], rng: np.random.Generator, answers: int, mismatched: bool
) -> Batch:
    """So many answers to every prompt, drawn anew, each two of which the judge compares so many times."""
    sequences: list[TokenSequence] = []
    won, lost, preference = [], [], []
    for question, own, log_p_S in zip(tunnel.questions, own_texts, tunnel.log_start, strict=True):
        first, off_grammar = len(sequences), (question.off_grammar, own)
        outcome_A = rng.choice(len(log_p_S), answers, p=drawn_from(log_p_S, question.reward_S))
        sequences += [
            question.sentences[s] if s < len(question.sentences) else one_of(off_grammar[rng.integers(2)], rng)
            for s in outcome_A
        ]
        a, b = np.triu_indices(answers, 1)
        unlike = outcome_A[a] != outcome_A[b]
        a, b = np.repeat(a[unlike], VERDICTS), np.repeat(b[unlike], VERDICTS)
        reward_A = question.reward_S[outcome_A]
        chance_P = 1 / (1 + np.exp(reward_A[b] - reward_A[a]))
        a_wins = rng.random(len(a)) < chance_P
        won.append(first + np.where(a_wins, a, b))
        lost.append(first + np.where(a_wins, b, a))
        preference.append(np.where(a_wins, chance_P, 1 - chance_P))
    trained = prepared(sequences)
    extra = []
    if mismatched:
        asked = [sequences[i * answers] for i in range(len(tunnel.questions))]
        for i, prompt in enumerate(asked):
            others = sequences[((i + 1) % len(asked)) * answers :][:MISMATCHED]
            extra += [
                TokenSequence(np.concatenate([prompt.ids[: prompt.first], other.ids[other.first :]]), prompt.first)
                for other in others
            ]
    scored = prepared([*sequences, *extra]) if extra else trained
    return Batch(
        "pairs",
        (),
        len(sequences) + len(extra),
        chosen=torch.from_numpy(np.concatenate(won)),
        rejected=torch.from_numpy(np.concatenate(lost)),
        mismatched=torch.arange(len(sequences), len(sequences) + len(extra)),
        weight_C=scored.tree.weight_C,
        trained=(trained,),
        scored=(scored,),
        whole=True,
        nodes=len(trained.tree),
        preference_P=torch.from_numpy(np.concatenate(preference)).float(),
    )


def one_of(texts: list[TokenSequence], rng: np.random.Generator) -> TokenSequence:
    return texts[rng.integers(len(texts))]


def drawn_from(log_start_S: Floats, reward_S: Floats) -> Floats:
    """The distribution that answers to compare are drawn from, (S,): half of them from the start model, half from its
    tilt, as from a model that is aligned already; and a share off the grammar, whatever these say."""
    p_S = (np.exp(log_start_S) + np.exp(tilt(log_start_S, reward_S, TILTED_BY)))[:-1]
    return np.append(p_S / p_S.sum() * (1 - OFF_GRAMMAR), OFF_GRAMMAR)


def prepared(sequences: Sequence[TokenSequence]) -> PreparedMicroBatch:
    """All in one tree, as one unit."""
    tree = PreparedTree(TokenTree.build(sequences))
    count = len(sequences)
    return PreparedMicroBatch(tree, torch.arange(count), np.zeros(count, np.int64), tree.edge_weight_E)


class Trained(NamedTuple):
    model: Scorer
    pairs: int
    seconds: float


def train(
    tunnel: Tunnel,
    mixture: Mixture,
    *,
    steps: int,
    answers: int,
    learning_rate: float,
    seed: int,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> Trained:
    """An objective's result from the start model, by kilter's own steps: AdamW, a warm-up, and a cosine down to 0."""
    begin, policy = time.perf_counter(), copy_of(tunnel.start)
    policy.requires_grad_(True)
    updater = Updater(policy, learning_rate=learning_rate, weight_decay=0.0, max_grad_norm=CLIP)
    for group in updater.optimizer.param_groups:
        group["betas"] = 0.9, MEMORY
    rng, state, pairs = np.random.default_rng([seed, 2]), None, 0
    reference = tunnel.start if mixture.needs_reference else None
    for step in range(steps):
        if step % OWN_TEXTS_EVERY == 0:
            own_texts = tunnel.texts_off_grammar(policy, OWN_TEXTS, seed * steps + step)
        batch = drawn_batch(tunnel, own_texts, rng, answers, "mismatched" in mixture.needs)
        scores = accumulate_gradient(policy, reference, batch, mixture, state)
        state, pairs = scores.state, pairs + len(batch.chosen)
        updater.step(rate_at(step, steps, schedule="cosine", warmup=0.05), step)
        on_step(step + 1, scores.loss)
    return Trained(policy, pairs, time.perf_counter() - begin)
