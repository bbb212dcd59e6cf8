"""Energy: the account is of what the RTL has done, adds up, and has a source for every number."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import celosia
import numpy as np
import numpy.typing as npt
import pytest
from celosia.errors import CelosiaError
from celosia.hw.contract.addresses import conv_passes, conv_stream, conv_tiles
from celosia.hw.contract.isa import Conv, Load, Mode, Space, Transfer, Vector
from celosia.sim.models.tflite_builder import ModelBuilder
from celosia.sim.rtl.activity import Memory, Register, read_activity, read_structure
from celosia.sw.docgen.energies import INPUTS
from celosia.sw.docgen.energy import energy_block
from celosia.sw.docgen.sources import Sources
from celosia.sw.energy.device import ActivityDevice
from celosia.sw.energy.events import Events, count_events, product_changes
from celosia.sw.energy.measure import measure_energy
from celosia.sw.energy.measured import measured_energies
from celosia.sw.energy.model import Energy, Part, Range
from celosia.sw.energy.published import MEMORIES, event, sources, sram
from celosia.sw.energy.record import find_energy, put_energy
from celosia.sw.program.file import Program
from celosia.sw.runtime.session import Session

from tests.kit.command_line import run_cli
from tests.kit.machines import MACHINES
from tests.kit.places import DIGITS, ROOT
from tests.kit.tools import skip_without_simulator

CONFIG = MACHINES["small4"]
ZERO_POINT = -3
pytestmark = pytest.mark.xdist_group("rtl-activity")

Int8 = npt.NDArray[np.int8]


@pytest.fixture(scope="module")
def model() -> bytes:
    """Two convolutions, padded, and a fully connected layer."""
    rng = np.random.default_rng(3)
    b = ModelBuilder()
    x = b.input((1, 5, 5, 3), scale=0.1, zero_point=ZERO_POINT)
    w = rng.integers(-127, 128, (6, 3, 3, 3), dtype=np.int8)
    y = b.conv2d(x, w, None, w_scales=0.01, scale=0.2, zero_point=ZERO_POINT)
    w = rng.integers(-127, 128, (4, 1, 1, 6), dtype=np.int8)
    y = b.conv2d(y, w, None, w_scales=0.01, scale=0.2, zero_point=ZERO_POINT)
    w = rng.integers(-127, 128, (3, 100), dtype=np.int8)
    y = b.fully_connected(b.reshape(y, (1, 100)), w, None, w_scales=0.01, scale=0.5)
    return b.finish([y])


@pytest.fixture(scope="module")
def program(model: bytes) -> Program:
    return celosia.compile(model, CONFIG)


def sample(program: Program, values: Int8) -> dict[str, Int8]:
    (info,) = program.inputs
    return {info.name: values.reshape(info.shape)}


@pytest.fixture(scope="module")
def random(program: Program) -> dict[str, Int8]:
    return sample(program, np.random.default_rng(5).integers(-128, 128, 75, dtype=np.int8))


@pytest.fixture(scope="module")
def energy(program: Program, random: dict[str, Int8]) -> Energy:
    skip_without_simulator()
    return measure_energy(program, [random], "random")


@pytest.fixture(scope="module")
def counted(program: Program, random: dict[str, Int8]) -> Iterator[tuple[Events, ActivityDevice]]:
    skip_without_simulator()
    with ActivityDevice(CONFIG, memory_bytes=1 << 20) as device:
        before = device.rtl.statistics
        with Session(program, device) as session:
            result = session.run(random)
        after = device.rtl.statistics
        words = after.words_read + after.words_written - before.words_read - before.words_written
        assert result.counters["bus_read"] + result.counters["bus_write"] == words
        yield count_events(CONFIG, device.activity, device.structure, result.counters), device


def test_events_are_what_the_commands_ask_for(
    program: Program, counted: tuple[Events, ActivityDevice]
) -> None:
    events, device = counted
    commands = program.npu.decode()
    convs = [command for command in commands if isinstance(command, Conv)]
    windows = outputs = 0
    for conv in convs:
        passes = len(conv_passes(conv).address)
        streams = [
            len(conv_stream(conv, oc, tile).address)
            for oc in range(conv.n_oc)
            for tile in range(conv_tiles(conv))
        ]
        windows += passes * sum(streams)
        outputs += passes * conv.n_oc * conv.out_h * conv.out_w
        assert conv.mode == Mode.WINDOW
    cells = CONFIG.rows * CONFIG.cols
    assert (events.multiplies, events.adds) == (windows * cells, windows * (cells - CONFIG.cols))
    assert windows * cells > sum(layer.macs for layer in program.layers), "padding counts"
    assert (events.accumulator.writes, events.accumulations) == (outputs, outputs * CONFIG.cols)
    vectors = sum(
        command.n_oc * command.out_h * command.out_w
        for command in commands
        if isinstance(command, Vector) and command.reads_acc
    )
    assert events.vector_multiplies == vectors * CONFIG.cols
    # Before a first pass an old vector is read, too, and not added.
    assert events.accumulator.reads == outputs + vectors
    loads = {space: 0 for space in Space}
    for command in commands:
        if isinstance(command, Load):
            loads[command.space] += command.row_bytes * command.n1 * command.n2
    line = CONFIG.line_bytes
    assert events.weights.writes == loads[Space.WGT] / line
    assert events.params.writes == loads[Space.PARAM] / line
    assert events.act.writes == loads[Space.ACT] / line + vectors
    assert events.act.reads >= windows
    moved = sum(c.row_bytes * c.n1 * c.n2 for c in commands if isinstance(c, Transfer))
    code = len(program.npu.commands)
    assert events.bus_words >= (moved + code) / CONFIG.bus_bytes
    # Registers are found by name in what the simulator counts; a few names are hidden.
    found = [r.width_bits for r in device.structure.registers if r.path in device.activity.high]
    assert sum(found) > 0.98 * events.register_bits > 10_000
    assert 0 < events.changed_bits < events.clocked_bits < events.register_bits * events.cycles


def test_counts_go_to_a_path_that_is_no_utf8(
    counted: tuple[Events, ActivityDevice], tmp_path: Path
) -> None:
    _, device = counted
    path = tmp_path / os.fsdecode(b"\xff.saif")
    device.rtl.count_activity(path)
    device.rtl.count_activity(None)
    assert path.is_file()


def test_parts_and_layers_add_up(energy: Energy, program: Program) -> None:
    parts = sum(energy.parts.values(), Range())
    items = sum((item.energy for item in energy.items), Range())
    layers = sum((layer.total for layer in energy.layers), Range())
    for total in (parts, items, layers):
        assert total.low_uj == pytest.approx(energy.total.low_uj)
        assert total.high_uj == pytest.approx(energy.total.high_uj)
    assert all(0 < own.low_uj < own.high_uj for own in energy.parts.values())
    chip = energy.chip + energy.parts[Part.MEMORY]
    assert chip.high_uj == pytest.approx(energy.total.high_uj)
    assert [layer.op for layer in energy.layers] == [*(x.op for x in program.layers), "end"]
    assert sum(layer.cycles for layer in energy.layers) == energy.cycles
    conv = energy.layers[0]
    assert conv.parts[Part.ARRAY].low_uj > energy.layers[-2].parts[Part.ARRAY].low_uj > 0
    # The three ways to say it.
    low, high = energy.pj_a_mac
    assert low * energy.macs == pytest.approx(1e6 * energy.chip.low_uj)
    assert energy.gops_a_watt == pytest.approx((2000 / high, 2000 / low))
    assert energy.milliwatts(100)[1] == pytest.approx(
        1000 * energy.gops(100) / energy.gops_a_watt[0]
    )


def test_inputs_that_change_less_take_less(energy: Energy, program: Program) -> None:
    quiet = sample(program, np.full(75, ZERO_POINT, np.int8))
    still = measure_energy(program, [quiet], "zeros")
    for part in (Part.ARRAY, Part.VECTOR):
        assert still.parts[part].high_uj < 0.9 * energy.parts[part].high_uj
    assert still.parts[Part.REGISTERS].low_uj < energy.parts[Part.REGISTERS].low_uj
    for part in (Part.ACT, Part.WEIGHTS, Part.MEMORY):
        assert still.parts[part] == energy.parts[part], "accesses are the same"


def test_several_inputs_give_the_mean(
    energy: Energy, program: Program, random: dict[str, Int8]
) -> None:
    once, twice = energy, celosia.energy(program, inputs=[random, random], memory="sram")
    assert twice.cycles == once.cycles
    assert [layer.cycles for layer in twice.layers] == [layer.cycles for layer in once.layers]
    assert twice.parts[Part.ACCUMULATOR].low_uj == pytest.approx(
        once.parts[Part.ACCUMULATOR].low_uj, rel=0.02
    )
    assert twice.parts[Part.MEMORY].high_uj < once.parts[Part.MEMORY].low_uj, "no DRAM"


@pytest.mark.parametrize("together", [False, True])
def test_each_sample_of_a_batch_is_an_inference(model: bytes, together: bool) -> None:
    skip_without_simulator()
    content = model
    if together:  # rows of the same tensor
        rng = np.random.default_rng(4)
        b = ModelBuilder()
        x = b.input((1, 24), scale=0.1, zero_point=ZERO_POINT)
        w = rng.integers(-127, 128, (9, 24), dtype=np.int8)
        content = b.finish([b.fully_connected(x, w, None, w_scales=0.01, scale=0.5)])
    one, several = (celosia.compile(content, CONFIG, batch=batch) for batch in (1, 3))
    assert (several.one_by_one == "") is together
    (info,) = several.inputs
    values = np.random.default_rng(6).integers(-128, 128, info.shape, dtype=np.int8)
    single = [sample(one, values[n : n + 1]) for n in range(3)]
    mean = measure_energy(one, single, "random")
    batch = measure_energy(several, [sample(several, values)], "random")
    assert (batch.macs, batch.conditions.samples) == (mean.macs, 3)
    assert sum(layer.cycles for layer in batch.layers) == pytest.approx(batch.cycles)
    if together:
        assert mean.cycles / 3 < batch.cycles < mean.cycles
        assert mean.total.low_uj / 3 < batch.total.low_uj < mean.total.low_uj, "weights come once"
    else:
        assert batch.cycles == pytest.approx(mean.cycles, rel=0.02)
        assert batch.total.high_uj == pytest.approx(mean.total.high_uj, rel=0.02)
        assert [layer.cycles for layer in batch.layers] == pytest.approx(
            [layer.cycles for layer in mean.layers], rel=0.02
        )


def test_every_number_has_a_source() -> None:
    text = json.loads((ROOT / "sw/energy/published.json").read_text())
    for name, entry in text["events"].items():
        bounds = event(name)
        assert bounds.low_pj <= bounds.high_pj
        assert {entry["low"]["source"], entry["high"]["source"]} == set(bounds.sources)
        assert set(bounds.sources) <= set(sources())
    assert all(source.text and source.url.startswith("https://") for source in sources().values())
    assert {f"memory_{kind}" for kind in MEMORIES} <= set(text["events"])
    # The greatest of CACTI's devices agrees with what Horowitz has published of caches.
    for kib, published in ((8, 10), (32, 20)):
        most = sram(64, kib << 10, write=False).high_pj
        assert most == pytest.approx(published, rel=0.25)
    small, large = (sram(64, size, write=True) for size in (1 << 10, 1 << 15))
    assert small.high_pj < large.high_pj
    with pytest.raises(CelosiaError, match=r"words of 48 bits.*sram.json"):
        sram(48, 1024, write=False)
    assert 3 < product_changes() < 8


def test_what_others_have_measured_is_beside_it(energy: Energy, tmp_path: Path) -> None:
    record = tmp_path / "energy.json"
    put_energy(record, energy)
    known = find_energy(record, energy.model, CONFIG.name)
    assert known.chip.high_uj == pytest.approx(energy.chip.high_uj, abs=1e-4)
    with pytest.raises(CelosiaError, match="energy kws_int8.tflite --config base"):
        find_energy(record, "kws_int8", "base")
    record.write_text('{"kws_int8 base dram": {"chip": [1]}}')
    with pytest.raises(CelosiaError, match="is no energy"):
        put_energy(record, energy)
    table = energy_block(Sources(ROOT), "measured")
    for name in INPUTS:
        for result in measured_energies(name):
            assert f"{result.energy_uj:.4g}" in table


def test_activity_and_registers_are_read_from_files(tmp_path: Path) -> None:
    saif = tmp_path / "a.saif"
    saif.write_text(
        "(SAIFILE\n(DURATION 7)\n (INSTANCE npu\n  (NET\n"
        "   (x (T0 4) (T1 3) (TZ 0) (TX 0) (TB 0) (TC 2))\n  )\n  (INSTANCE inner\n   (NET\n"
        "    (y\\[0\\] (T0 7) (T1 0) (TZ 0) (TX 0) (TB 0) (TC 0))\n"
        "    (y\\[1\\] (T0 2) (T1 5) (TZ 0) (TX 0) (TB 0) (TC 4))\n   )\n  )\n )\n)\n"
    )
    activity = read_activity(saif)
    activity.add(read_activity(saif))
    assert activity.cycles == 14
    assert activity.high == {"x": [6], "inner/y": [0, 10]}
    assert activity.changes == {"x": 4, "inner/y": 8}
    assert (activity.high_cycles("inner/y"), activity.high_cycles("inner/y", bit=0)) == (10, 0)
    with pytest.raises(CelosiaError, match="no net z"):
        activity.high_cycles("z")
    verilog = tmp_path / "n.v"
    verilog.write_text(
        "module npu(clk);\n  \\npu.a  a$1 (\n    .array_clk(clk_array)\n  );\nendmodule\n"
        "module \\npu.a (array_clk);\n  reg \\$2 ;\n  reg [7:0] \\new  = 8'h00;\n"
        "  reg one = 1'h0;\n"
        "  reg [15:0] memory [3:0];\n  always @(posedge array_clk) begin\n    if (one)\n"
        "      memory[0] <= 0;\n  end\n  always @(posedge array_clk)\n    \\new  <= \\$2 ;\n"
        "  always @(posedge clk)\n    one <= \\$2 ;\nendmodule\n"
    )
    structure = read_structure(verilog)
    assert structure.registers == (
        Register("npu/a$1/new", 8, "array"),
        Register("npu/a$1/one", 1, "sync"),
    )
    assert structure.memories == (Memory("npu/a$1", 16, 4),)
    assert structure.memories[0].size_bytes == 8


def test_the_command_line_prints_the_account(
    program: Program, energy: Energy, random: dict[str, Int8], tmp_path: Path
) -> None:
    compiled, x, out = tmp_path / "m.celosia", tmp_path / "x.npy", tmp_path / "e.json"
    program.save(compiled)
    np.save(x, next(iter(random.values())))
    result = run_cli("energy", compiled, "--input", x, "--layers", "--clock", 50, "--json", out)
    assert result.exit_code == 0, result.output
    written = json.loads(out.read_text())
    assert written["conditions"]["input"] == "x.npy"
    assert written["total"]["high_uj"] == pytest.approx(energy.total.high_uj)
    assert {item["part"] for item in written["items"]} == {part.value for part in Part}
    assert all(item["sources"] for item in written["items"])
    for text in ("accumulator", "at 50 MHz", "leakage", "Horowitz", "45 nm", "chip and memory"):
        assert text in result.output
    assert len(re.findall(r"CONV_2D", result.output)) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("missing.tflite",), "missing.tflite"),
        ((DIGITS, "--memory", "flash"), "dram, sram"),
        ((DIGITS, "--config", "nano"), "firmware"),
        ((DIGITS, "--config", "huge"), "huge"),
        ((DIGITS, "--quantize"), "needs an --input"),
        ((DIGITS, "--input", "missing.npy"), "no such file"),
        ((DIGITS, "--json", "missing/e.json"), "no folder"),
    ],
)
def test_bad_input_is_refused(arguments: tuple[object, ...], words: str) -> None:
    result = run_cli("energy", *arguments)
    assert result.exit_code == 2
    assert words in result.output
