"""From the name of a configuration, or a JSON file of one, to the configuration."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, fields
from pathlib import Path

from celosia.hw.contract.config import PRESETS, ConfigError, NpuConfig, preset

__all__ = ["resolve_config"]


def resolve_config(config: str | os.PathLike[str] | NpuConfig) -> NpuConfig:
    """Return a configuration by the name of its preset, from its file, or as it is.

    Parameters
    ----------
    config : str, path or NpuConfig
        A preset, or the path of a JSON file: an object with fields of `NpuConfig`; those that are
        missing have their defaults, those of ``base``.

    Raises
    ------
    ConfigError
        If there is no such preset or file, or its contents are no configuration.
    """
    if isinstance(config, NpuConfig):
        return config
    text = os.fspath(config)
    if text in PRESETS:
        return preset(text)
    path = Path(text)
    what = f"configuration {text}"
    if path.suffix != ".json" and not path.is_file():
        raise ConfigError(
            what, "no such preset", f"choose {', '.join(PRESETS)}, or give a JSON file"
        )
    known = [entry.name for entry in fields(NpuConfig)]
    remedy = f"write an object with fields of {', '.join(known)}"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(what, error.strerror or str(error), "check the path") from None
    except ValueError as error:
        raise ConfigError(
            what, f"not JSON: {error}", "write an object of NpuConfig's fields"
        ) from None
    if not isinstance(content, dict):
        raise ConfigError(what, "it is not a JSON object", remedy)
    unknown = sorted(set(content) - set(known))
    if unknown:
        raise ConfigError(what, f"there is no field {unknown[0]!r}", remedy)
    defaults = asdict(NpuConfig())
    wanted: type | tuple[type, ...]
    for name, value in content.items():
        if name == "name":
            wanted, kind = str, "a text"
        elif name == "operations":
            wanted, kind = list, "a list of names"
        elif name == "compact":
            wanted, kind = (bool, list), "true or false, or a list of names"
        elif isinstance(defaults[name], bool):
            wanted, kind = bool, "true or false"
        else:
            wanted, kind = int, "a whole number"
        if name == "lanes" and value is None:
            continue
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is int):
            raise ConfigError(what, f"{name} must be {kind}, not {value!r}", "correct the file")
    content.setdefault("name", path.stem)
    try:
        return NpuConfig(**content)
    except ConfigError as error:
        raise ConfigError(what, error.cause, "correct the file") from None
