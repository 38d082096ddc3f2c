"""`geoseg segment`: scenes in, class masks, confidence and polygons out."""

from __future__ import annotations

import shlex
from functools import partial
from typing import Any, get_args

import click

from geoseg.cli.options import (
    INTERRUPTED,
    Command,
    Numbers,
    Option,
    configuration_options,
    output_options,
    polygon_options,
    set_up_messages,
    verbosity_of,
)
from geoseg.cli.run_options import (
    cluster_options,
    device_option,
    model_option,
    reading_options,
)
from geoseg.types import BlendSpace, BlendWindow, Codec, Dtype, OnError

EXAMPLES = """\b
Examples:
  geoseg segment scene.tif -o out
  geoseg segment archive/ -o out --workers 4
  geoseg segment list.txt -o out --root /data
  geoseg segment https://host/a.tif s3://bucket/2024/ -o out
  geoseg segment catalog.json -o out --asset visual
  geoseg segment sheets/ -o out --mosaic
  geoseg segment scene.tif -o out --aoi district.gpkg --overlap 160
  geoseg segment s2.tif -o out --model my-model --bands 4,3,2 --scale 10000
  geoseg segment scene.tif -o out --min-area 25 --simplify 1 --exclude land
  geoseg segment archive/ -o out --scheduler tcp://host:8786
  geoseg segment -c mine.yaml --set cluster.threads=4

\b
SCENES may be rasters, patterns ("2024/*.tif"), folders (searched through),
manifests (.txt: a location a line; .csv: a column path, href, url or
location), URLs (https, s3, gs, az; buckets are listed), GDAL's /vsi names, and
STAC items, item collections and catalogues (.json, .geojson).

\b
OUT/<scene>/ gets classes.tif, confidence.tif, segments.gpkg and item.json,
which is written last: a scene that has one is whole. The same call again
goes on where it stopped, and makes only what is missing or changed.
Ctrl-C lets parts in hand be finished, 25 s at most; twice ends at once.
OUT/report.json and report.html say what became of each scene; meanwhile
`geoseg status OUT` tells how far the run is.
"""

running_option = partial(click.option, cls=Option, section="Model")
tiling_option = partial(click.option, cls=Option, section="Tiling and blending")
found_option = partial(click.option, cls=Option, section="Finding scenes")
input_option = partial(click.option, cls=Option, section="Reading scenes")
output_option = partial(click.option, cls=Option, section="Results")


@click.command(cls=Command, epilog=EXAMPLES)
@click.argument("scenes", nargs=-1, metavar="SCENES...")
@output_option(
    "-o", "--out", metavar="DIR", help="Run directory; made when it is missing."
)
@output_option(
    "--overwrite/--no-overwrite",
    default=None,
    help="Make finished scenes again, and accept a folder that geoseg did not make."
    "  [default: no-overwrite]",
)
@output_option(
    "--confidence/--no-confidence",
    default=None,
    help="Write confidence.tif, the probability of the class in percent."
    "  [default: confidence]",
)
@output_option(
    "--polygons/--no-polygons",
    default=None,
    help="Write segments.gpkg.  [default: polygons]",
)
@output_option(
    "--save-scores/--no-save-scores",
    default=None,
    help="Write scores.tif, the probability of every class in percent, a band each."
    "  [default: no-save-scores]",
)
@output_option(
    "--compress",
    type=click.Choice(get_args(Codec)),
    help="Compression of rasters. deflate takes longer, for what cannot read zstd: web "
    "viewers with geotiff.js before version 3, QField before 2025.  [default: zstd]",
)
@output_option(
    "--on-error",
    type=click.Choice(get_args(OnError)),
    help="What a scene that fails does: skip it and go on, or end the run."
    "  [default: skip]",
)
@polygon_options("  [default: 0]")
@model_option("Model")
@device_option("Model")
@running_option(
    "--dtype",
    type=click.Choice(get_args(Dtype)),
    help="Arithmetic; auto is bfloat16 on CUDA, float32 on CPU.  [default: auto]",
)
@running_option(
    "--batch-size",
    type=click.IntRange(min=1),
    metavar="N",
    help="Tiles a forward pass.  [default: 8 on CUDA, 1 on CPU]",
)
@running_option(
    "--tta/--no-tta",
    default=None,
    help="Average each tile's logits over its flips: left to right, top to bottom, and "
    "both. Takes four times as long.  [default: no-tta]",
)
@tiling_option(
    "--tile-size",
    type=click.IntRange(min=1),
    metavar="PX",
    help="Side of a tile.  [default: the model's]",
)
@tiling_option(
    "--overlap",
    type=click.IntRange(min=0),
    metavar="PX",
    help="Pixels that neighbouring tiles share.  [default: 2/15 of the tile]",
)
@tiling_option(
    "--stride",
    type=click.IntRange(min=1),
    metavar="PX",
    help="Instead of --overlap: pixels from tile to tile.",
)
@tiling_option(
    "--blend",
    type=click.Choice(get_args(BlendWindow)),
    help="Weight of a pixel within its tile; none: the nearest tile wins."
    "  [default: hann]",
)
@tiling_option(
    "--blend-space",
    type=click.Choice(get_args(BlendSpace)),
    help="What overlapping tiles average.  [default: logits]",
)
@found_option(
    "--root",
    metavar="DIR|URL",
    help="What scene ids are relative to.  [default: the folder given, or the files' "
    "common one]",
)
@found_option(
    "--asset",
    metavar="KEY|ROLE",
    help="Asset of STAC items that is the scene.  [default: the only GeoTIFF, else the "
    "one whose role is visual or data]",
)
@found_option(
    "--mosaic/--no-mosaic",
    default=None,
    help="Take abutting sheets (same CRS, resolution, bands and dtype) as one scene, "
    "without seams.  [default: no-mosaic]",
)
@found_option(
    "--verify/--no-verify",
    default=None,
    help="Know scenes by their content, which is read for it, instead of by size and "
    "time of change or ETag: what was only touched or copied anew is not made again. "
    "Give it from the first call on.  [default: no-verify]",
)
@reading_options("Reading scenes")
@input_option(
    "--aoi",
    metavar="FILE",
    help="Vector file, in any CRS: tiles outside its polygons are not read, outputs "
    "are clipped to them.",
)
@input_option(
    "--bbox",
    type=Numbers(float, 4),
    metavar='"L,B,R,T"',
    help="The same for a box: left, bottom, right, top in the scene's CRS.",
)
@cluster_options("Where it runs")
@configuration_options("segment", "tiling.stride=480")
@output_options
@click.pass_context
def segment(
    ctx: click.Context,
    /,
    scenes: tuple[str, ...],
    out: str | None,
    config: str | None,
    settings: tuple[str, ...],
    **options: Any,  # noqa: ANN401 (SegmentOptions)
) -> None:
    """Turn SCENES (files, folders, lists, URLs, STAC) into class masks and polygons.

    Options win over the recipe (-c), --set wins over options.
    """
    set_up_messages(ctx)
    # Here, not above: torch takes seconds to load, and `--help` needs none of it.
    from geoseg.cli.progress import RunProgress
    from geoseg.cli.run_tables import print_run
    from geoseg.cli.tables import print_closing, print_failures
    from geoseg.pipelines import segment as job
    from geoseg.pipelines.options import segment_config

    configured = segment_config(
        scenes, out, config=config, settings=settings, options=options
    )
    again = " without --overwrite" if configured.output.overwrite else ""
    ctx.meta[INTERRUPTED] = (
        f"; what is finished in {shlex.quote(str(configured.out))} is kept: run the "
        f"same command again{again} to go on"
    )
    verbosity = verbosity_of(ctx)
    with RunProgress(configured, verbosity=verbosity) as progress:
        report = job.run(configured, progress)
    if verbosity >= 0:
        if report.record is not None:
            print_run(report.record)
        print_closing(report, reused=len(report.results) - progress.finished)
    print_failures(report)
    if not report.ok:
        ctx.exit(1)
