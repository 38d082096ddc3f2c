"""Images and their labels are found by two patterns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import labelled_files
import pytest

from geoseg.data.pairs import find_pairs
from geoseg.errors import ConfigError, GeosegWarning


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def found(root: Path, **changes: Any) -> list[tuple[str, str, str]]:  # noqa: ANN401
    return [
        (
            pair.name,
            pair.image.relative_to(root).as_posix(),
            pair.labels.relative_to(root).as_posix(),
        )
        for pair in find_pairs(labelled_files.data(root, **changes))
    ]


@pytest.mark.parametrize(
    ("files", "patterns", "pairs"),
    [
        # sidecars of GDAL are no images
        (
            ["images/a.jpg", "images/a.jpg.aux.xml", "masks/a.png", "masks/a.tfw"],
            {},
            [("a", "images/a.jpg", "masks/a.png")],
        ),
        # suffixes, both in one folder
        (
            ["10_sat.jpg", "10_mask.png", "2_sat.jpg", "2_mask.png"],
            {"images": "{stem}_sat.jpg", "labels": "{stem}_mask.png"},
            [
                ("10", "10_sat.jpg", "10_mask.png"),
                ("2", "2_sat.jpg", "2_mask.png"),
            ],
        ),
        # an image's pattern that would take the masks, too
        (
            ["a.png", "a_mask.png"],
            {"images": "{stem}.png", "labels": "{stem}_mask.png"},
            [("a", "a.png", "a_mask.png")],
        ),
        (
            ["a_sat.png", "a.png"],
            {"images": "{stem}_sat.png", "labels": "{stem}.png"},
            [("a", "a_sat.png", "a.png")],
        ),
        # equal stems in folders, at any depth and none
        (
            [f"{f}{kind}/a.tif" for f in ("N/1/", "S/", "") for kind in ("img", "ann")],
            {"images": "{folder}/img/{stem}.*", "labels": "{folder}/ann/{stem}.tif"},
            [
                ("N/1/a", "N/1/img/a.tif", "N/1/ann/a.tif"),
                ("S/a", "S/img/a.tif", "S/ann/a.tif"),
                ("a", "img/a.tif", "ann/a.tif"),
            ],
        ),
        # one vector file for all, or one each
        (
            ["images/a.tif", "images/b.tif", "all.gpkg"],
            {"labels": "all.gpkg"},
            [("a", "images/a.tif", "all.gpkg"), ("b", "images/b.tif", "all.gpkg")],
        ),
        (
            ["images/a[1].tif", "masks/a[1].geojson"],
            {},
            [("a[1]", "images/a[1].tif", "masks/a[1].geojson")],
        ),
        # not looked at
        (
            ["images/a.tif", "masks/a.tif", "images/bad_b.tif", "masks/bad_c.tif"],
            {"leave_out": ["bad_*"]},
            [("a", "images/a.tif", "masks/a.tif")],
        ),
        # a name is no pattern where there is such an image
        (
            ["images/a1.tif", "images/a[1].tif", "masks/a1.tif"],
            {"leave_out": ["a[1]"]},
            [("a1", "images/a1.tif", "masks/a1.tif")],
        ),
    ],
)
def test_pairs(
    tmp_path: Path,
    files: list[str],
    patterns: dict[str, Any],
    pairs: list[tuple[str, str, str]],
) -> None:
    touch(tmp_path, *files)
    assert found(tmp_path, **patterns) == pairs


@pytest.mark.parametrize(
    ("files", "patterns", "message"),
    [
        (["masks/a.png"], {}, r"no image matches data.images=images/\{stem\}\.\*"),
        (["images/a.png"], {}, "1 image below .* without labels: a; add them"),
        (
            [*(f"images/{i}.png" for i in range(7)), "masks/0.png", "masks/9.png"],
            {},
            "6 images below .* without labels: 1, 2, 3, 4, 5 and 1 more; ",
        ),
        (
            ["images/a.png", "masks/a.png", "masks/b.png"],
            {},
            "1 file of labels below .* without image: b; add",
        ),
        (
            ["images/a.png", "images/a.tif", "masks/a.png"],
            {},
            r"both are a of images/\{stem\}",
        ),
        (["images/a.png"], {"labels": "masks/a.png"}, r"put \{stem\} where"),
        (["images/a.png"], {"labels": "labels.gpkg"}, "does not exist"),
        (["images/a.png"], {"images": "images/*"}, r"with one \{stem\} in it"),
        (
            ["b/images/a.png"],
            {
                "images": "{folder}/images/{folder}/{stem}.png",
                "labels": "{folder}/masks/{stem}.png",
            },
            r"at most one \{folder\}",
        ),
        (
            ["images/a.png"],
            {"images": "{folder}/{stem}.png"},
            r"use \{folder\} in both, or in none",
        ),
    ],
)
def test_what_is_no_pair_is_named(
    tmp_path: Path, files: list[str], patterns: dict[str, str], message: str
) -> None:
    touch(tmp_path, *files)
    with pytest.raises(ConfigError, match=message):
        found(tmp_path, **patterns)


def test_folders_may_be_links(tmp_path: Path) -> None:
    touch(tmp_path, "disk/U/img/a.tif", "disk/U/ann/a.tif")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/Train").symlink_to(tmp_path / "disk")
    patterns = {
        "images": "{folder}/img/{stem}.tif",
        "labels": "{folder}/ann/{stem}.tif",
    }
    assert [name for name, _, _ in found(tmp_path / "data", **patterns)] == [
        "Train/U/a"
    ]


@pytest.mark.timeout(60)
def test_a_link_that_leads_back_ends_there(tmp_path: Path) -> None:
    """Two of them would be followed in every order, for ever."""
    touch(tmp_path, "s/a.jpg", "s/a.png", "t/b.jpg", "t/b.png")
    (tmp_path / "s/loop").symlink_to(tmp_path)
    (tmp_path / "t/up").symlink_to("../s")
    patterns = {"images": "{folder}/{stem}.jpg", "labels": "{folder}/{stem}.png"}
    assert [name for name, _, _ in found(tmp_path, **patterns)] == ["s/a", "t/b"]
    # Nor does what has no counterpart become more.
    touch(tmp_path, "s/c.jpg", "t/d.png")
    with pytest.warns(GeosegWarning) as caught:
        found(tmp_path, on_bad="skip", **patterns)
    told = [str(warning.message) for warning in caught]
    assert "1 image below" in told[0]
    assert told[0].endswith("without labels: s/c; left out")
    assert "1 file of labels below" in told[1]
    assert told[1].endswith("without image: t/d; left out")


def test_two_links_to_a_folder_make_no_scene_twice(tmp_path: Path) -> None:
    touch(tmp_path, "disk/a.jpg", "disk/a.png")
    data = tmp_path / "data"
    data.mkdir()
    for link in ("m", "n"):
        (data / link).symlink_to(tmp_path / "disk")
    patterns = {"images": "{folder}/{stem}.jpg", "labels": "{folder}/{stem}.png"}
    assert [name for name, _, _ in found(data, **patterns)] == ["m/a"]
    flat = {"images": "*/{stem}.jpg", "labels": "*/{stem}.png"}
    assert [name for name, _, _ in found(data, **flat)] == ["a"]
    touch(data, "all.gpkg")
    patterns["labels"] = "all.gpkg"
    assert [name for name, _, _ in found(data, **patterns)] == ["m/a"]
    # A folder keeps its name, whatever links to it are called.
    touch(data, "z/b.jpg")
    (data / "y").symlink_to("z")
    assert [name for name, _, _ in found(data, **patterns)] == ["m/a", "z/b"]


def test_folders_may_share_their_labels_by_links(tmp_path: Path) -> None:
    touch(tmp_path, "2023/img/a.tif", "2024/img/a.tif", "store/a.png")
    for year in ("2023", "2024"):
        (tmp_path / year / "ann").symlink_to("../store")
    patterns = {
        "images": "{folder}/img/{stem}.tif",
        "labels": "{folder}/ann/{stem}.png",
    }
    assert [name for name, _, _ in found(tmp_path, **patterns)] == ["2023/a", "2024/a"]


@pytest.mark.parametrize(
    ("labels", "written"),
    [
        ("{folder}/{stem}.png", ["run/pictures/step-000400-a.png", "out/preview.png"]),
        ("{folder}/{stem}.tif", ["out/a/classes.tif", "out/a/confidence.tif"]),
        ("{folder}/{stem}.gpkg", ["out/a/segments.gpkg", "out/merged.gpkg"]),
        # Of one name, too.
        ("*/{stem}.png", ["out/preview.png", "run/preview.png"]),
    ],
)
def test_what_a_run_wrote_lacks_no_image(
    tmp_path: Path, labels: str, written: list[str]
) -> None:
    """Else a training could not go on, nor an archive be segmented again."""
    own = "s/a" + Path(labels).suffix
    touch(tmp_path, "s/a.jpg", own, "run/run.yaml", "out/run.yaml", *written)
    patterns = {"images": labels.rpartition(".")[0] + ".jpg", "labels": labels}
    assert [labels for _, _, labels in found(tmp_path, **patterns)] == [own]
    # What is no name of geoseg's lacks one, wherever it lies.
    touch(tmp_path, f"out/own{Path(labels).suffix}")
    with pytest.raises(ConfigError, match=r"1 file of labels .*without image: .*own"):
        found(tmp_path, **patterns)


def test_what_is_not_called_as_geoseg_calls_it_is_the_users(tmp_path: Path) -> None:
    """A recipe that is called run.yaml makes no run's pictures of theirs."""
    touch(tmp_path, "run.yaml", "all.gpkg", "x/run.yaml")
    touch(tmp_path, "pictures/step-000400-a.png", "pictures/step-000800-a.png")
    patterns = {"images": "pictures/{stem}.*", "labels": "all.gpkg"}
    told = (
        r"pictures/\{stem\}\.\* below .*, apart from 2 files that geoseg wrote there "
        "beside a run.yaml; check both"
    )
    with pytest.raises(ConfigError, match=told):
        found(tmp_path, **patterns)
    touch(tmp_path, "pictures/a.tif", "pictures/step-2.png")
    assert [name for name, _, _ in found(tmp_path, **patterns)] == ["a", "step-2"]
    touch(tmp_path, "x/pictures/b.tif", "y/c.tif")
    patterns["images"] = "{folder}/{stem}.tif"
    assert [name for name, _, _ in found(tmp_path, **patterns)] == [
        "pictures/a",
        "x/pictures/b",
        "y/c",
    ]


def test_what_runs_wrote_among_the_data_is_no_image(tmp_path: Path) -> None:
    touch(tmp_path, "a.tif", "b.tif", "a_mask.tif", "b_mask.tif")
    patterns = {"images": "{folder}/{stem}.*", "labels": "{folder}/{stem}_mask.*"}
    assert [name for name, _, _ in found(tmp_path, **patterns)] == ["a", "b"]
    # A training, a sweep, a segmentation, and a folder of pictures of nobody's run.
    touch(tmp_path, "run/run.yaml", "run/pictures/step-000400-a.png")
    touch(tmp_path, "sweep/0/run.yaml", "sweep/0/pictures/step-000400-a.png")
    touch(tmp_path, "out/run.yaml", "out/a/classes.tif", "out/a/preview.png")
    touch(tmp_path, "pictures/c.tif", "pictures/c_mask.tif")
    assert [name for name, _, _ in found(tmp_path, **patterns)] == [
        "a",
        "b",
        "pictures/c",
    ]
    # Masks of a run may be labels.
    touch(tmp_path, "images/a.tif", "images/b.tif", "out/b/classes.tif")
    of_run = {"images": "images/{stem}.tif", "labels": "out/{stem}/classes.tif"}
    assert [labels for _, _, labels in found(tmp_path, **of_run)] == [
        "out/a/classes.tif",
        "out/b/classes.tif",
    ]


def test_the_runs_folder_may_be_that_of_the_data(tmp_path: Path) -> None:
    touch(tmp_path, "a.tif", "a_mask.tif", "run.yaml", "pictures/step-000400-a.png")
    patterns = {"images": "{folder}/{stem}.*", "labels": "{folder}/{stem}_mask.*"}
    assert [name for name, _, _ in found(tmp_path, **patterns)] == ["a"]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.root: .* is no folder"):
        found(tmp_path / "missing")


def test_what_has_no_counterpart_may_be_skipped(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.png", "masks/a.png", "images/b.png", "masks/c.png")
    with pytest.warns(GeosegWarning) as caught:
        pairs = found(tmp_path, on_bad="skip")
    assert [name for name, _, _ in pairs] == ["a"]
    told = [str(warning.message) for warning in caught]
    assert "without labels: b; left out" in told[0]
    assert "without image: c; left out" in told[1]
    (tmp_path / "masks/a.png").unlink()
    with (
        pytest.warns(GeosegWarning, match="left out"),
        pytest.raises(ConfigError, match="must be the same for both"),
    ):
        found(tmp_path, on_bad="skip")


def test_what_is_left_out_does_not_come_back_through_a_link(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.jpg", "a/x.png", "a/y.jpg", "a/y.png")
    (tmp_path / "zz").symlink_to("a")
    patterns = {"images": "{folder}/{stem}.jpg", "labels": "{folder}/{stem}.png"}
    both = [("a/x", "a/x.jpg", "a/x.png"), ("a/y", "a/y.jpg", "a/y.png")]
    assert found(tmp_path, **patterns) == both
    assert found(tmp_path, **patterns, leave_out=["a/x"]) == both[1:]


def test_the_same_image_with_other_labels_is_not_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "pool/x.jpg", "pool/y.jpg")
    for who in ("annA", "annB"):
        touch(tmp_path, f"{who}/lab/x.png")
        (tmp_path / who / "img").symlink_to("../pool")
    touch(tmp_path, "annA/lab/y.png")
    patterns = {
        "images": "{folder}/img/{stem}.jpg",
        "labels": "{folder}/lab/{stem}.png",
    }
    pairs = found(tmp_path, **patterns, leave_out=["annB/*"])
    assert [name for name, *_ in pairs] == ["annA/x", "annA/y"]
    pairs = found(tmp_path, **patterns, leave_out=["annA/*", "annB/y"])
    assert [name for name, *_ in pairs] == ["annB/x"]
