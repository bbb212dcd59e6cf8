"""The columns of the firmware machine's array: a multiplier and an accumulator each."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import ACC_HALVES
from celosia.hw.fabric.block import BlockMemory

__all__ = ["BYTE_BITS", "WORD_BITS", "Columns", "vectors_of"]

WORD_BITS = 32
BYTE_BITS = 8


def vectors_of(config: NpuConfig) -> int:
    """Return the vectors of the accumulator, both halves."""
    return ACC_HALVES * config.acc_depth


class Columns(Component):
    """Adds the products of a window with a row of weights to a vector of the accumulator.

    A window a cycle. No vector may come again within three cycles, nor may `weights`, `overwrites`
    and what says how bytes are taken change that soon after a window.

    Parameters
    ----------
    config : NpuConfig
        ``cols`` columns.

    Members
    -------
    valid : In(1)
        There is a window; its bytes are in `local_data` in the next cycle.
    vector : In
        Where its products go.
    inside : In(1)
        Its bytes exist; else they are all `zero_point`.
    lane : In
        Which byte of the word, with `same_byte`.
    same_byte : In(1)
        All columns get that one; else each its own.
    zero_point : In(8)
    overwrites : In(1)
        The products take the place of what was there.
    weights : In(32)
        A byte for each column.
    local_data : In(32)
    read_column, read_vector : In
        The sum to be read, while no window is under way.
    sum : Out(32)
        That sum, two cycles later.
    """

    def __init__(self, config: NpuConfig) -> None:
        self._config = config
        vectors = range(vectors_of(config))
        super().__init__(
            {
                "valid": In(1),
                "vector": In(vectors),
                "inside": In(1),
                "lane": In(range(config.line_bytes)),
                "same_byte": In(1),
                "zero_point": In(BYTE_BITS),
                "overwrites": In(1),
                "weights": In(WORD_BITS),
                "local_data": In(WORD_BITS),
                "read_column": In(range(config.cols)),
                "read_vector": In(vectors),
                "sum": Out(WORD_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # Local memory answers in the next cycle; what else is known of a window goes along.
        lane, inside, valid = Signal.like(self.lane), Signal(), Signal()
        vector = Signal.like(self.vector)
        multiplied, target = Signal(), Signal.like(self.vector)
        m.d.sync += [
            valid.eq(self.valid),
            inside.eq(self.inside),
            lane.eq(self.lane),
            vector.eq(self.vector),
            multiplied.eq(valid),
            target.eq(vector),
        ]
        byte = self.local_data.word_select(lane, BYTE_BITS)
        for column in range(self._config.cols):
            memory = BlockMemory(width_bits=WORD_BITS, depth=vectors_of(self._config))
            m.submodules[f"sums_{column}"] = memory
            value = Signal(signed(BYTE_BITS), name=f"value_{column}")
            product = Signal(signed(2 * BYTE_BITS), name=f"product_{column}")
            own = self.local_data.word_select(column, BYTE_BITS)
            weight = self.weights.word_select(column, BYTE_BITS).as_signed()
            m.d.comb += value.eq(Mux(inside, Mux(self.same_byte, byte, own), self.zero_point))
            m.d.sync += product.eq(value * weight)
            # The sum so far is read while the product is formed.
            m.d.comb += [
                memory.read_addr.eq(Mux(valid, vector, self.read_vector)),
                memory.write_addr.eq(target),
                memory.write_en.eq(multiplied),
                memory.write_data.eq(Mux(self.overwrites, 0, memory.read_data) + product),
            ]
            with m.If(self.read_column == column):
                m.d.comb += self.sum.eq(memory.read_data)
        return m
