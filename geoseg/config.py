"""Configuration: recipes composed by Hydra, checked into frozen dataclasses."""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString, Transformer
from hydra.core.singleton import Singleton
from hydra.core.utils import JobRuntime
from hydra.errors import HydraException, OverrideParseException
from hydra.version import VersionBase
from omegaconf import DictConfig, MissingMandatoryValue, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from geoseg._conversion import convert
from geoseg.errors import ConfigError

__all__ = [
    "choices",
    "combinations",
    "compose",
    "convert",
    "dump",
    "override",
    "pipeline_names",
    "recipes",
]

_PACKAGE = Path(__file__).parent
_COMPOSING = threading.Lock()  # Hydra keeps its state in process-wide singletons.
_HYDRA_NOISE = re.compile(
    r"\n\s*(?:(?:Config )?search path:|full_key:|object_type=|3\. To sweep|See https)",
    re.IGNORECASE,
)
_RESOLVERS = ("hydra", "now", "python_version")  # What Hydra registers in OmegaConf.


def recipes() -> Path:
    """Return the folder that holds configs/ and pipelines/.

    A wheel carries them inside the package; a checkout reads its own.
    """
    for root in (_PACKAGE / "_recipes", _PACKAGE.parent):
        if (root / "pipelines" / "segment.yaml").is_file():
            return root
    raise ConfigError(
        "the recipes (configs/ and pipelines/) are missing from this installation; "
        "install geoseg again"
    )


def pipeline_names() -> tuple[str, ...]:
    """Return the names that `compose` knows, sorted."""
    return tuple(sorted(path.stem for path in (recipes() / "pipelines").glob("*.yaml")))


def compose(name_or_path: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Compose a pipeline's configuration, all interpolations resolved.

    Nothing of Hydra stays behind: no global state, no output folder, no change of
    the current folder.

    Args:
        name_or_path: A pipeline of ours ("segment"), or the path of a YAML file,
            whose defaults list may name files beside it and our own recipes.
        overrides: Hydra overrides: "tiling.stride=624" sets a value,
            "clusters=scheduler" chooses a part from configs/.

    Returns:
        Sections and values as plain dicts, lists and scalars.

    Raises:
        ConfigError: No such recipe, or one that cannot be read or composed.
    """
    path = _find_pipeline(name_or_path)
    root = recipes()
    search = [str(root / "pipelines"), str(root / "configs")]
    with _COMPOSING, _one_line_errors(name_or_path), _hydra_state_of_its_own():
        groups = _group_names(map(Path, search)) | _groups_named_in(path)
        groups |= _groups_chosen_from(path.parent, overrides)
        # Hydra takes any folder beside the recipe for a group of parts: `out/`, too.
        beside = _folders(path.parent) - groups
        late = [text for text in overrides if _key(text) in beside]
        arguments = [
            override("hydra.searchpath", [f"file://{folder}" for folder in search]),
            *(_forced(text, groups) for text in overrides if text not in late),
        ]
        with initialize_config_dir(str(path.parent), version_base="1.3"):
            composed = hydra_compose(path.stem, arguments)
        for text in late:
            _set(composed, text)
        plain = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    return cast(dict[str, Any], plain)


def combinations(settings: Sequence[str]) -> list[tuple[str, ...]]:
    """Write out settings that hold several values, in every combination.

    Args:
        settings: Hydra overrides: "train.seed=0,1", also "train.seed=range(0,3)".
            Those of one value take no part.

    Returns:
        The settings of each combination, those that vary only; one empty tuple where
        none varies.

    Raises:
        ConfigError: One cannot be read.
    """
    varied = []
    for text in settings:
        with _one_line_errors("of --set"):
            (parsed,) = OverridesParser.create().parse_overrides([text])
            if parsed.is_sweep_override():
                key = parsed.get_key_element()
                values = parsed.sweep_string_iterator()
                varied.append([f"{key}={value}" for value in values])
    return list(itertools.product(*varied))


def override(key: str, value: object) -> str:
    """Write one override whose value is taken as it is, whatever it contains.

    Args:
        key: Dotted key, "model.path".
        value: None, bool, number, string, path, or a sequence or mapping of them; the
            keys of a mapping are words.
    """
    return f"{key}={_literal(value)}"


def choices(text: str) -> tuple[str, list[object]]:
    """Return key and values of "key=value,value,...", read as Hydra reads sweeps.

    Quotes and brackets keep commas together.

    Raises:
        ConfigError: It sets nothing, or cannot be read.
    """
    if not all(text.partition("=")):
        raise ConfigError(f"{text!r} sets nothing; write it as key=value,value")
    with _one_line_errors(text):
        try:
            parsed = OverridesParser.create().parse_override(text)
        except HydraException as error:
            raise _unreadable(text, error) from error
        values = [parsed.value()]
        if parsed.is_sweep_override():
            values = list(parsed.sweep_iterator(Transformer.identity))
    return parsed.get_key_element(), [_unquoted(value) for value in values]


def dump(config: object) -> str:
    """Write a dataclass as YAML that `yaml.safe_load` and `convert` read back."""
    return yaml.dump(_to_plain(config), Dumper=_Dumper, sort_keys=False, width=88)


class _Dumper(yaml.SafeDumper):
    """Quotes strings that Hydra's YAML reader would take for numbers, such as 1e3."""


_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def _find_pipeline(name_or_path: str) -> Path:
    """Return the absolute path of a pipeline's YAML file."""
    path = Path(name_or_path)
    if path.suffix == ".yml":
        raise ConfigError(f"{path}: rename it to {path.with_suffix('.yaml').name}")
    if path.suffix == ".yaml" or len(path.parts) > 1:
        if not path.is_file():
            raise ConfigError(f"{path}: no such file; give a YAML file or {_known()}")
        if path.suffix != ".yaml":
            raise ConfigError(f"{path}: a configuration's name must end in .yaml")
        return path.resolve()
    if name_or_path not in pipeline_names():
        hint = _nearest(name_or_path, pipeline_names())
        raise ConfigError(
            f"no pipeline is named {name_or_path!r}{hint}; give a path that ends in "
            f".yaml or {_known()}"
        )
    return (recipes() / "pipelines" / f"{name_or_path}.yaml").resolve()


def _known() -> str:
    return f"one of {', '.join(pipeline_names())}"


def _group_names(folders: Iterable[Path]) -> set[str]:
    """Return the names of the groups (sub-folders with YAML files) in some folders."""
    return {
        name
        for folder in folders
        for name in _folders(folder)
        if any((folder / name).glob("*.yaml"))
    }


def _folders(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir() if entry.is_dir()}


def _groups_named_in(path: Path) -> set[str]:
    """Return the groups that the defaults list of a recipe takes parts of."""
    content = yaml.safe_load(path.read_text())
    defaults = content.get("defaults") if isinstance(content, Mapping) else None
    entries = defaults if isinstance(defaults, list) else []
    keys = [key for entry in entries if isinstance(entry, Mapping) for key in entry]
    return {str(key).split()[-1].split("@")[0].strip("/") for key in keys if key}


def _groups_chosen_from(folder: Path, overrides: Sequence[str]) -> set[str]:
    """Return the groups beside a recipe that overrides take a part of, `region=north`.

    A recipe that is included may name them.
    """
    pairs = [(_key(text), text.partition("=")[2]) for text in overrides]
    return {
        key
        for key, value in pairs
        if re.fullmatch(r"[\w.-]+", value)
        and (folder / key / f"{value}.yaml").is_file()
    }


def _key(text: str) -> str:
    return text.lstrip("+").partition("=")[0]


def _set(composed: DictConfig, text: str) -> None:
    """Apply an override to what was composed, as Hydra applies those of values."""
    (parsed,) = OverridesParser.create().parse_overrides([text])
    if parsed.is_sweep_override():
        raise ConfigError(
            f"{text} has several values; write a list as [1,2] and text as \"'a,b'\""
        )
    OmegaConf.update(composed, parsed.key_or_group, parsed.value(), force_add=True)


def _forced(text: str, groups: set[str]) -> str:
    """Let an override set a key that the YAML leaves to the dataclass's default.

    Hydra refuses keys that no file names; `convert` knows the keys that exist and gives
    the better error, so Hydra is told to add what is not there.
    """
    key, equals, _ = text.partition("=")
    if not equals and not text.startswith("~"):
        raise ConfigError(f"{text!r} sets nothing; write it as key=value")
    if key.startswith(("+", "~")) or key.split("@")[0] in groups:
        return text
    return f"++{text}"


@contextmanager
def _hydra_state_of_its_own() -> Iterator[None]:
    """Give Hydra fresh singletons and put the caller's back.

    geoseg may be called from within somebody's Hydra application.
    """
    # Not Singleton.get_state(): it copies deeply, the caller's objects would lose their
    # identity. What is no state of a run (found plugins, stored schemas) is shared.
    instances = Singleton._instances
    resolvers = [name for name in _RESOLVERS if not OmegaConf.has_resolver(name)]
    Singleton._instances = _without_run_state(instances)
    try:
        yield
    finally:
        instances.update(_without_run_state(Singleton._instances))
        Singleton._instances = instances
        for name in resolvers:
            OmegaConf.clear_resolver(name)


def _without_run_state(instances: dict[type, Singleton]) -> dict[type, Singleton]:
    run_state = (GlobalHydra, HydraConfig, JobRuntime, VersionBase)
    return {kind: one for kind, one in instances.items() if kind not in run_state}


@contextmanager
def _one_line_errors(name: str) -> Iterator[None]:
    """Turn what Hydra, OmegaConf and the YAML reader raise into one line."""
    try:
        yield
    except ConfigError:
        raise
    except MissingMandatoryValue as error:
        key = error.full_key
        message = f"{key} has no value; set it with --set {key}=VALUE"
        raise ConfigError(message) from error
    except OverrideParseException as error:
        raise _unreadable(error.override.removeprefix("++"), error) from error
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        raise ConfigError(f"configuration {name}: {_one_line(error)}") from error
    except (OSError, ValueError) as error:  # An unreadable file, not UTF-8, odd YAML.
        raise ConfigError(f"configuration {name}: {_one_line(error)}") from error


def _unreadable(text: str, error: HydraException) -> ConfigError:
    return ConfigError(
        f"cannot read the setting {text!r}: {_one_line(error)}; quote text with "
        "special characters, \"key='text'\", several in quotes each, \"key='a','b'\""
    )


def _one_line(error: BaseException) -> str:
    """Return an error's text, its cause's where Hydra only wraps, on one line."""
    while not str(error).strip() and error.__cause__ is not None:
        error = error.__cause__
    # Hydra adds its search path and advice for its own program: noise to our users.
    kept = _HYDRA_NOISE.split(str(error), maxsplit=1)[0].replace("'++", "'")
    return re.sub(r"\s+", " ", kept).strip() or type(error).__name__


def _unquoted(value: object) -> object:
    """Return what Hydra parsed as plain values."""
    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, list):
        return [_unquoted(item) for item in value]
    return value


def _literal(value: object) -> str:
    """Write a value in the grammar of Hydra's overrides."""
    if value is None:
        return "null"
    if isinstance(value, (bool, int, float)):
        return str(value).lower()
    if isinstance(value, (str, Path)):
        return _quoted(str(value))
    if isinstance(value, Mapping):
        items = (f"{key}:{_literal(item)}" for key, item in value.items())
        return f"{{{','.join(items)}}}"
    if isinstance(value, Sequence):
        return f"[{','.join(_literal(item) for item in value)}]"
    raise ConfigError(f"cannot write {value!r} as a configuration value")


def _quoted(text: str) -> str:
    """Quote a string; `${` stays text instead of an interpolation."""
    # Hydra unescapes quotes, and backslashes only where they precede one; OmegaConf
    # then unescapes `\${` and the backslashes before it.
    text = re.sub(r"(\\*)\$\{", lambda m: m[1] * 2 + r"\${", text)
    text = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + m[2].replace("'", r"\'"), text)
    return f"'{text}'"


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def _to_plain(value: object) -> object:
    """Return dataclasses, tuples and paths as dicts, lists and strings."""
    if dataclasses.is_dataclass(value):
        return {
            field.name: _to_plain(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if field.init
        }
    if isinstance(value, Mapping):
        return {key: _to_plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_to_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
