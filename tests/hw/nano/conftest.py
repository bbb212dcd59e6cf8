"""What the tests of the machine with firmware are given."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from celosia.hw.contract.config import preset

from tests.kit.both_machines import Machine
from tests.kit.tools import skip_without_simulator


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    """Preset nano."""
    skip_without_simulator()
    both = Machine(preset("nano"))
    yield both
    both.rtl.close()
