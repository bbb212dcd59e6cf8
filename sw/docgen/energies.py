"""Measures the energies that the documents cite, on real inputs; ``make figures`` runs it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from celosia.sw.docgen.pages import ROOT
from celosia.sw.docgen.sources import Sources
from celosia.sw.driver.inputs import quantize_array
from celosia.sw.energy.measure import measure_energy
from celosia.sw.energy.record import put_energy

__all__ = ["main"]

Floats = npt.NDArray[Any]


def _photograph(grey: Floats) -> Floats:
    """Return a grey photograph in [-1, 1] as three channels in [0, 1]."""
    return np.repeat((grey.reshape(1, 96, 96, 1) + 1) / 2, 3, axis=3)


INPUTS: dict[str, tuple[str, str, Callable[[Any], Floats]]] = {
    "ad01_int8": (
        "ad_windows_float.npy",
        "a log-mel window of a machine's sound",
        lambda windows: windows[:1],
    ),
    "kws_int8": ("kws_int8.npy", "a keyword's MFCC window", lambda window: window),
    "resnet8_int8": (
        "vww_gray_float.npy",
        "a grey photograph, every third pixel",
        lambda grey: 255 * _photograph(grey)[:, ::3, ::3],
    ),
    "sww_int8": (
        "sww_specs_float.npz",
        "a spectrogram of the wake word",
        lambda arrays: arrays["specs"][:1],
    ),
    "vww_96_int8": ("vww_gray_float.npy", "a grey photograph", _photograph),
}
"""Of each model of MLPerf Tiny: a file of real inputs, what it is, and what to take."""


def main(arguments: list[str] | None = None) -> None:
    """Measure the energy of the models of MLPerf Tiny and put it into the record."""
    parser = argparse.ArgumentParser(description="Measure the energies that documents cite.")
    parser.add_argument("models", nargs="*", default=list(INPUTS), metavar="MODEL")
    parser.add_argument("--config", default="base", help="a preset (default: base)")
    chosen = parser.parse_args(arguments)
    sources = Sources(ROOT)
    for model in chosen.models:
        name, about, take = INPUTS[model]
        path = sources.beside(name)
        program = sources.program(model, chosen.config)
        (info,) = program.inputs
        values = take(np.load(path, allow_pickle=False))
        if values.dtype != info.item:
            values = quantize_array(info, values)
        sample = {info.name: values.reshape(info.shape)}
        energy = measure_energy(program, [sample], about)
        put_energy(sources.records / "energy.json", energy)
        print(f"{model} on {energy.config}: {energy.chip} uJ, {energy.total} with DRAM")


if __name__ == "__main__":
    main()
