"""`geoseg info`: versions, devices, operators, drivers, models, recipes."""

from __future__ import annotations

import click

from geoseg.cli.options import Command, output_options, set_up_messages


@click.command(cls=Command)
@output_options
@click.pass_context
def info(ctx: click.Context) -> None:
    """Say what this installation has: paste it into a bug report."""
    set_up_messages(ctx)
    from geoseg.cli.tables import print_sections
    from geoseg.pipelines.info import collect

    print_sections(collect())
