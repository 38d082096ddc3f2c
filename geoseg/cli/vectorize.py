"""`geoseg vectorize`: a class raster in, polygons out."""

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
    polygon_options,
    set_up_messages,
    verbosity_of,
)

EXAMPLES = """\b
Examples:
  geoseg vectorize classes.tif
  geoseg vectorize classes.tif -o forest.gpkg --min-area 400 --simplify 2
  geoseg vectorize classes.tif -o map.parquet --confidence confidence.tif
  geoseg vectorize landcover.tif -o map.fgb --nodata 0 --exclude clouds --exclude 11
  geoseg vectorize corine.tif -o corine.gpkg --classes table.csv

\b
Order: classes are merged, dropped and excluded; polygons are traced; small ones
become part of the neighbour with the longest border; borders are simplified.

\b
A class table is CSV, YAML or JSON. In CSV, only the column id must be there:
  id,name,color,into
  1,water,#4a90d2,
  2,lake,,1                 (2 becomes part of 1)
  9,clouds,,drop            (9 gets no polygons)
  311,forest,34 139 34,3    (classes of polygons are 0 to 255)
Every value of the raster must be in the table. In YAML and JSON it is a list:
  classes: [{id: 1, name: water, color: "#4a90d2"}, {id: 2, into: 1}]
Without a table, names and colours are those of the raster: category names,
attribute table, colour table.
"""

raster_option = partial(click.option, cls=Option, section="Reading the raster")
class_option = partial(click.option, cls=Option, section="Classes")
result_option = partial(click.option, cls=Option, section="Result")


@click.command(cls=Command, epilog=EXAMPLES)
@click.argument("raster", metavar="CLASSES.tif")
@result_option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Polygons: .gpkg, .fgb or .parquet, as its name ends. A .gpkg holds its "
    "QGIS style; for the others a .qml is written beside.  [default: a .gpkg beside "
    "the raster]",
)
@result_option(
    "--overwrite", is_flag=True, help="Replace FILE and its .qml if they are there."
)
@raster_option(
    "--band",
    type=click.IntRange(min=1),
    metavar="N",
    help="Band of the classes, counted from 1.  [default: the only one]",
)
@raster_option(
    "--nodata",
    type=int,
    metavar="VALUE",
    help="Value of pixels without data.  [default: the file's]",
)
@raster_option(
    "--confidence",
    metavar="TIF",
    help="Percent of each pixel, on the same grid; polygons get its mean.",
)
@raster_option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="N",
    default=1,
    help="Threads that read and trace, beside the one that writes; more pay where the "
    "raster is slow to read. The result is the same.  [default: 1]",
)
@class_option(
    "--classes",
    type=click.Path(path_type=Path),
    metavar="TABLE",
    help="Names, colours, merging and dropping of classes; see below.  [default: as "
    "the raster says]",
)
@polygon_options("  [default: 0]")
@output_options
@click.pass_context
def vectorize(
    ctx: click.Context,
    /,
    min_area: float | None,
    simplify: float | None,
    exclude: tuple[str, ...] | None,
    **options: Any,  # noqa: ANN401 (fields of VectorizeConfig)
) -> None:
    """Turn a class raster into polygons without gaps or overlaps.

    Any raster of whole numbers will do. It is read by rows: its size does not matter.
    --min-area and --simplify hold all polygons in memory. Polygons are exact unless
    simplified, one for each 4-connected patch of a class; FILE opens styled in QGIS.
    """
    set_up_messages(ctx)
    # Here, not above: libraries take seconds to load, and `--help` needs none.
    from geoseg.cli.display import VectorizeProgress
    from geoseg.cli.tables import print_vectorized
    from geoseg.generalizing import Generalization
    from geoseg.pipelines import vectorize as job

    config = job.VectorizeConfig(
        exclude=exclude or (),
        generalization=Generalization(
            min_area=min_area or 0.0, simplify=simplify or 0.0
        ),
        **options,
    )
    ctx.meta[INTERRUPTED] = "; polygons appear whole or not at all"
    verbosity = verbosity_of(ctx)
    with VectorizeProgress(verbosity=verbosity) as progress:
        result = job.run(config, progress)
    if verbosity >= 0:
        print_vectorized(result)
