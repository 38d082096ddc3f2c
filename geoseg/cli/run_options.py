"""Options that commands which run a model share: which one, on what, and where."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import click

from geoseg.cli.options import Function, NumberOr, Numbers, Option


def model_option(
    section: str, default: str | None = None
) -> Callable[[Function], Function]:
    """Add --model.

    Args:
        section: Of the help.
        default: Value where there is no recipe; None leaves it to that.
    """
    return click.option(
        "--model",
        cls=Option,
        section=section,
        default=default,
        metavar="NAME|DIR|CKPT|HUB_ID",
        help="'builtin', a folder or a Hugging Face id of a semantic or universal "
        "segmentation checkpoint with safetensors, or a .ckpt of geoseg train."
        "  [default: builtin]",
    )


def device_option(section: str) -> Callable[[Function], Function]:
    """Add --device, in a section of the help."""
    return click.option(
        "--device",
        cls=Option,
        section=section,
        metavar="NAME",
        help="auto, cpu, cuda or cuda:1.  [default: auto]",
    )


def resolution_option(
    section: str, default: str | None = None
) -> Callable[[Function], Function]:
    """Add --resolution; the arguments are those of `model_option`."""
    return click.option(
        "--resolution",
        cls=Option,
        section=section,
        default=default,
        type=NumberOr("auto", "native"),
        metavar="auto|native|METRES",
        help="Ground resolution to run at. auto resamples a scene more than 1.5 times "
        "finer than the model's resolution to it; native never does.  [default: auto]",
    )


def reading_options(
    section: str, default_resolution: str | None = None
) -> Callable[[Function], Function]:
    """Add --resolution, --bands, --scale and --nodata.

    Args:
        section: Of the help.
        default_resolution: Value where there is no recipe; None leaves it to that.
    """
    option = partial(click.option, cls=Option, section=section)

    def add(function: Function) -> Function:
        function = option(
            "--nodata",
            type=float,
            metavar="NUMBER|nan",
            help="Value of pixels without data.  [default: the file's]",
        )(function)
        function = option(
            "--scale",
            type=float,
            metavar="NUMBER",
            help="Digital number that means 1.0, such as 10000 for reflectance times "
            "10000.  [default: as the model declares for the dtype]",
        )(function)
        function = option(
            "--bands",
            type=Numbers(int),
            metavar="4,3,2",
            help="Bands of the file in the model's order, counted from 1.  [default: "
            "all, if their number is the model's]",
        )(function)
        return resolution_option(section, default_resolution)(function)

    return add


def cluster_options(section: str) -> Callable[[Function], Function]:
    """Add --cluster, --workers, --scheduler and --scheduler-file, in a section."""
    option = partial(click.option, cls=Option, section=section)

    def add(function: Function) -> Function:
        function = option(
            "--scheduler-file",
            metavar="FILE",
            help="Instead of its address: what `dask scheduler --scheduler-file FILE` "
            "writes.",
        )(function)
        function = option(
            "--scheduler",
            metavar="ADDRESS",
            help="Dask scheduler that runs already, tcp://HOST:8786; its workers do "
            "the work.",
        )(function)
        function = option(
            "--workers",
            type=click.IntRange(min=1),
            metavar="N",
            help="Workers to start: processes on this machine, or jobs.  [default: one "
            "a GPU, else by cores and memory]",
        )(function)
        return option(
            "--cluster",
            metavar="NAME",
            help="Kind of cluster: local, slurm, spec, or another of configs/clusters; "
            "see docs/clusters.md.  [default: local]",
        )(function)

    return add
