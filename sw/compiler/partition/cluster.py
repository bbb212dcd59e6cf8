"""Puts operators that run in one place next to each other: few segments, in an order that works."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

__all__ = ["cluster"]

Place = TypeVar("Place", bound=Hashable)


def cluster(
    places: Sequence[Place], needs: Mapping[int, frozenset[int]]
) -> list[tuple[Place, list[int]]]:
    """Order nodes of an acyclic graph so that the place changes rarely.

    From a first place on, everything that can run there does; then the next place has its turn.
    Each turn takes all that depends, there, on nothing but what has run, so with two places no
    other order has fewer turns from the same beginning. All beginnings are tried.

    Parameters
    ----------
    places : sequence
        Where each node runs; nodes are numbers from 0.
    needs : mapping of int to frozenset of int
        Of each node those that have to run before it.

    Returns
    -------
    list of (place, list of int)
        The turns: their place, and their nodes in rising order as far as they can be.

    Raises
    ------
    ValueError
        If the graph has a circle.
    """
    kinds = list(dict.fromkeys(places))
    return min((_turns(places, needs, first) for first in kinds), key=len, default=[])


def _turns(
    places: Sequence[Place], needs: Mapping[int, frozenset[int]], first: Place
) -> list[tuple[Place, list[int]]]:
    left, done = set(range(len(places))), set[int]()
    turns: list[tuple[Place, list[int]]] = []
    place = first
    while left:
        turn: list[int] = []
        ready = _ready(left, done, places, needs, place)
        while ready:
            # Needs point back in most graphs: a sweep in rising order takes nearly all.
            turn += ready
            left.difference_update(ready)
            done.update(ready)
            ready = _ready(left, done, places, needs, place)
        if turn:
            turns.append((place, turn))
        rest = {places[node] for node in left if needs[node] <= done}
        if left and not rest:
            raise ValueError("the graph has a circle")
        place = _next_place(rest, left, done, places, needs)
    return turns


def _ready(
    left: set[int],
    done: set[int],
    places: Sequence[Place],
    needs: Mapping[int, frozenset[int]],
    place: Place,
) -> list[int]:
    """Return nodes of a place that can run one after the other, in rising order."""
    found: list[int] = []
    known = set(done)
    for node in sorted(left):
        if places[node] == place and needs[node] <= known:
            found.append(node)
            known.add(node)
    return found


def _next_place(
    ready: set[Place],
    left: set[int],
    done: set[int],
    places: Sequence[Place],
    needs: Mapping[int, frozenset[int]],
) -> Place:
    """Return that of the places with something to do that can do most."""
    ordered = [place for place in dict.fromkeys(places) if place in ready] or list(places[:1])
    if len(ordered) == 1:
        return ordered[0]
    return max(ordered, key=lambda place: len(_ready(left, done, places, needs, place)))
