"""Firmware of a machine that lacks operations: smaller, and refuses them like the emulator."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from celosia.hw.contract.config import preset
from celosia.hw.contract.isa import Command, End, Softmax, Space, Vector, VectorOp
from celosia.hw.contract.needed import operations_of
from celosia.hw.nano.firmware.image import firmware

pytestmark = pytest.mark.xdist_group("rtl-nano-operations")

CONFIG = preset("nano").with_(operations=("REQUANT", "ADD", "TABLE"))
TAG = 7
WHOLE = Vector(op=VectorOp.ADD, n_oc=1, out_h=2, out_w=4, tile_rows=2, a_x=1, a_y=4, b_addr=16,
               b_x=1, b_y=4, d_addr=32, d_x=1, d_y=4, act_min=-128, act_max=127, mult_a=1 << 30,
               mult_b=1 << 30, mult_o=1 << 30, shift_o=19, tag=TAG)  # fmt: skip
COMMANDS: dict[str, Command] = {
    **{op.name: replace(WHOLE, op=op) for op in VectorOp if not op.reads_acc},
    "MIN": replace(WHOLE, op=VectorOp.MAX, least=1),
    "SPREAD": replace(WHOLE, b_oc=1),
    "REQUANT_ADD": replace(WHOLE, op=VectorOp.REQUANT_ADD),
    "SOFTMAX": Softmax(channels=5, n_rows=2, a_y=2, d_addr=32, d_y=2, tag=TAG),
}


def test_firmware_without_operations_is_smaller() -> None:
    whole, part = (len(firmware(config).code) for config in (preset("nano"), CONFIG))
    assert part < whole - 400


@pytest.mark.parametrize("name", list(COMMANDS))
def test_what_is_lacking_is_refused_and_the_rest_runs(machine_of: Any, name: str) -> None:
    command = COMMANDS[name]
    machine_of.shuffle(np.random.default_rng(3))
    if all(CONFIG.can(operation) for operation in operations_of(command)):
        fills = [machine_of.fill(space, 256) for space in (Space.ACT, Space.TABLE)]
        machine_of.both(*fills, command, machine_of.drain(256))
        return
    found, expected = machine_of.faults([command, End(tag=TAG + 1)])
    assert found == expected
    assert found.cause == ("ILLEGAL_OPCODE" if name == "SOFTMAX" else "ILLEGAL_FIELD")
    assert (found.unit, found.tag) == (3, TAG)
