"""What the sections of a program file hold, from the program.

The way back is `celosia.sw.program.decode`; the bytes depend on the program alone, so the same
model and configuration give the same file.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from celosia.sw.program.contents import Contents
from celosia.sw.program.sections import (
    HOST,
    LAYER_TYPE,
    NPU,
    SECTION_ALIGNMENT,
    Section,
    pack_sections,
)
from celosia.sw.program.segments import HostSegment, Segment
from celosia.sw.program.tensors import PlacedTensor

__all__ = ["encode"]


def encode(program: Contents) -> bytes:
    """Return the bytes of a program's file; they depend on the program alone."""
    number = {info.name: index for index, info in enumerate(program.tensors)}

    def placed(tensors: Sequence[PlacedTensor]) -> list[dict[str, Any]]:
        return [
            {
                "tensor": number[tensor.name],
                "region": tensor.region,
                "offset": tensor.offset,
                "row_pitch": tensor.row_pitch,
                "pixel_pitch": tensor.pixel_pitch,
            }
            for tensor in tensors
        ]

    def entry(segment: Segment) -> dict[str, Any]:
        if isinstance(segment, HostSegment):
            return {
                "kind": HOST,
                "name": segment.name,
                "model_bytes": len(segment.model),
                "kernels": segment.kernels,
                "layers": len(segment.layers),
                "inputs": [number[info.name] for info in segment.inputs],
                "outputs": [number[info.name] for info in segment.outputs],
            }
        return {
            "kind": NPU,
            "name": segment.name,
            "command_bytes": len(segment.commands),
            **({"setup_bytes": len(segment.setup)} if segment.setup else {}),
            "constant_bytes": len(segment.constants),
            "layers": len(segment.layers),
            "command_layers": len(segment.command_layers),
            "inputs": placed(segment.inputs),
            "outputs": placed(segment.outputs),
            "intermediates": placed(segment.intermediates),
        }

    constants = bytearray()
    for segment in program.npu_segments:
        constants += bytes(-len(constants) % SECTION_ALIGNMENT) + segment.constants
    about = {"model": program.model, "npu": asdict(program.config), "batch": program.batch}
    if program.one_by_one:
        about["one_by_one"] = program.one_by_one
    between = {
        "between": [number[info.name] for info in program.between],
        "casts": [number[name] for name in program.casts],
        "even": [number[name] for name in program.even],
        "layouts": [[number[name], *axes] for name, axes in program.layouts.items()],
    }
    between = {key: numbers for key, numbers in between.items() if numbers}
    models = bytearray()
    for part in program.host_segments:
        models += bytes(-len(models) % SECTION_ALIGNMENT) + part.model
    owners = [owner for segment in program.npu_segments for owner in segment.command_layers]
    contents = {
        Section.CONFIG: _json(about),
        Section.COMMANDS: b"".join(segment.code for segment in program.npu_segments),
        Section.CONSTANTS: bytes(constants),
        Section.TENSORS: _json(
            {
                "tensors": [asdict(info) for info in program.tensors],
                "inputs": [number[info.name] for info in program.inputs],
                "outputs": [number[info.name] for info in program.outputs],
                "conversions": [[number[name] for name in names] for names in program.conversions],
                **between,
            }
        ),
        Section.MEMORY: _json([asdict(segment.memory) for segment in program.npu_segments]),
        Section.LAYERS: _json([asdict(layer) for layer in program.layers]),
        Section.COMMAND_LAYERS: np.array(owners, LAYER_TYPE).tobytes(),
        Section.SEGMENTS: _json([entry(segment) for segment in program.segments]),
        Section.STATE: program.initial_state,
    }
    if models:
        contents[Section.HOST] = bytes(models)
    return pack_sections(contents, program.config.hash)


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
