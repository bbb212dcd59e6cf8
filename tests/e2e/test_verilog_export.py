"""The exported Verilog in a simulator of four values: programs end, with the right outputs."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("amaranth")

from celosia.errors import CelosiaError
from celosia.hw.contract.config import NpuConfig, preset
from celosia.sim.rtl.verilator import FAST_FLAGS, cache_folder
from celosia.sw.compiler.build import compile_model
from celosia.sw.export.bench import make_bench
from celosia.sw.export.verilog import check_module_name, npu_verilog, run_at_time_zero
from celosia.sw.reference.golden import GoldenModel
from celosia.sw.report.example import load_digits
from celosia.toolchain import find_compiler, find_verilator, run_tool

from tests.kit.tools import needs_simulator

IVERILOG = shutil.which("iverilog")
needs_icarus = pytest.mark.skipif(IVERILOG is None, reason="Icarus Verilog is not installed")


def icarus(folder: Path, *defines: str) -> str:
    """Run the testbench in a folder and return the last line it prints."""
    commands = (
        ["iverilog", "-g2005", *defines, "-o", "npu.vvp", "npu_tb.v", "npu.v"],
        ["vvp", "npu.vvp"],
    )
    for command in commands:
        result = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=300, check=False
        )
        assert result.returncode == 0, result.stderr
        assert "never trigger" not in result.stderr  # a block without sensitivities
    return result.stdout.splitlines()[-1]


def write_bench(folder: Path, config: NpuConfig) -> None:
    """Write the digit's testbench without the NPU."""
    digits = load_digits()
    program = compile_model(digits.model, config)
    bench = make_bench(program, digits.inputs[:1], module="spotter")
    for name, content in bench.files.items():
        (folder / name).write_bytes(content)


@needs_icarus
@pytest.mark.parametrize("name", ["tiny", "base"])
def test_programs_run_in_icarus(name: str, tmp_path: Path) -> None:
    config = preset(name)
    write_bench(tmp_path, config)
    verilog = npu_verilog(config, name="spotter")
    (tmp_path / "npu.v").write_text(verilog, encoding="utf-8")
    last = icarus(tmp_path)
    assert re.fullmatch(r"PASS: 10 bytes of outputs, \d+ cycles", last), last
    if name != "tiny":
        return
    # The testbench notices: an interrupt that is x.
    broken = verilog.replace(".irq(irq)", ".irq()")
    assert broken != verilog
    (tmp_path / "npu.v").write_text(broken, encoding="utf-8")
    assert icarus(tmp_path).startswith("FAIL: irq is x")


@needs_icarus
def test_registers_need_no_initial_values(tmp_path: Path) -> None:
    """What has no reset begins as x, and gets neither to control nor to a result."""
    config = preset("tiny")
    write_bench(tmp_path, config)
    verilog = npu_verilog(config, name="spotter")
    declared = re.compile(r"^(  reg [^=;]*) = \d+'\w+;$", re.M)
    bare, count = declared.subn(r"\1;", verilog)
    assert count > 500
    assert not re.search(r"^  reg [^;]*=", bare, re.M)
    (tmp_path / "npu.v").write_text(bare, encoding="utf-8")
    assert icarus(tmp_path).startswith("PASS: 10 bytes of outputs")


def verilator(folder: Path) -> list[str]:
    """Run the testbench in a folder, as ``verilator --binary`` would; return what it prints."""
    tool, compiler = find_verilator(), find_compiler()
    run_tool(
        ["perl", tool.script, "--cc", "--exe", "--main", "--timing", "-Wno-fatal",
         "--top-module", "npu_tb", "--Mdir", "obj", "npu_tb.v", "npu.v"],
        timeout_s=300,
        cwd=folder,
        environment={"VERILATOR_ROOT": str(tool.include.parent)},
    )  # fmt: skip
    runtime = ("verilated.cpp", "verilated_threads.cpp", "verilated_timing.cpp")
    # As one file: compilers read the headers once.
    model = "".join(f'#include "{path}"\n' for path in sorted(folder.glob("obj/*.cpp")))
    (folder / "tb.cpp").write_text(model, encoding="utf-8")
    sources = [folder / "tb.cpp", *(tool.include / name for name in runtime)]
    coroutines = ["-fcoroutines"] if compiler.name == "g++" else []
    options = [*compiler.flags, "-std=c++20", *coroutines, "-DVERILATOR=1", "-DVM_TIMING=1"]
    options += [f"-DVM_{feature}=0" for feature in ("COVERAGE", "SC", "TRACE")]
    options += [f"-I{path}" for path in (folder / "obj", tool.include, tool.include / "vltstd")]
    # With the options and the cache of the simulators, zig has its C++ library already.
    environment = {"ZIG_GLOBAL_CACHE_DIR": str(cache_folder() / "zig")}
    compile_ = [*compiler.command, *options]
    for source in sources:
        run_tool(
            [*compile_, "-c", source, "-o", folder / f"{source.stem}.o"],
            timeout_s=300,
            environment=environment,
        )
    objects = [folder / f"{source.stem}.o" for source in sources]
    link = [*compiler.command, *compiler.flags, *FAST_FLAGS, "-fPIC", "-s", *objects, "-pthread"]
    run_tool(
        [*link, "-o", folder / "tb", *compiler.link_flags], timeout_s=300, environment=environment
    )
    return run_tool([folder / "tb"], timeout_s=300, cwd=folder).splitlines()


@needs_simulator
def test_a_program_runs_in_verilator(tmp_path: Path) -> None:
    config = preset("tiny")
    write_bench(tmp_path, config)
    (tmp_path / "npu.v").write_text(npu_verilog(config, name="spotter"), encoding="utf-8")
    lines = verilator(tmp_path)
    assert any(re.fullmatch(r"PASS: 10 bytes of outputs, \d+ cycles", line) for line in lines)


@needs_icarus
def test_firmware_machine_has_no_unknowns_after_reset(tmp_path: Path) -> None:
    # A whole program takes it minutes in Icarus; its first cycles show what reset leaves open.
    config = preset("nano")
    write_bench(tmp_path, config)
    (tmp_path / "npu.v").write_text(npu_verilog(config, name="spotter"), encoding="utf-8")
    header = tmp_path / "npu_tb.vh"
    text = header.read_text(encoding="utf-8")
    header.write_text(re.sub(r"(MOST_CYCLES) \d+", r"\1 5000", text), encoding="utf-8")
    assert icarus(tmp_path).startswith("FAIL: no interrupt, 5001 cycles")


def test_testbench_expects_what_the_golden_model_says() -> None:
    digits = load_digits()
    program = compile_model(digits.model, preset("tiny"))
    bench = make_bench(program, digits.inputs[:1])
    lines = bench.files["expected.hex"].decode().split()
    found = np.array([int(line[8:], 16) for line in lines], np.uint8).view(np.int8)
    wanted = GoldenModel(digits.model).run([digits.inputs[:1]])
    assert found.tolist() == wanted[program.outputs[0].name].reshape(-1).tolist()


def test_every_combinational_block_runs_at_time_zero() -> None:
    verilog = npu_verilog(preset("tiny"))
    assert not re.search(r"^  reg \\\$auto\S+ = 0;", verilog, re.M)
    blocks = re.findall(r"^  always @\*(?: begin)?\n(.*\n)", verilog, re.M)
    assert blocks
    for block in blocks:
        assert not re.fullmatch(r" *\S.* = \d+'\w+;\n", block)


def test_a_block_with_nothing_but_a_constant_reads_the_variable() -> None:
    before = "module m(a);\n  reg [1:0] a;\n  always @*\n    a[0] = 1'h0;\nendmodule\n"
    after = run_at_time_zero(before)
    assert "  initial \\$time_zero <= 1'b0;\n" in after
    assert "  always @* begin\n    if (\\$time_zero ) begin end\n    a[0] = 1'h0;\n  end\n" in after
    plain = "module m(a);\n  output a;\n  assign a = 1'h0;\nendmodule\n"
    assert run_at_time_zero(plain) == plain


def test_header_describes_the_module() -> None:
    config = preset("nano")
    verilog = npu_verilog(config, name="spotter")
    header = verilog[: verilog.index("/* Generated")]
    assert all(line.startswith("//") for line in header.splitlines() if line)
    for words in ("BSD-2-Clause", f"0x{config.hash:08x}", "nano", "synchronous, active high"):
        assert words in header
    assert re.search(r"^// bus__adr +output +30 +.*word address", header, re.M)
    assert "\nmodule spotter(" in verilog


@pytest.mark.parametrize("name", ["", "1npu", "my npu", "npu;", "module", "logic", "nüp", "a\n"])
def test_names_that_are_none_are_refused(name: str) -> None:
    with pytest.raises(CelosiaError, match="module name"):
        check_module_name(name)
