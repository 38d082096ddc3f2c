"""STAC of a run, as pystac and its schemas see it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pystac
import pytest
from affine import Affine
from pystac.extensions.mlm import MLMExtension
from pystac.validation import validate_dict
from rasters import CLASSES, NORTH_UP, UTM, rgb_spec

from geoseg.grid import Grid
from geoseg.io.catalog import (
    plain_name,
    recorded_id,
    write_collection,
    write_model,
)
from geoseg.io.stac import ANY_TIME, write_item

# Of the extensions pystac holds no schemas, and fetches them.
CORE_ONLY: list[str] = []


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    validate_dict(content, extensions=CORE_ONLY)
    return content


def item(folder: Path, scene_id: str, grid: Grid, **properties: Any) -> dict[str, Any]:  # noqa: ANN401
    path = folder / scene_id / "item.json"
    write_item(
        path,
        scene_id=scene_id,
        grid=grid,
        classes=CLASSES,
        assets={"classes": "classes.tif"},
        properties={"geoseg:model_sha256": "ab", **properties},
        source="/data/archive/a.tif",
        collection="run",
    )
    return read(path)


def grid(crs: str | None = UTM, transform: Affine = NORTH_UP) -> Grid:
    import pyproj

    wkt = None if crs is None else pyproj.CRS(crs).to_wkt("WKT2_2019")
    return Grid(50, 80, transform, wkt)


def collection(folder: Path, *items: dict[str, Any]) -> dict[str, Any]:
    path = folder / "collection.json"
    write_collection(
        path,
        collection_id="run",
        classes=CLASSES,
        items=[(entry["id"], entry) for entry in items],
    )
    return read(path)


def test_items_are_valid_with_and_without_a_place_and_a_time(tmp_path: Path) -> None:
    taken = "2018-07-16T06:06:23Z"
    known = item(tmp_path, "2024/a", grid(), datetime=taken)
    assert known["properties"]["datetime"] == taken
    assert [(link["rel"], link["href"]) for link in known["links"]] == [
        ("root", "../../collection.json"),
        ("parent", "../../collection.json"),
        ("collection", "../../collection.json"),
        ("derived_from", "../../model.json"),
    ]
    source = known["assets"]["source"]
    assert (source["href"], source["roles"]) == ("/data/archive/a.tif", ["source"])
    unknown = item(tmp_path, "b", grid(None))
    assert unknown["geometry"] is None
    assert unknown["properties"]["datetime"] is None
    assert unknown["links"][0]["href"] == "../collection.json"


def test_a_collection_spans_what_was_taken_in_some_time(tmp_path: Path) -> None:
    first, last = "2018-01-01T00:00:00Z", "2018-02-01T00:00:00Z"
    between = {"start_datetime": first, "end_datetime": last}
    one = item(tmp_path, "a", grid(), **between)
    assert one["properties"]["datetime"] is None
    found = collection(tmp_path, one, item(tmp_path, "b", grid()))
    assert found["extent"]["temporal"]["interval"] == [[first, last]]


def test_a_collection_spans_its_items(tmp_path: Path) -> None:
    north = Affine(0.5, 0, 500_000, 0, -0.5, 6_500_000)
    first = item(tmp_path, "a", grid(), datetime="2018-07-16T06:06:23Z")
    second = item(
        tmp_path, "b", grid("EPSG:32632", north), datetime="2020-01-01T00:00:00Z"
    )
    found = collection(tmp_path, first, second, item(tmp_path, "c", grid(None)))
    [box] = found["extent"]["spatial"]["bbox"]
    for one in (first, second):
        west, south, east, north_edge = one["bbox"]
        assert box[0] <= west < east <= box[2]
        assert box[1] <= south < north_edge <= box[3]
    assert found["extent"]["temporal"]["interval"] == [
        ["2018-07-16T06:06:23Z", "2020-01-01T00:00:00Z"]
    ]
    hrefs = [link["href"] for link in found["links"] if link["rel"] == "item"]
    assert hrefs == ["./a/item.json", "./b/item.json", "./c/item.json"]
    assert found["summaries"]["proj:code"] == [UTM, "EPSG:32632"]
    assert found["summaries"]["geoseg:model_sha256"] == ["ab"]


def test_an_item_that_somebody_broke_is_left_out_of_the_collection(
    tmp_path: Path,
) -> None:
    whole, broken = item(tmp_path, "a", grid()), item(tmp_path, "b", grid())
    broken["properties"]["datetime"] = "soon"
    found = collection(tmp_path, broken, whole)
    items = [link["href"] for link in found["links"] if link["rel"] == "item"]
    assert items == ["./a/item.json"]


def test_a_collection_of_nothing_or_over_the_date_line_is_valid(tmp_path: Path) -> None:
    empty = collection(tmp_path)
    assert empty["extent"]["spatial"]["bbox"] == [[-180, -90, 180, 90]]
    assert empty["extent"]["temporal"]["interval"] == [[None, None]]
    far = grid("EPSG:32660", Affine(1000, 0, 650_000, 0, -1000, 7e6))
    crossing = collection(tmp_path, item(tmp_path, "a", far))
    [box] = crossing["extent"]["spatial"]["bbox"]
    assert (box[0], box[2]) == (-180, 180)


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"id": 3}', '{"id": ""}'])
def test_no_id_is_taken_from_what_is_no_collection(
    tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "collection.json"
    if content is not None:
        path.write_text(content)
    assert recorded_id(path) is None


def test_a_model_is_an_item_of_the_mlm_extension(tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    spec = rgb_spec(0.5)
    weights = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    write_model(path, spec, architecture="UperNet", weights=weights)
    read(path)
    model = pystac.Item.from_file(str(path))
    start, end = ANY_TIME
    assert model.properties["start_datetime"] == start
    assert model.properties["end_datetime"] == end
    mlm = MLMExtension.ext(model)
    assert (mlm.mlm_name, mlm.architecture) == ("toy", "UperNet")
    assert mlm.tasks == ["semantic-segmentation"]
    [given], [result] = mlm.input, mlm.output
    assert given.bands == ["red", "green", "blue"]
    assert given.input.shape == [-1, 3, spec.tile_size, spec.tile_size]
    assert result.result.shape[1] == len(CLASSES)
    found = [entry.value for entry in result.classes or []]
    assert found == [info.id for info in CLASSES]
    scaling = model.properties["mlm:input"][0]["value_scaling"]
    digital, one = number_and_one(spec.scale)
    for entry, mean, std in zip(scaling, spec.mean, spec.std, strict=True):
        value = (digital - entry["mean"]) / entry["stddev"]
        assert value == pytest.approx((digital / one - mean) / std)
    assert [asset.roles for asset in model.assets.values()] == [
        ["mlm:model", "mlm:weights"]
    ] * 2


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("builtin", "builtin"),
        ("org/some-model_v1.2", "org-some-model_v1.2"),
        ("/data/my models/é1", "model 1"),
        ("/data/7", "model 7"),
        ("", "model"),
    ],
)
def test_names_of_models_are_as_the_extension_wants_them(name: str, plain: str) -> None:
    assert plain_name(name) == plain


def number_and_one(scale: tuple[tuple[str, float], ...]) -> tuple[float, float]:
    """Return some digital number, and the one that means 1."""
    return 100.0, scale[0][1]
