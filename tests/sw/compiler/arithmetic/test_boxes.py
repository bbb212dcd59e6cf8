"""Boxes cover a movement, each element once and from where the map says."""

from __future__ import annotations

import numpy as np
import pytest
from celosia.sw.compiler.arithmetic.boxes import boxes_of


def covered(boxes: list, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    """Return source and element of each place, as the boxes have it; every place once."""
    sources, elements = np.full(shape, -1), np.full(shape, -1)
    for box in boxes:
        y, x, c = np.ogrid[: box.height, : box.width, : box.channels]
        place = np.s_[
            box.y : box.y + box.height, box.x : box.x + box.width, box.c : box.c + box.channels
        ]
        assert (sources[place] == -1).all()
        sources[place] = box.source
        elements[place] = box.offset + y * box.step_y + x * box.step_x + c * box.step_c
    return sources, elements


@pytest.mark.parametrize("seed", range(40))
def test_any_map_is_covered(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(1, 7, 3))
    if seed % 2:
        elements = rng.integers(0, 9, shape)
        sources = rng.integers(0, 2, shape)
    else:
        y, x, c = np.indices(shape)
        steps = rng.integers(-3, 20, 3)
        elements = 100 + y * steps[0] + x * steps[1] + c * steps[2]
        sources = (c >= shape[2] // 2).astype(np.int64)
    boxes = boxes_of(sources, elements)
    got_sources, got_elements = covered(boxes, shape)  # type: ignore[arg-type]
    assert np.array_equal(got_sources, sources)
    assert np.array_equal(got_elements, elements)
    if seed % 2 == 0:
        assert len(boxes) <= 2


def test_rows_of_a_box() -> None:
    (box,) = boxes_of(np.zeros((6, 2, 3), np.int64), np.arange(36).reshape(6, 2, 3))
    part = box.part((2, 4), (0, 2), (0, 3))
    assert part is not None
    assert (part.y, part.height, part.offset) == (2, 2, 12)
    assert box.part((6, 9), (0, 2), (0, 3)) is None
