"""What Arm's compiler Vela expects of an Ethos, where it is installed (extra ``vela``)."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

__all__ = ["FAMILIES", "vela_cycles"]

FAMILIES = {
    "ethos_u55": ("ethos-u55", "Ethos_U55_High_End_Embedded", (32, 64, 128, 256)),
    "ethos_u65": ("ethos-u65", "Ethos_U65_High_End", (256, 512)),
    "ethos_u85": ("ethos-u85", "Ethos_U85_SYS_Flash_High", (128, 256, 512, 1024, 2048)),
}
"""Vela's name of an accelerator, its system configuration, and the MACs a cycle that there are."""
TIME_OUT_S = 300.0


def vela_cycles(model: bytes, family: str, macs: int) -> int | None:
    """Return Vela's estimate of the cycles of an inference, everything in SRAM.

    Parameters
    ----------
    model : bytes
        The ``.tflite`` file.
    family : str
        Of `FAMILIES`.
    macs : int
        A cycle.

    Returns
    -------
    int or None
        None without Vela, without such an accelerator, and where Vela refuses the model.
    """
    tool = _tool()
    if tool is None or macs not in FAMILIES[family][2]:
        return None
    return _estimate(tool, model, family, macs)


@cache
def _tool() -> Path | None:
    beside = Path(sys.executable).with_name("vela")
    found = shutil.which("vela") or (str(beside) if beside.is_file() else None)
    return None if found is None else Path(found)


@cache
def _estimate(tool: Path, model: bytes, family: str, macs: int) -> int | None:
    name, system, _ = FAMILIES[family]
    with tempfile.TemporaryDirectory(prefix="celosia-") as folder:
        path = Path(folder) / "model.tflite"
        path.write_bytes(model)
        command = [
            *(str(tool), str(path), "--output-dir", folder, "--config", "Arm/vela.ini"),
            *("--accelerator-config", f"{name}-{macs}", "--system-config", system),
            *("--memory-mode", "Sram_Only"),
        ]
        try:
            subprocess.run(command, capture_output=True, timeout=TIME_OUT_S, check=True)
            (summary,) = Path(folder).glob("*_summary_*.csv")
            with summary.open(encoding="utf-8", newline="") as file:
                (row,) = csv.DictReader(file)
            return int(float(row["cycles_total"]))
        except (OSError, subprocess.SubprocessError, ValueError, KeyError):
            return None
