"""What a machine lacks is refused by compiler, static check, driver and emulator, with a reason."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from celosia.errors import ProgramError, UnsupportedError
from celosia.hw.contract.config import ConfigError, NpuConfig, preset
from celosia.hw.contract.isa import End, Softmax, Vector, VectorOp
from celosia.hw.contract.named import resolve_config
from celosia.hw.contract.needed import operations_in
from celosia.hw.contract.operations import OPERATIONS, Operation
from celosia.hw.contract.regs import ErrorCause
from celosia.sim.emulator.machine import Emulator, EmulatorFault
from celosia.sim.models.tflite_builder import ModelBuilder
from celosia.sw.compiler.build import compile_model
from celosia.sw.driver.emu import EmuDevice
from celosia.sw.program.verify import check_program
from celosia.sw.runtime.session import Session

BASE = preset("base")


def without(*names: str) -> NpuConfig:
    """Return a machine that lacks operations."""
    return BASE.with_(operations=tuple(name for name in OPERATIONS if name not in names))


def model() -> bytes:
    """Return a model that needs every operation: a residual block, pools, a table, softmax.

    And products, a minimum, and one channel for all.
    """
    rng = np.random.default_rng(5)
    builder = ModelBuilder()
    x = builder.input((1, 8, 8, 8), scale=0.1)
    weights = rng.integers(-128, 128, (8, 1, 1, 8)).astype(np.int8)
    x = builder.conv2d(x, weights, w_scales=0.01, scale=0.2)
    y = builder.conv2d(x, weights, w_scales=0.01, scale=0.2)
    y = builder.add(y, x, scale=0.2)
    y = builder.average_pool2d(y, size=(2, 2), strides=(2, 2))
    y = builder.max_pool2d(y, size=(2, 2), strides=(2, 2))
    y = builder.logistic(y)
    one = builder.input((1, 2, 2, 1), scale=0.1)
    y = builder.mul(y, one, scale=0.02)
    for code, options in (
        ("SQUARED_DIFFERENCE", "SquaredDifferenceOptions"),
        ("MINIMUM", "MaximumMinimumOptions"),
    ):
        y = builder.operator(code, [y, y], y.shape, scale=0.02, options=(options, {}))
    y = builder.add(y, y, scale=0.02)
    y = builder.reshape(y, (1, 32))
    return builder.finish([builder.softmax(y)])


def test_the_model_needs_everything() -> None:
    program = compile_model(model(), BASE)
    assert {operation for _, operation in operations_in(program.npu.commands)} == set(Operation)


@pytest.mark.parametrize(
    ("name", "operator"),
    [
        ("ADD", "ADD"),
        ("AVERAGE", "AVERAGE_POOL_2D"),
        ("MAX", "MAX_POOL_2D"),
        ("MUL", "MUL"),
        ("SPREAD", "MUL"),
        ("SQUARED_DIFFERENCE", "SQUARED_DIFFERENCE"),
        ("MIN", "MINIMUM"),
        ("TABLE", "LOGISTIC"),
        ("SOFTMAX", "SOFTMAX"),
    ],
)
def test_compiler_names_operator_and_operation(name: str, operator: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        compile_model(model(), without(name), host="refuse")
    error = caught.value
    # The layer by what it computes, too: a number is found by no model viewer.
    assert error.what.startswith(f"{operator} #{error.op_index} ('")
    assert error.op_type == operator
    assert f"{name} is not among the operations of configuration 'custom'" in error.cause
    assert "host" in error.remedy


def test_compiler_does_without_fused_additions() -> None:
    program = compile_model(model(), without("REQUANT_ADD"))
    found = {operation for _, operation in operations_in(program.npu.commands)}
    assert found == set(Operation) - {Operation.REQUANT_ADD}
    assert program.config.operations == without("REQUANT_ADD").operations


def test_check_and_driver_refuse_a_program_for_another_machine() -> None:
    program = compile_model(model(), BASE)
    config = without("MAX")
    with EmuDevice(config, memory_bytes=1 << 20) as device:
        with pytest.raises(ProgramError, match="it lacks MAX"):
            Session(program, device)
        # As if somebody had written the machine's own name into it.
        forged = replace(program, config=config)
        with pytest.raises(ProgramError, match="MAX is not among the operations") as caught:
            Session(forged, device)
        assert "use a configuration that has it" in caught.value.remedy
    with pytest.raises(ProgramError, match=r"command \d+ \(Vector\).* MAX is not among") as caught:
        check_program(forged)
    assert "defect of the compiler" not in str(caught.value)


@pytest.mark.parametrize(
    ("command", "cause"),
    [
        (Vector(op=VectorOp.MAX, tag=4), ErrorCause.ILLEGAL_FIELD),
        (Softmax(channels=4, n_rows=1, tag=4), ErrorCause.ILLEGAL_OPCODE),
    ],
    ids=["vector", "softmax"],
)
def test_emulator_refuses(command: Vector | Softmax, cause: ErrorCause) -> None:
    config = without("MAX", "SOFTMAX")
    emulator = Emulator(config, memory_bytes=1 << 12)
    emulator.load_code(command.encode() + End(tag=5).encode())
    with pytest.raises(EmulatorFault, match="is not among the operations") as caught:
        emulator.run()
    assert (caught.value.cause, caught.value.unit, caught.value.tag) == (cause, 3, 4)


def test_a_program_file_keeps_the_operations(tmp_path: Path) -> None:
    program = compile_model(model(), without("REQUANT_ADD"))
    program.save(tmp_path / "model.celosia")
    assert type(program).load(tmp_path / "model.celosia").config == program.config


def test_a_configuration_file_says_the_operations(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text('{"operations": ["SOFTMAX", "REQUANT"]}', encoding="utf-8")
    assert resolve_config(path).operations == ("REQUANT", "SOFTMAX")
    for text, words in (
        ('{"operations": "REQUANT"}', "operations must be a list"),
        ('{"operations": ["REQUANT", 3]}', r"operations\[1\] must be a text, not 3"),
        ('{"operations": ["ADD"]}', "operations must have REQUANT"),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError, match=words):
            resolve_config(path)
