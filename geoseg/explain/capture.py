"""Hooks that record what modules get and give, and are gone when the block ends."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from torch import nn

Kept = TypeVar("Kept")


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a module."""

    arguments: dict[str, Any]
    """What it got, by the names of its `forward`."""
    output: Any
    """What it gave."""


class Recording(Generic[Kept]):
    """What was kept of the calls of some modules, by the modules' names."""

    def __init__(self, names: Mapping[str, nn.Module]) -> None:
        self._calls: dict[str, list[Kept]] = {name: [] for name in names}

    def add(self, name: str, kept: Kept) -> None:
        """Note one call."""
        self._calls[name].append(kept)

    def calls(self, name: str) -> list[Kept]:
        """Return what was kept of a module's calls, in their order."""
        return self._calls[name]

    def only(self, name: str) -> Kept:
        """Return what was kept of a module that was called just once."""
        (kept,) = self._calls[name]
        return kept


@contextmanager
def record(
    modules: Mapping[str, nn.Module], keep: Callable[[str, Call], Kept]
) -> Iterator[Recording[Kept]]:
    """Record calls of modules within a block; the hooks never outlive it.

    Args:
        modules: What to listen to, by names of the caller's choice.
        keep: Turns a module's name and a call into what is kept of it. Called at once,
            so that large tensors need not all live to the end of the forward pass.

    Yields:
        What was kept; filled while the model runs.
    """
    recording = Recording[Kept](modules)
    handles = []
    try:
        for name, module in modules.items():
            hook = _hook(name, inspect.signature(module.forward), recording, keep)
            handles.append(module.register_forward_hook(hook, with_kwargs=True))
        yield recording
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def with_arguments(modules: list[nn.Module], **changes: object) -> Iterator[None]:
    """Call modules with other keyword arguments within a block."""

    def hook(
        _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return args, kwargs | changes

    handles = []
    try:
        for module in modules:
            handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def whole_call(_: str, call: Call) -> Call:
    """Keep all of a call: the `keep` of recordings of small things."""
    return call


def _hook(
    name: str,
    signature: inspect.Signature,
    recording: Recording[Kept],
    keep: Callable[[str, Call], Kept],
) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Any], None]:
    def hook(
        _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: object
    ) -> None:
        arguments = signature.bind(*args, **kwargs).arguments
        recording.add(name, keep(name, Call(dict(arguments), output)))

    return hook
