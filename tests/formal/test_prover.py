"""The provers say what they lack, and do so before there is anything to prove."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.kit import prover


def test_without_a_solver_the_fixture_skips(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(prover, "BINARIES", tmp_path)
    with pytest.raises(pytest.skip.Exception, match="needs "):
        request.getfixturevalue("second_opinion")


def test_without_yosys_the_fixture_skips(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(pytest.skip.Exception, match="needs Yosys"):
        request.getfixturevalue("formal")
