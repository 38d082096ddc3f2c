"""`geoseg explain`: what the model looks at, as figures and layers for a map."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from geoseg.cli.options import (
    Command,
    Numbers,
    Option,
    output_options,
    set_up_messages,
    stderr,
    verbosity_of,
)
from geoseg.cli.run_options import model_option, reading_options

KINDS = ("patches", "attention", "features", "position", "sampling", "masks")

EXAMPLES = """\b
Examples:
  geoseg explain masks scene.tif --at 386150,5700420 -o why
  geoseg explain attention scene.tif --at 386150,5700420 --token cls -o why
  geoseg explain sampling scene.tif --at 386150,5700420 -o why
  geoseg explain features scene.tif --at 386150,5700420 -o why
  geoseg explain features scene.tif --window 386000,5700000,387000,5701000 -o why

\b
KIND is one of:
  patches    the tile's patches, numbered
  attention  where the ViT looks from a patch, [CLS] or a register: by layer and
             head, and rolled out over all layers
  features   the ViT's features of the whole scene as colours; with --at, how
             like each patch is to the place
  position   how the ViT knows where a patch is: learned or rotary embeddings
  sampling   the points that deformable attention samples for the place, with
             their weights, in adapter and pixel decoder; what it costs
  masks      the queries that make a class, and for one of them its mask, where
             it may look and where it does, layer by layer

\b
The tile shown is the one whose centre is nearest to the place, cut as `geoseg
segment` cuts it. Layers, heads, levels and queries are counted from 0. Layers
(.tif, .gpkg) lie in the scene's CRS and open styled in QGIS.
"""

place_option = partial(click.option, cls=Option, section="Place")
what_option = partial(click.option, cls=Option, section="What is shown")


@click.command(cls=Command, epilog=EXAMPLES)
@click.argument("kind", type=click.Choice(KINDS), metavar="KIND")
@click.argument("scene")
@click.option(
    "-o",
    "--out",
    cls=Option,
    section="Results",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder of figures and layers; files of the same names are replaced.",
)
@place_option(
    "--at",
    type=Numbers(float, 2),
    metavar="X,Y",
    help="The place, in the scene's CRS; column,row of a scene without one.",
)
@place_option(
    "--window",
    type=Numbers(float, 4),
    metavar="L,B,R,T",
    help="Left,bottom,right,top in the scene's CRS: the part that features are made "
    "of, and where queries are ranked. Other kinds take its centre without --at.",
)
@model_option("Model", default="builtin")
@click.option(
    "--tile-size",
    cls=Option,
    section="Model",
    type=click.IntRange(min=1),
    metavar="PX",
    help="Side of a tile.  [default: the model's]",
)
@reading_options("Reading the scene", default_resolution="auto")
@what_option(
    "--token",
    default="patch",
    metavar="NAME",
    help="attention: of the place's patch, or of cls or 'register 1', ..."
    "  [default: patch]",
)
@what_option(
    "--layer",
    type=int,
    metavar="N",
    help="attention: layer whose heads are shown.  [default: the last]",
)
@what_option(
    "--fusion",
    type=click.Choice(("mean", "max", "min")),
    default="mean",
    help="attention: how rollout makes heads one.  [default: mean]",
)
@what_option(
    "--discard",
    type=float,
    default=0.0,
    metavar="0..1",
    help="attention: part of the weights, the smallest, that rollout counts as 0; "
    "attention to [CLS] is kept.  [default: 0]",
)
@what_option(
    "--part",
    metavar="NAME",
    help="sampling: the deformable attention shown by heads, as 'pixel decoder layer "
    "0'.  [default: the first]",
)
@what_option(
    "--level",
    type=int,
    default=0,
    metavar="N",
    help="sampling: level whose cell at the place is the query.  [default: 0]",
)
@what_option(
    "--class",
    "class_name",
    metavar="CLASS",
    help="masks: the class, by id or name.  [default: that of the place]",
)
@what_option(
    "--query",
    type=int,
    metavar="N",
    help="masks: the query that is followed.  [default: the one that adds most]",
)
@output_options
@click.pass_context
def explain(ctx: click.Context, /, **options: Any) -> None:  # noqa: ANN401 (click's own)
    """Show what the model looks at in SCENE, as figures and as layers for a map."""
    set_up_messages(ctx)
    from geoseg.pipelines.explain import ExplainConfig, run

    config = ExplainConfig(**options)
    if verbosity_of(ctx) < 0:
        run(config)
        return
    with stderr().status("running the model") as status:
        written = run(
            config,
            lambda done, total: status.update(f"{done} of {total} tiles"),
        )
    for path in written:
        click.echo(str(path))
