"""Reads JSON into dataclasses by their annotations, and nothing that does not fit them.

For files that somebody else may have written, such as configurations and programs: types are
taken at their word (true is no number), numbers are finite and bounded, texts and lists too, and
no key is there twice. What a value means is for its dataclass to check.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

__all__ = ["MAX_JSON_BYTES", "SchemaError", "build", "parse"]

MAX_JSON_BYTES = 4 << 20
"""A text takes up to thirty times its size once it is read."""
MAX_INTEGER = 1 << 53
"""Beyond it JSON readers differ."""
MAX_TEXT = 4096
MAX_ENTRIES = 1 << 16

_WORDS = {bool: "true or false", float: "a number", int: "a whole number", str: "a text"}

_T = TypeVar("_T")


class SchemaError(ValueError):
    """JSON that is not what it should be; the text says where."""


def parse(data: bytes, where: str) -> Any:
    """Return the JSON in `data`.

    Raises
    ------
    SchemaError
        If it is none, too long, too deep, or has a key twice; `where` names it.
    """
    what = where or "it"
    if len(data) > MAX_JSON_BYTES:
        raise SchemaError(f"{what} has {len(data)} bytes, at most {MAX_JSON_BYTES} are read")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        entries = dict(pairs)
        if len(entries) < len(pairs):
            raise SchemaError(f"{what} has a key twice")
        return entries

    def constant(name: str) -> Any:
        raise SchemaError(f"{what} has the number {name}")

    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=unique, parse_constant=constant)
    except RecursionError:
        raise SchemaError(f"{what} is nested too deeply") from None
    except SchemaError:
        raise
    except ValueError as error:
        # Digits beyond what Python converts are one, too.
        raise SchemaError(f"{what} is not JSON: {error}") from None


def build(kind: type[_T], value: Any, where: str) -> _T:
    """Return a value of a type, made from JSON.

    Parameters
    ----------
    kind : type
        A dataclass, ``int``, ``float``, ``str``, ``bool``, a list, tuple, dict or union of them.
    value : object
        From `parse`.
    where : str
        Names the value in errors; empty for the whole of a file that the error names anyway.

    Raises
    ------
    SchemaError
        If the value is none of that type.
    """
    result: _T = _build(kind, value, where)
    return result


def _build(kind: Any, value: Any, where: str) -> Any:
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _union(args, value, where)
    if origin is tuple:
        return tuple(_build(args[0], entry, f"{where}[{i}]") for i, entry in _entries(value, where))
    if origin is list:
        return [_build(args[0], entry, f"{where}[{i}]") for i, entry in _entries(value, where)]
    if origin is dict:
        return {
            _build(args[0], key, f"a key of {where}"): _build(args[1], entry, f"{where}[{key!r}]")
            for key, entry in _object(value, where).items()
        }
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, value, where)
    return _scalar(kind, value, where)


def _dataclass(kind: Any, value: Any, where: str) -> Any:
    entry = _object(value, where)
    hints = _hints(kind)
    for name in entry:
        if name not in hints:
            known = ", ".join(hints)
            raise SchemaError(f"{where or 'it'} has no field {_short(name)}; there are {known}")
    for item in dataclasses.fields(kind):
        default = item.default is not dataclasses.MISSING
        default |= item.default_factory is not dataclasses.MISSING
        if item.name not in entry and not default:
            raise SchemaError(f"{where or 'it'} lacks {item.name}")
    return kind(
        **{
            name: _build(hints[name], part, f"{where}.{name}".lstrip("."))
            for name, part in entry.items()
        }
    )


@cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {item.name: hints[item.name] for item in dataclasses.fields(kind)}


def _union(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    # The text: an exception kept here would keep, by its traceback, what all callers have.
    problem = ""
    for kind in kinds:
        if kind is not type(None):
            try:
                return _build(kind, value, where)
            except SchemaError as error:
                # Of a member that the value is meant for, say what is wrong with it.
                if _json_type(kind) is type(value):
                    problem = problem or str(error)
    wanted = " or ".join(_words(kind) for kind in kinds)
    raise SchemaError(problem or f"{where} must be {wanted}, not {_short(value)}")


def _json_type(kind: Any) -> Any:
    """Return what JSON has for a value of a type."""
    if get_origin(kind) in (tuple, list):
        return list
    return dict if get_origin(kind) is dict or dataclasses.is_dataclass(kind) else kind


def _words(kind: Any) -> str:
    """Return how a type is called in errors."""
    words = {**_WORDS, list: "a list", dict: "an object", type(None): "null"}
    return words.get(_json_type(kind), str(kind))


def _scalar(kind: Any, value: Any, where: str) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is float and number:
        # An integer too large for a float is out of range before it is converted.
        if not abs(value) <= float(1 << 127) or not math.isfinite(value):
            raise SchemaError(f"{where} is out of range")
        return float(value)
    # The exact type: True is an int to Python.
    if type(value) is not kind:
        raise SchemaError(f"{where} must be {_words(kind)}, not {_short(value)}")
    if kind is int and abs(value) > MAX_INTEGER:
        raise SchemaError(f"{where} is out of range")
    if kind is str:
        if len(value) > MAX_TEXT:
            raise SchemaError(f"{where} is a text of {len(value)} characters")
        if any("\ud800" <= letter <= "\udfff" for letter in value):
            raise SchemaError(f"{where} is no text that can be printed")
    return value


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        what = f"{where} must be an" if where else "it must be a JSON"
        raise SchemaError(f"{what} object, not {_short(value)}")
    return value


def _entries(value: Any, where: str) -> list[tuple[int, Any]]:
    if not isinstance(value, list):
        raise SchemaError(f"{where} must be a list, not {_short(value)}")
    if len(value) > MAX_ENTRIES:
        raise SchemaError(f"{where} has {len(value)} entries, at most {MAX_ENTRIES} are read")
    return list(enumerate(value))


def _short(value: Any) -> str:
    """Show a value of any size in a few words."""
    if isinstance(value, dict | list):
        return f"{type(value).__name__} of {len(value)}"
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        return "a number out of range"
    text = ascii(value[:40]) if isinstance(value, str) else repr(value)
    return text[:60]
