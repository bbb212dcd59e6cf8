"""The bridge: a serial line on one side, the NPU's registers and system memory on the other."""

from __future__ import annotations

from amaranth.hdl import Module
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from celosia.hw.bus.csr import csr_signature
from celosia.hw.bus.lanes import WordLanes, memory_signature
from celosia.hw.contract.uart import Identity, max_payload_words
from celosia.hw.uart.executor import Executor
from celosia.hw.uart.rate import LineRate, Ticker
from celosia.hw.uart.receiver import FrameReceiver
from celosia.hw.uart.transmitter import FrameTransmitter
from celosia.hw.uart.uart import UartReceiver, UartTransmitter

__all__ = ["UartBridge"]


class UartBridge(Component):
    """Speaks the protocol of ``docs/uart.md``.

    ::

        rx -> UartReceiver -> FrameReceiver -> Executor -> csr, mem
                                                  |
        tx <- UartTransmitter <------ FrameTransmitter

    Everything is in clock domain ``sync``, whose frequency is ``identity.clock_hz``. A request
    is executed only when the whole of it is there and its CRC is right. On `mem` there is one
    access at a time, of a word of 32 bits; addresses without memory should be answered by ``err``.

    Parameters
    ----------
    identity : Identity
        What the board says of itself. ``max_words`` and ``buffer_words`` decide on the size of
        the receive buffer, ``silence_ms`` is counted in cycles of ``clock_hz``; at most four times
        `bus_timeout_cycles` are added.
    bus_timeout_cycles : int
        How long a bus may take to answer at least; at most it is four times as long.
    memory_bits : int
        Width of `mem`: 32, 64 or 128.

    Members
    -------
    rx : In(1)
        Asynchronous.
    tx : Out(1)
    irq : In(1)
        The NPU's interrupt; a rise is reported to the host.
    csr : Out(Wishbone)
        To the NPU's registers.
    mem : Out(Wishbone)
        To system memory: `memory_bits` wide, 4 GiB.

    Raises
    ------
    ValueError
        If the buffer does not hold two requests of ``max_words``, the clock is too slow, or there
        is no time to answer.
    """

    def __init__(
        self, *, identity: Identity, bus_timeout_cycles: int = 1 << 16, memory_bits: int = 32
    ) -> None:
        most = max_payload_words(identity.buffer_words)
        if not 1 <= identity.max_words <= most:
            raise ValueError(
                f"max_words must be 1 to {most} with a buffer of {identity.buffer_words} words,"
                f" not {identity.max_words}"
            )
        if bus_timeout_cycles < 2:
            raise ValueError(f"bus_timeout_cycles must be at least 2, not {bus_timeout_cycles!r}")
        self._identity = identity
        self._bus_timeout_cycles = bus_timeout_cycles
        self._memory_bits = memory_bits
        super().__init__(
            {
                "rx": In(1, init=1),
                "tx": Out(1, init=1),
                "irq": In(1),
                "csr": Out(csr_signature()),
                "mem": Out(memory_signature(memory_bits)),
            }
        )

    @property
    def identity(self) -> Identity:
        """What the board says of itself."""
        return self._identity

    def elaborate(self, platform: object) -> Module:
        m = Module()
        identity = self._identity
        rx = m.submodules.rx = UartReceiver()
        frames = m.submodules.frames = FrameReceiver(buffer_words=identity.buffer_words)
        executor = m.submodules.executor = Executor(identity=identity)
        replies = m.submodules.replies = FrameTransmitter()
        tx = m.submodules.tx = UartTransmitter()
        period_bits = (self._bus_timeout_cycles - 1).bit_length()
        ticker = m.submodules.ticker = Ticker(period_bits=period_bits)
        silence_cycles = identity.silence_ms * (identity.clock_hz // 1000)
        # The first tick comes too soon.
        rate = m.submodules.rate = LineRate(
            clock_hz=identity.clock_hz, silence_ticks=(silence_cycles >> period_bits) + 2
        )
        connect(m, frames.o, executor.i)
        connect(m, executor.o, replies.i)
        connect(m, replies.o, tx.i)
        connect(m, executor.csr, flipped(self.csr))
        lanes = m.submodules.lanes = WordLanes(data_width=self._memory_bits)
        connect(m, executor.mem, lanes.i)
        connect(m, lanes.o, flipped(self.mem))
        m.d.comb += [
            rx.rx.eq(self.rx),
            self.tx.eq(tx.tx),
            rx.increment.eq(rate.increment),
            tx.increment.eq(rate.increment),
            frames.valid.eq(rx.valid),
            frames.data.eq(rx.data),
            frames.error.eq(rx.error),
            # While a reply is on its way the host has no reason to speak.
            rate.good.eq(frames.good | ~tx.idle),
            rate.tick.eq(ticker.tick),
            rate.change.eq(executor.change),
            rate.wanted.eq(executor.increment),
            executor.tick.eq(ticker.tick),
            executor.irq.eq(self.irq),
            replies.give.eq(executor.give_crc),
            replies.restart.eq(executor.restart_crc),
            executor.crc.eq(replies.crc),
            executor.sent.eq(replies.empty & tx.idle),
            executor.dropped.eq(frames.dropped),
            executor.overflows.eq(frames.overflows),
            executor.framing_errors.eq(frames.framing_errors),
        ]
        return m
