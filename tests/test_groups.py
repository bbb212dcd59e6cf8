"""Tests of one group run in one process, so that what is dear is made once."""

from __future__ import annotations

import os

import pytest

GROUP = "together"
pytestmark = pytest.mark.xdist_group(GROUP)
_seen: list[int] = []


@pytest.mark.parametrize("turn", range(4))
def test_a_group_is_one_process(turn: int, request: pytest.FixtureRequest) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        if not getattr(request.config.option, "loadgroup", False):
            pytest.skip("groups are those of --dist loadgroup")
        # The scheduler knows groups by this end of the name alone.
        assert request.node.nodeid.endswith(f"@{GROUP}")
    _seen.append(turn)
    assert _seen == list(range(turn + 1)), "the tests before it ran in another process"
