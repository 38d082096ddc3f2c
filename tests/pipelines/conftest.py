"""What tests here share: a Dask scheduler with workers, and scenes to evaluate on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from dask_processes import dask_processes, wait_for_address
from evaluations import segmented
from labelled_rasters import CLASSES, draw, write_scene
from stubs import save_stub

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="session", autouse=True)
def _workers_import_stubs() -> Iterator[None]:
    """Let every process that a test starts import `stubs`."""
    before = os.environ.get("PYTHONPATH")
    paths = [str(TESTS), str(TESTS.parent), *(before or "").split(os.pathsep)]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    yield
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


@pytest.fixture(scope="session")
def scheduler(
    _workers_import_stubs: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Address of a `dask scheduler` with two `dask worker`s, run as a user would."""
    folder = tmp_path_factory.mktemp("dask")
    alone = ["--no-nanny"]
    with dask_processes(folder, workers=2, worker=alone, patience=0) as file:
        yield wait_for_address(file)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model of evaluations, which tells classes by how red a pixel is."""
    folder = tmp_path_factory.mktemp("models") / "levels"
    return save_stub(folder, kind="levels", num_classes=CLASSES)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of two labelled scenes."""
    folder = tmp_path_factory.mktemp("labelled")
    for seed, name in enumerate(("north", "south")):
        write_scene(folder, name, *draw(seed))
    return folder


@pytest.fixture(scope="module")
def masks(root: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run directory of the two."""
    return segmented(root, model, tmp_path_factory.mktemp("runs") / "native")
