"""`geoseg.segment`: the job of `geoseg segment` as one function of Python."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import Unpack

from geoseg.errors import GeosegWarning, SegmentationError
from geoseg.finish import SceneResult
from geoseg.pipelines import segment as job
from geoseg.pipelines.options import Scenes, SegmentOptions, segment_config


def segment(
    scenes: Scenes = (),
    out: str | os.PathLike[str] | None = None,
    *,
    config: str | os.PathLike[str] | None = None,
    set: Sequence[str] = (),  # named as the flag is
    **options: Unpack[SegmentOptions],
) -> list[SceneResult]:
    """Segment scenes into class masks, confidence and polygons.

    The same as `geoseg segment`: options have the names of its flags, and
    `geoseg segment --help` says what each does.

        records = geoseg.segment("archive/", "out", overlap=160, workers=2)

    Args:
        scenes: Files, patterns or folders; one or many.
        out: Run directory. Scenes that are whole there already are not made again.
        config: Name of a recipe, or path of a YAML file.
        set: "key=value", as after --set; these win over options.
        options: model, device, dtype, batch_size, tta, tile_size, stride, overlap,
            blend, blend_space, resolution, bands, scale, nodata, root, asset, mosaic,
            verify, aoi, bbox, cluster, workers, scheduler, scheduler_file, overwrite,
            confidence, polygons, save_scores, compress, exclude, min_area, simplify,
            on_error.

    Returns:
        One record a scene, in the order given: folder, tiles, and pixels, polygons
        and area by class.

    Raises:
        UsageError: The call is wrong; nothing was started.
        ClusterError: There is no cluster to run on.
        SegmentationError: Some scenes failed. The others are finished; its `report`
            holds the records of both.

    Warns:
        GeosegWarning: Something that changes results.
    """
    configured = segment_config(
        scenes, out, config=config, settings=set, options=options
    )
    report = job.run(configured, _Warner())
    if not report.ok:
        first = report.failures[0]
        raise SegmentationError(
            f"{len(report.failures)} of "
            f"{len(report.failures) + len(report.results)} scenes failed; the first is "
            f"{first.scene_id}: {first.reason}",
            report,
        )
    return list(report.results)


class _Warner(job.Listener):
    """Turns notes into Python's warnings."""

    def note(self, message: str) -> None:
        """Warn once a message, as Python's filters say."""
        warnings.warn(message, GeosegWarning, stacklevel=2)
