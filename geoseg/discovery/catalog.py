"""STAC as input: items, item collections and catalogues, and which asset is a scene."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg.discovery.files import SUFFIXES, expand
from geoseg.discovery.found import Found
from geoseg.discovery.ids import safe_id
from geoseg.errors import SceneError, UsageError
from geoseg.io.location import (
    beside,
    folder_of,
    is_virtual,
    name_for_gdal,
    shown,
    suffix_of,
    without_secrets,
)
from geoseg.io.vsi import read_bytes
from geoseg.types import StacSource

if TYPE_CHECKING:
    import pystac

_MEDIA_TYPES = ("image/tiff", "image/vnd.stac.geotiff", "image/jp2", "image/vrt")
"""What the media types of rasters begin with."""

_FOLLOWED = ("child", "item", "items", "next")
"""Relations of links that lead to more items."""

_ROLES = ("visual", "data")
"""Roles, or keys, of the asset that is meant where an item has several rasters."""

_NO_SCENE = {"thumbnail", "overview", "metadata"}
"""Roles of rasters that are none by themselves."""

_TOLD = 12
"""Keys that an error tells."""


def read_catalog(name: str, asset: str | None) -> list[Found]:
    """Return a scene for each item of a STAC document and of those it links to.

    Args:
        name: An item, an item collection, a catalogue or a collection; a file or what
            GDAL opens.
        asset: Key or role of the assets that are the scenes; None: the only raster,
            else the one whose role is visual or data.

    Raises:
        UsageError: A document cannot be read or is no STAC, it has no item, or it is
            not clear which asset is meant.
    """
    found = []
    for item, home in _items(name):
        with _valid(home):
            found.append(_scene(item, home, asset))
    if not found:
        raise UsageError(f"{shown(name)} has no item; name a catalogue that has")
    return found


def _items(name: str) -> Iterator[tuple[pystac.Item, str]]:
    """Give all items, each with where its hrefs start; each document is read once."""
    pending, seen = deque([name]), set[str]()
    while pending:
        source = pending.popleft()
        if source in seen:
            continue
        seen.add(source)
        document = _read(source)
        with _valid(source):
            items, links = _content(document, source)
            targets = [_target(link, source) for link in links if _leads_on(link)]
        yield from items
        # Those of a catalogue before those of its neighbours, in their order.
        pending.extendleft(reversed(targets))


def _content(
    document: dict[str, Any], source: str
) -> tuple[list[tuple[pystac.Item, str]], Sequence[Mapping[str, Any]]]:
    """Return the items that a document holds, with their homes, and its links."""
    if document.get("type") == "FeatureCollection":
        features = document["features"]
        items = [(_item(one), _home(one, source)) for one in features]
        return items, document.get("links") or []
    if document.get("type") == "Feature":
        # Not its own link: it may have been copied here together with its assets.
        return [(_item(document), source)], []
    return [], _links(document)


def _read(name: str) -> dict[str, Any]:
    try:
        document = json.loads(read_bytes(name))
    except SceneError as error:
        raise UsageError(str(error)) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{shown(name)} is no JSON ({error}); check it") from error
    if not isinstance(document, dict) or not (
        "stac_version" in document or isinstance(document.get("features"), list)
    ):
        raise UsageError(
            f"{shown(name)} is no STAC item, item collection or catalogue; name "
            "rasters, or list them in a .txt file"
        )
    return document


def _item(document: dict[str, Any]) -> pystac.Item:
    import pystac  # Here: few calls need it.

    # Migrates what older versions of STAC wrote.
    return pystac.Item.from_dict(document)


def _links(document: dict[str, Any]) -> Sequence[Mapping[str, Any]]:
    import pystac

    kind = pystac.Collection if document.get("type") == "Collection" else pystac.Catalog
    return [link.to_dict(False) for link in kind.from_dict(document).links]


@contextmanager
def _valid(source: str) -> Iterator[None]:
    """Turn what wrong types and missing keys of a document raise into one line."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:  # Of pystac, too, which checks little.
        reason = without_secrets(" ".join(f"{type(error).__name__}: {error}".split()))
        raise UsageError(
            f"{shown(source)} is no valid STAC ({reason}); check it"
        ) from error


def _leads_on(link: Mapping[str, Any]) -> bool:
    if link.get("rel") not in _FOLLOWED:
        return False
    if link.get("method", "GET").upper() != "GET":
        raise UsageError(
            f"the search has more pages, and {without_secrets(str(link.get('href')))} "
            "takes no plain request; save all pages as one item collection"
        )
    return True


def _target(link: Mapping[str, Any], source: str) -> str:
    name = name_for_gdal(beside(folder_of(source), str(link.get("href", ""))))
    # The real path, so that loops end.
    return name if is_virtual(name) else os.path.realpath(name)


def _home(feature: Mapping[str, Any], source: str) -> str:
    """Return the document that an item of a collection is quoted from."""
    links = feature.get("links") or []
    own = next((link["href"] for link in links if link.get("rel") == "self"), None)
    return source if own is None else name_for_gdal(beside(folder_of(source), own))


def _scene(item: pystac.Item, home: str, asset: str | None) -> Found:
    """Choose the asset of an item that is the scene."""
    whose = f"STAC item {item.id!r}"
    key = _choose(item.assets, asset, whose)
    name = name_for_gdal(beside(folder_of(home), item.assets[key].href))
    if not is_virtual(name):
        if not Path(name).is_file():  # Nor a folder, nor a pattern.
            raise UsageError(
                f"{whose}, asset {key}: {name} does not exist, or is no file; check "
                "its href"
            )
        [name] = expand(name)
    given_id = safe_id(str(item.id).split("/"), whose)
    source = StacSource(
        str(item.id),
        item.collection_id,
        _own_link(item, home),
        _times(item, item.assets[key]),
    )
    return Found(name, given_id, source)


def _own_link(item: pystac.Item, home: str) -> str:
    """Return where an item says that it is, else the document that it was read from."""
    own = next((link.href for link in item.links if link.rel == "self"), None)
    try:
        name = home if own is None else name_for_gdal(beside(folder_of(home), own))
    except UsageError:  # It names no scene, and need not be read.
        name = home
    return shown(name)


def _times(item: pystac.Item, asset: pystac.Asset) -> tuple[tuple[str, str], ...]:
    """Return when an image was taken: an asset may say more than its item."""
    moment = item.get_datetime(asset)
    if moment is not None:
        return (("datetime", _utc(moment)),)
    common = item.common_metadata
    start, end = common.start_datetime, common.end_datetime
    if start is None or end is None:
        return ()
    return (("start_datetime", _utc(start)), ("end_datetime", _utc(end)))


def _utc(time: datetime) -> str:
    from pystac.utils import datetime_to_str

    return datetime_to_str(time.astimezone(UTC) if time.tzinfo else time)


def _choose(assets: Mapping[str, pystac.Asset], wanted: str | None, whose: str) -> str:
    """Return the key of the asset that is meant.

    Raises:
        UsageError: None is, or several may be.
    """
    if wanted is not None and wanted in assets:
        return wanted
    rasters = {key: one for key, one in assets.items() if _is_raster(one)}
    if wanted is not None:
        meant = [key for key, one in rasters.items() if wanted in (one.roles or ())]
        if len(meant) == 1:
            return meant[0]
        count = f"{len(meant)} rasters" if meant else "no raster"
        raise UsageError(
            f"{whose} has {count} of the key or role {wanted!r}; choose a key with "
            f"--asset: {_told(meant or list(assets))}"
        )
    pools = [{key for key in rasters if not _NO_SCENE & set(rasters[key].roles or ())}]
    for role in _ROLES:
        pools.append({k for k in pools[0] if role in (k, *(rasters[k].roles or ()))})
    for pool in pools:
        if len(pool) == 1:
            return pool.pop()
    raise UsageError(
        f"{whose} has {len(rasters)} rasters among its assets, and which one is the "
        f"scene is not clear; choose a key or a role with --asset: "
        f"{_told(list(assets))}"
    )


def _is_raster(asset: pystac.Asset) -> bool:
    if asset.media_type:
        return asset.media_type.lower().startswith(_MEDIA_TYPES)
    try:
        return suffix_of(name_for_gdal(asset.href)) in SUFFIXES
    except UsageError:  # A scheme that GDAL has not, of a file that may not be meant.
        return False


def _told(keys: Sequence[str]) -> str:
    more = ", ..." if len(keys) > _TOLD else ""
    return ", ".join(keys[:_TOLD]) + more if keys else "it has no asset"
