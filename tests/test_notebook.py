"""The notebook in examples/ runs from its first cell to its last, and is kept without outputs."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from celosia.sw.report.bench.record import read_record

from tests.kit.places import ROOT
from tests.kit.tools import needs_simulator

NOTEBOOK = ROOT / "examples/from_keras_to_report.ipynb"
TIME_OUT_S = 300


def test_the_notebook_is_kept_without_outputs() -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) > 5
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)


@needs_simulator
@pytest.mark.skipif(
    find_spec("nbclient") is None or find_spec("ipykernel") is None,
    reason="needs nbclient and ipykernel, which celosia[dev] brings",
)
@pytest.mark.xdist_group("rtl-base")
def test_the_notebook_runs(tmp_path: Path) -> None:
    done = tmp_path / "done.ipynb"
    result = subprocess.run(
        [Path(sys.executable).with_name("jupyter-execute"), NOTEBOOK, "--output", done],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=TIME_OUT_S,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    cells = json.loads(done.read_text(encoding="utf-8"))["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    assert {output.get("name") for output in outputs} == {"stdout"}, outputs
    text = "".join("".join(output["text"]) for output in outputs)
    assert "equal: True" in text
    assert "report.html" in text
    if find_spec("tensorflow") is None:
        cycles = read_record(ROOT / "docs/figures/cycles.json").cycles("digits_int8", "base")
        assert f"{cycles:,} cycles," in text
