"""Places the tokens that make engines running side by side do what one after the other would.

Every command that depends on one of another engine (it reads what that one wrote, or writes what
that one read or wrote) waits for a token from it. Tokens of a pair of engines are counted, not
named: the n-th wait takes the n-th signal. That works because engines run their commands in order
and dependences of a pair are served in order: a command waits for the *latest* command of
the other engine that it depends on, and only if nothing it has already waited for, directly or
through a third engine, came after that one. So each signal is taken by exactly one wait.

Deadlock cannot come up: tokens go from earlier to later commands in program order, so the oldest
command that is not complete always has its tokens. The accumulator couples a `Conv` and the REQUANT
behind it more tightly, which is why the two stand together and why the latter never waits for the
array: it cannot write a result before its `Conv` has begun, hence not before every earlier `Conv`
has read all of its input.
"""

from __future__ import annotations

from dataclasses import replace

from celosia.hw.contract.isa import MAX_TOKENS, Command, Engine
from celosia.sw.compiler.steps import Step, conflict, is_requantise

__all__ = ["place_tokens"]


TOKENS_UNDER_WAY = MAX_TOKENS // 2
"""An engine waits for another one that is to take as many tokens of its."""

Clock = dict[Engine, int]
"""For each engine the index in the program of its latest command known to be complete."""


def place_tokens(steps: list[Step], queue_depth: int) -> list[Command]:
    """Return the commands with their wait and signal masks; tags are the indices.

    Parameters
    ----------
    steps : list of Step
        In program order.
    queue_depth : int
        Commands a queue holds; bounds how many tokens can be under way.
    """
    waits: list[set[Engine]] = [set() for _ in steps]
    signals: list[set[Engine]] = [set() for _ in steps]
    complete: list[Clock] = []
    of_engine: dict[Engine, list[int]] = {engine: [] for engine in Engine}
    pairs: dict[tuple[Engine, Engine], list[tuple[int, int]]] = {}
    for index, step in enumerate(steps):
        engine = step.engine
        known = _known_at_start(steps, index, of_engine, complete)
        needed = {
            other: latest
            for other in Engine
            if other != engine
            and (latest := _latest_conflict(steps, step, of_engine[other], known[other])) >= 0
        }
        for other in Engine:
            taker = _behind(pairs.get((engine, other), []), known[other])
            if taker > needed.get(other, -1):
                needed[other] = taker
        for other, latest in _without_implied(needed, complete).items():
            assert engine not in signals[latest], "one signal serves one wait"
            waits[index].add(other)
            signals[latest].add(engine)
            pairs.setdefault((other, engine), []).append((latest, index))
            known = _joined(known, complete[latest])
        known[engine] = index
        if is_requantise(step):
            # All tiles taken: the Conv has read everything.
            known[Engine.ARRAY] = of_engine[Engine.ARRAY][-1]
        complete.append(known)
        of_engine[engine].append(index)
    for pair in pairs.values():
        _check_count(pair, queue_depth)
    return [
        replace(
            step.command,
            wait=sum(1 << engine for engine in waits[index]),
            signal=sum(1 << engine for engine in signals[index]),
            tag=index & 0xFFFF,
        )
        for index, step in enumerate(steps)
    ]


def _known_at_start(
    steps: list[Step],
    index: int,
    of_engine: dict[Engine, list[int]],
    complete: list[Clock],
) -> Clock:
    engine = steps[index].engine
    own = of_engine[engine]
    known = dict(complete[own[-1]]) if own else dict.fromkeys(Engine, -1)
    if is_requantise(steps[index]):
        array = of_engine[Engine.ARRAY]
        assert array, "a REQUANT without a Conv"
        assert array[-1] == index - 1, "a REQUANT stands behind its Conv"
        # Its own Conv included: the two work together, on tensors that do not overlap.
        known[Engine.ARRAY] = array[-1]
    return known


def _latest_conflict(steps: list[Step], step: Step, candidates: list[int], known: int) -> int:
    for index in reversed(candidates):
        if index <= known:
            break
        if conflict(steps[index], step):
            return index
    return -1


def _behind(pairs: list[tuple[int, int]], known: int) -> int:
    """Return the command to wait for so that no more tokens get under way than may; -1: none.

    Parameters
    ----------
    pairs : list of (int, int)
        The commands that gave tokens to another engine, and those that take them.
    known : int
        The latest command of that engine known to be complete.
    """
    if len(pairs) < TOKENS_UNDER_WAY or pairs[-TOKENS_UNDER_WAY][1] <= known:
        return -1
    return pairs[-TOKENS_UNDER_WAY // 2][1]


def _without_implied(needed: Clock, complete: list[Clock]) -> Clock:
    """Drop what waiting for the others implies."""
    kept = dict(needed)
    for engine, latest in needed.items():
        if any(
            complete[other_latest][engine] >= latest
            for other, other_latest in kept.items()
            if other != engine
        ):
            del kept[engine]
    return kept


def _joined(one: Clock, other: Clock) -> Clock:
    return {engine: max(one[engine], other[engine]) for engine in Engine}


def _check_count(pairs: list[tuple[int, int]], queue_depth: int) -> None:
    """Assert that no counter can overflow: signals whose wait comes later, at any place."""
    events = sorted([(first, 1) for first, _ in pairs] + [(last, -1) for _, last in pairs])
    open_pairs = most = 0
    for _, change in events:
        open_pairs += change
        most = max(most, open_pairs)
    assert most + queue_depth <= MAX_TOKENS, f"{most} tokens under way"
