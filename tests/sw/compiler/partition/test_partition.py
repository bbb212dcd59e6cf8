"""What the NPU does not run is the host's: segments in order, few of them, each with its reason."""

from __future__ import annotations

import random

import numpy as np
import pytest
from celosia.errors import UnsupportedError
from celosia.hw.contract.config import preset
from celosia.sim.models.tflite_builder import ModelBuilder, TensorHandle
from celosia.sw.compiler.build import compile_model
from celosia.sw.compiler.frontends.tflite.convert import load
from celosia.sw.compiler.partition.cluster import cluster
from celosia.sw.compiler.partition.nodes import SourceModel, strongly_connected
from celosia.sw.program.file import Program
from celosia.sw.program.segments import HostSegment, NpuSegment

BASE = preset("base")


def convolution(b: ModelBuilder, x: TensorHandle, channels: int) -> TensorHandle:
    depth = x.shape[-1]
    weights = (np.arange(channels * 9 * depth) % 13 - 6).astype(np.int8)
    shaped = weights.reshape(channels, 3, 3, depth)
    return b.conv2d(x, shaped, None, w_scales=0.02, scale=0.25, padding="SAME")


def log_softmax(b: ModelBuilder, x: TensorHandle) -> TensorHandle:
    """An operator that no part of the NPU computes."""
    return b.operator("LOG_SOFTMAX", [x], x.shape, scale=16 / 256, zero_point=127)


def sandwich(custom: str = "") -> bytes:
    b = ModelBuilder()
    x = b.input((1, 8, 8, 8), scale=0.1)
    y = convolution(b, x, 8)
    y = b.operator(custom, [y], y.shape, scale=0.1) if custom else log_softmax(b, y)
    return b.finish([convolution(b, y, 8)])


def places(program: Program) -> list[str]:
    return ["host" if isinstance(part, HostSegment) else "npu" for part in program.segments]


@pytest.mark.parametrize("seed", range(20))
def test_turns_keep_the_order_and_are_few(seed: int) -> None:
    rng = random.Random(seed)
    count = rng.randint(1, 40)
    where = [rng.choice(["npu", "host"]) for _ in range(count)]
    needs = {
        node: frozenset(rng.sample(range(node), min(node, rng.randint(0, 3))))
        for node in range(count)
    }
    turns = cluster(where, needs)
    done: set[int] = set()
    for place, nodes in turns:
        for node in nodes:
            assert where[node] == place
            assert needs[node] <= done
            done.add(node)
    assert done == set(range(count))
    # A node is as many turns behind the first as places change on the longest way to it.
    changes: list[int] = []
    for node in range(count):
        ways = [changes[need] + (where[need] != where[node]) for need in needs[node]]
        changes.append(max(ways, default=0))
    least = min(
        max(c + (where[n] != first if not needs[n] else 0) for n, c in enumerate(changes)) + 1
        for first in ("npu", "host")
    )
    assert len(turns) <= least + 1
    assert all(a[0] != b[0] for a, b in zip(turns, turns[1:], strict=False))


def test_what_has_to_run_together_takes_in_what_is_between() -> None:
    edges = {0: set(), 1: {0}, 2: {1}, 3: {2}, 4: {3}}
    edges[1].add(3)  # 1 and 3 belong together, 2 is between
    edges[3].add(1)
    assert strongly_connected(edges) == [[0], [1, 2, 3], [4]]


def test_a_host_segment_stands_where_its_operator_does() -> None:
    program = compile_model(sandwich(), BASE)
    assert places(program) == ["npu", "host", "npu"]
    before, host, after = program.segments
    assert isinstance(host, HostSegment)
    assert [info.name for info in host.inputs] == [tensor.name for tensor in before.outputs]
    assert [info.name for info in host.outputs] == [tensor.name for tensor in after.inputs]
    (layer,) = host.layers
    assert (layer.op, layer.runs_on, layer.origin.index) == ("LOG_SOFTMAX", "host", 1)
    assert "the NPU does not have this operator" in layer.reason
    cut = load(host.model, anything=True)
    assert [op.origin.name for op in cut.ops] == ["LOG_SOFTMAX"]
    assert len(cut.tensors) == 2
    assert cut.tensors[cut.outputs[0]].scale == 16 / 256
    # The file holds it, and the bytes depend on the model alone.
    data = program.to_bytes()
    assert Program.from_bytes(data).to_bytes() == data
    assert compile_model(sandwich(), BASE).to_bytes() == data


def test_refused_when_asked_with_all_reasons() -> None:
    with pytest.raises(UnsupportedError, match=r"LOG_SOFTMAX #1 .*: the NPU does not have this"):
        compile_model(sandwich(), BASE, host="refuse")


def test_a_small_island_is_not_worth_the_way() -> None:
    b = ModelBuilder()
    x = b.input((1, 8, 8, 8), scale=0.1)
    y = log_softmax(b, b.logistic(log_softmax(b, convolution(b, x, 8))))
    program = compile_model(b.finish([y]), BASE)
    assert places(program) == ["npu", "host"]
    assert [layer.op for layer in program.segments[1].layers] == [
        "LOG_SOFTMAX", "LOGISTIC", "LOG_SOFTMAX"
    ]  # fmt: skip
    assert "would cost 1,024 bytes in crossings" in program.segments[1].layers[1].reason


def test_a_layer_too_large_for_the_machine_goes_alone() -> None:
    b = ModelBuilder()
    x = b.input((1, 1, 1, 8), scale=0.1)
    y = b.softmax(convolution(b, x, 3000))
    small = preset("nano").with_(act_bytes=2048)
    program = compile_model(b.finish([y]), small)
    layers = {layer.origin.index: layer for layer in program.layers}
    assert set(places(program)) == {"npu", "host"}
    host = [layer for layer in layers.values() if layer.runs_on == "host"]
    assert host
    assert all("activation SRAM" in layer.reason for layer in host)


def test_what_a_machine_lacks_is_the_hosts() -> None:
    """As nano, whose firmware has no room for all operations."""
    b = ModelBuilder()
    x = b.input((1, 8, 8, 8), scale=0.1)
    y = b.max_pool2d(convolution(b, x, 8), size=(2, 2))
    lacking = BASE.with_(operations=tuple(n for n in BASE.operations if n != "MAX"))
    program = compile_model(b.finish([y]), lacking)
    assert places(program) == ["npu", "host"]
    assert "MAX is not among the operations" in program.segments[1].layers[0].reason


def test_shapes_that_the_file_computes_are_constants_on_the_host() -> None:
    """RESHAPE reads a shape that a chain of operators computes; nobody runs the chain."""
    b = ModelBuilder()
    x = b.input((1, 4, 6), scale=0.1)
    one = b.constant(np.array([24], np.int32))
    first = b.constant(np.array([1], np.int32))
    shape = b.operator("CONCATENATION", [first, one], (2,), dtype=np.int32)
    y = b.operator("RESHAPE", [log_softmax(b, x), shape], (1, 24), scale=16 / 256, zero_point=127)
    program = compile_model(b.finish([y]), BASE)
    (host,) = program.segments
    assert isinstance(host, HostSegment)
    assert [layer.op for layer in host.layers][:1] == ["LOG_SOFTMAX"]


def test_constants_and_converted_inputs_belong_to_no_place() -> None:
    b = ModelBuilder()
    x = b.input((1, 4), scale=None, dtype=np.float32)
    q = b.quantize(x, scale=0.1, zero_point=3)
    model = SourceModel(load(b.finish([log_softmax(b, q)]), anything=True))
    assert model.copied == {0}
    assert model.with_copies([1]) == [0, 1]
    assert model.needs(1) == frozenset()
    program = compile_model(b.finish([log_softmax(b, q)]), BASE)
    assert [layer.op for layer in program.layers][:2] == ["QUANTIZE", "LOG_SOFTMAX"]
    assert not any(isinstance(part, NpuSegment) for part in program.segments)
