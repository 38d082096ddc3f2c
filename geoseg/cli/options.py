"""Options and value types that commands share, and help in sections.

Common names: -o/--out, -c/--config, --set, -v/--verbose, -q/--quiet. A value that
belongs to a closed set takes its choices from the `Literal` in `geoseg.types`.
"""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING, Any, TypeVar

import click

from geoseg.io.location import without_secrets

if TYPE_CHECKING:
    from rich.console import Console

Function = TypeVar("Function", bound=Callable[..., Any])

MESSAGES = "Messages"
"""Section of the help for options on what is printed."""

NAMES_WIDTH = 28
"""Characters of the column of options in the help; longer ones get their own line."""

VERBOSITY = "geoseg.verbosity"
"""Key in click's `meta`: -1 quiet, 0, 1 for -v, 2 for -vv."""

INTERRUPTED = "geoseg.interrupted"
"""Key in click's `meta`: how to go on after Ctrl-C, or what returns it then."""


class Option(click.Option):
    """An option that knows its section of the help."""

    def __init__(
        self,
        *args: Any,  # noqa: ANN401 (click's own signature)
        section: str = MESSAGES,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(*args, **kwargs)
        self.section = section

    def get_help_extra(self, ctx: click.Context) -> click.types.OptionHelpExtra:
        """Leave out ranges: "[x>=1]" after each number teaches nobody."""
        extra = super().get_help_extra(ctx)
        extra.pop("range", None)
        return extra


class Command(click.Command):
    """A command whose help lists options by section."""

    def format_options(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        """Write one list a section, in the order of first appearance."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if isinstance(parameter, click.Option) and record is not None:
                name = getattr(parameter, "section", MESSAGES)
                names, text = record
                # One width for all sections, so that their texts line up.
                sections.setdefault(name, []).append((f"{names:<{NAMES_WIDTH}}", text))
        sections[MESSAGES] = sections.pop(MESSAGES)  # last
        for name, records in sections.items():
            with formatter.section(name):
                formatter.write_dl(records, col_max=NAMES_WIDTH + 2)


class Numbers(click.ParamType[tuple[float, ...]]):
    """Numbers between commas or spaces: 4,3,2."""

    name = "numbers"

    def __init__(self, kind: type[int] | type[float], count: int | None = None) -> None:
        self.kind = kind
        self.count = count

    def convert(
        self,
        value: Any,  # noqa: ANN401 (click's own signature)
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[float, ...]:
        """Return the numbers."""
        if isinstance(value, tuple):
            return value
        words = re.split(r"[,\s]+", str(value).strip(" [](),"))
        what = "whole numbers" if self.kind is int else "numbers"
        try:
            numbers = tuple(self.kind(word) for word in words)
        except ValueError:
            self.fail(f"{value!r} is not a list of {what} between commas", param, ctx)
        if self.count is not None and len(numbers) != self.count:
            self.fail(
                f"{value!r} holds {len(numbers)} numbers, not {self.count}", param, ctx
            )
        return numbers


class NumberOr(click.ParamType[float | str]):
    """A number, or one of some words."""

    name = "number"

    def __init__(self, *words: str) -> None:
        self.words = words

    def convert(
        self,
        value: Any,  # noqa: ANN401 (click's own signature)
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> float | str:
        """Return the word, or the number."""
        if value in self.words or isinstance(value, float):
            return value  # type: ignore[no-any-return]
        try:
            return float(value)
        except ValueError:
            known = ", ".join([*self.words, "a number"])
            self.fail(f"{value!r} is none of {known}", param, ctx)


def configuration_options(default: str, example: str) -> Callable[[Function], Function]:
    """Add -c and --set.

    Args:
        default: Name of the recipe that is read without -c.
        example: A setting of that recipe, "key=value".
    """

    def add(function: Function) -> Function:
        function = click.option(
            "--set",
            "settings",
            cls=Option,
            section="Configuration",
            multiple=True,
            metavar="KEY=VALUE",
            help=f"Set any key of the recipe, such as {example}; wins over other "
            "options. May be repeated.",
        )(function)
        return click.option(
            "-c",
            "--config",
            cls=Option,
            section="Configuration",
            metavar="NAME|YAML",
            help=f"Recipe: a name, or a file that ends in .yaml.  [default: {default}]",
        )(function)

    return add


def polygon_options(default: str) -> Callable[[Function], Function]:
    """Add --exclude, --min-area and --simplify.

    Args:
        default: What the help says of the default of numbers.
    """
    option = partial(click.option, cls=Option, section="Polygons")

    def add(function: Function) -> Function:
        function = option(
            "--simplify",
            type=click.FloatRange(min=0),
            metavar="UNITS",
            help="Tolerance of borders, in units of the CRS. Neighbours stay joined "
            f"and nothing is lost; the outer boundary is kept.{default}",
        )(function)
        function = option(
            "--min-area",
            type=click.FloatRange(min=0),
            metavar="M2",
            help="Square metres on the ground that polygons must have; a smaller one "
            f"becomes part of a neighbour.{default}",
        )(function)
        return option(
            "--exclude",
            multiple=True,
            metavar="CLASS",
            callback=lambda _ctx, _parameter, values: values or None,
            help="Class that gets no polygons, by id or name. May be repeated.",
        )(function)

    return add


def output_options(function: Function) -> Function:
    """Add -v and -q; both say how much is printed."""
    function = click.option(
        "-q",
        "--quiet",
        cls=Option,
        section=MESSAGES,
        is_flag=True,
        expose_value=False,
        callback=_keep_quiet,
        help="Print errors only.",
    )(function)
    return click.option(
        "-v",
        "--verbose",
        cls=Option,
        section=MESSAGES,
        count=True,
        expose_value=False,
        callback=_keep_verbose,
        help="Say more about each step; -vv also shows tracebacks.",
    )(function)


def verbosity_of(ctx: click.Context) -> int:
    """Return -1 for -q, 0, 1 for -v, 2 for -vv."""
    level: int = ctx.meta.get(VERBOSITY, 0)
    return level


def _keep_verbose(ctx: click.Context, _: click.Parameter, count: int) -> None:
    if count:
        ctx.meta[VERBOSITY] = count


def _keep_quiet(ctx: click.Context, _: click.Parameter, quiet: bool) -> None:
    if quiet:
        ctx.meta[VERBOSITY] = -1


def set_up_messages(ctx: click.Context) -> None:
    """Let libraries speak as loud as -v says; call before they are imported.

    Without -v, users see what commands print: progress, notes, errors. Log lines of
    geoseg and the chatter of libraries are for -v.
    """
    verbosity = verbosity_of(ctx)
    if verbosity < 1:
        os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "critical")
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        # It tells of connections that end with the cluster. Not by its level, which
        # distributed sets when it is imported.
        tornado = logging.getLogger("tornado.application")
        tornado.disabled = True
        ctx.call_on_close(lambda: setattr(tornado, "disabled", False))
        ctx.with_resource(warnings.catch_warnings(action="ignore"))
        # Without a handler Python would print warnings of any logger itself.
        logging.getLogger("geoseg").addHandler(logging.NullHandler())
        return
    from rich.logging import RichHandler

    handler = RichHandler(console=stderr(), show_path=verbosity > 1, markup=False)
    handler.setFormatter(_Discreet())
    logger = logging.getLogger("geoseg")
    logger.setLevel(logging.INFO if verbosity == 1 else logging.DEBUG)
    logger.addHandler(handler)
    ctx.call_on_close(lambda: logger.removeHandler(handler))


class _Discreet(logging.Formatter):
    """Leaves out passwords and signatures: logs are passed on."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record, its traceback included."""
        return without_secrets(super().format(record))


@cache
def stderr() -> Console:
    """Return the console of progress, notes and log lines: one, or they would tear."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)
