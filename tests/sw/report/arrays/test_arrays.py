"""Layers cut into pieces for several arrays: the pieces are right, and so is their sum."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from celosia.errors import CelosiaError, ProgramError
from celosia.hw.contract.config import preset
from celosia.hw.contract.isa import Conv, Load
from celosia.sim.models.tflite_builder import ModelBuilder
from celosia.sw.compiler.build import compile_graph
from celosia.sw.driver.opening import open_device
from celosia.sw.program.file import Program
from celosia.sw.report.arrays.cut import can_be_cut, cut, whole_region
from celosia.sw.report.arrays.measure import (
    Bench,
    Network,
    PieceCycles,
    SplitCycles,
    UnequalError,
)
from celosia.sw.report.arrays.network import (
    BARRIER_CYCLES,
    best_choice,
    exchanged_lines,
    network_cycles,
    units,
)
from celosia.sw.report.arrays.phases import divide_program, keep_commands
from celosia.sw.report.arrays.split import COLUMNS, FOUR, ONE, SQUARE, STRIPES, Region, Split

CONFIG = preset("base")
SPLITS = (ONE, *FOUR)


def _model(path: Path) -> Path:
    """Write a network with windows of two strides, a residual addition, a pool and a softmax."""
    rng = np.random.default_rng(11)
    builder = ModelBuilder()

    def weights(*shape: int) -> np.ndarray:
        return rng.integers(-127, 128, shape, dtype=np.int8)

    def bias(channels: int) -> np.ndarray:
        return rng.integers(-2000, 2000, channels, dtype=np.int32)

    image = builder.input((1, 18, 10, 3), scale=0.05, zero_point=-3)
    first = builder.conv2d(
        image, weights(24, 3, 3, 3), bias(24), w_scales=[0.01] * 24, scale=0.3, zero_point=5,
        strides=(2, 1), padding="SAME",
    )  # fmt: skip
    second = builder.depthwise_conv2d(
        first, weights(1, 3, 3, 24), bias(24), w_scales=[0.01] * 24, scale=0.4, zero_point=-9,
        padding="SAME",
    )  # fmt: skip
    third = builder.conv2d(
        second, weights(24, 1, 1, 24), bias(24), w_scales=[0.01] * 24, scale=0.9, zero_point=1,
    )  # fmt: skip
    added = builder.add(first, third, scale=1.0, zero_point=2)
    pooled = builder.average_pool2d(added, size=(9, 10), padding="VALID")
    dense = builder.fully_connected(
        builder.reshape(pooled, (1, 24)), weights(7, 24), bias(7), w_scales=[0.01], scale=0.5,
        zero_point=0,
    )  # fmt: skip
    builder.softmax(dense)
    file = path / "short.tflite"
    file.write_bytes(builder.finish())
    return file


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _model(tmp_path_factory.mktemp("arrays"))


@pytest.fixture
def network(model: Path) -> Network:
    return Network.load(model, CONFIG)


@pytest.fixture(scope="module")
def measured(model: Path) -> Network:
    """The network measured on the RTL of base; every piece was compared while it was."""
    network = Network.load(model, CONFIG)
    with Bench.open(CONFIG) as bench:
        bench.measure(network, SPLITS)
    return network


@pytest.mark.parametrize("split", SPLITS, ids=lambda split: split.name)
def test_pieces_put_together_are_the_network(network: Network, split: Split) -> None:
    with open_device("emu", CONFIG) as device:
        for work in network.works:
            height, width, channels = network.graph.hwc(work.output)
            regions = split.regions(height, channels, CONFIG.line_bytes)
            if not can_be_cut(work):
                regions = [whole_region(network.graph, work.output)]
            joined = np.zeros((height, width, channels), np.int8)
            covered = np.zeros((height, channels), np.int64)
            for region in regions:
                if region is None:
                    continue
                piece = cut(network.graph, [work], region)
                program = compile_graph(piece.graph, CONFIG)
                result = device.run(program, piece.inputs(network.tensors, network.graph))
                (values,) = result.outputs.values()
                rows, own = slice(*region.rows), slice(*region.channels)
                joined[rows, :, own] = values.reshape(joined[rows, :, own].shape)
                covered[rows, own] += 1
            assert (covered == 1).all()
            wanted = network.tensors[work.output].reshape(joined.shape)
            assert np.array_equal(joined, wanted), work.name


def test_a_stripe_reads_its_neighbours_rows(network: Network) -> None:
    depthwise = network.works[1]
    piece = cut(network.graph, [depthwise], Region((3, 6), (0, 24)))
    ((_, _, source),) = piece.sources
    assert source == Region((2, 7), (0, 24))
    top = cut(network.graph, [depthwise], Region((0, 3), (8, 16)))
    ((_, _, source),) = top.sources
    assert source == Region((0, 4), (8, 16))


def test_what_cannot_be_cut_is_refused(network: Network) -> None:
    with pytest.raises(CelosiaError, match="cannot be cut"):
        cut(network.graph, network.works[-1:], Region((0, 1), (0, 3)))


def test_regions_end_at_lines_and_leave_arrays_idle() -> None:
    assert SQUARE.regions(5, 24, 8) == [
        Region((0, 3), (0, 16)),
        Region((0, 3), (16, 24)),
        Region((3, 5), (0, 16)),
        Region((3, 5), (16, 24)),
    ]
    assert COLUMNS.regions(1, 20, 16) == [
        Region((0, 1), (0, 16)),
        None,
        Region((0, 1), (16, 20)),
        None,
    ]
    assert [r.rows for r in STRIPES.regions(6, 8, 8) if r is not None] == [
        (0, 2),
        (2, 3),
        (3, 5),
        (5, 6),
    ]


def test_another_result_is_noticed(model: Path) -> None:
    network = Network.load(model, CONFIG)
    name = network.works[1].output
    wrong = network.tensors[name].copy()
    wrong.reshape(-1)[-1] ^= 1
    network.tensors = {**network.tensors, name: wrong}
    with Bench.open(CONFIG) as bench, pytest.raises(UnequalError, match="1 of .* differ"):
        bench.measure(network, (STRIPES,))


def test_the_layers_program_has_no_loads_and_is_checked(network: Network) -> None:
    work = network.works[2]
    piece = cut(network.graph, [work], whole_region(network.graph, work.output))
    program = compile_graph(piece.graph, CONFIG)
    phases = divide_program(program, begins=piece.begins, ends=piece.ends)
    commands = phases.layer.npu.decode()
    assert any(isinstance(command, Conv) for command in commands)
    assert not any(isinstance(command, Load) for command in commands)
    with pytest.raises(ProgramError, match="nothing orders them"):
        keep_commands(_without_tokens(program), lambda command, layer: True)


def _without_tokens(program: Program) -> Program:
    bare = [replace(command, wait=0, signal=0) for command in program.npu.decode()]
    return program.with_npu(commands=b"".join(command.encode() for command in bare))


def test_the_layers_of_one_array_are_about_the_network(measured: Network) -> None:
    with Bench.open(CONFIG) as bench:
        cycles, _ = bench.network(measured)
        quarter, _ = bench.network(measured, interval_cycles=4)
    choice = [ONE.name] * len(measured.works)
    found = network_cycles(measured, choice, CONFIG, arrays=1, start_cycles=44)
    assert found.barrier == found.exchange == 0
    assert abs(found.total / cycles - 1) < 0.1
    assert quarter > cycles


@pytest.mark.parametrize("resident", [False, True])
@pytest.mark.parametrize("split", FOUR, ids=lambda split: split.name)
def test_parts_add_up(measured: Network, split: Split, resident: bool) -> None:
    choice = [split.name] * len(measured.works)
    found = network_cycles(measured, choice, CONFIG, arrays=4, start_cycles=44, resident=resident)
    parts = (
        found.ideal + found.array + found.cut + found.uneven
        + found.exchange + found.barrier + found.bus + found.start
    )  # fmt: skip
    assert abs(parts - found.total) <= len(choice)
    assert found.barrier == BARRIER_CYCLES * (len(units(measured, choice)) - 1)
    assert (found.bus == 0) or not resident
    best = best_choice(measured, [s.name for s in FOUR], CONFIG, arrays=4, resident=resident)
    fastest = network_cycles(measured, best, CONFIG, arrays=4, start_cycles=44, resident=resident)
    assert fastest.total <= found.total


def test_lines_of_others_are_counted(measured: Network) -> None:
    stripes, columns = ["4x1"] * len(measured.works), ["1x4"] * len(measured.works)
    width, lines = 10, 3
    # Depthwise on 9 rows in stripes of 3, 2, 2, 2: the inner ones need a row above and one below.
    assert exchanged_lines(measured, 1, stripes, CONFIG) == 2 * width * lines
    # By channels everything is an array's own; a dense layer's activations are read together.
    assert exchanged_lines(measured, 1, columns, CONFIG) == 0
    assert exchanged_lines(measured, 2, columns, CONFIG) == 0
    # Behind channels, stripes need all but one line of their rows' pixels; the last array has none.
    mixed = ["1x4", "4x1", *columns[2:]]
    assert exchanged_lines(measured, 1, mixed, CONFIG) > 2 * width * lines


def _layer(cycles: int, words: int, weight_bytes: int, chunks: int = 1) -> dict[str, SplitCycles]:
    piece = PieceCycles(cycles=cycles, weight_words=words, weight_bytes=weight_bytes, bus_words=0)
    region = Region((0, 100), (0, 24))  # all of any tensor of the network
    return {"1x1": SplitCycles(regions=[region], pieces=[piece], chunks=chunks)}


def test_weights_are_loaded_ahead_as_far_as_there_is_room(network: Network) -> None:
    half = CONFIG.wgt_bytes // 2
    choice = ["1x1"] * 3

    def total(*layers: dict[str, SplitCycles]) -> int:
        network.works = network.works[: len(layers)]
        made = replace(network, splits=list(layers), pairs=[{} for _ in layers])
        return network_cycles(made, choice[: len(layers)], CONFIG, arrays=1, start_cycles=0).total

    # Behind the first one's weights the array is busy all the time.
    assert total(*[_layer(1000, 100, half)] * 3) == 108 + 3 * 1000
    # The third layer's weights have no room before the first layer is done, and there is time.
    assert total(_layer(1000, 900, half), _layer(50, 900, half), _layer(50, 900, half)) == (
        908 + 1000 + 50 + 900 - 50 + 8 + 50
    )
    # The bus decides: all of the words, and the last chunk's work.
    assert total(*[_layer(10, 500, half, chunks=2)] * 2) == 1000 + 8 + 5


def test_a_pair_is_taken_where_it_is_faster(network: Network) -> None:
    network.splits = [_layer(100, 0, 0) for _ in range(3)]
    network.pairs = [_layer(190, 0, 0), _layer(150, 0, 0), {}]
    assert units(network, ["1x1"] * 3) == [(0, 1), (1, 2)]
