"""How many multipliers an NPU takes, and what is made of tables where an FPGA has too few."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celosia.boards.fpga.flows import Flow
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.operations import Operation
from celosia.hw.contract.parts import Part

if TYPE_CHECKING:
    from celosia.hw.array.products import TableRows

__all__ = ["multipliers_of", "table_rows", "table_rows_of"]

FIRMWARE_MULTIPLIERS = 4
LANE_MULTIPLIERS = 4
SOFTMAX_MULTIPLIERS = 4


def multipliers_of(config: NpuConfig, flow: Flow, available: int | None = None) -> int:
    """Return the multipliers that an NPU takes, known before synthesis.

    With firmware: one for each column of the array, and one of 32 x 32 bits. Else one for each cell
    of the array; for each lane of the vector engine, and for softmax where it has one of its own,
    four of 18 x 18 bits that make one of 32 x 32.

    Parameters
    ----------
    config : NpuConfig
    flow : Flow
        Of the FPGA's family.
    available : int, optional
        What the FPGA has: those that are tables instead are not counted.
    """
    small, large = flow.multiplier_sizes
    if config.firmware:
        return small * config.macs_per_cycle + large * FIRMWARE_MULTIPLIERS
    wide = LANE_MULTIPLIERS * config.vector_lanes
    if config.can(Operation.SOFTMAX) and Part.LENT_SOFTMAX not in config.parts:
        wide += SOFTMAX_MULTIPLIERS
    in_tables = 0 if available is None else table_rows_of(config, flow, available)
    return small * config.cols * (config.rows - in_tables) + large * wide


def table_rows_of(config: NpuConfig, flow: Flow, available: int) -> int:
    """Return how many rows of the array must be made of tables, as there are too few multipliers.

    None where the family has no adder for them: there its tools say what is lacking.
    """
    if config.firmware or flow.adder is None:
        return 0
    missing = max(0, multipliers_of(config, flow) - available)
    return min(config.rows, -(-missing // (flow.multiplier_sizes[0] * config.cols)))


def table_rows(config: NpuConfig, flow: Flow, available: int) -> TableRows:
    """Return what an NPU is to be made with on an FPGA with so many multipliers."""
    from celosia.hw.array import products

    if flow.adder is None:
        return products.NO_TABLES
    return products.TableRows(table_rows_of(config, flow, available), flow.adder())
