"""Every command and every program in README.md and docs/ runs on a fresh clone, or says why not.

They run in a copy of what git knows, in the order of the pages, so that one may use what another
before it has written. A command that is in no entry of `LEFT_OUT` is run. Sessions that
``make docs`` writes anew are run by tests/sw/docgen/test_docs.py.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from celosia.sw.docgen.navigation import navigation

from tests.kit.places import ROOT, tracked_files
from tests.kit.tools import needs_simulator

TIME_OUT_S = 300
PROMPT = "$ "
PROGRAMS = (
    "celosia",
    "python",
    ".venv/bin/python",
    "make",
    "pip",
    "apt",
    "cd",
    "echo",
    "git",
    "gtkwave",
)
"""What a command without a prompt begins with."""

LEFT_OUT = {
    "it installs packages, or runs what is being run": (
        "apt install *",
        'pip install "celosia*check]"',
        "make *",
        ".venv/bin/python -m pytest *",
        "python -m pytest *",
    ),
    "it needs TensorFlow, and trains": (
        "pip install * scikit-learn",
        "python examples/digits/train.py *",
        "python examples/digits/evaluate.py --model retrained/*",
    ),
    "it needs a board": (
        "celosia program *",
        "celosia devices",
        "celosia selftest --device uart:auto",
        "celosia run * --device uart:auto",
    ),
    "it needs two terminals; tests/e2e/test_board_sim.py and tests/sw/mlperf do it": (
        "celosia board-sim ulx3s",
        "celosia run * --device uart:/dev/pts/3 *",
        "celosia mlperf-dut *",
    ),
    "it takes minutes of synthesis": (
        "celosia build *",
        "celosia resources*",
        "celosia clock*",
        "python -m celosia.boards.fpga.sdram_clock *",
    ),
    "it is a campaign, or a measurement that takes minutes": (
        "python -m celosia.sw.report.board_cycles*",
        "celosia bench *",
        "celosia run * --random 20 *",
        "python -m celosia.sim.board.sdram_figures *",
        "python -m tests.*",
    ),
    "it takes long, or needs a Verilog simulator; tests/e2e/test_verilog_export.py does it": (
        "celosia verilog *",
        "cd bench && *",
    ),
    "it needs the public runner and its data; tests/sw/mlperf does it with a runner of its own": (
        "git clone https://github.com/mlcommons/tiny",
        "celosia mlperf-run *",
    ),
    "it builds a simulator that counts toggles; tests/sw/energy/test_energy.py does it": (
        "celosia energy *",
    ),
    "it builds a simulator that writes waveforms; tests/e2e/test_waves.py does it": (
        "celosia run * --trace *",
        "gtkwave *",
    ),
    "its model is not in the project": ("celosia run transformer_int8.tflite *",),
}
"""Why a command is not run: reason to patterns."""

PROGRAMS_LEFT_OUT = {
    "it needs a model and inputs: examples/shapes/make.py is the whole of it": (
        "quantize_static(",
    ),
    "it needs TensorFlow": ("celosia.from_keras(model", "tf.lite.TFLiteConverter"),
    "a piece of a design": ("SdramController(config",),
}
"""Why a Python program is not run: reason to what is in it."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    mark: str
    language: str
    text: str


def pages() -> list[str]:
    """Return all pages: those of the navigation in its order, then others."""
    ordered = [page.file for page in navigation(ROOT) if (ROOT / page.file).is_file()]
    others = sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))
    return list(dict.fromkeys([*ordered, *others]))


def blocks() -> list[Block]:
    fence = re.compile(r"(?:^<!-- make docs: ([^\n]+?) -->\n)?^```(\w*)\n(.*?)^```$", re.M | re.S)
    return [
        Block(page, mark, language, text)
        for page in pages()
        for mark, language, text in fence.findall((ROOT / page).read_text(encoding="utf-8"))
    ]


def commands() -> list[str]:
    """Return every command of the pages once, comments and continued lines taken away."""
    found: list[str] = []
    for block in blocks():
        if block.mark == "session" or block.language not in ("", "sh", "bash", "console"):
            continue
        lines = re.sub(r" *\\\n *", " ", block.text).splitlines()
        session = any(line.startswith(PROMPT) for line in lines)
        for line in lines:
            if session and not line.startswith(PROMPT):
                continue
            command = re.sub(r"\s+#.*", "", line.removeprefix(PROMPT)).strip()
            if session or command.split(" ")[0] in PROGRAMS:
                found.append(command)
    return list(dict.fromkeys(found))


def reason_of(command: str) -> str | None:
    for reason, patterns in LEFT_OUT.items():
        if any(fnmatchcase(command, pattern.replace("[", "[[]")) for pattern in patterns):
            return reason
    return None


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the files that git knows."""
    folder = tmp_path_factory.mktemp("clone")
    for path in tracked_files():
        copy = folder / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    return folder


def run(clone: Path, words: list[str], shown: str) -> None:
    environment = dict(os.environ)
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    result = subprocess.run(
        words,
        cwd=clone,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIME_OUT_S,
        check=False,
    )
    assert result.returncode == 0, (
        f"{shown}\n{result.stdout[-2000:]}{result.stderr}"
        "a command that cannot be run here goes into LEFT_OUT, with the reason"
    )


def test_no_reason_is_stale() -> None:
    found = commands()
    assert len(found) > 40
    for patterns in LEFT_OUT.values():
        for pattern in patterns:
            escaped = pattern.replace("[", "[[]")
            assert any(fnmatchcase(command, escaped) for command in found), pattern
    programs = "".join(block.text for block in blocks() if block.language == "python")
    for pieces in PROGRAMS_LEFT_OUT.values():
        for piece in pieces:
            assert piece in programs, piece


@needs_simulator
@pytest.mark.xdist_group("rtl-base")
def test_commands_run_on_a_fresh_clone(clone: Path) -> None:
    chosen = [command for command in commands() if reason_of(command) is None]
    assert len(chosen) > 15
    for command in chosen:
        run(clone, ["sh", "-c", command], command)


@needs_simulator
@pytest.mark.xdist_group("rtl-base")
@pytest.mark.parametrize(
    "page", sorted({block.page for block in blocks() if block.language == "python"})
)
def test_programs_run_on_a_fresh_clone(clone: Path, page: str) -> None:
    """The programs of a page are one: a later one may use what an earlier one has imported."""
    left_out = [piece for pieces in PROGRAMS_LEFT_OUT.values() for piece in pieces]
    texts = [block.text for block in blocks() if (block.page, block.language) == (page, "python")]
    program = "\n".join(text for text in texts if not any(piece in text for piece in left_out))
    if program:
        run(clone, [sys.executable, "-c", program], program)
