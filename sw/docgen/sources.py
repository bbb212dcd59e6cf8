"""What the figures of the documents are made of: models, programs and records."""

from __future__ import annotations

from functools import cache, cached_property
from pathlib import Path

from celosia.hw.contract.named import resolve_config
from celosia.sw.compiler.build import compile_model
from celosia.sw.docgen.marks import NotHereError
from celosia.sw.energy.record import RecordedEnergy, find_energy
from celosia.sw.program.file import Program
from celosia.sw.report.bench.record import CycleRecord, read_record
from celosia.sw.report.fit import usual_memory

__all__ = ["BENCHMARK", "DIGITS", "Sources"]

BENCHMARK = ("ad01_int8", "kws_int8", "resnet8_int8", "sww_int8", "vww_96_int8")
"""Models of MLPerf Tiny, in the order of the tables."""
DIGITS = "digits_int8"
BESIDE = ("models/keras", "mlperf_tiny/inputs")
"""Folders beside the source tree, in ``shared``: layers as Keras converts them, real inputs."""


class Sources:
    """The source tree, and what is beside it.

    Parameters
    ----------
    root : Path
        The source tree.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.program = cache(self._compile)

    @property
    def records(self) -> Path:
        """Folder of the records."""
        return self.root / "docs/figures"

    @cached_property
    def cycles(self) -> CycleRecord:
        """Cycles on the RTL."""
        return read_record(self.records / "cycles.json")

    @cached_property
    def field(self) -> CycleRecord:
        """Cycles on the RTL of public networks that are not in the source tree."""
        return read_record(self.records / "field.json")

    def energy(self, model: str, config: str) -> RecordedEnergy:
        """Return a recorded energy, with DRAM.

        Raises
        ------
        CelosiaError
            If it is not recorded.
        """
        return find_energy(self.records / "energy.json", model, config)

    def model(self, name: str) -> Path:
        """Return a model's file, by its stem."""
        folder = "digits" if name == DIGITS else "mlperf_tiny"
        return self.root / "examples" / folder / f"{name}.tflite"

    def beside(self, name: str) -> Path:
        """Return a file of the layers that Keras converts, or of the benchmark's real inputs.

        Raises
        ------
        NotHereError
            If it is not there.
        """
        for folder in BESIDE:
            path = self.root.parent / "shared" / folder / name
            if path.is_file():
                return path
        raise NotHereError(
            f"figures made of {name}",
            f"it is not in ../shared/{{{','.join(BESIDE)}}}, beside the source tree",
            "they stay as they are",
        )

    def _compile(self, model: str, config: str) -> Program:
        chosen = resolve_config(config)
        return compile_model(self.model(model), chosen, memory=usual_memory(chosen))
