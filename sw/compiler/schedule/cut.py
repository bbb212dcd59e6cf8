"""Cuts commands whose counts or distances exceed their fields into several commands.

A layer's command counts rows, columns, channel tiles or runs of bytes, and a field has room for so
many. The parts of a command do what it would do, in its order, and touch what it would touch.
Only convolutions, whose parts share accumulator tiles with other commands, are cut where they are
made (`celosia.sw.compiler.schedule.blocks`, `pieces`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import singledispatch

from celosia.hw.contract.isa import ADDRESS_MASK, Command, Softmax, Transfer, Vector, VectorOp
from celosia.sw.compiler.arithmetic.whole import split
from celosia.sw.compiler.place.limits import field_limit, most
from celosia.sw.compiler.steps import Step

__all__ = ["cut_steps"]

RUN_BYTES = 1 << 19
"""A longer run is cut here: a multiple of every bus word."""
FAR = 1 << 23
"""Distances in memory that no field has room for, either way."""


def cut_steps(steps: Iterable[Step]) -> list[Step]:
    """Return the steps with every command that is too large for its fields as several.

    Parameters
    ----------
    steps : iterable of Step
        In program order. What cannot be cut stays as it is, for `encode_commands` to refuse.
    """
    done: list[Step] = []
    for step in steps:
        if not field_limit(step.command):
            done.append(step)
            continue
        done += [replace(step, command=part) for part in _parts(step.command)]
    return done


@singledispatch
def _parts(command: Command) -> Iterator[Command]:
    yield command


def _transfer_parts(command: Transfer) -> Iterator[Command]:
    """Runs, and turns of the two loops; either loop may be the inner one."""
    inner = (command.n1, command.mem_stride1, command.sram_stride1)
    outer = (command.n2, command.mem_stride2, command.sram_stride2)
    most_inner, most_outer = most(Transfer, "n1"), most(Transfer, "n2")
    if outer[0] > most_outer and inner[0] <= most_outer:
        inner, outer = outer, inner
    # Turns that are too far apart are one command each.
    turns = [
        1 if not -FAR <= loop[1] < FAR else limit
        for loop, limit in ((inner, most_inner), (outer, most_outer))
    ]
    run = min(command.row_bytes, RUN_BYTES)
    for begin, stop in split(command.row_bytes, run):
        for first2, end2 in split(outer[0], turns[1]):
            for first1, end1 in split(inner[0], turns[0]):
                memory = command.mem_addr + begin + first1 * inner[1] + first2 * outer[1]
                chip = command.sram_addr + begin + first1 * inner[2] + first2 * outer[2]
                yield replace(
                    command,
                    mem_addr=memory,
                    sram_addr=chip & ADDRESS_MASK,
                    row_bytes=stop - begin,
                    n1=end1 - first1,
                    mem_stride1=inner[1] if end1 - first1 > 1 else 0,
                    sram_stride1=inner[2] & ADDRESS_MASK if end1 - first1 > 1 else 0,
                    n2=end2 - first2,
                    mem_stride2=outer[1] if end2 - first2 > 1 else 0,
                    sram_stride2=outer[2] & ADDRESS_MASK if end2 - first2 > 1 else 0,
                )


def _vector_parts(command: Vector) -> Iterator[Command]:
    """Channel tiles, rows and columns; rows have room for longer distances than columns."""
    if command.reads_acc:
        yield command
        return
    operands = ("a", "b", "d")
    steps_y = {name: int(getattr(command, f"{name}_y")) for name in operands}
    steps_x = {name: int(getattr(command, f"{name}_x")) for name in operands}
    height, width = command.out_h, command.out_w
    far_x = most(Vector, "a_x")
    if (
        max(steps_x.values()) > far_x
        and width > 1
        and (height == 1 or max(steps_y.values()) <= far_x)
    ):
        height, width, steps_y, steps_x = width, height, steps_x, steps_y
    columns = most(Vector, "out_w") if max(steps_x.values()) <= far_x else 1
    rows = most(Vector, "out_h") if max(steps_y.values()) <= most(Vector, "a_y") else 1
    window = _window_fields(command)
    for oc, oc_end in split(command.n_oc, most(Vector, "n_oc")):
        for y, y_end in split(height, rows):
            for x, x_end in split(width, columns):
                moved: dict[str, int] = {}
                for name in operands if VectorOp(command.op).has_b else ("a", "d"):
                    address = int(getattr(command, f"{name}_addr"))
                    moved[f"{name}_addr"] = address + oc + y * steps_y[name] + x * steps_x[name]
                for name in operands:
                    moved[f"{name}_y"] = steps_y[name] if y_end - y > 1 else 0
                    moved[f"{name}_x"] = steps_x[name] if x_end - x > 1 else 0
                yield replace(
                    command,
                    n_oc=oc_end - oc,
                    out_h=y_end - y,
                    out_w=x_end - x,
                    **moved,
                    **window,
                )


def _window_fields(command: Vector) -> dict[str, int]:
    """The window's loops, with the longer distance where there is more room for it."""
    loops = [(command.n_ky, command.a_ky), (command.n_kx, command.a_kx)]
    loops = [(count, step if count > 1 else 0) for count, step in loops]
    if loops[1][1] > most(Vector, "a_kx"):
        loops.reverse()
    (n_ky, a_ky), (n_kx, a_kx) = loops
    return {"n_ky": n_ky, "a_ky": a_ky, "n_kx": n_kx, "a_kx": a_kx}


def _softmax_parts(command: Softmax) -> Iterator[Command]:
    for first, end in split(command.n_rows, most(Softmax, "n_rows")):
        yield replace(
            command,
            n_rows=end - first,
            a_addr=command.a_addr + first * command.a_y,
            d_addr=command.d_addr + first * command.d_y,
        )


_parts.register(Transfer, _transfer_parts)
_parts.register(Vector, _vector_parts)
_parts.register(Softmax, _softmax_parts)
