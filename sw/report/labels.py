"""Short names of layers and commands: TFLite's tensor names run to hundreds of characters."""

from __future__ import annotations

from celosia.hw.contract.isa import Command, Load, Space, Vector, VectorOp
from celosia.sw.program.segments import LayerInfo

__all__ = ["command_label", "layer_label"]


def layer_label(layer: LayerInfo) -> str:
    """Return a layer's number in the model and its operator, for example ``#3 CONV_2D``."""
    return f"#{layer.origin.index} {layer.op}" if layer.origin.index >= 0 else layer.op


def command_label(command: Command) -> str:
    """Return what a command does, for example ``Conv``, ``Vector ADD`` or ``Load WGT``."""
    name = type(command).__name__
    if isinstance(command, Vector):
        return f"{name} {VectorOp(command.op).name}"
    return f"{name} {Space(command.space).name}" if isinstance(command, Load) else name
