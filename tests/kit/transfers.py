"""Loads and stores for tests of DMA engines: random ones, and ones that must be stopped."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Load, Region, Space, Store
from celosia.hw.contract.regs import ErrorCause

__all__ = [
    "ADDRESS_SPACE",
    "BASE",
    "SIZE",
    "Transfer",
    "faulty_transfers",
    "random_transfer",
    "runs_of",
    "space_bytes",
]

Transfer = Load | Store

ADDRESS_SPACE = 1 << 20
BASE, SIZE = 1024, 8 * 1024
"""Where region IO lies in system memory, in bytes. There is no region SCRATCH."""


def space_bytes(config: NpuConfig) -> dict[Space, int]:
    """Return the sizes of the on-chip memories."""
    return {
        Space.ACT: config.act_bytes,
        Space.WGT: config.wgt_bytes,
        Space.PARAM: config.param_bytes,
        Space.TABLE: 256 * config.line_bytes,
    }


def runs_of(command: Transfer) -> list[tuple[int, int]]:
    """Return the offset in the region and the address on chip of every run, in order."""
    return [
        (
            command.mem_addr + y * command.mem_stride2 + x * command.mem_stride1,
            (command.sram_addr + y * command.sram_stride2 + x * command.sram_stride1)
            % ADDRESS_SPACE,
        )
        for y in range(command.n2)
        for x in range(command.n1)
    ]


def random_transfer(
    rng: random.Random,
    config: NpuConfig,
    kind: type[Load] | type[Store],
    *,
    low: int = 0,
    high: int = SIZE,
    free_bytes: Mapping[Space, int] | None = None,
) -> Transfer:
    """Return a random command that is in range.

    Parameters
    ----------
    low, high : int
        Offsets in the region between which it stays.
    free_bytes : mapping, optional
        How much of each on-chip memory it may use; by default all.
    """
    free = space_bytes(config) if free_bytes is None else free_bytes
    while True:
        space = Space.ACT if kind is Store or rng.random() < 0.6 else Space(rng.randrange(1, 4))
        unit = 1 if space is Space.ACT else config.bus_bytes
        wide = rng.choice((4, 20, 150 if space is Space.ACT else 40))
        command = kind(
            region=Region.IO,
            space=space,
            mem_addr=unit * rng.randrange(low // unit, high // unit),
            sram_addr=unit * rng.randrange(free[space] // unit),
            row_bytes=unit * rng.randint(1, wide),
            n1=rng.randint(1, 7),
            n2=rng.randint(1, 3),
            mem_stride1=unit * rng.randint(-wide, 2 * wide),
            mem_stride2=unit * rng.randint(-300, 600),
            sram_stride1=unit * rng.randint(-wide, 2 * wide) % ADDRESS_SPACE,
            sram_stride2=unit * rng.randint(-300, 600) % ADDRESS_SPACE,
        )
        if all(
            offset >= low
            and offset + command.row_bytes <= high
            and place + command.row_bytes <= free[space]
            for offset, place in runs_of(command)
        ):
            return command


def faulty_transfers(config: NpuConfig) -> list[tuple[str, Transfer, ErrorCause, int]]:
    """Return commands that are wrong, with the cause and the address expected."""
    word = config.bus_bytes
    io: dict[str, Any] = {"region": Region.IO, "row_bytes": word}
    act, wgt, param, table = space_bytes(config).values()
    cause = ErrorCause
    before = {"mem_addr": word, "n2": 2, "mem_stride2": -2 * word}
    return [
        ("no bytes", Load(region=Region.IO), cause.ILLEGAL_FIELD, 0),
        ("no runs", Load(**io, n1=0), cause.ILLEGAL_FIELD, 0),
        ("no turns", Store(**io, n2=0), cause.ILLEGAL_FIELD, 0),
        ("store of weights", Store(**io, space=Space.WGT), cause.ILLEGAL_FIELD, 0),
        ("odd address", Load(**io, space=Space.WGT, mem_addr=1), cause.ILLEGAL_FIELD, 0),
        ("odd stride", Load(**io, space=Space.TABLE, mem_stride2=-1), cause.ILLEGAL_FIELD, 0),
        ("act", Load(**io, sram_addr=act - 1), cause.ACT_RANGE, act - 1),
        ("act store", Store(**io, n1=2, sram_stride1=act), cause.ACT_RANGE, act % ADDRESS_SPACE),
        ("wgt", Load(**io, space=Space.WGT, sram_addr=wgt), cause.WGT_RANGE, wgt),
        ("param", Load(**io, space=Space.PARAM, sram_addr=param), cause.PARAM_RANGE, param),
        ("table", Load(**io, space=Space.TABLE, sram_addr=table), cause.PARAM_RANGE, table),
        ("behind", Load(**io, mem_addr=SIZE - word + 1), cause.MEM_WINDOW, BASE + SIZE - word + 1),
        ("before", Load(**io, **before), cause.MEM_WINDOW, BASE - word),
        ("before, store", Store(**io, **before), cause.MEM_WINDOW, BASE - word),
        ("far", Store(**io, mem_addr=0xFFFF_FFFF), cause.MEM_WINDOW, BASE - 1),
        ("no region", Load(region=Region.SCRATCH, row_bytes=1), cause.MEM_WINDOW, 0),
        ("no region, store", Store(region=Region.SCRATCH, row_bytes=1), cause.MEM_WINDOW, 0),
    ]
