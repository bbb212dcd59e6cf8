"""What the gateware's tests are given."""

from __future__ import annotations

import pytest
from celosia.hw.contract.config import NpuConfig

from tests.kit.configs import CONFIGS


@pytest.fixture(params=list(CONFIGS.values()), ids=list(CONFIGS))
def config(request: pytest.FixtureRequest) -> NpuConfig:
    """One after the other: every ratio of bus word and line that matters."""
    value: NpuConfig = request.param
    return value
