"""The NPU as one Verilog file for other tools: named, described, and right in four values.

Amaranth's conversion leaves two things that event-driven simulators such as Icarus Verilog do not
take as it means them. A combinational block runs when something it reads changes; the variable that
Yosys adds to make it run once at time 0 is initialised where it is declared, which is no event. And
a block that assigns a constant reads nothing at all. Here every such block reads a variable that
does change at time 0, in the region of nonblocking assignments: every block waits for it by then.
"""

from __future__ import annotations

import re
from pathlib import Path

from celosia.errors import CelosiaError
from celosia.hw.contract.config import NpuConfig
from celosia.sim.rtl.verilator import VERILOG_TIME_OUT_S, YOSYS_SCRIPT
from celosia.toolchain import find_yosys, run_tool
from celosia.version import VERSION

__all__ = ["BENCH", "check_module_name", "npu_verilog", "run_at_time_zero"]

BENCH = Path(__file__).with_name("npu_tb.v")
"""The testbench, the same for every machine and program."""
LICENCE = "BSD-2-Clause"
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*")
_VERILOG = """
always and assign automatic begin buf bufif0 bufif1 case casex casez cell cmos config deassign
default defparam design disable edge else end endcase endconfig endfunction endgenerate
endmodule endprimitive endspecify endtable endtask event for force forever fork function
generate genvar highz0 highz1 if ifnone incdir include initial inout input instance integer join
large liblist library localparam macromodule medium module nand negedge nmos nor noshowcancelled
not notif0 notif1 or output parameter pmos posedge primitive pull0 pull1 pulldown pullup
pulsestyle_onevent pulsestyle_ondetect rcmos real realtime reg release repeat rnmos rpmos rtran
rtranif0 rtranif1 scalared showcancelled signed small specify specparam strong0 strong1 supply0
supply1 table task time tran tranif0 tranif1 tri tri0 tri1 triand trior trireg unsigned use
uwire vectored wait wand weak0 weak1 while wire wor xnor xor
"""
# Many tools read .v files as SystemVerilog.
_SYSTEM_VERILOG = """
accept_on alias always_comb always_ff always_latch assert assume before bind bins binsof bit
break byte chandle checker class clocking const constraint context continue cover covergroup
coverpoint cross dist do endchecker endclass endclocking endgroup endinterface endpackage
endprogram endproperty endsequence enum eventually expect export extends extern final
first_match foreach forkjoin global iff ignore_bins illegal_bins implements implies import
inside int interconnect interface intersect join_any join_none let local logic longint matches
modport nettype new nexttime null package packed priority program property protected pure rand
randc randcase randsequence ref reject_on restrict return s_always s_eventually s_nexttime
s_until s_until_with sequence shortint shortreal soft solve static string strong struct super
sync_accept_on sync_reject_on tagged this throughout timeprecision timeunit type typedef union
unique unique0 until until_with untyped var virtual void wait_order weak wildcard with within
"""
_KEYWORDS = frozenset((_VERILOG + _SYSTEM_VERILOG).split())
"""Of IEEE 1364-2005 and 1800-2017, annex B."""

_MEANINGS = {
    "clk": "clock: all is done at its rising edge",
    "rst": "reset: synchronous, active high",
    "irq": "interrupt: level, active high",
    "csr__adr": "register: word address (byte address / 4)",
    "csr__dat_w": "data to write",
    "csr__dat_r": "data read, with ack; else 0",
    "csr__sel": "bytes to write",
    "csr__cyc": "Wishbone cycle",
    "csr__stb": "request",
    "csr__we": "request: 1 write, 0 read",
    "csr__ack": "answer",
    "csr__err": "answer: there is no such register",
    "csr__stall": "request is not taken yet (classic initiators leave it open)",
    "bus__adr": "memory: word address (byte address / {bus_bytes})",
    "bus__dat_w": "data to write, lowest byte first",
    "bus__dat_r": "data read, with ack",
    "bus__sel": "bytes to write",
    "bus__cyc": "Wishbone cycle: high while anything is in flight",
    "bus__stb": "request",
    "bus__we": "request: 1 write, 0 read",
    "bus__ack": "answer to the oldest request",
    "bus__err": "answer to the oldest request: it failed",
    "bus__stall": "request is not taken in this cycle",
    "bus__cti": "hint: cycle type, Wishbone B4 4.1",
    "bus__bte": "hint: burst type, always linear",
    "trace__tags": "for profilers; leave it open",
    "trace__state": "for profilers; leave it open",
}
_PORT = re.compile(r"^  (?P<way>input|output) (?:\[(?P<high>\d+):0\] )?(?P<name>\w+) ?;", re.M)
_TRIGGER = re.compile(r"^  reg (?P<name>\\\$auto\$\S+ ) = 0;\n", re.M)
_LONE_CONSTANT = re.compile(
    r"^  always @\*\n    (?P<assignment>\S.*? = \d+'[bdh][0-9a-f]+;)\n", re.M
)


def check_module_name(name: str) -> None:
    """Refuse what cannot be the name of a Verilog module.

    Raises
    ------
    CelosiaError
        If it is no plain identifier, or a keyword of Verilog or SystemVerilog.
    """
    what = f"module name {name!r}"
    if not _IDENTIFIER.fullmatch(name):
        raise CelosiaError(
            what,
            "it is not a Verilog identifier",
            "use letters, digits and _, beginning with a letter or _",
        )
    if name in _KEYWORDS:
        raise CelosiaError(what, "it is a keyword of Verilog", "choose another name")


def run_at_time_zero(verilog: str) -> str:
    """Return Verilog whose combinational blocks all run at time 0, whatever they read.

    Parameters
    ----------
    verilog : str
        As Yosys writes it.
    """
    return "".join(
        map(_run_module_at_time_zero, re.split(r"(?<=^endmodule\n)", verilog, flags=re.M))
    )


def _run_module_at_time_zero(module: str) -> str:
    lone = _LONE_CONSTANT.search(module)
    declared = _TRIGGER.search(module)
    name = declared["name"] if declared else "\\$time_zero "
    event = f"  reg {name};\n  initial {name}<= 1'b0;\n"
    if declared:
        module = _TRIGGER.sub(lambda _: event, module)
    elif lone:
        module = re.sub(r"(?m)^(module [^;]*;\n)", lambda head: head[1] + event, module, count=1)
    return _LONE_CONSTANT.sub(
        lambda block: (
            f"  always @* begin\n    if ({name}) begin end\n    {block['assignment']}\n  end\n"
        ),
        module,
    )


def npu_verilog(config: NpuConfig, *, name: str = "npu") -> str:
    """Return the NPU of a configuration as Verilog-2005, with a header that describes it.

    Parameters
    ----------
    config : NpuConfig
    name : str
        Of the top module; the names of all others begin with it.

    Raises
    ------
    CelosiaError
        If the name cannot be one.
    BuildError
        If Yosys is missing, fails or takes too long.
    """
    check_module_name(name)
    from amaranth.back import rtlil
    from celosia.hw.npu import Npu

    text: str = rtlil.convert(Npu(config), name=name, emit_src=False)
    script = YOSYS_SCRIPT.format(rtlil=text)
    verilog = run_tool([*find_yosys(), "-q", "-"], stdin=script, timeout_s=VERILOG_TIME_OUT_S)
    return _header(config, name, verilog) + run_at_time_zero(verilog)


def _header(config: NpuConfig, name: str, verilog: str) -> str:
    top = verilog[verilog.rindex(f"\nmodule {name}(") :].partition("endmodule")[0]
    ports = {
        port["name"]: (port["way"], int(port["high"] or 0) + 1) for port in _PORT.finditer(top)
    }
    assert ports.keys() == _MEANINGS.keys(), ports.keys() ^ _MEANINGS.keys()
    lines = [
        f"{name}: a Celosia NPU, written by celosia verilog {VERSION}",
        f"SPDX-License-Identifier: {LICENCE}",
        "",
        f"configuration {_printable(config.name)}, hash 0x{config.hash:08x}: {config.rows}x"
        f"{config.cols} array, bus of {config.bus_bits} bits",
        "",
        "csr: Wishbone B4 target, the registers; pipelined, and classic initiators work too",
        "bus: Wishbone B4 initiator, system memory; pipelined: reads and writes are answered in",
        "     order, several may be in flight",
        "Addresses on both are of words; inputs and outputs belong to the clock clk.",
        "",
        "port          direction  bits  meaning",
    ]
    for port, meaning in _MEANINGS.items():
        way, bits = ports[port]
        lines.append(f"{port:<14}{way:<9}{bits:>6}  {meaning.format(bus_bytes=config.bus_bytes)}")
    return "".join(f"// {line}".rstrip() + "\n" for line in lines) + "\n"


def _printable(name: str) -> str:
    """Keep a name from a file's stem or a JSON file within its comment."""
    return "".join(letter if letter.isprintable() else "?" for letter in name)
