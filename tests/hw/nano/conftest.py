"""What the tests of the machine with firmware are given."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from celosia.hw.contract.config import NpuConfig, preset

from tests.kit.both_machines import Machine
from tests.kit.tools import skip_without_simulator


def _machine(config: NpuConfig) -> Iterator[Machine]:
    skip_without_simulator()
    both = Machine(config)
    yield both
    both.rtl.close()


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    """Preset nano."""
    yield from _machine(preset("nano"))


@pytest.fixture(scope="module")
def machine_of(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """The configuration that a module is about: its CONFIG."""
    yield from _machine(request.module.CONFIG)
