"""What the client knows of a scene in flight: parts found, bands submitted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from geoseg.graph import SceneJob, find_part, last_uses
from geoseg.tiling import Band


@dataclass
class SceneRun:
    """A scene in flight: its parts are looked for, then its bands are submitted."""

    job: SceneJob
    """The scene."""
    done: set[int] = field(default_factory=set)
    """Parts that are on disk."""
    predictions: dict[int, Any] = field(default_factory=dict)
    """Futures of logits that parts to be submitted need, by band."""
    waiting: dict[str, Any] = field(default_factory=dict)
    """Futures of tasks that have not ended, by key."""
    resumed: bool = False
    """All parts of an earlier run were looked for."""
    next_band: int = 0
    """Band to submit next."""
    wanted: set[int] = field(default_factory=set)
    """Bands to predict: parts that are not there need them."""
    last_use: dict[int, int] = field(default_factory=dict)
    """See `last_uses`."""
    tiles_done: int = 0
    """Tiles that were told of."""

    def __post_init__(self) -> None:
        """Begin to look for parts."""
        self._unseen: Iterator[Band] = iter(self.job.parts)

    def resume(self) -> None:
        """Look for one more part of an earlier run: all of its bytes are read."""
        band = next(self._unseen, None)
        if band is not None:
            if find_part(self.job, band.index) is not None:
                self.done.add(band.index)
            return
        missing = [b for b in self.job.parts if b.index not in self.done]
        self.wanted = {need for band in missing for need in band.needs}
        self.last_use = last_uses(self.job)
        self.resumed = True

    def tiles_found(self) -> int:
        """Tiles that need no work, once the scene is resumed."""
        bands = self.job.bands
        return sum(len(b) for b in bands if b.index not in self.wanted)

    @property
    def submitted(self) -> bool:
        """Whether nothing is left to submit but what finishes the scene."""
        return self.resumed and self.next_band == len(self.job.bands)
