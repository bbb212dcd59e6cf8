"""System memory in a board's SDRAM chip: the controller, and registers at the pins."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Const, Module
from amaranth.lib import io
from amaranth.lib.wiring import Component, In, connect, flipped
from celosia.hw.bus.ports import initiator_signature
from celosia.hw.config import NpuConfig
from celosia.hw.system.sdram import SdramController
from celosia.hw.system.sdram_timing import SdramChip

__all__ = ["BoardSdram"]


class BoardSdram(Component):
    """An SDRAM chip with a bus of 16 bits, on the platform's resource ``sdram``.

    All pins end in the registers of their I/O cells, so that where the router puts things makes no
    difference. The chip's clock comes from such a cell as well, inverted: what the controller
    sends with a rising edge is taken half a period later, in the middle of its time. ::

        sync clock  _/~~~\\___/~~~\\___
        command     -<=======X=======>-
        chip clock  ~\\___/~~~\\___/~~~

    Parameters
    ----------
    config : NpuConfig
        Its bus.
    chip : SdramChip
    clock_hz : int
        Of ``sync``.

    Members
    -------
    bus : In(Wishbone)
    """

    def __init__(self, config: NpuConfig, *, chip: SdramChip, clock_hz: int) -> None:
        self._chip = chip
        self._controller = SdramController(
            config, chip=chip, clock_hz=clock_hz, board_registers=True
        )
        super().__init__({"bus": In(initiator_signature(config))})

    @property
    def memory_bytes(self) -> int:
        """Size of the memory in bytes."""
        return self._chip.memory_bytes

    @property
    def latency_cycles(self) -> int:
        """Cycles from a request for an open row to its answer."""
        return self._controller.latency_cycles

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.controller = controller = self._controller
        connect(m, flipped(self.bus), controller.bus)
        parts = platform.lookup("sdram", 0).ios
        ports = platform.request("sdram", 0, dir={part.name: "-" for part in parts})
        pins = controller.pins
        for name, level in (
            ("clk_en", pins.cke),
            # The resource calls these by what they do when they are low.
            ("cs", ~pins.cs_n),
            ("ras", ~pins.ras_n),
            ("cas", ~pins.cas_n),
            ("we", ~pins.we_n),
            ("ba", pins.ba),
            ("a", pins.a),
            ("dqm", pins.dqm),
        ):
            m.submodules[f"pin_{name}"] = buffer = io.FFBuffer("o", getattr(ports, name))
            m.d.comb += buffer.o.eq(level)
        m.submodules.pin_dq = data = io.FFBuffer("io", ports.dq)
        m.d.comb += [data.o.eq(pins.dq_o), data.oe.eq(pins.dq_oe), pins.dq_i.eq(data.i)]
        m.submodules.pin_clk = clock = io.DDRBuffer("o", ports.clk)
        m.d.comb += [clock.o[0].eq(Const(0)), clock.o[1].eq(Const(1))]
        return m
