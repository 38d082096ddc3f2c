"""`geoseg train`: fit a preset to labelled scenes."""

from __future__ import annotations

import click

from geoseg.cli.options import (
    INTERRUPTED,
    Command,
    Option,
    configuration_options,
    output_options,
    set_up_messages,
    verbosity_of,
)

EXAMPLES = """\b
Examples:
  geoseg train -c train-builtin --set data.root=dubai-mbrsc
  geoseg train -c mine.yaml -o runs/mine --set train.steps=2000

Training goes on from its newest checkpoint when the same call is made again.
"""


@click.command(cls=Command, epilog=EXAMPLES)
@click.option(
    "-o",
    "--out",
    cls=Option,
    section="Results",
    metavar="DIR",
    help="Run folder: checkpoints, log.csv, and the finished model in model/."
    "  [default: the recipe's]",
)
@configuration_options("train-builtin", "train.steps=2000")
@output_options
@click.pass_context
def train(
    ctx: click.Context, out: str | None, config: str | None, settings: tuple[str, ...]
) -> None:
    """Train a model; the recipe says on what and how.

    The result is a Hugging Face folder for `geoseg segment --model`.
    """
    set_up_messages(ctx)
    from geoseg.cli.progress import TrainingProgress
    from geoseg.cli.tables import print_trained
    from geoseg.config import compose, convert, override
    from geoseg.pipelines import train as job

    overrides = [] if out is None else [override("out", out)]
    recipe = config or "train-builtin"
    configured = convert(compose(recipe, [*overrides, *settings]), job.TrainConfig)
    ctx.meta[INTERRUPTED] = "; run the same command again to go on from the checkpoint"
    verbosity = verbosity_of(ctx)
    with TrainingProgress(configured.train.steps, verbosity=verbosity) as progress:
        folder = job.run(configured, progress.step)
    if verbosity >= 0:
        print_trained(folder)
