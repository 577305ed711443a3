"""Whether runs end at their KL budget, approached from below and from above, where the KL of answers is known.

From below a run begins at the reference. From above it begins at a model that was aligned without a budget, too far,
and its reference is where that one began. Each run is `kilter align --objective dpo --kl-budget X`; how it ended is
measured by itself (the column "measured"), and "again" with fresh samples for prompts of its data:

    tunnel   the world of `kilter demo`; there the KL is enumerated, too, over all sentences and everything else as one
             outcome: so much it is at least
    hh       a pretrained model on short rows of HH, asked prompts that were held out, too

The model that is too far also goes on without a budget, with ten times the beta: what raising beta does instead.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kilter.train.machine import settle

if TYPE_CHECKING:
    from kilter.tokens.sequence import Ids

HELD_OUT = 64  # prompts
FRESH = 512  # samples


@dataclass(frozen=True)
class Course:
    """Where runs fly: what they begin with, their settings, and the prompts that their result is asked afterwards."""

    name: str
    start: Path
    settings: dict[str, Any]
    asked: list[Ids]
    targets: list[float]
    held_out: list[Ids]
    enumerated: Callable[[Path], float] | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/bench/kl-budget"))
    parser.add_argument("--hh", type=Path, help="JSON lines of HH, with --model")
    parser.add_argument("--model", type=Path, help="a pretrained model for them")
    parser.add_argument("--start", type=Path, help="a model of the demo's world; without, one is trained")
    parser.add_argument("--tunnel-targets", type=float, nargs="*", default=[0.2, 0.4, 0.8])
    parser.add_argument("--hh-targets", type=float, nargs="*", default=[0.5, 1.0, 2.0])
    parser.add_argument("--tunnel-steps", type=int, default=150)
    parser.add_argument("--hh-steps", type=int, default=80)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    settle()
    args.out.mkdir(parents=True, exist_ok=True)
    courses = [tunnel(args)] if args.tunnel_targets else []
    courses += [hh(args)] if args.hh and args.model and args.hh_targets else []
    columns = (
        "",
        "begun",
        "budget",
        "measured, nats",
        "missed by",
        "again",
        "held out",
        "enumerated",
        "weight",
        "steps",
        "s",
    )
    print(f"| {' | '.join(columns)} |\n|---|---|{'--:|' * (len(columns) - 2)}", flush=True)
    for course in courses:
        fly(course, args.out)


def fly(course: Course, out: Path) -> None:
    """All runs of a course, a row of the table for each."""
    far = aligned(course, out, "far", course.start, max_kl=1e9, schedule="constant")
    above = {"reference": str(course.start)}
    print(row(course, "at the reference", far, None), flush=True)
    stays = aligned(course, out, "beta", far / "model", max_kl=1e9, beta=1.0, **above)
    print(row(course, "too far, beta 1", stays, None), flush=True)
    for target in course.targets:
        for begun, model, given in (("below", course.start, {}), ("above", far / "model", above)):
            run = aligned(course, out, f"{begun}-{target:g}", model, kl_budget=target, **given)
            print(row(course, begun, run, target), flush=True)


def aligned(course: Course, out: Path, name: str, model: Path, **given: Any) -> Path:
    from rich.console import Console

    from kilter.train.align import align
    from kilter.train.config import AlignConfig

    path, begin = out / f"{course.name}-{name}", time.perf_counter()
    config = {"model": str(model), "out": path, "overwrite": True} | course.settings | given
    align(AlignConfig(**config), Console(file=io.StringIO(), width=200))
    (path.parent / f"{path.name}.seconds").write_text(f"{time.perf_counter() - begin:.0f}")
    return path


def row(course: Course, begun: str, run: Path, target: float | None) -> str:
    from kilter.data.run_directory import RunDirectory
    from kilter.train.kl_bounds import MEASURED

    rows = RunDirectory(run).read_metrics()
    last = [entry for entry in rows if entry.get("split") == "kl"][-1]
    steps = sum("split" not in entry for entry in rows)
    seconds = run.with_name(f"{run.name}.seconds").read_text()
    weight = f"{last['weight_kl']:.3g}" if target is not None else ""
    kl, error = last[MEASURED], last[f"{MEASURED}_se"]
    measured = f"{kl:.3f} ± {error:.3f}"
    budget, missed = ("none", "") if target is None else (f"{target:g}", f"{kl / target - 1:+.1%}")
    again, held_out = (sampled(course, run / "model", asked) for asked in (course.asked, course.held_out))
    least = "" if course.enumerated is None else f"{course.enumerated(run / 'model'):.3f}"
    cells = course.name, begun, budget, measured, missed, again, held_out, least, weight, f"{steps}", seconds
    return f"| {' | '.join(cells)} |"


def sampled(course: Course, model: Path, asked: list[Ids]) -> str:
    """The KL of answers by fresh samples, one for each prompt; nothing without any."""
    if not asked:
        return ""
    from kilter.divergence.estimates import kl_from_sequences
    from kilter.measure.samples import score_samples
    from kilter.model.loading import load_scorer, load_tokenizer
    from kilter.model.sampler import SamplingSettings, TransformersSampler, stop_tokens

    policy, reference = load_scorer(str(model)), load_scorer(str(course.start))
    stops = stop_tokens(policy.model, load_tokenizer(str(model)))
    sampler = TransformersSampler(policy, stops, SamplingSettings(course.settings["kl_tokens"]))
    scored = score_samples(policy, sampler.sample(asked, seed=12345), reference)
    found = kl_from_sequences([row.kl for row in scored], [row.log_ratio for row in scored]).kl
    return f"{found.value:.3f} ± {found.standard_error:.3f}"


def tunnel(args: argparse.Namespace) -> Course:
    """The demo's world: pairs of a small model's own answers, labelled by its noisy judge."""
    import numpy as np

    from kilter.demo.frontier import answer_kl, over_prompts, with_off_grammar
    from kilter.demo.wind_tunnel import enumerate_answers, pair_rows, sample_answers, write_rows
    from kilter.demo.world import restaurant
    from kilter.model.loading import load_scorer, load_tokenizer
    from tunnel import LONGEST, start_model

    world = restaurant()
    start = args.start or start_model(world, args.out / "start", 60_000, args.seed)
    pairs = args.out / "tunnel.jsonl"
    labelled = world.label(sample_answers(start, world, 32 * args.tunnel_steps, args.seed), args.seed)
    write_rows(pair_rows(labelled), pairs)

    def enumerated(model: Path) -> list[Any]:
        return [with_off_grammar(log_p) for log_p in enumerate_answers(load_scorer(str(model)), world, start)]

    log_start = enumerated(start)

    def least(model: Path) -> float:
        kl = [answer_kl(p, q) for p, q in zip(enumerated(model), log_start, strict=True)]
        return over_prompts(kl, world.prompt_probability)

    tokenizer, random = load_tokenizer(str(start)), np.random.default_rng(args.seed)
    prompts = [np.array(tokenizer(prompt).input_ids, np.int32) for prompt in world.prompts]
    asked = [prompts[i] for i in random.choice(len(prompts), FRESH, p=world.prompt_probability)]
    settings = {
        "data": pairs,
        "skip_bad": True,
        "batch_size": 32,
        "max_steps": args.tunnel_steps,
        "learning_rate": 1e-3,
        "kl_every": 5,
        "kl_tokens": LONGEST,
        "kl_samples": 64,
        "seed": args.seed,
    }
    return Course("tunnel", start, settings, asked, args.tunnel_targets, [], least)


def hh(args: argparse.Namespace) -> Course:
    """Short rows of HH, the last of them held out."""
    from kilter.data.canonical import canonical_row
    from kilter.data.reading import read_pairs
    from kilter.demo.wind_tunnel import write_rows
    from kilter.model.loading import load_tokenizer
    from kilter.tokens.encoding import Encoder, Limits
    from kilter.train.examples import prompt_of

    tokenizer = load_tokenizer(str(args.model))
    limits = Limits(max_length=64, on_overflow="drop")
    pairs = read_pairs(args.hh, skip_bad=True).rows
    encoded = Encoder(tokenizer, "auto", limits).encode_pairs(pairs).rows
    short = {row.origin for row in encoded[:-HELD_OUT]}
    train = args.out / "hh.jsonl"
    write_rows((canonical_row(pair) for pair in pairs if pair.origin in short), train)
    prompts = [prompt_of(row) for row in encoded]
    held_out = [prompts[-1 - i % HELD_OUT] for i in range(FRESH)]
    asked = [prompts[i % len(short)] for i in range(FRESH)]

    settings = {
        "data": train,
        "batch_size": 8,
        "max_steps": args.hh_steps,
        "learning_rate": 1e-4,
        "kl_every": 4,
        "kl_tokens": 32,
        "seed": args.seed,
    }
    return Course("hh", args.model, settings, asked, args.hh_targets, held_out)


if __name__ == "__main__":
    main()
