"""Which image belongs to which labels: two patterns below one folder."""

from __future__ import annotations

import fnmatch
import glob
import re
import warnings
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from geoseg.data.config import DataConfig
from geoseg.data.files import VECTOR_SUFFIXES
from geoseg.errors import ConfigError, GeosegWarning
from geoseg.layout import PICTURES, PREVIEW, RESULT_RASTERS, RUN_YAML

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
    made_too: bool
    """Whether they may be what a run of geoseg wrote."""


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
    images, masks = _candidates(config, one_for_all)
    if not images:
        raise ConfigError(
            f"no image matches data.images={config.images} below {config.root}; check "
            "both"
        )
    if one_for_all:
        return [Pair(name, images[name], one_for_all) for name in sorted(images)]
    _tell("image", "labels", images.keys() - masks.keys(), config)
    _tell("file of labels", "image", masks.keys() - images.keys(), config)
    both = sorted(images.keys() & masks.keys())
    if not both:
        raise ConfigError(
            f"no image of data.images={config.images} has labels at "
            f"data.labels={config.labels} below {config.root}; {{stem}} must be the "
            "same for both"
        )
    return [Pair(name, images[name], masks[name]) for name in both]


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


def _candidates(
    config: DataConfig, one_for_all: Path | None
) -> tuple[dict[str, Path], dict[str, Path]]:
    """Return images and files of labels by name, without what is left out."""
    # What a run wrote below `root` is no scene; masks of it may well be labels.
    kinds = [_Kind(config.images, (), made_too=False)]
    if one_for_all is None:
        kinds.append(_Kind(config.labels, VECTOR_SUFFIXES, made_too=True))
    found: dict[str, dict[str, Path]] = {config.labels: {}}
    taken: set[Path] = set()
    # `{stem}.png` would take what `{stem}_mask.png` means: the longer one comes first.
    for kind in sorted(kinds, key=lambda kind: -len(kind.pattern)):
        found[kind.pattern] = _by_name(config.root, kind, taken)
        taken |= set(found[kind.pattern].values())
    names = {name for files in found.values() for name in files}
    for name in chosen(names, config.leave_out):
        for files in found.values():
            files.pop(name, None)
    return found[config.images], found[config.labels]


def _is_made(path: Path, root: Path) -> bool:
    """Tell whether a file is what geoseg writes into the folder of a run."""
    result = path.name in (*RESULT_RASTERS, PREVIEW)
    for folder in path.parents:
        inside = result or path.is_relative_to(folder / PICTURES)
        if inside and (folder / RUN_YAML).is_file():
            return True
        if folder == root:
            break
    return False


def _by_name(root: Path, kind: _Kind, taken: Collection[Path]) -> dict[str, Path]:
    """Return the files that fit a pattern by the name of their scene.

    Args:
        root: Folder that the pattern is relative to.
        kind: The pattern, and what may fit it.
        taken: Files that are something else.
    """
    pattern = kind.pattern
    if pattern.count("{stem}") != 1 or Path(pattern).is_absolute():
        raise ConfigError(
            f"data.images and data.labels: {pattern} must be a path below data.root "
            "with one {stem} in it"
        )
    regex = _regex(pattern)
    found: dict[str, Path] = {}
    # Not by Path.glob, which does not follow links to folders.
    names = glob.glob(_glob(pattern), root_dir=root, recursive=True)  # noqa: PTH207
    for file in sorted(names):
        path = root / file
        match = regex.fullmatch(Path(file).as_posix())
        open_ended = pattern.endswith("*")
        if match is None or path in taken or not path.is_file():
            continue
        if open_ended and path.suffix.lower() not in (*_RASTERS, *kind.also):
            continue
        if not kind.made_too and _is_made(path, root):
            continue
        parts = [match.groupdict().get("folder"), match["stem"]]
        name = "/".join(part for part in parts if part)
        if name in found:
            raise ConfigError(
                f"{found[name]} and {path} both are {name} of {pattern}; leave one, "
                "or tell them apart with {folder} in data.images and data.labels"
            )
        found[name] = path
    return found


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
    meanings = {"{folder}/": "**/", "{stem}": "*"}
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
