"""Typed settings: pydantic sections, YAML files, `section.key=value` overrides, and one-line error messages."""

import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

import yaml
from pydantic import (
    AfterValidator,
    AllowInfNan,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ValidationError,
    model_validator,
)


def _number(value: Any) -> Any:
    """Convert a string that is a number in Python's notation; a bool becomes a string, or True would be 1."""
    if isinstance(value, bool):
        return str(value)
    for convert in (partial(int, base=0), float) if isinstance(value, str) else ():
        with suppress(ValueError):
            return convert(value)
    return value


Int = Annotated[int, BeforeValidator(_number)]
Float = Annotated[float, BeforeValidator(_number), AllowInfNan(False)]
PathText = Annotated[str, AfterValidator(os.path.expanduser)]  # a shell does not expand the ~ of section.key=~/folder


class Section(BaseModel):
    """A section of the configuration: immutable, without unknown keys; an empty (null) section has all its defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True, str_min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _defaults_for_null(cls, values: Any) -> Any:
        return {} if values is None else values


def read_yaml(path: Path) -> dict:
    """Read the sections of a YAML file; raises FileNotFoundError, or ValueError for other contents."""
    if not path.is_file():
        raise FileNotFoundError(f"no configuration file {path}; see the folder configs")
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict | None):
        raise ValueError(f"{path} must contain sections (model, train, …), not {values!r:.60}")
    return values or {}


def override(values: dict, setting: str) -> None:
    """Apply one `section.key=value` to nested dicts; raises ValueError if it is malformed.

    The outermost dict is changed in place. Inner ones are copied first, as two sections are the same dict where the
    YAML file uses an anchor.
    """
    dotted, equals, text = setting.partition("=")
    *parents, key = dotted.strip().split(".")
    if not equals or not parents or not all([*parents, key]):
        pattern = "; a pattern for --input must be quoted" if Path(setting).exists() else ""
        raise ValueError(f"{setting!r} is not a setting; write section.key=value, as in train.epochs=10{pattern}")
    for parent in parents:
        section = {} if values.get(parent) is None else values[parent]
        if not isinstance(section, dict):
            raise ValueError(f"{dotted}: {parent} is a value, not a section")
        values[parent] = dict(section)
        values = values[parent]
    if not text.strip():
        raise ValueError(f"{dotted} has no value; write {dotted}=VALUE, or null if the key allows it")
    try:
        value = yaml.load(text, _Loader)
    except yaml.YAMLError:
        raise ValueError(f"{dotted}: {text!r} is not a valid YAML value; put it in quotes") from None
    decimal = r"[-+]?(0|[1-9]\d*)?(\.\d*)?(e[-+]?\d+)?"  # a comment after a number is no mistake
    if " #" in text and isinstance(value, str) and " #" not in value and not re.fullmatch(decimal, value):
        raise ValueError(f"{dotted}: in {text!r}, YAML takes what follows # for a comment; put the value in quotes")
    values[key] = value


def setting(dotted: str, value: str | Path) -> str:
    """Return the `section.key=value` that sets a key to a string, quoted if YAML would read it as something else."""
    text = str(value)
    try:
        plain = yaml.load(text, _Loader) == text
    except yaml.YAMLError:
        plain = False
    return f"{dotted}={text if plain else json.dumps(text, ensure_ascii=False)}"


def flatten(values: Mapping, prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings into one by dotted path."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def describe(error: ValidationError, keys: list[str]) -> str:
    """Describe the first error in one line: its dotted path, the value, and the limit, the choices or a similar key."""
    first = error.errors()[0]
    kind, value, context = first["type"], first["input"], first.get("ctx", {})
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).removeprefix(".")
    if kind == "value_error":  # from a check of two keys, whose message begins with the first
        return f"{path}.{context['error']}"
    if kind in ("extra_forbidden", "invalid_key"):
        name = path.rpartition(".")[2]
        similar = [key for key in keys if key.startswith(path) or f".{key}".endswith((f".{name}", f"_{name}"))]
        similar = similar or get_close_matches(path, keys, n=1)
        return f"unknown key {path}; " + (
            f"did you mean {similar[0]}?" if similar else "docs/configuration.md lists them all"
        )
    yaml_types = {"bool_type": "true or false", "tuple_type": "a list", "model_type": "a section with keys"}
    problem = re.sub(r"^\w+ should (.*?)(, unable.*|, got.*| after.*)?$", r"must \1", first["msg"])
    problem = f"must be {yaml_types[kind]}" if kind in yaml_types else problem
    near = get_close_matches(str(value), re.findall(r"'(.+?)'", context.get("expected", "")), n=1)
    value = [_shown(item) for item in value] if isinstance(value, list) else _shown(value)
    return f"{path} {problem}, got {value!r}" + (f"; did you mean {near[0]!r}?" if near else "")


def _shown(value: Any) -> Any:
    return _number(value) if isinstance(value, str) else value


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, but every scalar except null, true and false stays a string; duplicate keys are errors.

    Names that look like numbers or dates are thus kept as written; `Int` and `Float` convert values of numeric keys.
    """

    yaml_implicit_resolvers: ClassVar = {  # type: ignore[misc]  # a class variable in PyYAML too
        first: [rule for rule in rules if rule[0].endswith((":null", ":merge"))]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        names = [str(key.value) for key, _ in node.value]
        for key, _ in node.value:
            if names.count(str(key.value)) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key.value}", key.start_mark)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("(?i:true|false)$"), list("tTfF"))
