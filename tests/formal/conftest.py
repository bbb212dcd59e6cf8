"""What the formal proofs are given. What is missing is noticed before a harness is made.

Amaranth warns of a harness that nothing elaborates, and warnings are errors.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kit.prover import Formal, SecondOpinion, missing_solver, missing_yosys


@pytest.fixture
def formal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Formal:
    """A prover, or a skip where Yosys is missing."""
    if missing := missing_yosys():
        pytest.skip(missing)
    return Formal(tmp_path / "formal", monkeypatch)


@pytest.fixture
def second_opinion(formal: Formal, tmp_path: Path) -> SecondOpinion:
    """Another prover, or a skip where one of its tools is missing."""
    if missing := missing_solver():
        pytest.skip(missing)
    return SecondOpinion(tmp_path / "second")
