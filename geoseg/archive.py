"""The run directory: results of many scenes, their parts, and what later calls need."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from geoseg import __version__
from geoseg.errors import OutputError
from geoseg.finish import SceneResult, read_result
from geoseg.io.atomic import atomic_path
from geoseg.io.catalog import recorded_id
from geoseg.io.location import is_virtual, shown
from geoseg.io.lock import exclusive, remove_unless_held
from geoseg.layout import (
    COLLECTION,
    LOCK_FILE,
    PARTS,
    PLAN,
    REPORT,
    ROOT_FILE,
    VERSION_FILE,
    WORK,
    finishing_name,
    parts_name,
    parts_prefix,
)
from geoseg.reporting.record import recorded_root


class RunDirectory:
    """The folder OUT of a run: outputs by scene id, parts, and the configuration.

    Args:
        path: The folder; made when missing.
        root: Root of the scene ids, a folder or a URL; "" where ids have none.
        overwrite: Accept a folder that no run made.

    Raises:
        OutputError: It is a file, not writable, holds something else, or was made with
            another root.
    """

    def __init__(self, path: Path, root: str | Path, *, overwrite: bool) -> None:
        self.path = path
        self.overwrite = overwrite
        with _written(path):
            known = self.recorded_root(path)
            # Scenes with ids of their own do not take away the root of others.
            self._root = str(root) or known or ""
            self._check(known)
            (path / WORK).mkdir(parents=True, exist_ok=True)
            self._version = self._recorded_version()

    @staticmethod
    def recorded_root(path: Path) -> str | None:
        """Root that an earlier call gave its ids by, if OUT has one."""
        record = path / WORK / ROOT_FILE
        with _written(path):
            root = os.fsdecode(record.read_bytes()) if record.is_file() else None
        if root is None:
            # Somebody has cleaned up, and the scenes are there all the same.
            return recorded_root(path / REPORT)
        if "\0" in root:  # As a disk leaves it that lost power.
            raise OutputError(f"{record} is damaged; delete it, and pass --root")
        return root

    @property
    def other_version(self) -> str | None:
        """Version of geoseg that wrote there last, unless it is this one."""
        return None if self._version in (None, __version__) else self._version

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs out: each would delete and write the files of the other.

        Raises:
            OutputError: Another run has the folder, or it cannot be written.
        """
        with ExitStack() as held:
            with _written(self.path):
                held.enter_context(exclusive(self.path / WORK / LOCK_FILE, self.path))
                with atomic_path(self.path / WORK / ROOT_FILE) as temporary:
                    # Bytes: names on disk need not be UTF-8.
                    temporary.write_bytes(os.fsencode(self._root))
                with atomic_path(self.path / WORK / VERSION_FILE) as temporary:
                    temporary.write_text(f"{__version__}\n", encoding="utf-8")
            yield

    def collection_id(self) -> str:
        """Id of the STAC collection; stays when the folder is renamed."""
        return recorded_id(self.path / COLLECTION) or self.path.resolve().name or "run"

    def scene_folder(self, scene_id: str) -> Path:
        """Folder of a scene's outputs."""
        return self.path / scene_id

    def work_folder(self, scene_id: str, key: str) -> Path:
        """Folder of a scene's parts, by key: parts of other settings are never met."""
        return self.path / WORK / PARTS / parts_name(scene_id, key)

    def record_plan(self, scene_id: str, key: str, plan: Mapping[str, Any]) -> None:
        """Write down what is to be made of a scene, beside its parts.

        Raises:
            OutputError: It cannot be written.
        """
        folder = f"{WORK}/{PARTS}/{parts_name(scene_id, key)}"
        self.write(f"{folder}/{PLAN}", json.dumps({**plan, "key": key}))

    def mosaic(self, scene_id: str, vrt: str) -> Path:
        """Write down how sheets make a scene, and return the file that says it."""
        path = self.path / WORK / "mosaics" / f"{scene_id}.vrt"
        if not path.is_file() or path.read_bytes() != vrt.encode():
            self.write(str(path.relative_to(self.path)), vrt)
        return path.resolve()

    def discard_parts(self, scene_id: str, *, keep: str | None = None) -> None:
        """Delete what killed runs left of a scene.

        Args:
            scene_id: The scene.
            keep: Key of the parts that are still of use.
        """
        kept = None if keep is None else self.work_folder(scene_id, keep)
        parts = self.path / WORK / PARTS
        remove_unless_held(parts / finishing_name(scene_id))
        for folder in parts.glob(f"{parts_prefix(scene_id)}*"):
            if folder != kept:
                shutil.rmtree(folder, ignore_errors=True)

    def finished(self, scene_id: str, key: str) -> SceneResult | None:
        """Result of a scene that is whole under this key, else None."""
        if self.overwrite:
            return None
        return read_result(self.scene_folder(scene_id), scene_id, key)

    def write(self, name: str, text: str | Iterable[str]) -> None:
        """Write a file of the run itself, `run.yaml` or `report.json`.

        Args:
            name: Its name.
            text: What it holds, in pieces if it is large.

        Raises:
            OutputError: The disk is full or the folder cannot be written.
        """
        with (
            self.writing(name) as path,
            atomic_path(path) as temporary,
            temporary.open("wb") as stream,
        ):
            for piece in [text] if isinstance(text, str) else text:
                stream.write(piece.encode("utf-8", "backslashreplace"))

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Give the path of a file of the run itself, for a block that writes it.

        Raises:
            OutputError: The disk is full or the folder cannot be written.
        """
        path = self.path / name
        try:
            yield path
        except OSError as error:
            raise OutputError(
                f"{path} cannot be written ({error.strerror}); free some space or "
                "choose another -o"
            ) from error

    def _recorded_version(self) -> str | None:
        record = self.path / WORK / VERSION_FILE
        if not record.is_file():
            return None
        return record.read_bytes()[:80].decode("utf-8", "replace").strip()

    def _check(self, known: str | None) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise OutputError(f"{self.path} is a file; -o wants a folder")
        if known is not None:
            if known not in ("", self._root) and not self.overwrite:
                raise OutputError(
                    f"{self.path} holds scenes below {known}, these lie below "
                    f"{self._root}; pass --root {known}, or choose another -o"
                )
            return
        # A call that ended before it had a scene leaves a work folder only.
        begun = {self.path / WORK}
        foreign = self.path.is_dir() and set(self.path.iterdir()) - begun
        if foreign and not self.overwrite:
            raise OutputError(
                f"{self.path} exists and was not made by geoseg; choose another -o, or "
                "pass --overwrite to write into it"
            )


@contextmanager
def _written(path: Path) -> Iterator[None]:
    """Turn what the system says of a run directory into one line."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written ({error.strerror}); choose another -o or change "
            "its permissions"
        ) from error


def scene_key(
    path: str | Path, state: str, weights_sha256: str, settings: Mapping[str, Any]
) -> str:
    """Hash of everything that a scene's pixels depend on (contract C9).

    Args:
        path: The input. Part of its identity is where a file lies, links followed, or
            the address without what signs a request.
        state: `geoseg.identity` of its files.
        weights_sha256: Hash of the model.
        settings: Settings that change pixels; plain values.
    """
    name = str(path)
    identity = {
        "path": shown(name) if is_virtual(name) else str(Path(name).resolve()),
        "input": state,
        "weights": weights_sha256,
        "settings": settings,
    }
    text = json.dumps(identity, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
