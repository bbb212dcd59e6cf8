"""The register file is a Wishbone B4 target, and its registers do what the map says."""

from __future__ import annotations

from typing import Any

import pytest
from amaranth.hdl import Assert, Cat, Cover, Module, Mux, Signal
from amaranth.lib.wiring import Component, In
from celosia.hw.bus import csr
from celosia.hw.contract.regs import ACCESS, REGISTERS, address_of


class CsrHarness(Component):
    """Any initiator, classic or pipelined, well behaved or not.

    Members
    -------
    cyc, stb, we, adr, sel, dat_w : In
        The register bus.
    bit : In(32)
        One-hot or not: what the fields that can only be read, or set, are fed with.
    """

    def __init__(self) -> None:
        self.dut = csr.RegisterFile()
        self.names = ("cyc", "stb", "we", "adr", "sel", "dat_w")
        ports = {name: In(getattr(self.dut.bus, name).shape()) for name in self.names}
        super().__init__(ports | {"set": In(2)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.dut = dut = self.dut
        bus = dut.bus
        for name in self.names:
            m.d.comb += getattr(bus, name).eq(getattr(self, name))
        accepted, taken, read, waiting = Signal(), Signal(), Signal(), Signal()
        m.d.comb += accepted.eq(bus.cyc & bus.stb & ~bus.stall)
        # The request that was accepted in the last cycle; it is carried out in this one.
        self.request = {
            name: Signal.like(getattr(bus, name), name=f"request_{name}")
            for name in ("adr", "we", "sel", "dat_w")
        }
        m.d.sync += taken.eq(accepted)
        m.d.sync += [value.eq(getattr(bus, name)) for name, value in self.request.items()]
        # Of that which was accepted two cycles before, and not given up since:
        word, write = Signal.like(bus.adr), Signal()
        m.d.sync += [read.eq(taken & bus.cyc), waiting.eq(read & bus.cyc)]
        with m.If(taken):
            m.d.sync += [word.eq(self.request["adr"]), write.eq(self.request["we"])]
        answer = bus.ack | bus.err
        mapped = Cat(word == entry.address // 4 for entry in REGISTERS).any()
        m.d.comb += [
            Assert(~answer | waiting, "no answer without a request"),
            Assert(~answer | bus.cyc, "no answer after cyc has fallen"),
            Assert(~(bus.ack & bus.err), "never ack and err at once"),
            Assert(~(waiting & bus.cyc) | answer, "every request is answered three cycles later"),
            Assert(~bus.ack | mapped, "ack only at the address of a register"),
            Assert(~bus.err | ~mapped, "err only where no register is"),
            Cover(bus.ack & write, "a write is acknowledged"),
            Cover(bus.err, "an error"),
            Cover(waiting & bus.cyc & bus.stb & bus.stall, "a classic initiator holds its request"),
        ]
        self._storage(m, taken)
        self._pending(m, taken)
        self._doorbell(m, taken)
        return m

    def _storage(self, m: Module, taken: Signal) -> None:
        """A register that can be read and written holds what was written, byte by byte."""
        bus = self.dut.bus
        here = self.request["adr"] == address_of("region0_base") // 4
        mask = Cat(bit.replicate(8) for bit in self.request["sel"])
        kept, expected, reads, read = Signal(32), Signal(32), Signal(), Signal()
        with m.If(taken & self.request["we"] & here):
            m.d.sync += kept.eq((kept & ~mask) | (self.request["dat_w"] & mask))
        m.d.sync += [
            reads.eq(taken & ~self.request["we"] & here),
            read.eq(reads),
            expected.eq(kept),
        ]
        value = self.dut.fields["region0_base"]["value"]
        m.d.comb += [
            Assert(value == kept, "a register has what was written last"),
            Assert(~read | ~bus.ack | (bus.dat_r == expected), "reads return the register"),
            Cover(read & bus.ack & (bus.dat_r == 0x12003400), "a written value is read"),
        ]

    def _pending(self, m: Module, taken: Signal) -> None:
        """A pending interrupt goes by being set, and is cleared by writing 1 alone."""
        fields = self.dut.fields["irq_pending"]
        here = (
            taken
            & self.request["we"]
            & (self.request["adr"] == address_of("irq_pending") // 4)
            & self.request["sel"][0]
        )
        for place, (name, port) in enumerate(fields.items()):
            offset = next(
                f.offset_bits
                for entry in REGISTERS
                if entry.name == "irq_pending"
                for f in entry.fields
                if f.name == name
            )
            model = Signal(name=f"model_{name}")
            m.d.comb += port.set.eq(self.set[place])
            cleared = here & self.request["dat_w"][offset]
            m.d.sync += model.eq(Mux(self.set[place], 1, model & ~cleared))
            m.d.comb += [
                Assert(port.value == model, f"pending {name}: set wins, writing 1 clears"),
                Cover(model & cleared, f"pending {name} is cleared"),
            ]

    def _doorbell(self, m: Module, taken: Signal) -> None:
        """What a write of a write-only field starts happens once, with the write."""
        here = (
            taken
            & self.request["we"]
            & (self.request["adr"] == address_of("doorbell") // 4)
            & self.request["sel"][0]
        )
        start = self.dut.fields["doorbell"]["start"]
        m.d.comb += Assert(
            start == (here & self.request["dat_w"][0]), "the doorbell rings once for each write"
        )


def test_csr(formal: Any) -> None:
    assert any(f.access is ACCESS.RW1C for entry in REGISTERS for f in entry.fields)
    formal.check(CsrHarness())


BUGS = {
    "answers the held request again": (
        "request.eq(bus.cyc & bus.stb & ~bus.stall)",
        "request.eq(bus.cyc & bus.stb)",
        "",
    ),
    "answers without cyc": (
        "bus.ack.eq(bus.cyc & answered & ~unmapped)",
        "bus.ack.eq(answered & ~unmapped)",
        "after cyc",
    ),
    "ack beside err": (
        "bus.ack.eq(bus.cyc & answered & ~unmapped)",
        "bus.ack.eq(bus.cyc & answered)",
        "",
    ),
    "sel ignored": ("m.If(selected & mask[8 * byte])", "m.If(selected & mask.any())", ""),
    "clearing wins": (
        "(port.value & ~(data & enable)) | port.set",
        "(port.value | port.set) & ~(data & enable)",
        "set wins",
    ),
}


@pytest.mark.parametrize("bug", list(BUGS))
def test_seeded_bug_is_found(formal: Any, bug: str) -> None:
    right, wrong, claim = BUGS[bug]
    formal.seed_bug(csr, "RegisterFile", right, wrong)
    formal.refute(CsrHarness(), claim)


def test_an_smt_solver_agrees(second_opinion: Any) -> None:
    assert second_opinion(CsrHarness(), depth=8) == "PASS"


def test_an_smt_solver_finds_a_seeded_bug(formal: Any, second_opinion: Any) -> None:
    right, wrong, _ = BUGS["answers without cyc"]
    formal.seed_bug(csr, "RegisterFile", right, wrong)
    assert second_opinion(CsrHarness(), depth=8, covers=False) == "FAIL"
