"""What hw raises is a Celosia error too: a caller catches one base."""

from __future__ import annotations

import pickle

import pytest
from celosia.errors import CelosiaError
from celosia.hw.contract.config import ConfigError, NpuConfig, preset
from celosia.hw.contract.isa import Command, IsaError, Load, disassemble


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: NpuConfig(rows=5), ConfigError),
        (lambda: NpuConfig(queue_depth=True), ConfigError),
        (lambda: NpuConfig(act_bytes=65536.0), ConfigError),  # type: ignore[arg-type]
        (lambda: preset("huge"), ConfigError),
        (lambda: Command.decode(bytes(64)), IsaError),
        (lambda: Command.decode(bytes(3)), IsaError),
        (lambda: Load(row_bytes=-1).encode(), IsaError),
        (lambda: disassemble(b""), IsaError),
    ],
)
def test_errors_of_hw_are_celosia_errors(make: object, kind: type[CelosiaError]) -> None:
    assert callable(make)
    with pytest.raises(CelosiaError) as caught:
        make()
    assert isinstance(caught.value, kind)
    assert isinstance(caught.value, ValueError)
    assert caught.value.what
    assert caught.value.cause
    assert caught.value.remedy
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
