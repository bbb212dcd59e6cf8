"""From the name of a configuration, or a JSON file of one, to the configuration."""

from __future__ import annotations

import os
from pathlib import Path

from celosia.hw.contract.config import PRESETS, ConfigError, NpuConfig
from celosia.quantities import KIB
from celosia.schema import SchemaError, build, parse

__all__ = [
    "BOARD_CONFIGS",
    "BOARD_PRESETS",
    "NAMED_CONFIGS",
    "has_room_for_weights",
    "resolve_config",
]

BOARD_PRESETS = {"ulx3s": "base"}
"""Boards with a configuration of their own, and the preset that it is but for its memories."""
BOARD_CONFIGS: dict[str, NpuConfig] = {
    "ulx3s": PRESETS[BOARD_PRESETS["ulx3s"]].with_(name="ulx3s", wgt_bytes=256 * KIB),
}
"""Those configurations, by the board's name: weights may stay in what the FPGA has left."""
_HASHES = frozenset(config.hash for config in (*BOARD_CONFIGS.values(), PRESETS["wide"]))
NAMED_CONFIGS = PRESETS | BOARD_CONFIGS
"""Every configuration that has a name."""


def has_room_for_weights(config: NpuConfig) -> bool:
    """Return whether a configuration was given memory so that weights stay on chip."""
    return config.hash in _HASHES


def resolve_config(config: str | os.PathLike[str] | NpuConfig) -> NpuConfig:
    """Return a configuration by its name, from its file, or as it is.

    Parameters
    ----------
    config : str, path or NpuConfig
        A preset, the name of a board that has a configuration of its own, or the path of a JSON
        file: an object with fields of `NpuConfig`; those that are missing have its defaults.

    Raises
    ------
    ConfigError
        If there is no such name or file, or its contents are no configuration.
    """
    if isinstance(config, NpuConfig):
        return config
    text = os.fspath(config)
    if text in NAMED_CONFIGS:
        return NAMED_CONFIGS[text]
    path = Path(text)
    what = f"configuration {text}"
    if path.suffix != ".json" and not path.is_file():
        raise ConfigError(
            what, "no such preset", f"choose {', '.join(NAMED_CONFIGS)}, or give a JSON file"
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
