"""Tensors that are windows of others: what shares, what it saves, and that results stay right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from celosia.errors import CompileError
from celosia.hw.contract.config import NpuConfig, preset
from celosia.hw.contract.isa import Conv, Load, Mode, Region, Store, Vector, VectorOp
from celosia.sim.models.tflite_builder import ModelBuilder, TensorHandle
from celosia.sw.compiler.build import compile_model
from celosia.sw.compiler.frontends.tflite.convert import load
from celosia.sw.compiler.ir import Graph
from celosia.sw.compiler.lower import lower
from celosia.sw.compiler.place.layout import Grid, Slab, act_layout
from celosia.sw.compiler.place.plan import plan_memory
from celosia.sw.compiler.place.views import Sharing
from celosia.sw.compiler.place.works import Fusion, works_of
from celosia.sw.compiler.schedule.schedule import schedule_works
from celosia.sw.compiler.steps import Footprint
from celosia.sw.driver.opening import open_device
from celosia.sw.program.file import Program
from celosia.sw.reference.golden import GoldenModel

from tests.kit.random_joins import random_joined_network

BASE = preset("base")
SMALL4 = NpuConfig(
    name="small4", rows=4, cols=4, bus_bits=32, act_bytes=1024, wgt_bytes=64, param_bytes=256,
    acc_depth=16, queue_depth=2, max_outstanding=2,
)  # fmt: skip
SMALL8 = NpuConfig(
    name="small8", rows=8, cols=8, bus_bits=64, act_bytes=2048, wgt_bytes=256, param_bytes=512,
    acc_depth=16, queue_depth=4, max_outstanding=4,
)  # fmt: skip
CONFIGS = [SMALL4, SMALL8, *map(preset, ("nano", "tiny", "base", "large"))]
SEEDS = range(24)
SCALE = 0.05


class Net:
    """A model under construction, of one quantisation."""

    def __init__(self, shape: Sequence[int]) -> None:
        self.b = ModelBuilder()
        self.rng = np.random.default_rng(5)
        self.x = self.b.input((1, *shape), scale=SCALE)

    def conv(self, x: TensorHandle, channels: int, size: int = 1) -> TensorHandle:
        weights = self.rng.integers(-127, 128, (channels, size, size, x.shape[3])).astype(np.int8)
        return self.b.conv2d(x, weights, w_scales=0.01, scale=SCALE)

    def moved(
        self, code: str, operands: list[Any], shape: Sequence[int], **options: Any
    ) -> TensorHandle:
        handles = [
            o if isinstance(o, TensorHandle) else self.b.constant(np.array(o, np.int32))
            for o in operands
        ]
        table = options.pop("table", None)
        return self.b.several(
            code, handles, [(1, *shape)], scale=SCALE, options=(table, options) if table else None
        )[0]

    def joined(self, parts: list[Any], axis: int = 3) -> TensorHandle:
        shape = list(parts[0].shape)
        shape[axis] = sum(part.shape[axis] for part in parts)
        return self.moved(
            "CONCATENATION", parts, shape[1:], table="ConcatenationOptions", Axis=axis
        )

    def cut(self, x: TensorHandle, begin: Sequence[int], size: Sequence[int]) -> TensorHandle:
        return self.moved("SLICE", [x, [0, *begin], [1, *size]], size)

    def enlarged(self, x: TensorHandle) -> TensorHandle:
        _, height, width, channels = x.shape
        return self.moved(
            "RESIZE_NEAREST_NEIGHBOR",
            [x, [2 * height, 2 * width]],
            (2 * height, 2 * width, channels),
            table="ResizeNearestNeighborOptions",
        )

    def graph(self, *outputs: TensorHandle) -> Graph:
        return lower(load(self.b.finish(list(outputs))))


def fire(n: Net) -> list[TensorHandle]:
    """A squeezed layer, and two expanded ones side by side."""
    x = n.conv(n.x, 16)
    return [n.conv(n.joined([n.conv(x, 16), n.conv(x, 24, 3)]), 8)]


def dense(n: Net) -> list[TensorHandle]:
    """Each layer reads what all before it have made."""
    x = n.conv(n.x, 16)
    for _ in range(2):
        x = n.joined([x, n.conv(x, 8, 3)])
    return [n.conv(x, 8)]


def split(n: Net) -> list[TensorHandle]:
    """Half of the channels goes by, the other half through a layer."""
    x = n.conv(n.x, 16)
    left, right = n.cut(x, (0, 0, 0), (6, 5, 8)), n.cut(x, (0, 0, 8), (6, 5, 8))
    return [n.b.add(n.conv(left, 8), n.conv(right, 8, 3), scale=SCALE)]


def parts_of_the_image(n: Net) -> list[TensorHandle]:
    """Rows and columns from anywhere, with and without steps."""
    x = n.conv(n.x, 11)
    rows = n.cut(x, (1, 0, 0), (3, 5, 11))
    columns = n.cut(x, (0, 2, 0), (6, 3, 11))
    steps = n.moved(
        "STRIDED_SLICE", [x, [0, 1, 0, 0], [1, 6, 5, 11], [1, 2, 2, 1]], (3, 3, 11),
        table="StridedSliceOptions",
    )  # fmt: skip
    return [n.conv(part, 8, 3) for part in (rows, columns, steps)]


def stacked(n: Net) -> list[TensorHandle]:
    """Images below and beside one another; one of them is in both, and copied to the second."""
    x, y = n.conv(n.x, 5), n.conv(n.x, 5, 3)
    return [n.conv(n.joined([x, y], 1), 8, 3), n.conv(n.joined([n.conv(n.x, 5), y], 2), 8)]


NETWORKS: dict[Callable[[Net], list[TensorHandle]], int] = {
    fire: 1,
    dense: 2,
    split: 2,
    parts_of_the_image: 3,
    stacked: 1,
}
"""Movements of each that move nothing."""


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.__name__)
def test_what_shares_moves_nothing(network: Callable[[Net], list[TensorHandle]]) -> None:
    """No tensor goes to memory and back, and every tensor is right."""
    n = Net((6, 5, 4))
    model = n.b.finish(network(n))
    program = compile_model(model, BASE)
    (segment,) = program.segments
    still = {"moves no data", "written in place"}
    done = [layer for layer in segment.layers if layer.reason in still]
    assert len(done) == NETWORKS[network]
    if network is not stacked:
        assert segment.region_bytes(Region.SCRATCH) == 0
        stores = [c for c in segment.decode() if isinstance(c, Store)]
        assert len(stores) == len(program.outputs)
    inputs = [np.random.default_rng(3).integers(-128, 128, (1, 6, 5, 4)).astype(np.int8)]
    for keep_tensors in (False, True):
        assert_equal(compile_model(model, BASE, keep_tensors=keep_tensors), model, inputs, BASE)


def assert_equal(
    program: Program, model: bytes, inputs: list[Any], config: NpuConfig, seed: int = 0
) -> None:
    """Hold all tensors of a run on the emulator against golden."""
    want = GoldenModel(model).run(inputs)
    with open_device("emu", config, memory_bytes=1 << 22) as device:
        result = device.run(program, inputs)
    for name, values in {**result.tensors, **result.outputs}.items():
        assert np.array_equal(values, want[name]), (seed, config.name, name)


def predicted(graph: Graph, config: NpuConfig, sharing: Sharing) -> list[str]:
    """Return what the layers of a plan say of their movement."""
    works = works_of(graph, fusion=Fusion.NONE)
    plan = plan_memory(graph, works, config, keep_tensors=False, sharing=sharing)
    schedule_works(graph, plan, config)
    return [move.describe for move in plan.table.moves.values()]


def test_lines_are_copied_on_chip_where_nothing_can_be_shared() -> None:
    """An enlarged image: its first pixels are written in place, the others copied from there."""
    n = Net((6, 5, 4))
    x = n.conv(n.x, 16)
    y = n.conv(n.enlarged(x), 8, 3)
    graph = n.graph(y)
    assert predicted(graph, BASE, Sharing.COPIES) == ["written in place; copy on chip, 3 parts"]
    assert predicted(graph, BASE, Sharing.WINDOWS) == ["written in place; load engine, 3 parts"]
    assert predicted(graph, BASE, Sharing.NONE) == []
    program = compile_model(n.b.finish([y]), BASE)
    (segment,) = program.segments
    copies = [c for c in segment.decode() if isinstance(c, Vector) and c.op == VectorOp.MAX]
    assert len(copies) == 3
    assert not [c for c in segment.decode() if isinstance(c, Load) and c.region == Region.SCRATCH]


def test_parts_that_begin_within_a_line_are_loaded() -> None:
    n = Net((6, 5, 4))
    x, y = n.conv(n.x, 5), n.conv(n.x, 8)
    z = n.conv(n.joined([x, y]), 8)
    # The first part would be followed by other channels in its line.
    assert predicted(n.graph(z), BASE, Sharing.COPIES) == []


def test_a_tensor_has_one_place() -> None:
    """What is a part of two results is written into one of them, and copied to the other."""
    n = Net((6, 5, 4))
    x, y, z = (n.conv(n.x, 8) for _ in range(3))
    one, two = n.joined([x, y]), n.joined([z, x])
    assert predicted(n.graph(n.conv(one, 8), n.conv(two, 8)), BASE, Sharing.COPIES) == [
        "written in place",
        "written in place; copy on chip, 1 parts",
    ]


def test_tensors_in_memory_share_nothing() -> None:
    """Where the result does not fit as a whole, its parts go through memory."""
    n = Net((16, 16, 4))
    z = n.conv(n.joined([n.conv(n.x, 8), n.conv(n.x, 8)]), 8)
    graph = n.graph(z)
    assert predicted(graph, BASE, Sharing.COPIES) == ["written in place"]
    assert predicted(graph, SMALL8, Sharing.COPIES) == []


def test_parts_of_a_tensor_in_memory_are_stored_where_it_is() -> None:
    """Channels that begin anywhere, and a border of zero points that is loaded and stored."""
    n = Net((16, 12, 4))
    z = n.joined([n.conv(n.x, 5), n.conv(n.x, 6, 3)])
    bordered = n.moved("PAD", [n.conv(n.x, 8), [[0, 0], [0, 0], [0, 0], [1, 2]]], (16, 12, 11))
    model = n.b.finish([n.conv(z, 8), n.conv(bordered, 4)])
    inputs = [np.random.default_rng(3).integers(-128, 128, (1, 16, 12, 4)).astype(np.int8)]
    for keep_tensors in (False, True):
        program = compile_model(model, SMALL8, keep_tensors=keep_tensors)
        reasons = [layer.reason for layer in program.segments[0].layers]
        assert "stored in place" in reasons
        assert any(r.startswith("stored in place; load engine, 2 parts") for r in reasons)
        assert_equal(program, model, inputs, SMALL8)


def test_the_second_operand_of_a_product_is_no_part_of_a_tensor_in_memory() -> None:
    """The array takes it from there, in whole lines and bus words."""
    for channels in (3, 4):
        n = Net((1, 64, 16))
        y, a = (n.b.input((1, 1, *shape), scale=SCALE) for shape in ((64, channels), (4, 64)))
        matrix, beside = n.b.relu(n.x, scale=SCALE), n.b.relu(y, scale=SCALE)
        z = n.joined([beside, matrix])
        product = n.b.operator(
            "BATCH_MATMUL", [a, matrix], (1, 1, 4, 16), scale=SCALE,
            options=("BatchMatMulOptions", {"AdjX": False, "AdjY": False}),
        )  # fmt: skip
        rng = np.random.default_rng(3)
        inputs = [rng.integers(-128, 128, t.shape).astype(np.int8) for t in (n.x, y, a)]
        for outputs in ([z, product], [n.b.relu(z, scale=SCALE), product]):
            model = n.b.finish(outputs)
            for config in (SMALL4, SMALL8):
                assert_equal(compile_model(model, config), model, inputs, config)


def test_who_reads_another_shape_waits_for_all_rows() -> None:
    """A pixel of 512 channels is 64 rows, which are written one stripe after the other."""
    n = Net((64, 16, 8))
    weights = n.rng.integers(-127, 128, (8, 1, 16, 8)).astype(np.int8)
    x = n.b.conv2d(n.x, weights, w_scales=0.01, scale=SCALE, padding="VALID")
    y = n.conv(n.b.reshape(x, (1, 1, 1, 512)), 8)
    z = n.conv(n.cut(x, (0, 0, 0), (32, 1, 8)), 8)
    model = n.b.finish([y, z])
    inputs = [np.random.default_rng(3).integers(-128, 128, (1, 64, 16, 8)).astype(np.int8)]
    for config in (preset("tiny"), BASE):
        assert_equal(compile_model(model, config), model, inputs, config)


def test_a_layer_may_read_beside_what_it_writes() -> None:
    """Parts of one storage are told apart, line by line: the array need not wait for the other."""
    layout = act_layout(5, 8, 8)
    whole = act_layout(5, 24, 8)
    grid = Grid(whole.row_pitch, whole.pixel_pitch, 8, base=64)

    def part(channel: int, rows: tuple[int, int] = (0, 4)) -> Footprint:
        pitches = {"pixel_pitch": whole.pixel_pitch, "row_pitch": whole.row_pitch}
        slab = Slab(
            base=64 + channel, y_first=0, y_end=4, channel_first=0, grid=grid,
            layout=type(layout)(width=5, channels=8, **pitches),
        )  # fmt: skip
        return slab.rows(*rows).footprint

    assert not part(0).overlaps(part(8))
    assert not part(8).overlaps(part(16))
    assert part(8).overlaps(part(8))
    assert not part(8, (0, 2)).overlaps(part(8, (2, 4)))
    assert part(8, (0, 3)).overlaps(part(8, (2, 4)))
    assert part(8).overlaps(Footprint(part(0).place, 0, 4096)), "nothing is known of the other"
    flat = Slab(
        base=64, y_first=0, y_end=1, channel_first=0, grid=grid,
        layout=type(layout)(width=1, channels=480, pixel_pitch=480, row_pitch=480),
    )  # fmt: skip
    assert flat.footprint.overlaps(part(8, (2, 4))), "one pixel of another shape is all of it"


def test_depthwise_readers_still_get_rows_of_an_odd_number_of_lines() -> None:
    n = Net((6, 6, 4))
    x = n.joined([n.conv(n.x, 8), n.conv(n.x, 8)])
    weights = n.rng.integers(-127, 128, (1, 3, 3, 16)).astype(np.int8)
    y = n.b.depthwise_conv2d(x, weights, w_scales=0.01, scale=SCALE)
    program = compile_model(n.b.finish([y]), BASE)
    filters = [c for c in program.segments[0].decode() if isinstance(c, Conv) and c.step_oc]
    assert filters
    assert all(c.mode == Mode.ROWS for c in filters)


def test_random_networks_equal_golden_on_every_machine() -> None:
    compared = 0
    for seed in SEEDS:
        rng = np.random.default_rng([seed, 71])
        case = random_joined_network(rng, depth=int(rng.integers(3, 12)))
        config = CONFIGS[seed % len(CONFIGS)]
        try:
            program = compile_model(case.model, config, keep_tensors=bool(rng.random() < 0.3))
        except CompileError:
            if config not in (SMALL4, SMALL8):
                raise
            continue
        assert_equal(program, case.model, case.inputs, config, seed)
        compared += 1
    assert compared >= len(SEEDS) // 2
