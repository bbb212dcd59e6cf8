"""The RTL simulator: building and caching it, the clock loop, the memory model.

The device under test is a small component with the ports of the NPU: a bus initiator that reads
`count` words from `base` and sums them, or writes them, behind a few registers.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("amaranth", reason="needs the gateware language: pip install celosia[sim]")

from amaranth.hdl import Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from celosia import toolchain
from celosia.errors import DeviceError
from celosia.sim.rtl import verilator
from celosia.sim.rtl.rtl import MemoryModel, RtlSimulator
from celosia.toolchain import BuildError

from tests.kit.tools import needs_simulator, skip_without_simulator

IDENTITY, BASE, COUNT, START, SUM, DONE, ERRORS, CYCLES, FIRST = (4 * i for i in range(9))
SILENT = 4 * 15
READ, WRITE, HALF_WRITE = 1, 2, 3
MEMORY_BYTES = 64 * 1024
CYCLES_LIMIT = 20_000


class Probe(wiring.Component):
    """Registers (word addresses): identity, base word, count, start (1 read, 2 write, 3 write the
    lower half of each word), sum, done (write clears), answers with err, cycles of the last run,
    cycles to its first answer. Register 15 does not answer."""

    def __init__(self, bus_bits: int) -> None:
        self.bus_bits = bus_bits
        self.bus_bytes = bus_bits // 8
        adr_bits = 32 - (self.bus_bytes.bit_length() - 1)
        super().__init__(
            {
                "csr": In(_wishbone(32, 8)),
                "bus": Out(_wishbone(bus_bits, adr_bits)),
                "irq": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        csr, bus = self.csr, self.bus
        base, count, mode = Signal(32), Signal(16), Signal(2)
        sent, answered, errors = Signal(16), Signal(16), Signal(16)
        total, cycles, first, done = Signal(32), Signal(32), Signal(32), Signal()
        running = Signal()
        access = csr.cyc & csr.stb
        values = [Const(0x50524F42, 32), base, count, running, total, done, errors, cycles, first]
        m.d.sync += csr.ack.eq(access & (csr.adr != SILENT // 4))
        with m.Switch(csr.adr):
            for index, value in enumerate(values):
                with m.Case(index):
                    m.d.sync += csr.dat_r.eq(value)
        with m.If(access & csr.we):
            with m.Switch(csr.adr):
                with m.Case(BASE // 4):
                    m.d.sync += base.eq(csr.dat_w)
                with m.Case(COUNT // 4):
                    m.d.sync += count.eq(csr.dat_w)
                with m.Case(DONE // 4):
                    m.d.sync += done.eq(0)
        half = (1 << self.bus_bytes // 2) - 1
        m.d.comb += [
            bus.cyc.eq(running),
            bus.stb.eq(running & (sent != count)),
            bus.adr.eq(base + sent),
            bus.we.eq(mode != READ),
            bus.sel.eq(Mux(mode == HALF_WRITE, half, (1 << self.bus_bytes) - 1)),
            bus.dat_w.eq((sent + 1).replicate(1) * 0x0101_0101),
            self.irq.eq(done),
        ]
        with m.If(running):
            m.d.sync += cycles.eq(cycles + 1)
            with m.If(bus.stb & ~bus.stall):
                m.d.sync += sent.eq(sent + 1)
            with m.If(bus.ack | bus.err):
                m.d.sync += [
                    answered.eq(answered + 1),
                    errors.eq(errors + bus.err),
                    total.eq(total + Mux(bus.ack, bus.dat_r, 0)),
                ]
                with m.If(answered == 0):
                    m.d.sync += first.eq(cycles)
                with m.If(answered + 1 == count):
                    m.d.sync += [running.eq(0), done.eq(1)]
        with m.Elif(access & csr.we & (csr.adr == START // 4)):
            m.d.sync += [
                running.eq(1),
                mode.eq(csr.dat_w),
                *(s.eq(0) for s in (sent, answered, errors, total, cycles, first)),
            ]
        return m


def _wishbone(bits: int, adr_bits: int) -> wiring.Signature:
    return wiring.Signature(
        {
            "adr": Out(adr_bits),
            "dat_w": Out(bits),
            "dat_r": In(bits),
            "sel": Out(bits // 8),
            "cyc": Out(1),
            "stb": Out(1),
            "we": Out(1),
            "cti": Out(3),
            "bte": Out(2),
            "ack": In(1),
            "err": In(1),
            "stall": In(1),
        }
    )


def build(bits: int, **options: Any) -> verilator.Build:
    key = inspect.getsource(Probe) + inspect.getsource(_wishbone) + str(bits)
    return verilator.build_component(lambda: Probe(bits), key, **options)


@pytest.fixture(params=[32, 128])
def simulator(request: pytest.FixtureRequest) -> Iterator[RtlSimulator]:
    skip_without_simulator()
    with RtlSimulator(build(request.param), memory_bytes=MEMORY_BYTES) as device:
        yield device


def run(device: RtlSimulator, mode: int, word: int, count: int) -> int | None:
    """Start the probe and return the cycles to its interrupt."""
    device.write_csr(BASE, word)
    device.write_csr(COUNT, count)
    device.write_csr(START, mode)
    cycles = device.run_until_irq(CYCLES_LIMIT)
    if cycles is not None:
        device.write_csr(DONE, 0)
        assert not device.irq
    return cycles


def fill(device: RtlSimulator, seed: int = 7) -> np.ndarray[Any, np.dtype[np.uint32]]:
    """Fill memory with random bytes; return the low 32 bits of every bus word."""
    device.memory[:] = np.random.default_rng(seed).integers(0, 256, MEMORY_BYTES, np.uint8)
    return device.memory.reshape(-1, device.bus_bytes)[:, :4].copy().view("<u4")[:, 0]


def test_registers_and_reset(simulator: RtlSimulator) -> None:
    assert simulator.read_csr(IDENTITY) == 0x50524F42
    simulator.write_csr(BASE, 0xDEADBEEF)
    simulator.write_csr(COUNT, 77)
    assert (simulator.read_csr(BASE), simulator.read_csr(COUNT)) == (0xDEADBEEF, 77)
    simulator.memory[5] = 9
    simulator.reset()
    assert simulator.read_csr(BASE) == 0
    assert simulator.memory[5] == 9


def test_register_without_answer_is_an_error(simulator: RtlSimulator) -> None:
    with pytest.raises(DeviceError, match="0x3c: no answer within 1000 cycles"):
        simulator.read_csr(SILENT)
    assert simulator.read_csr(IDENTITY) == 0x50524F42


@pytest.mark.parametrize("latency", [1, 8, 100])
def test_latency_then_one_word_a_cycle(simulator: RtlSimulator, latency: int) -> None:
    words = fill(simulator)
    simulator.set_memory_model(MemoryModel(latency_cycles=latency))
    assert run(simulator, READ, 3, 50) is not None
    # Requests in cycles 0 to 49, so answers in cycles latency to latency + 49.
    assert simulator.read_csr(FIRST) == latency
    assert simulator.read_csr(CYCLES) == latency + 50
    assert simulator.read_csr(SUM) == int(words[3:53].sum(dtype=np.uint32))
    statistics = simulator.statistics
    assert (statistics.words_read, statistics.words_written, statistics.stalled) == (50, 0, 0)


@pytest.mark.parametrize("interval", [2, 4])
def test_a_word_every_few_cycles(simulator: RtlSimulator, interval: int) -> None:
    words = fill(simulator)
    simulator.set_memory_model(MemoryModel(latency_cycles=9, interval_cycles=interval))
    assert run(simulator, READ, 3, 50) is not None
    # Requests in cycles 0, interval, ... 49 x interval, answers 9 cycles later.
    assert simulator.read_csr(FIRST) == 9
    assert simulator.read_csr(CYCLES) == 9 + 49 * interval + 1
    assert simulator.read_csr(SUM) == int(words[3:53].sum(dtype=np.uint32))
    statistics = simulator.statistics
    assert (statistics.words_read, statistics.stalled) == (50, 49 * (interval - 1))


def test_stalls_and_delays_slow_down_but_change_nothing(simulator: RtlSimulator) -> None:
    words = fill(simulator)
    seen = []
    for seed in (1, 2, 1):
        simulator.set_memory_model(
            MemoryModel(stall_probability=0.4, delay_probability=0.3, seed=seed)
        )
        before = simulator.statistics.stalled
        assert run(simulator, READ, 100, 300) is not None
        assert simulator.read_csr(SUM) == int(words[100:400].sum(dtype=np.uint32))
        seen.append((simulator.read_csr(CYCLES), simulator.statistics.stalled - before))
    assert seen[0] == seen[2] != seen[1]
    # 300 requests at 60 % take about 500 cycles; answers at 70 % keep up with them.
    assert 440 < seen[0][0] < 600
    assert 140 < seen[0][1] < 270
    assert simulator.statistics.violations == 0


def test_writes_and_byte_selects(simulator: RtlSimulator) -> None:
    bus_bytes = simulator.bus_bytes
    fill(simulator)
    before = simulator.memory.reshape(-1, bus_bytes).copy()
    assert run(simulator, WRITE, 10, 4) is not None
    assert run(simulator, HALF_WRITE, 20, 4) is not None
    after = simulator.memory.reshape(-1, bus_bytes)
    pattern = np.zeros((4, bus_bytes), np.uint8)
    pattern[:, :4] = np.arange(1, 5)[:, None]
    expected = before.copy()
    expected[10:14] = pattern
    expected[20:24, : bus_bytes // 2] = pattern[:, : bus_bytes // 2]
    np.testing.assert_array_equal(after, expected)
    assert simulator.statistics.words_written == 8


def test_errors_outside_memory_window_and_in_the_error_range(simulator: RtlSimulator) -> None:
    bus_bytes = simulator.bus_bytes
    words = fill(simulator)
    last = MEMORY_BYTES // bus_bytes
    assert run(simulator, READ, last - 2, 5) is not None
    assert simulator.read_csr(ERRORS) == 3
    assert simulator.read_csr(SUM) == int(words[-2:].sum(dtype=np.uint32))
    model = MemoryModel(
        window=(4 * bus_bytes, 100 * bus_bytes), error_range=(6 * bus_bytes + 1, 6 * bus_bytes + 2)
    )
    simulator.set_memory_model(model)
    assert run(simulator, READ, 3, 5) is not None
    assert simulator.read_csr(ERRORS) == 2
    assert run(simulator, WRITE, 98, 5) is not None
    assert simulator.read_csr(ERRORS) == 3
    assert simulator.statistics.errors == 8


def test_dead_memory_never_answers(simulator: RtlSimulator) -> None:
    simulator.set_memory_model(MemoryModel(dead=True))
    assert run(simulator, READ, 0, 5) is None
    assert simulator.read_csr(START) == 1  # still running
    simulator.reset()
    simulator.set_memory_model(MemoryModel())
    assert run(simulator, READ, 0, 5) is not None


def test_answers_in_flight_are_dropped_with_cyc(simulator: RtlSimulator) -> None:
    simulator.set_memory_model(MemoryModel(latency_cycles=200))
    simulator.write_csr(COUNT, 20)
    simulator.write_csr(START, READ)
    simulator.step(50)
    assert simulator.statistics.in_flight == 20
    simulator.reset()  # cyc falls
    assert simulator.statistics.in_flight == 0
    assert run(simulator, READ, 0, 3) is not None
    assert simulator.read_csr(CYCLES) == 203


@needs_simulator
def test_instances_are_independent() -> None:
    made = build(32)
    with RtlSimulator(made, memory_bytes=64) as one, RtlSimulator(made, memory_bytes=128) as two:
        one.write_csr(BASE, 1)
        two.write_csr(BASE, 2)
        one.memory[:] = 3
        assert (one.read_csr(BASE), two.read_csr(BASE), int(two.memory.sum())) == (1, 2, 0)
        one.close()
        assert two.read_csr(BASE) == 2
        with pytest.raises(DeviceError, match="closed"):
            one.read_csr(BASE)


@needs_simulator
def test_build_is_cached_and_damage_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A private cache, seeded from the shared one so that nothing has to be built.
    original = build(32).library.parent
    shared_zig = verilator.cache_folder() / "zig"
    assert build(32).seconds == 0.0
    monkeypatch.setenv("CELOSIA_CACHE", str(tmp_path))
    copy = tmp_path / "rtl" / original.name
    copy.mkdir(parents=True)
    for file in original.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    if shared_zig.exists():
        (tmp_path / "zig").symlink_to(shared_zig)

    def never() -> Probe:
        raise AssertionError("built although it is in the cache")

    kind = verilator._Kind(gated=True)

    def again() -> verilator.Build:
        return verilator._build(original.name, never, kind, title="test", console=None)

    assert again().library == copy / verilator.LIBRARY
    library = copy / verilator.LIBRARY
    library.write_bytes(library.read_bytes()[:-100])
    with pytest.raises(AssertionError, match="although"):
        again()
    assert not list((tmp_path / "rtl").glob("*.tmp")), "a failed build leaves nothing behind"


def test_two_processes_do_not_build_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verilator, "LOCK_WAIT_S", 0.3)
    path = tmp_path / "key.lock"
    with verilator._lock(path, "test"):
        with pytest.raises(BuildError, match="another process has held"), path.open("w"):
            with verilator._lock(path, "test"):
                raise AssertionError("locked twice")
    with verilator._lock(path, "test"):
        pass


def test_uniform_memory_initialisation_becomes_a_loop() -> None:
    def block(*words: str) -> str:
        lines = "".join(f"    {word};\n" for word in words)
        return f"  initial begin\n{lines}  end\n"

    convert = lambda text: verilator._INITIAL_MEMORY.sub(verilator._initial_loop, text)  # noqa: E731
    equal = block("m[0] = 8'h07", "m[1] = 8'h07", "m[2] = 8'h07")
    assert "for (i = 0; i < 3; i = i + 1) m[i] = 8'h07;" in convert(equal)
    for kept in (
        block("m[0] = 8'h07", "m[1] = 8'h08"),
        block("m[0] = 8'h07", "m[2] = 8'h07"),
        block("m[0] = 8'h07", "k[1] = 8'h07"),
        block("a = 1'h0"),
    ):
        assert convert(kept) == kept


@needs_simulator
def test_trace_is_written_on_request(tmp_path: Path) -> None:
    path = tmp_path / "probe.vcd"
    with RtlSimulator(build(32, trace=True), memory_bytes=MEMORY_BYTES) as device:
        device.trace(path)
        run(device, READ, 0, 5)
    text = path.read_text()
    assert "bus__stb" in text
    assert text.count("\n#") > 10
    with RtlSimulator(build(32), memory_bytes=64) as device:
        with pytest.raises(DeviceError, match="without tracing"):
            device.trace(path)


def test_a_tool_that_fails_or_hangs_is_reported() -> None:
    with pytest.raises(BuildError, match="did not end within"):
        toolchain.run_tool(["sleep", "30"], timeout_s=0.2)
    with pytest.raises(BuildError, match="cannot be started"):
        toolchain.run_tool([os.devnull], timeout_s=1)
    with pytest.raises(BuildError, match="failed with code 3\nbad"):
        toolchain.run_tool(["sh", "-c", "echo bad >&2; exit 3"], timeout_s=5)


def test_missing_tools_name_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BuildError, match="perl.*apt install perl"):
        toolchain.find_verilator()
    monkeypatch.setattr(toolchain.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BuildError, match=r'no C\+\+ compiler.*pip install ".*\[sim\]"'):
        toolchain.find_compiler()


@pytest.mark.parametrize(
    "wrong",
    [
        {"latency_cycles": 0},
        {"interval_cycles": 0},
        {"stall_probability": 1.0},
        {"delay_probability": -0.1},
        {"seed": 0},
        {"error_range": (5, 4)},
    ],
)
def test_memory_model_refuses_nonsense(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MemoryModel(**wrong)
