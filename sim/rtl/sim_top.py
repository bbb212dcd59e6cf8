"""Top level for simulation: the component with its reset behind a register."""

from __future__ import annotations

from amaranth.hdl import ClockDomain, Module, Signal
from amaranth.lib.wiring import Component, In, Out, Signature
from celosia.hw.fabric.frame import pass_ports
from celosia.hw.fabric.gating import GATED_DOMAINS, ClockGates

__all__ = ["CLOCKS", "SimTop"]

CLOCKS = (*GATED_DOMAINS, "reset")
"""Gated clocks: of the parts, and of the reset's register."""


class SimTop(Component):
    """A component between ports ``clk`` and ``rst``, the latter one cycle late.

    Verilator evaluates whatever depends on an input each time that an input changes. A
    synchronous reset reaches the next-state logic of every register, so without the register
    the whole machine is evaluated again for every bus answer: half the speed.

    Parameters
    ----------
    component : Component
        In clock domain ``sync``. Its ports keep their names.
    gates : ClockGates, optional
        The platform it is elaborated for. Then each X of :data:`CLOCKS` has ports ``clk_X`` and
        ``enable_X``: in a cycle in which the second is high when the inputs have settled, the
        first is to rise together with ``clk``.
    """

    def __init__(self, component: Component, gates: ClockGates | None = None) -> None:
        self._component, self._gates = component, gates
        ports = {"clk": In(1), "rst": In(1)}
        if gates is not None:
            for name in CLOCKS:
                ports |= {f"clk_{name}": In(1), f"enable_{name}": Out(1)}
        super().__init__(Signature({**dict(component.signature.members), **ports}))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.domains.sync = sync = ClockDomain()
        m.domains.early = early = ClockDomain(reset_less=True)
        reset = Signal(init=1)
        m.d.early += reset.eq(self.rst)
        m.d.comb += [sync.clk.eq(self.clk), sync.rst.eq(reset)]
        if self._gates is None:
            m.d.comb += early.clk.eq(self.clk)
        else:
            # All next states depend on it: with a clock that hardly ever rises, that of a part
            # that stands still is not evaluated.
            m.d.comb += [
                early.clk.eq(self.clk_reset),
                self.enable_reset.eq(self.rst != reset),
            ]
            for name, enable in self._gates.enables.items():
                domain = ClockDomain(name)
                m.domains += domain
                m.d.comb += [
                    domain.clk.eq(getattr(self, f"clk_{name}")),
                    domain.rst.eq(reset),
                    getattr(self, f"enable_{name}").eq(enable | self._gates.reset | reset),
                ]
        m.submodules.component = component = self._component
        pass_ports(m, component, self)
        return m
