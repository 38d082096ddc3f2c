"""`geoseg status`: how far a run is, or how it ended."""

from __future__ import annotations

from pathlib import Path

import click

from geoseg.cli.options import Command, output_options, set_up_messages, verbosity_of

EXAMPLES = """\b
Examples:
  geoseg status out
  geoseg status out --json | jq .seconds_left
  watch -n 10 geoseg status out

\b
States of scenes:
  waiting     not begun; running: parts of it are made
  done        whole; reused: whole since an earlier call
  failed      with the reason; parts that are whole stay for the next call
  unfinished  the run ended before: the same `geoseg segment` call goes on

\b
Exit codes:
  0  every scene is whole
  1  a scene failed or is missing, and no run is at work
  2  OUT is no run directory
  3  a run is at work there
"""

RUNNING = 3
"""Exit code while a run is at work."""


@click.command(cls=Command, epilog=EXAMPLES)
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
@click.option(
    "--all", "all_scenes", is_flag=True, help="List every scene, not the first few."
)
@output_options
@click.pass_context
def status(ctx: click.Context, out: Path, as_json: bool, all_scenes: bool) -> None:
    """Show how far the run in the directory OUT is, or how it ended.

    Reads the directory only, on any machine that sees it: no cluster is asked, and the
    run is not disturbed.
    """
    set_up_messages(ctx)
    from geoseg.cli.run_tables import print_status
    from geoseg.pipelines.status import run

    found = run(out)
    if as_json:
        import json

        click.echo(json.dumps(found.as_json(), indent=2))
    elif verbosity_of(ctx) >= 0:
        print_status(found, all_scenes=all_scenes)
    if found.alive:
        ctx.exit(RUNNING)
    if not found.whole or found.note is not None:
        ctx.exit(1)
