"""Where scenes come from: other machines, sheets, catalogues; how they are known."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import yaml
from affine import Affine
from rasters import NORTH_UP, write_raster
from running import configuration, fingerprint, smooth_image
from stubs import clear_log, logged_tiles, save_stub
from web import Web, gather, serve, stall

from geoseg.discovery import SceneFile
from geoseg.errors import UsageError
from geoseg.io.location import name_for_gdal
from geoseg.pipelines import segment
from geoseg.pipelines.segment import RunReport
from geoseg.pipelines.segment_inputs import find_inputs
from geoseg.pipelines.segment_remote import unreachable_scenes


class Bench:
    """A folder, and a model that logs what it predicts."""

    def __init__(self, folder: Path, scheduler: str) -> None:
        self.folder, self.scheduler = folder, scheduler
        self.archive = folder / "archive"
        self.archive.mkdir()
        self.log = folder / "log"
        self.model = save_stub(
            folder / "model", kind="levels", output_stride=4, log_folder=self.log
        )

    def scene(self, name: str, seed: int = 0, **options: Any) -> Path:  # noqa: ANN401
        """Write a scene of 9 tiles."""
        image = smooth_image(150, 130, seed=seed)
        return write_raster(self.archive / f"{name}.tif", image, **options)

    def run(
        self,
        scenes: list[Path | str],
        out: str = "out",
        **given: Any,  # noqa: ANN401 (InputConfig's)
    ) -> tuple[RunReport, int]:
        """Run scenes; return the report and the tiles predicted."""
        clear_log(self.log)
        sections = {"cluster": {"scheduler": self.scheduler}, "input": given}
        config = configuration(scenes, self.folder / out, self.model, sections)
        return segment.run(config), sum(logged_tiles(self.log).values())


@pytest.fixture
def bench(tmp_path: Path, scheduler: str) -> Bench:
    return Bench(tmp_path, scheduler)


@pytest.fixture
def web(bench: Bench) -> Iterator[Web]:
    with serve(bench.archive, bench.folder / "sent.txt") as web:
        yield web


def test_scenes_of_the_web_that_fail_leave_the_others_whole(
    bench: Bench, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GDAL_HTTP_LOW_SPEED_TIME", "1")
    near = bench.scene("caf\u00e9 x", seed=1)
    bench.run([near], "near")
    with stall() as silent:
        scenes = [f"{web.url}/caf\u00e9 x.tif", f"{web.url}/gone.tif"]
        scenes += [f"{silent}/a.tif", "http://127.0.0.1:1/b.tif"]
        report, _ = bench.run([*scenes])
    reasons = {failure.scene_id: failure.reason for failure in report.failures}
    port = web.url.rpartition(":")[2]
    [result] = report.results
    assert result.scene_id == f"127.0.0.1_{port}/caf\u00e9_x"
    assert [name.rpartition("/")[2] for name in reasons] == ["gone", "a", "b"]
    gone, slow, refused = reasons.values()
    assert gone.startswith(
        f"{web.url}/gone.tif cannot be read (HTTP response code: 404)"
    )
    assert slow.startswith(f"{silent}/a.tif cannot be read (Operation too slow")
    assert refused.startswith("http://127.0.0.1:1/b.tif cannot be read (Failed to conn")
    far = Path(result.folder)
    assert (
        fingerprint(far)[:2] == fingerprint(bench.folder / "near" / "caf\u00e9_x")[:2]
    )
    settings = yaml.safe_load((bench.folder / "out" / "run.yaml").read_text())
    assert settings["scenes"] == scenes
    item = json.loads((far / "item.json").read_text())
    assert item["properties"]["geoseg:source"] == f"{web.url}/caf%C3%A9%20x.tif"


def test_servers_are_asked_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GDAL_HTTP_LOW_SPEED_TIME", "2")
    with gather(3) as url, stall() as silent:
        urls = [f"{url}/0", f"{url}/1", f"{silent}/x", f"{url}/2", "near.tif"]
        files = [SceneFile(name_for_gdal(text), text) for text in urls]
        reasons = unreachable_scenes(files)
    assert set(reasons) == set(urls[:4])
    slow = reasons.pop(f"{silent}/x")
    assert "too slow" in slow
    assert all("404" in reason for reason in reasons.values())


def test_a_dead_server_is_not_asked_for_each_of_many_scenes(
    monkeypatch: pytest.MonkeyPatch, web: Web
) -> None:
    monkeypatch.setenv("GDAL_HTTP_LOW_SPEED_TIME", "1")
    with stall() as silent:
        urls = [f"{silent}/{number}" for number in range(40)]
        urls += [f"{web.url}/{number}" for number in range(40)]
        files = [SceneFile(name_for_gdal(text), text) for text in urls]
        reasons = unreachable_scenes(files)
    told = [url for url in urls if f"{silent} left 16 requests" in reasons[url]]
    # The first 16 at a time, and those that were asked before the last of them ended.
    assert set(urls[31:40]) <= set(told) < set(urls[:40])
    assert all("404" in reasons[url] for url in urls[40:])


def test_a_manifest_of_urls_is_run_again_without_a_request_too_many(
    bench: Bench, web: Web
) -> None:
    bench.scene("a")
    bench.scene("b", seed=1)
    (bench.archive / "list.csv").write_text(f"href\na.tif\n{web.url}/b.tif?v=1\n")
    listed: list[Path | str] = [f"{web.url}/list.csv"]
    report, predicted = bench.run(listed)
    assert [result.scene_id for result in report.results] == ["a", "b"]
    assert predicted == 18
    assert bench.run(listed)[1] == 0
    bench.scene("b", seed=2)
    os.utime(bench.archive / "b.tif", (9, 9))
    assert bench.run(listed)[1] == 9


def test_no_file_of_a_run_tells_a_secret(bench: Bench, web: Web) -> None:
    bench.scene("a")
    (bench.archive / "bad.tif").write_bytes(b"no raster")
    host = web.url.replace("://", "://user:hunter2@")
    names: list[Path | str] = [f"{host}/{name}.tif?sig=S3CRET" for name in "abc"]
    names += [f"/vsizip//vsicurl/{host}/{name}.zip?sig=S3CRET/d.tif" for name in "ef"]
    names.append(f"{host}/bad.tif?sig=S3CRET")
    report, _ = bench.run(names)
    assert [Path(result.folder).name for result in report.results] == ["a"]
    assert len(report.failures) == 5
    out = bench.folder / "out"
    files = [path.read_bytes() for path in out.rglob("*") if path.is_file()]
    assert len(files) > 5
    for content in [*files, repr(report).encode()]:
        assert b"hunter2" not in content
        assert b"S3CRET" not in content


def test_a_touched_scene_is_known_by_its_content(bench: Bench) -> None:
    path = bench.scene("a")
    assert bench.run([path], verify=True)[1] == 9
    os.utime(path, (9, 9))
    assert bench.run([path], verify=True)[1] == 0
    size, changed = path.stat().st_size, path.stat().st_mtime_ns
    bench.scene("a", seed=1)
    os.utime(path, ns=(changed, changed))
    assert path.stat().st_size == size
    assert bench.run([path], verify=True)[1] == 9
    # Without: size and time are all that is looked at.
    bench.run([path], "other")
    bench.scene("a", seed=2)
    os.utime(path, ns=(changed, changed))
    assert bench.run([path], "other")[1] == 0
    os.utime(path, (8, 8))
    assert bench.run([path], "other")[1] == 9


def test_scenes_of_all_kinds_go_in_one_run(bench: Bench) -> None:
    settings = json.loads((bench.model / "config.json").read_text())
    settings["geoseg"]["scale"]["uint16"] = 65535
    (bench.model / "config.json").write_text(json.dumps(settings))
    wide = smooth_image(150, 130).astype(np.uint16) * 257
    write_raster(bench.archive / "wide.tif", wide)
    bench.scene("plain")
    degrees = Affine(5e-6, 0, 5.1, 0, -5e-6, 52.3)
    bench.scene("degrees", crs="EPSG:4326", transform=degrees)
    coarse = Affine(2, 0, 500_000, 0, -2, 5_800_000)
    bench.scene("coarse", crs="EPSG:32632", transform=coarse)
    report, predicted = bench.run([bench.archive])
    assert report.ok, report.failures
    assert predicted == 36
    masks = [fingerprint(Path(result.folder))[0] for result in report.results]
    assert len(masks) == 4
    assert len(set(masks)) == 1


def cut(
    folder: Path,
    image: npt.NDArray[np.uint8],
    rows: list[int],
    cols: list[int],
    masks: dict[str, npt.NDArray[np.bool_]] | None = None,
    **options: Any,  # noqa: ANN401 (write_raster's)
) -> list[Path]:
    """Write an image and its masks as sheets between some rows and columns."""
    folder.mkdir()
    paths = []
    for top, bottom in pairwise(rows):
        for left, right in pairwise(cols):
            path = folder / f"s {top} {left}.tif"
            part = np.s_[..., top:bottom, left:right]
            place = NORTH_UP @ Affine.translation(left, top)
            shown = {kind: mask[part] for kind, mask in (masks or {}).items()}
            given: dict[str, Any] = {**shown, **options}
            write_raster(path, image[part], transform=place, **given)
            paths.append(path)
    return paths


def test_a_mosaic_of_sheets_equals_the_merged_raster(bench: Bench) -> None:
    image = smooth_image(200, 170)
    merged = write_raster(bench.archive / "merged.tif", image)
    sheets = bench.folder / "sheets \u00e9"
    paths = cut(sheets, image, [0, 37, 200], [0, 90, 101, 170])
    report, predicted = bench.run([sheets], mosaic=True)
    assert report.ok, report.failures
    bench.run([merged], "merged")
    whole = bench.folder / "out" / "sheets_\u00e9"
    assert fingerprint(whole) == fingerprint(bench.folder / "merged" / "merged")
    # In another order, after the work folder was lost: it is the same mosaic.
    shutil.rmtree(bench.folder / "out" / ".geoseg" / "mosaics")
    assert bench.run([sheets], mosaic=True)[1] == 0
    os.utime(paths[0], (9, 9))
    assert bench.run([sheets], mosaic=True)[1] == predicted


@pytest.mark.parametrize("kind", ["bare", "nodata", "alpha", "mask"])
def test_gaps_between_sheets_stay_nodata(bench: Bench, kind: str) -> None:
    image = smooth_image(150, 130)
    shown = np.ones((150, 130), np.bool_)
    shown[10:30, 50:90] = kind == "bare"  # hidden by the sheets themselves
    nodata = 7 if kind == "nodata" else None
    image[:, ~shown] = 7
    masks = {kind: shown} if kind in ("alpha", "mask") else {}
    corners = [0, 80, 150], [0, 64, 130]
    paths = cut(bench.folder / "s", image, *corners, masks=masks, nodata=nodata)
    paths.pop().unlink()
    report, _ = bench.run([*paths], mosaic=True)
    assert report.ok, report.failures
    shown[80:, 64:] = False
    image[:, ~shown] = 7
    told: dict[str, Any] = {"mask": shown} if kind == "bare" else masks
    merged = write_raster(bench.archive / "merged.tif", image, nodata=nodata, **told)
    bench.run([merged], "merged")
    mask = fingerprint(bench.folder / "out" / "mosaic")
    assert mask == fingerprint(bench.folder / "merged" / "merged")
    assert mask[0].count(b"\xff") == (~shown).sum()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crs": "EPSG:32632"}, r"b\.tif differs in its CRS from .*a\.tif"),
        ({"dtype": np.uint16}, r"b\.tif differs in its dtype .*\(uint16, uint8\)"),
        ({"bands": 4}, r"b\.tif differs in its number of bands .*\(4, 3\)"),
        ({"nodata": 3}, r"b\.tif differs in its nodata value .*\(3.0, None\)"),
        ({"transform": NORTH_UP @ Affine.translation(40.5, 0)}, r"b\.tif does not lie"),
        ({"transform": NORTH_UP @ Affine.scale(2)}, r"b\.tif does not lie on the pix"),
        ({"transform": NORTH_UP @ Affine.rotation(1)}, r"b\.tif does not lie on the"),
        (
            {"transform": NORTH_UP @ Affine.translation(39, 0)},
            r"a\.tif and .*b\.tif ov",
        ),
        ({"transform": NORTH_UP @ Affine.translation(3e9, 0)}, r"\d+ pixels apart"),
        ({"name": "<b>"}, r"'.*<b>\.tif' has a name that no VRT can hold"),
        ({"name": "b\r"}, r"'.*b\\r\.tif' has a name that no VRT can hold"),
    ],
)
def test_a_sheet_that_does_not_fit_is_named_and_nothing_starts(
    bench: Bench, change: dict[str, Any], message: str
) -> None:
    for number, name in enumerate("acde"):
        place = NORTH_UP @ Affine.translation(0, 40 * number)
        bench_sheet(bench, name, {"transform": place})
    bench_sheet(
        bench, "b", {"transform": NORTH_UP @ Affine.translation(40, 0), **change}
    )
    with pytest.raises(UsageError, match=message):
        bench.run([bench.archive], mosaic=True)
    assert not (bench.folder / "out").exists()


def bench_sheet(bench: Bench, name: str, options: dict[str, Any]) -> None:
    options = dict(options)
    shape = (options.pop("bands", 3), 40, 40)
    pixels = np.ones(shape, options.pop("dtype", np.uint8))
    name = options.pop("name", name)
    write_raster(bench.archive / f"{name}.tif", pixels, **options)


def test_names_of_sheets_may_look_alike(bench: Bench) -> None:
    for column, name in ((0, "t 1"), (40, "t_1")):
        place = NORTH_UP @ Affine.translation(column, 0)
        bench_sheet(bench, name, {"transform": place})
    config = configuration(
        bench.archive, bench.folder, bench.model, {"input": {"mosaic": True}}
    )
    assert len(find_inputs(config)[0]) == 2


def test_a_scene_whose_folder_cannot_be_made_fails_before_it_is_predicted(
    bench: Bench,
) -> None:
    item: dict[str, Any] = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "geometry": None,
        "properties": {"datetime": "2024-05-01T00:00:00Z"},
        "links": [],
    }
    ids = {"x" * 300: "name too long", "x/" * 2100 + "x": "name too long"}
    ids["taken/a"] = "Not a directory"
    ids["taken"] = "a file is there"
    features = []
    for number, name in enumerate(ids):
        assets = {"x": {"href": str(bench.scene(str(number)))}}
        features.append(item | {"id": name, "assets": assets})
    found = {"type": "FeatureCollection", "features": features}
    path = bench.folder / "items.json"
    path.write_text(json.dumps(found))
    bench.run([bench.scene("fine")])
    (bench.folder / "out" / "taken").write_text("mine")
    report, predicted = bench.run([path])
    assert predicted == 0
    reasons = {failure.scene_id: failure.reason for failure in report.failures}
    assert set(reasons) == set(ids)
    for name, reason in ids.items():
        assert reason in reasons[name]


def test_sheets_elsewhere_are_refused(bench: Bench, web: Web) -> None:
    bench.scene("a")
    with pytest.raises(UsageError, match="reads sheets of this machine only"):
        bench.run([f"{web.url}/a.tif"], mosaic=True)
