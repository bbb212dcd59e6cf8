"""The vector engine, all its operations, against the golden operators.

The activation memory holds random bytes; A and B are wherever a command says in its lower half,
D goes to the upper half.
"""

from __future__ import annotations

import dataclasses
import os
import random
from collections.abc import Callable
from typing import Any

import cocotb
import numpy as np
import numpy.typing as npt
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Command, Conv, Rounding, Softmax, Vector, VectorOp
from celosia.hw.contract.regs import ErrorCause
from celosia.sim.golden import operators as golden

from tests.kit.bfm.cycles import Cycles, Pins
from tests.kit.bfm.ports import (
    AccSource,
    CommandDriver,
    FaultMonitor,
    LineSink,
    LineSource,
    WindowWriter,
)
from tests.kit.designs import DESIGNS

CONFIG: NpuConfig = DESIGNS[os.environ["CELOSIA_DESIGN"]].config
LANES = CONFIG.cols
HALF = CONFIG.act_lines // 2
ACTIVATIONS = ("NONE", "RELU", "RELU6", "RELU_N1_TO_1")

Int8 = npt.NDArray[np.int8]
Int64 = npt.NDArray[np.int64]


class Rig:
    """The engine between models of its memories."""

    def __init__(self, dut: Any) -> None:
        rng = self.random = random.Random(random.getrandbits(64))
        self.numpy = np.random.default_rng(rng.getrandbits(32))
        self.cycles = cycles = Cycles(dut)
        self.halt = Pins(dut, "", ("halt",))
        self.halt.set("halt", 0)
        self.act = self.numpy.integers(-128, 128, (CONFIG.act_lines, LANES)).astype(np.int8)
        self.expected = self.act.copy()
        self.param = np.zeros((CONFIG.param_lines, LANES), np.uint8)
        self.next_block = 0
        self.table: Int8 = np.zeros((256, LANES), np.int8)
        # Reads come first: a write is visible in the cycle after it.
        self.act_port = LineSource(cycles, dut, "act", self._read_act, seed=rng.getrandbits(32))
        self.param_port = LineSource(
            cycles, dut, "param", lambda line: number(self.param[line]), seed=rng.getrandbits(32)
        )
        self.dst = LineSink(cycles, dut, "dst", self._write_act)
        self.acc = AccSource(cycles, dut, "acc", seed=rng.getrandbits(32), avail=0.1)
        self.command = CommandDriver(cycles, dut, "cmd", seed=rng.getrandbits(32))
        self.fault = FaultMonitor(cycles, dut, "fault")
        self.table_port = WindowWriter(cycles, dut, "table", word_bytes=CONFIG.bus_bytes, space=3)

    def _read_act(self, line: int) -> int:
        assert line < CONFIG.act_lines, f"read of line {line}"
        return number(self.act[line])

    def _write_act(self, line: int, data: int) -> None:
        assert line < CONFIG.act_lines, f"write of line {line}"
        self.act[line] = np.frombuffer(data.to_bytes(LANES, "little"), np.int8)

    async def load_table(self) -> None:
        await self.table_port.write(self.table.tobytes())

    async def run(self, commands: list[Command]) -> None:
        """Run commands under random refusals and compare the whole memory."""
        self.act_port.grant = self.random.choice((1.0, 0.8, 0.3))
        self.acc.avail = self.random.choice((1.0, 0.3, 0.05))
        for command in commands:
            self.command.push(command.encode())
        await self.cycles.until(lambda: self.command.idle or self.fault.seen is not None)
        assert self.fault.seen is None, f"fault {self.fault.seen}"
        assert not self.acc.tiles, "a tile was left over"
        np.testing.assert_array_equal(self.act, self.expected, err_msg=str(commands))
        self.next_block = 0

    def pick(self, low: int, high: int) -> int:
        return self.random.randint(low, high)

    def scale(self) -> float:
        """Return a scale; half of the time one whose products fall on ties."""
        value = 2.0 ** self.random.uniform(-8, 0)
        if self.random.random() < 0.5:
            value = self.random.choice((1.0, 1.25, 1.5)) * 2.0 ** self.pick(-8, 0)
        return float(np.float32(value))

    # ------------------------------------------------------------------ tensors in memory

    def tensor(self, base: int, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return address, row pitch and pixel pitch (lines) of a tensor from about `base`."""
        _, width, tiles = shape
        pixel = tiles + self.pick(0, 1)
        return base + self.pick(0, 20), width * pixel + self.pick(0, 3), pixel

    def gather(self, place: tuple[int, int, int], shape: tuple[int, int, int]) -> Int8:
        """Return a tensor, int8 [height, width, channels]."""
        address, row, pixel = place
        y, x, tile = np.indices(shape)
        lines: Int8 = self.act[address + y * row + x * pixel + tile]
        return lines.reshape(shape[0], shape[1], -1)

    def expect(self, place: tuple[int, int, int], values: Int8) -> None:
        """Note that a command will write this tensor, int8 [height, width, channels]."""
        address, row, pixel = place
        height, width, _ = values.shape
        lines = values.reshape(height, width, -1, LANES)
        y, x, tile = np.indices(lines.shape[:3])
        self.expected[address + y * row + x * pixel + tile] = lines

    # ------------------------------------------------------------------ commands

    def accumulators(self, shape: tuple[int, int, int], tile_rows: int) -> Int64:
        """Put random accumulator tiles in the queue; return them, [height, width, channels]."""
        height, width, tiles = shape
        full = (height, width, tiles * LANES)
        acc = self.numpy.integers(-(1 << 31), 1 << 31, full) >> self.numpy.integers(0, 32, full)
        extreme = self.numpy.choice([-(1 << 31), (1 << 31) - 1, 0, -1, 1], full)
        acc = np.where(self.numpy.random(full) < 0.1, extreme, acc)
        for tile in range(tiles):
            plane = acc[:, :, tile * LANES : (tile + 1) * LANES]
            for y in range(0, height, tile_rows):
                vectors = plane[y : y + tile_rows].reshape(-1, LANES)
                self.acc.tiles.append([number(v.astype("<i4")) for v in vectors])
        return acc

    def block(
        self, tiles: int, rounding: Rounding, *, shared: bool
    ) -> tuple[int, Int64, Int64, Int64]:
        """Write parameter blocks; return their line, and bias, multiplier and shift.

        If `shared` all channels have one multiplier and right shift, which are not in the blocks.
        """
        count = tiles * LANES
        bias = self.numpy.integers(-(1 << 31), 1 << 31, count) >> self.numpy.integers(0, 31, count)
        mult = self.numpy.integers(1 << 30, 1 << 31, count)
        # The reference of SINGLE does not wrap what a left shift makes too large.
        shift = self.numpy.integers(-31, 9 if rounding is Rounding.DOUBLE else 1, count)
        if shared:
            mult[:], shift[:] = mult[0], -abs(shift[0])
        address = self.next_block
        for tile in range(tiles):
            at, lanes = self.next_block, slice(tile * LANES, (tile + 1) * LANES)
            for first, values in ((at, bias),) if shared else ((at, bias), (at + 4, mult)):
                raw = np.frombuffer(values[lanes].astype("<i4").tobytes(), np.uint8)
                self.param[first : first + 4] = raw.reshape(4, LANES)
            if not shared:
                self.param[at + 8] = shift[lanes].astype(np.int8).view(np.uint8)
            self.next_block += 4 if shared else 9
        return address, bias, mult, shift

    def common(self, op: VectorOp, shape: tuple[int, int, int]) -> dict[str, Any]:
        """Return the fields that every operation has; D is new, A begins at line 0 or later."""
        d = self.tensor(HALF, shape)
        return {
            "op": op, "out_h": shape[0], "out_w": shape[1], "n_oc": shape[2],
            "tile_rows": self.pick(1, shape[0]),
            "d_addr": d[0], "d_y": d[1], "d_x": d[2], "act_min": -128, "act_max": 127,
        }  # fmt: skip

    def shape(self) -> tuple[int, int, int]:
        return self.pick(1, 6), self.pick(1, 7), self.pick(1, 3)

    def requantised(
        self, fields: dict[str, Any], shape: tuple[int, int, int], zero: int, low: int, high: int
    ) -> Int8:
        """Add the fields of REQUANT; return its golden result."""
        rounding = self.random.choice(list(Rounding))
        acc = self.accumulators(shape, fields["tile_rows"])
        shared = fields["op"] is VectorOp.REQUANT and self.random.random() < 0.4
        address, bias, mult, shift = self.block(shape[2], rounding, shared=shared)
        fields |= {"rounding": rounding, "param_addr": address, "zero_a": zero}
        if shared:
            fields |= {"shared": 1, "mult_a": int(mult[0]), "shift_a": -int(shift[0])}
        wrapped = (acc + bias + (1 << 31)) % (1 << 32) - (1 << 31)
        return golden.requantize(
            wrapped, mult, shift, out_zero_point=zero, low=low, high=high,
            rounding="double" if rounding is Rounding.DOUBLE else "single",
        )  # fmt: skip

    def requant(self) -> Vector:
        shape = self.shape()
        fields = self.common(VectorOp.REQUANT, shape)
        zero, low, high = self.clamps()
        values = self.requantised(fields, shape, zero, low, high)
        fields |= {"act_min": low, "act_max": high}
        return self.finish(fields, values)

    def clamps(self) -> tuple[int, int, int]:
        """Return a zero point and the bounds of a fused activation."""
        zero = self.pick(-128, 127)
        return zero, *golden.activation_range(self.random.choice(ACTIVATIONS), self.scale(), zero)

    def added(
        self, fields: dict[str, Any], a: Int8, zero_a: int, shape: tuple[int, int, int]
    ) -> Int8:
        """Add the fields of ADD or SUB with a tensor B; return the golden result."""
        b = self.second(fields, shape)
        a_scale, b_scale = self.scale(), self.scale()
        out_scale = float(np.float32(max(a_scale, b_scale) * self.random.uniform(0.3, 3)))
        zero_b, zero_out = self.pick(-128, 127), self.pick(-128, 127)
        activation = self.random.choice(ACTIVATIONS)
        subtract = self.random.random() < 0.3
        twice = 2 * max(a_scale, b_scale)
        low, high = golden.activation_range(activation, out_scale, zero_out)
        for name, real in (
            ("a", a_scale / twice), ("b", b_scale / twice), ("o", twice / ((1 << 20) * out_scale)),
        ):  # fmt: skip
            mantissa, shift = golden.quantize_multiplier(real)
            fields |= {f"mult_{name}": mantissa, f"shift_{name}": -shift}
        if subtract:
            fields["mult_b"] *= -1
        fields |= {
            "zero_a": zero_a, "zero_b": zero_b, "zero_out": zero_out, "act_min": low,
            "act_max": high,
        }  # fmt: skip
        return (golden.sub if subtract else golden.add)(
            a, b, a_scale=a_scale, a_zero_point=zero_a, b_scale=b_scale, b_zero_point=zero_b,
            out_scale=out_scale, out_zero_point=zero_out, activation=activation,
        )  # fmt: skip

    def first(self, fields: dict[str, Any], shape: tuple[int, int, int]) -> Int8:
        """Add the fields of a tensor A; return it."""
        place = self.tensor(0, shape)
        fields |= {"a_addr": place[0], "a_y": place[1], "a_x": place[2]}
        return self.gather(place, shape)

    def second(self, fields: dict[str, Any], shape: tuple[int, int, int]) -> Int8:
        """Add the fields of a tensor B; return it, or its one channel."""
        spread = self.random.random() < 0.4
        place = self.tensor(HALF // 2, shape)
        fields |= {"b_addr": place[0], "b_y": place[1], "b_x": place[2], "b_oc": int(spread)}
        whole = self.gather(place, shape)
        return whole[:, :, :1] if spread else whole

    def quantised(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Add the fields of zero points; return scales and zero points as golden names them."""
        zeros = {name: self.pick(-128, 127) for name in ("a", "b", "out")}
        fields |= {f"zero_{name}": zero for name, zero in zeros.items()}
        return {f"{name}_zero_point": zero for name, zero in zeros.items()} | {
            "a_scale": self.scale(), "b_scale": self.scale(),
        }  # fmt: skip

    def multiply(self) -> Vector:
        """Multiply: by 2^k first, where the product is scaled up."""
        shape = self.shape()
        fields = self.common(VectorOp.MUL, shape)
        a, b = self.first(fields, shape), self.second(fields, shape)
        known = self.quantised(fields)
        product = known["a_scale"] * known["b_scale"]
        out_scale = float(np.float32(product * 2.0 ** self.random.uniform(-7, 12)))
        real = np.float32(known["a_scale"]) * np.float32(known["b_scale"]) / np.float32(out_scale)
        mantissa, shift = golden.quantize_multiplier(float(real))
        left = max(shift, 0)
        activation = self.random.choice(ACTIVATIONS)
        low, high = golden.activation_range(activation, out_scale, known["out_zero_point"])
        fields |= {
            "mult_b": 1 << 30, "shift_b": 8 - left, "mult_o": mantissa, "shift_o": left - shift,
            "act_min": low, "act_max": high,
        }  # fmt: skip
        values = golden.mul(a, b, **known, out_scale=out_scale, activation=activation)
        return self.finish(fields, values)

    def squared_difference(self) -> Vector:
        """Square a difference: the side with the greater scale is exact, and negated."""
        shape = self.shape()
        fields = self.common(VectorOp.SQUARED_DIFFERENCE, shape)
        a, b = self.first(fields, shape), self.second(fields, shape)
        known = self.quantised(fields)
        common = 2 * max(known["a_scale"], known["b_scale"])
        out_scale = float(np.float32(common**2 * 2.0 ** self.random.uniform(-6, 3)))
        for name, real in (
            ("a", known["a_scale"] / common), ("b", known["b_scale"] / common),
            ("o", common * common / ((1 << 14) * out_scale)),
        ):  # fmt: skip
            mantissa, shift = golden.quantize_multiplier(real)
            fields |= {f"mult_{name}": mantissa, f"shift_{name}": -shift}
        fields["mult_a" if known["a_scale"] >= known["b_scale"] else "mult_b"] *= -1
        values = golden.squared_difference(a, b, **known, out_scale=out_scale)
        return self.finish(fields, values)

    def extreme(self) -> Vector:
        """Take the greater or the lesser of two tensors' values."""
        shape = self.shape()
        fields = self.common(VectorOp.MAX, shape)
        least = self.pick(0, 1)
        a, b = self.first(fields, shape), self.second(fields, shape)
        fields |= {"pair": 1, "least": least}
        return self.finish(fields, (golden.minimum if least else golden.maximum)(a, b))

    def add(self) -> Vector:
        shape = self.shape()
        fields = self.common(VectorOp.ADD, shape)
        values = self.added(fields, self.first(fields, shape), self.pick(-128, 127), shape)
        return self.finish(fields, values)

    def requant_add(self) -> Vector:
        shape = self.shape()
        fields = self.common(VectorOp.REQUANT_ADD, shape)
        zero, low, high = self.clamps()
        middle = self.requantised(fields, shape, zero, low, high)
        fields |= {"mid_min": low, "mid_max": high}
        return self.finish(fields, self.added(fields, middle, zero, shape))

    def window(self, op: VectorOp) -> Vector:
        height, width, tiles = self.pick(1, 4), self.pick(1, 4), self.pick(1, 2)
        kernel, strides = (self.pick(1, 4), self.pick(1, 4)), (self.pick(1, 2), self.pick(1, 2))
        fields = self.common(op, (height, width, tiles))
        whole = (
            (height - 1) * strides[0] + kernel[0], (width - 1) * strides[1] + kernel[1], tiles
        )  # fmt: skip
        place = self.tensor(0, whole)
        x = self.gather(place, whole)
        scale, zero = self.scale(), self.pick(-128, 127)
        activation = self.random.choice(ACTIVATIONS)
        pool = golden.average_pool2d if op is VectorOp.AVERAGE else golden.max_pool2d
        values = pool(
            x[None], size=kernel, strides=strides, padding="VALID", scale=scale, zero_point=zero,
            activation=activation,
        )[0]  # fmt: skip
        low, high = golden.activation_range(activation, scale, zero)
        count = kernel[0] * kernel[1]
        shift = (count - 1).bit_length()
        fields |= {
            "n_ky": kernel[0], "n_kx": kernel[1], "a_addr": place[0],
            "a_ky": place[1], "a_kx": place[2],
            "a_y": strides[0] * place[1], "a_x": strides[1] * place[2],
            "half": count // 2, "shift_o": shift, "mult_o": -(-(1 << (30 + shift)) // count),
            "act_min": low, "act_max": high,
        }  # fmt: skip
        return self.finish(fields, values)

    def look_up(self) -> Vector:
        """Look up in the table; :meth:`curves` has filled it."""
        shape = self.shape()
        fields = self.common(VectorOp.TABLE, shape)
        place = self.tensor(0, shape)
        fields |= {"a_addr": place[0], "a_y": place[1], "a_x": place[2]}
        x = self.gather(place, shape)
        lanes = [curve(x[:, :, lane::LANES]) for lane, curve in enumerate(self.curve_of_lane)]
        values = np.stack(lanes, axis=3).reshape(x.shape)
        return self.finish(fields, values)

    def curves(self) -> None:
        """Give each lane another function."""
        self.curve_of_lane: list[Callable[[Int8], Int8]] = []
        for _ in range(LANES):
            scale, zero = self.scale(), self.pick(-128, 127)
            function = self.random.choice((golden.tanh, golden.logistic))
            out = {} if function is golden.logistic else {"out_scale": 1 / 128, "out_zero_point": 0}
            self.curve_of_lane.append(
                lambda x, f=function, s=scale, z=zero, o=out: f(x, x_scale=s, x_zero_point=z, **o)
            )
        codes = np.arange(256).astype(np.uint8).view(np.int8)
        self.table = np.stack([curve(codes) for curve in self.curve_of_lane], axis=1)

    def finish(self, fields: dict[str, Any], values: Int8) -> Vector:
        self.expect((fields["d_addr"], fields["d_y"], fields["d_x"]), values)
        return Vector(**fields)

    def make(self, op: VectorOp) -> Vector:
        """Return a random command of an operation, and note what it will write."""
        if op is VectorOp.MAX and self.pick(0, 1):
            return self.extreme()
        if op in (VectorOp.AVERAGE, VectorOp.MAX):
            return self.window(op)
        return {
            VectorOp.REQUANT: self.requant,
            VectorOp.ADD: self.add,
            VectorOp.REQUANT_ADD: self.requant_add,
            VectorOp.TABLE: self.look_up,
            VectorOp.MUL: self.multiply,
            VectorOp.SQUARED_DIFFERENCE: self.squared_difference,
        }[op]()


def number(values: npt.NDArray[Any]) -> int:
    return int.from_bytes(values.tobytes(), "little")


async def start(dut: Any) -> Rig:
    rig = Rig(dut)
    await rig.cycles.start()
    return rig


@cocotb.test()
@cocotb.parametrize(op=list(VectorOp))
async def operation(dut: Any, op: VectorOp) -> None:
    rig = await start(dut)
    rig.curves()
    await rig.load_table()
    for _ in range(12):
        await rig.run([rig.make(op) for _ in range(rig.pick(1, 3))])


@cocotb.test()
async def operations_follow_one_another(dut: Any) -> None:
    rig = await start(dut)
    rig.curves()
    await rig.load_table()
    for _ in range(8):
        await rig.run([rig.make(rig.random.choice(list(VectorOp))) for _ in range(rig.pick(2, 6))])


@cocotb.test()
async def softmax(dut: Any) -> None:
    rig = await start(dut)
    for _ in range(5):
        scale = float(np.float32(2.0 ** rig.random.uniform(-8, 1)))
        beta = rig.random.choice((1.0, 0.5))
        exponentials = golden.softmax_exp_table(scale, beta)
        rig.table[:, :4] = exponentials.astype("<i4").view(np.int8).reshape(256, 4)
        await rig.load_table()
        channels, rows = rig.pick(1, 30), rig.pick(1, 4)
        lines = -(-channels // LANES)
        spread = 10 ** rig.random.uniform(0, 2)
        x = np.clip(rig.numpy.normal(0, spread, (rows, channels)), -128, 127).astype(np.int8)
        command = Softmax(
            channels=channels, n_rows=rows, a_addr=rig.pick(0, 99), a_y=lines + rig.pick(0, 2),
            d_addr=HALF + rig.pick(0, 99), d_y=lines + rig.pick(0, 2),
        )  # fmt: skip
        result = golden.softmax(x, x_scale=scale, beta=beta)
        for row in range(rows):
            source = slice(command.a_addr + row * command.a_y, None)
            rig.act[source][:lines].reshape(-1)[:channels] = x[row]
        rig.expected = rig.act.copy()
        rig.command.push(command.encode())
        rig.act_port.grant = rig.random.choice((1.0, 0.5))
        await rig.cycles.until(lambda: rig.command.idle or rig.fault.seen is not None)
        assert rig.fault.seen is None
        for row in range(rows):
            first = command.d_addr + row * command.d_y
            got = rig.act[first : first + lines].reshape(-1)
            np.testing.assert_array_equal(got[:channels], result[row], err_msg=str(command))
            # What fills up the last line means nothing.
            rig.expected[first : first + lines] = rig.act[first : first + lines]
        np.testing.assert_array_equal(rig.act, rig.expected)


@cocotb.test()
async def faults_and_what_follows_a_reset(dut: Any) -> None:
    rig = await start(dut)
    rig.curves()
    await rig.load_table()
    plain = Vector(op=VectorOp.MAX, n_oc=1, out_h=2, out_w=8, a_x=1, a_y=8, d_addr=HALF, d_x=1,
                   d_y=8, act_min=-128, act_max=127)  # fmt: skip
    last = CONFIG.act_lines - 1
    faulty: list[tuple[Command, ErrorCause, int]] = [
        (dataclasses.replace(plain, out_w=0), ErrorCause.ILLEGAL_FIELD, 0),
        (dataclasses.replace(plain, n_kx=0), ErrorCause.ILLEGAL_FIELD, 0),
        (dataclasses.replace(plain, b_oc=1), ErrorCause.ILLEGAL_FIELD, 0),
        (dataclasses.replace(plain, pair=1, n_kx=2), ErrorCause.ILLEGAL_FIELD, 0),
        (Softmax(channels=0, n_rows=1), ErrorCause.ILLEGAL_FIELD, 0),
        (Conv(), ErrorCause.ILLEGAL_OPCODE, 0),
        (dataclasses.replace(plain, a_addr=last), ErrorCause.ACT_RANGE, LANES * (last + 1)),
        (dataclasses.replace(plain, d_addr=last), ErrorCause.ACT_RANGE, LANES * (last + 1)),
        (Softmax(channels=LANES + 1, n_rows=1, a_addr=last), ErrorCause.ACT_RANGE,
         LANES * (last + 1)),
    ]  # fmt: skip
    rig.random.shuffle(faulty)
    for command, cause, address in faulty:
        rig.command.push(command.encode())
        await rig.cycles.until(lambda: rig.fault.seen is not None)
        await rig.cycles.wait(rig.pick(0, 30))
        assert rig.fault.seen == (cause, address), command
        rig.halt.set("halt", 1)
        rig.command.drop()
        await rig.cycles.wait(2)
        rig.halt.set("halt", 0)
        rig.fault.seen = None
        await rig.cycles.wait(2)
        # Lines before the bad one may have been written.
        rig.expected = rig.act.copy()
        await rig.run([rig.make(rig.random.choice(list(VectorOp)))])
