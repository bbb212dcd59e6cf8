"""The top level: ports and Verilog of every preset."""

from __future__ import annotations

import re

import pytest
from amaranth.back import rtlil, verilog
from celosia.hw.contract.config import PRESETS
from celosia.hw.contract.parts import Part
from celosia.hw.npu import Npu


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_exports_as_verilog(name: str) -> None:
    config = PRESETS[name]
    text = verilog.convert(Npu(config), name="npu")
    header = text[text.rindex("\nmodule npu(") :].partition("endmodule")[0]
    declared = re.findall(r"^  (?:input|output) (?:\[(\d+):0\] )?(\S+?) ?;", header, re.M)
    ports = {port: int(high or 0) + 1 for high, port in declared}
    assert ports["bus__dat_r"] == ports["bus__dat_w"] == config.bus_bits
    assert ports["bus__sel"] == config.bus_bytes
    assert ports["bus__adr"] == 32 - (config.bus_bytes - 1).bit_length()
    assert ports["csr__dat_r"] == ports["csr__dat_w"] == 32
    assert {"clk", "rst", "irq", "bus__stall", "bus__ack", "bus__err", "csr__ack"} <= set(ports)


@pytest.mark.parametrize("name", PRESETS)
def test_only_large_machines_have_clock_enables_of_parts(name: str) -> None:
    config = PRESETS[name]
    has_enables = "clock_enable" in rtlil.convert(Npu(config), name="npu")
    assert has_enables != (Part.NO_ENABLES in config.parts or config.firmware)
