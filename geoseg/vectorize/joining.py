"""Joining of traced parts at their seams."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from geoseg.vectorize.batch import PolygonBatch
from geoseg.vectorize.reference.joining import join_saved
from geoseg.vectorize.tracing import TracedPart


def join_parts(
    parts: Sequence[TracedPart | Path], *, spill: Path
) -> Iterator[PolygonBatch]:
    """Join the parts of a region to its polygons.

    Args:
        parts: Parts that fill their region without overlap, or paths where they are
            saved, in any order. Those in files are read when they are needed.
        spill: Folder for a temporary file, which holds what memory should not.

    Yields:
        The polygons, by their last pixel in row order: neither their order nor their
        vertices depend on the parts.

    Raises:
        VectorizeError: The parts do not fill one region, or cannot be read.
        OSError: The folder cannot be written to, or is full.
    """
    with tempfile.TemporaryDirectory(dir=spill) as folder:
        paths = []
        for index, part in enumerate(parts):
            if isinstance(part, Path):
                paths.append(part)
            else:
                paths.append(Path(folder) / f"{index}.part")
                part.save(paths[-1])
        yield from join_saved(paths)
