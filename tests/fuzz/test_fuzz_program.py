"""A few seconds of `fuzz_program.py`."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path


def test_damaged_program_files_end_in_celosia_errors() -> None:
    spec = importlib.util.spec_from_file_location(
        "fuzz_program", Path(__file__).with_name("fuzz_program.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by name.
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
        # Tests before this one may have taken any memory: the limit is for the campaign.
        module.MAX_RSS_BYTES = 1 << 40
        report = module.fuzz(range(300), seconds=20)
    finally:
        del sys.modules[spec.name]
    assert report.defects == []
    assert report.ran > 10
    assert report.refused["ProgramError"] > 50
