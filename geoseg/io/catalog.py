"""STAC of a run: its model as an item, and the collection of its scenes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pystac
from pystac.utils import str_to_datetime

from geoseg import __version__
from geoseg.io.stac import ANY_TIME, class_fields, write_stac
from geoseg.layout import COLLECTION, MODEL
from geoseg.types import ClassInfo, ModelSpec

_MLM = "https://stac-extensions.github.io/mlm/v1.4.0/schema.json"
_CLASSIFICATION = "https://stac-extensions.github.io/classification/v2.0.0/schema.json"

_MLM_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9_.\-\s]+[a-zA-Z0-9]")

_WHOLE_EARTH = [-180.0, -90.0, 180.0, 90.0]


def write_model(
    path: Path, spec: ModelSpec, *, architecture: str, weights: Sequence[Path]
) -> None:
    """Write the STAC item of a model, with the MLM extension.

    Args:
        path: The item; an older one is replaced.
        spec: What the model declares.
        architecture: Name of its class.
        weights: Its files.
    """
    start, end = ANY_TIME
    item = pystac.Item(
        id=plain_name(spec.name),
        geometry=None,
        bbox=None,
        datetime=None,
        properties={
            "start_datetime": start,
            "end_datetime": end,
            "title": spec.name,
            **_model_fields(spec, architecture),
        },
        stac_extensions=[_MLM],
    )
    item.add_link(pystac.Link("root", f"./{COLLECTION}", pystac.MediaType.JSON))
    for number, file in enumerate(weights):
        name = "weights" if number == 0 else f"weights-{number}"
        item.add_asset(name, _weights(file, spec))
    write_stac(path, item.to_dict(include_self_link=False, transform_hrefs=False))


def plain_name(name: str) -> str:
    """Return a model's name with the characters that the MLM extension allows.

    Args:
        name: Of a model; of a folder, its path.
    """
    last = Path(name).name if Path(name).is_absolute() else name
    text = re.sub(r"[^A-Za-z0-9_.\- ]+", "-", last).strip("-_. ")
    return text if _MLM_NAME.fullmatch(text) else f"model {text}".strip()


def _model_fields(spec: ModelSpec, architecture: str) -> dict[str, Any]:
    size, count = spec.tile_size, len(spec.bands)
    dtype, one = spec.scale[0] if spec.scale else ("float32", 1.0)
    scaling = [
        # Of digital numbers, in one step.
        {"type": "z-score", "mean": mean * one, "stddev": std * one}
        for mean, std in zip(spec.mean, spec.std, strict=True)
    ]
    given = {
        "name": f"{size} x {size} pixels, digital numbers of {dtype}",
        "bands": list(spec.bands),
        "input": {
            "shape": [-1, count, size, size],
            "dim_order": ["batch", "bands", "height", "width"],
            "data_type": "float32",
        },
        "value_scaling": scaling,
    }
    result = {
        "name": "class logits",
        "tasks": ["semantic-segmentation"],
        "result": {
            "shape": [-1, len(spec.classes), size, size],
            "dim_order": ["batch", "class", "height", "width"],
            "data_type": "float32",
        },
        "classification:classes": class_fields(spec.classes),
    }
    return {
        "mlm:name": plain_name(spec.name),
        "mlm:architecture": architecture,
        "mlm:tasks": ["semantic-segmentation"],
        "mlm:framework": "PyTorch",
        "mlm:input": [given],
        "mlm:output": [result],
        "bands": _bands(spec),
        "geoseg:sha256": spec.weights_sha256,
        "geoseg:resolution": spec.resolution,
    }


def _weights(file: Path, spec: ModelSpec) -> pystac.Asset:
    writer = "torch.save"  # of a checkpoint of training
    if file.suffix == ".safetensors":
        writer = "safetensors.torch.save_file"
    return pystac.Asset(
        str(file.absolute()),
        title=file.name,
        media_type="application/octet-stream; application=pytorch",
        roles=["mlm:model", "mlm:weights"],
        extra_fields={
            "mlm:artifact_type": writer,
            "bands": _bands(spec),
        },
    )


def _bands(spec: ModelSpec) -> list[dict[str, str]]:
    return [{"name": name} for name in spec.bands]


def write_collection(
    path: Path,
    *,
    collection_id: str,
    classes: Sequence[ClassInfo],
    items: Iterable[tuple[str, Mapping[str, Any]]],
) -> None:
    """Write the collection of all whole scenes of a run directory.

    Args:
        path: The collection, in the run directory.
        collection_id: Its id.
        classes: Classes of the masks.
        items: Id and item of each scene, sorted by id; read one by one.
    """
    seen = _Seen()
    links = [
        pystac.Link("root", f"./{path.name}", pystac.MediaType.JSON),
        pystac.Link(
            "derived_from", f"./{MODEL}", pystac.MediaType.GEOJSON, "The model"
        ),
    ]
    for scene_id, item in items:
        try:
            seen.add(item)
        except (ValueError, TypeError, KeyError, AttributeError):
            continue  # Somebody changed it: its scene is made again.
        file = f"./{scene_id}/item.json"
        links.append(pystac.Link("item", file, pystac.MediaType.GEOJSON, scene_id))
    collection = pystac.Collection(
        id=collection_id,
        title=collection_id,
        description=f"Class masks and polygons made by geoseg {__version__}.",
        extent=seen.extent(),
        summaries=pystac.Summaries(seen.summaries()),
        stac_extensions=[_CLASSIFICATION],
        extra_fields={"item_assets": _item_assets(classes)},
    )
    collection.clear_links()
    collection.add_links(links)
    content = collection.to_dict(include_self_link=False, transform_hrefs=False)
    write_stac(path, content)


def recorded_id(path: Path) -> str | None:
    """Id of a collection that is there already; None if it is not one."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))["id"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return value if isinstance(value, str) and value else None


def _item_assets(classes: Sequence[ClassInfo]) -> dict[str, Any]:
    masks = {
        "title": "classes",
        "roles": ["data"],
        "classification:classes": class_fields(classes),
    }
    return {"classes": masks}


def _known_times(properties: Mapping[str, Any]) -> list[str]:
    """Return when an image was taken: a time, a first and a last one, or nothing."""
    if properties.get("datetime"):
        return [properties["datetime"]]
    names = ("start_datetime", "end_datetime")
    between = [properties[name] for name in names if properties.get(name)]
    return [] if len(between) < 2 or between == list(ANY_TIME) else between


class _Seen:
    """What the items of a collection have in common; holds no item."""

    def __init__(self) -> None:
        self._boxes: list[float] | None = None
        self._times: list[str] = []
        self._codes: set[str] = set()
        self._models: set[str] = set()
        self._software: set[str] = set()

    def add(self, item: Mapping[str, Any]) -> None:
        properties = item["properties"]
        self._add_box(item.get("bbox"))
        if known := _known_times(properties):
            for time in known:
                str_to_datetime(time)  # Or the end of it all would fail.
            times = sorted([*self._times, *known])
            self._times = [times[0], times[-1]]
        for values, name in (
            (self._codes, "proj:code"),
            (self._models, "geoseg:model_sha256"),
        ):
            if properties.get(name):
                values.add(properties[name])
        software = properties.get("processing:software") or {}
        self._software |= {f"{name} {version}" for name, version in software.items()}

    def _add_box(self, box: Sequence[float] | None) -> None:
        if box is None:
            return
        west, south, east, north = box
        if west > east:  # Over the date line.
            west, east = -180.0, 180.0
        own = self._boxes or [west, south, east, north]
        self._boxes = [
            min(own[0], west),
            min(own[1], south),
            max(own[2], east),
            max(own[3], north),
        ]

    def extent(self) -> pystac.Extent:
        known = [str_to_datetime(text) for text in self._times]
        times: list[datetime | None] = [*known] or [None]
        return pystac.Extent(
            pystac.SpatialExtent([self._boxes or _WHOLE_EARTH]),
            pystac.TemporalExtent([[times[0], times[-1]]]),
        )

    def summaries(self) -> dict[str, Any]:
        found = {
            "proj:code": sorted(self._codes),
            "geoseg:model_sha256": sorted(self._models),
            "geoseg:software": sorted(self._software),
        }
        return {name: values for name, values in found.items() if values}
