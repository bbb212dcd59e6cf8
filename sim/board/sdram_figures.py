"""What the SDRAM controller takes for its work, measured on Amaranth's simulator.

``python -m celosia.sim.board.sdram_figures`` prints them; ``--json FILE`` writes those that
docs/sdram.md cites.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from amaranth.sim import Simulator
from celosia.hw.contract.config import PRESETS
from celosia.hw.system.sdram import SdramController
from celosia.hw.system.sdram_timing import SDRAM_CHIPS, SdramChip
from celosia.sim.board.sdram_model import SdramModel

__all__ = ["Answer", "Request", "figures", "main", "run", "transfer"]

SHORT_POWER_UP_US = 1.0
LIMIT_CYCLES = 200_000


@dataclass(frozen=True)
class Request:
    """One word: where (word address), what to write (None: read), which bytes (None: all)."""

    adr: int
    data: int | None = None
    sel: int | None = None


@dataclass(frozen=True)
class Answer:
    """Whether it was refused, what was read, cycles at which it was asked for and answered."""

    err: bool
    data: int
    asked: int
    cycle: int


async def transfer(
    ctx: Any, bus: Any, requests: Sequence[Request], *, most_in_flight: int = 16
) -> list[Answer]:
    """Do all requests in one cycle period of the bus, as fast as it takes them."""
    waiting, in_flight = deque(requests), deque[int]()
    answers: list[Answer] = []
    cycle = 0
    ctx.set(bus.cyc, 1)
    while waiting or in_flight:
        asks = bool(waiting) and len(in_flight) < most_in_flight
        ctx.set(bus.stb, asks)
        if asks:
            request = waiting[0]
            ctx.set(bus.adr, request.adr)
            ctx.set(bus.we, request.data is not None)
            ctx.set(bus.dat_w, request.data or 0)
            ctx.set(bus.sel, -1 if request.sel is None else request.sel)
        _, _, stall, ack, err, data = await ctx.tick().sample(
            bus.stall, bus.ack, bus.err, bus.dat_r
        )
        assert not (ack and err)
        if ack or err:
            answers.append(Answer(bool(err), data, in_flight.popleft(), cycle))
        if asks and not stall:
            waiting.popleft()
            in_flight.append(cycle)
        cycle += 1
    ctx.set(bus.stb, 0)
    ctx.set(bus.cyc, 0)
    await ctx.tick()
    return answers


def run(
    dut: Any,
    bench: Callable[[Any], Coroutine[Any, Any, None]],
    *processes: Callable[[Any], Coroutine[Any, Any, None]],
    clock_hz: float,
) -> None:
    """Simulate `dut` until `bench` is through.

    Raises
    ------
    AssertionError
        If it is not after :data:`LIMIT_CYCLES`.
    """
    simulator = Simulator(dut)
    simulator.add_clock(1 / clock_hz)
    finished: list[bool] = []

    async def main_bench(ctx: Any) -> None:
        await bench(ctx)
        finished.append(True)

    simulator.add_testbench(main_bench)
    for process in processes:
        simulator.add_process(process)
    step_cycles = 64
    for end in range(step_cycles, LIMIT_CYCLES, step_cycles):
        simulator.run_until(end / clock_hz)
        if finished:
            return
    raise AssertionError(f"not through after {LIMIT_CYCLES} cycles")


def quick(chip: SdramChip) -> SdramChip:
    """Return the chip with hardly any power-up pause."""
    return replace(chip, timing=replace(chip.timing, power_up_us=SHORT_POWER_UP_US))


def figures(
    chip: SdramChip, *, clock_hz: float, bus_bits: int, words: int = 1024, reads: int = 200
) -> dict[str, float]:
    """Measure a controller; every command is checked by the chip's model.

    Returns
    -------
    dict of str to float
        ``write`` and ``read``: cycles per word of `words` successive words, refreshes included.
        ``open``, ``closed``, ``conflict``: cycles from a request to its answer, by what its bank
        was in. ``latency`` and ``latency max``: the same of single reads all over the memory.
        ``random``: cycles per word of such reads, 16 in flight.
    """
    config = replace(PRESETS["large"], bus_bits=bus_bits)
    chip = quick(chip)
    dut = SdramController(config, chip=chip, clock_hz=clock_hz)
    model = SdramModel(chip, clock_hz)
    rng = random.Random(1)
    found: dict[str, float] = {}
    row_words = 16 * chip.columns // bus_bits
    total = 8 * chip.memory_bytes // bus_bits

    async def bench(ctx: Any) -> None:
        bus = dut.bus
        await transfer(ctx, bus, [Request(0)])
        for name in ("write", "read"):
            data = rng.getrandbits(bus_bits) if name == "write" else None
            answers = await transfer(ctx, bus, [Request(adr, data) for adr in range(words)])
            found[name] = (answers[-1].cycle - answers[0].cycle) / (words - 1)

        async def one(adr: int) -> int:
            answer = (await transfer(ctx, bus, [Request(adr)]))[0]
            return answer.cycle - answer.asked

        refreshes = model.counts["REFRESH"]
        while model.counts["REFRESH"] == refreshes:
            await ctx.tick()
        for _ in range(chip.cycles(clock_hz).rfc):
            await ctx.tick()
        found["closed"] = await one(0)
        found["open"] = await one(1)
        found["conflict"] = await one(chip.banks * row_words)
        latencies = [await one(rng.randrange(total)) for _ in range(reads)]
        found["latency"] = sum(latencies) / reads
        found["latency max"] = max(latencies)
        answers = await transfer(ctx, bus, [Request(rng.randrange(total)) for _ in range(reads)])
        found["random"] = (answers[-1].cycle - answers[0].cycle) / (reads - 1)

    run(dut, bench, model.process(dut.pins), clock_hz=clock_hz)
    return found


def main() -> None:
    """Print a line for each width of the bus."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chip", default="W9825G6KH-6", choices=SDRAM_CHIPS)
    parser.add_argument("--clock", type=float, nargs="+", default=[25.0, 80.0, 100.0], help="MHz")
    parser.add_argument("--bus", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    first = True
    entries = []
    for clock_mhz in options.clock:
        for bus_bits in options.bus:
            found = figures(SDRAM_CHIPS[options.chip], clock_hz=clock_mhz * 1e6, bus_bits=bus_bits)
            if first:
                print("MHz bus_bits", *(name.replace(" ", "_") for name in found))
                first = False
            print(f"{clock_mhz:g} {bus_bits}", *(f"{value:.2f}" for value in found.values()))
            rounded = {name: round(value, 3) for name, value in found.items()}
            entries.append({"clock_mhz": clock_mhz, "bus_bits": bus_bits, **rounded})
    if options.json:
        content = {"chip": options.chip, "cycles": entries}
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
