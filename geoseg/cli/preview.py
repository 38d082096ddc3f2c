"""`geoseg preview`: a picture of a scene, its classes and their outlines."""

from __future__ import annotations

from pathlib import Path

import click

from geoseg.cli.options import (
    Command,
    Option,
    output_options,
    set_up_messages,
    verbosity_of,
)

EXAMPLES = """\b
Examples:
  geoseg preview out
  geoseg preview out --scene 2024/north/t_01 -o t_01.png --width 3600
"""


@click.command(cls=Command, epilog=EXAMPLES)
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--scene",
    "scenes",
    cls=Option,
    section="Picture",
    multiple=True,
    metavar="ID",
    help="Scene to draw, by its id; may be repeated.  [default: every finished one]",
)
@click.option(
    "-o",
    "--output",
    cls=Option,
    section="Picture",
    type=click.Path(path_type=Path),
    metavar="FILE.png",
    help="Where the picture goes, for one scene.  [default: preview.png in the scene's "
    "folder]",
)
@click.option(
    "--width",
    cls=Option,
    section="Picture",
    type=click.IntRange(600, 20_000),
    default=2400,
    show_default=True,
    metavar="PX",
    help="Width of the picture.",
)
@output_options
@click.pass_context
def preview(
    ctx: click.Context,
    out: Path,
    scenes: tuple[str, ...],
    output: Path | None,
    width: int,
) -> None:
    """Draw the finished scenes of the run directory OUT, one PNG each.

    Three panels: the scene, its classes with a legend, and the polygons' outlines. Of a
    large scene the third panel is a detail at full resolution.
    """
    set_up_messages(ctx)
    from geoseg.pipelines.preview import PreviewConfig, run

    def drawn(path: Path) -> None:
        if verbosity_of(ctx) >= 0:
            click.echo(str(path))

    config = PreviewConfig(out, scenes=scenes, file=output, width=width)
    failures = run(config, drawn)
    for scene_id, reason in failures:
        click.echo(f"Error: {scene_id}: {reason}", err=True)
    if failures:
        ctx.exit(1)
