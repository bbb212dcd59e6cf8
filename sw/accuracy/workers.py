"""Inferences in several processes, for models that keep nothing from one to the next."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from celosia.errors import CelosiaError, DeviceError, InputError
from celosia.sw.compiler.frontends.tflite.state import ALTERING
from celosia.sw.driver.device import Device
from celosia.sw.driver.result import Result
from celosia.sw.program.file import Program
from celosia.sw.report.samples import Sample
from celosia.sw.runtime.session import Session

__all__ = ["require_independent", "run_in_processes"]

_END_S = 5.0
"""What a process gets to end after it was asked to."""


def require_independent(program: Program) -> None:
    """Refuse what keeps state: its inferences are a sequence, which cannot be divided.

    Raises
    ------
    InputError
        Saying what keeps it.
    """
    kept = [info.name for info in program.persistent]
    kept += [
        layer.op
        for segment in program.host_segments
        for layer in segment.layers
        if layer.op in ALTERING
    ]
    if kept:
        raise InputError(
            "--jobs",
            f"the model keeps state ({kept[0]!r}): each inference begins with what the one before"
            " left, so they are run one after the other",
            "leave --jobs out",
        )


def run_in_processes(
    program: Program,
    open_device: Callable[[], Device],
    samples: Sequence[Sample],
    jobs: int,
    progress: Callable[[int], None],
) -> list[Result]:
    """Run samples in several processes, each with a device of its own.

    Parameters
    ----------
    program : Program
        Without variables (`require_independent`).
    open_device : callable
        Opens a device; is sent to the processes.
    samples : sequence
        The inputs.
    jobs : int
        Processes; no more than there are samples.
    progress : callable
        Called with the number of samples that are done.

    Returns
    -------
    list of Result
        Equal to those of one process, in the order of the samples. No process is left, whatever
        happens.

    Raises
    ------
    CelosiaError
        The first that a process met.
    """
    context = multiprocessing.get_context("spawn")
    jobs = min(jobs, len(samples))
    bounds = [len(samples) * job // jobs for job in range(jobs + 1)]
    found: list[list[Result]] = [[] for _ in range(jobs)]
    processes: list[BaseProcess] = []
    ends: dict[Connection, int] = {}
    try:
        for job in range(jobs):
            mine, its = context.Pipe(duplex=False)
            share = list(samples[bounds[job] : bounds[job + 1]])
            process = context.Process(
                target=_work, args=(its, program, open_device, share), daemon=True
            )
            process.start()
            its.close()  # so that the end of the process is the end of the pipe
            processes.append(process)
            ends[mine] = job
        while ends:
            for end in wait(list(ends)):
                assert isinstance(end, Connection)
                _take(end, ends, found)
            progress(sum(map(len, found)))
        for job, results in enumerate(found):
            if len(results) != bounds[job + 1] - bounds[job]:
                raise DeviceError(
                    f"process {job + 1} of {jobs}",
                    "it ended before its samples were done",
                    "look at what it printed, and at the memory that is free",
                )
    finally:
        for child in processes:
            child.terminate()
        for child in processes:
            child.join(_END_S)
            if child.is_alive():
                child.kill()
                child.join()
    return [result for results in found for result in results]


def _take(end: Connection, ends: dict[Connection, int], found: list[list[Result]]) -> None:
    """Take what a process has sent: a result, or why there are no more."""
    try:
        message = end.recv()
    except EOFError:
        del ends[end]
        end.close()
        return
    if isinstance(message, Result):
        found[ends[end]].append(message)
    else:
        raise CelosiaError(*message)


def _work(
    end: Connection, program: Program, open_device: Callable[[], Device], samples: list[Any]
) -> None:
    """Run some samples; the body of a process."""
    # Ctrl-C goes to all: the first process ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with open_device() as device, Session(program, device) as session:
            for result in session.run_many(samples):
                end.send(result)
    except CelosiaError as error:
        end.send((error.what, error.cause, error.remedy))
    except BrokenPipeError:
        pass  # nobody waits for it any more
    finally:
        end.close()
