"""Reads the elements of a row, one by one, from the activation SRAM."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.contract.config import ACT_BANKS, NpuConfig
from celosia.hw.memory.ports import BankRead, bank_of
from celosia.hw.vector.uop import LINE_SUM_BITS

__all__ = ["ElementReader", "PlaceReader"]


class ElementReader(Component):
    """``count`` bytes from the start of line `base` on: one a cycle, 3 cycles more for each line.

    Members
    -------
    start : In(1)
        Begin; `base` and `count` are taken.
    base : In(17)
        First line.
    count : In(16)
        Elements, at least 1.
    halt : In(1)
        Take no more lines.
    act : Out(BankRead)
    take : Out(1)
        The line is there.
    valid : Out(1)
        An element is there.
    value : Out(8)
        The element.
    place : Out(range(line_bytes))
        Its byte in its line.
    last_of_line, last : Out(1)
        It is the last one of its line; of the row.
    outside : Out(1)
        Line `line` is wanted and does not exist.
    """

    def __init__(self, config: NpuConfig) -> None:
        self._config = config
        super().__init__(
            {
                "start": In(1),
                "base": In(LINE_SUM_BITS),
                "count": In(16),
                "halt": In(1),
                "act": Out(BankRead(config)),
                "take": Out(1),
                "valid": Out(1),
                "value": Out(8),
                "place": Out(range(config.line_bytes)),
                "last_of_line": Out(1),
                "last": Out(1),
                "outside": Out(1),
                "line": Out(LINE_SUM_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self._config
        size_bits = (config.act_lines - 1).bit_length()
        left = Signal(16, reset_less=True)
        # Of `line`, in registers; and while it is asked for, as grants wait for that.
        bank = Signal(ACT_BANKS, reset_less=True)
        asked = Signal(ACT_BANKS)
        beyond = Signal(reset_less=True)
        m.d.comb += [
            self.act.line.eq(self.line),
            self.act.bank.eq(asked),
            self.last.eq(left == 0),
            self.last_of_line.eq((self.place == config.line_bytes - 1) | self.last),
        ]
        self._keep_line(m)
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [
                    self.line.eq(self.base),
                    bank.eq(bank_of(self.base)),
                    beyond.eq(self.base[size_bits:].any()),
                    left.eq(self.count - 1),
                ]
                with m.If(self.start):
                    m.d.sync += asked.eq(Mux(self.base[size_bits:].any(), 0, bank_of(self.base)))
                    m.next = "REQUEST"
            with m.State("REQUEST"):
                m.d.comb += self.outside.eq(beyond)
                with m.If(~beyond & self.act.gnt & ~self.halt):
                    m.d.sync += asked.eq(0)
                    m.next = "WAIT"
            with m.State("WAIT"):
                # Not in the cycle of the grant, which comes late.
                m.d.sync += [self.line.eq(self.line + 1), bank.eq(bank.rotate_left(1))]
                m.next = "TAKE_LINE"
            with m.State("TAKE_LINE"):
                m.d.comb += self.take.eq(1)
                m.d.sync += [
                    self.place.eq(0),
                    beyond.eq(self.line[size_bits:].any()),
                ]
                m.next = "ELEMENTS"
            with m.State("ELEMENTS"):
                m.d.comb += self.valid.eq(1)
                m.d.sync += [
                    self.place.eq(self.place + 1),
                    left.eq(left - 1),
                ]
                with m.If(self.last):
                    m.next = "IDLE"
                with m.Elif(self.last_of_line):
                    m.d.sync += asked.eq(Mux(beyond, 0, bank))
                    m.next = "REQUEST"
        return m

    def _keep_line(self, m: Module) -> None:
        buffer = Signal(8 * self._config.line_bytes, reset_less=True)
        m.d.comb += self.value.eq(buffer[:8])
        with m.If(self.take):
            m.d.sync += buffer.eq(self.act.data)
        with m.Elif(self.valid):
            m.d.sync += buffer.eq(buffer >> 8)


class PlaceReader(ElementReader):
    """Says when a line is there, and which of its elements is at hand; others keep it.

    `value` is always 0.
    """

    def _keep_line(self, m: Module) -> None:
        pass
