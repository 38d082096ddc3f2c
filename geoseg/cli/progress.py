"""What a running job shows: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

from collections import Counter
from time import monotonic
from types import TracebackType

from geoseg.cli.display import Display
from geoseg.finish import SceneResult
from geoseg.io.raster import Scene
from geoseg.pipelines.segment import Listener, SegmentConfig
from geoseg.reporting.amounts import duration
from geoseg.stream import SceneFailure

PLANNED_LINES = 8
"""Scenes that are told one by one before the work starts; -v tells all."""


class RunProgress(Display, Listener):
    """Shows a run of `segment`.

    Args:
        config: The run; tells why a scene runs at its resolution.
        verbosity: -1 shows nothing, 1 tells every scene.
    """

    def __init__(self, config: SegmentConfig, *, verbosity: int = 0) -> None:
        super().__init__(verbosity, None, "Opening scenes")
        self.finished = 0
        """Scenes that this run finished."""
        self.done = 0
        """Tiles that are done, those of an earlier run included."""
        self._config = config
        self._left: dict[str, int] = {}  # tiles by scene
        self._begun: dict[str, int] = {}  # tiles predicted by scene
        self._total = self._predicted = 0
        self._scenes = self._ended = 0
        self._found = self._seen = 0
        self._started: float | None = None
        self._notes: Counter[str] = Counter()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the bar away and tell what was left out."""
        super().__exit__(kind, error, trace)
        for text, count in self._notes.items():
            if count > 1:
                self.say(f"Note: the same for {count - 1} more: {text}")

    def found(self, scenes: int) -> None:
        """Learn how many scenes will be opened."""
        self._found = scenes

    def kept(self, scene_id: str) -> None:
        """Count a scene that needs no work."""
        self._seen += 1

    def planned(self, scene_id: str, scene: Scene, tiles: int) -> None:
        """Count a scene and say what it runs at."""
        self._scenes += 1
        self._seen += 1
        self._total += tiles
        self._left[scene_id] = tiles
        if self._scenes <= PLANNED_LINES or self.verbosity > 0:
            requested = self._config.input.resolution
            self.say(describe_scene(scene_id, scene, tiles, requested))
        elif self._scenes == PLANNED_LINES + 1:
            self.say("... and more scenes, told with -v")
        self._show("Starting workers")

    def tiles_done(self, scene_id: str, tiles: int) -> None:
        """Move the bar."""
        if self._started is None:
            self._started = monotonic()
        self.done += tiles
        self._left[scene_id] = self._left.get(scene_id, 0) - tiles
        if tiles < 0:  # It is begun again, and so are those.
            self._predicted -= self._begun.pop(scene_id, 0)
        elif scene_id in self._begun:
            self._predicted += tiles
            self._begun[scene_id] += tiles
        else:  # The first report of a scene is what was found: it took no time.
            self._begun[scene_id] = 0
        self._show("Segmenting")

    def scene_done(self, outcome: SceneResult | SceneFailure) -> None:
        """Count a scene as ended; nobody works on the rest of a failed one."""
        self._ended += 1
        if isinstance(outcome, SceneFailure):
            if outcome.scene_id not in self._left:
                self._scenes += 1  # it could not be opened
                self._seen += 1
            self._total -= self._left.pop(outcome.scene_id, 0)
            self.say(f"Failed: {outcome.scene_id}", style="red")
        else:
            self.finished += 1
        self._show("Segmenting")

    def stopping(self, parts: int) -> None:
        """Say that the end is near."""
        number = "1 part" if parts == 1 else f"{parts} parts"
        self.say(f"Stopping: finishing {number}, Ctrl-C again stops at once")

    def note(self, message: str) -> None:
        """Say a note, and only once what holds for many scenes."""
        first, _, rest = message.partition(" ")
        text = rest if "/" in first else message
        self._notes[text] += 1
        if self._notes[text] == 1:
            self.say(f"Note: {message}", style="yellow")

    def speed(self) -> float | None:
        """Tiles a second since the first one was predicted; None before."""
        if self._started is None or not self._predicted:
            return None
        return self._predicted / max(monotonic() - self._started, 1e-3)

    def _show(self, what: str) -> None:
        # Scenes are opened as their turn comes: those to come are taken for alike.
        unseen = max(0, self._found - self._seen)
        total, scenes = self._total, self._scenes + unseen
        if unseen and self._seen:
            total = round(total * self._found / self._seen)
        parts = [f"{self.done}/{'~' if unseen else ''}{total} tiles"]
        speed = self.speed()
        if speed is not None:
            parts += [
                f"{speed:.3g} tiles/s",
                f"{duration((total - self.done) / speed)} left",
            ]
        if scenes > 1:
            parts.insert(0, f"{self._ended}/{scenes} scenes")
        self.show(self.done, total, what, ", ".join(parts))


def describe_scene(scene_id: str, scene: Scene, tiles: int, requested: object) -> str:
    """Say at which resolution a scene runs, and why.

    Args:
        scene_id: Its id.
        scene: The opened scene.
        tiles: Tiles it is cut into.
        requested: `input.resolution` of the run.
    """
    size = f"{scene.grid.height} x {scene.grid.width} pixels"
    count = "1 tile" if tiles == 1 else f"{tiles} tiles"
    return f"{scene_id}: {_resolution(scene, requested)}; {size}, {count}"


def _resolution(scene: Scene, requested: object) -> str:
    own, used = scene.source.ground_resolution(), scene.grid.ground_resolution()
    if own is None or used is None:
        return (
            "runs at its own resolution, as its pixels' size on the ground is unknown"
        )
    if scene.grid == scene.source:
        why = f"as --resolution {requested} asks"
        if requested == "auto":
            why = "as it is not over 1.5 times finer than what the model asks for"
        return f"runs at its own {own:.3g} m, {why}"
    if requested == "auto":
        why = f"because the model was trained on {used:.3g} m"
    else:
        why = f"as --resolution {requested} asks"
    return f"resampled from {own:.3g} m to {used:.3g} m, {why}"
