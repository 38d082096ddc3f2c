"""Which image belongs to which labels: two patterns below one folder."""

from __future__ import annotations

import fnmatch
import functools
import glob
import os
import re
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from geoseg.data.config import DataConfig
from geoseg.data.files import VECTOR_SUFFIXES
from geoseg.errors import ConfigError, GeosegWarning
from geoseg.layout import PICTURE, PICTURES, RESERVED, RUN_YAML

_RASTERS = (
    *(".tif", ".tiff", ".png", ".jpg", ".jpeg"),
    *(".jp2", ".vrt", ".webp", ".bmp"),
)
"""What a pattern that ends in `*` finds: no .aux.xml, .tfw, .ovr."""

_MOST_NAMED = 5
"""Names in a message."""

_TOKEN = re.compile(r"\{folder\}/|\{stem\}|\*|[^{*]+|.")


@dataclass(frozen=True, slots=True)
class Pair:
    """An image and what labels it."""

    name: str
    """Folder and stem, as their patterns found them."""
    image: Path
    labels: Path


@dataclass(frozen=True, slots=True)
class _Kind:
    """Files that are looked for."""

    pattern: str
    """Path with {stem}, {folder} and *."""
    also: tuple[str, ...]
    """Extensions besides those of rasters that a final `*` may stand for."""


@dataclass(frozen=True, slots=True)
class _File:
    """A file that fits a pattern."""

    name: str
    """Of its scene."""
    path: Path
    real: str
    """Where it lies, whichever links to folders led there."""


@dataclass(frozen=True, slots=True)
class _Candidates:
    """What may be paired; of several ways to a file the shortest comes first."""

    images: Mapping[str, _File]
    """By name of the scene."""
    labels: Mapping[str, _File]
    """By name of the scene; empty if one file labels all."""
    made: int
    """Files that fit `data.images`, but that a run of geoseg wrote."""


def find_pairs(config: DataConfig) -> list[Pair]:
    """Return the pairs below `data.root`, sorted by name.

    Raises:
        ConfigError: There is none, what belongs together is not clear, or, unless
            `data.on_bad` is skip, an image has no labels or the reverse.

    Warns:
        GeosegWarning: One without the other is left out.
    """
    if not config.root.is_dir():
        raise ConfigError(
            f"data.root: {config.root} is no folder; set it to where the data are"
        )
    one_for_all = _one_for_all(config)
    found = _candidates(config, one_for_all)
    images, masks = found.images, found.labels
    if not images:
        raise ConfigError(
            f"no image matches data.images={config.images} below {config.root}"
            f"{_aside(found.made)}; check both"
        )
    if one_for_all:
        labels = _File("", one_for_all, str(one_for_all))
        return _once((image, labels) for image in images.values())
    both = images.keys() & masks.keys()
    _tell("image", "labels", _alone(images, both), config)
    _tell("file of labels", "image", _alone(masks, both), config)
    if not both:
        raise ConfigError(
            f"no image of data.images={config.images} has labels at "
            f"data.labels={config.labels} below {config.root}; {{stem}} must be the "
            "same for both"
        )
    return _once((images[name], masks[name]) for name in images if name in both)


def chosen(names: Collection[str], patterns: Iterable[str]) -> set[str]:
    """Return the names that some patterns mean; `*` passes over `/`.

    A pattern that is a name itself, as `a[1]`, means this one only.
    """
    every = set(names)
    found: set[str] = set()
    for pattern in patterns:
        exact = every & {pattern}
        found |= exact or {n for n in every if fnmatch.fnmatchcase(n, pattern)}
    return found


def listed(names: Iterable[str]) -> str:
    """Return a few of some names, and how many more there are."""
    ordered = sorted(names)
    text = ", ".join(ordered[:_MOST_NAMED])
    more = len(ordered) - _MOST_NAMED
    return f"{text} and {more} more" if more > 0 else text


def _one_for_all(config: DataConfig) -> Path | None:
    """Return the vector file that labels all images, None if each has its own."""
    if "{stem}" in config.labels:
        if ("{folder}" in config.labels) != ("{folder}" in config.images):
            raise ConfigError(
                "data.images and data.labels: use {folder} in both, or in none"
            )
        return None
    path = config.root / config.labels
    if path.suffix.lower() not in VECTOR_SUFFIXES:
        raise ConfigError(
            f"data.labels={config.labels} names one file for all images; put {{stem}} "
            "where the name of the image belongs"
        )
    if not path.exists():
        raise ConfigError(f"data.labels: {path} does not exist; check the path")
    return path


def _candidates(config: DataConfig, one_for_all: Path | None) -> _Candidates:
    """Return images and files of labels, without what is left out."""
    root, made = config.root, 0
    kinds = [_Kind(config.images, ())]
    if one_for_all is None:
        kinds.append(_Kind(config.labels, VECTOR_SUFFIXES))
    found: dict[str, list[_File]] = {config.labels: []}
    taken: set[Path] = set()
    # `{stem}.png` would take what `{stem}_mask.png` means: the longer one comes first.
    for kind in sorted(kinds, key=lambda kind: -len(kind.pattern)):
        files = [file for file in _matching(root, kind) if file.path not in taken]
        if kind.pattern == config.images:
            # What a run wrote below `root` is no scene.
            own = [file for file in files if not _is_made(file.path, root)]
            made, files = len(files) - len(own), own
        found[kind.pattern] = files
        taken |= {file.path for file in files}
    names = {file.name for files in found.values() for file in files}
    left = chosen(names, config.leave_out)
    images, labels = _without(left, found[config.images], found[config.labels])
    asked = {file.name for file in images}
    # Masks that a run wrote may well be labels, but it wrote them for no other image.
    labels = [
        file for file in labels if file.name in asked or not _is_made(file.path, root)
    ]
    return _Candidates(
        _by_name(config.images, images), _by_name(config.labels, labels), made
    )


def _without(
    left: Collection[str], images: Sequence[_File], labels: Sequence[_File]
) -> tuple[list[_File], list[_File]]:
    """Leave scenes out, by whatever names links give to them, too.

    The same image with other labels is another scene, and stays.
    """
    of_name = {file.name: file.real for file in reversed(labels)}
    gone = {(file.real, of_name.get(file.name)) for file in images if file.name in left}
    gone_images = {image for image, _ in gone}
    kept = [
        file
        for file in images
        if file.name not in left
        and (file.real, of_name.get(file.name)) not in gone
        and (file.real not in gone_images or file.name in of_name)
    ]
    asked = {file.name for file in kept}
    gone_labels = {file.real for file in labels if file.name in left}
    return kept, [
        file
        for file in labels
        if file.name not in left
        and (file.real not in gone_labels or file.name in asked)
    ]


def _is_made(path: Path, root: Path) -> bool:
    """Tell whether a file is what geoseg writes into the folder of a run."""
    result = path.name in RESERVED
    picture = path.parent.name == PICTURES and PICTURE.fullmatch(path.name) is not None
    for folder in path.parents:
        inside = result or (picture and folder == path.parent.parent)
        if inside and (folder / RUN_YAML).is_file():
            return True
        if folder == root:
            break
    return False


def _aside(made: int) -> str:
    """Say how many files a run wrote that would be images else."""
    if not made:
        return ""
    files = "1 file" if made == 1 else f"{made} files"
    return f", apart from {files} that geoseg wrote there beside a {RUN_YAML}"


def _matching(root: Path, kind: _Kind) -> list[_File]:
    """Return the files that fit a pattern, those with the shortest paths first."""
    pattern = kind.pattern
    once = pattern.count("{stem}") == 1 and pattern.count("{folder}") <= 1
    if not once or Path(pattern).is_absolute():
        raise ConfigError(
            f"data.images and data.labels: {pattern} must be a path below data.root "
            "with one {stem} in it, and at most one {folder}"
        )
    regex = _regex(pattern)
    open_ended = pattern.endswith("*")
    real = functools.cache(os.path.realpath)
    top = real(root)
    found: list[tuple[int, bool, str, _File]] = []
    for file in _files(root, pattern):
        path = root / file
        match = regex.fullmatch(file)
        if match is None or not path.is_file():
            continue
        if open_ended and path.suffix.lower() not in (*_RASTERS, *kind.also):
            continue
        parts = [match.groupdict().get("folder"), match["stem"]]
        name = "/".join(part for part in parts if part)
        folder = real(path.parent)
        # Of paths of one length, that of the folder itself comes before links to it.
        linked = folder != f"{top}/{file}".rpartition("/")[0]
        one = _File(name, path, f"{folder}/{path.name}")
        found.append((file.count("/"), linked, file, one))
    return [one for *_, one in sorted(found, key=lambda each: each[:3])]


def _files(root: Path, pattern: str) -> Iterator[str]:
    """Give what a pattern may mean, and more, as paths below the root."""
    before, folder, after = pattern.partition("{folder}/")
    # Not by Path.glob, which does not follow links to folders; not by its `**`, which
    # follows those that lead back, too.
    if not folder or before[-1:] not in ("", "/"):
        for file in glob.glob(_glob(pattern), root_dir=root):  # noqa: PTH207
            yield Path(file).as_posix()
        return
    tops = glob.glob(_glob(before), root_dir=root) if before else [""]  # noqa: PTH207
    for top in tops:
        for below in _folders(root / top):
            for file in glob.glob(_glob(after), root_dir=below):  # noqa: PTH207
                yield Path(below.relative_to(root), file).as_posix()


def _folders(top: Path) -> Iterator[Path]:
    """Give a folder and all below it, through links too; one that leads back ends.

    What two links lead to is given twice: labels may lie in one folder for two.
    """
    above = {top: frozenset({os.path.realpath(top)})}
    for path, names, _ in os.walk(top, followlinks=True):
        folder = Path(path)
        passed = above.pop(folder)
        yield folder
        real = {
            name: os.path.realpath(folder / name)
            for name in names
            if not name.startswith(".")
        }
        names[:] = [name for name, place in real.items() if place not in passed]
        above |= {folder / name: passed | {real[name]} for name in names}


def _by_name(pattern: str, files: Iterable[_File]) -> dict[str, _File]:
    """Return files by the name of their scene, of which each has one."""
    found: dict[str, _File] = {}
    for file in files:
        known = found.setdefault(file.name, file)
        if known.real != file.real:
            raise ConfigError(
                f"{known.path} and {file.path} both are {file.name} of {pattern}; "
                "leave one, or tell them apart with {folder} in data.images and "
                "data.labels"
            )
    return found


def _once(files: Iterable[tuple[_File, _File]]) -> list[Pair]:
    """Return pairs sorted by name, each once however many links lead to its files."""
    pairs: dict[tuple[str, str], Pair] = {}
    for image, labels in files:
        pair = Pair(image.name, image.path, labels.path)
        pairs.setdefault((image.real, labels.real), pair)
    return sorted(pairs.values(), key=lambda pair: pair.name)


def _alone(files: Mapping[str, _File], both: Collection[str]) -> list[str]:
    """Return names of files without a counterpart, each file by one name only."""
    seen = {files[name].real for name in both}
    alone = []
    for name, file in files.items():
        if file.real not in seen:
            seen.add(file.real)
            alone.append(name)
    return alone


def _regex(pattern: str) -> re.Pattern[str]:
    meanings = {
        "{folder}/": "(?:(?P<folder>.+)/)?",
        "{stem}": "(?P<stem>[^/]+)",
        "*": "[^/]*",
    }
    tokens = _TOKEN.findall(pattern)
    return re.compile("".join(meanings.get(t) or re.escape(t) for t in tokens))


def _glob(pattern: str) -> str:
    tokens = _TOKEN.findall(pattern)
    meanings = {"{folder}/": "*/", "{stem}": "*"}
    return "".join(meanings.get(t, t.replace("[", "[[]")) for t in tokens)


def _tell(what: str, lacks: str, names: Iterable[str], config: DataConfig) -> None:
    """Refuse what has no counterpart, or warn that it is left out."""
    alone = list(names)
    if not alone:
        return
    told = f"{len(alone)} {what}{'s' if len(alone) > 1 and what == 'image' else ''}"
    text = f"{told} below {config.root} without {lacks}: {listed(alone)}"
    if config.on_bad == "fail":
        raise ConfigError(
            f"{text}; add them, name them in data.leave_out, or set data.on_bad to skip"
        )
    warnings.warn(f"{text}; left out", GeosegWarning, stacklevel=3)
