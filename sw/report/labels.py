"""Short names of layers: TFLite's tensor names run to hundreds of characters."""

from __future__ import annotations

from celosia.sw.program.segments import LayerInfo

__all__ = ["layer_label"]


def layer_label(layer: LayerInfo) -> str:
    """Return a layer's number in the model and its operator, for example ``#3 CONV_2D``."""
    return f"#{layer.origin.index} {layer.op}" if layer.origin.index >= 0 else layer.op
