"""A model's programs for several machines: each compiled once, and each host part measured once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from celosia.errors import CelosiaError, CompileError, UnsupportedError
from celosia.hw.contract.config import NpuConfig
from celosia.sw.program.file import Program
from celosia.sw.report.host import measure_host, total_milliseconds

__all__ = ["Compile", "Programs"]

Compile = Callable[[NpuConfig], Program]


class Programs:
    """Programs of a model by configuration.

    Parameters
    ----------
    compile_for : callable
        Compiles the model for a configuration.
    known : sequence of Program
        Programs of it that there are already.
    progress : callable
        Is given a few words before something that takes time.
    """

    def __init__(
        self,
        compile_for: Compile,
        known: Sequence[Program] = (),
        progress: Callable[[str], object] = lambda text: None,
    ) -> None:
        self._compile = compile_for
        self._progress = progress
        self._programs: dict[int, Program | CelosiaError] = {
            program.config.hash: program for program in known
        }
        self._host: dict[tuple[tuple[bytes, str], ...], float | None] = {}

    def of(self, config: NpuConfig) -> Program | CelosiaError:
        """Return the program for a configuration, or why there is none."""
        found = self._programs.get(config.hash)
        if found is None:
            self._progress(f"compiling for {config.name}")
            try:
                found = self._compile(config)
            except (CompileError, UnsupportedError) as error:
                found = error
            self._programs[config.hash] = found
        return found

    def host_milliseconds(self, program: Program) -> float | None:
        """Return what the host's operators take; None if that cannot be measured."""
        # Most machines leave the same operators to the host.
        key = tuple((segment.model, segment.kernels) for segment in program.host_segments)
        if key not in self._host:
            if key:
                self._progress("measuring the host's operators")
            self._host[key] = total_milliseconds(measure_host(program))
        return self._host[key]
