"""Help is quick and teaches; errors are one line and the right exit code."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from geoseg import __version__
from geoseg.cli.main import _ended_by_signals, main
from geoseg.cli.options import VERBOSITY, set_up_messages, stderr
from geoseg.errors import (
    ClusterError,
    ConfigError,
    ModelError,
    OutputError,
    SceneError,
    TilingError,
    UsageError,
)

HEAVY = ("torch", "rasterio", "transformers", "distributed", "hydra", "matplotlib")
COMMANDS = ("segment", "preview", "info", "train", "evaluate")


def help_of(*command: str) -> str:
    result = CliRunner().invoke(main, [*command, "--help"])
    assert result.exit_code == 0
    return result.output


def segment_raises(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, *flags: str
) -> Any:  # noqa: ANN401 (click's Result)
    """Run `segment` so that its job raises `error`."""

    def run(*_: object) -> None:
        raise error

    monkeypatch.setattr("geoseg.pipelines.segment.run", run)
    return CliRunner().invoke(main, ["segment", "a.tif", "-o", "my out", *flags])


def test_help_loads_nothing_heavy() -> None:
    code = f"""
import sys
from click.testing import CliRunner
from geoseg.cli.main import _ended_by_signals, main
from geoseg.cli.options import VERBOSITY, set_up_messages, stderr
for command in ([], *([name] for name in {COMMANDS!r})):
    assert CliRunner().invoke(main, [*command, "--help"]).exit_code == 0
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_version_is_the_packages() -> None:
    result = CliRunner().invoke(main, ["--version"])
    assert result.output == f"geoseg, version {__version__}\n"


def test_help_lists_every_command_and_the_exit_codes() -> None:
    text = help_of()
    for command in COMMANDS:
        assert f"\n  {command} " in text
    assert "\n    130  interrupted (128" in text


@pytest.mark.parametrize(
    "piece",
    [
        "Results:\n",
        "Model:\n",
        "Tiling and blending:\n",
        "Reading scenes:\n",
        "Where it runs:\n",
        "Configuration:\n",
        "Messages:\n",
        "[default: hann]",
        "--blend [hann|linear|none]",
        "--resolution auto|native|METRES",
        "geoseg segment scene.tif -o out\n",
    ],
)
def test_help_of_segment_teaches(piece: str) -> None:
    assert piece in help_of("segment")


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (UsageError, 2),
        (ConfigError, 2),
        (TilingError, 2),
        (ModelError, 2),
        (OutputError, 2),
        (ClusterError, 1),
        (SceneError, 1),
    ],
)
def test_an_error_of_ours_is_one_line(
    monkeypatch: pytest.MonkeyPatch, kind: type[Exception], code: int
) -> None:
    result = segment_raises(monkeypatch, kind("it is wrong;\n  do this"))
    assert result.exit_code == code
    assert result.stderr == "Error: it is wrong; do this\n"
    assert result.stdout == ""


def test_a_bug_is_one_line_and_vv_gives_the_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    result = segment_raises(monkeypatch, KeyError("missing"))
    assert result.exit_code == 1
    assert result.stderr == (
        "Error: unexpected KeyError: 'missing'; run it again with -vv for the "
        "traceback\n"
    )
    result = segment_raises(monkeypatch, KeyError("missing"), "-vv")
    assert result.exit_code == 1
    assert "Traceback (most recent call last)" in result.stderr


@pytest.mark.parametrize("kind", [RuntimeError, SceneError])
@pytest.mark.parametrize("flags", [(), ("-vv",)])
def test_no_secret_is_told(
    monkeypatch: pytest.MonkeyPatch, kind: type[Exception], flags: tuple[str, ...]
) -> None:
    error = kind("'/vsicurl/https://user:hunter2@host/a.tif?sig=S3CRET' is no raster")
    result = segment_raises(monkeypatch, error, *flags)
    assert "https://host/a.tif?sig=..." in result.stderr
    assert "hunter2" not in result.stderr
    assert "S3CRET" not in result.stderr


def test_log_lines_tell_no_secret(capsys: pytest.CaptureFixture[str]) -> None:
    with click.Context(click.Command("segment")) as ctx:
        ctx.meta[VERBOSITY] = 2
        stderr.cache_clear()
        set_up_messages(ctx)
        try:
            raise ValueError("https://user:hunter2@host/a.tif")
        except ValueError:
            logging.getLogger("geoseg").debug("it failed", exc_info=True)
            logging.getLogger("geoseg").debug("https://h/?sig=S3CRET")
    stderr.cache_clear()
    said = capsys.readouterr().err
    assert "https://h/?sig=..." in said
    assert "hunter2" not in said
    assert "S3CRET" not in said


@pytest.mark.parametrize(("flags", "hint"), [((), ""), (("--overwrite",), " without")])
def test_ctrl_c_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], hint: str
) -> None:
    result = segment_raises(monkeypatch, KeyboardInterrupt(), *flags)
    assert result.exit_code == 130
    assert "what is finished in 'my out' is kept" in result.stderr
    assert f"run the same command again{hint}" in result.stderr


def test_ctrl_c_is_told_from_what_it_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    error = OSError("connection lost")
    error.__cause__ = ValueError("connection reset")
    error.__context__ = KeyboardInterrupt()
    error.__cause__.__context__ = error  # a circle, as threads make them
    assert segment_raises(monkeypatch, error).exit_code == 130


def test_a_run_under_nohup_outlives_its_terminal() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with _ended_by_signals():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            assert callable(signal.getsignal(signal.SIGTERM))
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_package_runs_as_a_module(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "geoseg", "segment", "--bands", "red", "-o", "out"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert "'red' is not a list of whole numbers" in done.stderr
