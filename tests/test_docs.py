"""Commands and Python of the README, its Chinese rendering and the pages under docs/ run as they are printed, on small
models and files; links lead somewhere; the site is built without a warning."""

from __future__ import annotations

import csv
import doctest
import gzip
import importlib
import json
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import pytest

import kilter
from doc_pages import PAGES, ROOT, anchors, blocks, command_lines, commands, links, prose
from kilter.cli import app
from test_cli import KILTER

DOCS = ROOT / "docs"
ESTIMATING = DOCS / "concepts" / "estimating-divergences.md"
README, README_ZH = ROOT / "README.md", ROOT / "README.zh-CN.md"
QUICKSTART, QUICKSTART_ZH = DOCS / "quickstart.md", DOCS / "zh" / "quickstart.md"
DIVERGENCE = DOCS / "concepts" / "divergence.md"
YOUR_DATA, YOUR_MODEL, TRAINING, SWEEPS, BUDGET, COMPARING, RANKING, WHICH_LOSS, FAQ, API = (
    DOCS / name
    for name in (
        "guides/your-data.md",
        "guides/your-model.md",
        "guides/training.md",
        "guides/sweeps.md",
        "guides/kl-budget.md",
        "guides/comparing-models.md",
        "guides/ranking.md",
        "guides/which-loss.md",
        "faq.md",
        "reference/api.md",
    )
)
# What is downloaded, or takes minutes, and what stands for it here.
TINY = "layers=1,hidden=16,heads=2,kv_heads=1,mlp=16,vocabulary=300"
DOWNLOADED = {"HuggingFaceTB/SmolLM2-135M-Instruct": "small-model"}
MINUTES = {
    "range(4000)": "range(120)",
    "--holdout 400": "--holdout 20",
    "--from-scratch tiny --epochs 4": f"--from-scratch {TINY} --max-steps 2",
    "--epochs 3": "--max-steps 2",
    "--sample-eval 50": "--sample-eval 2",
}
SMALLER = {
    README: {
        **DOWNLOADED,
        "--from-scratch 8m --epochs 2": f"--from-scratch {TINY}",
        "--max-steps 250": "--max-steps 2",
    },
    README_ZH: DOWNLOADED,
    YOUR_MODEL: DOWNLOADED,
    SWEEPS: {"--max-steps 40": "--max-steps 2", "--sample-eval 50": "--sample-eval 2 --sample-tokens 8"},
    QUICKSTART: MINUTES,
    QUICKSTART_ZH: MINUTES,
    COMPARING: {"--last 50": "--last 2 --max-new-tokens 4"},
}
# What sets kilter up, and what starts it by a launcher (tests/train/test_workers.py does).
NOT_RUN = {"make", "pip", "torchrun"}
# Flags of other programs that pages name.
OF_OTHERS = {
    "--index-url", "--standalone", "--nproc-per-node", "--nnodes", "--rdzv-backend", "--rdzv-endpoint", "--rdzv-id",
    "--shutdown-timeout", "--dependency", "--requeue", "--signal", "--job-name", "--nodes", "--ntasks-per-node",
    "--gpus-per-node", "--time", "--flag", "--kl-divergence",
}  # fmt: skip


def smaller(page: Path, text: str) -> str:
    for printed, stand_in in SMALLER.get(page, {}).items():
        text = text.replace(printed, stand_in)
    return text


def python(code: str, *arguments: str, directory: Path) -> str:
    command = [sys.executable, "-c", code, *arguments]
    ran = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def run_all(steps: Iterable[list[str]], directory: Path) -> list[str]:
    """Run steps (run_page.py) in one process; returns what each printed."""
    ran = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("run_page.py"))],
        input=json.dumps(list(steps)),
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    outputs: list[str] = json.loads(ran.stdout)
    return outputs


def steps_of(page: Path, directory: Path) -> list[list[str]]:
    """What a page does, in its order; Python that has a name is saved under it, and run where the page says so."""
    steps = []
    for language, text in blocks(page):
        text = smaller(page, text)
        named = re.match(r"# (\w+\.py)\n", text)
        if language == "python" and named:
            (directory / named[1]).write_text(text, encoding="utf-8")
        elif language == "python":
            steps.append(["python", text])
        elif not language:
            lines = [line for line in command_lines(text) if line.split()[0] not in NOT_RUN]
            steps += [step_of(line, directory) for line in lines]
    return steps


def step_of(line: str, directory: Path) -> list[str]:
    """A line of a block of commands; what a shell does with it (pipes, files) is done by one."""
    program, *arguments = shlex.split(line, comments=True)
    if program == "python":
        return ["python", (directory / arguments[0]).read_text(encoding="utf-8")]
    assert program in ("kilter", "cat"), f"a page tells to run {line!r}, which no test does"
    if program == "kilter" and not {"|", ">"} & set(arguments):
        return [program, *arguments]
    shell = line.replace("kilter ", f"{shlex.quote(sys.executable)} -m kilter ", 1)
    ran = f"subprocess.run({shell!r}, shell=True, check=True, stdout=subprocess.PIPE, text=True)"
    return ["python", f"import subprocess; print({ran}.stdout)"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small files, and a small model that has seen them."""
    directory = tmp_path_factory.mktemp("pages")
    pairs = [{"prompt": f"Letter {i}.", "chosen": f" b{i}", "rejected": f" {i}"} for i in range(216)]
    (directory / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    with gzip.open(directory / "hh_harmless_test.jsonl.gz", "wt") as stream:
        for i in range(316):
            sides = {side: f"\n\nHuman: Hi {i}\n\nAssistant: {side} {i}" for side in ("chosen", "rejected")}
            stream.write(json.dumps(sides) + "\n")
    python(KILTER, "sft", "--from-scratch", TINY, "--data", "pairs.jsonl", "--out", "start", directory=directory)
    (directory / "start" / "model").rename(directory / "small-model")
    return directory


def place(directory: Path, name: str, model: str = "runs/sft/model") -> Path:
    """A directory for one page, with pairs and a model where the page takes them for granted."""
    here = directory / name
    shutil.copytree(directory / "small-model", here / model)
    shutil.copy(directory / "pairs.jsonl", here)
    return here


def test_every_stand_in_stands_for_something_printed() -> None:
    for page, stand_ins in SMALLER.items():
        assert all(printed in page.read_text(encoding="utf-8") for printed in stand_ins), page


@pytest.mark.parametrize("readme", [README, README_ZH], ids=lambda page: page.name)
def test_commands_of_the_readme_run_in_the_order_they_are_printed(readme: Path, directory: Path) -> None:
    here = place(directory, readme.name, "small-model")
    shutil.copy(directory / "hh_harmless_test.jsonl.gz", here)
    steps = steps_of(readme, here)
    assert [step[0] for step in steps].count("kilter") == {README: 6, README_ZH: 4}[readme]
    for step in steps:  # there are several examples of a run by one name
        step += ["--overwrite"] * ("runs/dpo" in step)
        step[1] = step[1].replace("runs/dpo", "runs/python")
    run_all(steps, here)


@pytest.mark.parametrize("page", [QUICKSTART, QUICKSTART_ZH], ids=["en", "zh"])
def test_a_quickstart_runs_from_an_empty_directory(page: Path, tmp_path: Path) -> None:
    steps = steps_of(page, tmp_path)
    if page is QUICKSTART_ZH:
        steps = [step for step in steps if "--resume" not in step]  # of a run that was stopped; this one is finished
    outputs = run_all(steps, tmp_path)
    assert len(outputs) >= 7
    assert (tmp_path / "runs" / "dpo" / "model" / "model.safetensors").is_file()
    rows = list(csv.DictReader((tmp_path / "scores.csv").read_text().splitlines()))
    assert len(rows) > 50
    assert all(float(row["chosen_log_prob"]) < 0 for row in rows)
    checked, answered = ("".join(outputs).count(word) for word in ("Nothing must be mended", "=== prompt"))
    assert (checked, answered > 0) == (1, True)
    if page is QUICKSTART_ZH:
        assert "请问" in "".join(outputs)


def test_the_guide_to_data_runs_as_it_is_printed(directory: Path) -> None:
    here = place(directory, "data")
    lines = (here / "pairs.jsonl").read_text().splitlines(keepends=True)
    (here / "shards").mkdir()
    for number in range(2):
        (here / "shards" / f"{number}.jsonl").write_text("".join(lines[number::2]))
    (here / "held_out.jsonl").write_text('{"prompt": "Letter x.", "chosen": " y", "rejected": " z"}\n')
    with (here / "judged.csv").open("w", newline="") as stream:
        rows = [{"question": f"Letter {i}.", "winner": f" b{i}", "loser": f" {i}"} for i in range(20)]
        table = csv.DictWriter(stream, rows[0])
        table.writeheader()
        table.writerows(rows)
    run_all(steps_of(YOUR_DATA, here), here)
    assert json.loads((here / "facts.json").read_text())["facts"]["kinds"] == {"pair": 216}
    assert len((here / "judged.jsonl").read_text().splitlines()) == 20
    with gzip.open(here / "all.jsonl.gz", "rt") as stream:
        assert sum(1 for _ in stream) == 216


def test_the_guide_to_models_runs_as_it_is_printed(directory: Path) -> None:
    here = place(directory, "model", "small-model")
    run_all(steps_of(YOUR_MODEL, here), here)
    assert (here / "runs" / "aligned" / "model").is_dir()


def test_the_guide_to_training_runs_as_it_is_printed(directory: Path) -> None:
    here = place(directory, "training")
    steps = steps_of(TRAINING, here)
    assert len(steps) == 10
    (resumed,) = (i for i, step in enumerate(steps) if "--resume" in step)
    stopped = "import shutil; shutil.rmtree('runs/dpo/model')"  # as if it had been stopped before its end
    run_all([*steps[:resumed], ["python", stopped], *steps[resumed:]], here)


def test_the_guide_to_sweeps_runs_as_it_is_printed(directory: Path) -> None:
    here = place(directory, "sweeps")
    *_, printed = run_all(steps_of(SWEEPS, here), here)
    assert [line.rsplit(" ", 2)[0] for line in printed.splitlines()] == [
        f"{objective}, beta {beta}" for objective in ("dpo", "ipo") for beta in ("0.03", "0.1", "0.3", "1")
    ]
    sweep = here / "runs" / "sweep"
    for name in re.findall(r"^\| `([\w.=]+)[`/]", SWEEPS.read_text(encoding="utf-8"), flags=re.MULTILINE):
        assert (sweep / name).exists(), name


def test_the_guide_to_budgets_runs_as_it_is_printed(directory: Path) -> None:
    here = place(directory, "budget")
    quick = ["--max-steps", "2", "--kl-samples", "2", "--kl-tokens", "2"]
    steps = [step + (quick if any("-kl" in word for word in step) else quick[:2]) for step in steps_of(BUDGET, here)]
    assert len(steps) == 5
    run_all(steps, here)
    assert all((here / "runs" / name / "model").is_dir() for name in ("budget", "back", "limit", "slowly"))


def test_the_guide_to_losses_prints_what_stands_in_it(tmp_path: Path) -> None:
    found = [block for block in blocks(WHICH_LOSS) if block.language]
    assert [block.language for block in found] == ["python", "text"] * 5
    end = "-- end of a block --\n"
    program = f"print({end!r}, end='')\n".join(code.text for code in found[::2])
    (printed,) = run_all([["python", program]], tmp_path)
    for code, wanted, got in zip(found[::2], found[1::2], printed.split(end), strict=True):
        pattern = re.escape(wanted.text).replace(re.escape("..."), ".*")
        assert re.fullmatch(pattern, got), f"{code.text}printed\n{got}"


def test_what_the_page_on_divergence_prints_is_what_it_shows(tmp_path: Path) -> None:
    shown = [(block, after.text) for block, after in pairwise(blocks(DIVERGENCE)) if after.language == "text"]
    steps = steps_of(DIVERGENCE, tmp_path)
    printed = [text for text in run_all(steps, tmp_path) if text]
    assert len(printed) == len(shown) >= 8
    for (block, wanted), found in zip(shown, printed, strict=True):
        assert found == wanted, block.text


def test_the_guide_to_comparing_runs_as_it_is_printed(directory: Path) -> None:
    here = place(directory, "comparing", "runs/sft/model")
    shutil.copytree(here / "runs" / "sft", here / "runs" / "dpo")
    compared, told, judged, described = run_all(steps_of(COMPARING, here), here)
    assert "Win rate 0.500" in judged
    assert described in [block.text for block in blocks(COMPARING) if block.language == "text"]
    for heading in ("KL(A, B)", "perplexity of A / of B", "same likeliest token", "correlation of log-probs"):
        assert heading in compared
        assert heading in COMPARING.read_text(encoding="utf-8")
    assert told.startswith("[(")


def test_the_guide_to_ranking_prints_what_it_shows(tmp_path: Path) -> None:
    """But for the last slope of a fit, which is rounding. Its blocks go on from each other."""
    shown = [block.text for block in blocks(RANKING) if block.language == "text"]
    end = "-- end of a block --\n"
    run_kilter = (
        "import subprocess, sys; print(subprocess.check_output([sys.executable, '-m', *{0}], text=True), end='')"
    )
    steps = steps_of(RANKING, tmp_path)
    codes = [step[1] if step[0] == "python" else run_kilter.format(step) for step in steps]
    (printed,) = run_all([["python", f"\nprint({end!r}, end='')\n".join(codes)]], tmp_path)
    found = [text for text in printed.split(end) if text]
    assert len(found) == len(shown) >= 6
    for wanted, text in zip(shown, found, strict=True):
        assert re.sub(r"slope of \S+;", "", text) == re.sub(r"slope of \S+;", "", wanted)


def test_python_of_the_questions_and_the_reference_runs(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
    metrics = tmp_path / "runs" / "dpo" / "metrics.jsonl"
    metrics.parent.mkdir(parents=True)
    metrics.write_text('{"step": 1, "loss": 0.5}\n{"step": 1, "split": "eval", "loss": 0.6}\n')
    code = {page: [block.text for block in blocks(page) if block.language == "python"] for page in (FAQ, API)}
    assert [len(texts) for texts in code.values()] == [1, 2]
    steps = [["python", text] for texts in code.values() for text in texts]
    table, tree, pairs = run_all(steps, tmp_path)
    assert table == "1 0.5\n"
    assert tree == "5 nodes for 8 tokens\n"
    assert pairs.startswith("pairs.jsonl: 1 pair, ")


NUMBER = re.compile(r"-?\d+\.?\d*")


def test_estimates_are_printed_as_the_page_has_them(tmp_path: Path) -> None:
    """Words alike; numbers nearly, since a critic is trained with the rounding of its machine."""
    page = blocks(ESTIMATING)
    code, printed = ("\n".join(b.text for b in page if b.language == language) for language in ("python", "text"))
    (output,) = run_all([["python", code]], tmp_path)
    output, printed = output.strip(), re.sub(r"\n+", "\n", printed).strip()
    assert NUMBER.sub("0", output).split() == NUMBER.sub("0", printed).split()
    numbers, wanted = ([float(number) for number in NUMBER.findall(text)] for text in (output, printed))
    assert numbers == pytest.approx(wanted, rel=0.1, abs=0.02)


# Packages with examples in docstrings.
SHOWING = ("divergence", "objectives", "tokens", "data", "measure", "train", "demo", "ranking")


def test_docstring_examples_are_true() -> None:
    modules = [
        importlib.import_module(found.name)
        for package in SHOWING
        for found in pkgutil.walk_packages(importlib.import_module(f"kilter.{package}").__path__, f"kilter.{package}.")
    ]
    results = [doctest.testmod(module) for module in modules]
    assert sum(result.failed for result in results) == 0
    assert sum(result.attempted for result in results) >= 20


def test_no_example_stands_in_a_module_whose_examples_are_not_run() -> None:
    others = (path for path in (ROOT / "src").rglob("*.py") if ">>> " in path.read_text(encoding="utf-8"))
    assert [path for path in others if path.relative_to(ROOT / "src" / "kilter").parts[0] not in SHOWING] == []


# Links and names.


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings_that_are_there(page: Path) -> None:
    for target in links(page):
        file, _, anchor = target.partition("#")
        there = (page.parent / file).resolve() if file else page
        assert there.exists(), target
        if anchor:
            assert anchor in anchors(there), target


def flags_of(command: str) -> set[str]:
    return {name for argument in app[command].assemble_argument_collection() for name in argument.names}


COMMANDS = [name for name in app if not name.startswith("-")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_of_pages_have_the_flags_that_they_give(page: Path) -> None:
    for line in commands(page):
        _, command, *rest = line.split()
        assert command in COMMANDS, line
        given = {word.partition("=")[0] for word in rest if word.startswith("--")}
        assert given <= flags_of(command) | {"--help"}, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_flags_named_in_prose_are_those_of_a_command(page: Path) -> None:
    named = {flag for span in re.findall(r"`([^`\n]+)`", prose(page)) for flag in re.findall(r"(?<!\S)--[\w-]+", span)}
    assert named <= OF_OTHERS | {"--help"}.union(*map(flags_of, COMMANDS))


def test_the_reference_has_every_public_name() -> None:
    page = API.read_text(encoding="utf-8")
    directives = set(re.findall(r"^\.\. auto\w+:: (?:kilter\.)?(\w+)$", page, flags=re.MULTILINE))
    assert directives == set(kilter.__all__) - {"__version__"}


def test_the_chinese_readme_and_the_english_lead_to_each_other() -> None:
    assert "README.zh-CN.md" in set(links(README))
    assert "README.md" in set(links(README_ZH))
    assert "../quickstart.md" in set(links(QUICKSTART_ZH))


# The site.


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    pytest.importorskip("furo")
    pytest.importorskip("myst_parser")
    options = ["--fail-on-warning", "--keep-going", "--quiet", "-c", "docs", "-d", str(tmp_path / "cache")]
    command = [sys.executable, "-m", "sphinx", *options, ".", str(tmp_path / "site")]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    pages = {path.relative_to(ROOT).with_suffix(".html") for path in PAGES}
    assert all((tmp_path / "site" / page).is_file() for page in pages)
    assert 'url=docs/index.html"' in (tmp_path / "site" / "index.html").read_text()


def test_the_site_asks_nothing_of_the_network() -> None:
    config = (DOCS / "conf.py").read_text(encoding="utf-8")
    assert not re.search(r"intersphinx|mathjax|https?:", config)
