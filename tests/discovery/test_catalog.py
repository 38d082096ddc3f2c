"""STAC as input: items, item collections, catalogues, and the choice of an asset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from web import serve

from geoseg.discovery import find_scenes
from geoseg.errors import UsageError
from geoseg.types import StacSource

TIFF = "image/tiff; application=geotiff; profile=cloud-optimized"


def asset(href: str, *roles: str, kind: str | None = TIFF) -> dict[str, Any]:
    return {"href": href, "type": kind, "roles": list(roles)}


def item(name: str, own: str | None = None, **assets: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "geometry": None,
        "properties": {"datetime": "2024-05-01T00:00:00Z"},
        "links": [{"rel": "self", "href": own}] if own else [],
        "assets": assets,
    }


def catalog(*links: tuple[str, str]) -> dict[str, Any]:
    return {
        "type": "Catalog",
        "stac_version": "1.1.0",
        "id": "c",
        "description": "made for a test",
        "links": [{"rel": rel, "href": href} for rel, href in links],
    }


def write(path: Path, document: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path


def scenes(path: Path, wanted: str | None = None) -> dict[str, str]:
    """Ids and paths, the folder of the document left out."""
    files, root = find_scenes([path], asset=wanted)
    assert root == ""
    return {file.scene_id: file.path.replace(f"{path.parent}/", "") for file in files}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.tif", "b.tif", "sub/c.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def test_an_item_gives_its_scene_and_its_id(folder: Path) -> None:
    document = item("S2/2024: a", "https://h/api/a", image=asset("./a.tif"))
    path = write(folder / "item.json", document)
    assert scenes(path) == {"S2/2024_a": "a.tif"}
    # From a manifest, too.
    (folder / "list.txt").write_text("item.json\nb.tif\n")
    files, root = find_scenes([folder / "list.txt"])
    assert [file.scene_id for file in files] == ["S2/2024_a", "b"]
    assert root == str(folder)


def test_what_identifies_an_item_and_its_time_go_with_the_scene(folder: Path) -> None:
    signed = "https://me:pw@h/api/a?X-Amz-Signature=5"
    one = item("S2/a", signed, x=asset("a.tif")) | {"collection": "s2"}
    between = {"start_datetime": "2024-05-01T10:00:00+02:00"}
    between["end_datetime"] = "2024-05-03T00:00:00Z"
    two = item("b", x=asset("b.tif"))
    two["properties"] = {"datetime": None, **between}
    three = item("c", x=asset("sub/c.tif") | {"datetime": "2020-01-01T00:00:00Z"})
    features = [one, two, three]
    path = write(folder / "i.json", {"type": "FeatureCollection", "features": features})
    files, _ = find_scenes([path])
    assert [file.item for file in files] == [
        StacSource(
            "S2/a", "s2", "https://h/api/a", (("datetime", "2024-05-01T00:00:00Z"),)
        ),
        StacSource(
            "b",
            None,
            str(path),
            (
                ("start_datetime", "2024-05-01T08:00:00Z"),
                ("end_datetime", "2024-05-03T00:00:00Z"),
            ),
        ),
        StacSource("c", None, str(path), (("datetime", "2020-01-01T00:00:00Z"),)),
    ]
    # An address that geoseg cannot read is none.
    path = write(folder / "d.json", item("d", "ftp://h/d", x=asset("b.tif")))
    [file], _ = find_scenes([path])
    assert file.item is not None
    assert file.item.href == str(path)


def test_items_of_a_collection_lie_where_they_are_quoted_from(folder: Path) -> None:
    features = [
        item("one", image=asset("a.tif")),
        item("two", "https://h/x/two.json", image=asset("../b.tif")),
        item("three", image=asset("s3://bucket/c.tif")),
    ]
    document = {"type": "FeatureCollection", "features": features}
    assert scenes(write(folder / "items.geojson", document)) == {
        "one": "a.tif",
        "two": "/vsicurl/https://h/b.tif",
        "three": "/vsis3/bucket/c.tif",
    }


def test_a_catalogue_is_followed_and_its_loops_end(folder: Path) -> None:
    write(folder / "catalog.json", catalog(("child", "sub/c.json"), ("item", "a.json")))
    write(folder / "a.json", item("a", image=asset("a.tif")))
    links = [("item", "./x.json"), ("child", "../catalog.json"), ("root", "none.json")]
    write(folder / "sub" / "c.json", catalog(*links))
    write(folder / "sub" / "x.json", item("x", image=asset("c.tif")))
    assert scenes(folder / "catalog.json") == {"x": "sub/c.tif", "a": "a.tif"}


def test_a_catalogue_of_the_web_is_followed(folder: Path, tmp_path: Path) -> None:
    write(folder / "sub" / "x y.json", item("x", image=asset("../a b.tif")))
    write(folder / "catalog.json", catalog(("item", "./sub/x%20y.json")))
    with serve(folder, tmp_path / "log") as web:
        files, root = find_scenes([f"{web.url}/catalog.json"])
        assert root == ""
        assert [(file.scene_id, file.path) for file in files] == [
            ("x", f"/vsicurl/{web.url}/a%20b.tif")
        ]
        with pytest.raises(UsageError, match=rf"^{web.url}/no.json cannot be read"):
            find_scenes([f"{web.url}/no.json"])


@pytest.mark.parametrize(
    ("assets", "wanted", "chosen"),
    [
        (
            {"x": asset("a.tif"), "thumbnail": asset("t.png", kind="image/png")},
            None,
            "a",
        ),
        ({"x": asset("a.tif", kind=None), "m": asset("m.xml", kind=None)}, None, "a"),
        ({"x": asset("a.tif"), "y": asset("b.tif", "overview")}, None, "a"),
        ({"x": asset("a.tif"), "y": asset("b.tif", "visual")}, None, "b"),
        ({"x": asset("a.tif"), "visual": asset("b.tif")}, None, "b"),
        ({"x": asset("a.tif", "cloud"), "y": asset("b.tif", "data")}, None, "b"),
        ({"x": asset("a.tif"), "y": asset("b.tif", "data")}, "x", "a"),
        ({"x": asset("a.tif", "dem"), "y": asset("b.tif", "data")}, "dem", "a"),
    ],
)
def test_the_asset_is_the_one_that_is_meant(
    folder: Path, assets: dict[str, Any], wanted: str | None, chosen: str
) -> None:
    path = write(folder / "item.json", item("i", **assets))
    assert scenes(path, wanted) == {"i": f"{chosen}.tif"}


TWO = {"red": asset("a.tif", "data"), "nir": asset("b.tif", "data")}


@pytest.mark.parametrize(
    ("assets", "wanted", "message"),
    [
        (TWO, None, "'i' has 2 rasters .* not clear; choose .* --asset: red, nir"),
        (TWO, "data", "has 2 rasters of the key or role 'data'; .*: red, nir"),
        (TWO, "blue", "has no raster of the key or role 'blue'; .*: red, nir"),
        ({}, None, "has 0 rasters among its assets"),
        ({"x": asset("none.tif")}, None, "'i', asset x: .*none.tif does not exist"),
    ],
)
def test_an_unclear_asset_is_told_with_the_keys(
    folder: Path, assets: dict[str, Any], wanted: str | None, message: str
) -> None:
    path = write(folder / "item.json", item("i", **assets))
    with pytest.raises(UsageError, match=message):
        find_scenes([path], asset=wanted)


SEARCH = {
    "type": "FeatureCollection",
    "features": [],
    "links": [{"rel": "next", "href": "https://h/search", "method": "POST"}],
}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"type": "FeatureCollection"}, "is no STAC item"),
        ([1, 2], "is no STAC item"),
        ({"type": "Feature", "stac_version": "1.0.0"}, "is no valid STAC"),
        (catalog(), "has no item"),
        (catalog(("item", "gone.json")), "gone.json cannot be read"),
        (SEARCH, "has more pages"),
        (item("...//", x=asset("a.tif")), None),
        (item("//", x=asset("a.tif")), "has no id"),
        (SEARCH | {"features": None}, "is no STAC item"),
        (SEARCH | {"features": None, "stac_version": "1.0.0"}, "is no valid STAC"),
        (SEARCH | {"links": [5]}, "is no valid STAC"),
        (item("x", x=asset("a.tif") | {"type": 5}), "is no valid STAC"),
        (item("x", x=asset("a.tif") | {"roles": [{}]}), "is no valid STAC"),
        (item("x", x=asset("")), "asset x: .* is no file"),
    ],
)
def test_what_is_no_stac_is_one_clear_line(
    folder: Path, document: object, message: str | None
) -> None:
    path = write(folder / "document.json", document)
    if message is None:
        assert list(scenes(path)) == ["_"]
        return
    with pytest.raises(UsageError, match=message) as caught:
        find_scenes([path])
    assert "\n" not in str(caught.value)


def test_items_of_one_id_are_refused_by_name(folder: Path) -> None:
    features = [item("A", x=asset("a.tif")), item("a", x=asset("b.tif"))]
    document = {"type": "FeatureCollection", "features": features}
    path = write(folder / "items.json", document)
    with pytest.raises(
        UsageError, match=r"a\.tif and .*b\.tif would both be scene 'a'"
    ):
        find_scenes([path])
