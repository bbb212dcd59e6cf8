"""Command streams that must be stopped, for any machine, with the cause and the unit to blame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import (
    COMMAND_BITS,
    COMMAND_BYTES,
    Command,
    Conv,
    End,
    Engine,
    Load,
    Mode,
    Region,
    Softmax,
    Space,
    Store,
    Vector,
    VectorOp,
    counts_of,
    fields_of,
    whole_words_of,
)

__all__ = ["FETCH", "TAG", "BrokenStreams", "Case", "Stream", "bad", "used_bits", "work_bytes"]

FETCH = 4
TAG = 7
"""Of the command that is to blame; all others have none."""
TO_LOAD, TO_STORE, TO_ARRAY, TO_VECTOR = (
    1 << engine for engine in (Engine.LOAD, Engine.STORE, Engine.ARRAY, Engine.VECTOR)
)

Stream = list[Command | bytes]
Case = tuple[str, Stream, str, int]
"""Name, stream without its End, cause and unit."""


def with_field(command: Command, name: str, value: int) -> bytes:
    """Encode a value that the schema would refuse."""
    spec = next(spec for spec in fields_of(type(command)) if spec.name == name)
    mask = ((1 << spec.width_bits) - 1) << spec.offset_bits
    word = int.from_bytes(command.encode(), "little") & ~mask | value << spec.offset_bits
    return word.to_bytes(COMMAND_BYTES, "little")


def with_bit(command: Command, bit: int) -> bytes:
    """Encode a command with one more bit set."""
    return (int.from_bytes(command.encode(), "little") | 1 << bit).to_bytes(COMMAND_BYTES, "little")


def used_bits(command: Command) -> int:
    """Return the bits of a command that fields take; the rest is reserved."""
    return sum(spec.width_bits for spec in fields_of(type(command)))


def work_bytes(command: Command, line_bytes: int) -> int:
    """Return about how many bytes a command moves."""
    if isinstance(command, Load | Store):
        return command.n1 * command.n2 * command.row_bytes
    if isinstance(command, Conv):
        passes = command.n_ky * command.n_kx * command.n_ic * command.n_oc
        return max(command.out_w, command.row_len) * command.out_h * passes * line_bytes
    if isinstance(command, Vector):
        window = command.n_ky * command.n_kx
        return command.out_w * command.out_h * window * command.n_oc * line_bytes
    if isinstance(command, Softmax):
        return command.channels * command.n_rows * line_bytes
    return 0


def bad(command: Command, **changes: Any) -> Any:
    """Return a changed command that is to be blamed."""
    return replace(command, tag=TAG, **changes)


class BrokenStreams:
    """Sound commands of a machine, and streams in which something is wrong with them.

    Parameters
    ----------
    config : NpuConfig
    io_bytes, scratch_bytes : int
        Sizes of the regions; of 2048 bytes at least.

    Attributes
    ----------
    load, store, conv, requant, add, max, softmax : Command
        Each legal, alone or, `requant`, after `conv`. They read and write the first lines.
    beyond : int
        An activation line after which there is only one more.
    """

    def __init__(self, config: NpuConfig, *, io_bytes: int, scratch_bytes: int) -> None:
        line = config.line_bytes
        self.config = config
        self.io_bytes = io_bytes
        self.scratch_bytes = scratch_bytes
        self.beyond = config.act_lines - 2
        self.load = Load(region=Region.IO, row_bytes=64)
        self.store = Store(region=Region.IO, row_bytes=64)
        self.conv = Conv(
            in_h=4, row_bytes=4 * line, row_pitch=4 * line, out_w=4, out_h=4, tile_rows=4,
            row_len=4, stride_x=1, stride_y=1, step_x=line, step_y=4 * line, n_ky=1, n_kx=1,
            n_ic=1, n_oc=1,
        )  # fmt: skip
        self.requant = Vector(
            op=VectorOp.REQUANT, shared=1, mult_a=1 << 30, n_oc=1, out_h=4, out_w=4, tile_rows=4,
            d_addr=64, d_y=4, d_x=1, act_min=-128, act_max=127,
        )  # fmt: skip
        self.add = Vector(
            op=VectorOp.ADD, n_oc=1, out_h=4, out_w=4, a_y=4, a_x=1, b_addr=32, b_y=4, b_x=1,
            d_addr=64, d_y=4, d_x=1, mult_a=1 << 30, mult_b=1 << 30, mult_o=1 << 30, act_min=-128,
            act_max=127,
        )  # fmt: skip
        self.max = replace(self.add, op=VectorOp.MAX, n_ky=2, n_kx=2, a_ky=4, a_kx=1)
        lines = -(-10 // line)
        self.softmax = Softmax(channels=10, n_rows=2, a_y=lines, d_addr=64, d_y=lines)
        self.rows = replace(
            self.conv,
            mode=Mode.ROWS,
            row_bytes=5 * line,
            row_pitch=5 * line,
            step_y=5 * line,
            row_len=5,
            extra=2,
            ky_rows=2,
        )

    def cases(self) -> list[Case]:
        """Return every stream that a check stops."""
        return [*self._illegal(), *self._out_of_range(), *self._other_faults()]

    def _illegal(self) -> Iterator[Case]:
        for opcode in (0x00, 0x02, 0x0F, 0x11, 0x21, 0x31, 0x3F, 0x42, 0x50, 0x77, 0xFF):
            data = bytes([opcode, 0, TAG, 0]) + bytes(COMMAND_BYTES - 4)
            yield f"opcode {opcode:#04x}", [data], "ILLEGAL_OPCODE", FETCH
        for command in (self.load, self.store, self.conv, self.add, self.softmax, End()):
            kind, used = type(command).__name__, used_bits(command)
            for bit in sorted({used, (used | 31) + 1, (used | 63) + 1, COMMAND_BITS - 1}):
                data = with_bit(bad(command), min(bit, COMMAND_BITS - 1))
                yield f"{kind}: reserved bit {bit}", [data], "ILLEGAL_FIELD", FETCH
            for field in ("wait", "signal"):
                own = 1 << command.engine if command.engine is not None else 4
                stream: Stream = [bad(command, **{field: own})]
                yield f"{kind}: own token in {field}", stream, "ILLEGAL_FIELD", FETCH
        yield from self._illegal_zeros()
        yield from self._illegal_modes()
        for space in (Space.WGT, Space.PARAM, Space.TABLE):
            yield f"Store from {space.name}", [bad(self.store, space=space)], "ILLEGAL_FIELD", 1
            for index, field in enumerate(whole_words_of(Load)):
                # Bytes 1, 2 and 3 of a word, in turn.
                odd = {field: getattr(self.load, field) + 1 + index % 3}
                load = bad(self.load, space=space, **odd)
                yield f"Load to {space.name}: odd {field}", [load], "ILLEGAL_FIELD", 0

    def _illegal_zeros(self) -> Iterator[Case]:
        sound = (self.load, self.store, self.conv, self.add, self.max, self.softmax)
        counts: list[tuple[Command, tuple[str, ...]]] = [
            *((command, counts_of(type(command))) for command in sound),
            (self.requant, ("tile_rows",)),
        ]
        for command, names in counts:
            kind = (
                VectorOp(command.op).name if isinstance(command, Vector) else type(command).__name__
            )
            for name in names:
                data = with_field(bad(command), name, 0)
                yield f"{kind}: {name} is 0", [data], "ILLEGAL_FIELD", int(command.engine or 0)

    def _illegal_modes(self) -> Iterator[Case]:
        data = with_field(bad(self.conv), "mode", 3)
        yield "Conv: joined rows in the same banks", [data], "ILLEGAL_FIELD", 2
        # What is illegal comes before what is too much.
        data = with_field(bad(self.conv, out_w=200, row_len=200), "mode", 3)
        yield "Conv: joined rows of a large tile", [data], "ILLEGAL_FIELD", 2
        yield "Conv: odd line of weights", [bad(self.conv, wgt_addr=1)], "ILLEGAL_FIELD", 2
        for name, vector in (
            ("ADD: a pair", bad(self.add, pair=1)),
            ("AVERAGE: the least value", bad(self.max, op=VectorOp.AVERAGE, least=1)),
            ("MAX: one channel of no tensor B", bad(self.max, b_oc=1)),
            ("MAX: a pair of windows", bad(self.max, pair=1)),
            ("REQUANT: one channel of no tensor B", bad(self.requant, b_oc=1)),
        ):
            yield name, [vector], "ILLEGAL_FIELD", 3
        for windowed in (
            bad(self.add, n_kx=2),
            bad(self.requant, n_ky=2),
            bad(self.add, op=VectorOp.TABLE, n_ky=2),
        ):
            name = f"{VectorOp(windowed.op).name}: a window where none is"
            yield name, [windowed], "ILLEGAL_FIELD", 3
        for op in VectorOp:
            if op != VectorOp.REQUANT:
                shared = bad(self.add, op=op, shared=1, tile_rows=4)
                yield f"{op.name}: shared multiplier", [shared], "ILLEGAL_FIELD", 3

    def _out_of_range(self) -> Iterator[Case]:
        config = self.config
        for space, size, cause in (
            (Space.ACT, config.act_bytes, "ACT_RANGE"),
            (Space.WGT, config.wgt_bytes, "WGT_RANGE"),
            (Space.PARAM, config.param_bytes, "PARAM_RANGE"),
            (Space.TABLE, 256 * config.line_bytes, "PARAM_RANGE"),
        ):
            load = bad(self.load, space=space)
            yield f"Load to {space.name}", [replace(load, sram_addr=size - 60)], cause, 0
            runs = replace(load, n1=3, sram_stride1=(size // 2) & ~63)
            yield f"third run to {space.name}", [replace(runs, sram_addr=64)], cause, 0
            back = replace(load, n2=2, sram_stride2=(1 << 20) - 64)
            yield f"below {space.name}", [back], cause, 0
        stored = bad(self.store, sram_addr=config.act_bytes - 63)
        yield "Store from ACT", [stored], "ACT_RANGE", 1
        yield from self._convolutions_out_of_range()
        yield from self._requantisations_out_of_range()
        yield from self._vectors_out_of_range()

    def _convolutions_out_of_range(self) -> Iterator[Case]:
        config, conv = self.config, self.conv
        last = self.beyond * config.line_bytes
        yield "Conv: windows", [bad(conv, act_addr=last)], "ACT_RANGE", 2
        taps = bad(conv, mode=Mode.TAPS, row_len=7, act_addr=last)
        yield "Conv: pixels of taps", [taps], "ACT_RANGE", 2
        yield "Conv: pixels of rows", [bad(self.rows, act_addr=last)], "ACT_RANGE", 2
        far = bad(conv, act_addr=1 << 19)
        yield "Conv: an address whose line takes 17 bits", [far], "ACT_RANGE", 2
        for line in (config.wgt_lines - 2, config.wgt_lines, (1 << 16) - 2):
            yield f"Conv: weights at {line}", [bad(conv, wgt_addr=line)], "WGT_RANGE", 2
        n_ic = config.wgt_lines // config.line_bytes
        many = bad(conv, n_ic=n_ic, n_oc=2, out_h=1, out_w=1, row_len=1)
        short = replace(self.requant, n_oc=2, out_h=1, out_w=1)
        yield "Conv: weights of the second tile", [many, short], "WGT_RANGE", 2
        huge = bad(conv, n_ic=4095, n_kx=255, n_ky=255)
        yield "Conv: more weights than 2^30 bytes", [huge], "WGT_RANGE", 2

    def _requantisations_out_of_range(self) -> Iterator[Case]:
        config, conv, requant = self.config, self.conv, self.requant
        for line in (config.param_lines - 8, config.param_lines, (1 << 14) - 1):
            stream: Stream = [conv, bad(requant, shared=0, param_addr=line)]
            yield f"REQUANT: parameters at {line}", stream, "PARAM_RANGE", 3
        stream = [conv, bad(requant, param_addr=config.param_lines - 3)]
        yield "REQUANT: biases", stream, "PARAM_RANGE", 3
        stream = [replace(conv, n_oc=2), bad(requant, n_oc=2, param_addr=config.param_lines - 5)]
        yield "REQUANT: biases of the second tile", stream, "PARAM_RANGE", 3
        yield "REQUANT: result", [conv, bad(requant, d_addr=self.beyond)], "ACT_RANGE", 3
        # Shifts that are in range: what PARAM holds is of the program before.
        block = replace(
            self.load,
            region=Region.CONST,
            space=Space.PARAM,
            row_bytes=9 * config.line_bytes,
            signal=TO_VECTOR,
        )
        fused = bad(
            requant, op=VectorOp.REQUANT_ADD, shared=0, b_addr=self.beyond, b_y=4, b_x=1,
            wait=TO_LOAD,
        )  # fmt: skip
        yield "REQUANT_ADD: second operand", [block, conv, fused], "ACT_RANGE", 3

    def _vectors_out_of_range(self) -> Iterator[Case]:
        beyond = self.beyond
        # Lines do not wrap: a stride cannot lead back.
        for name in ("a", "b", "d"):
            for what, fields in (
                ("first line", {"addr": beyond + 5}),
                ("third of a row", {"addr": beyond}),
                ("second row", {"addr": beyond - 5}),
                ("last line", {"addr": beyond - 13}),
                ("far rows", {"y": 65535}),
                ("far columns", {"x": 4095, "addr": 9000 % self.config.act_lines}),
            ):
                changes = {f"{name}_{field}": value for field, value in fields.items()}
                yield f"ADD: {name}, {what}", [bad(self.add, **changes)], "ACT_RANGE", 3
        for what, fields in (
            ("first of a window", {"a_addr": beyond}),
            ("last of a window", {"a_addr": beyond - 18}),
            ("window rows", {"a_ky": 65535}),
            ("window columns", {"a_kx": 4095, "a_addr": beyond - 200}),
            ("result", {"d_addr": beyond}),
        ):
            yield f"MAX: {what}", [bad(self.max, **fields)], "ACT_RANGE", 3
        for name in ("a", "d"):
            for what, fields in (
                # Ten channels take two lines, or three.
                ("row within", {"addr": beyond + 1}),
                ("second row", {"y": 65535}),
                ("first line", {"addr": beyond + 40}),
            ):
                changes = {f"{name}_{field}": value for field, value in fields.items()}
                yield f"Softmax: {name}, {what}", [bad(self.softmax, **changes)], "ACT_RANGE", 3

    def _other_faults(self) -> Iterator[Case]:
        depth = self.config.acc_depth
        sizes = ((depth // 32 + 1, 32), (depth // 4 + 1, 4), (1, depth + 1), (4095, 4095))
        for rows, width in sizes:
            tile = bad(self.conv, out_w=width, row_len=width, out_h=rows, tile_rows=rows)
            yield f"a tile of {rows} x {width}", [tile], "ACC_OVERFLOW", 2
        given = [bad(self.load, row_bytes=4, signal=TO_STORE)] * 256
        yield "256 tokens", given, "TOKEN_OVERFLOW", 0
        vector = [bad(self.max, out_h=1, out_w=1, n_kx=1, n_ky=1, signal=TO_ARRAY)] * 256
        yield "256 tokens for the array", vector, "TOKEN_OVERFLOW", 3
        io, scratch = self.io_bytes, {"region": Region.SCRATCH}
        beyond_two = {"mem_addr": 0x7FFF_FFFF, "row_bytes": 2 * self.scratch_bytes}
        below = {"region": Region.CONST, "mem_addr": 64, "n1": 3, "mem_stride1": -64}
        for name, changes in (
            ("beyond IO", {"mem_addr": io - 63}),
            ("far beyond IO", {"mem_addr": 0xFFFF_FFFF}),
            ("at the end of 2 GiB", {"mem_addr": 0x7FFF_FFFF}),
            ("of more than the region, at the end of 2 GiB", {**scratch, **beyond_two}),
            ("below CONST", below),
            ("beyond CODE", {"region": Region.CODE, "row_bytes": 192}),
        ):
            yield f"Load {name}", [bad(self.load, **changes)], "MEM_WINDOW", 0
        for name, changes in (
            ("beyond SCRATCH", {**scratch, "mem_addr": self.scratch_bytes, "row_bytes": 1}),
            ("third turn", {"mem_addr": io - 2000, "n2": 3, "mem_stride2": 1000}),
        ):
            yield f"Store {name}", [bad(self.store, **changes)], "MEM_WINDOW", 1

    def deadlocks(self) -> dict[str, Stream]:
        """Return streams that never end, by what is wrong with them."""
        load, store, conv, requant = self.load, self.store, self.conv, self.requant
        return {
            "a token that nobody gives": [replace(store, wait=TO_LOAD)],
            "two engines that wait for each other": [
                replace(load, wait=TO_STORE, signal=TO_STORE),
                replace(store, wait=TO_LOAD, signal=TO_LOAD),
            ],
            "a tile that nobody fills": [requant],
            "one tile too few": [conv, replace(requant, n_oc=2)],
            "tiles that nobody empties": [conv, conv, conv],
            "a queue that is full": [
                *[replace(load, wait=TO_STORE)] * (2 * self.config.queue_depth + 1),
                replace(store, signal=TO_LOAD),
            ],
        }

    def leftovers(self) -> dict[str, Stream]:
        """Return streams that end, but with more than they should, by what they leave behind."""
        load, store, conv, requant = self.load, self.store, self.conv, self.requant
        return {
            "a token": [replace(load, signal=TO_STORE)],
            "tokens of every pair": [
                replace(command, signal=0xF & ~(1 << int(command.engine or 0)))
                for command in (load, store, conv, requant)
            ],
            "a full accumulator half": [conv],
            "two full halves": [conv, conv],
            "a half that is held": [replace(conv, hold=1)],
            "half of the tiles": [
                replace(conv, tile_rows=2),
                replace(requant, out_h=2, tile_rows=2),
            ],
            "a half of another shape": [conv, replace(requant, out_w=3)],
            "a sum that nothing began": [replace(conv, accumulate=1), requant],
        }
