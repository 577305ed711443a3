"""Bradley-Terry strengths from a Parquet file of comparisons: kilter beside choix, evalica and arena-rank.

    pip install -c constraints.txt -e '.[bench]'
    python -m venv build/bench/arena                   # arena-rank wants an older numpy than kilter
    build/bench/arena/bin/pip install arena-rank==0.1.1 pandas pyarrow
    python benchmarks/ranking.py

Prints Markdown tables. Conditions: items of normal strengths, the pairs drawn uniformly, no ties, and one game for each
item that it wins against the next, so that the estimate exists; names and outcomes are words, as in Chatbot Arena's
files. "end to end" is a whole process, from its start until its end: imports, reading the file, counting, the fit and,
where the tool has any, 95% intervals. "fit" is the fit with intervals of data that are in memory in the tool's own form.
The tools take turns, and times are medians; the quotients are what is asked for, not the seconds. "peak" is the largest
resident memory of the process. "differs" is the largest difference of a log-strength from kilter's, after centring.

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
    tools = usable_tools(args)
    results = in_turns(args, tools, path)
    kilter = results["kilter"]
    print(f"{args.comparisons:,} comparisons of {args.items:,} items, {path.stat().st_size / MIB:.1f} MiB, "
          f"medians of {args.repeats}\n")
    print("| | intervals | end to end, s | kilter is | fit, s | kilter is | peak, MiB | differs |")
    print("|---|---|--:|--:|--:|--:|--:|--:|")
    for name, result in results.items():
        whole, fit = result.seconds, result.fit_seconds
        faster = ["", ""] if name == "kilter" else [f"{whole / kilter.seconds:.1f}x", f"{fit / kilter.fit_seconds:.1f}x"]
        differs = "" if name == "kilter" else f"{difference(result.strengths, kilter.strengths):.1e}"
        cells = [name, result.gives, f"{whole:.2f}", faster[0], f"{fit:.3f}", faster[1], f"{result.peak / MIB:,.0f}", differs]
        print("| " + " | ".join(cells) + " |", flush=True)
    print_bars(results)


def print_bars(results: dict[str, Result]) -> None:
    """What is asked of kilter, and whether it is so."""
    seconds = {name: result.seconds for name, result in results.items()}
    peers = [name for name, result in results.items() if name != "kilter" and result.gives != "none"]
    print()
    if peers:
        best = min(peers, key=seconds.__getitem__)
        print(f"{seconds[best] / seconds['kilter']:.1f} times as fast as {best}, the fastest with intervals (asked for: 5)")
    if "evalica" in seconds:
        print(f"{seconds['kilter'] / seconds['evalica']:.2f} of evalica's time, which gives none (asked for: no more)")


class Result(NamedTuple):
    """Medians over a tool's runs, in seconds and bytes, and the strengths that it found."""

    seconds: float
    fit_seconds: float
    peak: int
    strengths: dict[str, float]
    gives: str


def in_turns(args: argparse.Namespace, tools: Sequence[str], path: Path) -> dict[str, Result]:
    """Every tool once, then every tool again: what else the machine does hits all."""
    runs: dict[str, list[Run]] = {name: [] for name in tools}
    for _ in range(args.repeats):
        for name in tools:
            runs[name].append(process(args, name, path))
    results = {}
    for name in tools:
        alone = process(args, name, path, "--alone", str(args.repeats)).said["seconds"]
        results[name] = Result(
            statistics.median(run.seconds for run in runs[name]),
            alone,
            max(run.peak for run in runs[name]),
            runs[name][0].said["strengths"],
            runs[name][0].said["gives"],
        )
    return results


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


def usable_tools(args: argparse.Namespace) -> list[str]:
    usable = []
    for name in args.tools:
        python = args.arena_python if name == "arena-rank" else sys.executable
        module = name.replace("-", "_")
        if args.items > DENSE_ITEMS and name != "kilter":
            need = args.items**2 * 8 / 2**30
            print(f"{name} is left out: a matrix of {args.items:,} x {args.items:,} takes {need:,.0f} GiB")
        elif not (name == "arena-rank" and not Path(python).exists()) and not subprocess.run(
            [python, "-c", f"import importlib.util as u, sys; sys.exit(u.find_spec('{module}') is None)"], check=False
        ).returncode:
            usable.append(name)
        else:
            print(f"{name} is left out: {python} does not have it")
    return usable


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
                        CASE WHEN game < {items} THEN (game + 1) % {items} WHEN other >= a THEN other + 1 ELSE other END AS b
                    FROM drawn
                )
                SELECT 'model-' || a AS model_a, 'model-' || b AS model_b,
                    CASE WHEN game < {items} OR uniform(game, 2) < 1 / (1 + exp(strength(b) - strength(a)))
                        THEN 'model_a' ELSE 'model_b' END AS winner
                FROM pairs
            ) TO '{staging}' (FORMAT parquet)""")
    staging.rename(path)


def read_path(path: str) -> str:
    return path


def kilter_fit(data: Any) -> dict[str, float]:
    import kilter.ranking

    ranking = kilter.ranking.fit(data)
    ranking.intervals(LEVEL)
    return dict(zip(ranking.items, ranking.strengths.tolist(), strict=True))


def read_columns(path: str) -> dict[str, Any]:
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path, columns=["model_a", "model_b", "winner"])
    return {name: table.column(name) for name in table.column_names}


def choix_read(path: str) -> Any:
    import numpy as np
    import pandas as pd

    frame = pd.read_parquet(path)
    codes, names = pd.factorize(pd.concat([frame["model_a"], frame["model_b"]]))
    left, right = np.split(codes, 2)
    left_won = (frame["winner"] == "model_a").to_numpy()
    winner, loser = np.where(left_won, left, right), np.where(left_won, right, left)
    wins = np.bincount(winner * len(names) + loser, minlength=len(names) ** 2).reshape(len(names), len(names))
    return list(names), wins.astype(np.float64)


def choix_fit(data: Any) -> dict[str, float]:
    import choix

    names, wins = data
    return dict(zip(names, choix.ilsr_pairwise_dense(wins).tolist(), strict=True))


def evalica_read(path: str) -> Any:
    import pandas as pd
    from evalica import Winner

    frame = pd.read_parquet(path)
    words = {"model_a": Winner.X, "model_b": Winner.Y, "tie": Winner.Draw}
    return frame["model_a"], frame["model_b"], frame["winner"].map(words)


def evalica_fit(data: Any) -> dict[str, float]:
    import evalica

    scores = evalica.bradley_terry(*data).scores
    return {name: math.log(score) for name, score in scores.items()}


def evalica_bootstrap(data: Any, resamples: int) -> dict[str, float]:
    import evalica

    found = evalica.bootstrap(
        evalica.bradley_terry, *data, n_resamples=resamples, bootstrap_method="percentile", random_state=0
    )
    return {name: math.log(score) for name, score in found.result.scores.items()}


def arena_read(path: str) -> Any:
    import pandas as pd
    from arena_rank.utils.data_utils import PairDataset

    return PairDataset.from_pandas(pd.read_parquet(path))


def arena_fit(data: Any) -> dict[str, float]:
    from arena_rank.models.bradley_terry import BradleyTerry

    model = BradleyTerry(n_competitors=data.n_competitors)
    found = model.compute_ratings_and_cis(data, significance_level=1 - LEVEL)
    ratings = found["ratings"].tolist()
    return {name: (rating - model.init_rating) / model.alpha for name, rating in zip(data.competitors, ratings)}


TOOLS = {
    "kilter": Tool(read_path, kilter_fit, "Wald"),
    "choix": Tool(choix_read, choix_fit),
    "evalica": Tool(evalica_read, evalica_fit),
    "arena-rank": Tool(arena_read, arena_fit, "sandwich"),
}

if __name__ == "__main__":
    main()
