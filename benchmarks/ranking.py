"""Bradley-Terry strengths from a Parquet file of comparisons: kilter beside choix, evalica and arena-rank.

    pip install -c constraints.txt -e '.[bench]'
    python -m venv build/bench/arena                   # arena-rank wants an older numpy than kilter
    build/bench/arena/bin/pip install arena-rank==0.1.1 pandas pyarrow
    python benchmarks/ranking.py

Prints Markdown tables. Conditions: items of normal strengths, the pairs drawn uniformly, no ties, and one game for each
item that it wins against the next, so that the estimate exists; names and outcomes are words, as in Chatbot Arena's
files. "end to end" is a whole process, from its start until its end: imports, reading the file, counting, the fit, and
95% intervals where the tool has any. "fit" is the fit with intervals of data that are in memory in the tool's own form.
The tools take turns, and times are medians; their quotients are what is asked for. "peak" is the largest resident
memory of the process. "differs" is the largest difference of a log-strength from kilter's, after centring.

Each peer is used as is quickest of what it offers: choix counts wins in a matrix (`ilsr_pairwise_dense`; from a list of
comparisons it takes minutes), evalica takes lists and goes as far as it goes by default (100 iterations), arena-rank
takes a data frame and gives sandwich intervals. choix has no intervals; those of evalica are by bootstrap, of which
`--resamples` gives it some. All three keep matrices of items by items, so that kilter alone runs where these would
exceed memory. A tool that is not installed is left out, with a line that says so.

    --items 100000                     more items: a million comparisons of 100,000
    --large 100000000                  kilter alone, on so many comparisons; asked for: 60 s and 4 GiB
    --growth docs/reference/ranking-growth.svg    10^4 to 10^7 comparisons, as a picture
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

LEVEL = 0.95
DENSE_ITEMS = 20_000  # beyond, a matrix of float64 takes more than 3 GiB
MIB = 2**20


class Tool(NamedTuple):
    """What a peer does: `read` gives its own form of the data, `fit` log-strengths by name from that."""

    read: Callable[[str], Any]
    fit: Callable[[Any], dict[str, float]]
    gives: str = "none"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--comparisons", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tools", nargs="+", default=list(TOOLS), choices=list(TOOLS))
    parser.add_argument("--resamples", type=int, help="bootstrap intervals for evalica too, percentiles of so many")
    parser.add_argument("--arena-python", default="build/bench/arena/bin/python", help="a Python with arena-rank")
    parser.add_argument("--large", type=int, metavar="COMPARISONS")
    parser.add_argument("--growth", type=Path, metavar="SVG")
    parser.add_argument("--work", type=Path, default=Path("build/bench"), help="where the Parquet files lie")
    parser.add_argument("--tool", help=argparse.SUPPRESS)  # what one of the processes runs
    parser.add_argument("--data", help=argparse.SUPPRESS)
    parser.add_argument("--alone", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--write", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.write:
        write_comparisons(Path(args.data), args.items, args.comparisons)
    elif args.tool:
        print(json.dumps(ran(args)))
    elif args.large:
        print_large(args)
    elif args.growth:
        draw_growth(args)
    else:
        print_table(args)


def print_table(args: argparse.Namespace) -> None:
    path = comparisons_file(args, args.items, args.comparisons)
    results = in_turns(args, usable_tools(args, args.items), path)
    kilter = results["kilter"]
    size = path.stat().st_size / MIB
    print(f"\n{args.comparisons:,} comparisons of {args.items:,} items, {size:.1f} MiB, medians of {args.repeats}\n")
    print("| | intervals | end to end, s | kilter is | fit, s | kilter is | peak, MiB | differs |")
    print("|---|---|--:|--:|--:|--:|--:|--:|")
    for name, result in results.items():
        whole, fit = result.seconds, result.fit_seconds
        peer = name != "kilter"
        cells = [
            name,
            result.gives,
            f"{whole:.2f}",
            f"{whole / kilter.seconds:.1f}x" if peer else "",
            f"{fit:.4f}",
            f"{fit / kilter.fit_seconds:.1f}x" if peer else "",
            f"{result.peak / MIB:,.0f}",
            f"{difference(result.strengths, kilter.strengths):.1e}" if peer else "",
        ]
        print(f"| {' | '.join(cells)} |")
    print_bars(results)


def print_bars(results: dict[str, Result]) -> None:
    """What is asked of kilter, and whether it is so."""
    seconds = {name: result.seconds for name, result in results.items()}
    peers = [name for name, result in results.items() if name != "kilter" and result.gives != "none"]
    print()
    if peers:
        best = min(peers, key=seconds.__getitem__)
        faster = seconds[best] / seconds["kilter"]
        print(f"{faster:.1f} times as fast as {best}, the fastest with intervals (asked for: 5)")
    if "evalica" in seconds and "evalica" not in peers:
        share = seconds["kilter"] / seconds["evalica"]
        print(f"{share:.2f} of the time of evalica, which gives none (asked for: no more than 1)")


def print_large(args: argparse.Namespace) -> None:
    path = comparisons_file(args, args.items, args.large)
    print(f"{args.large:,} comparisons of {args.items:,} items, {path.stat().st_size / MIB:,.0f} MiB", flush=True)
    for _ in range(args.repeats):
        run = process(args, "kilter", path)
        print(f"{run.seconds:.1f} s (asked for: 60), {run.peak / 2**30:.2f} GiB (asked for: 4)", flush=True)


def draw_growth(args: argparse.Namespace) -> None:
    tools = usable_tools(args, args.items)
    curves: dict[str, list[tuple[int, float]]] = {name: [] for name in tools}
    print(f"\n{args.items:,} items, medians of {args.repeats}, seconds end to end\n")
    print(f"| comparisons | {' | '.join(tools)} |\n|--:|{'--:|' * len(tools)}")
    for comparisons in (10**4, 10**5, 10**6, 10**7):
        path = comparisons_file(args, args.items, comparisons)
        runs = whole_runs(args, tools, path)
        for name in tools:
            curves[name].append((comparisons, statistics.median(run.seconds for run in runs[name])))
        cells = [f"{curves[name][-1][1]:.2f}" for name in tools]
        print(f"| {comparisons:,} | {' | '.join(cells)} |", flush=True)
    args.growth.write_text(growth_picture(curves, args.items), encoding="utf-8")


def growth_picture(curves: dict[str, list[tuple[int, float]]], items: int) -> str:
    """Seconds over comparisons, both by powers of ten."""
    from kilter.data.svg import COLOURS, INK, Panel, picture, words

    logs = {name: [(math.log10(x), math.log10(y)) for x, y in curve] for name, curve in curves.items()}
    across, up = ([point[axis] for curve in logs.values() for point in curve] for axis in (0, 1))
    edges = (math.floor(min(up)), math.ceil(max(up)))
    panel = Panel(70, 60, 520, 340, (min(across) - 0.1, max(across) + 0.1), edges)
    title = f"Strengths with intervals from a Parquet file: {items:,} items"
    parts = [words(70, 24, title, 'class="head"'), words(70, 44, "seconds, end to end", 'class="small"')]
    parts.append(panel.axes([], []))
    for power in range(math.ceil(panel.x[0]), math.floor(panel.x[1]) + 1):
        parts.append(panel.words(power, edges[0], f"{10**power:,}", 'class="small" text-anchor="middle"', up=-17))
    for power in range(edges[0], edges[1] + 1):
        parts.append(
            panel.words(panel.x[0], power, f"{10.0**power:g}", 'class="small" text-anchor="end"', up=-4, right=-7)
        )
        parts.append(panel.line([(panel.x[0], power), (panel.x[1], power)], f'stroke="{INK}" stroke-opacity="0.1"'))
    parts.append(panel.words(panel.x[1], edges[0], "comparisons", 'class="small" text-anchor="end"', up=-38))
    bases = apart([panel.at(*curve[-1])[1] + 5 for curve in logs.values()], 18)
    for (name, curve), colour, base in zip(logs.items(), COLOURS, bases, strict=False):
        parts.append(panel.line(curve, f'stroke="{colour}" stroke-width="2"'))
        parts += [panel.dot(*point, colour) for point in curve]
        without = "" if TOOLS[name].gives != "none" else ", without intervals"
        parts.append(words(panel.left + panel.width + 8, base, name + without, f'style="fill: {colour}"'))
    return picture(800, 470, title, parts)


def apart(places: Sequence[float], room: float) -> list[float]:
    """The places, those that are too close moved down."""
    moved: dict[int, float] = {}
    last = -math.inf
    for index in sorted(range(len(places)), key=places.__getitem__):
        last = moved[index] = max(places[index], last + room)
    return [moved[index] for index in range(len(places))]


class Result(NamedTuple):
    """Medians over a tool's runs, in seconds and bytes, and the strengths that it found."""

    seconds: float
    fit_seconds: float
    peak: int
    strengths: dict[str, float]
    gives: str


def in_turns(args: argparse.Namespace, tools: Sequence[str], path: Path) -> dict[str, Result]:
    runs = whole_runs(args, tools, path)
    return {
        name: Result(
            statistics.median(run.seconds for run in runs[name]),
            process(args, name, path, "--alone", str(args.repeats)).said["seconds"],
            max(run.peak for run in runs[name]),
            runs[name][0].said["strengths"],
            runs[name][0].said["gives"],
        )
        for name in tools
    }


def whole_runs(args: argparse.Namespace, tools: Sequence[str], path: Path) -> dict[str, list[Run]]:
    """Every tool once, then every tool again: what else the machine does hits all."""
    runs: dict[str, list[Run]] = {name: [] for name in tools}
    for _ in range(args.repeats):
        for name in tools:
            runs[name].append(process(args, name, path))
    return runs


class Run(NamedTuple):
    """One process: its seconds, its largest resident memory in bytes, and what it printed."""

    seconds: float
    peak: int
    said: dict[str, Any]


def process(args: argparse.Namespace, tool: str, path: Path, *more: str) -> Run:
    python = args.arena_python if tool == "arena-rank" else sys.executable
    command = [python, __file__, "--tool", tool, "--data", str(path), *more]
    command += ["--resamples", str(args.resamples)] if args.resamples else []
    begin = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert child.stdout is not None
    printed = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - begin
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{tool} ended with {child.returncode}")
    return Run(seconds, usage.ru_maxrss * 1024, json.loads(printed.splitlines()[-1]))


def ran(args: argparse.Namespace) -> dict[str, Any]:
    """Within a tool's process: what it found; or, alone, the median seconds of its fit after a first one."""
    tool = TOOLS[args.tool]
    if args.tool == "evalica" and args.resamples:
        tool = tool._replace(fit=lambda data: evalica_bootstrap(data, args.resamples), gives="bootstrap")
    data = tool.read(args.data)
    if not args.alone:
        return {"strengths": tool.fit(data), "gives": tool.gives}
    times = []
    for _ in range(args.alone + 1):
        begin = time.perf_counter()
        tool.fit(data)
        times.append(time.perf_counter() - begin)
    return {"seconds": statistics.median(times[1:])}


def usable_tools(args: argparse.Namespace, items: int) -> list[str]:
    usable = []
    for name in args.tools:
        python = args.arena_python if name == "arena-rank" else sys.executable
        module = name.replace("-", "_")
        if items > DENSE_ITEMS and name != "kilter":
            print(f"{name} is left out: a matrix of {items:,} x {items:,} takes {items**2 * 8 / 2**30:,.0f} GiB")
        elif has(python, module):
            usable.append(name)
        else:
            print(f"{name} is left out: {python} does not have it")
    return usable


def has(python: str, module: str) -> bool:
    find = f"import importlib.util, sys; sys.exit(importlib.util.find_spec('{module}') is None)"
    try:
        return subprocess.run([python, "-c", find], check=False).returncode == 0
    except OSError:
        return False


def difference(strengths: dict[str, float], others: dict[str, float]) -> float:
    """The largest, of log-strengths that are each centred."""
    assert strengths.keys() == others.keys()
    means = [statistics.fmean(of.values()) for of in (strengths, others)]
    return max(abs((strengths[name] - means[0]) - (others[name] - means[1])) for name in strengths)


def comparisons_file(args: argparse.Namespace, items: int, comparisons: int) -> Path:
    """Made once, by a process of its own, so that its memory is not inherited by those that are measured."""
    path: Path = args.work / f"comparisons-{items}-{comparisons}.parquet"
    if not path.exists():
        args.work.mkdir(parents=True, exist_ok=True)
        size = ["--items", str(items), "--comparisons", str(comparisons)]
        subprocess.run([sys.executable, __file__, "--write", "--data", str(path), *size], check=True)
    return path


def write_comparisons(path: Path, items: int, comparisons: int) -> None:
    """The same rows at every run: all that is random is a hash of the row's number."""
    import duckdb

    spread = 1.0 if items <= 1000 else 0.5
    staging = path.with_suffix(".part")
    with duckdb.connect() as connection:
        connection.execute(f"""
            CREATE MACRO uniform(game, salt) AS (hash(game * 8 + salt) >> 11) / 9007199254740992.0;
            CREATE MACRO strength(item) AS
                {spread} * sqrt(-2 * ln(1 - uniform(item, 5))) * cos(2 * pi() * uniform(item, 6));
            COPY (
                WITH drawn AS (
                    SELECT game, CAST(floor(uniform(game, 0) * {items}) AS INTEGER) AS a,
                        CAST(floor(uniform(game, 1) * {items - 1}) AS INTEGER) AS other
                    FROM range({comparisons}) AS games(game)
                ), pairs AS (
                    SELECT game, CASE WHEN game < {items} THEN game ELSE a END AS a,
                        CASE WHEN game < {items} THEN (game + 1) % {items}
                            WHEN other >= a THEN other + 1 ELSE other END AS b
                    FROM drawn
                )
                SELECT 'model-' || a AS model_a, 'model-' || b AS model_b,
                    CASE WHEN game < {items} OR uniform(game, 2) < 1 / (1 + exp(strength(b) - strength(a)))
                        THEN 'model_a' ELSE 'model_b' END AS winner
                FROM pairs
            ) TO '{staging}' (FORMAT parquet)""")
    staging.rename(path)


def kilter_read(path: str) -> Any:
    from kilter.ranking.reading.tables import read_comparisons

    return read_comparisons(path)


def kilter_fit(data: Any) -> dict[str, float]:
    from kilter.ranking import fit

    ranking = fit(data)
    ranking.intervals(LEVEL)
    return dict(zip(map(str, ranking.items), ranking.strengths.tolist(), strict=True))


def choix_read(path: str) -> Any:
    import numpy as np
    import pandas as pd

    frame = pd.read_parquet(path)
    codes, names = pd.factorize(pd.concat([frame["model_a"], frame["model_b"]]))
    left, right = np.split(codes, 2)
    left_won = (frame["winner"] == "model_a").to_numpy(bool)
    winner, loser = np.where(left_won, left, right), np.where(left_won, right, left)
    wins = np.bincount(winner * len(names) + loser, minlength=len(names) ** 2).reshape(len(names), len(names))
    return list(names), wins.astype(np.float64)


def choix_fit(data: Any) -> dict[str, float]:
    import choix

    names, wins = data
    return dict(zip(names, choix.ilsr_pairwise_dense(wins).tolist(), strict=True))


def evalica_read(path: str) -> Any:
    import pyarrow.parquet
    from evalica import Winner

    table = pyarrow.parquet.read_table(path)
    won = {"model_a": Winner.X, "model_b": Winner.Y, "tie": Winner.Draw}
    left, right, winners = (table[name].to_pylist() for name in ("model_a", "model_b", "winner"))
    return left, right, [won[word] for word in winners]


def evalica_fit(data: Any) -> dict[str, float]:
    import evalica

    return logs(evalica.bradley_terry(*data).scores)


def evalica_bootstrap(data: Any, resamples: int) -> dict[str, float]:
    import evalica

    found = evalica.bootstrap(
        evalica.bradley_terry, *data, n_resamples=resamples, bootstrap_method="percentile", random_state=0
    )
    return logs(found.result.scores)


def logs(scores: Any) -> dict[str, float]:
    return {name: math.log(score) for name, score in scores.items()}


def arena_read(path: str) -> Any:
    import pandas as pd
    from arena_rank.models.bradley_terry import BradleyTerry  # noqa: F401  it comes first: it sets JAX to float64
    from arena_rank.utils.data_utils import PairDataset

    return PairDataset.from_pandas(pd.read_parquet(path))


def arena_fit(data: Any) -> dict[str, float]:
    from arena_rank.models.bradley_terry import BradleyTerry

    model = BradleyTerry(n_competitors=data.n_competitors)
    found = model.compute_ratings_and_cis(data, significance_level=1 - LEVEL)
    ratings = ((found["ratings"] - model.init_rating) / model.alpha).tolist()
    return dict(zip(data.competitors, ratings, strict=True))


TOOLS = {
    "kilter": Tool(kilter_read, kilter_fit, "Wald"),
    "choix": Tool(choix_read, choix_fit),
    "evalica": Tool(evalica_read, evalica_fit),
    "arena-rank": Tool(arena_read, arena_fit, "sandwich"),
}

if __name__ == "__main__":
    main()
