"""`Vector`: every operation of the vector engine, an element at a time.

A tile of rows (all of them, for what does not come from the accumulator) is done channel by
channel, so that a channel's parameters are looked up once.
"""

from __future__ import annotations

from celosia.hw.contract.isa import (
    BIAS_LINES,
    BLOCK_LINES,
    Engine,
    Opcode,
    Space,
    Vector,
    VectorOp,
)
from celosia.hw.contract.needed import FLAGS, operation_of
from celosia.hw.contract.operations import Operation
from celosia.hw.contract.regs import ErrorCause
from celosia.hw.nano.firmware.elements import Elements
from celosia.hw.nano.firmware.queues import Queues
from celosia.hw.nano.firmware.shared import LINE_BIT, Shared
from celosia.hw.nano.instructions import In, Op, Out

__all__ = ["Vectors"]

SHIFT_LINE = 8


class Vectors:
    """Emits the handler of `Vector`, ``VECTOR.command``.

    Parameters
    ----------
    shared : Shared
    queues : Queues
    """

    def __init__(self, shared: Shared, queues: Queues) -> None:
        self.s, self.a, self.queues = shared, shared.a, queues
        a = shared.a
        self.elements = Elements(shared)
        self.element = a.word("vector.element")
        self.from_acc = a.word("vector.from_acc")
        self.oc, self.param = a.word("vector.oc"), a.word("vector.param")
        self.rows_left, self.rows = a.word("vector.rows_left"), a.word("vector.rows")
        self.y, self.x = a.word("vector.y"), a.word("vector.x")
        self.tile = {name: a.word(f"vector.tile_{name}") for name in "abd"}
        self.row = {name: a.word(f"vector.row_{name}") for name in "abd"}
        self.step = {name: a.word(f"vector.step_{name}") for name in "abd"}
        self.span = {name: a.word(f"vector.span_{name}") for name in "abd"}
        self.line, self.rest = a.word("vector.line"), a.word("vector.rest")
        self.line_y, self.line_x = a.word("vector.line_y"), a.word("vector.line_x")
        self.back_lines = a.word("vector.back_lines")

    def emit(self) -> None:
        """Emit the handler and its routines."""
        a, s = self.a, self.s
        a.label("VECTOR.command")
        a.load(s.head)
        a.bits_and(0xFF)
        a.sub(int(Opcode.SOFTMAX))
        has = s.config.can(Operation.SOFTMAX)
        a.emit(Op.JUMP_ZERO, "softmax" if has else s.fail(ErrorCause.ILLEGAL_OPCODE))
        lacking = [name for name, operation in FLAGS.items() if not s.config.can(operation)]
        self.f = self.elements.fields = f = s.unpack(Vector, "vector", refused=lacking)
        s.refuse_zero_counts(Vector, f)
        self._prepare()
        a.move(self.oc, f["n_oc"])
        a.move(self.param, f["param_addr"])
        with a.repeat(self.oc):
            self._channels()
            for name in "abd":
                a.increase(f[f"{name}_addr"], 1)
            a.load(f["shared"])
            with a.unless(Op.JUMP_ZERO):
                a.load(BIAS_LINES - BLOCK_LINES)
            a.add(BLOCK_LINES)
            a.add(self.param)
            a.store(self.param)
        a.jump("VECTOR.done")
        a.label("vector.do")
        a.load(self.element)
        a.emit(Op.JUMP_TO_A)
        self.elements.emit()
        self._emit_lines()

    # Once a command.

    def _prepare(self) -> None:
        a, s, f = self.a, self.s, self.f
        for name in "abd":
            s.shift_left(f[f"{name}_x"], LINE_BIT)
            a.store(self.step[name])
            a.load(f["out_w"])
            a.add(-1)
            a.multiply(None, f[f"{name}_x"], In.PRODUCT_LOW)
            a.store(self.span[name])
        for count, step in (("n_ky", "a_ky"), ("n_kx", "a_kx")):
            a.load(f[count])
            a.add(-1)
            a.multiply(None, f[step], In.PRODUCT_LOW)
            a.add(self.span["a"])
            a.store(self.span["a"])
        self.elements.prepare()
        a.move(self.from_acc, 0)
        a.load(f["op"])
        present = [op for op in VectorOp if s.config.can(operation_of(op))]
        illegal = s.fail(ErrorCause.ILLEGAL_FIELD)
        for op in range(present[-1] + 1):
            there = op in present
            a.emit(Op.JUMP_ZERO, f"vector.is_{VectorOp(op).name}" if there else illegal)
            a.add(-1)
        a.jump(illegal)
        for op in present:
            a.label(f"vector.is_{op.name}")
            a.emit(Op.CALL, f"vector.pick_{op.name}")
            a.label(f"vector.{op.name}")
            self.elements.element(op)
            a.label(f"vector.pick_{op.name}")
            a.emit(Op.LINK)
            a.store(self.element)
            if not op.windowed:
                a.load(f["n_ky"])
                a.add(f["n_kx"])
                a.add(-2)
                a.emit(Op.JUMP_NONZERO, s.fail(ErrorCause.ILLEGAL_FIELD))
            if not op.shares:
                a.load(f["shared"])
                a.emit(Op.JUMP_NONZERO, s.fail(ErrorCause.ILLEGAL_FIELD))
            if op.reads_table:
                # Not clamped.
                a.move(f["act_min"], -128)
                a.move(f["act_max"], 127)
            if op.reads_acc:
                s.refuse_zero(f["tile_rows"])
                a.move(self.from_acc, 1)
            else:
                a.move(f["tile_rows"], f["out_h"])
            if op != present[-1]:
                a.jump("vector.prepared")
        a.label("vector.prepared")
        if s.config.can(Operation.MIN):
            a.load(f["least"])
            with a.unless(Op.JUMP_ZERO):
                a.load(f["op"])
                a.add(-int(VectorOp.MAX))
                a.emit(Op.JUMP_NONZERO, illegal)
        self.elements.prepare_bounds()

    # Once a tile.

    def _channels(self) -> None:
        """All tiles of one tile of channels."""
        a, s, f = self.a, self.s, self.f
        a.move(self.rows_left, f["out_h"])
        for name in "abd":
            a.move(self.tile[name], f[f"{name}_addr"])
        a.label("vector.tile")
        a.load(self.from_acc)
        with a.unless(Op.JUMP_ZERO):
            a.label("vector.wait")
            a.load(s.full_halves)
            with a.unless(Op.JUMP_NONZERO):
                a.call(f"{Engine.VECTOR.name}.wait")
                a.jump("vector.wait")
            self._check_params()
        a.minimum(f["tile_rows"], self.rows_left)
        a.store(self.rows)
        self._check_lines()
        a.move(self.elements.channel, 0)
        a.label("vector.channel")
        self._parameters()
        self._rows()
        a.increase(self.elements.channel, 1)
        a.add(-s.config.cols)
        a.emit(Op.JUMP_NONZERO, "vector.channel")
        a.load(self.from_acc)
        with a.unless(Op.JUMP_ZERO):
            a.increase(s.full_halves, -1)
            a.load(self.queues.drain_half)
            a.bits_xor(1)
            a.store(self.queues.drain_half)
        for name in "abd":
            a.multiply(self.rows, f[f"{name}_y"], In.PRODUCT_LOW)
            a.add(self.tile[name])
            a.store(self.tile[name])
        a.load(self.rows_left)
        a.sub(self.rows)
        a.store(self.rows_left)
        a.emit(Op.JUMP_NONZERO, "vector.tile")

    def _check_params(self) -> None:
        a, s, f = self.a, self.s, self.f
        a.load(f["shared"])
        with a.unless(Op.JUMP_ZERO):
            a.load(BIAS_LINES - BLOCK_LINES)
        a.add(self.param)
        a.add(BLOCK_LINES - s.config.param_lines - 1)
        with a.unless(Op.JUMP_NEGATIVE):
            s.fail_lines(self.param, s.config.param_lines, ErrorCause.PARAM_RANGE)

    def _check_lines(self) -> None:
        """The last line of a tile is the highest."""
        a, f = self.a, self.f
        a.load(self.from_acc)
        a.emit(Op.JUMP_NONZERO, "vector.check_b")
        for name in "abd":
            a.label(f"vector.check_{name}")
            if name == "b":
                # B is read by two operations only.
                done = "vector.check_d"
                a.load(f["op"])
                a.add(-int(VectorOp.ADD))
                with a.unless(Op.JUMP_ZERO):
                    a.add(int(VectorOp.ADD) - int(VectorOp.REQUANT_ADD))
                    a.emit(Op.JUMP_NONZERO, done)
            for target, value in (
                (self.line, self.tile[name]),
                (self.rest, self.span[name]),
                (self.line_y, f[f"{name}_y"]),
                (self.line_x, f[f"{name}_x"]),
            ):
                a.move(target, value)
            a.call("vector.lines")

    def _emit_lines(self) -> None:
        """Emit routine ``vector.lines``: ACT_RANGE if one of a tile's lines is beyond the memory.

        They begin at `line`; the last one of a row of them is `rest` lines after its first.
        """
        a, s, f = self.a, self.s, self.f
        with a.routine("vector.lines", self.back_lines):
            a.load(self.rows)
            a.add(-1)
            a.multiply(None, self.line_y, In.PRODUCT_LOW)
            a.add(self.rest)
            a.store(self.rest)
            a.add(self.line)
            a.sub(s.config.act_lines)
            with a.unless(Op.JUMP_NEGATIVE):
                # Which one is the first? Axis by axis.
                for count, step in (
                    (self.rows, self.line_y),
                    (f["out_w"], self.line_x),
                    (f["n_ky"], f["a_ky"]),
                    (f["n_kx"], f["a_kx"]),
                ):
                    a.move(s.scratch[0], count)
                    a.move(s.scratch[1], step)
                    a.call("vector.first_line")
                a.label("vector.lines_found")
                s.fail_lines(self.line, s.config.act_lines, ErrorCause.ACT_RANGE)
        with a.routine("vector.first_line"):
            a.load(self.rest)
            a.emit(Op.JUMP_ZERO, "vector.lines_found")
            a.load(s.scratch[0])
            a.add(-1)
            a.multiply(None, s.scratch[1], In.PRODUCT_LOW)
            a.store(s.scratch[2])
            a.load(self.rest)
            a.sub(s.scratch[2])
            a.store(self.rest)
            a.label("vector.next_line")
            a.load(self.line)
            a.add(self.rest)
            a.sub(s.config.act_lines)
            with a.unless(Op.JUMP_POSITIVE):
                a.increase(self.line, s.scratch[1])
                a.jump("vector.next_line")

    # Once a channel of a tile.

    def _parameters(self) -> None:
        """Bias, multiplier and shift of `channel`."""
        a, s, f = self.a, self.s, self.f
        a.load(self.from_acc)
        a.emit(Op.JUMP_ZERO, "vector.has_parameters")
        a.load(self.param)
        a.add(self.elements.channel)
        a.add(s.local.base_of(Space.PARAM) // s.config.line_bytes)
        s.shift_left(None, LINE_BIT)
        a.write(Out.LOCAL_ADDRESS)
        a.write(Out.LOCAL_STEP, BIAS_LINES * s.config.line_bytes)
        a.read(In.LOCAL_WORD)
        a.store(self.elements.bias)
        a.load(f["shared"])
        with a.unless(Op.JUMP_ZERO):
            self.elements.requant.set(f["mult_a"], f["shift_a"])
            a.jump("vector.has_parameters")
        a.read(In.LOCAL_WORD)
        a.store(self.elements.requant.multiplier)
        a.load(self.param)
        a.add(SHIFT_LINE)
        a.add(s.local.base_of(Space.PARAM) // s.config.line_bytes)
        s.shift_left(None, LINE_BIT)
        a.add(self.elements.channel)
        a.write(Out.LOCAL_ADDRESS)
        a.read(In.LOCAL_BYTE)
        self.elements.requant.set_signed_shift()
        a.label("vector.has_parameters")
        self.elements.requant.decide(self.elements.usual)

    def _rows(self) -> None:
        a, s, f = self.a, self.s, self.f
        a.move(self.y, self.rows)
        for name in "abd":
            s.shift_left(self.tile[name], LINE_BIT)
            a.add(self.elements.channel)
            a.store(self.row[name])
        # Sums follow one another through the whole tile.
        a.multiply(self.queues.drain_half, s.config.acc_depth * s.config.cols, In.PRODUCT_LOW)
        a.add(self.elements.channel)
        a.write(Out.ACCUMULATOR_ADDRESS)
        a.write(Out.LOCAL_STEP, 0)
        with a.repeat(self.y):
            a.call("check_watchdog")
            a.move(self.x, f["out_w"])
            a.load(f["op"])
            with a.unless(Op.JUMP_NONZERO):
                self.elements.requant_row(self.x, self.row["d"], self.step["d"], "vector.row_done")
                a.jump("vector.row_done")
            for name in "abd":
                a.move(self.elements.at[name], self.row[name])
            with a.repeat(self.x):
                a.call("vector.do")
                a.write(Out.LOCAL_ADDRESS, self.elements.at["d"])
                a.load(self.elements.value)
                self.elements.clamp("act")
                a.write(Out.LOCAL_BYTE)
                for name in "abd":
                    a.increase(self.elements.at[name], self.step[name])
            a.label("vector.row_done")
            for name in "abd":
                s.shift_left(f[f"{name}_y"], LINE_BIT)
                a.add(self.row[name])
                a.store(self.row[name])
