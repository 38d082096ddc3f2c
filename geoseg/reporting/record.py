"""The record of a run, `report.json`: one object, each scene on a line of its own."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from geoseg.errors import OutputError

FORMAT = 1
"""Version of the file's layout; higher when one that reads it must know."""

RunState = Literal["running", "done", "failed", "interrupted"]
"""A run that is `running` and holds no lock was killed."""

SceneState = Literal["waiting", "running", "done", "reused", "failed", "unfinished"]
"""`reused`: whole since an earlier call. `unfinished`: the run ended before."""

WHOLE = ("done", "reused")
"""States of scenes that are whole."""


@dataclass(frozen=True, slots=True)
class ClassAmount:
    """One class in one scene; the fields of `geoseg.finish.ClassSummary`."""

    id: int
    """Value in the class mask."""
    name: str
    """Name of the class."""
    pixels: int
    """Pixels of the class."""
    polygons: int | None
    """Polygons of the class; None if none were asked for."""
    area_m2: float | None
    """True ground area; None if unknown."""


@dataclass(slots=True)
class SceneRecord:
    """One scene of a run."""

    scene_id: str
    """Identity in the run."""
    source: str
    """What was read."""
    state: SceneState = "waiting"
    """What became of it."""
    reason: str | None = None
    """Why it failed or is unfinished."""
    key: str | None = None
    """Key that it is computed under; None before it is planned."""
    tiles: int | None = None
    """Tiles that cover it; None before it is planned."""
    tiles_found: int = 0
    """Those of them that an earlier call had left in whole parts."""
    tiles_done: int = 0
    """Tiles predicted or found, those without data included."""
    tiles_skipped: int | None = None
    """Tiles without data, which never reached the model; None before the end."""
    parts: int | None = None
    """Parts that it is made of; None before it is planned, and of a reused scene."""
    started: str | None = None
    """When its first part was begun, ISO 8601, UTC."""
    ended: str | None = None
    """When it was whole or had failed."""
    seconds: float | None = None
    """Time between; scenes run side by side."""
    peak_memory: int | None = None
    """Largest memory of a worker by the end of a part of it, bytes."""
    classes: tuple[ClassAmount, ...] = ()
    """What was found."""


_CLASS = [entry.name for entry in fields(ClassAmount)]
_SCENE = [entry.name for entry in fields(SceneRecord)]


@dataclass(slots=True)
class RunRecord:
    """One call of `geoseg segment`."""

    state: RunState = "running"
    """Whether it goes on, or how it ended."""
    reason: str | None = None
    """Why it ended before its scenes did."""
    started: str | None = None
    """When it started, ISO 8601, UTC."""
    work_started: str | None = None
    """When the first scene was begun."""
    renewed: str | None = None
    """When this record was written."""
    ended: str | None = None
    """When it ended."""
    seconds: float | None = None
    """Time from the start to the end."""
    root: str | None = None
    """What scene ids are relative to."""
    model: dict[str, Any] = field(default_factory=dict)
    """Name, hash of weights, and classes with their colours."""
    versions: dict[str, str] = field(default_factory=dict)
    """Of geoseg and of libraries that results may depend on."""
    peak_memory: dict[str, int | None] = field(default_factory=dict)
    """Largest memory of the client (`client`) and of a worker (`worker`), bytes."""
    scenes: list[SceneRecord] = field(default_factory=list)
    """Scenes in the order given."""

    def counts(self) -> dict[str, int]:
        """Scenes by state, of states that occur."""
        counted = Counter(scene.state for scene in self.scenes)
        return {s: counted[s] for s in get_args(SceneState) if counted[s]}

    def tiles(self) -> dict[str, int]:
        """Tiles of planned scenes: all, done, and skipped."""
        return {
            "all": sum(scene.tiles or 0 for scene in self.scenes),
            "done": sum(scene.tiles_done for scene in self.scenes),
            "skipped": sum(scene.tiles_skipped or 0 for scene in self.scenes),
        }


def report_lines(record: RunRecord) -> Iterator[str]:
    """Yield the text of `report.json`, a line for each scene.

    So no text of ten thousand scenes is held, and `grep` finds one.
    """
    head: dict[str, Any] = {"format": FORMAT}
    for entry in fields(record):
        if entry.name != "scenes":
            head[entry.name] = getattr(record, entry.name)
    head["counts"], head["tiles"] = record.counts(), record.tiles()
    yield json.dumps(head, indent=2, ensure_ascii=False).removesuffix("\n}")
    yield ',\n  "scenes": ['
    for place, scene in enumerate(record.scenes):
        separator = ",\n    " if place else "\n    "
        yield separator + json.dumps(_plain(scene), ensure_ascii=False)
    yield "\n  ]\n}\n" if record.scenes else "]\n}\n"


def _plain(scene: SceneRecord) -> dict[str, Any]:
    """Return the fields of a scene; `asdict` takes five times as long."""
    values = {name: getattr(scene, name) for name in _SCENE}
    values["classes"] = [
        {name: getattr(entry, name) for name in _CLASS} for entry in scene.classes
    ]
    return values


def read_record(path: Path) -> RunRecord | None:
    """Read a `report.json`.

    Returns:
        None where there is none.

    Raises:
        OutputError: It cannot be read: damaged, or of a version that wrote it
            otherwise.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise OutputError(_damaged(path, error)) from error
    try:
        values = json.loads(text)
        found = values.get("format")
        if found == FORMAT:
            return _record(values)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise OutputError(_damaged(path, error)) from error
    raise OutputError(
        f"{path} is a report of another version of geoseg ({_writer(values)}); run "
        "`geoseg segment` again there: it makes again what is not as this version "
        "makes it"
    )


def recorded_root(path: Path) -> str | None:
    """Root of scene ids as a `report.json` tells it; None if it does not."""
    try:
        head = json.loads(path.read_text(encoding="utf-8"))
        return head["root"] if isinstance(head["versions"]["geoseg"], str) else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _damaged(path: Path, error: Exception) -> str:
    reason = " ".join(str(error).split())
    return (
        f"{path} cannot be read ({reason}); `geoseg segment` with the same scenes and "
        "-o writes it anew"
    )


def _writer(values: Mapping[str, Any]) -> str:
    versions = values.get("versions")
    version = versions.get("geoseg") if isinstance(versions, dict) else None
    return str(version or values.get("geoseg") or "unknown")


def _record(values: Mapping[str, Any]) -> RunRecord:
    scenes = [_scene(entry) for entry in values["scenes"]]
    names = {entry.name for entry in fields(RunRecord)} - {"scenes"}
    record = RunRecord(**{name: values[name] for name in names}, scenes=scenes)
    if record.state not in get_args(RunState):
        raise ValueError(f"its state is {record.state!r}")
    return record


def _scene(values: dict[str, Any]) -> SceneRecord:
    classes = tuple(ClassAmount(**entry) for entry in values.pop("classes"))
    scene = SceneRecord(**values, classes=classes)
    if scene.state not in get_args(SceneState):
        raise ValueError(f"the state of {scene.scene_id} is {scene.state!r}")
    return scene
