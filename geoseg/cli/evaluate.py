"""`geoseg evaluate`: how good a model is, on labelled scenes."""

from __future__ import annotations

import shlex
from functools import partial
from typing import Any, get_args

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
from geoseg.cli.run_options import (
    cluster_options,
    device_option,
    model_option,
    resolution_option,
)
from geoseg.types import EvaluatedPart

EXAMPLES = """\b
Examples:
  geoseg evaluate dubai-mbrsc --data dubai-mbrsc -o eval
  geoseg evaluate --data runs/mine/run.yaml --model runs/mine/model -o eval
  geoseg evaluate data -o eval --images 'scenes/{stem}.tif' \\
      --labels 'masks/{stem}.tif' --model my-model
  geoseg evaluate --data mine.yaml -o eval --run out
  geoseg evaluate --data mine.yaml -o eval --compare model.path=old,new
  geoseg evaluate --data mine.yaml -o eval \\
      --compare tiling.overlap=0,96 --compare model.tta=false,true

\b
Masks are made by `geoseg segment` (all its settings hold, with --set) and are
kept in OUT/masks: the same call again goes on where it stopped, and makes only
what is missing or changed. --run takes masks that are there already. Where labels
and masks differ in resolution, the nearest label counts.

\b
Classes of model and labels are the same by name. A class that the model does
not know has IoU 0; --map roof=building pairs names, --leave-out NAME takes
labels out. Without a class table (`data.classes`), the values of label masks
are the ids of the model's classes.

\b
One confusion matrix over all labelled pixels gives mIoU, accuracy, F1,
precision, recall and area bias. Boundary IoU counts pixels near borders.
ECE tells how far confidence is from the truth. From 10 scenes on there are
95 % intervals, by resampling scenes.
"""

data_option = partial(click.option, cls=Option, section="Labelled scenes")
masks_option = partial(click.option, cls=Option, section="Masks")
score_option = partial(click.option, cls=Option, section="Scores")


@click.command(cls=Command, epilog=EXAMPLES)
@click.argument("root", metavar="[FOLDER]", required=False)
@click.option(
    "-o",
    "--out",
    cls=Option,
    section="Results",
    metavar="DIR",
    help="Folder for evaluation.html, .md and .json, and for masks.",
)
@data_option(
    "--data",
    metavar="NAME|FILE",
    help="How the scenes lie in FOLDER, what their labels mean and which are held out: "
    "a name of configs/data, or a YAML file, such as the recipe of a training or the "
    "run.yaml that it left; FOLDER may be left out then.",
)
@data_option(
    "--images",
    metavar="PATTERN",
    help="Images below FOLDER; {stem} is what an image and its labels have in common, "
    "{folder} the folders above.  [default: images/{stem}.*]",
)
@data_option(
    "--labels",
    metavar="PATTERN",
    help="Their labels: masks, or vector files.  [default: masks/{stem}.*]",
)
@data_option(
    "--part",
    type=click.Choice(get_args(EvaluatedPart)),
    metavar="PART",
    help="test, validation or train, as data.split has it, or all scenes; auto is the "
    "first of the three that has scenes.  [default: auto]",
)
@model_option("Masks")
@masks_option(
    "--run",
    multiple=True,
    metavar="DIR",
    help="Take the masks of this run directory instead of making some. May be "
    "repeated: runs are compared.",
)
@masks_option(
    "--compare",
    multiple=True,
    metavar="KEY=V1,V2",
    help="Make masks with each value of a key of model, tiling or input, and compare. "
    "May be repeated: every combination is made.",
)
@resolution_option("Masks")
@device_option("Masks")
@cluster_options("Masks")
@score_option(
    "--map",
    "mapping",
    multiple=True,
    metavar="MODEL=LABEL",
    help="Take a class of the model for one of the labels; LABEL may be ignore. May be "
    "repeated.",
)
@score_option(
    "--leave-out",
    multiple=True,
    metavar="LABEL",
    help="Class of the labels that does not count. May be repeated.",
)
@score_option(
    "--border",
    type=click.IntRange(min=1),
    metavar="PX",
    help="Distance to a border up to which boundary IoU counts.  [default: 2 % of a "
    "scene's diagonal, 29 at most]",
)
@score_option(
    "--worst",
    type=click.IntRange(min=0),
    metavar="N",
    help="Chips shown, the worst first.  [default: 12]",
)
@configuration_options("evaluate", "tiling.overlap=96")
@output_options
@click.pass_context
def evaluate(
    ctx: click.Context,
    /,
    config: str | None,
    settings: tuple[str, ...],
    mapping: tuple[str, ...],
    **options: Any,  # noqa: ANN401 (keys of pipelines.evaluate_options)
) -> None:
    """Compare masks of the labelled scenes in FOLDER with their labels.

    Masks are made exactly as `geoseg segment` writes them. Options win over the recipe
    (-c), --set wins over options.
    """
    set_up_messages(ctx)
    from geoseg.cli.evaluation import EvaluationProgress, print_evaluation
    from geoseg.pipelines import evaluate as job
    from geoseg.pipelines.evaluate_options import evaluate_config

    configured = evaluate_config(
        config=config, settings=settings, mapping=mapping, options=options
    )
    ctx.meta[INTERRUPTED] = (
        f"; masks in {shlex.quote(str(configured.out / job.MASKS))} are kept: run the "
        "same command again to go on"
    )
    verbosity = verbosity_of(ctx)
    with EvaluationProgress(verbosity) as progress:
        evaluation = job.run(configured, progress)
    if verbosity >= 0:
        print_evaluation(evaluation, configured.out)
    if not evaluation.ok:
        ctx.exit(1)
