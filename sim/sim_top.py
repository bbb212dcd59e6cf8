"""Top level for simulation: the component with its reset behind a register."""

from __future__ import annotations

from amaranth.hdl import ClockDomain, Module, Signal
from amaranth.lib.wiring import Component, In, Out, Signature, connect, flipped

__all__ = ["SimTop"]


class SimTop(Component):
    """A component between ports ``clk`` and ``rst``, the latter one cycle late.

    Verilator evaluates whatever depends on an input each time that an input changes. A
    synchronous reset reaches the next-state logic of every register, so without the register
    the whole machine is evaluated again for every bus answer: half the speed.

    Parameters
    ----------
    component : Component
        In clock domain ``sync``. Its ports keep their names.
    """

    def __init__(self, component: Component) -> None:
        self._component = component
        super().__init__(
            Signature({**dict(component.signature.members), "clk": In(1), "rst": In(1)})
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.domains.sync = sync = ClockDomain()
        m.domains.early = early = ClockDomain(reset_less=True)
        reset = Signal(init=1)
        m.d.early += reset.eq(self.rst)
        m.d.comb += [sync.clk.eq(self.clk), early.clk.eq(self.clk), sync.rst.eq(reset)]
        m.submodules.component = component = self._component
        for name, member in component.signature.members.items():
            inner, outer = getattr(component, name), getattr(self, name)
            if not member.is_port:
                connect(m, inner, flipped(outer))
            elif member.flow is Out:
                m.d.comb += outer.eq(inner)
            else:
                m.d.comb += inner.eq(outer)
        return m
