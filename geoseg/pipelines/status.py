"""The job `geoseg status`: how far a run is, from its directory alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from geoseg.errors import OutputError, UsageError
from geoseg.io.lock import is_held
from geoseg.layout import (
    ITEM,
    LOCK_FILE,
    PARTS,
    PLAN,
    REPORT,
    WORK,
    parts_name,
    parts_prefix,
)
from geoseg.reporting.items import find_items
from geoseg.reporting.record import WHOLE, RunRecord, SceneRecord, read_record

KILLED = "the run was killed before it was finished; run it again"
GONE = "its outputs are not there any more; run it again"


@dataclass(frozen=True, slots=True)
class RunStatus:
    """How far a run is."""

    out: Path
    """Run directory."""
    alive: bool
    """Whether a process works there now."""
    record: RunRecord
    """What the report says, put right by what is on disk."""
    parts: dict[str, int]
    """Parts on disk by scene, of scenes that are not whole."""
    speed: float | None
    """Tiles a second since work started; None unless a run is alive."""
    note: str | None
    """Why less is known than should be."""

    @property
    def whole(self) -> bool:
        """Whether every scene is whole."""
        return all(scene.state in WHOLE for scene in self.record.scenes)

    @property
    def seconds_left(self) -> float | None:
        """Time that is left at this speed."""
        tiles = self.record.tiles()
        if not self.speed:
            return None
        # Scenes are opened as their turn comes: those to come are taken for alike.
        opened = len(self.record.scenes) - self.unopened
        total = tiles["all"] * len(self.record.scenes) / max(1, opened)
        return max(0, total - tiles["done"]) / self.speed

    @property
    def unopened(self) -> int:
        """Scenes whose number of tiles is not known yet."""
        return sum(
            scene.tiles is None and scene.state in ("waiting", "unfinished")
            for scene in self.record.scenes
        )

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {
            "alive": self.alive,
            "whole": self.whole,
            "note": self.note,
            "tiles_per_second": self.speed,
            "seconds_left": self.seconds_left,
            "counts": self.record.counts(),
            "tiles": self.record.tiles(),
            "parts_on_disk": self.parts,
            **{k: v for k, v in asdict(self.record).items() if k != "peak_memory"},
            "peak_memory": self.record.peak_memory,
        }


def run(out: Path) -> RunStatus:
    """Look at a run directory; changes nothing there.

    Raises:
        UsageError: It is no run directory.
    """
    if not out.is_dir():
        raise UsageError(f"{out} is no folder; name the -o of a `geoseg segment` call")
    alive = is_held(out / WORK / LOCK_FILE)
    note = None
    try:
        record = read_record(out / REPORT)
    except OutputError as error:
        record, note = None, str(error)
    if record is None:
        record = _found_record(out)
        note = note or (
            f"{out / REPORT} is missing, so only scenes that are whole are known; "
            "run `geoseg segment` again to make what is missing"
        )
        if not record.scenes and not (out / WORK).is_dir():
            raise UsageError(
                f"{out} was not made by geoseg; name the -o of a `geoseg segment` call"
            )
    # On a disk without locks the report has to be believed.
    running = record.state == "running" if alive is None else alive
    parts = dict[str, int]()
    for scene in record.scenes:
        parts.update(_put_right(scene, out, running=running))
    if not running and record.state == "running":
        record.state, record.reason = "failed", record.reason or KILLED
    speed = _speed(record) if running else None
    return RunStatus(out, running, record, parts, speed, note)


def _put_right(
    scene: SceneRecord, out: Path, *, running: bool
) -> Iterator[tuple[str, int]]:
    """Bring a scene up to date; yields how many of its parts are on disk."""
    if scene.state in WHOLE:
        if not (out / scene.scene_id / ITEM).is_file():
            scene.state, scene.reason = "unfinished", GONE
        return
    if scene.key is None:
        _complete(scene, out)
    if scene.key is None:
        if not running and scene.state == "waiting":
            scene.state, scene.reason = "unfinished", KILLED
        return
    if _is_whole(out / scene.scene_id / ITEM, scene.key):
        scene.state, scene.reason = "done", None
        scene.tiles_done = scene.tiles or 0
        return
    folder = out / WORK / PARTS / parts_name(scene.scene_id, scene.key)
    count = sum(1 for _ in folder.glob("part-*.json"))
    if scene.tiles and scene.parts:
        on_disk = scene.tiles * count // scene.parts
        scene.tiles_done = max(scene.tiles_done, on_disk) if running else on_disk
    if running and count and scene.state == "waiting":
        scene.state = "running"
    elif not running and scene.state in ("waiting", "running"):
        scene.state, scene.reason = "unfinished", KILLED
    yield scene.scene_id, count


def _complete(scene: SceneRecord, out: Path) -> None:
    """Add what is to be made of a scene that was opened since the last report."""
    folder = out / WORK / PARTS
    for file in folder.glob(f"{parts_prefix(scene.scene_id)}*/{PLAN}"):
        try:
            plan = json.loads(file.read_text(encoding="utf-8"))
            scene.tiles, scene.parts = int(plan["tiles"]), int(plan["parts"])
            scene.key = str(plan["key"])
        except (OSError, ValueError, TypeError, KeyError):
            continue  # Just being written, or deleted.


def _is_whole(item: Path, key: str) -> bool:
    try:
        properties = json.loads(item.read_text(encoding="utf-8"))["properties"]
        return bool(properties["geoseg:key"] == key)
    except (OSError, ValueError, TypeError, KeyError):
        return False


def _speed(record: RunRecord) -> float | None:
    """Tiles a second of this run, those that were found left out."""
    if record.work_started is None:
        return None
    begun = datetime.fromisoformat(record.work_started)
    seconds = (datetime.now(UTC) - begun).total_seconds()
    tiles = sum(s.tiles_done - s.tiles_found for s in record.scenes if s.started)
    return tiles / seconds if seconds > 0 and tiles > 0 else None


def _found_record(out: Path) -> RunRecord:
    """Make up a record of the scenes that are whole."""
    scenes = [
        replace(SceneRecord(scene_id, ""), state="done")
        for scene_id, _ in find_items(out)
    ]
    return RunRecord(state="failed", scenes=scenes)
