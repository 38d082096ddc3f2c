"""`report.html`: a run for people, one file that asks no other for anything."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence

from geoseg.reporting.amounts import (
    ClassSum,
    add_sums,
    area_unit,
    duration,
    memory,
    sum_classes,
)
from geoseg.reporting.record import WHOLE, ClassAmount, RunRecord, SceneRecord
from geoseg.reporting.style import CSS

MOST_SCENES = 2000
"""Rows of the table; browsers are slow with more."""

_ORDER = ("failed", "unfinished", "running", "waiting", "done", "reused")
"""States from what needs attention first."""

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""The page runs no script and loads nothing, whatever a name in it may try."""


def page_pieces(
    record: RunRecord, title: str, pictures: Mapping[str, str]
) -> Iterator[str]:
    """Yield the page, a piece for each scene.

    Args:
        record: The run.
        title: Its name.
        pictures: By scene id, a small picture of its class mask as a `data:` URL.
    """
    shown = sorted(record.scenes, key=lambda scene: _ORDER.index(scene.state))
    yield _head(record, title)
    yield _cards(record)
    yield _legend(record)
    yield _problem(record)
    factor, sign = area_unit(max((_area(s) or 0 for s in record.scenes), default=0.0))
    yield _table_head(sign)
    colors = _colors(record)
    for scene in shown[:MOST_SCENES]:
        yield _row(scene, colors, factor, pictures.get(scene.scene_id))
    yield "</tbody></table>"
    if len(shown) > MOST_SCENES:
        left = len(shown) - MOST_SCENES
        yield f"<p class=quiet>and {left:,} more, all of them in report.json</p>"
    yield _foot(record)


def _head(record: RunRecord, title: str) -> str:
    state = _pill(record.state)
    model = _text(record.model.get("name", "?"))
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        f"<title>{_text(title)} · geoseg</title><style>{CSS}</style></head><body>"
        f"<header><h1>{_text(title)} {state}</h1>"
        f"<p class=quiet>{_when(record)} · "
        f"model {model}</p></header>"
    )


def _cards(record: RunRecord) -> str:
    counts, tiles = record.counts(), record.tiles()
    whole = sum(counts.get(state, 0) for state in WHOLE)
    states = ", ".join(f"{n:,} {state}" for state, n in counts.items())
    area = add_sums(_sums(record).values()).area_m2
    factor, sign = area_unit(area or 0)
    size = "unknown" if area is None else f"{area / factor:,.2f} {sign}"
    polygons = add_sums(_sums(record).values()).polygons
    peak = record.peak_memory
    cards = [
        ("scenes whole", f"{whole:,} of {len(record.scenes):,}", states),
        (
            "tiles done",
            f"{tiles['done']:,} of {tiles['all']:,}",
            f"{tiles['skipped']:,} without data were skipped",
        ),
        ("area", size, "no polygons" if polygons is None else f"{polygons:,} polygons"),
        ("time", duration(record.seconds or 0), _rate(record)),
        (
            "most memory",
            memory(peak.get("worker")),
            f"a worker; client {memory(peak.get('client'))}",
        ),
    ]
    return f"<section class=cards>{''.join(_card(*card) for card in cards)}</section>"


def _card(name: str, value: str, more: str) -> str:
    return (
        f"<div class=card><span class=quiet>{_text(name)}</span>"
        f"<strong>{_text(value)}</strong>"
        f"<span class=quiet>{_text(more)}</span></div>"
    )


def _rate(record: RunRecord) -> str:
    tiles = sum(s.tiles_done - s.tiles_found for s in record.scenes if s.started)
    if not tiles or not record.seconds:
        return "nothing was predicted"
    return f"{tiles / record.seconds:.3g} tiles/s from start to end"


def _legend(record: RunRecord) -> str:
    sums, colors = _sums(record), _colors(record)
    ids = {e.name: e.id for scene in record.scenes for e in scene.classes}
    total = sum(entry.pixels for entry in sums.values())
    if not total:
        return ""
    largest = max(entry.area_m2 or 0 for entry in sums.values())
    factor, sign = area_unit(largest)
    rows = "".join(
        f"<tr><td><i style=background:{colors.get(ids[name], _GRAY)}></i>{_text(name)}"
        f"<td class=n>{_amount(entry, factor)}<td class=n>{entry.pixels / total:.1%}"
        f"<td class=n>{_count(entry.polygons)}"
        f"<td class=wide>{_meter(entry.pixels / total, colors.get(ids[name], _GRAY))}"
        for name, entry in sums.items()
    )
    return (
        "<h2>Classes</h2><table class=classes><thead><tr><th>class"
        f"<th class=n>area, {sign}<th class=n>share<th class=n>polygons<th></thead>"
        f"<tbody>{rows}</tbody></table>"
    )


def _problem(record: RunRecord) -> str:
    if record.reason is None:
        return ""
    return f"<p class=problem>{_text(record.reason)}</p>"


def _table_head(sign: str) -> str:
    names = [
        ("", ""),
        ("scene", ""),
        ("state", ""),
        ("tiles", "n"),
        ("skipped", "n"),
        (f"area, {sign}", "n"),
        ("classes", ""),
        ("time", "n"),
        ("memory", "n"),
    ]
    cells = "".join(f'<th class="{kind}">{_text(name)}' for name, kind in names)
    return f"<h2>Scenes</h2><table><thead><tr>{cells}</thead><tbody>"


def _row(
    scene: SceneRecord, colors: Mapping[int, str], factor: float, picture: str | None
) -> str:
    image = f'<img src="{_text(picture)}" alt="">' if picture else ""
    reason = f"<br><small>{_text(scene.reason)}</small>" if scene.reason else ""
    tiles = _count(scene.tiles)
    if scene.tiles is not None and scene.state not in WHOLE:
        tiles = f"{scene.tiles_done:,} of {scene.tiles:,}"
    area = _area(scene)
    return (
        f"<tr><td class=pic>{image}<td class=id>{_text(scene.scene_id)}{reason}"
        f"<td>{_pill(scene.state)}<td class=n>{tiles}"
        f"<td class=n>{_count(scene.tiles_skipped)}"
        f"<td class=n>{'-' if area is None else f'{area / factor:,.2f}'}"
        f"<td class=wide>{_stack(scene.classes, colors)}"
        f"<td class=n>{'-' if scene.seconds is None else duration(scene.seconds)}"
        f"<td class=n>{memory(scene.peak_memory)}\n"
    )


def _foot(record: RunRecord) -> str:
    listed = " · ".join(f"{name} {value}" for name, value in record.versions.items())
    return f"<footer class=quiet>{_text(listed)}</footer></body></html>\n"


_GRAY = "#999"


def _colors(record: RunRecord) -> dict[int, str]:
    return {
        int(entry["id"]): "#{:02x}{:02x}{:02x}".format(*map(int, entry["color"]))
        for entry in record.model.get("classes", [])
    }


def _stack(classes: Sequence[ClassAmount], colors: Mapping[int, str]) -> str:
    total = sum(entry.pixels for entry in classes)
    if not total:
        return ""
    parts = "".join(
        f"<b style=width:{entry.pixels / total:.3%};"
        f"background:{colors.get(entry.id, _GRAY)} "
        f'title="{_text(entry.name)} {entry.pixels / total:.1%}"></b>'
        for entry in classes
        if entry.pixels
    )
    return f"<div class=bar>{parts}</div>"


def _meter(share: float, color: str) -> str:
    return f"<div class=bar><b style=width:{share:.3%};background:{color}></b></div>"


def _sums(record: RunRecord) -> dict[str, ClassSum]:
    return sum_classes(entry for scene in record.scenes for entry in scene.classes)


def _area(scene: SceneRecord) -> float | None:
    if not scene.classes:
        return None
    return add_sums(sum_classes(scene.classes).values()).area_m2


def _amount(entry: ClassSum, factor: float) -> str:
    return "-" if entry.area_m2 is None else f"{entry.area_m2 / factor:,.2f}"


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _pill(state: str) -> str:
    return f'<span class="pill {_text(state)}">{_text(state)}</span>'


def _when(record: RunRecord) -> str:
    begun = _moment(record.started)
    if record.ended is not None:
        return f"{begun} to {_moment(record.ended)}"
    return f"since {begun}; <code>geoseg status</code> tells how far it is"


def _moment(text: str | None) -> str:
    return _text(text and text.replace("T", " ").replace("Z", " UTC"))


def _text(value: object) -> str:
    return "?" if value is None else html.escape(str(value))
