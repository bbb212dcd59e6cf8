"""The instruction set, in one schema.

Every command is 64 bytes, fields packed from bit 0 upwards in the order they are declared here.
The gateware's decoder (:mod:`celosia.hw.control.decode`), the assembler and disassembler (this
module), the emulator and ``docs/isa.md`` are all derived from these declarations.

Pure standard library: the compiler and the driver import it without Amaranth.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cache, cached_property
from typing import Any, ClassVar

from celosia.errors import CelosiaError

__all__ = [
    "ACC_HALVES",
    "ADDRESS_BITS",
    "ADDRESS_MASK",
    "ADD_LEFT_SHIFT",
    "BIAS_LINES",
    "BLOCK_LINES",
    "COMMANDS",
    "COMMAND_BYTES",
    "COMMAND_BITS",
    "FORMAT_VERSION",
    "Command",
    "Conv",
    "End",
    "Engine",
    "FieldSpec",
    "IsaError",
    "MAX_TOKENS",
    "Load",
    "Mode",
    "Opcode",
    "Region",
    "Rounding",
    "SQUARE_LEFT_SHIFT",
    "Softmax",
    "Space",
    "Store",
    "TABLE_ENTRIES",
    "TOKEN_BITS",
    "Vector",
    "VectorOp",
    "counts_of",
    "disassemble",
    "fields_of",
    "whole_words_of",
]

FORMAT_VERSION = 1
BIAS_LINES = 4
"""Lines of a parameter block that hold biases."""
BLOCK_LINES = 9
"""Lines of a whole parameter block: biases, 4 lines of multipliers, 1 of shifts."""
COMMAND_BYTES = 64
COMMAND_BITS = 8 * COMMAND_BYTES
MAX_BURST_WORDS = 16
"""After so many bus words of one part of the machine another one that waits has its turn."""
MAX_LOADS = 4
"""Loads that have begun and are not done."""
FETCH_REST_WORDS = 64
"""Bus words of transfers between two commands that are fetched beside them, while others wait for
array and vector engine; else MAX_BURST_WORDS."""
ADDRESS_BITS = 20
"""Of byte addresses on chip, which wrap."""
ADDRESS_MASK = (1 << ADDRESS_BITS) - 1
TABLE_ENTRIES = 256
ACC_HALVES = 2
"""Halves of the accumulator: the array fills one while the vector engine empties another."""
TOKEN_BITS = 8
MAX_TOKENS = (1 << TOKEN_BITS) - 1
"""Tokens from one engine to another that were given and not taken."""
ADD_LEFT_SHIFT = 20
"""Both inputs of ADD are shifted left by this much before they are rescaled; MUL's as well."""
SQUARE_LEFT_SHIFT = 7
"""Those of SQUARED_DIFFERENCE."""


class IsaError(CelosiaError, ValueError):
    """A command that cannot be encoded, or bytes that are no command."""


_REMEDY = "compile the model again"


def _not_a_command(cause: str) -> IsaError:
    return IsaError("a command", cause, _REMEDY)


class Engine(IntEnum):
    """The decoupled engines. A command's wait and signal masks have one bit for each."""

    LOAD = 0
    STORE = 1
    ARRAY = 2
    VECTOR = 3


class Opcode(IntEnum):
    """What a command does; the high nibble less one is its engine (0: the dispatcher itself)."""

    END = 0x01
    LOAD = 0x10
    STORE = 0x20
    CONV = 0x30
    VECTOR = 0x40
    SOFTMAX = 0x41


class Region(IntEnum):
    """Windows of system memory; the host sets each one's base and size."""

    CODE = 0
    CONST = 1
    IO = 2
    SCRATCH = 3


class Space(IntEnum):
    """On-chip memories that a `Load` can write."""

    ACT = 0
    WGT = 1
    PARAM = 2
    TABLE = 3


class Mode(IntEnum):
    """How the array's rows are fed."""

    WINDOW = 0
    """Row r gets byte r of one window: convolution, fully connected."""
    TAPS = 1
    """All rows of column c get channel c of one pixel; row r holds tap r of one kernel row."""
    ROWS = 2
    """As TAPS, but rows 3s, 3s+1, 3s+2 belong to kernel row s, fed from input row y + s, if there
    is one: s is below ky_rows. The third kernel row has two rows in an array of 8."""
    JOINED = 3
    """As WINDOW, but what a window has beyond its kernel row is the beginning of the next one."""

    @property
    def windows(self) -> bool:
        """Whether row r gets byte r of a window."""
        return self in (Mode.WINDOW, Mode.JOINED)


class Rounding(IntEnum):
    """How a product is brought back to eight bits (see docs/arithmetic.md)."""

    DOUBLE = 0
    SINGLE = 1


class VectorOp(IntEnum):
    """What the vector engine does with each vector."""

    REQUANT = 0
    """Accumulator + bias, requantised per channel."""
    ADD = 1
    """Two int8 tensors, each rescaled, summed and rescaled."""
    AVERAGE = 2
    """Sum of a window, divided by its size, half away from zero."""
    MAX = 3
    """Maximum of a window."""
    TABLE = 4
    """Table look-up, one table a lane."""
    REQUANT_ADD = 5
    """REQUANT, then ADD with tensor B."""
    MUL = 6
    """Two int8 tensors, multiplied, the product rescaled."""
    SQUARED_DIFFERENCE = 7
    """Two int8 tensors, each rescaled, summed; the square of the sum rescaled."""

    @property
    def reads_acc(self) -> bool:
        """A comes from the accumulator, tile by tile, and is requantised with parameters."""
        return self in (VectorOp.REQUANT, VectorOp.REQUANT_ADD)

    @property
    def has_b(self) -> bool:
        """There is a second tensor, in groups of vectors that wait for it."""
        return self.adds or self.multiplies

    @property
    def adds(self) -> bool:
        """Both tensors are rescaled and added, and that is all."""
        return self in (VectorOp.ADD, VectorOp.REQUANT_ADD)

    @property
    def multiplies(self) -> bool:
        """Two values of tensors are multiplied."""
        return self in (VectorOp.MUL, VectorOp.SQUARED_DIFFERENCE)

    @property
    def windowed(self) -> bool:
        """A window of A is reduced."""
        return self in (VectorOp.AVERAGE, VectorOp.MAX)

    @property
    def reads_table(self) -> bool:
        """A is looked up in TABLE."""
        return self is VectorOp.TABLE

    @property
    def shares(self) -> bool:
        """One multiplier and shift may do for all channels (`shared`)."""
        return self is VectorOp.REQUANT

    @property
    def beats(self) -> int:
        """Cycles of the engine for every `lanes` elements, or for each of their window."""
        beats = {
            VectorOp.ADD: 3,
            VectorOp.REQUANT_ADD: 4,
            VectorOp.MUL: 3,
            VectorOp.SQUARED_DIFFERENCE: 5,
        }
        return beats.get(self, 1)


@dataclass(frozen=True)
class FieldSpec:
    """One field of a command: its place, its range and what it means."""

    name: str
    offset_bits: int
    width_bits: int
    signed: bool
    enum: type[IntEnum] | None
    doc: str
    least: int | None = None
    """The least legal value, if it is above `minimum`."""
    multiple_of: int = 1
    """What a legal value is a multiple of."""
    whole_words: bool = False
    """A legal value is a multiple of the bus word, unless the command's space is ACT."""

    @cached_property
    def minimum(self) -> int:
        return -(1 << (self.width_bits - 1)) if self.signed else 0

    @cached_property
    def maximum(self) -> int:
        return (1 << (self.width_bits - int(self.signed))) - 1


def _f(
    width_bits: int,
    doc: str,
    *,
    signed: bool = False,
    enum: type[IntEnum] | None = None,
    default: int = 0,
    least: int | None = None,
    multiple_of: int = 1,
    whole_words: bool = False,
) -> Any:
    rules = {"least": least, "multiple_of": multiple_of, "whole_words": whole_words}
    meta = {"width": width_bits, "doc": doc, "signed": signed, "enum": enum, "rules": rules}
    return field(default=default, metadata=meta)


@dataclass(frozen=True, kw_only=True)
class Command:
    """Fields that all commands share."""

    OPCODE: ClassVar[Opcode]
    SUMMARY: ClassVar[str]

    opcode: int = _f(8, "Operation", enum=Opcode)
    wait: int = _f(4, "Engines to take one token from before the command starts (bit e: engine e)")
    signal: int = _f(4, "Engines to give one token to when the command is complete")
    tag: int = _f(16, "Index of the command in the program; reported with an error")

    def __post_init__(self) -> None:
        object.__setattr__(self, "opcode", int(self.OPCODE))

    @property
    def reads_acc(self) -> bool:
        """Whether the command empties accumulator tiles."""
        return False

    @property
    def engine(self) -> Engine | None:
        """Engine that runs the command; None: the dispatcher."""
        return Engine((self.OPCODE >> 4) - 1) if self.OPCODE >> 4 else None

    def encode(self) -> bytes:
        """Return the command's 64 bytes.

        Raises
        ------
        IsaError
            If a value does not fit its field.
        """
        word = 0
        for spec in fields_of(type(self)):
            value = int(getattr(self, spec.name))
            if not spec.minimum <= value <= spec.maximum:
                raise IsaError(
                    "a command",
                    f"{type(self).__name__}.{spec.name} is {value}, outside"
                    f" {spec.minimum} to {spec.maximum}",
                    "give a value that the field has room for",
                )
            word |= (value & ((1 << spec.width_bits) - 1)) << spec.offset_bits
        return word.to_bytes(COMMAND_BYTES, "little")

    @staticmethod
    def decode(data: bytes) -> Command:
        """Return the command that 64 bytes hold.

        Raises
        ------
        IsaError
            If the opcode is unknown, an enumeration has no such member, or a bit that belongs
            to no field is set.
        """
        if len(data) != COMMAND_BYTES:
            raise _not_a_command(f"it has {COMMAND_BYTES} bytes, not {len(data)}")
        word = int.from_bytes(data, "little")
        kind = COMMANDS.get(word & 0xFF)
        if kind is None:
            raise _not_a_command(f"illegal opcode 0x{word & 0xFF:02x}")
        values: dict[str, int] = {}
        for spec in fields_of(kind):
            value = word >> spec.offset_bits & ((1 << spec.width_bits) - 1)
            word &= ~(((1 << spec.width_bits) - 1) << spec.offset_bits)
            if spec.signed and value >> (spec.width_bits - 1):
                value -= 1 << spec.width_bits
            if spec.enum is not None:
                try:
                    value = spec.enum(value)
                except ValueError:
                    raise _not_a_command(f"illegal {kind.__name__}.{spec.name} {value}") from None
            values[spec.name] = value
        if word:
            raise _not_a_command(f"{kind.__name__}: reserved bits are not zero")
        values.pop("opcode")
        return kind(**values)


def fields_of(kind: type[Command]) -> tuple[FieldSpec, ...]:
    """Return the fields of a kind of command, in order of their place."""
    key: Any = kind  # to mypy a class of dataclasses cannot be hashed
    return _fields_of(key)


@cache
def _fields_of(kind: Any) -> tuple[FieldSpec, ...]:
    # Asked for every command that is encoded, decoded or checked.
    specs = []
    offset_bits = 0
    for entry in dataclasses.fields(kind):
        meta = entry.metadata
        place = (entry.name, offset_bits, meta["width"], meta["signed"])
        specs.append(FieldSpec(*place, meta["enum"], meta["doc"], **meta["rules"]))
        offset_bits += meta["width"]
    assert offset_bits <= COMMAND_BITS, f"{kind.__name__} takes {offset_bits} bits"
    return tuple(specs)


def counts_of(kind: type[Command]) -> tuple[str, ...]:
    """Return the fields of a kind of command that must not be 0, in order of their place."""
    return tuple(spec.name for spec in fields_of(kind) if spec.least == 1)


def whole_words_of(kind: type[Command]) -> tuple[str, ...]:
    """Return the fields that are multiples of the bus word, unless the space is ACT."""
    return tuple(spec.name for spec in fields_of(kind) if spec.whole_words)


@dataclass(frozen=True, kw_only=True)
class End(Command):
    """Wait until every engine is idle, then report completion and stop fetching."""

    OPCODE = Opcode.END
    SUMMARY = "end of the program"


@dataclass(frozen=True, kw_only=True)
class Transfer(Command):
    """What `Load` and `Store` share: n2 x n1 runs of row_bytes bytes."""

    region: int = _f(2, "Window of system memory", enum=Region)
    space: int = _f(2, "On-chip memory (a Store reads ACT only)", enum=Space)
    mem_addr: int = _f(32, "Byte offset of the first run in the region", whole_words=True)
    sram_addr: int = _f(20, "Byte address of the first run on chip", whole_words=True)
    row_bytes: int = _f(20, "Bytes of a run", least=1, whole_words=True)
    n1: int = _f(16, "Runs in the inner loop", default=1, least=1)
    mem_stride1: int = _f(24, "Bytes from run to run in memory", signed=True, whole_words=True)
    sram_stride1: int = _f(20, "Bytes from run to run on chip (modulo 2^20)", whole_words=True)
    n2: int = _f(12, "Turns of the outer loop", default=1, least=1)
    mem_stride2: int = _f(24, "Bytes from turn to turn in memory", signed=True, whole_words=True)
    sram_stride2: int = _f(20, "Bytes from turn to turn on chip (modulo 2^20)", whole_words=True)


@dataclass(frozen=True, kw_only=True)
class Load(Transfer):
    """Copy from system memory to an on-chip memory.

    Into ACT every address and length is free to the byte. Into WGT, PARAM and TABLE addresses,
    strides and lengths, on both sides, are multiples of the bus word.
    """

    OPCODE = Opcode.LOAD
    SUMMARY = "system memory to on-chip memory"


@dataclass(frozen=True, kw_only=True)
class Store(Transfer):
    """Copy from the activation SRAM to system memory."""

    OPCODE = Opcode.STORE
    SUMMARY = "activation SRAM to system memory"


@dataclass(frozen=True, kw_only=True)
class Conv(Command):
    """Run the array over a whole layer (or a part of one).

    Loops, outermost first::

        for oc in range(n_oc):                     # tiles of `cols` output channels
          for tile in tiles of tile_rows output rows:   # one accumulator half each
            for ky in range(n_ky):                 # passes: one weight matrix each
              for kx in range(n_kx):
                for ic in range(n_ic):
                  for each output row, for each position: one window to the array

    The first window of the command is at byte act_addr, which is input row y0, byte x0 of
    that row. A byte outside rows 0 to in_h - 1 or bytes 0 to row_bytes - 1 of its row reads as
    zero_point. Where all rows are inside, or none, y0, in_h, stride_y and ky_rows may say any that
    are; distances are those of step_y and step_ky. Weights are read in the order of the passes,
    `rows` lines each; tiles after the first of the same oc read the same ones again. The first pass
    of a tile overwrites the accumulator (unless `accumulate`), the others add to it; after the last
    one the half is handed to the vector engine (unless `hold`). `hold` and `accumulate` split a
    reduction whose weights exceed the weight SRAM over several commands of one tile each: the next
    command goes on in the same half.
    In modes TAPS and ROWS a row is a stream of row_len positions, one pixel each; position p
    is the start of an output's window when p is a multiple of stride_x and p / stride_x is below
    out_w. After the last row of a pass `extra` more positions are streamed.

    In mode JOINED kernel rows of step_kx bytes follow one another, and pass ic begins at byte
    ic * step_ic of them all, that is in kernel row k = ic * step_ic // step_kx, step_ky bytes and
    one input row below the one before it. Bytes of a window from step_kx on, counted in kernel row
    k, are those from 0 on of the input row below, and lie row_pitch bytes further than they would
    in their own row.
    """

    OPCODE = Opcode.CONV
    SUMMARY = "convolution on the array"

    mode: int = _f(2, "How rows are fed", enum=Mode)
    accumulate: int = _f(1, "The first pass adds to what a command with `hold` left")
    hold: int = _f(1, "Keep the half: the next command accumulates into it (one tile only)")
    zero_point: int = _f(8, "Value of padding", signed=True)
    act_addr: int = _f(20, "Byte address of the first window (modulo 2^20)")
    y0: int = _f(12, "Input row of the first window", signed=True)
    x0: int = _f(18, "Byte of the first window in its row", signed=True)
    in_h: int = _f(12, "Input rows there are")
    row_bytes: int = _f(17, "Bytes of an input row there are")
    row_pitch: int = _f(17, "Bytes from input row to input row (JOINED: 2 lines, modulo 4 lines)")
    out_w: int = _f(12, "Outputs of a row", least=1)
    out_h: int = _f(12, "Output rows of the command", least=1)
    tile_rows: int = _f(12, "Output rows of a tile; tile_rows * out_w <= acc_depth", least=1)
    row_len: int = _f(12, "Positions streamed for a row (WINDOW, JOINED: out_w)", least=1)
    extra: int = _f(4, "Positions streamed after the last row (WINDOW, JOINED: 0)")
    stride_x: int = _f(4, "Positions from output to output (WINDOW, JOINED: 1)", least=1)
    stride_y: int = _f(4, "Input rows from output row to output row, for the bounds")
    step_x: int = _f(17, "Bytes from position to position")
    step_y: int = _f(20, "Bytes from output row to output row (modulo 2^20)")
    n_ky: int = _f(8, "Passes over kernel rows (JOINED: 1)", least=1)
    ky_rows: int = _f(4, "Input rows from ky to ky, for the bounds (ROWS: kernel rows of a pass)")
    step_ky: int = _f(
        20, "Bytes from ky to ky (modulo 2^20; JOINED: from kernel row to kernel row)"
    )
    n_kx: int = _f(8, "Passes along a kernel row (JOINED: 1)", least=1)
    step_kx: int = _f(18, "Bytes from kx to kx (JOINED: of a kernel row)")
    n_ic: int = _f(12, "Passes over input channels (JOINED: over all bytes)", least=1)
    step_ic: int = _f(17, "Bytes from ic to ic")
    n_oc: int = _f(12, "Tiles of output channels", least=1)
    step_oc: int = _f(17, "Bytes from oc to oc (depthwise: one line; else 0)")
    wgt_addr: int = _f(16, "Line of the first weight", multiple_of=2)


@dataclass(frozen=True, kw_only=True)
class Vector(Command):
    """Run the vector engine over a tensor or over the accumulator tiles of one `Conv`.

    Addresses and strides are in lines. Loops, outermost first::

        for oc in range(n_oc):          # a, b and d advance one line
          for y in range(out_h):        # after every tile_rows rows (REQUANT*): next acc half
            for x in range(out_w):
              for ky in range(n_ky), kx in range(n_kx):     # AVERAGE, MAX: the window
                a = A[a_addr + oc + y*a_y + x*a_x + ky*a_ky + kx*a_kx]
              D[d_addr + oc + y*d_y + x*d_x] = op(a, B[b_addr + oc + y*b_y + x*b_x])

    REQUANT and REQUANT_ADD read A from the accumulator instead, and take a parameter block
    (bias, multiplier, shift of `cols` channels) at param_addr + 9*oc. With `shared` (REQUANT only)
    every channel has the multiplier mult_a and the right shift shift_a, and a block is the 4 lines
    of the biases.

    With `pair` MAX takes the greater of a and b instead of a window's, with `least` the lesser.
    With `b_oc` B has one channel for all: b is byte 0 of its line, and B does not advance with oc.

    MUL multiplies a, less zero_a and shifted left by 20 bits, by what B is rescaled to, and keeps
    the product's bits 31 and up, less shift_a more. So with mult_b = 2^30 and
    shift_b = 8 - k, k from 0 to 8, mult_o and shift_o rescale the integer product times 2^k.
    """

    OPCODE = Opcode.VECTOR
    SUMMARY = "vector operation, accumulator or activation SRAM to activation SRAM"

    op: int = _f(3, "What is done", enum=VectorOp)
    rounding: int = _f(1, "Rounding of REQUANT", enum=Rounding)
    shared: int = _f(1, "One multiplier and shift for all channels: mult_a, shift_a (REQUANT)")
    n_oc: int = _f(12, "Channel tiles", least=1)
    out_h: int = _f(12, "Rows", least=1)
    out_w: int = _f(12, "Vectors of a row", least=1)
    tile_rows: int = _f(12, "Rows of an accumulator tile (REQUANT*: at least 1)")
    n_ky: int = _f(8, "Window rows (AVERAGE, MAX; else 1)", default=1, least=1)
    n_kx: int = _f(8, "Window columns (AVERAGE, MAX; else 1)", default=1, least=1)
    a_addr: int = _f(16, "First line of A")
    a_y: int = _f(16, "Lines from row to row of A")
    a_x: int = _f(12, "Lines from vector to vector of A")
    a_ky: int = _f(16, "Lines from window row to window row of A")
    a_kx: int = _f(12, "Lines from window column to window column of A")
    b_addr: int = _f(16, "First line of B (ADD*, MUL, SQUARED_DIFFERENCE, `pair`)")
    b_y: int = _f(16, "Lines from row to row of B")
    b_x: int = _f(12, "Lines from vector to vector of B")
    d_addr: int = _f(16, "First line of D")
    d_y: int = _f(16, "Lines from row to row of D")
    d_x: int = _f(12, "Lines from vector to vector of D")
    param_addr: int = _f(14, "Line of the first parameter block (REQUANT*)")
    zero_a: int = _f(8, "Zero point of A, of the requantised value (REQUANT*)", signed=True)
    zero_b: int = _f(8, "Zero point of B", signed=True)
    zero_out: int = _f(8, "Zero point of D (where there is a B, but for `pair`)", signed=True)
    mid_min: int = _f(8, "Least requantised value (REQUANT_ADD, before the ADD)", signed=True)
    mid_max: int = _f(8, "Greatest requantised value (REQUANT_ADD)", signed=True)
    act_min: int = _f(8, "Least value of D", signed=True)
    act_max: int = _f(8, "Greatest value of D", signed=True)
    mult_a: int = _f(32, "Q31 multiplier of A (ADD*, SQUARED_DIFFERENCE)", signed=True)
    shift_a: int = _f(5, "Right shift of A")
    mult_b: int = _f(32, "Q31 multiplier of B (ADD*, MUL, SQUARED_DIFFERENCE)", signed=True)
    shift_b: int = _f(5, "Right shift of B")
    mult_o: int = _f(
        32,
        "Q31 multiplier of the sum (ADD*), of the product or square, of the window sum (AVERAGE)",
        signed=True,
    )
    shift_o: int = _f(5, "Right shift of what mult_o multiplies")
    half: int = _f(
        16,
        "Added to the window sum's magnitude (AVERAGE): half the window's size; the result is"
        " defined below n_ky * n_kx",
    )
    least: int = _f(1, "The least value, not the greatest (MAX)")
    pair: int = _f(1, "Of a and b, not of a window (MAX)")
    b_oc: int = _f(1, "B has one channel for all (where there is a B)")

    @property
    def reads_acc(self) -> bool:
        """Whether the command empties accumulator tiles."""
        return VectorOp(self.op).reads_acc

    @property
    def has_b(self) -> bool:
        """Whether there is a second tensor."""
        return VectorOp(self.op).has_b or bool(self.pair)

    @property
    def beats(self) -> int:
        """Cycles of the engine for every `lanes` elements, or for each of their window."""
        return 2 if self.pair else VectorOp(self.op).beats

    @property
    def block_lines(self) -> int:
        """Lines of a parameter block of this command."""
        return BIAS_LINES if self.shared else BLOCK_LINES


@dataclass(frozen=True, kw_only=True)
class Softmax(Command):
    """Softmax of `rows` vectors of `channels` int8, by the exponentials in TABLE.

    Entry d of the table (line d, bytes 0 to 3) is exp(-d * scale * beta) in Q0.31.
    """

    OPCODE = Opcode.SOFTMAX
    SUMMARY = "softmax, activation SRAM to activation SRAM"

    channels: int = _f(16, "Elements of a vector", least=1)
    n_rows: int = _f(12, "Vectors", least=1)
    a_addr: int = _f(16, "Line of the first vector")
    a_y: int = _f(16, "Lines from vector to vector")
    d_addr: int = _f(16, "Line of the first result")
    d_y: int = _f(16, "Lines from result to result")


COMMANDS: dict[int, type[Command]] = {
    kind.OPCODE: kind for kind in (End, Load, Store, Conv, Vector, Softmax)
}
"""Every kind of command, by opcode."""


def disassemble(data: bytes) -> list[Command]:
    """Return the commands in `data`, up to and including the first `End`.

    Raises
    ------
    IsaError
        Naming the index of the command that cannot be decoded.
    """
    commands = []
    for index in range(len(data) // COMMAND_BYTES):
        try:
            command = Command.decode(data[index * COMMAND_BYTES : (index + 1) * COMMAND_BYTES])
        except IsaError as error:
            raise IsaError(f"command {index}", error.cause, error.remedy) from None
        commands.append(command)
        if isinstance(command, End):
            return commands
    raise IsaError("the command stream", "it has no End", _REMEDY)
