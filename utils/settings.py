"""Typed settings: dataclasses of sections, filled from YAML and from `section.key=value`."""

import dataclasses
import difflib
import math
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, TypeGuard

import yaml


def option(default: Any, **limits: Any) -> Any:
    """Declare a key with its limits: `low`, `high` (both allowed), `above`, `below` (neither), `choices`."""
    return field(default=default, metadata=limits)


def flatten(values: Mapping, prefix: str = "") -> dict[str, Any]:
    """Turn nested sections into one mapping by dotted path."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def read_yaml(path: Path) -> dict:
    """Read the sections of a YAML file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no YAML, or no sections in it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no configuration file {path}; see the folder configs")
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict | None):
        raise ValueError(f"{path} must hold sections (model, train, …), not {values!r:.60}")
    return values or {}


def copy_of(values: Mapping) -> dict:
    """Copy nested mappings."""
    return {key: copy_of(value) if isinstance(value, Mapping) else value for key, value in values.items()}


def override(values: dict, setting: str) -> None:
    """Put one `section.key=value` into nested dicts.

    Raises:
        ValueError: it is none.
    """
    dotted, equals, text = setting.partition("=")
    *parents, key = dotted.strip().split(".")
    if not equals or not parents or not all([*parents, key]):
        raise ValueError(f"{setting!r} is no setting; write section.key=value, as in train.epochs=10")
    for parent in parents:
        if values.get(parent) is None:
            values[parent] = {}
        values = values[parent]
        if not isinstance(values, dict):
            raise ValueError(f"{dotted}: {parent} is a value, not a section")
    try:
        values[key] = yaml.load(text, _Loader)
    except yaml.YAMLError:
        raise ValueError(f"{dotted}: {text!r} is no valid YAML value; put it in quotes") from None


def fill(kind: type, values: Mapping) -> Any:
    """Build a dataclass of sections from what YAML gave.

    Raises:
        ValueError: an unknown key, a wrong type or an impossible value, by its dotted path.
    """
    return _convert_section(values, kind, "", root=kind)


def _convert(value: Any, kind: Any, path: str, root: type) -> Any:
    """Turn what YAML gave into the type that the key has."""
    if _is_section(kind):
        return _convert_section({} if value is None else value, kind, path, root)
    if isinstance(kind, types.UnionType):  # X | None
        return None if value is None else _convert(value, typing.get_args(kind)[0], path, root)
    if typing.get_origin(kind) is tuple:
        return _convert_list(value, typing.get_args(kind), path, root)
    if kind is bool and isinstance(value, bool):
        return value
    plain = isinstance(value, str | int | float) and not isinstance(value, bool)
    try:
        if kind is str and plain and value != "":
            return str(value)
        if kind is int and plain and not (isinstance(value, float) and value != int(value)):
            return int(value)
        if kind is float and plain and math.isfinite(number := float(value)):  # YAML reads 1e-4 as a string
            return number
    except (ValueError, OverflowError):
        pass
    wanted = {str: "a text", int: "a whole number", float: "a finite number", bool: "true or false"}[kind]
    raise ValueError(f"{path} must be {wanted}, got {value!r}")


def _is_section(kind: Any) -> TypeGuard[type]:
    return dataclasses.is_dataclass(kind)


def _convert_section(values: Any, kind: type, path: str, root: type) -> Any:
    if not isinstance(values, Mapping):
        raise ValueError(f"{path} must be a section with keys, got {values!r}")
    kinds = typing.get_type_hints(kind)
    prefix = f"{path}." if path else ""
    for key in values:
        if key not in kinds:
            raise ValueError(f"unknown key {prefix}{key}{_hint(f'{prefix}{key}', root)}")
    result = {key: _convert(value, kinds[key], prefix + key, root) for key, value in values.items()}
    for key in dataclasses.fields(kind):
        if key.name in result:
            _check_limits(result[key.name], prefix + key.name, **key.metadata)
    return kind(**result)


def _convert_list(value: Any, kinds: tuple, path: str, root: type) -> tuple:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{path} must be a list, got {value!r}")
    if kinds[-1] is Ellipsis:
        kinds = kinds[:1] * len(value)
    if len(value) != len(kinds):
        raise ValueError(f"{path} must have {len(kinds)} values, got {value!r}")
    return tuple(_convert(v, k, f"{path}[{i}]", root) for i, (v, k) in enumerate(zip(value, kinds, strict=True)))


def _check_limits(
    value: Any, path: str, *, low=-math.inf, high=math.inf, above=-math.inf, below=math.inf, choices=None
) -> None:
    if value is None:  # where the key may be
        return
    if choices is not None and value not in choices:
        near = difflib.get_close_matches(str(value), choices, n=1)
        raise ValueError(
            f"{path} must be one of {', '.join(choices)}, got {value!r}" + (f" (nearest: {near[0]})" if near else "")
        )
    if isinstance(value, int | float) and not (low <= value <= high and above < value < below):
        limits = [f"at least {low}"] if low > -math.inf else [f"above {above}"] if above > -math.inf else []
        limits += [f"at most {high}"] if high < math.inf else [f"below {below}"] if below < math.inf else []
        raise ValueError(f"{path} must be {' and '.join(limits)}, got {value}")


def _hint(path: str, root: type) -> str:
    """Name the existing key nearest to one that does not exist: of the same name, the same section, or anywhere."""
    keys = _dotted_keys(root, "")
    section, _, leaf = path.rpartition(".")
    same = [key for key in keys if key.rpartition(".")[2] == leaf]
    siblings = [key for key in keys if section and key.rpartition(".")[0] == section]
    longer = [key for key in siblings if key.startswith(path)] or [k for k in siblings if k.endswith(f"_{leaf}")]
    near = same or longer or difflib.get_close_matches(path, siblings, n=1, cutoff=0)
    near = near or difflib.get_close_matches(path, [*keys, *typing.get_type_hints(root)], n=1, cutoff=0)
    return f"; the nearest that exists is {near[0]}"


def _dotted_keys(kind: type, prefix: str) -> list[str]:
    """List the keys that hold values, not sections."""
    keys = []
    for name, sub in typing.get_type_hints(kind).items():
        keys += _dotted_keys(sub, f"{prefix}{name}.") if _is_section(sub) else [prefix + name]
    return keys


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, but a repeated key is an error, and 2024_01_15, 2024-01-15, off and yes are texts."""

    yaml_implicit_resolvers: typing.ClassVar = {  # type: ignore[misc]  # PyYAML's own is of the class too
        first: [
            ("tag:yaml.org,2002:str", re.compile(r"(\d+(_\d+)+|(?i:yes|no|on|off))$")),
            *(rule for rule in rules if rule[0] != "tag:yaml.org,2002:timestamp"),
        ]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key, _ in node.value:
            name = str(key.value)
            if name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{name} is given twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)
