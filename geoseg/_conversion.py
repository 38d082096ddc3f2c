"""Plain values checked into frozen dataclasses: the converter behind geoseg.config."""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import (
    Any,
    Literal,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from geoseg.errors import ConfigError, GeosegError

T = TypeVar("T")


def convert(data: Mapping[str, Any], cls: type[T]) -> T:
    """Check plain values into a dataclass, nested ones included.

    Fields may be bool, int, float (which accepts an int), str, Path, Literal, unions,
    tuples, lists, dicts and dataclasses. A field that is absent keeps its default.

    Args:
        data: Sections and values, as `compose` returns them.
        cls: A dataclass; a check of its own in `__post_init__` may raise ValueError.

    Raises:
        ConfigError: A key that `cls` does not have, a required one that is missing, or
            a value of the wrong type; the message starts with the dotted key.
    """
    return cast(T, _to_dataclass(data, cls, ""))


class _Mismatch(Exception):
    """A value does not have the expected type; carries nothing."""


def _to_dataclass(data: object, cls: type, prefix: str) -> object:
    """Build the dataclass `cls` from a mapping whose keys lie below `prefix`."""
    if data is None:  # An empty section of a YAML file.
        data = {}
    if not isinstance(data, Mapping):
        where = prefix or "the configuration"
        raise ConfigError(f"{where} must be a section of key: value, not {data!r}")
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    for key in data:
        if key not in fields:
            raise _unknown_key(_join(prefix, key), str(key), prefix, list(fields))
    hints = get_type_hints(cls)
    values = {
        name: _field_value(data, field, hints[name], _join(prefix, name))
        for name, field in fields.items()
        if name in data or _is_required(field)
    }
    try:
        return cls(**values)
    except GeosegError:
        raise
    except ValueError as error:
        raise ConfigError(f"{prefix}: {error}" if prefix else str(error)) from error


def _field_value(
    data: Mapping[str, object], field: dataclasses.Field[Any], hint: object, key: str
) -> object:
    """Return the checked value of a field; a section may be absent, a value not."""
    if field.name in data:
        return _checked(data[field.name], hint, key)
    if dataclasses.is_dataclass(hint):
        return _checked({}, hint, key)
    raise ConfigError(f"{key} is missing; set it with --set {key}=VALUE")


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return (
        field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    )


def _join(prefix: str, key: object) -> str:
    return f"{prefix}.{key}" if prefix else str(key)


def _unknown_key(full: str, key: str, prefix: str, known: list[str]) -> ConfigError:
    near = difflib.get_close_matches(key, known, n=1)
    if near:
        return ConfigError(
            f"unknown key {full}; did you mean {_join(prefix, near[0])}?"
        )
    where = f"keys of {prefix}" if prefix else "sections"
    return ConfigError(f"unknown key {full}; the {where} are {', '.join(known)}")


def _checked(value: object, hint: object, key: str) -> object:
    """Return `value` as the type `hint`, or raise an error that names the key."""
    try:
        return _match(value, hint, key)
    except _Mismatch:
        raise ConfigError(
            f"{key} must be {_describe(hint)}, not {value!r}; "
            f"set it with --set {key}=VALUE"
        ) from None


def _match(value: object, hint: object, key: str) -> object:
    """Return `value` as the type `hint`, or raise `_Mismatch`."""
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _to_dataclass(value, hint, key)
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _match_union(value, get_args(hint), key)
    if origin is Literal:
        return _match_literal(value, get_args(hint))
    if hint in (tuple, list) or origin in (tuple, list, Sequence):
        return _match_sequence(value, hint, key)
    if hint in (dict, Mapping) or origin in (dict, Mapping):
        return _match_dict(value, hint, key)
    return _match_scalar(value, hint)


def _match_scalar(value: object, hint: object) -> object:
    """Match bool, int, float, str, Path, None and Any."""
    if hint is Any or (hint in (None, type(None)) and value is None):
        return value
    if hint is Path and isinstance(value, (str, Path)) and str(value):
        return Path(value)
    # bool is an int to Python, but nobody means 1 by true.
    if hint is float and isinstance(value, (int, float)) and type(value) is not bool:
        if math.isinf(value):  # nan is a nodata value, infinity is nothing.
            raise _Mismatch
        return float(value)
    if hint in (bool, int, str) and type(value) is hint:
        return value
    raise _Mismatch


def _match_literal(value: object, choices: tuple[object, ...]) -> object:
    for choice in choices:
        if value == choice and type(value) is type(choice):
            return choice
    raise _Mismatch


def _match_union(value: object, members: tuple[Any, ...], key: str) -> object:
    """Match the member of the value's own type, else the first that accepts it."""
    exact = [member for member in members if type(value) is member]
    for member in exact or members:
        if dataclasses.is_dataclass(member) and not isinstance(value, Mapping):
            continue
        try:
            return _match(value, member, key)
        except _Mismatch:
            continue
    raise _Mismatch


def _match_sequence(value: object, hint: object, key: str) -> object:
    """Match list[X], tuple[X, ...] and tuple[X, Y]."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise _Mismatch
    kind = tuple if hint is tuple or get_origin(hint) is tuple else list
    members = get_args(hint) or (Any, ...)
    if kind is list or members[-1] is Ellipsis:
        members = (members[0],) * len(value)
    if len(members) != len(value):
        raise _Mismatch
    pairs = zip(value, members, strict=True)
    return kind(
        _match(item, member, f"{key}[{i}]") for i, (item, member) in enumerate(pairs)
    )


def _match_dict(value: object, hint: object, key: str) -> object:
    if not isinstance(value, Mapping):
        raise _Mismatch
    key_hint, value_hint = get_args(hint) or (Any, Any)
    return {
        _match(name, key_hint, key): _match(item, value_hint, _join(key, name))
        for name, item in value.items()
    }


_NAMES: dict[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Path: "a path",
    type(None): "null",
}


def _describe(hint: object) -> str:
    """Say in words what a type accepts."""
    arguments = get_args(hint)
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_describe(member) for member in arguments)
    if origin is Literal:
        return " or ".join(str(choice) for choice in arguments)
    if origin is tuple and arguments[-1] is not Ellipsis:
        return f"a list of {len(arguments)}: {', '.join(map(_describe, arguments))}"
    if origin in (tuple, list, Sequence):
        return f"a list, each item {_describe(arguments[0])}"
    if origin in (dict, Mapping) or dataclasses.is_dataclass(hint):
        return "a section of key: value"
    if isinstance(hint, type):
        return _NAMES.get(hint, hint.__name__)
    return str(hint)
