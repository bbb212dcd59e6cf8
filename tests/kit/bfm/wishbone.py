"""Wishbone B4: a memory with random latency, and a driver of a register bus."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass
from typing import Any

from tests.kit.bfm.cycles import Cycles, Pins

__all__ = ["BusError", "RegisterBus", "WishboneMemory"]

CTI_INCR_BURST = 0b010


@dataclass
class _Request:
    """A request that the memory has taken."""

    due: int
    read: int | None
    error: bool


class WishboneMemory:
    """System memory on the machine's pipelined initiator, with checks of the protocol.

    Answers come in order, each at least `latency` cycles after its request, at random later.
    Checked: no strobe outside a cycle, a stalled request stays as it is, no more requests in
    flight than allowed, an incrementing burst goes on with the next word.

    Parameters
    ----------
    cycles : Cycles
        The agent adds itself.
    dut : cocotb handle
    prefix : str
        Name of the interface.
    data : bytearray
        Contents; shared with the test.
    max_outstanding : int
        Reads and writes that may be in flight.
    seed : int
        Of everything random.

    Attributes
    ----------
    latency : tuple of int
        Least and greatest number of cycles from a request to its answer, at least 1.
    stall, delay : float
        Chance of a stalled cycle; of holding back a due answer for a cycle.
    error_words : set of int
        Word addresses answered with ``err``.
    mute : bool
        Requests are taken and never answered.
    reads, writes : int
        Requests taken.
    """

    PORTS = (
        "cyc", "stb", "we", "adr", "dat_w", "sel", "cti", "bte", "stall", "ack", "err", "dat_r"
    )  # fmt: skip

    def __init__(
        self,
        cycles: Cycles,
        dut: Any,
        prefix: str,
        data: bytearray,
        *,
        max_outstanding: int,
        seed: int,
        latency: tuple[int, int] = (1, 12),
        stall: float = 0.2,
        delay: float = 0.2,
    ) -> None:
        self.data = data
        self.latency, self.stall, self.delay = latency, stall, delay
        self.error_words: set[int] = set()
        self.mute = False
        self.reads = self.writes = 0
        self._cycles = cycles
        self._pins = Pins(dut, prefix, self.PORTS)
        self._random = random.Random(seed)
        self._max_outstanding = max_outstanding
        self._pending: deque[_Request] = deque()
        self._stalled = False
        self._held: tuple[int, ...] | None = None
        self._burst_next: int | None = None
        self._bits = self._pins.width("dat_w")
        self._bytes = self._bits // 8
        cycles.agents.append(self)

    @property
    def in_flight(self) -> int:
        """Requests that have not been answered."""
        return len(self._pending)

    def sample(self) -> None:
        get = self._pins.get
        if not get("cyc"):
            assert not get("stb"), "a strobe outside a bus cycle"
            self._pending.clear()
            self._held = self._burst_next = None
            return
        if not get("stb"):
            assert self._held is None, "a stalled request was withdrawn"
            return
        request = tuple(get(name) for name in ("we", "adr", "sel", "cti", "bte", "dat_w"))
        if not request[0]:
            request = request[:-1]  # dat_w means nothing
        assert self._held in (None, request), "a stalled request has changed"
        self._held = request if self._stalled else None
        if not self._stalled:
            self._take(*request)

    def drive(self) -> None:
        pins = self._pins
        self._stalled = self._random.random() < self.stall
        pins.set("stall", self._stalled)
        answer = None
        if (
            self._pending
            and not self.mute
            and self._pending[0].due <= self._cycles.now
            and self._random.random() >= self.delay
        ):
            answer = self._pending.popleft()
        pins.set("ack", answer is not None and not answer.error)
        pins.set("err", answer is not None and answer.error)
        # Between the answers the data lines carry nonsense.
        read = answer.read if answer is not None else None
        pins.set("dat_r", self._random.getrandbits(self._bits) if read is None else read)

    def _take(self, we: int, adr: int, sel: int, cti: int, bte: int, dat_w: int = 0) -> None:
        assert self._burst_next in (None, adr), f"the burst should go on with {self._burst_next}"
        assert bte == 0, "bursts are linear"
        self._burst_next = adr + 1 if cti == CTI_INCR_BURST else None
        least, greatest = self.latency
        error = adr in self.error_words
        read = None
        base = adr * self._bytes
        if not error:
            assert base + self._bytes <= len(self.data), f"word 0x{adr:x} is not in the memory"
            if we:
                word = dat_w.to_bytes(self._bytes, "little")
                for lane in range(self._bytes):
                    if sel >> lane & 1:
                        self.data[base + lane] = word[lane]
            else:
                read = int.from_bytes(self.data[base : base + self._bytes], "little")
        due = self._cycles.now + self._random.randint(least, greatest)
        self._pending.append(_Request(due, read, error))
        assert len(self._pending) <= self._max_outstanding, "too many requests in flight"
        self.writes += we
        self.reads += not we


class BusError(Exception):
    """The target has answered with ``err``."""


class RegisterBus:
    """Initiator of a 32-bit register bus: one access at a time, with random gaps.

    Each access is made in classic mode (the strobe stays until the answer) or in pipelined mode
    (it stays until it is not stalled), by chance; in gaps the cycle stays open, by chance, and
    the other lines carry nonsense.

    Parameters
    ----------
    cycles : Cycles
        The agent adds itself.
    dut : cocotb handle
    prefix : str
        Name of the interface.
    seed : int
    max_gap : int
        Greatest number of idle cycles before an access.
    answer_limit : int
        Cycles within which the answer has to come.
    """

    PORTS = ("cyc", "stb", "we", "adr", "dat_w", "sel", "stall", "ack", "err", "dat_r")

    def __init__(
        self,
        cycles: Cycles,
        dut: Any,
        prefix: str,
        *,
        seed: int,
        max_gap: int = 4,
        answer_limit: int = 20,
    ) -> None:
        self._cycles = cycles
        self._pins = Pins(dut, prefix, self.PORTS)
        self._random = random.Random(seed)
        self._max_gap, self._answer_limit = max_gap, answer_limit
        self._access: tuple[int, int, int, int] | None = None  # we, adr, dat_w, sel
        self._gap = 0
        self._strobe = self._classic = self._open = False
        self._since = 0
        self._answer: tuple[bool, int] | None = None
        self.adr_bits = self._pins.width("adr")
        cycles.agents.append(self)

    async def read(self, address: int) -> int:
        """Return the register at a byte address.

        Raises
        ------
        BusError
            If the target says so.
        """
        return await self._run(0, address, self._random.getrandbits(32), 15)

    async def write(self, address: int, value: int, sel: int = 15) -> None:
        """Write the bytes that `sel` names of the register at a byte address.

        Raises
        ------
        BusError
            If the target says so.
        """
        await self._run(1, address, value, sel)

    async def _run(self, we: int, address: int, value: int, sel: int) -> int:
        assert self._access is None, "one access at a time"
        self._gap = self._random.randint(0, self._max_gap)
        self._classic = self._random.random() < 0.5
        self._answer = None
        self._access = (we, address // 4, value, sel)
        await self._cycles.until(lambda: self._answer is not None)
        assert self._answer is not None
        failed, data = self._answer
        if failed:
            raise BusError(f"address 0x{address:x}")
        return data

    def sample(self) -> None:
        get = self._pins.get
        ack, err = get("ack"), get("err")
        assert not (ack and err), "both ack and err"
        if not self._open:
            assert not ack, "an answer to no request"
            assert not err, "an error of no request"
            return
        if self._strobe and not self._classic and not get("stall"):
            self._strobe = False
        if ack or err:
            self._answer = (bool(err), get("dat_r"))
            self._access = None
            self._strobe = self._open = False
        else:
            assert self._cycles.now - self._since < self._answer_limit, "no answer"

    def drive(self) -> None:
        pins, rng = self._pins, self._random
        if self._access is not None and not self._open:
            if self._gap:
                self._gap -= 1
            else:
                self._open = self._strobe = True
                self._since = self._cycles.now
                we, adr, dat_w, sel = self._access
                for name, value in (("we", we), ("adr", adr), ("dat_w", dat_w), ("sel", sel)):
                    pins.set(name, value)
        pins.set("cyc", self._open or rng.random() < 0.5)
        pins.set("stb", self._strobe)
        if not self._strobe:
            pins.set("we", rng.getrandbits(1))
            pins.set("adr", rng.getrandbits(self.adr_bits))
            pins.set("dat_w", rng.getrandbits(32))
            pins.set("sel", rng.getrandbits(4))
