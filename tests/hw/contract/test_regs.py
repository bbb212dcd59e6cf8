"""The register map: no overlaps, everything documented, words that name the machine."""

from __future__ import annotations

import pytest
from celosia.hw.contract.config import PRESETS, preset
from celosia.hw.contract.isa import FORMAT_VERSION, Region
from celosia.hw.contract.operations import Operation
from celosia.hw.contract.regs import (
    ACCESS,
    COUNTERS,
    IDENTITY,
    REGISTERS,
    address_of,
    capability_words,
    register,
)


def test_addresses_rise_by_whole_words_without_overlap() -> None:
    addresses = [entry.address for entry in REGISTERS]
    assert addresses == sorted(set(addresses))
    assert all(address % 4 == 0 for address in addresses)
    assert len({entry.name for entry in REGISTERS}) == len(REGISTERS)


@pytest.mark.parametrize("entry", REGISTERS, ids=lambda entry: entry.name)
def test_fields_do_not_overlap_and_are_documented(entry: object) -> None:
    known = register(getattr(entry, "name", ""))
    assert known is entry
    used = 0
    for field in known.fields:
        mask = ((1 << field.width_bits) - 1) << field.offset_bits
        assert mask < 1 << 32
        assert not used & mask
        used |= mask
        assert field.doc
    assert known.doc
    assert len({field.name for field in known.fields}) == len(known.fields)


def test_every_region_and_counter_has_its_registers() -> None:
    for region in Region:
        base = register(f"region{region.value}_base")
        size = register(f"region{region.value}_size")
        assert size.address == base.address + 4
        assert base.fields[0].access is size.fields[0].access is ACCESS.RW
    for name, _ in COUNTERS:
        assert register(f"count_{name}").fields[0].access is ACCESS.R


def test_the_identity_spells_the_name() -> None:
    assert IDENTITY.to_bytes(4, "little") == b"CELO"
    assert f"0x{IDENTITY:08X}" in register("identity").doc


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(KeyError):
        address_of("none")
    assert address_of("doorbell") == 0x28


@pytest.mark.parametrize("name", PRESETS)
def test_capability_words_hold_the_sizes(name: str) -> None:
    config = preset(name)
    units = {"act_kib": 1024, "wgt_kib": 1024, "param_kib": 1024}
    expected = {
        "rows": config.rows,
        "cols": config.cols,
        "bus_bytes": config.bus_bytes,
        "isa_version": FORMAT_VERSION,
        "act_kib": config.act_bytes,
        "wgt_kib": config.wgt_bytes,
        "param_kib": config.param_bytes,
        "acc_depth": config.acc_depth,
        **{operation.name.lower(): int(config.can(operation)) for operation in Operation},
    }
    found = {}
    for index, word in enumerate(capability_words(config)):
        assert 0 <= word < 1 << 32
        for field in register(f"capability{index}").fields:
            value = word >> field.offset_bits & ((1 << field.width_bits) - 1)
            found[field.name] = value * units.get(field.name, 1)
    assert found == expected


def test_capability_words_say_what_a_machine_lacks() -> None:
    config = preset("base").with_(operations=("SOFTMAX", "REQUANT"))
    assert config.operations == ("REQUANT", "SOFTMAX")
    assert capability_words(config)[3] == 1 << Operation.REQUANT | 1 << Operation.SOFTMAX
    assert capability_words(config)[:3] == capability_words(preset("base"))[:3]
