"""The class table of a recipe: what the values and colours of masks mean."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from geoseg.errors import ConfigError, GeosegWarning, SceneError
from geoseg.types import ClassInfo

IGNORE = 255
"""Class index of a pixel without a label."""

UNKNOWN = 254
"""Class index of a pixel whose mask holds what no class table explains; it is told of
or becomes `IGNORE`, and never leaves `geoseg.data`."""

Code = int | str | tuple[int, int, int]
"""What stands for a class in labels: a mask's value, a colour ('#e2a929' or red, green,
blue), or text in the class column of a vector file."""

Unknown = Literal["fail", "ignore"]
"""What is done about labels that the table does not explain."""

_MOST_TOLD = 8
"""Values that a message names."""

_HEX = re.compile(r"#[0-9a-fA-F]{6}")


@dataclass(frozen=True, slots=True)
class ClassConfig:
    """One class of the class table."""

    id: int
    """Value in class masks that geoseg writes, 0..254."""
    name: str
    """Name in legends."""
    color: tuple[int, int, int]
    """Red, green, blue, 0-255: in legends, and in colour-coded masks."""
    mask: tuple[Code, ...] = ()
    """What stands for it in the labels, where that is not the id or the colour; several
    are merged."""

    @property
    def info(self) -> ClassInfo:
        """The class as a model declares it."""
        return ClassInfo(self.id, self.name, self.color)


@dataclass(frozen=True, slots=True)
class ClassTable:
    """Classes in the order of the logits, and how labels name them."""

    classes: tuple[ClassConfig, ...]
    ignore: tuple[Code, ...] = ()
    """Values, colours or texts that mean: no label here."""
    unknown: Unknown = "fail"
    """Whether labels that neither names are an error, or no labels."""

    def __post_init__(self) -> None:
        """Check that every label has one meaning.

        Raises:
            ConfigError: An id, a name or a code is there twice or cannot be.
        """
        if len(self.classes) > UNKNOWN:
            raise ConfigError(
                f"data.classes has {len(self.classes)} classes; {UNKNOWN} is the most"
            )
        for what in ("id", "name"):
            counts = Counter(getattr(entry, what) for entry in self.classes)
            twice = [value for value, count in counts.items() if count > 1]
            if twice:
                raise ConfigError(
                    f"data.classes has the {what} {twice[0]} twice; change one"
                )
        for entry in self.classes:
            _check_class(entry)
        owners: dict[object, str] = {}
        both = [("data.ignore", code) for code in self.ignore]
        both += [(e.name, code) for e in self.classes for code in set(e.mask)]
        for owner, code in both:
            _check_color(code, owner)
            if owners.setdefault(_key(code), owner) != owner:
                raise ConfigError(
                    f"{code!r} in labels means both {owners[_key(code)]} and {owner}; "
                    "name it once in data.classes and data.ignore"
                )
        for entry in self.classes:
            if not entry.mask:
                _check_stand_ins(entry, owners)

    @property
    def infos(self) -> tuple[ClassInfo, ...]:
        """The classes as a model declares them."""
        return tuple(entry.info for entry in self.classes)

    @property
    def ids(self) -> npt.NDArray[np.uint8]:
        """From class index to id, shape (256,); `IGNORE` stays 255, as nodata is."""
        table = np.full(256, IGNORE, np.uint8)
        table[: len(self.classes)] = [entry.id for entry in self.classes]
        return table

    def index(self, name: str, key: str) -> int:
        """Return the index of a class by its name.

        Args:
            name: Its name.
            key: Key of the recipe that names it, for messages.

        Raises:
            ConfigError: There is none.
        """
        names = [entry.name for entry in self.classes]
        if name not in names:
            raise ConfigError(
                f"{key} is {name!r}, which is no class; data.classes has {names}"
            )
        return names.index(name)

    def coding(self, *, colored: bool) -> MaskCoding:
        """Return how masks are read.

        Args:
            colored: Colours tell the class, not values.
        """
        meanings: dict[int, int] = {}
        for index, entry in enumerate(self.classes):
            if not entry.mask:
                code = pack(entry.color) if colored else entry.id
                if code in meanings:
                    raise ConfigError(
                        f"data.classes: {entry.name} has the color of another class, "
                        "and masks are told by it; give it one of its own"
                    )
                meanings[code] = index
        for index, entry in enumerate(self.classes):
            codes = _of_kind(entry.mask, colored=colored)
            if entry.mask and not codes:
                raise ConfigError(
                    f"data.classes: {entry.name} has no "
                    f"{'colour' if colored else 'value'} in masks; add it to its mask"
                )
            meanings |= dict.fromkeys(codes, index)
        meanings |= dict.fromkeys(_of_kind(self.ignore, colored=colored), IGNORE)
        return MaskCoding(meanings, colored)

    def declared_kind(self) -> Literal["values", "colors"] | None:
        """Tell what masks hold, if the table names some of it.

        Raises:
            ConfigError: It names values and colours: a mask holds one or the other.
        """
        codes = [code for entry in self.classes for code in entry.mask]
        codes += self.ignore
        colors = [code for code in codes if _packed(code) is not None]
        values = [code for code in codes if isinstance(code, int)]
        if colors and values:
            raise ConfigError(
                f"data.classes and data.ignore name colours ({colors[0]!r}) and values "
                f"({values[0]!r}) of masks; masks hold one or the other"
            )
        return "colors" if colors else "values" if values else None

    def of_attribute(self, value: object) -> int:
        """Return the index for a value of a class column, `UNKNOWN` if it has none.

        A class is found by its codes if it has some, else by its name or its id.
        """
        for code in self.ignore:
            if _same(value, code):
                return IGNORE
        for index, entry in enumerate(self.classes):
            if any(_same(value, code) for code in entry.mask or (entry.name, entry.id)):
                return index
        return UNKNOWN


class MaskCoding:
    """From a mask's values or packed colours to class indices."""

    def __init__(self, meanings: Mapping[int, int], colored: bool) -> None:
        """Sort the codes: they are looked up by bisection, whatever their range."""
        self.colored = colored
        """Pixels are packed colours, see `pack`."""
        self._codes = np.array(sorted(meanings), np.int64)
        self._indices = np.array([meanings[c] for c in sorted(meanings)], np.uint8)

    def knows(self, value: float | None) -> bool:
        """Tell whether a value has a meaning of its own, whatever the file says."""
        return value is not None and value in self._codes

    def labels(self, pixels: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.uint8]:
        """Return the class index of each pixel, `UNKNOWN` for what has none.

        Args:
            pixels: Values, or packed colours; any shape.
        """
        if pixels.dtype == np.uint8:  # A table of 256 is thirty times faster.
            labels: npt.NDArray[np.uint8] = self._look_up(np.arange(256))[pixels]
            return labels
        return self._look_up(pixels.astype(np.int64))

    def _look_up(self, values: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        places = np.searchsorted(self._codes, values)
        places = np.minimum(places, len(self._codes) - 1)
        labels = self._indices[places]
        labels[self._codes[places] != values] = UNKNOWN
        return labels

    def count(
        self, pixels: npt.NDArray[np.integer[Any]], where: npt.NDArray[np.bool_]
    ) -> Counter[str]:
        """Count the values, or colours, of some pixels, as users write them."""
        values, counts = np.unique(pixels[where], return_counts=True)
        shown = (f"#{v:06x}" if self.colored else str(v) for v in values.tolist())
        return Counter(dict(zip(shown, counts.tolist(), strict=True)))


def check_known(
    unknown: Mapping[str, int], count: int, where: str, things: str = "pixels"
) -> None:
    """Refuse labels that the class table does not explain.

    Args:
        unknown: Pixels by value or colour.
        count: How many pixels were looked at.
        where: What holds them.
        things: What is counted.

    Raises:
        SceneError: There are some.
    """
    if not unknown:
        return
    most = sorted(unknown.items(), key=lambda item: (-item[1], item[0]))
    told = [f"{code} ({number / count:.2%})" for code, number in most[:_MOST_TOLD]]
    if len(most) > _MOST_TOLD:
        told.append(f"{len(most) - _MOST_TOLD} more")
    total = sum(unknown.values())
    raise SceneError(
        f"{where}: {total} {things} ({total / count:.2%}) have labels that are not in "
        f"the class table: {', '.join(told)}; name them in data.classes or "
        "data.ignore, or set data.unknown to ignore"
    )


def refuse_or_warn(
    policy: Unknown,
    unknown: Mapping[str, int],
    count: int,
    where: str,
    things: str = "pixels",
) -> None:
    """Refuse labels that the class table does not explain, or warn of them.

    Args:
        policy: Which of both.
        unknown: As the rest, see `check_known`.
        count: See there.
        where: See there.
        things: See there.

    Raises:
        SceneError: There are some, and they are an error.

    Warns:
        GeosegWarning: There are some, and they are no labels.
    """
    try:
        check_known(unknown, count, where, things)
    except SceneError as error:
        if policy == "fail":
            raise
        told = str(error).partition("; name them in")[0]
        warnings.warn(f"{told}; they count as no labels", GeosegWarning, stacklevel=3)


def pack(color: Sequence[int]) -> int:
    """Write red, green and blue, 0-255, as one number."""
    red, green, blue = color
    return red << 16 | green << 8 | blue


def _check_class(entry: ClassConfig) -> None:
    if not 0 <= entry.id <= 254:
        raise ConfigError(
            f"data.classes: {entry.name} has the id {entry.id}; class masks hold 0 to "
            "254"
        )
    _check_color(entry.color, entry.name)


def _check_stand_ins(entry: ClassConfig, owners: Mapping[object, str]) -> None:
    """Refuse what stands for a class without `mask` and is written for another."""
    stand_ins: dict[str, Code] = {
        "id": entry.id,
        "color": entry.color,
        "name": entry.name,
    }
    for what, code in stand_ins.items():
        if (owner := owners.get(_key(code))) is not None:
            raise ConfigError(
                f"{code!r} in labels means both {owner} and {entry.name}, which is "
                f"told by its {what} as it has no mask; give {entry.name} a mask, or "
                f"take {code!r} out of {owner}"
            )


def _check_color(code: Code, owner: str) -> None:
    if isinstance(code, tuple) and not all(0 <= part <= 255 for part in code):
        raise ConfigError(
            f"data.classes: {owner} has the color {list(code)}; give red, green and "
            "blue, each 0 to 255"
        )


def _packed(code: Code) -> int | None:
    """Return a colour as one number, None for a value or a text."""
    if isinstance(code, tuple):
        return pack(code)
    if isinstance(code, str) and _HEX.fullmatch(code):
        return int(code[1:], 16)
    return None


def _key(code: Code) -> object:
    """Return what is equal for codes that mean the same."""
    packed = _packed(code)
    return code if packed is None else ("color", packed)


def _of_kind(codes: Iterable[Code], *, colored: bool) -> list[int]:
    """Return the colours, packed, or the values among some codes."""
    if not colored:
        return [code for code in codes if isinstance(code, int)]
    return [packed for packed in map(_packed, codes) if packed is not None]


def _same(value: object, code: Code) -> bool:
    """Compare an attribute with a code; numbers may be text, or 3.0."""
    if isinstance(code, int) and isinstance(value, float):
        return value == code
    return str(value).strip() == str(code)
