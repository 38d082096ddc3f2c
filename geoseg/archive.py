"""Many scenes: finding them, naming them, and the run directory that holds results."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import shutil
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geoseg.errors import OutputError, OutsideRootError, UsageError
from geoseg.finish import ITEM, SEGMENTS, SceneResult, read_result
from geoseg.graph import CLASSES, CONFIDENCE, SCORES
from geoseg.io.atomic import atomic_path
from geoseg.io.lock import exclusive

SUFFIXES = (".tif", ".tiff", ".vrt", ".jp2")
"""What counts as a scene in a folder, lower case."""

WORK = ".geoseg"
"""Folder of parts in the run directory, and of what later calls must know."""

ROOT_FILE = "root"
"""File in it that holds the root of the scene ids."""

RUN_FILES = ("run.yaml", "model.json", "report.json", "report.html", "collection.json")
"""Files of the run itself."""

_RESERVED = {*RUN_FILES, CLASSES, f"{CLASSES}.aux.xml", CONFIDENCE, SCORES, SEGMENTS}
_RESERVED |= {ITEM, "preview.png"}
# ^ No folder may take the name of a file beside it.


@dataclass(frozen=True, slots=True)
class SceneFile:
    """One scene of the archive."""

    path: Path
    """The file."""
    scene_id: str
    """Its path below the root without the extension, made safe."""


def find_scenes(
    scenes: Sequence[str | Path], root: Path | None = None
) -> tuple[list[SceneFile], Path]:
    """Find scenes in files, globs and folders, and give each its id.

    Args:
        scenes: Files, patterns (`2024/*.tif`), or folders, which are searched through.
        root: What ids are relative to; by default the folder given, else the files'
            common folder.

    Returns:
        Scenes in the order found, without duplicates, and the root.

    Raises:
        UsageError: A path does not exist, a folder holds no scene, a scene lies outside
            the root, or two scenes would share an id.
    """
    if not scenes:
        raise UsageError("no scene is given; name files, folders or patterns")
    files: dict[Path, None] = {}
    folders = []
    for entry in scenes:
        path = Path(entry)
        try:
            if path.is_dir():
                folders.append(path.resolve())
            for found in _expand(path):
                files[found] = None
        except OSError as error:  # A name too long, a folder that cannot be listed.
            raise UsageError(f"{path}: {error.strerror}; check the path") from error
    base = _root(list(files), folders, root)
    named = [SceneFile(path, _scene_id(path, base)) for path in files]
    owners: dict[str, Path] = {}
    for scene in named:
        # Case must not tell scenes apart: some file systems would merge them.
        other = owners.setdefault(scene.scene_id.casefold(), scene.path)
        if other != scene.path:
            raise UsageError(
                f"{other} and {scene.path} would both be scene '{scene.scene_id}'; "
                "rename one, or run them into two folders"
            )
    return named, base


class RunDirectory:
    """The folder OUT of a run: outputs by scene id, parts, and the configuration.

    Args:
        path: The folder; made when missing.
        root: Root of the scene ids.
        overwrite: Accept a folder that no run made.

    Raises:
        OutputError: It is a file, not writable, holds something else, or was made with
            another root.
    """

    def __init__(self, path: Path, root: Path, *, overwrite: bool) -> None:
        self.path = path
        self.overwrite = overwrite
        self._root = root
        with _written(path):
            self._check(root)
            (path / WORK).mkdir(parents=True, exist_ok=True)

    @staticmethod
    def recorded_root(path: Path) -> Path | None:
        """Root that an earlier call gave its ids by, if OUT has one."""
        record = path / WORK / ROOT_FILE
        with _written(path):
            return Path(os.fsdecode(record.read_bytes())) if record.is_file() else None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs out: each would delete and write the files of the other.

        Raises:
            OutputError: Another run has the folder, or it cannot be written.
        """
        with ExitStack() as held:
            with _written(self.path):
                held.enter_context(exclusive(self.path / WORK / "lock", self.path))
                with atomic_path(self.path / WORK / ROOT_FILE) as temporary:
                    # Bytes: names on disk need not be UTF-8.
                    temporary.write_bytes(os.fsencode(self._root))
            yield

    def scene_folder(self, scene_id: str) -> Path:
        """Folder of a scene's outputs."""
        return self.path / scene_id

    def work_folder(self, scene_id: str, key: str) -> Path:
        """Folder of a scene's parts, by key: parts of other settings are never met."""
        # A flat name: scene "a" may be done while "a/b" still needs its parts.
        return self.path / WORK / "parts" / f"{_digest(scene_id)}-{key[:32]}"

    def discard_parts(self, scene_id: str, *, keep: str | None = None) -> None:
        """Delete what killed runs left of a scene.

        Args:
            scene_id: The scene.
            keep: Key of the parts that are still of use.
        """
        kept = None if keep is None else self.work_folder(scene_id, keep)
        for folder in (self.path / WORK / "parts").glob(f"{_digest(scene_id)}-*"):
            if folder != kept:
                shutil.rmtree(folder, ignore_errors=True)

    def finished(self, scene_id: str, key: str) -> SceneResult | None:
        """Result of a scene that is whole under this key, else None."""
        if self.overwrite:
            return None
        return read_result(self.scene_folder(scene_id), scene_id, key)

    def write(self, name: str, text: str) -> None:
        """Write a file of the run itself, `run.yaml` or `report.json`.

        Raises:
            OutputError: The disk is full or the folder cannot be written.
        """
        try:
            with atomic_path(self.path / name) as temporary:
                temporary.write_bytes(text.encode("utf-8", "backslashreplace"))
        except OSError as error:
            raise OutputError(
                f"{self.path / name} cannot be written ({error.strerror}); free some "
                "space or choose another -o"
            ) from error

    def _check(self, root: Path) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise OutputError(f"{self.path} is a file; -o wants a folder")
        known = self.recorded_root(self.path)
        if known is not None:
            if known != root and not self.overwrite:
                raise OutputError(
                    f"{self.path} holds scenes below {known}, these lie below {root}; "
                    f"pass --root {known}, or choose another -o"
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
    path: Path, state: str, weights_sha256: str, settings: Mapping[str, Any]
) -> str:
    """Hash of everything that a scene's pixels depend on (contract C9).

    Args:
        path: The input, whose resolved path is part of its identity.
        state: `geoseg.identity.input_state` of its files.
        weights_sha256: Hash of the model.
        settings: Settings that change pixels; plain values.
    """
    identity = {
        "path": str(path.resolve()),
        "input": state,
        "weights": weights_sha256,
        "settings": settings,
    }
    text = json.dumps(identity, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _digest(scene_id: str) -> str:
    return hashlib.sha256(scene_id.encode()).hexdigest()[:16]


def _expand(path: Path) -> list[Path]:
    # Folders are resolved, files are not: a link in an archive has the archive's name.
    if path.is_dir():
        folder = path.resolve()
        found = [
            file
            for file in sorted(folder.rglob("*"))
            if file.suffix.lower() in SUFFIXES
            and file.is_file()
            and not _is_result(file)
        ]
        if not found:
            raise UsageError(f"{path} holds no scene ({', '.join(SUFFIXES)})")
        return found
    if path.is_file():
        return [_located(path)]
    matches = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 (absolute)
    files = [_located(Path(match)) for match in matches if Path(match).is_file()]
    files = [file for file in files if not _is_result(file)]
    if not files:
        raise UsageError(
            f"{path} matches folders only; name files, as in {path}/*.tif"
            if matches
            else f"{path} does not exist; check the path"
        )
    return files


def _is_result(file: Path) -> bool:
    """Tell a mask from a scene: OUT may lie in the archive, or be the archive."""
    if file.name not in (CLASSES, CONFIDENCE) and WORK not in file.parts:
        return False
    return any((folder / WORK / ROOT_FILE).is_file() for folder in file.parents)


def _located(file: Path) -> Path:
    return file.parent.resolve() / file.name


def _root(files: Sequence[Path], folders: Sequence[Path], root: Path | None) -> Path:
    if root is not None:
        return root.resolve()
    if len(folders) == 1 and all(file.is_relative_to(folders[0]) for file in files):
        return folders[0]
    return Path(os.path.commonpath([file.parent for file in files]))


def _scene_id(path: Path, root: Path) -> str:
    """Path below the root, each part safe as a folder's name (contract C12)."""
    if not path.is_relative_to(root):
        raise OutsideRootError(
            f"{path} lies outside the root {root}; pass another --root"
        )
    relative = path.relative_to(root).with_suffix("")
    return "/".join(_safe(part) for part in relative.parts)


def _safe(part: str) -> str:
    # Composed: some file systems hold an accent as a character of its own.
    cleaned = re.sub(r"[^\w.\-]+", "_", unicodedata.normalize("NFC", part))
    # No leading dot: "..", hidden files and geoseg's own folder cannot be met.
    cleaned = re.sub(r"^\.+", "_", cleaned) or "_"
    return f"{cleaned}_" if cleaned.casefold() in _RESERVED else cleaned
