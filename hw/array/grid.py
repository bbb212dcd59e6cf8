"""The systolic array itself: N x N multipliers, weight-stationary."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib.data import ArrayLayout
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.array.products import NO_TABLES, TableProduct, TableRows
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Mode
from celosia.hw.fabric.delay import delays, memory_delay
from celosia.hw.memory.act import SEGMENTS
from celosia.hw.memory.ports import LINES_A_CYCLE

__all__ = [
    "DirectWeights",
    "MemorySkew",
    "RegisterSkew",
    "RegisteredProducts",
    "ShadowWeights",
    "SystolicArray",
    "WiredProducts",
    "segment_of_row",
]

TAPS_A_SEGMENT = 3

MEMORY_FROM_CYCLES = 3
"""Delay from which on a memory takes less room than registers."""


def segment_of_row(row: int, segments: int) -> int:
    """Return the kernel row (segment) that an array row belongs to in mode ROWS."""
    return min(row // TAPS_A_SEGMENT, segments - 1)


class ShadowWeights:
    """Each cell has a second weight, which is loaded while the wave before runs down the rows."""

    @staticmethod
    def following(m: Module, grid: SystolicArray, row: int, column: int) -> Value:
        """Return the weight that a cell takes over with the next `swap`."""
        shadow = Signal(signed(8), name=f"shadow_{row}_{column}", reset_less=True)
        with m.If(grid.load_en & (grid.load_pair == row // LINES_A_CYCLE)):
            m.d.sync += shadow.eq(grid.load_data[row % LINES_A_CYCLE][column])
        return shadow


class DirectWeights:
    """A cell takes its weight from ``load_data`` in the cycle of ``swap``."""

    @staticmethod
    def following(m: Module, grid: SystolicArray, row: int, column: int) -> Value:
        """Return the weight that a cell takes over with the next `swap`."""
        weight: Value = grid.load_data[row % LINES_A_CYCLE][column]
        return weight


class RegisteredProducts:
    """A register behind each multiplier: it is far to one and back."""

    CYCLES = 1

    @staticmethod
    def show(m: Module, product: Signal, value: Value) -> None:
        """Drive `product` with what the multiplier gives."""
        m.d.sync += product.eq(value)


class WiredProducts:
    """A product is added in the cycle in which it is made."""

    CYCLES = 0

    @staticmethod
    def show(m: Module, product: Signal, value: Value) -> None:
        """Drive `product` with what the multiplier gives."""
        m.d.comb += product.eq(value)


class RegisterSkew:
    """Byte r of a window waits for its row in r registers."""

    @staticmethod
    def late(m: Module, byte: Value, cycles: int, name: str) -> Value:
        """Return `byte` that many cycles later."""
        late: Value = delays(m, byte, cycles, name=name, reset_less=True)[-1]
        return late


class MemorySkew(RegisterSkew):
    """What waits for longer does so in a memory."""

    @staticmethod
    def late(m: Module, byte: Value, cycles: int, name: str) -> Value:
        """Return `byte` that many cycles later."""
        if cycles < MEMORY_FROM_CYCLES:
            return RegisterSkew.late(m, byte, cycles, name)
        late: Value = memory_delay(m, byte, cycles, name=name)
        return late


class SystolicArray(Component):
    """N x N multipliers; partial sums move down one row a cycle.

    ::

        window byte r --> [delay r] --.
                                       mux --> [ ] --> x --> [ ] --> + --> partial sum of row r
        pixel of column c (segment) --'                |             ^
                                             weight r,c              partial sum of row r - 1

    A wave enters with its window (or pixels) and is in row r's operands 1 + r cycles later. They
    are registers of each cell, as are the products: it is far to a multiplier and back, and the
    netlist that Yosys 0.70 makes for an iCE40 of products without them adds up other sums. The
    wave's sums are on ``sums`` :attr:`latency_cycles` cycles after it entered. ``swap`` makes the
    rows take over their shadow weights as the wave reaches them.

    With :class:`DirectWeights` and :class:`WiredProducts` the weights may go into the registers
    that a Gowin FPGA's multipliers have inside: those have one clock enable for all of a
    multiplier, and nothing else in a cell waits for ``swap``. (Its 16 multipliers at least are more
    than any iCE40 has.)

    Parameters
    ----------
    config : NpuConfig
    weights : type of ShadowWeights or DirectWeights
    products : type of RegisteredProducts or WiredProducts
    skew : type of RegisterSkew or MemorySkew
    tables : TableRows
        Rows without multipliers.

    Members
    -------
    swap : In(1)
        This wave is the first of a pass.
    mode : In(2)
        :class:`celosia.hw.contract.isa.Mode` of this wave.
    window : In(N x signed(8))
        Mode WINDOW: byte r goes to row r.
    pixels : In(3 x N x signed(8))
        Other modes: byte c of segment s's pixel goes to column c.
    load_en, load_pair, load_data : In
        Writes two rows of shadow weights, 2 * load_pair and the one below. Without them the rows
        take `load_data` as they need it, and nothing else is looked at.
    sums : Out(N x signed)
        Sum of each column.
    """

    def __init__(
        self,
        config: NpuConfig,
        *,
        weights: type[ShadowWeights | DirectWeights] = ShadowWeights,
        products: type[RegisteredProducts | WiredProducts] = RegisteredProducts,
        skew: type[RegisterSkew] = RegisterSkew,
        tables: TableRows = NO_TABLES,
    ) -> None:
        self._config = config
        self._tables = tables
        self._weights, self._products, self._skew = weights, products, skew
        size = config.rows
        self._sum_bits = 16 + (size - 1).bit_length()
        super().__init__(
            {
                "swap": In(1),
                "mode": In(2),
                "window": In(ArrayLayout(signed(8), size)),
                "pixels": In(ArrayLayout(ArrayLayout(signed(8), size), SEGMENTS)),
                "load_en": In(1),
                "load_pair": In(range(size // LINES_A_CYCLE)),
                "load_data": In(ArrayLayout(ArrayLayout(signed(8), size), LINES_A_CYCLE)),
                "sums": Out(ArrayLayout(signed(self._sum_bits), size)),
            }
        )

    @property
    def latency_cycles(self) -> int:
        """Cycles from a wave's entry to its sums."""
        return self._config.rows + 1 + self._products.CYCLES

    def elaborate(self, platform: object) -> Module:
        m = Module()
        size = self._config.rows
        segments = max(1, self._config.dw_segments)
        buses = self._column_buses(m, segments)
        windows = self._skewed_windows(m)
        # Control runs down the rows with the wave.
        swap, window_mode = self.swap, Signal()
        m.d.comb += window_mode.eq(self.mode == Mode.WINDOW)
        above: list[Signal] = []
        for r in range(size):
            row_mode = Signal(name=f"row_mode_{r}")
            row_swap = Signal(name=f"row_swap_{r}")
            if r:
                m.d.sync += [row_mode.eq(window_mode), row_swap.eq(swap)]
            else:
                m.d.comb += [row_mode.eq(window_mode), row_swap.eq(swap)]
            window_mode, swap = row_mode, row_swap
            sums = []
            for c in range(size):
                weight = Signal(signed(8), name=f"weight_{r}_{c}", reset_less=True)
                operand = Signal(signed(8), name=f"operand_{r}_{c}", reset_less=True)
                total = Signal(signed(self._sum_bits), name=f"sum_{r}_{c}", reset_less=True)
                product = Signal(signed(16), name=f"product_{r}_{c}", reset_less=True)
                if self._tables.has(r, size):
                    value = self._in_tables(m, operand, weight, f"table_product_{r}_{c}")
                else:
                    value = operand * weight
                self._products.show(m, product, value)
                following = self._weights.following(m, self, r, c)
                with m.If(row_swap):
                    m.d.sync += weight.eq(following)
                bus = buses[segment_of_row(r, segments)][c]
                m.d.sync += [
                    operand.eq(Mux(row_mode, windows[r], bus)),
                    total.eq(product + above[c] if r else product),
                ]
                sums.append(total)
            above = sums
        m.d.comb += Cat(self.sums.as_value()).eq(Cat(above))
        return m

    def _in_tables(self, m: Module, operand: Value, weight: Value, name: str) -> Value:
        m.submodules[name] = cell = TableProduct(self._tables.adder)
        m.d.comb += [cell.a.eq(operand), cell.b.eq(weight)]
        product: Value = cell.product
        return product

    def _skewed_windows(self, m: Module) -> list[Value]:
        """Delay byte r of the window by r cycles."""
        return [
            self._skew.late(m, self.window[r], r, f"window_{r}") for r in range(self._config.rows)
        ]

    def _column_buses(self, m: Module, segments: int) -> list[list[Value]]:
        """Give each segment its pixel: its own, three cycles a segment late, or the first one."""
        size = self._config.rows
        buses = []
        rows_mode = Signal()
        m.d.comb += rows_mode.eq(self.mode == Mode.ROWS)
        for s in range(segments):
            pixel: Value = self.pixels[s].as_value()
            if s:
                for stage in range(TAPS_A_SEGMENT):
                    late_mode = Signal(name=f"rows_mode_{s}_{stage}")
                    m.d.sync += late_mode.eq(rows_mode)
                    rows_mode = late_mode
                cycles = TAPS_A_SEGMENT * s
                pixel = self._skew.late(m, pixel, cycles, f"pixel_{s}")
                pixel = Mux(rows_mode, pixel, self.pixels[0].as_value())
            buses.append([pixel.word_select(c, 8).as_signed() for c in range(size)])
        return buses
