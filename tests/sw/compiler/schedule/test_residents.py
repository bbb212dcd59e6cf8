"""Weights that stay on chip: equal outputs, nothing loaded twice, brought anew if need be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
from celosia.errors import ProgramError
from celosia.hw.contract.config import NpuConfig, preset
from celosia.hw.contract.isa import Command, Conv, End, Load, Space
from celosia.hw.contract.named import NAMED_CONFIGS
from celosia.quantities import KIB
from celosia.sim.models.tflite_builder import ModelBuilder
from celosia.sw.compiler import build
from celosia.sw.compiler.build import compile_model
from celosia.sw.compiler.cost.times import MemoryTiming
from celosia.sw.driver.emu import EmuDevice
from celosia.sw.program.file import Program
from celosia.sw.program.verify import check_program
from celosia.sw.report.samples import random_samples

from tests.kit.places import benchmark_model
from tests.kit.random_models import random_network
from tests.kit.random_unsigned import random_unsigned

BASE = preset("base")
SLOW = MemoryTiming(latency_cycles=12, interval_cycles=4)
MEMORY_BYTES = 4 << 20
SEEDS = range(12)


def loaded_bytes(commands: Sequence[Command], space: Space) -> int:
    return sum(
        command.row_bytes * command.n1 * command.n2
        for command in commands
        if isinstance(command, Load) and command.space == space
    )


@contextmanager
def every_choice(number: int) -> Iterator[None]:
    """Let weights stay that would be chosen as number `number`, whatever is predicted."""
    original = build._with_residents

    def chosen(variant: object, config: NpuConfig, memory: MemoryTiming | None) -> object:
        found: list[object] = []
        real = build._build

        def kept(*arguments: object) -> object:
            made = real(*arguments)  # type: ignore[arg-type]
            found.append(made)
            return made

        with patch.object(build, "_build", kept):
            original(variant, config, memory)  # type: ignore[arg-type]
        return found[min(number, len(found) - 1)] if found else variant

    with patch.object(build, "_with_residents", chosen):
        yield


def dense(widths: Sequence[int], seed: int = 0) -> bytes:
    """Return a model of fully connected layers."""
    rng = np.random.default_rng(seed)
    builder = ModelBuilder()
    tensor = builder.input((1, widths[0]), scale=0.05)
    for width_in, width in zip(widths[:-1], widths[1:], strict=True):
        weights = rng.integers(-127, 128, (width, width_in)).astype(np.int8)
        bias = rng.integers(-500, 500, width).astype(np.int32)
        tensor = builder.fully_connected(tensor, weights, bias, w_scales=0.01, scale=0.8)
    return builder.finish([tensor])


def outputs(program: Program, count: int = 3) -> list[list[np.ndarray]]:
    """Run random samples on one device, one after the other."""
    samples = random_samples(program, count, 5)
    with EmuDevice(program.config, memory_bytes=MEMORY_BYTES) as device:
        return [list(device.run(program, sample).outputs.values()) for sample in samples]


def require_equal(program: Program, plain: Program) -> None:
    for one, other in zip(outputs(program), outputs(plain), strict=True):
        for ours, theirs in zip(one, other, strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("seed", SEEDS)
def test_random_networks_compute_the_same(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng).model
    wgt_bytes = int(rng.choice([KIB, 2 * KIB, 8 * KIB, 64 * KIB]))
    config = BASE.with_(wgt_bytes=wgt_bytes)
    plain = compile_model(model, config, resident=False)
    with every_choice(int(rng.integers(6))):
        program = compile_model(model, config, resident=True)
    check_program(program)
    require_equal(program, plain)


@pytest.mark.parametrize("code", ["CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"])
@pytest.mark.parametrize("seed", range(4))
def test_weights_of_more_than_eight_bits_stay_as_far_as_they_have_eight(
    code: str, seed: int
) -> None:
    model = random_unsigned(code, np.random.default_rng(seed)).model
    plain = compile_model(model, BASE, resident=False)
    with every_choice(seed):
        program = compile_model(model, BASE, resident=True)
    check_program(program)
    require_equal(program, plain)


def test_some_random_network_keeps_some_of_its_weights() -> None:
    kept = 0
    for seed in SEEDS:
        model = random_network(np.random.default_rng(seed)).model
        with every_choice(0):
            program = compile_model(model, BASE.with_(wgt_bytes=64 * KIB), resident=True)
        kept += any(segment.setup for segment in program.npu_segments)
    assert kept > len(SEEDS) // 2


def test_all_weights_stay_where_there_is_room() -> None:
    model = benchmark_model("kws")
    config = BASE.with_(wgt_bytes=64 * KIB)
    plain = compile_model(model, config)
    program = compile_model(model, config, resident=True, memory=SLOW)
    commands = program.npu.decode()
    assert loaded_bytes(commands, Space.WGT) == 0
    assert program.npu.staying_bytes == loaded_bytes(plain.npu.decode(), Space.WGT)
    assert any(isinstance(command, Conv) for command in commands)
    assert not plain.npu.setup
    require_equal(program, plain)


def test_what_does_not_fit_is_loaded_in_each_run_and_the_rest_is_not() -> None:
    model = dense((256, 128, 128, 128, 64))
    config = BASE.with_(wgt_bytes=32 * KIB)
    plain = compile_model(model, config, resident=False, memory=SLOW)
    program = compile_model(model, config, resident=True, memory=SLOW)
    total = loaded_bytes(plain.npu.decode(), Space.WGT)
    stays, passes = program.npu.staying_bytes, loaded_bytes(program.npu.decode(), Space.WGT)
    assert total > config.wgt_bytes
    assert stays + passes == total
    assert stays >= config.wgt_bytes // 2
    assert program.predicted_cycles < 0.75 * plain.predicted_cycles
    require_equal(program, plain)


def test_a_layer_may_stay_in_part() -> None:
    model = dense((512, 256))
    config = BASE.with_(wgt_bytes=64 * KIB)
    program = compile_model(model, config, resident=True, memory=SLOW)
    assert 0 < program.npu.staying_bytes < 512 * 256
    assert loaded_bytes(program.npu.decode(), Space.WGT) == 512 * 256 - program.npu.staying_bytes
    require_equal(program, compile_model(model, config, resident=False))


def test_weights_come_back_when_another_program_has_run() -> None:
    config = BASE.with_(wgt_bytes=32 * KIB)
    programs = [
        compile_model(dense((256, 128, 128), seed), config, resident=True, memory=SLOW)
        for seed in (1, 2)
    ]
    plain = compile_model(dense((512, 256), 3), config, resident=False)
    assert all(program.npu.setup for program in programs)
    samples = {id(p): random_samples(p, 1, 5)[0] for p in (*programs, plain)}

    def run(device: EmuDevice, program: Program) -> np.ndarray:
        return device.run(program, samples[id(program)]).output

    with EmuDevice(config, memory_bytes=MEMORY_BYTES) as device:
        alone = {id(p): run(device, p) for p in (*programs, plain)}
    with EmuDevice(config, memory_bytes=MEMORY_BYTES) as device:
        for number in (0, 0, 1, 1, 0, 2, 0, 2, 1):
            program = (*programs, plain)[number]
            np.testing.assert_array_equal(run(device, program), alone[id(program)])


def test_without_the_setup_the_result_is_wrong() -> None:
    program = compile_model(
        benchmark_model("kws"), BASE.with_(wgt_bytes=64 * KIB), resident=True, memory=SLOW
    )
    without = program.with_npu(setup=b"")
    assert not np.array_equal(outputs(program, 1)[0][0], outputs(without, 1)[0][0])


def test_many_samples_at_once_find_the_weights() -> None:
    program = compile_model(dense((256, 128, 128)), BASE, resident=True, memory=SLOW)
    assert program.npu.setup
    samples = random_samples(program, 5, 5)
    with EmuDevice(BASE, memory_bytes=MEMORY_BYTES) as device:
        assert device.samples_at_once(program.npu) > 1
        given = [{t.name: s[t.name] for t in program.npu.inputs} for s in samples]
        together = device.run_samples(program.npu, given)
        for sample, result in zip(samples, together, strict=True):
            np.testing.assert_array_equal(
                list(result.outputs.values())[0], device.run(program, sample).output
            )


def test_a_file_keeps_the_setup(tmp_path: object) -> None:
    program = compile_model(dense((256, 128, 128)), BASE, resident=True, memory=SLOW)
    assert Program.from_bytes(program.to_bytes()) == program
    plain = compile_model(dense((256, 128, 128)), BASE, resident=False)
    assert b"setup_bytes" in program.to_bytes()
    assert b"setup_bytes" not in plain.to_bytes()


def test_by_default_weights_stay_where_a_board_has_memory_for_them() -> None:
    model = dense((256, 128, 128))
    assert compile_model(model, NAMED_CONFIGS["ulx3s"], memory=SLOW).npu.setup
    assert not compile_model(model, NAMED_CONFIGS["ulx3s"], resident=False).npu.setup
    assert not compile_model(model, BASE, memory=SLOW).npu.setup


def test_a_run_that_overwrites_what_stays_is_refused() -> None:
    program = compile_model(dense((256, 128, 128)), BASE, resident=True, memory=SLOW)
    setup = program.npu.decode_setup()
    stays = next(command for command in setup if isinstance(command, Load))
    commands = program.npu.decode()[:-1]
    commands.append(replace(stays, tag=len(commands), row_bytes=64))
    commands.append(End(tag=len(commands)))
    code = b"".join(command.encode() for command in commands)
    owners = (*program.npu.command_layers[:-1], 0, -1)
    with pytest.raises(ProgramError, match="stay from run to run"):
        check_program(program.with_npu(commands=code, command_layers=owners))


def test_a_setup_that_does_more_than_load_weights_is_refused() -> None:
    program = compile_model(dense((256, 128, 128)), BASE, resident=True, memory=SLOW)
    with pytest.raises(ProgramError, match="loads no weights"):
        check_program(program.with_npu(setup=program.npu.commands))
