"""What to change about a model or its machine, with what that saves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from celosia.sw.compiler.ir import Graph
from celosia.sw.profile.profile import Profile
from celosia.sw.profile.rules import RULES, Case, Proposal
from celosia.sw.profile.whatif import WhatIf

__all__ = ["Advice", "advise"]

LEAST_SHARE = 0.01
"""Of all cycles: advice that saves less is left out."""
LEAST_CHECKS, MOST_CHECKS = 3, 8
COMMANDS_TO_CHECK = 1600
"""Of all changes together: a long program takes long to compile."""


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What to change.

    Attributes
    ----------
    rule : str
        A key of `celosia.sw.profile.rules.RULES`.
    text : str
        What, in a sentence.
    layers : tuple of int
        Numbers of the layers in the profile that it is about; none: all.
    saved_cycles : int or None
        Of an inference; None if it is not about cycles of the NPU.
    saved_share : float or None
        Of all cycles.
    compiled : bool
        Whether the saving is that of the changed model, compiled and predicted; else it follows
        from the layers' own cycles.
    """

    rule: str
    text: str
    layers: tuple[int, ...]
    saved_cycles: int | None
    saved_share: float | None
    compiled: bool

    def figures(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON."""
        return asdict(self)


def advise(
    profile: Profile,
    graph: Graph | None,
    *,
    checks: int | None = None,
    progress: Callable[[str], object] = lambda text: None,
) -> list[Advice]:
    """Say what to change, what saves most first.

    Parameters
    ----------
    profile : Profile
        Of a compiled model, predicted.
    graph : Graph or None
        The model as the compiler lowered it, by `celosia.sw.compiler.lower.lower`. None if there is
        no such graph of the whole model, or the program is of several samples; then only the layers
        themselves are looked at.
    checks : int, optional
        How many changes are compiled at most; by default fewer for long programs.
    progress : callable
        Is given a few words before something that takes time.

    Returns
    -------
    list of Advice
        First what is not about cycles: operators on the host.
    """
    case = Case(profile=profile, graph=graph)
    least = LEAST_SHARE * profile.cycles
    found: list[Advice] = []
    proposals: list[tuple[str, Proposal]] = []
    for name, rule in RULES.items():
        for proposal in rule(case):
            if proposal.guess is None:
                found.append(_advice(name, proposal, None, profile))
            elif proposal.guess >= least:
                proposals.append((name, proposal))
    proposals.sort(key=lambda entry: -(entry[1].guess or 0))
    commands = sum(len(segment.commands) for segment in profile.segments)
    if checks is None:
        checks = min(MOST_CHECKS, max(LEAST_CHECKS, COMMANDS_TO_CHECK // max(commands, 1)))
    what_if = graph and WhatIf(graph, profile.program.config, profile.memory, checks)
    savings: list[Advice] = []
    for name, proposal in proposals:
        saved, compiled = proposal.guess or 0, False
        if what_if and what_if.left and proposal.change and (change := proposal.change()):
            progress(f"trying a change: {name}")
            after = what_if.cycles(change)
            if after is None:
                continue
            saved, compiled = profile.cycles - after, True
        if saved >= least and (compiled or proposal.certain):
            savings.append(_advice(name, proposal, saved, profile, compiled=compiled))
    savings.sort(key=lambda advice: -(advice.saved_cycles or 0))
    return [*found, *savings]


def _advice(
    rule: str, proposal: Proposal, saved: int | None, profile: Profile, *, compiled: bool = False
) -> Advice:
    return Advice(
        rule=rule,
        text=proposal.text,
        layers=proposal.layers,
        saved_cycles=saved,
        saved_share=None if saved is None else saved / profile.cycles,
        compiled=compiled,
    )
