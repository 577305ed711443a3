"""From a file in each format to steps of training, and what they learnt."""

from __future__ import annotations

from pathlib import Path

import pytest

from kilter.data.formats import FORMATS, PROMPT_FORMATS
from kilter.data.reading import read_rows
from kilter.data.records import Demonstration, Labelled, Pair, Ranking, Steps
from kilter.data.run_directory import RunDirectory
from kilter.model.scratch import fresh_model, fresh_tokenizer, parse_shape
from kilter.train.align import align
from kilter.train.config import AlignConfig, SftConfig
from kilter.train.sft import sft
from train.runs import quiet

FIXTURES = Path(__file__).parents[1] / "data" / "formats"
METHODS = {Pair: "dpo", Ranking: "dpo", Labelled: "kto", Steps: "kto", Demonstration: "sft"}
SHAPE = "layers=1,hidden=16,heads=2,kv_heads=1,mlp=32,vocabulary=400,length=4096"
# Writes tools first, calls as JSON, and turns between marks.
TEMPLATE = """\
{%- if tools %}[tools]{{ tools | tojson }}[/tools]
{% endif %}
{%- for message in messages %}[{{ message.role }}]
{%- if message.reasoning_content %}[thought]{{ message.reasoning_content }}[/thought]{% endif %}{{ message.content }}
{%- for call in message.tool_calls or [] %}[call]{{ call.function | tojson }}[/call]{% endfor %}{{ eos_token }}
{% endfor %}
{%- if add_generation_prompt %}[assistant]{% endif %}"""


def fixture_texts() -> list[str]:
    return [path.read_text(encoding="utf-8") for path in sorted(FIXTURES.glob("*.jsonl"))]


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model so small that it is made in no time, with a chat template that has a place for everything."""
    shape = parse_shape(SHAPE)
    tokenizer = fresh_tokenizer(fixture_texts(), shape["vocabulary"])
    tokenizer.chat_template = TEMPLATE
    directory = tmp_path_factory.mktemp("begun")
    for part in (tokenizer, fresh_model(shape, tokenizer, seed=0)):
        part.save_pretrained(directory)
    return directory


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_of_each_format_trains_a_model(name: str, begun: Path, tmp_path: Path) -> None:
    """On all of its rows at each step, so that the loss must fall."""
    file, kind = FIXTURES / f"{name}.jsonl", FORMATS[name].yields
    wanted = {Ranking: Pair, Steps: Labelled}.get(kind, kind)
    settings = {
        "model": str(begun),
        "data": file,
        "out": tmp_path / "run",
        "max_steps": 3,
        "batch_size": len(read_rows(file, wanted).rows),
        "learning_rate": 1e-2,
    }
    if (method := METHODS[kind]) == "sft":
        sft(SftConfig(**settings), quiet())
    else:
        align(AlignConfig(**settings, objective=method), quiet())
    losses = [row["loss"] for row in RunDirectory(tmp_path / "run").read_metrics()]
    assert len(losses) == 3
    assert losses[-1] < losses[0]


def test_every_format_has_a_fixture_and_every_fixture_a_format() -> None:
    names = {path.name.removesuffix(".jsonl").removesuffix(".expected") for path in FIXTURES.glob("*.jsonl")}
    assert names == FORMATS.keys() | PROMPT_FORMATS.keys()
