"""What the firmware does with one element of a `Vector` command."""

from __future__ import annotations

from celosia.hw.contract.isa import ADD_LEFT_SHIFT, Space, VectorOp
from celosia.hw.contract.operations import Operation
from celosia.hw.nano.assembler import Word
from celosia.hw.nano.firmware.rescale import Rescale
from celosia.hw.nano.firmware.shared import LINE_BIT, Shared
from celosia.hw.nano.instructions import In, Op, Out

__all__ = ["Elements"]


class Elements:
    """Emits a routine for each operation, and the row of REQUANT.

    Parameters
    ----------
    shared : Shared

    Attributes
    ----------
    fields : dict of str to Word
        Of the command; to be set before anything is emitted.
    at : dict of str to Word
        Byte addresses of the element's places in A, B and D.
    channel, bias : Word
        Which of a line's bytes, and what is added to its sums.
    usual : Word
        Whether the shift is what networks have (:meth:`Rescale.decide`).
    value : Word
        What an operation results in, not yet clamped.
    """

    def __init__(self, shared: Shared) -> None:
        self.s, self.a = shared, shared.a
        a = shared.a
        self.fields: dict[str, Word] = {}
        self.channel = a.word("vector.channel")
        self.at = {name: a.word(f"vector.at_{name}") for name in "abd"}
        self.window_step = {name: a.word(f"vector.step_{name}") for name in ("ky", "kx")}
        self.bias = a.word("vector.bias")
        self.usual = a.word("vector.usual")
        self.value = a.word("vector.value")
        self.back, self.back_add = a.word("vector.back"), a.word("vector.back_add")
        self.sum_a = a.word("vector.sum_a")
        self.ky, self.kx = a.word("vector.ky"), a.word("vector.kx")
        self.ky_at, self.kx_at = a.word("vector.ky_at"), a.word("vector.kx_at")
        self.total = a.word("vector.total")
        self.requant = Rescale(shared, "requant", left=True)
        self.scale = {name: Rescale(shared, f"scale_{name}") for name in "abo"}
        self.width = {name: a.word(f"vector.width_{name}") for name in ("act", "mid")}

    def prepare(self) -> None:
        """What stays the same for the whole command, but for the bounds."""
        a, s, f = self.a, self.s, self.fields
        for axis in ("ky", "kx"):
            s.shift_left(f[f"a_{axis}"], LINE_BIT)
            a.store(self.window_step[axis])
        for name in "abo":
            self.scale[name].set(f[f"mult_{name}"], f[f"shift_{name}"])
        if s.config.can(Operation.MIN):
            # All bits, where the least value is looked for.
            a.load(0)
            a.sub(f["least"])
            a.store(f["least"])
        assert self.requant.single is not None, "it was made with `left`"
        a.move(self.requant.single, f["rounding"])

    def prepare_bounds(self) -> None:
        """The upper bound wins if a program has them the wrong way round."""
        a, f = self.a, self.fields
        for name in ("act", "mid"):
            a.load(f[f"{name}_max"])
            a.sub(f[f"{name}_min"])
            with a.unless(Op.JUMP_POSITIVE):
                a.load(0)
            a.store(self.width[name])
            a.load(f[f"{name}_max"])
            a.sub(self.width[name])
            a.store(f[f"{name}_min"])

    def element(self, op: VectorOp) -> None:
        """A routine: word `value` = the element's value, not yet clamped."""
        a, s, f = self.a, self.s, self.fields
        a.emit(Op.LINK)
        a.store(self.back)
        if op.reads_acc:
            a.read(In.ACCUMULATOR)
            a.add(self.bias)
            self.requant.apply()
            a.add(f["zero_a"])
            if op.has_b:
                self.clamp("mid")
        elif op.has_b:
            a.write(Out.LOCAL_ADDRESS, self.at["a"])
            a.read(In.LOCAL_BYTE)
        elif op.reads_table:
            a.write(Out.LOCAL_ADDRESS, self.at["a"])
            a.read(In.LOCAL_BYTE)
            a.bits_and(0xFF)
            s.shift_left(None, LINE_BIT)
            a.add(s.local.base_of(Space.TABLE))
            a.add(self.channel)
            a.write(Out.LOCAL_ADDRESS)
            a.read(In.LOCAL_BYTE)
        else:
            self._window(op)
            if op == VectorOp.AVERAGE:
                self._average()
        a.store(self.value)
        if op.has_b:
            a.call("vector.add")
        a.leave(self.back)

    def clamp(self, name: str) -> None:
        """A = A, not below `name`_min and not above `name`_max; no sum here overflows."""
        a, f = self.a, self.fields
        a.sub(f[f"{name}_min"])
        with a.unless(Op.JUMP_POSITIVE):
            a.load(0)
        a.sub(self.width[name])
        with a.unless(Op.JUMP_NEGATIVE):
            a.load(0)
        a.add(f[f"{name}_max"])

    def requant_row(self, x: Word, row: Word, step: Word, done: str) -> None:
        """A row of REQUANT, by itself: most elements of a network are of this kind.

        Parameters
        ----------
        x, row, step : Word
            Elements; byte address of the first one in D, and how far the next one is.
        done : str
            Where to go from the first of the two loops.
        """
        a, f = self.a, self.fields
        assert int(VectorOp.REQUANT) == 0
        a.write(Out.LOCAL_ADDRESS, row)
        a.write(Out.LOCAL_STEP, step)
        a.load(self.usual)
        a.emit(Op.JUMP_ZERO, "vector.unusual")
        for rescale in (self.requant.apply_usual, self.requant.apply):
            with a.repeat(x):
                a.read(In.ACCUMULATOR)
                a.add(self.bias)
                rescale()
                a.add(f["zero_a"])
                self.clamp("act")
                a.write(Out.LOCAL_BYTE)
            if rescale == self.requant.apply_usual:
                a.jump(done)
                a.label("vector.unusual")

    def emit(self) -> None:
        """Emit the routines that the operations have in common."""
        a, f = self.a, self.fields
        with a.routine("vector.add", self.back_add):
            # `value` is A's; B is added, all of it rescaled.
            a.load(self.value)
            a.sub(f["zero_a"])
            self.s.shift_left(None, ADD_LEFT_SHIFT)
            self.scale["a"].apply()
            a.store(self.sum_a)
            a.write(Out.LOCAL_ADDRESS, self.at["b"])
            a.read(In.LOCAL_BYTE)
            a.sub(f["zero_b"])
            self.s.shift_left(None, ADD_LEFT_SHIFT)
            self.scale["b"].apply()
            a.add(self.sum_a)
            self.scale["o"].apply()
            a.add(f["zero_out"])
            a.store(self.value)
        self.requant.emit()
        for scale in self.scale.values():
            scale.emit()

    def _window(self, op: VectorOp) -> None:
        """A and `total` = sum, maximum or minimum of the window."""
        a, f = self.a, self.fields
        a.call("check_watchdog")
        a.load(0 if op == VectorOp.AVERAGE else -128)
        turns = op == VectorOp.MAX and self.s.config.can(Operation.MIN)
        if turns:
            a.bits_xor(f["least"])
        a.store(self.total)
        a.move(self.ky, f["n_ky"])
        a.move(self.ky_at, self.at["a"])
        with a.repeat(self.ky):
            a.move(self.kx, f["n_kx"])
            a.move(self.kx_at, self.ky_at)
            with a.repeat(self.kx):
                a.write(Out.LOCAL_ADDRESS, self.kx_at)
                a.read(In.LOCAL_BYTE)
                if op == VectorOp.AVERAGE:
                    a.add(self.total)
                    a.store(self.total)
                else:
                    a.store(self.value)
                    a.sub(self.total)
                    if turns:
                        a.bits_xor(f["least"])
                    with a.unless(Op.JUMP_NEGATIVE):
                        a.move(self.total, self.value)
                a.increase(self.kx_at, self.window_step["kx"])
            a.increase(self.ky_at, self.window_step["ky"])
        a.load(self.total)

    def _average(self) -> None:
        """A = A / window, half away from zero: magnitude * mult_o >> 30 + shift_o, and the sign."""
        a, f = self.a, self.fields
        negative, end = a.new_label("negative"), a.new_label("averaged")
        a.emit(Op.JUMP_ZERO, end)
        a.emit(Op.JUMP_NEGATIVE, negative)
        for label, sign in (("", 1), (negative, -1)):
            if label:
                a.label(label)
                a.load(0)
                a.sub(self.total)
            a.add(f["half"])
            a.store(self.value)
            # The middle of the product is that of 2^-31.
            a.add(self.value)
            a.multiply(None, f["mult_o"], In.PRODUCT_Q31)
            self.scale["o"].shift_down()
            if sign < 0:
                a.store(self.value)
                a.load(0)
                a.sub(self.value)
            if sign > 0:
                a.jump(end)
        a.label(end)
