"""Parts: chosen in one place, with the same ports whatever is chosen."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from amaranth.hdl import Fragment, Module, Value
from amaranth.lib.wiring import Component
from celosia.hw import parts
from celosia.hw.contract.config import PRESETS, NpuConfig
from celosia.hw.contract.parts import COMPACT, FULL, LEAN, Part
from celosia.hw.control.queue import SeparateQueues
from celosia.hw.dma.engines import Transfers
from celosia.hw.npu import Npu

HW = Path(parts.__file__).resolve().parent
CHOOSERS = (HW / "parts.py", HW / "contract")
MOST_ASKING = 15
"""Places outside of :mod:`celosia.hw.parts` that may look at what was chosen."""

SIZES = NpuConfig(act_bytes=16384, wgt_bytes=8192, acc_depth=64, lanes=2)
SMALL, FAST = SIZES.with_(compact=True), SIZES.with_(compact=False)

MAKERS: dict[str, Callable[[NpuConfig], Any]] = {
    "accumulator": lambda config: parts.accumulator(config, sum_bits=19),
    "act_sram": parts.act_sram,
    "bus_arbiter": lambda config: parts.bus_arbiter(config, ports=3),
    "command_fetch": parts.command_fetch,
    "command_queues": parts.command_queues,
    "counters": parts.counters,
    "error_latch": parts.error_latch,
    "feed": lambda config: parts.feed(config, tag_delay_cycles=8),
    "held_command": parts.held_command,
    "line_memory": lambda config: parts.line_memory(config, lines=64, reader="vector"),
    "loop_counter": lambda config: parts.loop_counter(config)(width_bits=12),
    "param_loader": parts.param_loader,
    "pipeline": parts.pipeline,
    "shell_registers": parts.shell_registers,
    "softmax_unit": parts.softmax_unit,
    "stage_buffer": lambda config: parts.stage_buffer(config)(12),
    "step_buffer": lambda config: parts.step_buffer(config, 12),
    "systolic_array": parts.systolic_array,
    "table": parts.table,
    "token_gates": parts.token_gates,
    "transfers": parts.transfers,
    "second_walker": parts.second_walker,
    "walker": lambda config: parts.walker(config, windowed=True),
    "weight_loader": parts.weight_loader,
}


def asks(node: ast.AST) -> bool:
    """Return whether an expression looks at a choice: ``x.compact``, ``x.parts`` or ``Part.X``."""
    return any(
        (isinstance(part, ast.Attribute) and part.attr in ("compact", "parts", "_compact"))
        or (isinstance(part, ast.Name) and part.id in ("compact", "Part"))
        for part in ast.walk(node)
    )


def asking(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the smallest expressions in a source that look at a choice."""
    for node in ast.walk(tree):
        # An import is no question, nor is `parts.table(config)`, by which a part is taken.
        if isinstance(node, (ast.Attribute, ast.Name)) and asks(node):
            inner = node.value if isinstance(node, ast.Attribute) else None
            if inner is None or not asks(inner):
                yield node


def branches(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the branches in functions called ``elaborate`` that hang on a choice."""
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef) and function.name == "elaborate":
            for node in ast.walk(function):
                test = node.test if isinstance(node, (ast.If, ast.IfExp)) else node
                if isinstance(node, (ast.If, ast.IfExp, ast.BoolOp)) and asks(test):
                    yield node


def conditional_ports(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the branches with a port in them that hang on a configuration."""
    for node in ast.walk(tree):
        if not isinstance(node, (ast.If, ast.IfExp)):
            continue
        about = {name.id for name in ast.walk(node.test) if isinstance(name, ast.Name)}
        about |= {name.attr for name in ast.walk(node.test) if isinstance(name, ast.Attribute)}
        has_port = any(
            isinstance(call, ast.Call)
            and isinstance(call.func, ast.Name)
            and call.func.id in ("In", "Out")
            for branch in ([node.body, node.orelse] if isinstance(node, ast.IfExp) else node.body)
            for call in ast.walk(branch)
        )
        if has_port and (about & {"config", "_config"} or asks(node.test)):
            yield node


def sources() -> dict[str, ast.Module]:
    """Return the parsed sources of the gateware, but for those that choose."""
    found = {}
    for path in sorted(HW.rglob("*.py")):
        if not any(path == chooser or chooser in path.parents for chooser in CHOOSERS):
            found[str(path.relative_to(HW))] = ast.parse(path.read_text(encoding="utf-8"))
    assert len(found) > 80
    return found


def test_few_places_ask_what_was_chosen() -> None:
    places = [
        f"{name}:{node.lineno}"
        for name, tree in sources().items()
        for node in asking(tree)
        if isinstance(node, ast.expr)
    ]
    assert len(places) <= MOST_ASKING, places


def test_elaborate_does_not_branch_on_a_choice() -> None:
    found = [name for name, tree in sources().items() for _ in branches(tree)]
    assert not found


def test_no_port_exists_for_some_configurations_only() -> None:
    found = [name for name, tree in sources().items() for _ in conditional_ports(tree)]
    assert not found


def test_what_must_not_be_is_found() -> None:
    """The searches see what they are to see."""
    tree = ast.parse(
        "class A:\n"
        "    def __init__(self, config):\n"
        "        super().__init__({'x': In(1)} | ({'y': Out(1)} if config.compact else {}))\n"
        "    def elaborate(self, platform):\n"
        "        if Part.ONE_SEGMENT in self._config.parts:\n"
        "            pass\n"
        "        x = 1 if self._config.compact else 2\n"
    )
    assert len(list(asking(tree))) == 4
    assert len(list(branches(tree))) == 2
    assert len(list(conditional_ports(tree))) == 1
    quiet = ast.parse("def elaborate(self):\n    x = parts.table(self._config)\n")
    assert not [*asking(quiet), *branches(quiet), *conditional_ports(quiet)]


def test_every_part_is_chosen_somewhere() -> None:
    chosen = set()
    for path in (HW / "parts.py", HW / "contract" / "config.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "Part":
                chosen.add(node.attr)
    assert chosen == {part.name for part in Part}


def test_variants_do_not_import_the_choice() -> None:
    """What `celosia.hw.parts` imports, and so on, imports nothing from it."""
    pending, seen = ["parts"], set()
    while pending:
        module = pending.pop()
        seen.add(module)
        path = HW.joinpath(*module.split(".")).with_suffix(".py")
        if not path.exists():
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("celosia.hw"):
                inside = (node.module or "").removeprefix("celosia.hw").removeprefix(".")
                names = [inside] if inside else [alias.name for alias in node.names]
                assert "parts" not in names, f"{module} imports the choice of its own parts"
                pending += [name for name in names if name not in seen]
    assert "vector.lane" in seen


def ports_of(part: Any) -> list[Any]:
    """Return path, direction and shape of every port; of no component, what it offers."""
    if isinstance(part, Component):
        return sorted(
            (tuple(str(step) for step in path), str(member.flow), len(Value.cast(value)))
            for path, member, value in part.signature.flatten(part)
        )
    return sorted(name for name in dir(part) if not name.startswith("_"))


def made(maker: str, config: NpuConfig) -> Any:
    """Return a part that can be elaborated, or several in one."""
    part = MAKERS[maker](config)
    m = Module()
    if isinstance(part, Component):
        m.submodules.part = part
    elif isinstance(part, Transfers):
        m.submodules += part.engines
    elif isinstance(part, SeparateQueues):
        part.add_to(m)
    Fragment.get(m, None)
    return part


def test_all_makers_are_tried() -> None:
    assert set(MAKERS) | {"has_enables"} == set(parts.__all__)


@pytest.mark.parametrize("maker", list(MAKERS))
def test_variants_have_the_same_ports(maker: str) -> None:
    small, fast = made(maker, SMALL), made(maker, FAST)
    assert ports_of(fast)
    if isinstance(fast, Component) or not isinstance(small, Component):
        assert ports_of(small) == ports_of(fast)
        return
    # Several components as if they were one.
    assert {path[0] for path, _, _ in ports_of(small)} <= set(ports_of(fast))
    assert all(hasattr(small, name) for name in ports_of(fast))


def test_what_a_part_needs_is_a_part() -> None:
    for part in Part:
        assert {Part[name] for name in part.value.needs} <= set(Part) - {part}
        assert all((part.value.does, part.value.saves, part.value.costs))


@pytest.mark.parametrize("part", list(Part), ids=lambda part: part.name)
def test_a_machine_with_one_small_part_can_be_made(part: Part) -> None:
    sizes = SIZES.with_(rows=4, cols=4, bus_bits=32, lanes=2)
    config = sizes.with_(compact=(part.name, *part.value.needs))
    assert config.parts == {part, *(Part[name] for name in part.value.needs)}
    # Elaborated, with every signal driven in one place only.
    design = Fragment.get(Npu(config), None).prepare()
    assert len(design.fragments) > 30


def test_parts_of_the_presets() -> None:
    assert PRESETS["tiny"].parts == COMPACT == set(Part)
    assert PRESETS["base"].parts == LEAN < COMPACT
    for name in ("nano", "large"):
        assert PRESETS[name].parts == FULL == set()
    # What is fast in it is what depthwise convolutions and the clock need.
    fast = {Part.DIRECT_WEIGHTS, Part.ONE_SEGMENT, Part.COMBINATIONAL_PRODUCTS}
    fast |= {Part.SINGLE_STEPS, Part.PLAIN_STAGES, Part.PLAIN_ERRORS}
    assert PRESETS["wide"].parts == COMPACT - fast
