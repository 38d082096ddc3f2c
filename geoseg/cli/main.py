"""The command `geoseg`: a group, and how errors become one line and an exit code."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from signal import SIGHUP, SIGTERM
from types import FrameType
from typing import Any, NoReturn

import click

from geoseg import __version__
from geoseg._heap import collect_less_often
from geoseg.cli.evaluate import evaluate
from geoseg.cli.explain import explain
from geoseg.cli.info import info
from geoseg.cli.merge import merge
from geoseg.cli.options import INTERRUPTED, verbosity_of
from geoseg.cli.preview import preview
from geoseg.cli.segment import segment
from geoseg.cli.status import status
from geoseg.cli.train import train
from geoseg.cli.vectorize import vectorize
from geoseg.errors import GeosegError, UsageError
from geoseg.io.location import without_secrets
from geoseg.stopping import SIGNALLED, Terminated, exit_code

EPILOG = """\b
Start with: geoseg segment scene.tif -o out, then: geoseg preview out

\b
Exit codes:
  0    all is whole
  1    some scenes failed, or there is no cluster
  2    the call is wrong and nothing was started
  3    `geoseg status`: a run is at work
  130  interrupted (128 + the signal's number)
"""


class WrongCall(click.ClickException):
    """Nothing was started; ends the command with one line on stderr."""

    exit_code = 2


class Failure(click.ClickException):
    """Something failed."""

    exit_code = 1


class Interruption(click.ClickException):
    """Ctrl-C or a signal to end; shells expect 128 + the signal's number."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.exit_code = code  # type: ignore[misc]  # the instance's own


class Commands(click.Group):
    """Turns what a command raises into one line."""

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 (click's own signature)
        """Run the command that was named."""
        try:
            with _ended_by_signals():
                return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except BaseException as error:
            _end(error, ctx)


def _end(error: BaseException, ctx: click.Context) -> NoReturn:
    """Turn any error into one line and its exit code."""
    interruption = _interruption(error)
    if interruption is not None:
        hint = ctx.meta.get(INTERRUPTED, "")
        hint = hint() if callable(hint) else hint
        raise Interruption(f"interrupted{hint}", exit_code(interruption)) from error
    if not isinstance(error, Exception):
        raise error
    if isinstance(error, GeosegError):
        if verbosity_of(ctx) >= 2:
            click.echo(without_secrets(traceback.format_exc()), err=True)
        kind = WrongCall if isinstance(error, UsageError) else Failure
        raise kind(_one_line(error)) from error
    _unexpected(error, ctx)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """End as after Ctrl-C, with workers closed, when the system asks for it."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Only there can signals be handled.
        return

    def end(number: int, _: FrameType | None) -> None:
        raise Terminated(number)

    # What is ignored stays so: nohup has the run outlive its terminal.
    numbers = [n for n in (SIGTERM, SIGHUP) if signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interruption(error: BaseException | None) -> KeyboardInterrupt | None:
    """Find Ctrl-C, also where closing down failed because of it."""
    found, seen = [error], set[int]()
    while found:
        one = found.pop()
        if isinstance(one, KeyboardInterrupt):
            return one
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            found += [one.__cause__, one.__context__]
    return None


def _unexpected(error: Exception, ctx: click.Context) -> NoReturn:
    """End with one line; the traceback is for those who ask for it."""
    if isinstance(error, OSError) and error.errno == errno.EPIPE:
        raise error  # click leaves quietly when `| head` has seen enough
    if verbosity_of(ctx) >= 2:
        click.echo(without_secrets(traceback.format_exc()), err=True)
        hint = "please report it with the traceback above"
    else:
        hint = "run it again with -vv for the traceback"
    raise Failure(
        f"unexpected {type(error).__name__}: {_one_line(error)}; {hint}"
    ) from error


def _one_line(error: BaseException) -> str:
    text = re.sub(r"\s*\n\s*", " ", str(error)).strip() or type(error).__name__
    return without_secrets(text)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 96},
    epilog=EPILOG,
)
@click.version_option(__version__, "-V", "--version", prog_name="geoseg")
def main() -> None:
    """Segment GeoTIFFs into class masks and polygons."""


for _command in (
    *(segment, status, merge, vectorize, preview),
    *(train, evaluate, explain, info),
):
    main.add_command(_command)


def run() -> None:
    """Run the command as a program.

    Python ends by SIGINT after an interrupt that was handled if it came while text was
    executed, as imports of libraries do. What was interrupted is closed by then: it
    ends here, with the code that it was given.
    """
    collect_less_often()
    try:
        main()
    except SystemExit as end:
        if isinstance(end.code, int) and end.code > SIGNALLED:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(end.code)
        raise
