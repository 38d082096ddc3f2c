"""Hub ids within bounds of time, and silence while models load."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import tiny_models
from transformers.utils import logging as hf_logging

from geoseg.errors import ModelError
from geoseg.models import find_model, hub, load_model, read_spec
from geoseg.models.hub import quiet


@contextmanager
def silent_server() -> Iterator[str]:
    """Run a server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    taken.append(server.accept()[0])
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        for connection in taken:
            connection.close()


def find_in_a_process(name: str, cache: Path, **environment: str) -> tuple[str, float]:
    """Look for a model in a fresh process; return the error and the seconds it took."""
    code = (
        "import time\n"
        "from geoseg.errors import ModelError\n"
        "from geoseg.models import find_model, hub\n"
        "import huggingface_hub\n"
        "hub.ANSWER_SECONDS = 0.5\n"
        "start = time.monotonic()\n"
        "try:\n"
        f"    print('found', find_model({name!r}))\n"
        "except ModelError as error:\n"
        "    print(error)\n"
        "print(time.monotonic() - start)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "HF_HOME": str(cache), **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=200,
    )
    *lines, seconds = done.stdout.splitlines()
    return "\n".join(lines), float(seconds)


@pytest.mark.parametrize("offline", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_unknown_hub_ids_fail_soon(tmp_path: Path, offline: bool) -> None:
    # 127.0.0.1:9 refuses connections, as a machine without a network does.
    environment = {"HF_ENDPOINT": "http://127.0.0.1:9"}
    if offline:
        environment["HF_HUB_OFFLINE"] = "1"
    message, seconds = find_in_a_process("no/such-model", tmp_path, **environment)
    assert "model 'no/such-model' is no folder here and could not be had" in message
    assert "check the spelling, the network" in message
    assert "\n" not in message
    assert seconds < 20


@pytest.mark.slow
def test_a_hub_that_does_not_answer_is_given_up(tmp_path: Path) -> None:
    with silent_server() as address:
        message, seconds = find_in_a_process("a/b", tmp_path, HF_ENDPOINT=address)
    assert "could not be had from the hub (ReadTimeout)" in message
    assert seconds < 20


@pytest.mark.slow
def test_models_in_the_cache_need_no_network(tmp_path: Path) -> None:
    commit = "0" * 40
    repository = tmp_path / "hub" / "models--some--model"
    folder = tiny_models.save_segmenter(repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    message, _ = find_in_a_process(
        "some/model", tmp_path, HF_ENDPOINT="http://127.0.0.1:9"
    )
    assert message == f"found {folder}"


@pytest.mark.parametrize("name", ["/no/such/folder", "a b", "", "../x/y/z"])
def test_names_that_cannot_be_hub_ids(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "ANSWER_SECONDS", 0.5)
    start = time.monotonic()
    with pytest.raises(ModelError):
        find_model(name)
    assert time.monotonic() - start < 10


def test_loading_says_nothing_and_leaves_the_settings_alone(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tiny_models.save_segmenter(tmp_path)
    hf_logging.warning_once.cache_clear()  # what was said once is not said again
    before = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    assert before[1]
    capfd.readouterr()
    read_spec(tmp_path)
    load_model(tmp_path)
    assert capfd.readouterr() == ("", "")
    assert (hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()) == before


@quiet()
def fail_in_silence() -> None:
    assert hf_logging.get_verbosity() == logging.ERROR
    raise KeyError


def test_quiet_ends_with_an_error_too() -> None:
    hf_logging.disable_progress_bar()
    hf_logging.set_verbosity(logging.INFO)
    try:
        with pytest.raises(KeyError):
            fail_in_silence()
        assert hf_logging.get_verbosity() == logging.INFO
        assert not hf_logging.is_progress_bar_enabled()
    finally:
        hf_logging.set_verbosity(logging.WARNING)
        hf_logging.enable_progress_bar()
