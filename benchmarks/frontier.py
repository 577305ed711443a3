"""How near objectives come to the exact optimum of what they stand for, in the world of `kilter demo`.

For each seed a small start model is trained from scratch, and every objective from it. At each step every prompt has
answers drawn anew, and each two of them go to the noisy judge, again and again: Bradley and Terry's choice by the true
reward. So labels are as noisy as the demo's, and there is no end of them. The result is enumerated over all sentences:
reward, KL from the start model both ways, and where the optimum of the objective itself is known, the distance to it:

    dpo, soft_dpo   pi_ref exp(r / beta), normalised
    fdpo_...        the p of most E_p[r] - beta E_ref[f(p / ref)], for the f of each (arXiv 2309.16240)
    ipo             pi_ref exp(w / beta), normalised, w being the chance to be preferred to the answers that are drawn
                    (arXiv 2310.12036, eq. 7)

Nearly half of the answers come from the start model, as many from its tilt, and one in twelve is a text off the
grammar: the start model's, or the policy's own. Whatever is compared, dpo and f-DPO have the same optimum; that of ipo
is worked out for what is drawn (with the start model's texts off the grammar, all of one reward).

Writes frontier.md and frontier.svg into the output directory. Each finished run is a line of runs.jsonl there, and is
not run again. Objectives that this version does not have are left out, with a line.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from kilter.train.machine import settle

if TYPE_CHECKING:
    from kilter.objectives import Mixture
    from tunnel import Floats, Tunnel

Run: TypeAlias = dict[str, Any]

# The f' of f-DPO has a limit: the nearer an optimum comes to it, the farther it is from where steps get to. These betas
# keep well away (column "nats a unit of reward").
OBJECTIVES = (
    "dpo(beta=1)",
    "fdpo_forward_kl(beta=6)",
    "fdpo_js(beta=6)",
    "fdpo_alpha(beta=4)",
    "ipo(beta=0.2)",
    "kto(beta=0.5)",
    "simpo(beta=2, gamma=1)",
    "orpo(odds_weight=1)",
)
TEXTS_OFF_GRAMMAR = 2000  # different answers off the grammar for each prompt, to draw from
NEAR_NATS, NEAR_REWARD = 0.05, 0.02


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/bench/frontier"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--objectives", nargs="+", default=OBJECTIVES, help="as kilter align takes them")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--answers", type=int, default=16, help="to each prompt at each step; each two are compared")
    parser.add_argument("--learning-rate", type=float, default=4e-3)
    parser.add_argument("--sentences", type=int, default=480_000, help="that the start model learns from, each once")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no run after so many")
    parser.add_argument("--threads", type=int, default=None)
    args = parser.parse_args()
    settle()
    import torch

    if args.threads:
        torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    runs = fly(args)
    (args.out / "frontier.md").write_text(table(runs) + "\n")
    (args.out / "frontier.svg").write_text(drawing(runs))
    print(table(runs))
    print(f"{args.out / 'frontier.md'}, {args.out / 'frontier.svg'}")


def fly(args: argparse.Namespace) -> list[Run]:
    """Every run asked for: those of earlier calls, and those that there was time for."""
    from kilter.demo.world import restaurant
    from kilter.errors import ConfigError
    from kilter.objectives import parse
    from tunnel import start_model, tunnel

    begin, lines = time.perf_counter(), args.out / "runs.jsonl"
    done = [json.loads(line) for line in lines.read_text().splitlines()] if lines.exists() else []
    mixtures = []
    for text in args.objectives:
        try:
            mixtures.append(parse(text))
        except ConfigError as error:
            print(f"left out: {text}: {error}")
    settings = {name: getattr(args, name) for name in ("steps", "answers", "learning_rate", "sentences")}
    wanted = [settings | {"seed": seed, "objective": str(mixture)} for seed in args.seeds for mixture in mixtures]
    by_name = {str(mixture): mixture for mixture in mixtures}
    world = restaurant()
    for seed in args.seeds:
        missing = [run for run in wanted if run["seed"] == seed and not any(run.items() <= old.items() for old in done)]
        if not missing or time.perf_counter() - begin > 60 * args.minutes:
            continue
        print(f"seed {seed}: the start model", flush=True)
        start = start_model(world, args.out / f"start-{args.sentences}-{seed}", args.sentences, seed)
        seen = tunnel(world, start, seed, TEXTS_OFF_GRAMMAR)
        for run in missing:
            if time.perf_counter() - begin > 60 * args.minutes:
                break
            finished = run | measured(seen, by_name[run["objective"]], args, seed)
            done.append(finished)
            with lines.open("a") as stream:
                stream.write(json.dumps(finished) + "\n")
            print(summary(finished), flush=True)
    return [old for old in done if any(run.items() <= old.items() for run in wanted)]


def measured(seen: Tunnel, mixture: Mixture, args: argparse.Namespace, seed: int) -> Run:
    """One objective's run from the start model, enumerated: rewards, and KL in nats."""
    from kilter.demo.frontier import answer_kl, expected_reward, frontier, optimum_at_kl, over_prompts
    from kilter.demo.optima import nats_per_reward, penalty_of, population_optimum
    from tunnel import drawn_from, train

    def progress(step: int, loss: float) -> None:
        if step % 100 == 0:
            print(f"  {mixture}: step {step} of {args.steps}, loss {loss:.4f}", flush=True)

    result = train(
        seen,
        mixture,
        steps=args.steps,
        answers=args.answers,
        learning_rate=args.learning_rate,
        seed=seed,
        on_step=progress,
    )
    rewards = [question.reward_S for question in seen.questions]
    end = seen.enumerate(result.model)

    def mean(value: Callable[..., float], *arrays: Sequence[Floats]) -> float:
        return over_prompts([value(*parts) for parts in zip(*arrays, strict=True)], seen.share)

    kl = mean(answer_kl, end, seen.log_start)
    run: Run = {
        "pairs": result.pairs,
        "seconds": result.seconds,
        "reward_start": mean(expected_reward, seen.log_start, rewards),
        "reward": mean(expected_reward, end, rewards),
        "kl": kl,
        "kl_of_start": mean(answer_kl, seen.log_start, end),
        "reward_at_kl": optimum_at_kl(seen.log_start, rewards, seen.share, kl).expected_reward,
        "off_grammar_start": mean(off_the_grammar, seen.log_start),
        "off_grammar_end": mean(off_the_grammar, end),
        "frontier": frontier(seen.log_start, rewards, seen.share),
    }
    only = mixture.terms[0] if len(mixture.terms) == 1 else None
    find = None if only is None else population_optimum(only.name, only.options)
    if only is not None and find is not None:
        given = zip(seen.log_start, rewards, strict=True)
        optimum = [find(log_p, reward, drawn_from(log_p, reward)) for log_p, reward in given]
        run |= {
            "optimum_reward": mean(expected_reward, optimum, rewards),
            "optimum_kl": mean(answer_kl, optimum, seen.log_start),
            "kl_from_optimum": mean(answer_kl, optimum, end),
            "kl_to_optimum": mean(answer_kl, end, optimum),
        }
        penalty = penalty_of(only.name, only.options)
        if penalty is not None:
            sensitivity = partial(nats_per_reward, beta=only.options["beta"], f=penalty)
            run["nats_per_reward"] = mean(sensitivity, optimum, seen.log_start)
    return run


def off_the_grammar(log_p_S: Floats) -> float:
    return math.exp(log_p_S[-1])


def gain(run: Run, name: str) -> float:
    """A reward, less that of the start model."""
    return float(run[name] - run["reward_start"])


def gain_missed(run: Run) -> float | None:
    """How far the reward is from the optimum's, as a share of what the optimum gains."""
    if "optimum_reward" not in run:
        return None
    return abs(run["reward"] - run["optimum_reward"]) / gain(run, "optimum_reward")


COLUMNS: dict[str, Callable[[Run], float | None]] = {
    "reward": lambda run: run["reward"],
    "KL(policy, start)": lambda run: run["kl"],
    "gain, of the most at that KL": lambda run: gain(run, "reward") / gain(run, "reward_at_kl"),
    "optimum's reward": lambda run: run.get("optimum_reward"),
    "optimum's KL": lambda run: run.get("optimum_kl"),
    "nats a unit of reward": lambda run: run.get("nats_per_reward"),
    "KL(optimum, policy)": lambda run: run.get("kl_from_optimum"),
    "gain off the optimum's": gain_missed,
    "off the grammar": lambda run: run["off_grammar_end"],
}
SHARES = {"gain, of the most at that KL", "gain off the optimum's", "off the grammar"}


def is_near(run: Run) -> bool:
    """Whether a run ended within 0.05 nats and 2% of the reward of its objective's own optimum."""
    if "optimum_reward" not in run:
        return False
    missed = abs(run["reward"] - run["optimum_reward"])
    return bool(missed <= NEAR_REWARD * run["optimum_reward"] and run["kl_from_optimum"] <= NEAR_NATS)


def by_objective(runs: Sequence[Run]) -> dict[str, list[Run]]:
    return {
        name: [run for run in runs if run["objective"] == name] for name in dict.fromkeys(r["objective"] for r in runs)
    }


def table(runs: Sequence[Run]) -> str:
    """Means over seeds with their standard deviations, and for how many seeds the optimum was as near as it should."""
    head = ["objective", *COLUMNS, "near"]
    rows = [
        [
            f"`{name}`",
            *(cell([value(run) for run in group], percent=column in SHARES) for column, value in COLUMNS.items()),
            f"{sum(map(is_near, group))} of {len(group)}" if "optimum_reward" in group[0] else "",
        ]
        for name, group in by_objective(runs).items()
    ]
    lines = [f"| {' | '.join(row)} |" for row in (head, ["---", *["--:"] * (len(head) - 1)], *rows)]
    note = (
        f"Nats and units of reward, mean and standard deviation over seeds. Near: within {NEAR_NATS:g} nats of "
        f"KL(optimum, policy) and {NEAR_REWARD:.0%} of the optimum's reward."
    )
    if not runs:
        return "no run has finished"
    facts = runs[0]
    off, end = (statistics.mean(run[key] for run in runs) for key in ("off_grammar_start", "reward_start"))
    return "\n".join([
        *lines,
        "",
        note,
        f"{facts['steps']:,} steps of {facts['answers']} answers to each of eight prompts: "
        f"{facts['pairs'] / 1e6:.1f} million comparisons a run. The start models: reward {end:.3f}, {off:.1%} off the "
        "grammar.",
    ])  # fmt: skip


def summary(run: Run) -> str:
    """One line of what came out of a run."""
    line = f"seed {run['seed']}, {run['objective']}: reward {run['reward']:.3f}, KL {run['kl']:.3f}"
    if "optimum_reward" in run:
        line += (
            f"; its optimum {run['optimum_reward']:.3f}, {run['optimum_kl']:.3f}: {run['kl_from_optimum']:.4f} nats "
            f"and {gain_missed(run):.1%} of the gain away"
        )
    return f"{line} ({run['seconds']:.0f} s)"


def cell(values: Sequence[float | None], *, percent: bool) -> str:
    """Mean and standard deviation."""
    there = [value for value in values if value is not None]
    if not there:
        return ""
    spread = statistics.stdev(there) if len(there) > 1 else 0.0
    if percent:
        return f"{statistics.mean(there):.1%} ± {100 * spread:.1f}"
    return f"{statistics.mean(there):.4f} ± {spread:.4f}"


def drawing(runs: Sequence[Run]) -> str:
    """Reward over KL from the start model: the most there is, every run, and the objectives' own optima as rings."""
    from kilter.data.svg import COLOURS, Panel, picture, words

    if not runs:
        return picture(400, 60, "No run has finished", [])
    curves = list({run["seed"]: run["frontier"] for run in runs}.values())
    curve = [tuple(statistics.mean(c[i][axis] for c in curves) for axis in (0, 1)) for i in range(len(curves[0]))]
    most_kl = max(max(run["kl"], run.get("optimum_kl", 0.0)) for run in runs)
    right = math.ceil(2.2 * most_kl) / 2
    low = math.floor(2 * min(*(run["reward"] for run in runs), runs[0]["reward_start"])) / 2
    panel = Panel(60, 24, 500, 380, (0, right), (low, 2.5))
    ticks = [low + 0.5 * i for i in range(round(2 * (2.5 - low)) + 1)]
    parts = [panel.axes([i / 2 for i in range(int(2 * right) + 1)], ticks)]
    parts.append(panel.line([(kl, reward) for kl, reward in curve if kl <= right], 'stroke="#222222" stroke-width="2"'))
    names = list(dict.fromkeys(run["objective"].split("(")[0] for run in runs))
    for row, name in enumerate(names):
        colour = COLOURS[row % len(COLOURS)]
        for run in (run for run in runs if run["objective"].split("(")[0] == name):
            parts.append(panel.dot(run["kl"], run["reward"], colour))
            if "optimum_reward" in run:
                parts.append(panel.ring(run["optimum_kl"], run["optimum_reward"], colour))
        parts.append(f'<circle cx="590" cy="{50 + 22 * row}" r="4" fill="{colour}"/>')
        parts.append(words(602, 55 + 22 * row, name, f'style="fill: {colour}"'))
    below = 55 + 22 * (len(names) + 1)
    parts += [
        words(584, below, "line: the most there is", 'class="small"'),
        words(584, below + 18, "ring: an objective's own optimum", 'class="small"'),
        words(310, 444, "KL(policy, start), nats an answer", 'class="small" text-anchor="middle"'),
        words(56, 16, "reward", 'class="small" text-anchor="end"'),
    ]
    return picture(790, 460, "Reward and KL of every objective, and the most reward there is at each KL", parts)


if __name__ == "__main__":
    main()
