"""The array engine with its memories, in all modes, against the golden accumulators."""

from __future__ import annotations

import dataclasses
import os
import random
from typing import Any

import cocotb
import numpy as np
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Conv, Mode
from celosia.hw.contract.regs import ErrorCause

from tests.kit.bfm.cycles import Cycles, Pins
from tests.kit.bfm.ports import (
    AccReader,
    CommandDriver,
    FaultMonitor,
    LineReader,
    LineWriter,
    WindowWriter,
)
from tests.kit.designs import DESIGNS
from tests.kit.layers import Layer, assemble, convolution, depthwise, joined, phased

CONFIG: NpuConfig = DESIGNS[os.environ["CELOSIA_DESIGN"]].config
LINE = CONFIG.line_bytes


class Rig:
    """The design with its surroundings."""

    def __init__(self, dut: Any) -> None:
        rng = self.random = random.Random(random.getrandbits(64))
        self.numpy = np.random.default_rng(rng.getrandbits(32))
        self.cycles = cycles = Cycles(dut)
        self.halt = Pins(dut, "", ("halt",))
        self.halt.set("halt", 0)
        self.act: list[int] = []
        self.command = CommandDriver(cycles, dut, "cmd", seed=rng.getrandbits(32), done="done")
        self.fault = FaultMonitor(cycles, dut, "fault")
        self.acc = AccReader(
            cycles, dut, "acc", seed=rng.getrandbits(32), max_pause=30, gap=rng.choice((0, 0.3))
        )
        self.result = LineWriter(cycles, dut, "result")
        self.weights = WindowWriter(cycles, dut, "weights", word_bytes=CONFIG.bus_bytes)
        # The vector engine reads the same banks; the array must not notice.
        self.vector = LineReader(
            cycles, dut, "vector", seed=rng.getrandbits(32), noise_lines=CONFIG.act_lines,
            check=self._check_line,
        )  # fmt: skip

    def _check_line(self, line: int, data: int) -> None:
        assert data == self.act[line], f"the vector engine's line {line}"

    async def fill(self, layer: Layer) -> None:
        """Write the memories."""
        self.act = [
            int.from_bytes(layer.act[at : at + LINE].tobytes(), "little")
            for at in range(0, len(layer.act), LINE)
        ]
        await self.result.write(dict(enumerate(self.act)))
        assert layer.wgt.size <= CONFIG.wgt_bytes, "the layer does not fit"
        await self.weights.write(layer.wgt.tobytes())

    async def run(self, commands: list[Conv]) -> list[Any]:
        """Run commands; return the tiles, int32 [vectors, lanes] each."""
        self.acc.tiles.clear()
        for command in commands:
            self.command.push(command.encode())
            if command.hold:
                continue
            for _ in range(command.n_oc):
                for y in range(0, command.out_h, command.tile_rows):
                    rows = min(command.tile_rows, command.out_h - y)
                    self.acc.expect(rows * command.out_w)
        self.vector.noise = self.random.choice((0.0, 0.5))
        await self.cycles.until(lambda: self.command.idle and self.acc.idle)
        self.vector.noise = 0.0
        await self.cycles.wait(4)
        assert self.fault.seen is None, f"fault {self.fault.seen}"
        return [
            np.array([np.frombuffer(v.to_bytes(4 * LINE, "little"), "<i4") for v in tile])
            for tile in self.acc.tiles
        ]

    async def check(self, layer: Layer, times: int = 1) -> None:
        """Run a layer, more than once without a pause if wanted, and compare."""
        await self.fill(layer)
        tiles = await self.run([layer.command] * times)
        assert len(tiles) % times == 0
        for turn in range(times):
            count = len(tiles) // times
            got = assemble(
                tiles[turn * count : (turn + 1) * count],
                layer.command,
                layer.expected.shape[2],
            )
            np.testing.assert_array_equal(got, layer.expected, err_msg=str(layer.command))


async def start(dut: Any) -> Rig:
    rig = Rig(dut)
    await rig.cycles.start()
    return rig


@cocotb.test()
@cocotb.parametrize(packed=[False, True])
async def window(dut: Any, packed: bool) -> None:
    rig = await start(dut)
    pick = rig.random.randint
    for _ in range(8):
        layer = convolution(
            CONFIG,
            rig.numpy,
            size=(pick(3, 7), pick(3, 7), pick(1, 2 * CONFIG.rows + 2)),
            out_channels=pick(1, 2 * CONFIG.cols + 2),
            kernel=(pick(1, 3), pick(1, 3)),
            strides=(pick(1, 2), pick(1, 2)),
            padding=rig.random.choice(("SAME", "VALID")),
            packed=packed,
        )
        await rig.check(layer, times=pick(1, 2))


@cocotb.test(skip=not CONFIG.joins_rows)
async def joined_rows(dut: Any) -> None:
    rig = await start(dut)
    pick = rig.random.randint
    for _ in range(8):
        layer = joined(
            CONFIG,
            rig.numpy,
            size=(pick(5, 8), pick(5, 9), pick(1, CONFIG.rows)),
            out_channels=pick(1, 2 * CONFIG.cols + 2),
            kernel=(pick(1, 5), pick(1, 5)),
            strides=(pick(1, 2), pick(1, 2)),
            padding=rig.random.choice(("SAME", "VALID", 1, 2)),
        )
        await rig.check(layer, times=pick(1, 2))


@cocotb.test()
@cocotb.parametrize(mode=[Mode.TAPS, Mode.ROWS])
async def depthwise_modes(dut: Any, mode: Mode) -> None:
    rig = await start(dut)
    pick = rig.random.randint
    for _ in range(8):
        widest = 3 if mode is Mode.ROWS else CONFIG.rows + 3
        kernel = (pick(1, 5), pick(1, widest))
        layer = depthwise(
            CONFIG,
            rig.numpy,
            size=(pick(kernel[0], 7), pick(kernel[1], 13), pick(1, 2 * CONFIG.cols)),
            kernel=kernel,
            strides=(pick(1, 2), pick(1, 2)),
            padding=rig.random.choice(("SAME", "VALID")),
            mode=mode,
        )
        await rig.check(layer, times=pick(1, 2))


@cocotb.test(skip=CONFIG.dw_segments == 1)
async def depthwise_phases(dut: Any) -> None:
    rig = await start(dut)
    pick = rig.random.randint
    for _ in range(6):
        stride = pick(1, 3)
        kernel = (pick(1, 5), pick(1, 3 * stride))
        layer = phased(
            CONFIG,
            rig.numpy,
            size=(pick(kernel[0], 7), pick(kernel[1], 13), pick(1, 2 * CONFIG.cols)),
            kernel=kernel,
            strides=(pick(1, 2), stride),
            padding=rig.random.choice(("SAME", "VALID")),
        )
        await rig.check(layer, times=pick(1, 2))


@cocotb.test()
async def a_reduction_over_several_commands(dut: Any) -> None:
    rig = await start(dut)
    for _ in range(3):
        depth = rig.random.randint(2, 4)
        layer = convolution(
            CONFIG, rig.numpy, size=(4, 4, depth * CONFIG.rows), out_channels=CONFIG.cols,
            kernel=(1, 1), strides=(1, 1), padding="VALID", packed=False,
        )  # fmt: skip
        whole = layer.command
        parts = [
            dataclasses.replace(
                whole,
                tile_rows=4,
                n_ic=1,
                hold=int(part < depth - 1),
                accumulate=int(part > 0),
                act_addr=whole.act_addr + part * LINE,
                x0=part * LINE,
                wgt_addr=part * CONFIG.rows,
            )
            for part in range(depth)
        ]
        await rig.fill(layer)
        tiles = await rig.run(parts)
        got = assemble(tiles, parts[-1], CONFIG.cols)
        np.testing.assert_array_equal(got, layer.expected)


@cocotb.test()
async def a_slow_reader_loses_nothing(dut: Any) -> None:
    """The array fills both halves and waits; then it goes on where it was."""
    rig = await start(dut)
    rig.acc.max_pause, rig.acc.gap = 400, 0.8
    layer = convolution(
        CONFIG, rig.numpy, size=(5, 5, CONFIG.rows), out_channels=2 * CONFIG.cols,
        kernel=(3, 3), strides=(1, 1), padding="SAME", packed=False,
    )  # fmt: skip
    layer = dataclasses.replace(layer, command=dataclasses.replace(layer.command, tile_rows=1))
    await rig.check(layer)


@cocotb.test()
async def faults_and_what_follows_a_reset(dut: Any) -> None:
    rig = await start(dut)
    layer = convolution(
        CONFIG, rig.numpy, size=(4, 4, CONFIG.rows), out_channels=CONFIG.cols,
        kernel=(1, 1), strides=(1, 1), padding="VALID", packed=False,
    )  # fmt: skip
    await rig.fill(layer)
    faulty: list[tuple[dict[str, int], ErrorCause]] = [
        ({"mode": 3, "row_pitch": 3 * LINE}, ErrorCause.ILLEGAL_FIELD),
        ({"mode": 3, "row_pitch": 2 * LINE, "step_kx": 0}, ErrorCause.ILLEGAL_FIELD),
        ({"n_ic": 0}, ErrorCause.ILLEGAL_FIELD),
        ({"act_addr": CONFIG.act_bytes - 2}, ErrorCause.ACT_RANGE),
        ({"wgt_addr": 1}, ErrorCause.ILLEGAL_FIELD),
        ({"wgt_addr": CONFIG.wgt_lines - 2}, ErrorCause.WGT_RANGE),
        ({"tile_rows": 100, "out_h": 100, "in_h": 600}, ErrorCause.ACC_OVERFLOW),
    ]
    if CONFIG.dw_segments > 1:
        two_in_a_bank = {"mode": 2, "row_pitch": 8 * LINE, "step_x": LINE, "ky_rows": 2}
        faulty.append((two_in_a_bank, ErrorCause.BANK_CONFLICT))
    rig.random.shuffle(faulty)
    for changes, cause in faulty:
        # What is wrong waits for what comes before it, and nothing behind it is done.
        done, before = rig.command.completed, rig.random.randint(0, 2)
        for turn in range(before):
            sum_of_one = {"tile_rows": 4, "hold": 1, "accumulate": int(turn > 0)}
            rig.command.push(dataclasses.replace(layer.command, **sum_of_one).encode())
        rig.command.push(dataclasses.replace(layer.command, **{"tile_rows": 4, **changes}).encode())
        await rig.cycles.until(lambda: rig.fault.seen is not None)
        await rig.cycles.wait(rig.random.randint(0, 30))
        assert rig.fault.seen is not None
        assert rig.fault.seen[0] == cause, changes
        assert rig.command.completed == done + before, changes
        rig.halt.set("halt", 1)
        rig.command.drop()
        await rig.cycles.wait(2)
        rig.halt.set("halt", 0)
        rig.fault.seen = None
        await rig.cycles.wait(2)
        tiles = await rig.run([layer.command])
        got = assemble(tiles, layer.command, CONFIG.cols)
        np.testing.assert_array_equal(got, layer.expected)
