# amaranth: UnusedElaboratable=no
"""Where things are in local memory, and the memory itself."""

from __future__ import annotations

import random
from typing import Any

from celosia.hw.contract.config import preset
from celosia.hw.contract.isa import Space
from celosia.hw.nano.layout import LocalMap
from celosia.hw.nano.local import LocalMemory, LocalPort

from tests.kit.clocked import simulate
from tests.kit.configs import make_config
from tests.kit.traffic import local_traffic


def test_memories_follow_one_another() -> None:
    config = preset("nano")
    places = LocalMap(config)
    end = 0
    for space in (Space.ACT, Space.WGT, Space.PARAM, Space.TABLE):
        assert places.base_of(space) == end
        end += places.size_of(space)
    assert places.bytes == end
    assert places.size_of(Space.ACT) == config.act_bytes
    assert places.size_of(Space.WGT) == config.wgt_bytes
    assert places.size_of(Space.PARAM) == config.param_bytes
    assert places.size_of(Space.TABLE) == 1024


def test_ports_are_equal_if_their_memories_are() -> None:
    small = make_config(4, 4, firmware=True)
    assert LocalPort(small) == LocalPort(small.with_(name="other"))
    assert LocalPort(small) != LocalPort(small.with_(act_bytes=32 * 1024))


def test_random_traffic() -> None:
    """Bytes in any mask; a read answers in the next cycle, and one after a write has its word."""
    config = make_config(4, 4, firmware=True)
    memory = LocalMemory(config)
    rng = random.Random(1)
    words = LocalMap(config).bytes // 4
    addresses = [0, 1, 2, words // 2, words - 2, words - 1]
    reads = 0

    async def bench(ctx: Any) -> None:
        nonlocal reads
        reads = await local_traffic(ctx, memory.port, rng, addresses, 1500)

    simulate(memory, bench)
    assert reads > 500
