"""`kilter demo`: train and align a small model in a world where the best possible result is known exactly.

The model's distribution over every sentence of the world is enumerated, as one token tree. So the expected reward
and the answer KL are exact, and so is the optimum they are held against: pi* proportional to
pi_ref exp(reward / beta), at the same KL.

Axes: S sentences that answer one prompt, with the off-grammar outcome last where a docstring says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from kilter.data.records import Demonstration, Origin, Pair
from kilter.data.staging import staged_file
from kilter.demo.config import DemoConfig
from kilter.demo.frontier import answer_kl, expected_reward, optimum_at_kl, over_prompts, with_off_grammar
from kilter.demo.world import World, restaurant
from kilter.measure.pairs import ScoredPairs
from kilter.measure.statistics import Interval
from kilter.model.loading import load_model, load_scorer, load_tokenizer
from kilter.model.prepared import PreparedTree
from kilter.model.scorer import Scorer
from kilter.tokens.encoding import Encoder
from kilter.tokens.tree import TokenTree
from kilter.train.align import align
from kilter.train.config import AlignConfig, SftConfig
from kilter.train.sft import sft

Floats = NDArray[np.float64]

SHAPE = "layers=4,hidden=128,heads=4,kv_heads=2,mlp=384,vocabulary=1024,length=64"


@dataclass(frozen=True)
class Flight:
    """What the wind tunnel measured: rewards and KL (nats per answer) averaged over prompts, accuracies over held-out
    pairs with the ceiling that noisy labels allow."""

    reward_before: float
    reward_after: float
    reward_optimum: float
    kl: float
    beta_optimum: float
    on_grammar_before: float
    on_grammar_after: float
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    ceiling: float

    @property
    def share_of_gain(self) -> float:
        """The reward gained, as a share of the most that any policy can gain at that KL."""
        return (self.reward_after - self.reward_before) / (self.reward_optimum - self.reward_before)


@dataclass(frozen=True)
class Prepared:
    """What there is before alignment: a small model, pairs of its own answers that a noisy judge labelled, and the
    accuracy that the held-out ones allow."""

    start: Path
    pairs: Path
    held_out: Path
    ceiling: float


def demo(config: DemoConfig, console: Console | None = None) -> Flight:
    """Draw data from the world, train, align, enumerate, compare; prints a table and a few sentences."""
    console = console or Console()
    world, ready = restaurant(), prepare(config, console)
    console.rule("3. alignment", align="left")
    aligned = align(
        AlignConfig(out=config.out / "align", overwrite=True, beta=config.beta, **settings(config, ready)), console
    )
    console.rule("4. the result against the exact optimum", align="left")
    before, after = (
        enumerate_answers(load_scorer(str(model)), world, ready.start) for model in (ready.start, aligned.model)
    )
    assert isinstance(aligned.after, ScoredPairs)
    flight = measure(world, before, after, aligned.after.accuracy, ready.ceiling)
    console.print(as_table(flight))
    show_sentences(console, world, before, after, config.seed)
    console.print(
        f"everything is in {config.out}: text, pairs, both runs with their metrics and models", soft_wrap=True
    )
    return flight


def prepare(config: DemoConfig, console: Console) -> Prepared:
    """Draw data from the world and train the small model that alignment begins with."""
    world, out = restaurant(), config.out
    text, train, held_out = out / "text.jsonl", out / "pairs.jsonl", out / "held-out.jsonl"
    out.mkdir(parents=True, exist_ok=True)
    write_rows(text_rows(world.sample_text(config.sentences, config.seed)), text)
    console.rule("1. a small language model from scratch", align="left")
    start = sft(
        SftConfig(
            data=text,
            from_scratch=SHAPE,
            out=out / "sft",
            overwrite=True,
            batch_size=128,
            epochs=config.sft_epochs,
            learning_rate=2e-3,
            schedule="cosine",
            seed=config.seed,
            precision=config.precision,
        ),
        console,
    )
    console.rule("2. pairs of its own answers, labelled by a noisy judge", align="left")
    labelled = world.label(sample_answers(start, world, config.pairs + config.held_out, config.seed), config.seed)
    write_rows(pair_rows(labelled[: -config.held_out]), train)
    write_rows(pair_rows(labelled[-config.held_out :]), held_out)
    return Prepared(start, train, held_out, world.ceiling(labelled[-config.held_out :]))


def settings(config: DemoConfig, ready: Prepared) -> dict[str, Any]:
    """Of every alignment of the demo."""
    return {
        "model": str(ready.start),
        "data": ready.pairs,
        "eval_data": ready.held_out,
        "skip_bad": True,  # an untaught byte may be drawn, such as NUL
        "batch_size": 64,
        "epochs": config.align_epochs,
        "learning_rate": 3e-4,
        "schedule": "cosine",
        "seed": config.seed,
        "precision": config.precision,
    }


def measure(world: World, before: list[Floats], after: list[Floats], accuracy: Interval, ceiling: float) -> Flight:
    """Exact rewards and KL of both models (log-probs of sentences, per prompt), and the optimum at the same KL."""
    rewards = rewards_of(world)
    start, end = [[with_off_grammar(log_p) for log_p in model] for model in (before, after)]
    kl = over_prompts([answer_kl(p, q) for p, q in zip(end, start, strict=True)], world.prompt_probability)
    optimum = optimum_at_kl(start, rewards, world.prompt_probability, kl)

    def reward(model: list[Floats]) -> float:
        each = [expected_reward(log_p, r) for log_p, r in zip(model, rewards, strict=True)]
        return over_prompts(each, world.prompt_probability)

    def on_grammar(model: list[Floats]) -> float:
        return over_prompts([float(np.exp(log_p).sum()) for log_p in model], world.prompt_probability)

    return Flight(
        reward_before=reward(start),
        reward_after=reward(end),
        reward_optimum=optimum.expected_reward,
        kl=kl,
        beta_optimum=optimum.beta,
        on_grammar_before=on_grammar(before),
        on_grammar_after=on_grammar(after),
        accuracy=accuracy.value,
        accuracy_low=accuracy.low,
        accuracy_high=accuracy.high,
        ceiling=ceiling,
    )


def rewards_of(world: World) -> list[Floats]:
    """Of everything that may be answered to each prompt, off the grammar last."""
    return [np.append(world.reward(i), world.off_grammar_reward) for i in range(len(world.prompts))]


@torch.no_grad()
def enumerate_answers(scorer: Scorer, world: World, tokenizer: Path) -> list[Floats]:
    """Log-probability of every sentence of the world under the model, (S,) for each prompt: one tree, one pass."""
    rows = [
        Demonstration(prompt, sentence, Origin("every sentence", 1))
        for i, prompt in enumerate(world.prompts)
        for sentence in world.sentences(i)
    ]
    encoded, _ = Encoder(load_tokenizer(str(tokenizer))).encode_demonstrations(rows)
    tree = PreparedTree(TokenTree.build([row.sequence for row in encoded]), scorer.device)
    (log_prob,) = scorer(tree)
    sums = tree.sum_edges(log_prob.double()).cpu().numpy()
    counts = [len(world.sentences(i)) for i in range(len(world.prompts))]
    return np.split(sums, np.cumsum(counts)[:-1])


@torch.no_grad()
def sample_answers(model: Path, world: World, count: int, seed: int) -> list[tuple[str, str, str]]:
    """About `count` draws of a prompt and two different answers of the model to it, in random order."""
    tokenizer, language_model = load_tokenizer(str(model)), load_model(str(model))
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    drawn = []
    for prompt, asked in zip(world.prompts, rng.multinomial(count, world.prompt_probability), strict=True):
        prompt_ids = torch.tensor([tokenizer(prompt).input_ids]).expand(2 * int(asked), -1)
        generated = language_model.generate(  # type: ignore[operator]
            prompt_ids,
            attention_mask=torch.ones_like(prompt_ids),
            do_sample=True,
            top_k=0,
            max_new_tokens=24,
            pad_token_id=tokenizer.pad_token_id,
        )
        answers = tokenizer.batch_decode(generated[:, prompt_ids.shape[1] :], skip_special_tokens=True)
        pairs = zip(answers[::2], answers[1::2], strict=True)
        drawn += [(prompt, a, b) for a, b in pairs if a != b and a.strip() and b.strip()]
    return [drawn[i] for i in rng.permutation(len(drawn))]


def text_rows(rows: Iterable[Demonstration]) -> Iterator[dict[str, str]]:
    for row in rows:
        yield {"prompt": str(row.prompt), "completion": str(row.completion)}


def pair_rows(rows: Iterable[Pair]) -> Iterator[dict[str, str]]:
    for row in rows:
        yield {"prompt": str(row.prompt), "chosen": str(row.chosen), "rejected": str(row.rejected)}


def write_rows(rows: Iterable[Mapping[str, str]], path: Path) -> None:
    """JSON lines; there whole, or not at all."""
    with staged_file(path) as staging, staging.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)


def as_table(flight: Flight) -> Table:
    table = Table()
    table.add_column("")
    for heading in ("before", "after", f"exact optimum at that KL (beta {flight.beta_optimum:.3f})"):
        table.add_column(heading, justify="right")
    table.add_row(
        "expected reward",
        f"{flight.reward_before:+.3f}",
        f"{flight.reward_after:+.3f}",
        f"{flight.reward_optimum:+.3f}",
    )
    table.add_row("answer KL from the start, nats", "0.000", f"{flight.kl:.3f}", f"{flight.kl:.3f}")
    table.add_row("gain, as a share of the possible", "", f"{flight.share_of_gain:.1%}", "100%")
    table.add_row(
        "preference accuracy, held-out pairs",
        "0.500",
        f"{flight.accuracy:.3f} ({flight.accuracy_low:.3f}, {flight.accuracy_high:.3f})",
        f"{flight.ceiling:.3f}, the ceiling of noisy labels",
    )
    table.add_row("on the grammar", f"{flight.on_grammar_before:.1%}", f"{flight.on_grammar_after:.1%}", "")
    return table


def show_sentences(console: Console, world: World, before: list[Floats], after: list[Floats], seed: int) -> None:
    """A few answers drawn from both models, with the same dice."""
    for i in (0, 3, 5):
        console.print(f"\n[bold]{world.prompts[i]}[/]")
        for name, log_p in (("before", before[i]), ("after", after[i])):
            p = np.exp(log_p)
            drawn = np.random.default_rng([seed, i]).choice(len(p), size=3, p=p / p.sum())
            for s in drawn:
                console.print(
                    f"  {name:6}  {world.reward(i)[s]:+.2f} {world.sentences(i)[s]}", highlight=False, soft_wrap=True
                )
    console.print()
