"""From the name of a configuration, or a JSON file of one, to the configuration."""

from __future__ import annotations

import os
from pathlib import Path

from celosia.hw.contract.config import PRESETS, ConfigError, NpuConfig, preset
from celosia.schema import SchemaError, build, parse

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
    try:
        content = parse(path.read_bytes(), "")
        if isinstance(content, dict):
            content.setdefault("name", path.stem)
        return build(NpuConfig, content, "")
    except OSError as error:
        raise ConfigError(what, error.strerror or str(error), "check the path") from None
    except SchemaError as error:
        remedy = "correct the file: a JSON object with fields of NpuConfig"
        raise ConfigError(what, str(error), remedy) from None
    except ConfigError as error:
        raise ConfigError(what, error.cause, "correct the file") from None
