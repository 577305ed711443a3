"""Claims about the settings of a sweep: which runs a grid makes, what they are called, and which grids are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from kilter.data.sweep_directory import SweepDirectory
from kilter.train.config import AlignConfig
from kilter.train.grid import MAY_VARY, SweepConfig, directory_name, split

GIVEN: dict[str, Any] = {"model": "m", "data": "pairs.jsonl", "holdout": 4, "out": Path("runs/sweep")}


def grid(**settings: Any) -> SweepConfig:
    return SweepConfig(**GIVEN | settings)


def test_a_grid_is_every_combination_of_its_values_one_objective_after_the_other() -> None:
    runs = grid(seed="0,1", beta="0.1,0.3", objective="dpo,ipo").combinations()
    assert [(run.config.objective, run.config.beta, run.config.seed) for run in runs] == [
        ("dpo", 0.1, 0), ("dpo", 0.1, 1), ("dpo", 0.3, 0), ("dpo", 0.3, 1),
        ("ipo", 0.1, 0), ("ipo", 0.1, 1), ("ipo", 0.3, 0), ("ipo", 0.3, 1),
    ]  # fmt: skip
    assert str(runs[2]) == "dpo, beta 0.3, seed 0"
    assert runs[2].name == "dpo_beta=0.3_seed=0"
    assert runs[2].config.out == runs[2].config.resume == Path("runs/sweep/dpo_beta=0.3_seed=0")


def test_a_run_has_every_other_setting_as_it_was_given_or_as_kilter_align_has_it() -> None:
    (run, _) = grid(beta="0.1,0.3", learning_rate="5e-6", epochs=2, style="plain").combinations()
    place = Path("runs/sweep/beta=0.1")
    assert run.config == AlignConfig(**GIVEN | {
        "out": place, "resume": place, "beta": 0.1, "learning_rate": 5e-6, "epochs": 2, "style": "plain",
    })  # fmt: skip


def test_values_are_a_list_or_a_text_with_commas_or_both() -> None:
    as_text, as_list, mixed = grid(beta="0.1, 0.3"), grid(beta=[0.1, 0.3]), grid(beta=["0.1,0.3"])
    assert as_text.combinations() == as_list.combinations() == mixed.combinations()


def test_text_is_split_at_commas_outside_of_brackets() -> None:
    assert split("simpo(beta=2, gamma=1),dpo") == ["simpo(beta=2, gamma=1)", "dpo"]
    assert split("dpo(beta=0.3) + 0.2*sft, ipo") == ["dpo(beta=0.3) + 0.2*sft", "ipo"]
    assert split("a)b,c") == ["a)b", "c"]  # an objective that is none is refused as such later


def test_a_directory_name_needs_no_quotes() -> None:
    assert directory_name({"objective": "simpo(beta=2, gamma=1)", "learning_rate": 1e-5}) == (
        "simpo_beta=2_gamma=1_learning_rate=1e-05"
    )


def test_two_values_that_print_alike_have_names_of_their_own() -> None:
    names = [run.name for run in grid(beta="0.1,0.10000001").combinations()]
    assert names == ["beta=0.1", "beta=0.10000001"]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"beta": "0.1"}, "nothing varies; give several values, with commas"),
        ({"beta": "0.1,0.10"}, "beta 0.1 is the same run as beta 0.1"),
        ({"beta": "0.1,x"}, "should be a valid number"),
        ({"beta": "0.1,,0.3"}, "should be a valid number"),
        ({"beta": []}, "has no value"),
        ({"learning_rate": "1e-5,0"}, "should be greater than 0"),
        ({"seed": "0,1", "holdout": 0}, "a sweep compares its runs on held-out examples"),
        ({"seed": "0,1", "patience": 3}, "seed 0: patience counts evaluations on the way; give eval_every"),
        ({"lora_rank": "4,8", "reference_mix": 0.5}, "lora_rank 4: a reference that moves does not go with lora_rank"),
        ({"model": "a,b", "seed": "0,1", "bogus": 1}, "Extra inputs are not permitted"),
        ({"seed": "0,1", "resume": "there", "out": None, "overwrite": True, "data": "x"}, "both resume and overwrite"),
    ],
)
def test_a_grid_that_makes_no_runs_is_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        grid(**settings)


def test_a_file_of_settings_holds_a_grid_and_flags_come_first(tmp_path: Path) -> None:
    file = tmp_path / "sweep.toml"
    file.write_text(grid(beta="0.1,0.3", objective="dpo,ipo").toml)
    assert SweepConfig(config=file).combinations() == grid(beta="0.1,0.3", objective="dpo,ipo").combinations()
    assert [run.config.beta for run in SweepConfig(config=file, beta="1,2").combinations()] == [1, 2, 1, 2]


def test_a_sweep_that_has_begun_is_given_further_values(tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    begun = grid(learning_rate="1e-5,1e-4", objective="dpo,ipo", out=out)
    SweepDirectory(out).create()
    SweepDirectory(out).write({"settings": begun.settings})
    assert SweepConfig(resume=out).combinations() == begun.combinations()
    more = SweepConfig(resume=out, learning_rate="0.00001,1e-3", objective="kto,dpo").combinations()
    assert [str(run) for run in more] == [
        f"{objective}, learning_rate {rate}"
        for objective in ("dpo", "ipo", "kto")
        for rate in ("1e-05", "0.0001", "0.001")
    ]


def test_a_sweep_has_every_setting_of_kilter_align() -> None:
    assert set(SweepConfig.model_fields) == {*AlignConfig.model_fields, "world"}
    assert set(MAY_VARY) < set(AlignConfig.model_fields)
