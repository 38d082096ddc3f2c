"""Which mask is compared with which labels, and what is refused before."""

from __future__ import annotations

import shutil
from pathlib import Path

import labelled_files
import numpy as np
import numpy.typing as npt
import pytest
from affine import Affine
from evaluations import evaluated, segmented
from labelled_rasters import CLASSES, draw, write_scene
from rasters import NORTH_UP, UTM, write_raster
from running import read_band, segment_plainly

from geoseg.data.labelled import LabelledScene
from geoseg.errors import EvaluationError
from geoseg.evaluation.results import notes_of
from geoseg.pipelines.evaluate_masks import MadeMasks, pair_masks
from geoseg.pipelines.segment import ModelConfig


def test_a_failed_scene_takes_no_mask_of_another_one(
    tmp_path: Path, model: Path
) -> None:
    for place, seed in (("A", 0), ("B", 1)):
        write_scene(tmp_path / "data" / place, "0001", *draw(seed))
    out = tmp_path / "run"
    segmented(tmp_path / "data" / "A", model, out)
    patterns = {"images": "{folder}/images/{stem}.tif"}
    patterns["labels"] = "{folder}/masks/{stem}.tif"
    options = {"data": patterns}
    evaluation = evaluated(tmp_path / "out", tmp_path / "data", [out], **options)
    assert list(evaluation.runs[0].scores) == ["A/0001"]
    assert [failure.scene for failure in evaluation.failures] == ["B/0001"]
    # Moved away, "0001" may be either: neither is taken.
    moved = (tmp_path / "data").rename(tmp_path / "moved")
    with pytest.raises(EvaluationError, match="holds no mask of"):
        evaluated(tmp_path / "other", moved, [out], **options)
    shutil.rmtree(moved / "B")
    evaluation = evaluated(tmp_path / "third", moved, [out], **options)
    assert evaluation.ok
    assert any("by their names" in note for note in notes_of(evaluation))


def test_links_to_folders_lead_to_the_same_images(
    tmp_path: Path, root: Path, masks: Path
) -> None:
    link = tmp_path / "link"
    link.symlink_to(root)
    for way in (link, root / ".." / root.name):
        evaluation = evaluated(tmp_path / "out", way, [masks])
        assert evaluation.ok
        assert not any("by their names" in note for note in notes_of(evaluation))


def test_a_confidence_of_another_mask_is_refused(
    tmp_path: Path, root: Path, masks: Path
) -> None:
    percent = read_band(masks / "north" / "confidence.tif")
    percent[100, 100] = 255
    told = "holds no percent where classes.tif holds a class"
    assert told in why_refused(tmp_path, root, masks, percent)


def read_in_small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the scenes of these tests be more than one block."""
    monkeypatch.setattr("geoseg.data.survey.BLOCK", 64)
    monkeypatch.setattr("geoseg.data.survey._ONE_BLOCK", 0)
    monkeypatch.setattr("geoseg.evaluation.scene.BLOCK", 64)


def test_labels_are_looked_at_before_masks_are_made(
    tmp_path: Path, root: Path, masks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_in_small_blocks(monkeypatch)
    data = shutil.copytree(root, tmp_path / "data")
    labels = read_band(data / "masks" / "south.tif")
    labels[100, 120] = 77
    write_raster(data / "masks" / "south.tif", labels)
    evaluation = evaluated(tmp_path / "out", data, [masks])
    [failure] = evaluation.failures
    assert (failure.run, failure.scene) == ("", "south")
    assert "77" in failure.reason
    write_raster(data / "masks" / "north.tif", np.full_like(labels, 99))
    with pytest.raises(EvaluationError, match="no scene has labels that can be used"):
        evaluated(tmp_path / "other", data, [masks])


def test_scenes_without_any_label_get_no_masks(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch, model: Path
) -> None:
    def segment(*_: object, **__: object) -> None:
        raise AssertionError("hours of segmentation")

    monkeypatch.setattr("geoseg.pipelines.segment.run", segment)
    known = ModelConfig(str(model), ("stubs",), device="cpu")
    table = [
        {"id": n, "name": f"class {n}", "color": [n, 0, 0], "mask": [90 + n]}
        for n in range(1, 5)
    ]
    data = {"classes": table, "ignore": list(range(CLASSES + 1))}
    with pytest.raises(EvaluationError, match="no pixel of the scenes has a label"):
        evaluated(tmp_path, root, [], data=data, model=known)


def test_links_inside_of_the_data_lead_to_the_same_images(
    tmp_path: Path, model: Path
) -> None:
    """`segment` keeps a link below the folder that it is given; labels follow it."""
    data = tmp_path / "data"
    for seed, year in enumerate(("2023", "2024")):
        image, labels = draw(seed)
        write_scene(tmp_path / "store" / year, "north", image, labels)
        # No images, of which a mask would be made.
        shutil.rmtree(tmp_path / "store" / year / "masks")
        labelled_files.save(tmp_path / "store" / year / "masks/north.png", labels)
    data.mkdir()
    (data / "linked").symlink_to(tmp_path / "store")
    out = tmp_path / "out"
    segment_plainly([data], out, model, {"output": {"polygons": False}})
    patterns = {
        "images": "{folder}/images/{stem}.tif",
        "labels": "{folder}/masks/{stem}.png",
    }
    evaluation = evaluated(tmp_path / "e", data, [out], data=patterns)
    assert evaluation.ok
    assert list(evaluation.runs[0].scores) == ["linked/2023/north", "linked/2024/north"]
    assert not any("by their names" in note for note in notes_of(evaluation))


@pytest.mark.parametrize("how", ["small", "shifted", "float", "elsewhere"])
def test_a_confidence_on_another_grid_is_refused(
    tmp_path: Path, root: Path, masks: Path, how: str
) -> None:
    percent, place = read_band(masks / "north" / "confidence.tif"), NORTH_UP
    crs = UTM
    if how == "small":
        percent = percent[:100, :100].copy()
    elif how == "shifted":
        place = NORTH_UP @ Affine.translation(50, 50)
    elif how == "elsewhere":
        crs = "EPSG:32632"
    else:
        percent = np.where(percent == 255, 255, percent / 100).astype(np.float32)
    told = "is not in percent on the grid of classes.tif"
    assert told in why_refused(tmp_path, root, masks, percent, place, crs)


def why_refused(
    folder: Path,
    root: Path,
    masks: Path,
    percent: npt.NDArray[np.generic],
    place: Affine = NORTH_UP,
    crs: str = UTM,
) -> str:
    """Put a confidence raster beside one mask; return why that is not compared."""
    other = shutil.copytree(masks, folder / "other")
    path = other / "north" / "confidence.tif"
    write_raster(path, percent, nodata=255, transform=place, crs=crs)
    [failure] = evaluated(folder / "out", root, [other]).failures
    assert failure.scene == "north"
    return failure.reason


def test_a_reason_is_found_whichever_links_led_to_the_image(tmp_path: Path) -> None:
    pixels = np.zeros((3, 4, 4), np.uint8)
    sources = [LabelledScene(name, pixels, pixels[0]) for name in ("a", "b", "c")]
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to("data")
    (tmp_path / "loop").symlink_to("loop")
    files = {"a": "data/a.tif", "b": "data/b.tif", "c": "loop/c.tif"}
    reasons = {"link/a.tif": "it is broken", "loop/c.tif": "it leads nowhere"}
    made = MadeMasks(
        "run",
        {},
        tmp_path,
        {},
        {str(tmp_path / image): reason for image, reason in reasons.items()},
    )
    pairs, missing = pair_masks(
        sources, {name: str(tmp_path / file) for name, file in files.items()}, made
    )
    assert pairs == {}
    assert (missing["a"], missing["c"]) == ("it is broken", "it leads nowhere")
    assert "holds no mask of" in missing["b"]


def test_two_links_to_one_image_have_its_mask(tmp_path: Path, model: Path) -> None:
    image, labels = draw(0)
    write_scene(tmp_path / "data" / "A", "x", image, labels)
    write_scene(tmp_path / "data" / "B", "x", image, labels)
    second = tmp_path / "data" / "B" / "images" / "x.tif"
    second.unlink()
    second.symlink_to("../../A/images/x.tif")
    out = tmp_path / "run"
    segment_plainly(
        [tmp_path / "data" / "A" / "images"],
        out,
        model,
        {"output": {"polygons": False}},
    )
    patterns = {
        "images": "{folder}/images/{stem}.tif",
        "labels": "{folder}/masks/{stem}.tif",
    }
    evaluation = evaluated(tmp_path / "e", tmp_path / "data", [out], data=patterns)
    assert evaluation.ok
    assert list(evaluation.runs[0].scores) == ["A/x", "B/x"]


def test_a_run_without_masks_is_the_reason_before_labels_that_fail(
    tmp_path: Path, root: Path, masks: Path
) -> None:
    data = shutil.copytree(root, tmp_path / "data")
    labels = read_band(data / "masks" / "south.tif")
    labels[100, 120] = 77
    write_raster(data / "masks" / "south.tif", labels)
    (data / "images" / "north.tif").rename(data / "images" / "n.tif")
    (data / "masks" / "north.tif").rename(data / "masks" / "n.tif")
    with pytest.raises(EvaluationError, match=r"compared; n: .* holds no mask of"):
        evaluated(tmp_path / "out", data, [masks])


def test_labels_of_a_scene_that_fails_are_no_labels(
    tmp_path: Path, root: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_in_small_blocks(monkeypatch)

    def segment(*_: object, **__: object) -> None:
        raise AssertionError("hours of segmentation")

    monkeypatch.setattr("geoseg.pipelines.segment.run", segment)
    data = shutil.copytree(root, tmp_path / "data")
    south = read_band(data / "masks" / "south.tif")
    south[100, 120] = 77
    write_raster(data / "masks" / "south.tif", south)
    write_raster(data / "masks" / "north.tif", np.zeros_like(south))
    known = ModelConfig(str(model), ("stubs",), device="cpu")
    with pytest.raises(EvaluationError, match="no pixel of the scenes has a label"):
        evaluated(tmp_path / "out", data, [], model=known)
