# amaranth: UnusedElaboratable=no
"""The processor against an interpreter of its instruction set, with random programs."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import pytest
from amaranth.sim import Simulator
from celosia.hw.nano.assembler import Image
from celosia.hw.nano.instructions import CODE_WORDS, DATA_WORDS, Class, Op, encode
from celosia.hw.nano.processor import Processor

from tests.kit.clocked import simulate

MASK = (1 << 32) - 1
DATA_USED = 64
"""Words that random programs use: few, so that what is written is read."""
HOST_WORDS = range(DATA_USED, DATA_USED + 8)
"""Words that the program never touches: what the host reads there does not depend on time."""
CODE_USED = 120
TAIL_STEPS = 400
"""Instructions after those that count, until there is a WAIT to stop at."""
EDGES = (0, 1, 2, MASK, MASK - 1, 1 << 31, (1 << 31) - 1, 0x8000_0001, 0xFFFF, 0x5555_5555)


def signed(value: int, bits: int) -> int:
    """Return the low bits of `value` as a number with a sign."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


@dataclass
class Interpreter:
    """The instruction set as ``instructions.py`` describes it, an instruction at a time."""

    code: list[int]
    data: list[int]
    counter: int = 0
    accumulator: int = 0
    index: int = 0
    link: int = 0
    events: list[tuple[str, int, int]] = field(default_factory=list)

    def restart(self) -> None:
        self.counter = 0

    def step(self, value: int) -> bool:
        """Carry out one instruction; `value` is what IN reads. Return whether it was a WAIT."""
        word = self.code[self.counter]
        after = (self.counter + 1) & 0xFFF
        kind, argument = word >> 12, word & 0xFFF
        a = self.accumulator
        place = argument & 0x1FF
        if kind == 0:
            operand = self.data[place]
            function = argument >> 9
            if function >= 6:
                self.events.append(("factor_a" if function == 6 else "factor_b", 0, operand))
            else:
                self.accumulator = (
                    operand, a + operand, a - operand, a & operand, a | operand, a ^ operand,
                )[function] & MASK  # fmt: skip
        elif kind == 1:
            self.data[place] = a
        elif kind == 2:
            self.accumulator = signed(argument, 12) & MASK
        elif kind == 3:
            self.accumulator = (a + signed(argument, 12)) & MASK
        elif kind == 4:
            after = argument
        elif kind in (5, 6, 7, 8):
            taken = (a == 0, a != 0, a >> 31 == 1, a >> 31 == 0)[kind - 5]
            after = argument if taken else after
        elif kind == 9:
            self.link, after = after, argument
        else:
            after = self._other(argument >> 8, argument & 0xFF, after, value)
        self.counter = after
        return word >> 8 == 0xA8

    def _other(self, function: int, port: int, after: int, value: int) -> int:
        a = self.accumulator
        if function == 0:
            self.events.append(("read", port, 0))
            self.accumulator = value
        elif function == 1:
            self.events.append(("write", port, a))
        elif function == 2:
            self.index = a & 0x1FF
        elif function == 3:
            self.accumulator = self.data[self.index]
        elif function == 4:
            self.data[self.index] = a
        elif function == 5:
            after = self.link
        elif function == 6:
            self.accumulator = self.link
        elif function == 7:
            after = a & 0xFFF
        return after


def random_code(rng: random.Random) -> list[int]:
    """Return a program that goes on for ever and stays within its words of code and data.

    Where it goes to what A or L hold, both hold addresses of code; X is below `DATA_USED`.
    """
    code: list[int] = [encode(Op.IMMEDIATE, 3), encode(Op.INDEX), encode(Op.CALL, 3)]
    plain = [
        Op.LOAD, Op.ADD, Op.SUB, Op.AND, Op.OR, Op.XOR, Op.FACTOR_A, Op.FACTOR_B, Op.STORE,
        Op.IMMEDIATE, Op.ADD_IMMEDIATE, Op.JUMP, Op.JUMP_ZERO, Op.JUMP_NONZERO, Op.JUMP_NEGATIVE,
        Op.JUMP_POSITIVE, Op.CALL, Op.IN, Op.OUT, Op.LOAD_INDEXED, Op.STORE_INDEXED, Op.LINK,
        Op.WAIT,
    ]  # fmt: skip
    while len(code) < CODE_USED - 2:
        kind = rng.random()
        if kind < 0.05:
            code += [encode(Op.IMMEDIATE, rng.randrange(DATA_USED)), encode(Op.INDEX)]
        elif kind < 0.08:
            code += [encode(Op.IMMEDIATE, rng.randrange(CODE_USED)), encode(Op.JUMP_TO_A)]
        elif kind < 0.11:
            code += [encode(Op.CALL, len(code) + 2), encode(Op.IN, 5), encode(Op.RETURN)]
        else:
            code.append(random_instruction(rng, rng.choice(plain), len(code)))
    return [*code[: CODE_USED - 1], encode(Op.JUMP, 0)]


def random_instruction(rng: random.Random, op: Op, place: int) -> int:
    """Return an instruction; most jumps lead forward, so that few programs go in circles."""
    argument = 0
    if op in (Op.IMMEDIATE, Op.ADD_IMMEDIATE):
        argument = rng.choice([0, 1, -1, 2047, -2048, rng.randint(-2048, 2047)])
    elif Op.JUMP <= op <= Op.CALL:
        near = min(place + rng.randint(1, 6), CODE_USED - 1)
        argument = near if rng.random() < 0.9 else rng.randrange(CODE_USED)
    elif op in (Op.IN, Op.OUT):
        argument = rng.randrange(256)
    elif op <= Op.STORE:
        argument = rng.randrange(DATA_USED)
    return encode(op, argument)


def sound(code: list[int], data: list[int], reads: list[int], steps: int) -> bool:
    """Whether a program stays in its code, and in no short loop.

    A jump into the middle of a pair may lead it astray.
    """
    model = Interpreter(code, list(data))
    waits = 0
    visited = set()
    for step in range(steps + TAIL_STEPS):
        if model.counter >= len(code) or model.index >= DATA_USED:
            return False
        if step < steps:
            visited.add(model.counter)
        waits += model.step(reads[step % len(reads)]) and step >= steps
    kinds = {code[address] & (0xFE00 if code[address] < 0x1000 else 0xF000) for address in visited}
    others = {code[address] >> 8 for address in visited if code[address] >> 12 == Class.OTHER}
    return waits > 1 and len(visited) > 60 and len(kinds | others) > 20


def random_program(rng: random.Random, steps: int) -> tuple[list[int], list[int], list[int]]:
    while True:
        code = random_code(rng)
        data = [rng.choice([*EDGES, rng.getrandbits(32)]) for _ in range(DATA_USED)]
        data += [rng.getrandbits(32) for _ in HOST_WORDS]
        reads = [rng.choice([*EDGES, rng.getrandbits(32)]) for _ in range(97)]
        if sound(code, data, reads, steps):
            return code, data, reads


@pytest.mark.parametrize("seed", range(8))
def test_random_programs(seed: int) -> None:
    """What is written to ports, in order; then the whole of data memory, as the host reads it."""
    rng = random.Random(seed)
    steps = 400
    code, data, reads = random_program(rng, steps)
    dut = Processor(Image(tuple(code), tuple(data), {}, {}))
    model = Interpreter(code, list(data))
    assert len({word >> 8 for word in code}) > 20

    async def bench(ctx: Any) -> None:
        done = 0
        # Power-on: a cycle in which the first instruction is read.
        await ctx.tick()
        while done < steps or model.code[model.counter] != encode(Op.WAIT):
            # The second cycle of an instruction; its first one is over.
            is_wait = model.code[model.counter] == encode(Op.WAIT)
            held = is_wait and rng.random() < 0.7
            ctx.set(dut.hold, held if is_wait else rng.random() < 0.5)
            value = reads[done % len(reads)]
            ctx.set(dut.read_data, value)
            assert ctx.get(dut.host_turn)
            before = len(model.events)
            if not held:
                model.step(value)
            found = [
                (name, ctx.get(dut.port) if port else 0, ctx.get(value) if value is not None else 0)
                for name, flag, port, value in (
                    ("read", dut.read, True, None),
                    ("write", dut.write, True, dut.write_data),
                    ("factor_a", dut.factor_a, False, dut.factor),
                    ("factor_b", dut.factor_b, False, dut.factor),
                )
                if ctx.get(flag)
            ]
            assert found == model.events[before:], f"instruction {done}"
            done += not held
            await ctx.tick()
            # Its first cycle: nothing is carried out.
            assert not ctx.get(dut.host_turn)
            assert not ctx.get(dut.read | dut.write | dut.factor_a | dut.factor_b)
            await ctx.tick()
        # It stays in the WAIT.
        ctx.set(dut.hold, 1)
        for address in range(DATA_USED):
            while not ctx.get(dut.host_turn):
                await ctx.tick()
            ctx.set(dut.host_address, address)
            await ctx.tick()
            assert ctx.get(dut.host_data) == model.data[address], f"word {address}"

    simulate(dut, bench)
    assert len(model.events) > 20


@pytest.mark.parametrize("seed", range(3))
def test_the_host_reads_and_writes_meanwhile(seed: int) -> None:
    """Words of its own, byte by byte; the program does not notice."""
    rng = random.Random(100 + seed)
    steps = 800
    code, data, reads = random_program(rng, steps)
    dut = Processor(Image(tuple(code), tuple(data), {}, {}))
    model = Interpreter(code, list(data))
    model_host = {address: data[address] for address in HOST_WORDS}
    checked = 0
    ended = False

    async def program(ctx: Any) -> None:
        await ctx.tick()
        for step in range(steps):
            ctx.set(dut.read_data, reads[step % len(reads)])
            before = len(model.events)
            model.step(reads[step % len(reads)])
            for name, port, value in model.events[before:]:
                if name == "write":
                    assert ctx.get(dut.write)
                    assert (ctx.get(dut.port), ctx.get(dut.write_data)) == (port, value)
            await ctx.tick()
            await ctx.tick()
        nonlocal ended
        ended = True

    async def host(ctx: Any) -> None:
        nonlocal checked
        expected: int | None = None
        while not ended:
            if expected is not None:
                assert ctx.get(dut.host_data) == expected
                checked += 1
            address = rng.choice(HOST_WORDS)
            ctx.set(dut.host_address, address)
            ctx.set(dut.host_write_data, rng.getrandbits(32))
            mask = rng.getrandbits(4) if rng.random() < 0.5 else 0
            ctx.set(dut.host_write, mask)
            turn = ctx.get(dut.host_turn)
            expected = model_host[address] if turn else None
            if not turn:
                bits = sum(0xFF << 8 * lane for lane in range(4) if mask >> lane & 1)
                value = ctx.get(dut.host_write_data)
                model_host[address] = model_host[address] & ~bits | value & bits
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-8)
    simulator.add_testbench(program)
    simulator.add_testbench(host, background=True)
    simulator.run()
    assert checked > steps // 2


@pytest.mark.parametrize("seed", range(4))
def test_restart_at_any_time(seed: int) -> None:
    """In either cycle of any instruction; the first one may have an operand then."""
    rng = random.Random(200 + seed)
    code = [encode(Op.LOAD, 7), encode(Op.OUT, 1), encode(Op.ADD_IMMEDIATE, 1)]
    code += [encode(Op.STORE, 7), encode(Op.JUMP, 1)]
    data = [0] * 7 + [1000]
    dut = Processor(Image(tuple(code), tuple(data), {}, {}))

    async def bench(ctx: Any) -> None:
        value = 1000
        ctx.set(dut.restart, 1)
        await ctx.tick()
        for _ in range(40):
            ctx.set(dut.restart, 0)
            cycles = rng.randint(2, 40)
            written = []
            for cycle in range(cycles):
                ctx.set(dut.restart, cycle == cycles - 1)
                if ctx.get(dut.write):
                    written.append(ctx.get(dut.write_data))
                await ctx.tick()
            # LOAD; then OUT, ADD, STORE, JUMP over and over, two cycles each.
            outs = max(0, (cycles // 2 - 2) // 4 + 1) if cycles // 2 >= 2 else 0
            stores = max(0, (cycles // 2 - 4) // 4 + 1) if cycles // 2 >= 4 else 0
            assert written == [value + n for n in range(outs)]
            value += stores

    simulate(dut, bench)


def test_code_of_both_memories() -> None:
    """The last words of each, one after the other, and back by CALL and RETURN."""
    edge = 2048
    code = [encode(Op.IMMEDIATE)] * CODE_WORDS
    code[0] = encode(Op.JUMP, edge - 1)
    code[edge - 1] = encode(Op.IMMEDIATE, 1)
    code[edge] = encode(Op.OUT, 1)
    code[edge + 1] = encode(Op.CALL, CODE_WORDS - 2)
    code[CODE_WORDS - 2] = encode(Op.ADD_IMMEDIATE, 1)
    code[CODE_WORDS - 1] = encode(Op.RETURN)
    code[edge + 2] = encode(Op.LINK)
    code[edge + 3] = encode(Op.OUT, 2)
    code[edge + 4] = encode(Op.JUMP, 0)
    dut = Processor(Image(tuple(code), (), {}, {}))
    written: list[tuple[int, int]] = []

    async def bench(ctx: Any) -> None:
        for _ in range(41):
            if ctx.get(dut.write):
                written.append((ctx.get(dut.port), ctx.get(dut.write_data)))
            await ctx.tick()

    simulate(dut, bench)
    assert written[:4] == [(1, 1), (2, edge + 2), (1, 1), (2, edge + 2)]


def test_every_word_of_data_is_reached() -> None:
    """By argument and by index; an index has as many bits as there are words."""
    last = DATA_WORDS - 1
    code = [
        encode(Op.IMMEDIATE, -1), encode(Op.INDEX), encode(Op.LOAD_INDEXED), encode(Op.OUT, 0),
        encode(Op.LOAD, last), encode(Op.ADD_IMMEDIATE, 5), encode(Op.STORE_INDEXED),
        encode(Op.LOAD, last), encode(Op.OUT, 0), encode(Op.JUMP, 9),
    ]  # fmt: skip
    dut = Processor(Image(tuple(code), (0,) * last + (77,), {}, {}))
    written = []

    async def bench(ctx: Any) -> None:
        for _ in range(30):
            if ctx.get(dut.write):
                written.append(ctx.get(dut.write_data))
            await ctx.tick()

    simulate(dut, bench)
    assert written == [77, 82]
