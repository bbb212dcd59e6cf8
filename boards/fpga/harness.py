"""Frames for a core on its own: as a design has it, and to place and route it without pins."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, ClockDomain, Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out, Signature
from celosia.hw.fabric.frame import pass_ports

__all__ = ["OpenFrame", "TimingHarness"]


class OpenFrame(Component):
    """A component with some of its ports left open, as a design leaves them.

    Parameters
    ----------
    component : Component
        Its other ports keep their names.
    unconnected : tuple of str
        Top-level members that are left open.
    """

    def __init__(self, component: Component, *, unconnected: tuple[str, ...]) -> None:
        self._component = component
        members = dict(component.signature.members)
        super().__init__(
            Signature({name: members[name] for name in members if name not in unconnected})
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.component = component = self._component
        pass_ports(m, component, self)
        return m


class TimingHarness(Component):
    """A component whose ports end in registers next to it instead of in pins.

    Inputs come from a shift register, outputs go to registers that are shifted out, so that four
    pins are enough, nothing is optimised away, and no path has a pin's delay in it: what place and
    route reports is the component's own clock. Ports named in `unconnected` are left open.

    ::

        si --> [shift register] --> component --> [registers] --> [shift register] --> so

    Parameters
    ----------
    component : Component
        In clock domain ``sync``.
    unconnected : tuple of str
        Top-level members that a design leaves open.

    Members
    -------
    clk : In(1), rst : In(1)
        Clock; synchronous reset, one cycle late.
    si : In(1), load : In(1), so : Out(1)
        Serial input; take the outputs instead of shifting them; serial output.
    """

    def __init__(self, component: Component, *, unconnected: tuple[str, ...] = ()) -> None:
        self._component = component
        self._unconnected = unconnected
        super().__init__({"clk": In(1), "rst": In(1), "si": In(1), "load": In(1), "so": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.domains.sync = sync = ClockDomain()
        m.domains.frame = frame = ClockDomain(reset_less=True)
        reset = Signal(init=1)
        m.d.frame += reset.eq(self.rst)
        m.d.comb += [sync.clk.eq(self.clk), frame.clk.eq(self.clk), sync.rst.eq(reset)]
        m.submodules.component = component = self._component

        inputs: list[Any] = []
        outputs: list[Any] = []
        for path, member, port in component.signature.flatten(component):
            if path[0] in self._unconnected:
                continue
            (outputs if member.flow is Out else inputs).append(Signal.cast(port))
        entering = Signal(sum(len(port) for port in inputs))
        results = Signal(sum(len(port) for port in outputs))
        leaving = Signal(len(results))
        load, si = Signal(), Signal()
        m.d.frame += [
            si.eq(self.si),
            load.eq(self.load),
            entering.eq(Cat(si, entering)),
            results.eq(Cat(outputs)),
            leaving.eq(Mux(load, results, leaving >> 1)),
            self.so.eq(leaving[0]),
        ]
        m.d.comb += Cat(inputs).eq(entering)
        return m
