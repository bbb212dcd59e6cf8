"""Bytes of tensors on chip and in memory, for elements of one byte and of two."""

from __future__ import annotations

import pytest
from celosia.hw.contract.isa import Load, Region, Store
from celosia.sw.compiler.place.layout import ActLayout, MemoryHome, Slab, act_layout, transfer_step

LINE = 8
BASE = 64


def slab(layout: ActLayout, channel_first: int = 0) -> Slab:
    return Slab(base=BASE, y_first=2, y_end=5, channel_first=channel_first, layout=layout)


@pytest.mark.parametrize("element_bytes", [1, 2])
def test_pitches(element_bytes: int) -> None:
    layout = act_layout(3, 5, LINE, element_bytes=element_bytes)
    assert layout.pixel_bytes == 5 * element_bytes
    assert layout.pixel_pitch == (8 if element_bytes == 1 else 16)
    assert layout.size_bytes(2) == 6 * layout.pixel_pitch
    packed = act_layout(3, 5, LINE, packed=True, element_bytes=element_bytes)
    assert (packed.pixel_pitch, packed.row_pitch) == (5 * element_bytes, 15 * element_bytes)


@pytest.mark.parametrize("element_bytes", [1, 2])
def test_an_address_counts_elements(element_bytes: int) -> None:
    layout = act_layout(3, 24, LINE, element_bytes=element_bytes)
    part = slab(layout, channel_first=8)
    expected = BASE + layout.row_pitch + 2 * layout.pixel_pitch + 8 * element_bytes
    assert part.address(3, 2, 16) == expected


@pytest.mark.parametrize("kind", [Load, Store])
@pytest.mark.parametrize("element_bytes", [1, 2])
def test_a_group_of_channels_is_moved(kind: type[Load | Store], element_bytes: int) -> None:
    """Rows 2 to 4, channels from 8 on, of a dense image of 3 pixels a row and 16 channels."""
    layout = act_layout(3, 8, LINE, element_bytes=element_bytes)
    pixel = 16 * element_bytes
    home = MemoryHome(
        region=Region.SCRATCH, offset=1000, width=3, pixel_bytes=pixel, pixel_pitch=pixel
    )
    command = transfer_step(kind, slab(layout, channel_first=8), home, 0).command
    assert isinstance(command, kind)
    assert command.mem_addr == 1000 + 2 * 3 * pixel + 8 * element_bytes
    assert command.sram_addr == BASE
    assert (command.row_bytes, command.n1, command.n2) == (8 * element_bytes, 3, 3)
    assert (command.mem_stride1, command.sram_stride1) == (pixel, layout.pixel_pitch)
    assert (command.mem_stride2, command.sram_stride2) == (3 * pixel, layout.row_pitch)
