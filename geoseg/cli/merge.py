"""`geoseg merge`: a run's scenes as one layer of polygons and one raster."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from geoseg.cli.options import (
    INTERRUPTED,
    Command,
    Option,
    output_options,
    set_up_messages,
    verbosity_of,
)

EXAMPLES = """\b
Examples:
  geoseg merge out
  geoseg merge out --crs EPSG:3035
  geoseg merge out -o delivery --no-rasters

\b
Files:
  merged.gpkg     polygons of all scenes in one layer, styled; the column scene_id
                  tells scenes apart
  classes.vrt     the class masks as one raster with names and colours
  confidence.vrt  the same for confidence

\b
A VRT holds no pixels: it names the scenes' files, relative to its own folder. It
needs scenes of one CRS and one pixel size; a scene that lies between the pixels of
the first one is moved by half a pixel at most. Scenes that overlap both keep their
polygons; in the VRT the later one is seen. To add scenes, merge again.
"""

merge_option = partial(click.option, cls=Option, section="Result")


@click.command(cls=Command, epilog=EXAMPLES)
@click.argument("out", type=click.Path(path_type=Path))
@merge_option(
    "-o",
    "--folder",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where the files go; made when it is missing.  [default: OUT]",
)
@merge_option(
    "--crs",
    metavar="CRS",
    help="CRS of the polygons, such as EPSG:3035; must be given if scenes are of "
    "several. Areas stay true ground areas.  [default: that of the scenes]",
)
@merge_option(
    "--polygons/--no-polygons",
    default=True,
    help="Write merged.gpkg.  [default: polygons]",
)
@merge_option(
    "--rasters/--no-rasters",
    default=True,
    help="Write the VRTs.  [default: rasters]",
)
@output_options
@click.pass_context
def merge(
    ctx: click.Context,
    /,
    **options: Any,  # noqa: ANN401 (fields of MergeConfig)
) -> None:
    """Put the finished scenes of the run directory OUT together.

    Polygons become one GeoPackage, class masks and confidence one VRT each. The scenes'
    own files stay as they are.
    """
    set_up_messages(ctx)
    # Here, not above: libraries take seconds to load, and `--help` needs none.
    from geoseg.cli.run_tables import print_merged
    from geoseg.pipelines.merge import MergeConfig, run

    ctx.meta[INTERRUPTED] = "; files appear whole or not at all"
    result = run(MergeConfig(**options))
    if verbosity_of(ctx) >= 0:
        print_merged(result)
