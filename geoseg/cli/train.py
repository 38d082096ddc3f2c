"""`geoseg train`: fit a model to labelled scenes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

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
from geoseg.errors import AgreedError, ConfigError, TrainingError, UsageError
from geoseg.stopping import exit_code

if TYPE_CHECKING:
    from geoseg.pipelines.train import TrainConfig

RECIPE = "train-builtin"

EPILOG = """\b
Examples:
  geoseg train -c train-builtin --set data.root=dubai-mbrsc
  geoseg train -c mine.yaml -o runs/mine
  geoseg train -c mine.yaml --set train.steps=2000 --set train.batch_size=8
  geoseg train -c mine.yaml --multirun --set train.learning_rate=1e-4,3e-4

\b
Your own labels: write mine.yaml beside them, which need only say what differs.
  defaults: [train-builtin, {override data: folder}, _self_]
  data:
    root: my-labels          # images/*.tif and masks/*.png, for example
    resolution: 0.3          # metres a pixel of your images: the model asks for it
    classes:
      - {id: 1, name: roof, color: [200, 72, 56], mask: [1]}
      - {id: 2, name: other, color: [90, 90, 90], mask: [0]}
  out: runs/mine

\b
The run folder holds:
  model/                     the finished model: geoseg segment --model RUN/model,
                             geoseg evaluate --data RUN/run.yaml --model RUN/model
  best.ckpt, last.ckpt       best weights so far, and where training goes on; --model
                             takes them, too
  log.csv, validation.csv    losses and scores; tensorboard --logdir RUN has them, too
  pictures/                  predictions beside labels, at each validation

Training goes on from its newest checkpoint when the same command runs again, and ends
as if it had never been stopped. docs/training.md has more.
"""


@click.command(cls=Command, epilog=EPILOG)
@click.option(
    "-o",
    "--out",
    cls=Option,
    section="Results",
    metavar="DIR",
    help="Run folder: checkpoints, logs, and the finished model in model/."
    "  [default: the recipe's]",
)
@click.option(
    "--multirun",
    cls=Option,
    section="Configuration",
    is_flag=True,
    help="Train once for each combination of the values that --set lists after commas, "
    "each in a folder of its own, and print a table.",
)
@configuration_options(RECIPE, "train.steps=2000")
@output_options
@click.pass_context
def train(
    ctx: click.Context,
    out: str | None,
    multirun: bool,
    config: str | None,
    settings: tuple[str, ...],
) -> None:
    """Train a model; the recipe says on what and how.

    The result is a Hugging Face folder for `geoseg segment --model`.
    """
    set_up_messages(ctx)
    from geoseg.config import combinations, compose, convert, override

    _check_installed()
    from geoseg.pipelines.train import TrainConfig

    overrides = [] if out is None else [override("out", out)]
    overrides += settings
    if multirun:
        ctx.meta[INTERRUPTED] = "; run the same command again to go on"
        _sweep(config or RECIPE, overrides, verbosity_of(ctx))
        return
    if combinations(overrides) != [()]:
        raise ConfigError(
            "a --set has several values: add --multirun to train with each, or write a "
            "list as [1,2] and text as \"'a,b'\""
        )
    composed = convert(compose(config or RECIPE, overrides), TrainConfig)
    ctx.meta[INTERRUPTED] = partial(_what_next, composed)
    _train(composed, verbosity_of(ctx))


def _what_next(config: TrainConfig) -> str:
    """Say how to go on after Ctrl-C."""
    from geoseg.training.checkpoints import LAST

    if (config.out / LAST).is_file():
        return "; run the same command again to go on from the checkpoint"
    return " before the first checkpoint; the same command starts again"


def _train(config: TrainConfig, verbosity: int) -> None:
    from geoseg.cli.tables import print_trained
    from geoseg.cli.train_progress import TrainingProgress
    from geoseg.pipelines import train as job
    from geoseg.reporting.notes import heard

    if not job.is_first_process(config.train.devices):
        try:  # Its twin in the first process tells everything,
            with heard(lambda _: None):
                job.run(config)
        except AgreedError:  # but for errors that it alone has met.
            raise click.exceptions.Exit(1) from None
        except KeyboardInterrupt as end:
            raise click.exceptions.Exit(exit_code(end)) from None
        return
    with TrainingProgress(config.train.steps, verbosity=verbosity) as progress:
        trained = job.run(config, progress)
    if verbosity >= 0:
        print_trained(trained.folder)


def _sweep(recipe: str, overrides: Sequence[str], verbosity: int) -> None:
    from geoseg.cli.tables import print_sweep
    from geoseg.cli.train_progress import TrainingProgress
    from geoseg.pipelines import train_sweep as job

    runs = job.plan_sweep(recipe, overrides)

    def watch(one: job.SweepRun) -> TrainingProgress:
        progress = TrainingProgress(one.config.train.steps, verbosity=verbosity)
        progress.say(f"{runs.index(one) + 1}/{len(runs)}: {' '.join(one.settings)}")
        return progress

    results = job.run(runs, watch)
    if verbosity >= 0:
        print_sweep(results)
    failed = [result for result in results if result.error]
    if failed:
        raise TrainingError(
            f"{len(failed)} of {len(results)} trainings failed: {failed[0].error}"
        )


def _check_installed() -> None:
    for name in ("lightning", "tensorboard"):
        if find_spec(name) is None:
            raise UsageError(
                f"training needs {name}; install it with: pip install 'geoseg[train]'"
            )
