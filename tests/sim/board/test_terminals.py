"""Records of served terminals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from celosia.sim.board import terminals


def test_who_looks_while_a_record_is_written_does_not_drop_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminals, "cache_folder", lambda: tmp_path)
    seen: list[list[terminals.Terminal]] = []
    write: Callable[..., int] = Path.write_text

    def slow(path: Path, text: str, **options: str) -> int:
        with path.open("w", **options) as file:  # type: ignore[call-overload]
            seen.append(terminals.simulated_terminals())
            return int(file.write(text))

    monkeypatch.setattr(Path, "write_text", slow)
    # A device that is always there, in the place of a pseudo-terminal.
    with terminals.recorded("/dev/null", "model"):
        monkeypatch.setattr(Path, "write_text", write)
        assert seen == [[]]
        assert [entry.path for entry in terminals.simulated_terminals()] == ["/dev/null"]
    assert list((tmp_path / terminals.FOLDER).iterdir()) == []
