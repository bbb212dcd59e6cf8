"""The command line: what it prints and writes, and how it refuses."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tflite  # type: ignore[import-untyped]
import typer
from celosia.hw.contract.config import PRESETS
from celosia.hw.contract.isa import COMMAND_BYTES
from celosia.sim.models.tflite_builder import ModelBuilder
from celosia.sw.cli.app import COMMANDS as LOADERS
from celosia.sw.program.file import Program
from celosia.sw.reference.golden import GoldenModel
from celosia.sw.report.example import load_digits

from tests.kit.command_line import Result, run_cli
from tests.kit.tools import needs_simulator

DIGITS = load_digits()
COMMANDS = ("demo", "compile", "run", "verilog", "disasm", "info")
Cli = Callable[..., Result]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Return a function that runs a command in an empty folder with the example model in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits.tflite").write_bytes(DIGITS.model)

    return run_cli


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"digits.tflite"}


def refused(result: Result, *words: str) -> None:
    """Assert that a command ended with a message that has all of `words`, and no traceback."""
    assert result.exit_code == 2, result.output
    message = " ".join(result.stderr.split())
    assert "error" in message.lower()
    assert "Traceback" not in message
    for word in words:
        assert word in message


def loaded(path: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    return content


# ---------------------------------------------------------------------- help


def test_help_names_every_command(cli: Cli) -> None:
    result = cli("--help")
    assert result.exit_code == 0
    for command in COMMANDS:
        assert command in result.output


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_has_examples(cli: Cli, command: str) -> None:
    result = cli(command, "--help")
    assert result.exit_code == 0
    assert "Examples:" in result.output
    assert f"celosia {command}" in result.output


# ---------------------------------------------------------------------- what they do


def test_demo_recognises_and_checks(cli: Cli, tmp_path: Path) -> None:
    result = cli("demo", "--device", "emu", "--json", "demo.json")
    assert result.exit_code == 0, result.output
    assert "█" in result.output
    assert "prediction: 8   label: 8" in result.output
    figures = loaded("demo.json")
    assert figures["equal"] is True
    assert figures["prediction"] == figures["label"] == 8
    # Every operator's result but the convolution that the ADD is fused into is an output or kept.
    assert figures["check"]["tensors"] == len(GoldenModel(DIGITS.model).operators)
    assert f"all {figures['check']['tensors']} tensors equal" in result.output
    assert files(tmp_path) == {"demo.json"}


def test_demo_shows_its_one_mistake(cli: Cli) -> None:
    result = cli("demo", "--device", "emu", "--sample", "8", "--config", "tiny")
    assert result.exit_code == 0, result.output
    assert "prediction: 9   label: 3" in result.output


@needs_simulator
@pytest.mark.xdist_group("rtl-base")
def test_demo_on_the_rtl(cli: Cli) -> None:
    """What ``make demo`` runs."""
    result = cli("demo", "--json", "demo.json")
    assert result.exit_code == 0, result.output
    assert "prediction: 8   label: 8" in result.output
    assert "tensors equal" in result.output
    figures = loaded("demo.json")
    assert figures["equal"] is True
    assert figures["cycles"] == figures["counters"]["total"] > 173_184 / 64
    assert figures["utilisation"] == pytest.approx(173_184 / (figures["cycles"] * 64))


@needs_simulator
@pytest.mark.xdist_group("rtl-base")
def test_memory_changes_cycles_but_no_results(cli: Cli) -> None:
    cycles = []
    for options in ([], ["--latency", "60"], ["--stalls", "0.5"]):
        result = cli("run", "digits.tflite", "--check", "--counters", "--json", "r.json", *options)
        assert result.exit_code == 0, result.output
        assert "array_busy" in result.output
        cycles.append(loaded("r.json")["cycles"])
    assert cycles[0] < min(cycles[1:])


def test_compile_writes_a_program_and_a_report(cli: Cli, tmp_path: Path) -> None:
    result = cli("compile", "digits.tflite", "-o", "out.celosia", "--json", "report.json")
    assert result.exit_code == 0, result.output
    program = Program.load("out.celosia")
    figures = loaded("report.json")
    assert figures["commands"] == len(program.npu.commands) // COMMAND_BYTES
    assert figures["macs"] == 173_184
    assert [layer["op"] for layer in figures["layers"]] == [layer.op for layer in program.layers]
    total = sum(layer["predicted_cycles"] for layer in figures["layers"])
    assert figures["predicted_cycles"] == total > 0
    assert "#1 DEPTHWISE_CONV_2D" in result.output
    assert "173,184" in result.output
    assert files(tmp_path) == {"out.celosia", "report.json"}


def test_compile_has_room_for_its_reasons_in_80_columns(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Columns of numbers stay whole, and no reason is broken within a word."""
    wide = cli("compile", "digits.tflite", "-o", "out").output
    monkeypatch.setenv("COLUMNS", "80")
    lines = cli("compile", "digits.tflite", "-o", "out").output.splitlines()
    table = [line for line in lines if line.startswith(" ")]
    assert all(len(line) <= 80 and "…" not in line for line in table)
    (first,) = [line for line in lines if line.startswith("#0 CONV_2D: npu; ")]
    assert first.removeprefix("#0 CONV_2D: npu; ") in wide
    cycles = loaded_cycles(wide)
    assert cycles
    assert cycles == loaded_cycles("\n".join(table))


def loaded_cycles(table: str) -> list[str]:
    """Return the last column of a table of layers."""
    return [line.split()[-1] for line in table.splitlines() if re.match(r" #\d+ ", line)]


def test_compile_keeps_tensors_on_request(cli: Cli) -> None:
    assert cli("compile", "digits.tflite", "-o", "kept", "--keep-tensors").exit_code == 0
    assert len(Program.load("kept").intermediates) == 10


def test_run_gives_what_the_golden_model_gives(cli: Cli, tmp_path: Path) -> None:
    np.save("one.npy", DIGITS.inputs[3])
    result = cli(
        "run", "digits.tflite", "--input", "one.npy", "--device", "emu", "--check",
        "--save", "y.npz", "--json", "r.json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    golden = GoldenModel(DIGITS.model)
    name = golden.outputs[0].name
    expected = golden.run([DIGITS.inputs[3][None]])[name]
    with np.load("y.npz") as saved:
        np.testing.assert_array_equal(saved[name], expected)
    figures = loaded("r.json")
    assert figures["equal"] is True
    assert figures["model"] == "digits"
    assert figures["config"] == "base"
    assert figures["device"] == "emu"
    assert figures["cycles"] is None
    assert figures["macs"] == 173_184
    assert {layer["op"] for layer in figures["layers"]} >= {"SOFTMAX", "CONV_2D + ADD"}
    assert files(tmp_path) == {"one.npy", "y.npz", "r.json"}


def test_run_counts_right_answers(cli: Cli) -> None:
    np.savez("s.npz", images=DIGITS.images, inputs=DIGITS.inputs, labels=DIGITS.labels)
    result = cli(
        "run", "digits.tflite", "--input", "s.npz", "--array", "inputs", "--random", "2",
        "--device", "emu", "--save", "y.npz", "--json", "r.json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "class equal to the label: 19 of 20" in result.output
    figures = loaded("r.json")
    assert figures["samples"] == len(figures["runs"]) == 22
    with np.load("y.npz") as saved:
        assert [array.shape for array in saved.values()] == [(22, 1, 10)]


def test_run_quantises_on_request(cli: Cli) -> None:
    np.save("grey.npy", DIGITS.images[0].astype(np.float32)[..., None] / 255)
    refused(cli("run", "digits.tflite", "--input", "grey.npy", "--device", "emu"), "--quantize")
    np.save("int8.npy", DIGITS.inputs[0])
    for name, option in (("grey", ["--quantize"]), ("int8", [])):
        result = cli(
            "run", "digits.tflite", "--input", f"{name}.npy", *option, "--device", "emu",
            "--save", f"{name}_out.npz",
        )  # fmt: skip
        assert result.exit_code == 0, result.output
    with np.load("grey_out.npz") as one, np.load("int8_out.npz") as other:
        for name in one.files:
            np.testing.assert_array_equal(one[name], other[name])


def test_run_without_input_says_so(cli: Cli) -> None:
    result = cli("run", "digits.tflite", "--device", "emu", "--seed", "5")
    assert result.exit_code == 0, result.output
    assert "no --input given: one random input, seed 5" in result.output


def test_random_inputs_are_reproducible(cli: Cli) -> None:
    outputs = []
    for count in (2, 3):
        assert (
            cli(
                "run", "digits.tflite", "--device", "emu", "--random", count, "--seed", 7,
                "--save", "y.npz",
            ).exit_code
            == 0
        )  # fmt: skip
        with np.load("y.npz") as saved:
            outputs.append(saved[saved.files[0]])
    np.testing.assert_array_equal(outputs[0], outputs[1][:2])
    assert (outputs[1][0] != outputs[1][2]).any()


def test_a_program_runs_on_the_configuration_it_was_compiled_for(cli: Cli) -> None:
    assert cli("compile", "digits.tflite", "-o", "d.celosia", "--config", "nano").exit_code == 0
    result = cli("run", "d.celosia", "--device", "emu", "--check", "--against", "digits.tflite")
    assert result.exit_code == 0, result.output
    assert "configuration nano" in result.output
    assert "tensors equal" in result.output


def test_a_configuration_of_ones_own(cli: Cli) -> None:
    Path("mine.json").write_text('{"rows": 8, "cols": 8, "act_bytes": 16384}', encoding="utf-8")
    result = cli("run", "digits.tflite", "--config", "mine.json", "--device", "emu", "--check")
    assert result.exit_code == 0, result.output
    assert "configuration mine" in result.output


def test_disasm_prints_every_command(cli: Cli) -> None:
    assert cli("compile", "digits.tflite", "-o", "d.celosia").exit_code == 0
    result = cli("disasm", "d.celosia", "--json", "d.json")
    assert result.exit_code == 0
    program = Program.load("d.celosia")
    lines = [line for line in result.output.splitlines() if not line.startswith(";")]
    commands = program.npu.decode()
    named = [int(line.rpartition("; layer ")[2]) for line in lines[:-1]]
    assert (*named, -1) == program.npu.command_layers
    assert len(lines) == len(commands)
    for line, command in zip(lines, commands, strict=True):
        assert type(command).__name__ in line
    assert lines[-1].split()[1] == "DISPATCH"
    figures = loaded("d.json")["commands"]
    # The JSON has every field: the commands can be made from it again.
    assert [entry["tag"] for entry in figures] == [command.tag for command in commands]
    conv = next(entry for entry in figures if entry["command"] == "Conv")
    assert conv["n_oc"] == commands[conv["index"]].n_oc  # type: ignore[attr-defined]


def test_info_shows_versions_tools_and_presets(cli: Cli) -> None:
    result = cli("info", "--json", "info.json")
    assert result.exit_code == 0
    figures = loaded("info.json")
    assert set(figures["presets"]) == set(PRESETS)
    assert figures["versions"]["numpy"] == np.__version__
    for name, config in PRESETS.items():
        assert name in result.output
        assert f"{config.hash:08x}" in result.output
    assert str(figures["cache"]) in result.output.replace("\n", "")


def test_verilog_is_written(cli: Cli, tmp_path: Path) -> None:
    pytest.importorskip("amaranth")
    result = cli("verilog", "--config", "nano", "-o", "npu.v")
    assert result.exit_code == 0, result.output
    text = Path("npu.v").read_text(encoding="utf-8")
    assert "module npu(" in text
    assert text.count("endmodule") > 1
    assert files(tmp_path) == {"npu.v"}


def test_verilog_has_a_name_and_a_testbench(cli: Cli, tmp_path: Path) -> None:
    pytest.importorskip("amaranth")
    result = cli(
        "verilog", "--config", "nano", "--name", "my_npu", "-o", "n.v", "--testbench", "tb"
    )
    assert result.exit_code == 0, result.output
    assert "\nmodule my_npu(" in Path("n.v").read_text(encoding="utf-8")
    assert "cd tb && iverilog -g2005 -o npu.vvp npu_tb.v ../n.v && vvp npu.vvp" in result.output
    assert {path.name for path in Path("tb").iterdir()} == {
        *("npu_tb.v", "npu_tb.vh", "memory.hex", "registers.hex", "expected.hex")
    }


@pytest.mark.parametrize(
    ("options", "words"),
    [(["--name", "module"], "keyword"), (["--model", "m.tflite"], "--testbench")],
)
def test_verilog_refuses_before_it_writes(
    cli: Cli, tmp_path: Path, options: list[str], words: str
) -> None:
    result = cli("verilog", "-o", "npu.v", *options)
    assert result.exit_code == 2
    assert words in result.output
    assert files(tmp_path) == set()


# ---------------------------------------------------------------------- how they refuse


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "none.tflite"], ["none.tflite", "no such file", "path"]),
        (["run", "none.celosia"], ["none.celosia", "No such file", "path"]),
        (["compile", "none.tflite", "-o", "o.celosia"], ["none.tflite", "no such file"]),
        (["compile", "digits.tflite", "-o", "no/o.celosia"], ["no/o.celosia", "no folder no"]),
        (["compile", "digits.tflite"], ["--output"]),
        (["compile", "digits.tflite", "-o", "o", "--config", "huge"], ["huge", "nano", "large"]),
        (["disasm", "digits.tflite"], ["not a Celosia program"]),
        (["run", "digits.tflite", "--device", "emulator"], ["emulator", "emu"]),
        (["run", "digits.tflite", "--device", "uart:tty"], ["there is no such port"]),
        (["run", "digits.tflite", "--device", "emu", "--latency", "3"], ["--latency", "sim"]),
        (["run", "digits.tflite", "--device", "emu", "--stalls", "2"], ["--stalls", "0.99"]),
        (["run", "digits.tflite", "--input", "x.npy", "--device", "emu"], ["x.npy", "no such"]),
        (["run", "digits.tflite", "--quantize", "--device", "emu"], ["--quantize", "--input"]),
        (["run", "digits.tflite", "--json", ".", "--device", "emu"], ["--json", "directory"]),
        (["demo", "--sample", "20", "--device", "emu"], ["sample 20", "20"]),
        (["demo", "--config", "none.json", "--device", "emu"], ["none.json", "No such file"]),
        (["nonsense"], ["nonsense"]),
    ],
)
def test_bad_arguments(cli: Cli, tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    refused(cli(*arguments), *words)
    assert not files(tmp_path)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((1, 16, 15, 1), np.int8), ["shape [1, 16, 16, 1]", "[1, 16, 15, 1]"]),
        (np.zeros((1, 16, 16, 1), np.uint8), ["int8", "uint8"]),
        (np.zeros((1, 16, 16, 1), np.float64), ["float64", "--quantize"]),
        (np.zeros((0, 16, 16, 1), np.int8), ["no samples"]),
        (np.zeros((1, 16, 16, 1), np.complex64), ["int8", "complex64"]),
    ],
)
def test_arrays_that_do_not_fit(
    cli: Cli, tmp_path: Path, array: np.ndarray[Any, Any], words: list[str]
) -> None:
    np.save("x.npy", array)
    refused(
        cli("run", "digits.tflite", "-i", "x.npy", "--device", "emu", "--save", "y.npz"), *words
    )
    assert files(tmp_path) == {"x.npy"}


def test_values_that_are_not_numbers(cli: Cli) -> None:
    np.save("x.npy", np.full((16, 16, 1), np.nan, np.float32))
    refused(cli("run", "digits.tflite", "-i", "x.npy", "--quantize", "--device", "emu"), "NaN")


def test_files_that_are_no_arrays(cli: Cli) -> None:
    Path("x.npy").write_bytes(b"no array")
    refused(cli("run", "digits.tflite", "-i", "x.npy", "--device", "emu"), "not a NumPy array")
    np.save("pickled.npy", np.array([{"a": 1}], object), allow_pickle=True)
    refused(cli("run", "digits.tflite", "-i", "pickled.npy", "--device", "emu"), "pickled.npy")


def test_archives_of_other_arrays(cli: Cli) -> None:
    np.savez("s.npz", first=DIGITS.inputs, second=DIGITS.inputs)
    run = ("run", "digits.tflite", "--device", "emu", "-i", "s.npz")
    refused(cli(*run), "'first', 'second'", "--array")
    refused(cli(*run, "--array", "third"), "'third'", "'first', 'second'")


def test_models_that_are_damaged(cli: Cli, tmp_path: Path) -> None:
    for name, content in (
        ("empty.tflite", b""),
        ("text.tflite", b"this is not a model at all" * 10),
        ("short.tflite", DIGITS.model[:4000]),
    ):
        Path(name).write_bytes(content)
        refused(cli("compile", name, "-o", "o.celosia", "--json", "j.json"), name)
    assert files(tmp_path) == {"empty.tflite", "text.tflite", "short.tflite"}


def test_programs_that_are_damaged(cli: Cli) -> None:
    assert cli("compile", "digits.tflite", "-o", "d.celosia").exit_code == 0
    content = Path("d.celosia").read_bytes()
    for place in (0, 9, 17, 33, 200, len(content) // 2, len(content) - 1):
        damaged = bytearray(content)
        damaged[place] ^= 0x10
        Path("bad.celosia").write_bytes(damaged)
        refused(cli("run", "bad.celosia", "--device", "emu"), "bad.celosia")
    Path("bad.celosia").write_bytes(content[:-1])
    refused(cli("disasm", "bad.celosia"), "truncated")


def test_a_program_for_another_configuration(cli: Cli) -> None:
    assert cli("compile", "digits.tflite", "-o", "d.celosia").exit_code == 0
    refused(
        cli("run", "d.celosia", "--config", "large", "--device", "emu"),
        "rows is 16, the program needs 8",
        "Compile the model for 'large'",
    )


def test_a_program_cannot_be_checked_without_its_model(cli: Cli) -> None:
    assert cli("compile", "digits.tflite", "-o", "d.celosia").exit_code == 0
    refused(cli("run", "d.celosia", "--check", "--device", "emu"), "--against")


@pytest.mark.parametrize(("samples", "width"), [(1, 16), (1, 64), (2, 64)])
def test_a_program_is_not_checked_against_another_model(cli: Cli, samples: int, width: int) -> None:
    b = ModelBuilder()
    x = b.input((samples, 1, 1, width), scale=0.1)
    Path("other.tflite").write_bytes(b.finish([b.relu(x)]))
    assert cli("compile", "digits.tflite", "-o", "d.celosia").exit_code == 0
    options = ("--check", "--against", "other.tflite", "--device", "emu")
    refused(cli("run", "d.celosia", *options), "'digits'", "other.tflite", "another model")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", ["not JSON"]),
        ("[]", ["must be a JSON object"]),
        ('{"rows": 7, "cols": 7}', ["rows must be 4, 8, 16 or 32, not 7"]),
        ('{"rows": 8, "rows": 8}', ["has a key twice"]),
        ('{"lines": 8}', ["no field 'lines'", "there are name, rows"]),
        ('{"rows": "8"}', ["rows must be a whole number"]),
        ('{"rows": true}', ["rows must be a whole number"]),
        ('{"compact": 1}', ["compact must be true or false or a list, not 1"]),
        ('{"name": 1}', ["name must be a text"]),
    ],
)
def test_bad_configuration_files(cli: Cli, content: str, words: list[str]) -> None:
    Path("c.json").write_text(content, encoding="utf-8")
    refused(cli("demo", "--config", "c.json", "--device", "emu"), "c.json", *words)


def test_an_operator_that_is_not_supported(cli: Cli, tmp_path: Path) -> None:
    builder = ModelBuilder()
    image = builder.input((1, 4, 4, 8), scale=0.1, zero_point=3)
    builder.operator("CEIL", [image], (1, 4, 4, 8), scale=0.1, zero_point=3)
    Path("ceil.tflite").write_bytes(builder.finish())
    refused(cli("compile", "ceil.tflite", "-o", "o.celosia", "--host", "refuse"), "CEIL")
    assert files(tmp_path) == {"ceil.tflite"}


def test_a_float_model(cli: Cli, tmp_path: Path) -> None:
    builder = ModelBuilder()
    builder.relu(builder.input((1, 4, 4, 8), scale=0.1), scale=0.1)
    content = bytearray(builder.finish())
    graph = tflite.Model.GetRootAs(content, 0).Subgraphs(0)
    for index in range(graph.TensorsLength()):
        table = graph.Tensors(index)._tab
        content[table.Pos + table.Offset(6)] = tflite.TensorType.FLOAT32  # field `type`
    Path("float.tflite").write_bytes(content)
    arguments = ("float.tflite", "--device", "emu", "--save", "y.npz", "--host", "refuse")
    refused(cli("run", *arguments), "float32", "int8")
    assert files(tmp_path) == {"float.tflite"}


def test_outputs_are_replaced_whole_or_not_at_all(cli: Cli) -> None:
    Path("d.celosia").write_bytes(b"what was there before")
    Path("bad.tflite").write_bytes(DIGITS.model[:4000])
    refused(cli("compile", "bad.tflite", "-o", "d.celosia"))
    assert Path("d.celosia").read_bytes() == b"what was there before"
    assert cli("compile", "digits.tflite", "-o", "d.celosia").exit_code == 0
    assert Program.load("d.celosia").model == "digits"


def test_every_command_is_in_the_module_that_it_is_looked_for_in() -> None:
    for load in dict.fromkeys(LOADERS.values()):
        of_module = typer.Typer()
        load().register(of_module)
        names = [command.name for command in of_module.registered_commands]
        assert names == [name for name, loader in LOADERS.items() if loader is load]


def loaded_by(statements: str) -> set[str]:
    """Return the modules that a Python of its own has after some statements."""
    script = f"import sys\n{statements}\nprint('modules:', *sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
    return set(result.stdout.rpartition("modules:")[2].split())


HEAVY = {"amaranth", "cocotb", "flatbuffers", "numpy", "rich", "serial", "tflite"}


def test_the_version_is_shown_without_what_commands_need() -> None:
    found = loaded_by(
        "from celosia.sw.cli.app import main\n"
        "sys.argv = ['celosia', '--version']\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code"
    )
    assert "typer" in found
    assert not HEAVY & found
    assert {name for name in found if name.startswith("celosia")} == {
        "celosia",
        "celosia.errors",
        "celosia.hw",
        "celosia.hw.contract",
        "celosia.hw.contract.config",
        "celosia.hw.contract.operations",
        "celosia.hw.contract.parts",
        "celosia.quantities",
        "celosia.sw",
        "celosia.sw.cli",
        "celosia.sw.cli.app",
        "celosia.sw.cli.common",
        "celosia.sw.cli.completing",
        "celosia.version",
    }
    # It would bring email, zipfile and sockets, a quarter of the time.
    assert "importlib.metadata" not in found


READING_MODELS = {"celosia.sw.compiler.build", "flatbuffers", "tflite"}


def test_commands_are_loaded_without_the_compiler_that_they_may_run() -> None:
    found = loaded_by("from celosia.sw.cli import compile, run, tools")
    assert "celosia.sw.report.host" in found
    assert not READING_MODELS & found


def test_a_program_is_run_without_the_compiler(cli: Cli) -> None:
    assert cli("compile", "digits.tflite", "-o", "d.celosia").exit_code == 0
    found = loaded_by(
        "from celosia.sw.cli.app import main\n"
        "sys.argv = ['celosia', 'run', 'd.celosia', '--device', 'emu']\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code"
    )
    assert "celosia.sw.runtime.session" in found
    assert not READING_MODELS & found


def test_the_package_is_imported_without_what_its_functions_need() -> None:
    found = loaded_by("import celosia")
    assert not HEAVY & found
    assert {name for name in found if name.startswith("celosia")} == {"celosia", "celosia.errors"}
    assert "celosia.hw.contract.config" in loaded_by("import celosia; celosia.NpuConfig")
