"""Components around a component."""

from __future__ import annotations

from amaranth.hdl import Module
from amaranth.lib.wiring import Component, Out, connect, flipped

__all__ = ["pass_ports"]


def pass_ports(m: Module, component: Component, frame: Component) -> None:
    """Connect a component to the ports of the same names of the frame around it.

    Parameters
    ----------
    m : Module
        The frame's.
    component : Component
        A submodule of it.
    frame : Component
        What it lacks of the component's ports stays open; what it has besides is left alone.
    """
    for name, member in component.signature.members.items():
        if name not in frame.signature.members:
            continue
        inner, outer = getattr(component, name), getattr(frame, name)
        if not member.is_port:
            connect(m, inner, flipped(outer))
        elif member.flow is Out:
            m.d.comb += outer.eq(inner)
        else:
            m.d.comb += inner.eq(outer)
