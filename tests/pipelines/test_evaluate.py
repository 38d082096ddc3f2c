"""Evaluations of made scenes: counts, what is left out, files, and comparisons."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from affine import Affine
from evaluations import evaluated, segmented
from labelled_rasters import CLASSES, draw, tallied, write_scene
from rasters import NORTH_UP, write_raster
from running import read_band
from stubs import save_stub

from geoseg.clusters.config import ClusterConfig
from geoseg.errors import ConfigError, EvaluationError, UsageError
from geoseg.evaluation import scene as scene_module
from geoseg.evaluation.results import Resampling
from geoseg.evaluation.scene import ScoreSettings
from geoseg.pipelines.evaluate import EvaluateConfig, Watcher, run
from geoseg.pipelines.segment import ModelConfig

Pixels = npt.NDArray[np.uint8]


def test_counts_equal_those_of_the_masks_that_segment_wrote(
    tmp_path: Path, root: Path, masks: Path
) -> None:
    [result] = evaluated(tmp_path, root, [masks]).runs
    expected = {
        name: tallied(
            read_band(root / "masks" / f"{name}.tif"),
            read_band(masks / name / "classes.tif"),
        )
        for name in ("north", "south")
    }
    for name, counts in expected.items():
        scored = result.scores[name].counts
        np.testing.assert_array_equal(scored.confusion, counts[:, :-1])
        np.testing.assert_array_equal(scored.unpredicted, counts[:, -1])
    np.testing.assert_array_equal(
        result.counts.confusion, sum(c[:, :-1] for c in expected.values())
    )
    assert result.counts.unpredicted.sum() == 2 * 20 * 30
    assert result.counts.unlabelled == 2 * 25 * 40


def test_predictions_that_are_mapped_to_ignore_do_not_count(
    tmp_path: Path, root: Path, masks: Path
) -> None:
    mapping = {"class 4": "ignore", "class 3": "class 2"}
    [result] = evaluated(tmp_path, root, [masks], mapping=mapping).runs
    counts = np.zeros((CLASSES, CLASSES + 1), np.int64)
    for name in ("north", "south"):
        truth = read_band(root / "masks" / f"{name}.tif")
        counts += tallied(truth, read_band(masks / name / "classes.tif"))
    expected = np.zeros((4, 4), np.int64)
    expected[:, 0], expected[:, 1] = counts[:, 0], counts[:, 1] + counts[:, 2]
    np.testing.assert_array_equal(result.counts.confusion, expected)
    assert result.pairs.missing == ("class 3", "class 4")


def test_confidence_counts_where_it_is_right(
    tmp_path: Path, root: Path, masks: Path
) -> None:
    [result] = evaluated(tmp_path, root, [masks]).runs
    level, right = np.zeros(101, np.int64), np.zeros(101, np.int64)
    for name in ("north", "south"):
        truth = read_band(root / "masks" / f"{name}.tif")
        mask = read_band(masks / name / "classes.tif")
        percent = read_band(masks / name / "confidence.tif")
        scored = (truth > 0) & (mask != 255)
        level += np.bincount(percent[scored], minlength=101)
        right += np.bincount(percent[scored & (truth == mask)], minlength=101)
    np.testing.assert_array_equal(result.counts.levels, [level, right])


def test_blocks_of_any_size_give_the_same(
    tmp_path: Path, root: Path, masks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [whole] = evaluated(tmp_path, root, [masks]).runs
    monkeypatch.setattr(scene_module, "BLOCK", 64)
    [parts] = evaluated(tmp_path, root, [masks]).runs
    for field in ("confusion", "unpredicted", "unlabelled", "border", "levels"):
        np.testing.assert_array_equal(
            getattr(parts.counts, field), getattr(whole.counts, field)
        )
    assert parts.worst_chips == whole.worst_chips
    assert whole.counts.border.any()


def test_masks_of_another_resolution_meet_the_nearest_label(
    tmp_path: Path, root: Path, model: Path
) -> None:
    sections = {"input": {"resolution": 1.25}}
    out = segmented(root, model, tmp_path / "coarse", sections)
    evaluation = evaluated(tmp_path / "out", root, [out])
    [result] = evaluation.runs
    mask = read_band(out / "north" / "classes.tif")
    assert mask.shape == (60, 68)
    truth = read_band(root / "masks" / "north.tif")
    rows, cols = (((np.arange(n) + 0.5) * 2.5).astype(int) for n in mask.shape)
    expected = tallied(truth[np.ix_(rows, cols)], mask)
    np.testing.assert_array_equal(
        result.scores["north"].counts.confusion, expected[:, :-1]
    )
    assert "labels of 2 of 2 scenes are of another resolution" in (
        (tmp_path / "out" / "evaluation.md").read_text()
    )


def test_worst_chips_are_ranked_and_shown(
    tmp_path: Path, root: Path, masks: Path
) -> None:
    scoring = ScoreSettings(border=3, chip=32, worst=5)
    [result] = evaluated(tmp_path, root, [masks], scoring=scoring).runs
    chips = result.worst_chips
    errors = [chip.error for _, chip in chips]
    assert errors == sorted(errors, reverse=True)
    name, worst = chips[0]
    truth = read_band(root / "masks" / f"{name}.tif")[worst.window.slices]
    mask = read_band(masks / name / "classes.tif")[worst.window.slices]
    scored = (truth > 0) & (mask != 255)
    assert worst.scored == scored.sum()
    assert worst.wrong == (scored & (truth != mask)).sum()
    page = (tmp_path / "evaluation.html").read_text()
    assert page.count("<figure") == len(chips) == 5
    assert page.count('src="data:image/') == 15


def test_chips_are_shown_without_an_image_that_broke_since(
    tmp_path: Path, root: Path, masks: Path
) -> None:
    # Moved with its labels: masks are known by the name of their scene then.
    moved = shutil.copytree(root, tmp_path / "moved")
    for seed, name in enumerate(("north", "south")):
        image = moved / "images" / f"{name}.tif"
        write_raster(image, draw(seed)[0], nodata=0, compress="deflate")
        whole = image.read_bytes()
        image.write_bytes(whole[:500] + bytes(500) + whole[1000:])
    scoring = ScoreSettings(border=3, chip=32, worst=4)
    assert evaluated(tmp_path / "out", moved, [masks], scoring=scoring).ok
    page = (tmp_path / "out" / "evaluation.html").read_text()
    assert page.count("<figure") == 4
    assert 8 <= page.count('src="data:image/') < 12


def test_files_tell_the_same_and_load_nothing(
    tmp_path: Path, root: Path, masks: Path
) -> None:
    evaluation = evaluated(tmp_path, root, [masks])
    [result] = evaluation.runs
    record = json.loads((tmp_path / "evaluation.json").read_text())
    [told] = record["runs"]
    assert told["metrics"]["mean_iou"] == float(result.metrics.mean_iou)
    assert told["confusion"]["pixels"] == result.counts.confusion.tolist()
    assert told["by_class"]["class 2"]["iou"] == float(result.metrics.iou[1])
    assert told["intervals"] is None
    assert any("2 scenes are too few" in note for note in record["notes"])
    assert record["title"] == f"{root.name} (all scenes)"  # no split, no part of one
    number = f"{float(result.metrics.mean_iou):.3f}"
    page = (tmp_path / "evaluation.html").read_text()
    assert number in (tmp_path / "evaluation.md").read_text()
    assert f"<strong>{number}</strong>" in page
    assert not re.search(r"<script|<link|https?:|url\(", page)
    before = [(tmp_path / name).read_bytes() for name in FILES]
    evaluated(tmp_path, root, [masks])
    assert [(tmp_path / name).read_bytes() for name in FILES] == before


FILES = ("evaluation.json", "evaluation.md", "evaluation.html")


def test_runs_are_compared_with_the_first_over_the_same_scenes(
    tmp_path: Path, root: Path, masks: Path, model: Path
) -> None:
    worse = save_stub(tmp_path / "worse", kind="pointwise", num_classes=CLASSES)
    other = segmented(root, worse, tmp_path / "other")
    evaluation = evaluated(tmp_path / "out", root, [masks, other])
    first, second = evaluation.runs
    [gap] = evaluation.differences
    assert gap.metrics.mean_iou == second.metrics.mean_iou - first.metrics.mean_iou < 0
    record = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    told = record["runs"][1]["difference"]["metrics"]["mean_iou"]
    assert told == float(gap.metrics.mean_iou)
    page = (tmp_path / "out" / "evaluation.html").read_text()
    assert f"{float(gap.metrics.mean_iou):+.3f}" in page


def test_a_scene_that_one_run_lacks_counts_in_none(
    tmp_path: Path, root: Path, masks: Path
) -> None:
    lacking = shutil.copytree(masks, tmp_path / "lacking")
    shutil.rmtree(lacking / "south")
    evaluation = evaluated(tmp_path / "out", root, [masks, lacking])
    assert [list(run.scores) for run in evaluation.runs] == [["north"], ["north"]]
    [failure] = evaluation.failures
    assert (failure.run, failure.scene) == (str(lacking), "south")
    assert evaluation.differences[0].metrics.mean_iou == 0


def test_intervals_come_with_scenes_enough(tmp_path: Path, model: Path) -> None:
    root = tmp_path / "many"
    for seed in range(10):
        write_scene(root, f"s{seed}", *draw(seed, (40, 50)))
    out = segmented(root, model, tmp_path / "run")
    evaluation = evaluated(
        tmp_path / "out", root, [out, out], resampling=Resampling(200, 1)
    )
    first = evaluation.runs[0]
    assert first.intervals is not None
    low, high = first.intervals["mean_iou"]
    assert low < first.metrics.mean_iou < high
    [gap] = evaluation.differences
    assert gap.intervals is not None
    assert [float(end) for end in gap.intervals["accuracy"]] == [0.0, 0.0]
    assert "95%: " in (tmp_path / "out" / "evaluation.html").read_text()


def test_scenes_that_cannot_be_compared_are_named(
    tmp_path: Path, root: Path, masks: Path, model: Path
) -> None:
    folder = tmp_path / "data"
    for name, seed in (("north", 0), ("empty", 1), ("moved", 2), ("absent", 3)):
        image, labels = draw(seed)
        write_scene(folder, name, image, labels * (name != "empty"))
    out = segmented(folder, model, tmp_path / "run")
    for file in (out / "absent").iterdir():
        file.unlink()
    moved = Affine.translation(500, 0) @ NORTH_UP
    write_scene(folder, "moved", *draw(2), transform=moved)
    evaluation = evaluated(tmp_path / "out", folder, [out])
    assert not evaluation.ok
    assert list(evaluation.runs[0].scores) == ["north"]
    reasons = {failure.scene: failure.reason for failure in evaluation.failures}
    assert reasons["empty"] == "it has no pixel with a label"
    assert "reaches beyond the labels" in reasons["moved"]
    assert "holds no mask of" in reasons["absent"]
    page = (tmp_path / "out" / "evaluation.html").read_text()
    assert "empty is left out" in page


def test_what_compares_nothing_is_refused_in_one_line(
    tmp_path: Path, root: Path, masks: Path
) -> None:
    table = [{"id": n, "name": f"c{n}", "color": [n, 0, 0]} for n in range(1, 5)]
    cases: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (UsageError, "have no name in common", {"data": {"classes": table}}),
        (UsageError, "no labelled scenes are given", {"data": {"root": None}}),
        (ConfigError, "without labels", {"data": {"labels": "none/{stem}.tif"}}),
        (UsageError, "data.split.test .* has no scenes", {"part": "test"}),
        (ConfigError, "leave out --run or --compare", {"compare": ("model.tta=true",)}),
    ]
    for kind, message, options in cases:
        with pytest.raises(kind, match=message) as caught:
            evaluated(tmp_path, root, [masks], **options)
        assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="holds no finished scene"):
        evaluated(tmp_path, root, [tmp_path])
    mixed = shutil.copytree(masks, tmp_path / "mixed")
    item = mixed / "south" / "item.json"
    content = json.loads(item.read_text())
    content["properties"]["geoseg:model_sha256"] = "0" * 64
    item.write_text(json.dumps(content))
    with pytest.raises(UsageError, match="holds scenes of several models"):
        evaluated(tmp_path, root, [mixed])
    other = tmp_path / "other"
    write_scene(other, "east", *draw(5))
    with pytest.raises(EvaluationError, match=r"east: .* holds no mask of"):
        evaluated(tmp_path, other, [masks])


def test_names_cannot_become_markup(tmp_path: Path, root: Path, masks: Path) -> None:
    table = [
        {"id": n, "name": f"<b>|{n}", "color": [n, 0, 0], "mask": [n]}
        for n in range(1, 5)
    ]
    evaluated(
        tmp_path,
        root,
        [masks],
        data={"classes": table},
        mapping={f"class {n}": f"<b>|{n}" for n in range(1, 4)},
    )
    assert "<b>" not in (tmp_path / "evaluation.html").read_text()
    markdown = (tmp_path / "evaluation.md").read_text()
    assert r"| \<b>\|2 |" in markdown
    assert "no class for" in markdown


def test_a_model_without_a_common_class_is_refused_before_it_runs(
    tmp_path: Path, root: Path, model: Path
) -> None:
    table = [{"id": n, "name": f"c{n}", "color": [n, 0, 0]} for n in range(1, 5)]
    config = EvaluateConfig(
        tmp_path / "out",
        {"root": str(root), "classes": table, "ignore": [0]},
        model=ModelConfig(str(model), ("stubs",), device="cpu"),
    )
    with pytest.raises(UsageError, match="--map 'class 1=c1'"):
        run(config)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_settings_are_compared_and_their_masks_kept(
    tmp_path: Path, root: Path, model: Path, scheduler: str
) -> None:
    begun: list[str] = []

    class Recorder(Watcher):
        def segmenting(self, name: str, config: Any) -> Any:  # noqa: ANN401
            begun.append(config.out.name)
            return super().segmenting(name, config)

    config = EvaluateConfig(
        tmp_path,
        {"root": str(root), "ignore": [0]},
        compare=("tiling.overlap=0,16", "tiling.window=none"),
        model=ModelConfig(str(model), ("stubs",), device="cpu"),
        cluster=ClusterConfig(scheduler=scheduler, timeout=300),
    )
    first = run(config, Recorder())
    assert [dict(result.settings) for result in first.runs] == [
        {"tiling.overlap": "0", "tiling.window": "none"},
        {"tiling.overlap": "16", "tiling.window": "none"},
    ]
    folders = [tmp_path / result.folder for result in first.runs]
    assert begun == [folder.name for folder in folders]
    items = [folder / "north" / "item.json" for folder in folders]
    before = [item.stat().st_mtime_ns for item in items]
    mask = read_band(folders[1] / "north" / "classes.tif")
    np.testing.assert_array_equal(
        first.runs[1].scores["north"].counts.confusion,
        tallied(read_band(root / "masks" / "north.tif"), mask)[:, :-1],
    )
    assert not (folders[0] / "north" / "segments.gpkg").exists()
    again = run(config)
    assert [item.stat().st_mtime_ns for item in items] == before
    assert again.runs[0].metrics.mean_iou == first.runs[0].metrics.mean_iou
