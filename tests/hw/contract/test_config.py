"""Configurations: what is accepted, what the hash covers, what the presets are."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from celosia.hw.contract.config import PRESETS, ConfigError, NpuConfig, preset
from celosia.hw.contract.isa import BLOCK_LINES
from celosia.hw.contract.parts import Part

OTHER_VALUES: dict[str, dict[str, Any]] = {
    "rows": {"rows": 16, "cols": 16},
    "cols": {"rows": 16, "cols": 16},
    "bus_bits": {"bus_bits": 32},
    "lanes": {"lanes": 4},
    "compact": {"compact": True},
    "operations": {"operations": ("REQUANT", "ADD")},
    "firmware": {"firmware": True},
}


def test_presets_are_named_and_differ() -> None:
    assert list(PRESETS) == ["nano", "tiny", "base", "wide", "large"]
    assert len({config.hash for config in PRESETS.values()}) == len(PRESETS)
    for name, config in PRESETS.items():
        assert preset(name) is config
        assert config.name == name
    with pytest.raises(
        ConfigError, match="no preset 'huge'; there are nano, tiny, base, wide, large"
    ):
        preset("huge")


@pytest.mark.parametrize("name", [f.name for f in fields(NpuConfig) if f.name != "name"])
def test_the_hash_covers_every_field_of_the_hardware(name: str) -> None:
    base = preset("nano").with_(firmware=False) if name == "firmware" else preset("base")
    changes = OTHER_VALUES.get(name) or {name: getattr(base, name) // 2}
    assert base.with_(**changes).hash != base.hash


def test_the_name_is_not_part_of_the_hash() -> None:
    base = preset("base")
    assert base.with_(name="mine").hash == base.hash
    assert base.with_().name == "custom"
    assert 0 <= base.hash < 1 << 32


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"rows": 12, "cols": 12}, "rows must be 4, 8, 16 or 32, not 12"),
        ({"cols": 16}, r"cols must equal rows \(8\), not 16"),
        ({"bus_bits": 48}, "bus_bits must be 32, 64 or 128, not 48"),
        ({"bus_bits": 128}, r"at most one line \(64 bits with rows=8\), not 128"),
        ({"act_bytes": 1000}, "act_bytes must be a power of two from 128 to 1048576, not 1000"),
        ({"act_bytes": 1 << 21}, "act_bytes must be"),
        ({"wgt_bytes": 64}, "wgt_bytes must be"),
        (
            {"wgt_bytes": 5 << 12},
            "wgt_bytes must be a power of two, or three times one, from 128 to 1048576, not 20480",
        ),
        ({"act_bytes": 3 << 12}, "act_bytes must be a power of two from"),
        ({"param_bytes": 0}, "param_bytes must be"),
        ({"acc_depth": 8192}, "acc_depth must be"),
        ({"queue_depth": 1}, "queue_depth must be"),
        ({"max_outstanding": -2}, "max_outstanding must be"),
        ({"lanes": 3}, r"lanes must be a power of two from 1 to 8 \(cols\), or None, not 3"),
        ({"lanes": 16}, "lanes must be"),
        ({"rows": 32, "cols": 32, "lanes": 1}, "a power of two from 2 to 32"),
        ({"compact": 2}, "compact must be true or false, or names of SINGLE_.*, not 2"),
        ({"compact": ("SHARED_QUEUES",)}, "SINGLE_TRANSFERS as well: SHARED_QUEUES needs it"),
        ({"operations": ("REQUANT", "DIV")}, "operations must be names of REQUANT, .*'DIV'"),
        (
            {"rows": 4, "cols": 4, "bus_bits": 32, "firmware": True, "queue_depth": 8}
            | {"operations": ("REQUANT", "MUL", "MAX", "SPREAD")},
            "operations must be without MUL, SPREAD with firmware",
        ),
        ({"operations": "MAX"}, "operations must have REQUANT"),
        ({"operations": 3}, "operations must be names of REQUANT, .*not 3"),
        ({"operations": ("MAX",)}, "operations must have REQUANT"),
        ({"firmware": 1}, "firmware must be true or false, not 1"),
        (
            {"rows": 4, "cols": 4, "bus_bits": 32, "queue_depth": 16, "firmware": True},
            "queue_depth must be at most 8 with firmware, not 16",
        ),
        ({"firmware": True}, "unless rows is 4 and bus_bits is 32, not 8 and 64"),
    ],
)
def test_impossible_values_are_refused_in_words(changes: dict[str, int], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        preset("base").with_(**changes)


@pytest.mark.parametrize("name", PRESETS)
def test_derived_sizes(name: str) -> None:
    config = preset(name)
    assert config.line_bytes == config.rows == config.cols
    assert config.act_lines * config.line_bytes == config.act_bytes
    assert config.wgt_lines * config.line_bytes == config.wgt_bytes
    assert config.param_lines * config.line_bytes == config.param_bytes
    assert config.bus_bytes * 8 == config.bus_bits
    assert config.bus_bytes <= config.line_bytes
    rows_at_a_time = 1 if config.firmware else config.rows
    assert config.macs_per_cycle == rows_at_a_time * config.cols
    assert config.vector_lanes * config.vector_beats == config.cols
    # One block: bias and multiplier of four bytes and a shift of one for each column.
    assert BLOCK_LINES * config.line_bytes == 9 * config.cols
    assert all(config.segment_taps(s) >= 2 for s in range(config.dw_segments) if s)
    assert config.dw_segments <= 3


def test_parts_by_their_names() -> None:
    names = [part.name for part in Part]
    some = preset("base").with_(compact=("ONE_SEGMENT", "DIRECT_WEIGHTS"))
    assert some.parts == {Part.DIRECT_WEIGHTS, Part.ONE_SEGMENT}
    assert some.compact == ("DIRECT_WEIGHTS", "ONE_SEGMENT")
    assert some.dw_segments == 1
    assert len({some.hash, preset("base").hash, some.with_(compact=True).hash}) == 3
    assert some.with_(compact=tuple(reversed(names))) == some.with_(compact=True)
    assert some.with_(compact=()) == some.with_(compact=False)
