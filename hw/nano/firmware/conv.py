"""`Conv`: the loops around the array's runs.

A run is what the array does by itself: for each of its weight rows (taps), a row of windows. The
firmware makes one for each output row of each pass; passes whose bytes follow one another in memory
are one pass with as many more taps. In modes TAPS and ROWS a tap may lie beyond the end of the row,
in the one that is streamed next: those outputs are runs of one window.
"""

from __future__ import annotations

from celosia.hw.contract.isa import ACC_HALVES, Conv, Engine, Mode, Space
from celosia.hw.contract.regs import ErrorCause
from celosia.hw.nano.assembler import Word
from celosia.hw.nano.firmware.queues import Queues
from celosia.hw.nano.firmware.rows import RUN_FIRST, TAPS_OF_ROWS, RowRuns
from celosia.hw.nano.firmware.shared import Shared
from celosia.hw.nano.instructions import In, Op, Out, Status

__all__ = ["Convolutions"]

SETUP_SAME_BYTE = 1 << 8


class Convolutions:
    """Emits the handler of `Conv`, ``ARRAY.command``.

    Parameters
    ----------
    shared : Shared
    queues : Queues
    """

    def __init__(self, shared: Shared, queues: Queues) -> None:
        self.s, self.a, self.queues = shared, shared.a, queues
        a = shared.a
        self.runs = RowRuns(shared)
        self.held = queues.held
        self.setup, self.window_step = a.word("conv.setup"), a.word("conv.window_step")
        self.passes = a.word("conv.passes")
        self.pass_taps, self.pass_lines = a.word("conv.pass_taps"), a.word("conv.pass_lines")
        self.half = a.word("conv.half_vector")
        self.weights = a.word("conv.weights")
        self.oc, self.oc_address = a.word("conv.oc"), a.word("conv.oc_address")
        self.rows_left, self.rows = a.word("conv.rows_left"), a.word("conv.rows")
        self.tile_address, self.tile_row = a.word("conv.tile_address"), a.word("conv.tile_row")
        self.first, self.busy = a.word("conv.first"), a.word("conv.busy")
        self.ky, self.kx, self.ic = a.word("conv.ky"), a.word("conv.kx"), a.word("conv.ic")
        self.ky_address, self.ky_row = a.word("conv.ky_address"), a.word("conv.ky_row")
        self.kx_address, self.kx_x = a.word("conv.kx_address"), a.word("conv.kx_x")
        self.ic_address, self.y = a.word("conv.ic_address"), a.word("conv.y")

    def emit(self) -> None:
        """Emit the handler."""
        a, s = self.a, self.s
        a.label("ARRAY.command")
        f = s.unpack(Conv, "conv")
        self.runs.fields = f
        s.refuse_zero_counts(Conv, f)
        a.load(f["wgt_addr"])
        a.bits_and(1)
        a.emit(Op.JUMP_NONZERO, s.fail(ErrorCause.ILLEGAL_FIELD))
        a.load(f["mode"])
        a.sub(int(Mode.JOINED))
        a.emit(Op.JUMP_POSITIVE, s.fail(ErrorCause.ILLEGAL_FIELD))
        self._tile_rows(f, f["out_h"])
        a.multiply(None, f["out_w"], In.PRODUCT_LOW)
        a.add(-s.config.acc_depth - 1)
        a.emit(Op.JUMP_POSITIVE, s.fail(ErrorCause.ACC_OVERFLOW))
        self._prepare(f)
        a.move(self.oc, f["n_oc"])
        a.move(self.oc_address, f["act_addr"])
        with a.repeat(self.oc):
            self._channels(f)
            s.shift_left(self.passes, 2)
            a.add(self.weights)
            a.store(self.weights)
            a.increase(self.oc_address, f["step_oc"])
        a.jump("ARRAY.done")

    def _tile_rows(self, f: dict[str, Word], left: Word) -> None:
        """A and `rows` = min(tile_rows, left)."""
        self.a.minimum(f["tile_rows"], left)
        self.a.store(self.rows)

    def _prepare(self, f: dict[str, Word]) -> None:
        """What stays the same for the whole command."""
        a, s = self.a, self.s
        a.multiply(f["n_ky"], f["n_kx"], In.PRODUCT_LOW)
        a.multiply(None, f["n_ic"], In.PRODUCT_LOW)
        a.store(self.passes)
        a.load(f["wgt_addr"])
        a.add(s.local.base_of(Space.WGT) // s.config.line_bytes)
        a.store(self.weights)
        a.load(f["zero_point"])
        a.bits_and(0xFF)
        a.store(self.setup)
        a.move(self.runs.taps, s.config.rows)
        a.store(self.pass_lines, self.pass_taps)
        a.move(self.runs.wraps, 0)
        a.load(f["accumulate"])
        a.add(-1)
        a.bits_and(RUN_FIRST)
        a.store(self.first)
        a.load(f["mode"])
        with a.unless(Op.JUMP_NONZERO):
            a.increase(self.setup, SETUP_SAME_BYTE)
            a.move(self.window_step, f["step_x"])
            a.move(self.runs.tap_step, 1)
            self._join(f)
            a.jump("conv.prepared")
        a.add(-int(Mode.ROWS))
        a.emit(Op.JUMP_NEGATIVE, "conv.taps")
        a.move(self.runs.taps, TAPS_OF_ROWS)
        a.store(self.pass_taps)
        a.label("conv.taps")
        a.multiply(f["step_x"], f["stride_x"], In.PRODUCT_LOW)
        a.store(self.window_step)
        a.move(self.runs.tap_step, f["step_x"])
        self.runs.find_wraps()
        a.label("conv.prepared")

    def _join(self, f: dict[str, Word]) -> None:
        """Make one pass of those that follow one another along a row of bytes."""
        a = self.a
        for count, step in (("n_ic", "step_ic"), ("n_kx", "step_kx")):
            joined = a.new_label("joined")
            a.load(f[count])
            a.add(-1)
            a.emit(Op.JUMP_ZERO, joined)
            a.load(f[step])
            a.sub(self.runs.taps)
            a.emit(Op.JUMP_NONZERO, "conv.joined")
            a.multiply(self.runs.taps, f[count], In.PRODUCT_LOW)
            a.store(self.runs.taps, self.pass_lines)
            a.move(f[count], 1)
            a.label(joined)
        a.label("conv.joined")

    def _channels(self, f: dict[str, Word]) -> None:
        """All tiles of one tile of output channels."""
        a, s = self.a, self.s
        a.move(self.rows_left, f["out_h"])
        a.move(self.tile_address, self.oc_address)
        a.move(self.tile_row, f["y0"])
        a.label("conv.tile")
        a.load(self.held)
        a.emit(Op.JUMP_NONZERO, "conv.half")
        a.label("conv.wait")
        a.load(s.full_halves)
        a.add(-ACC_HALVES)
        with a.unless(Op.JUMP_NONZERO):
            a.call(f"{Engine.ARRAY.name}.wait")
            a.jump("conv.wait")
        a.label("conv.half")
        self._tile_rows(f, self.rows_left)
        self._tile(f)
        # The half goes to the vector engine, or stays for the command that follows.
        a.move(self.held, f["hold"])
        with a.unless(Op.JUMP_NONZERO):
            a.increase(s.full_halves, 1)
            a.load(self.queues.fill_half)
            a.bits_xor(1)
            a.store(self.queues.fill_half)
        a.multiply(self.rows, f["step_y"], In.PRODUCT_LOW)
        a.add(self.tile_address)
        a.store(self.tile_address)
        a.multiply(self.rows, f["stride_y"], In.PRODUCT_LOW)
        a.add(self.tile_row)
        a.store(self.tile_row)
        a.load(self.rows_left)
        a.sub(self.rows)
        a.store(self.rows_left)
        a.emit(Op.JUMP_NONZERO, "conv.tile")

    def _tile(self, f: dict[str, Word]) -> None:
        """All passes of one tile."""
        a, s = self.a, self.s
        a.write(Out.ARRAY_STEP, self.window_step)
        a.write(Out.ARRAY_TAP, self.runs.tap_step)
        a.write(Out.ARRAY_LIMIT, f["row_bytes"])
        a.write(Out.ARRAY_SETUP, self.setup)
        a.write(Out.ARRAY_COUNT, f["out_w"])
        a.multiply(self.queues.fill_half, s.config.acc_depth, In.PRODUCT_LOW)
        a.store(self.half)
        self._check_weights()
        a.move(self.runs.weight, self.weights)
        a.move(self.runs.first_now, self.first)
        a.move(self.ky, f["n_ky"])
        a.move(self.ky_address, self.tile_address)
        a.move(self.ky_row, self.tile_row)
        with a.repeat(self.ky):
            a.move(self.kx, f["n_kx"])
            a.move(self.kx_address, self.ky_address)
            a.move(self.kx_x, f["x0"])
            with a.repeat(self.kx):
                a.move(self.ic, f["n_ic"])
                a.move(self.ic_address, self.kx_address)
                a.move(self.runs.ic_x, self.kx_x)
                with a.repeat(self.ic):
                    self._pass(f)
                    a.increase(self.ic_address, f["step_ic"])
                    a.increase(self.runs.ic_x, f["step_ic"])
                a.increase(self.kx_address, f["step_kx"])
                a.increase(self.kx_x, f["step_kx"])
            a.increase(self.ky_address, f["step_ky"])
            a.increase(self.ky_row, f["ky_rows"])
        a.emit(Op.WAIT)
        self._check_range()
        a.multiply(self.passes, self.rows, In.PRODUCT_LOW)
        a.multiply(None, self.pass_taps, In.PRODUCT_LOW)
        a.multiply(None, f["out_w"], In.PRODUCT_LOW)
        a.store(self.busy)
        a.increase(s.register("count_array_busy"), self.busy)
        a.load(s.register("count_array_start"))
        a.sub(self.busy)
        a.store(s.register("count_array_start"))

    def _check_weights(self) -> None:
        """Emit WGT_RANGE if the weights of all passes are not within the memory."""
        a, s = self.a, self.s
        first, end = (
            s.local.base_of(space) // s.config.line_bytes for space in (Space.WGT, Space.PARAM)
        )
        s.shift_left(self.passes, 2)
        a.add(self.weights)
        a.sub(end + 1)
        with a.unless(Op.JUMP_NEGATIVE):
            s.fail_lines(self.weights, end, ErrorCause.WGT_RANGE, base=first)

    def _check_range(self) -> None:
        a, s = self.a, self.s
        a.read(In.STATUS)
        a.bits_and(1 << Status.ARRAY_RANGE)
        with a.unless(Op.JUMP_ZERO):
            a.read(In.ARRAY_ADDRESS)
            a.store(s.error_address)
            a.jump(s.fail(ErrorCause.ACT_RANGE))

    def _pass(self, f: dict[str, Word]) -> None:
        """All rows of one pass, and the step to the next weights."""
        a = self.a
        a.call("check_watchdog")
        a.move(self.y, self.rows)
        a.move(self.runs.row_address, self.ic_address)
        a.move(self.runs.row, self.ky_row)
        a.move(self.runs.vector, self.half)
        with a.repeat(self.y):
            a.load(self.runs.wraps)
            a.emit(Op.JUMP_NONZERO, "conv.taps_apart")
            self.runs.whole_row()
            a.jump("conv.row_done")
            a.label("conv.taps_apart")
            self.runs.taps_apart()
            a.label("conv.row_done")
            a.increase(self.runs.row_address, f["step_y"])
            a.increase(self.runs.row, f["stride_y"])
            a.increase(self.runs.vector, f["out_w"])
        a.increase(self.runs.weight, self.pass_lines)
        a.move(self.runs.first_now, 0)
