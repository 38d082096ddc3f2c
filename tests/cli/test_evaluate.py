"""`geoseg evaluate` composes a recipe, shows the tables, and fails when scenes lack."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from commands import geoseg
from evaluations import run_result
from labelled_scenes import CLASSES

from geoseg.config import compose, convert, dump, recipes
from geoseg.data.config import DataConfig
from geoseg.evaluation.counts import SceneCounts
from geoseg.evaluation.markdown import markdown
from geoseg.evaluation.results import (
    Evaluation,
    Failure,
    RunResult,
    notes_of,
)
from geoseg.evaluation.scene import SceneScore
from geoseg.evaluation.tables import comparison_table
from geoseg.pipelines.evaluate import EvaluateConfig, Watcher
from geoseg.pipelines.train import TrainConfig
from geoseg.types import ClassInfo

INFOS = [ClassInfo(i, name, (i, 0, 0)) for i, name in enumerate(CLASSES)]


def result(name: str, right: int) -> RunResult:
    counts = SceneCounts.zeros(3, 3)
    np.fill_diagonal(counts.confusion, right)
    counts.confusion[0, 1] = 100 - right
    score = SceneScore(counts, 3, False, 1.0, ())
    return run_result(name, INFOS, {"north": score})


@pytest.fixture
def evaluation() -> Evaluation:
    return Evaluation("made (test)", (result("toy", 90),))


@pytest.fixture
def configs(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> list[EvaluateConfig]:
    """Configurations of evaluations, none of which is made."""
    seen: list[EvaluateConfig] = []
    outcome: Evaluation | None = getattr(request, "param", None)
    default: Evaluation = request.getfixturevalue("evaluation")

    def run(config: EvaluateConfig, watcher: Watcher) -> Evaluation:
        seen.append(config)
        watcher.note("something was left out")
        watcher.comparing("toy", 1, 1)
        return outcome or default

    monkeypatch.setattr("geoseg.pipelines.evaluate.run", run)
    return seen


def test_options_become_keys(configs: list[EvaluateConfig]) -> None:
    flags = ["--data", "folder", "--labels", "m/{stem}.png", "--part", "validation"]
    flags += ["--map", "roof=building", "--map", "a = b", "--leave-out", "sea"]
    flags += ["--compare", "tiling.overlap=0,96", "--compare", "model.tta=false,true"]
    flags += ["--border", "7", "--worst", "3", "--model", "m", "--workers", "2"]
    flags += ["--scheduler-file", "s.json", "--set", "resampling.seed=5"]
    assert geoseg("evaluate", "here", "-o", "out", *flags).exit_code == 0
    [config] = configs
    assert (config.data["root"], config.data["labels"]) == ("here", "m/{stem}.png")
    assert config.part == "validation"
    assert config.mapping == {"roof": "building", "a": "b"}
    assert config.leave_out == ("sea",)
    assert config.compare == ("tiling.overlap=0,96", "model.tta=false,true")
    assert (config.scoring.border, config.scoring.worst) == (7, 3)
    assert (config.model.path, config.cluster.workers) == ("m", 2)
    assert str(config.cluster.scheduler_file) == "s.json"
    assert config.resampling.seed == 5
    assert not config.output.polygons


def test_tables_and_notes_are_printed(configs: list[EvaluateConfig]) -> None:
    done = geoseg("evaluate", "here", "-o", "my out")
    assert done.exit_code == 0
    assert "toy on made (test)" in done.stdout
    assert "mIoU:          0.933" in done.stdout  # (0.9 + 0.9 + 1) / 3
    assert "Report:  'my out/evaluation.html'\n" in done.stdout
    assert "Note: something was left out" in done.stderr
    assert "Note: 1 scene is too few for intervals" in done.stderr
    assert geoseg("evaluate", "here", "-o", "out", "-q").stdout == ""


COMPARED = Evaluation(
    "made (test)",
    (result("overlap=0", 90), result("overlap=96", 80)),
    (Failure("overlap=0", "south", "it is broken"),),
)


@pytest.mark.parametrize("configs", [COMPARED], indirect=True)
def test_a_comparison_has_a_row_a_run_and_failures_end_with_1(
    configs: list[EvaluateConfig],
) -> None:
    done = geoseg("evaluate", "here", "-o", "out")
    assert done.exit_code == 1
    assert "overlap=96" in done.stdout
    assert "-0.067" in done.stdout
    assert "Left out: south: it is broken" in done.stderr


def test_settings_that_are_compared_have_a_column_each() -> None:
    values = (("0", "false"), ("0", "true"), ("96", "true"))
    runs = [
        replace(
            result(f"{overlap} {flips}", 90 - number),
            settings={"tiling.overlap": overlap, "model.tta": flips},
        )
        for number, (overlap, flips) in enumerate(values)
    ]
    table = comparison_table(Evaluation("made", tuple(runs)))
    assert table.titles[:3] == ("overlap", "tta", "mIoU")
    assert tuple(row[:2] for row in table.rows) == values
    assert table.names == 2
    text = markdown(Evaluation("made", tuple(runs)))
    assert "| overlap | tta | mIoU |" in text
    assert "| --- | --- | ---: |" in text
    assert "(000000000000), 1 scene, " in text
    # Alone, a key is told in full.
    same = [replace(run, settings={"model.path": run.name}) for run in runs[:2]]
    assert comparison_table(Evaluation("made", tuple(same))).titles[0] == "model.path"


def test_a_difference_that_rounds_to_nothing_has_no_sign() -> None:
    scores = [result(name, 90).scores["north"] for name in ("one", "two")]
    for score in scores:
        score.counts.confusion[:] *= 10_000
    scores[1].counts.confusion[0, 1] += 1
    runs = [run_result(str(n), INFOS, {"north": s}) for n, s in enumerate(scores)]
    table = comparison_table(Evaluation("made", tuple(runs)))
    assert [row[-1] for row in table.rows] == ["", "+0.000"]


def test_notes_name_the_runs_that_they_do_not_all_hold_for() -> None:
    runs = [result(name, 80) for name in ("one", "two", "three")]
    for run in runs[1:]:
        run.scores["north"].counts.unpredicted[0] = 3
    found = notes_of(Evaluation("made", tuple(runs)))
    assert found == [
        "there are no confidence rasters, so calibration is unknown",
        "1 scene is too few for intervals, which resample scenes; they are given from "
        "10 on",
        "3 labelled pixels (1.14%) are nodata in the masks: they count in no metric "
        "(two; three)",
        "runs are scored on different parts of the labelled scenes (one: 100.0%; "
        "two: 98.9%; three: 98.9%; most of all in north): one that leaves out what is "
        "hard looks better",
    ]


SEGMENT = str(recipes() / "pipelines" / "segment.yaml")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["-o", "out", "--map", "roof"], "MODEL=LABEL"),
        ([], "-o"),
        (["-o", "out", "--set", "scoring.chips=1"], "scoring.chip"),
        (["-o", "out", "--data", "nothing"], "nothing"),
        (["-o", "out", "--data", "no.yaml"], "no.yaml: no such file"),
        (["-o", "out", "--data", SEGMENT], "has no section `data`"),
        (["-o", "out", "--data", "mine.yml"], "rename it to mine.yaml"),
        (["-o", "out", "--data", "runs/mine"], "runs/mine: no such file"),
        (["-o", "out", "-c", "train-builtin"], "as --data"),
    ],
)
def test_a_wrong_call_evaluates_nothing(
    configs: list[EvaluateConfig], flags: list[str], message: str
) -> None:
    done = geoseg("evaluate", "here", *flags)
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert configs == []


RECIPE = """
defaults: [train-builtin, {override data: folder}, _self_]
data:
  root: own-labels
  split: {test: [north]}
  classes:
    - {id: 1, name: roof, color: [200, 72, 56], mask: ["#aabbcc"]}
    - {id: 2, name: other, color: [90, 90, 90], mask: [[1, 2, 3]]}
"""

SECTION = """
root: ???
classes:
  - {id: 1, name: roof, color: [200, 72, 56], mask: ["#aabbcc"]}
  - {id: 2, name: other, color: [90, 90, 90], mask: [[1, 2, 3]]}
"""


PACKAGED = f"# @package data\n{SECTION}"


@pytest.mark.parametrize("section", [SECTION, PACKAGED, f"# Copyright\n{PACKAGED}"])
def test_labels_are_read_as_a_training_reads_them(
    tmp_path: Path, configs: list[EvaluateConfig], section: str
) -> None:
    """By its recipe, by what it leaves in its folder, or by the section alone."""
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(RECIPE)
    left = tmp_path / "run.yaml"
    left.write_text(dump(convert(compose(str(recipe)), TrainConfig)))
    alone = tmp_path / "alone.yaml"
    alone.write_text(section)
    more = ["-o", "out", "--set", "data.split.seed=3", "--images", "i/{stem}.tif"]
    for call in ([], ["here"]):
        for path in (recipe, left):
            done = geoseg("evaluate", *call, "--data", str(path), *more)
            assert done.exit_code == 0, done.stderr
    assert geoseg("evaluate", "here", "--data", str(alone), *more).exit_code == 0
    one, two, three, four, five = (config.data for config in configs)
    assert one["root"] == two["root"] == "own-labels"
    assert three["root"] == four["root"] == five["root"] == "here"
    for data in (one, two, three, four, five):
        assert [entry["mask"] for entry in data["classes"]] == [
            ["#aabbcc"],
            [[1, 2, 3]],
        ]
        assert data["split"]["seed"] == 3
        assert data["images"] == "i/{stem}.tif"
    for data in (one, two, three, four):
        assert data["split"]["test"] == ["north"]
        assert data["labels"] == "masks/{stem}.*"
        assert convert({"data": data}, Holder).data.classes[0].mask == ("#aabbcc",)


def test_a_folder_of_labels_may_be_set_and_a_run_be_named_by_its_folder(
    tmp_path: Path, configs: list[EvaluateConfig]
) -> None:
    alone, recipe, run = (tmp_path / n for n in ("a.yaml", "b.yaml", "run"))
    alone.write_text(SECTION)
    recipe.write_text(RECIPE.replace("root: own-labels", "root: ???"))
    run.mkdir()
    (tmp_path / "root").mkdir()  # no part of a recipe beside it
    (run / "run.yaml").write_text(RECIPE)
    more = ["-o", "out", "--set", "data.root='a b'"]
    for path in (alone, recipe, run):
        done = geoseg("evaluate", "--data", str(path), *more)
        assert done.exit_code == 0, done.stderr
    assert [config.data["root"] for config in configs] == ["a b"] * 3
    assert geoseg("evaluate", "--data", f"{run}/", "-o", "out").exit_code == 0
    assert configs[-1].data["root"] == "own-labels"


def test_a_section_that_lacks_a_value_is_told_how_to_set_it(
    tmp_path: Path, configs: list[EvaluateConfig]
) -> None:
    alone = tmp_path / "a.yaml"
    alone.write_text(SECTION + 'split: {seed: "???"}\n')
    done = geoseg("evaluate", "--data", str(alone), "-o", "out")
    assert "data.root has no value; set it with --set data.root=VALUE" in done.stderr
    more = ["--set", "data.root=here", "--set", "data.split.seed=3"]
    assert geoseg("evaluate", "--data", str(alone), "-o", "out", *more).exit_code == 0
    assert configs[0].data["split"] == {"seed": 3}


@dataclass(frozen=True)
class Holder:
    """Reads the section as evaluation does."""

    data: DataConfig
