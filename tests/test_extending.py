"""docs/extending.md says what is so."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs/extending.md").read_text(encoding="utf-8")


def test_every_path_exists() -> None:
    paths = re.findall(r"`((?:hw|sw|sim|boards|tests)/[\w/.]*)`", TEXT)
    assert len(paths) > 10
    assert not [path for path in paths if not (ROOT / path).exists()]


def test_the_files_of_a_table_operator_are_those_of_abs() -> None:
    section = TEXT[TEXT.index("## An operator that is") : TEXT.index("An operator with an options")]
    named = set(re.findall(r"^\d\. `([\w/.]+)`", section, re.M))
    found = {
        str(path.relative_to(ROOT))
        for folder in ("hw", "sw", "sim", "boards")
        for path in (ROOT / folder).rglob("*.py")
        if re.search(r"\bABS\b|\babs_table\b", path.read_text(encoding="utf-8"))
    }
    # The builder of models has it as an example of a name; the others are of float32 and of others'
    # operators.
    assert named == found - {
        "sim/golden/floats.py",
        "sim/models/tflite_builder.py",
        "sw/compiler/arithmetic/floats.py",
        "sw/docgen/coverage.py",
    }
    assert len(named) == 4
