"""The command that takes the pictures of docs/."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from celosia.sw.docgen import screenshots

from tests.kit.places import benchmark_model


def test_the_pictures_are_of_the_shipped_keyword_model(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[Sequence[str]] = []

    def stop(command: Sequence[str]) -> None:
        ran.append(command)
        raise InterruptedError

    monkeypatch.setattr(screenshots, "find_browser", lambda: "browser")
    monkeypatch.setattr(screenshots, "_run", stop)
    with pytest.raises(InterruptedError):
        screenshots.main([])
    assert Path(ran[0][2]) == benchmark_model("kws")
