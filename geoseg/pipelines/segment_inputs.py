"""Which scenes `geoseg segment` was given, and how sheets become one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from geoseg.archive import RunDirectory
from geoseg.discovery import SceneFile, find_scenes
from geoseg.errors import OutsideRootError, SceneError, UsageError
from geoseg.io.location import is_virtual, name_for_gdal, shown
from geoseg.io.sheets import Mosaic, lay_out

if TYPE_CHECKING:
    from geoseg.pipelines.segment import SegmentConfig


def find_inputs(config: SegmentConfig) -> tuple[list[SceneFile], str]:
    """Find scenes and their root: as given, as recorded by an earlier call, or common.

    Raises:
        UsageError: The call is wrong; nothing was started.
    """
    given = config.input
    if given.aoi is not None and not given.aoi.is_file():
        raise UsageError(f"the area of interest {given.aoi} does not exist")
    if given.mosaic:
        # Ids of sheets are nobody's: there is one scene.
        sheets, _ = find_scenes(config.scenes, asset=given.asset, distinct=False)
        return sheets, ""
    find = partial(find_scenes, config.scenes, asset=given.asset)
    recorded = RunDirectory.recorded_root(config.out)
    if given.root is not None or not recorded:
        return find(given.root)
    try:
        return find(recorded)
    except OutsideRootError as error:
        if config.output.overwrite:
            return find()
        raise OutsideRootError(
            f"{config.out} was made with scenes below {recorded}: {error}, and another "
            "-o with it"
        ) from error


def lay_out_sheets(files: Sequence[SceneFile]) -> Mosaic:
    """Take scenes as sheets of one.

    Raises:
        UsageError: One cannot be read or does not fit the others.
    """
    try:
        return lay_out([file.path for file in files])
    except SceneError as error:
        raise UsageError(f"--mosaic: {error}") from error


def absolute_input(text: str) -> str:
    """Return a path as it is called from any folder; URLs are that already.

    Without what signs a request: the record of a run is passed on.
    """
    name = name_for_gdal(text)
    if not is_virtual(name):
        return str(Path(name).absolute())
    told = shown(name)
    return text if name_for_gdal(told) == name else told
