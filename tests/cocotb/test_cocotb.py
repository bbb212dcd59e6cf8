"""The cocotb benches under Verilator, one pytest function a design.

The seed is in the output of a failing test; ``CELOSIA_COCOTB_SEED=5 pytest tests/cocotb`` uses
another one.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUN = "tests.cocotb.run"
TIME_OUT_S = 900
"""Of a build and its run; a loaded machine is slow."""
TOOL_MISSING = 77
DEFAULT_SEED = 1

DESIGNS = (
    *("csr", "dma_narrow", "dma_wide", "array", "array_compact", "vector", "npu_nano", "npu_tiny"),
    *("sdram_narrow", "sdram_wide"),
)


def run(*arguments: str) -> tuple[int, str]:
    """Run a bench in processes of its own; return the exit code and what was printed."""
    for name in ("amaranth", "cocotb", "cocotb_tools"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    with subprocess.Popen(
        [sys.executable, "-m", RUN, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        # cocotb looks at this one and then behaves as if it were inside pytest.
        env={key: value for key, value in os.environ.items() if key != "PYTEST_CURRENT_TEST"},
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=TIME_OUT_S)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{' '.join(arguments)}: not through after {TIME_OUT_S} s")
        finally:
            # Make, the compiler and the simulator are processes of the same group.
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, output


@pytest.mark.parametrize("design", DESIGNS)
def test_bench(design: str) -> None:
    seed = os.environ.get("CELOSIA_COCOTB_SEED", str(DEFAULT_SEED))
    print(f"seed {seed}")
    code, output = run(design, "--seed", seed)
    if code == TOOL_MISSING:
        pytest.skip(output.strip())
    assert code == 0, f"cocotb bench {design} failed with seed {seed}\n{output[-8000:]}"
    assert f"0 failed, seed {seed}" in output


def test_a_failing_cocotb_test_is_reported() -> None:
    """The bench of another design fails at once: it must not look like a success."""
    code, output = run("csr", "--bench", "tests.cocotb.bench_failing")
    if code == TOOL_MISSING:
        pytest.skip(output.strip())
    assert code == 1, output[-4000:]
    assert "3 cocotb tests, 2 failed" in output
