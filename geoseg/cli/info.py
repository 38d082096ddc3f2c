"""`geoseg info`: versions, devices, operators, drivers, models, recipes."""

from __future__ import annotations

import click

from geoseg.cli.options import Command, Option, output_options, set_up_messages


@click.command(cls=Command)
@click.option(
    "--model",
    cls=Option,
    section="Model",
    metavar="NAME|DIR|CKPT|HUB_ID",
    help="Tell what this model declares.  [default: builtin]",
)
@output_options
@click.pass_context
def info(ctx: click.Context, model: str | None) -> None:
    """Say what this installation has: paste it into a bug report."""
    set_up_messages(ctx)
    from geoseg.cli.tables import print_sections
    from geoseg.pipelines.info import collect

    print_sections(collect(model))
