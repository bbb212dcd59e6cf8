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
            box.y : box.y + box.height * box.stride_y : box.stride_y,
            box.x : box.x + box.width * box.stride_x : box.stride_x,
            box.c : box.c + box.channels,
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


@pytest.mark.parametrize("factors", [(2, 2), (1, 3), (4, 2)])
def test_an_enlarged_image_is_a_box_for_each_copy(factors: tuple[int, int]) -> None:
    small = np.arange(6 * 5 * 3).reshape(6, 5, 3)
    elements = small.repeat(factors[0], axis=0).repeat(factors[1], axis=1)
    boxes = boxes_of(np.zeros_like(elements), elements)
    assert len(boxes) == factors[0] * factors[1]
    assert np.array_equal(covered(boxes, elements.shape)[1], elements)
    for rows, columns, channels in (
        ((0, 1), (0, 99), (0, 3)),
        ((1, 5), (2, 4), (0, 3)),
        ((3, 4), (1, 2), (1, 2)),
    ):
        parts = [part for box in boxes if (part := box.part(rows, columns, channels)) is not None]
        kept = covered(parts, elements.shape)[1]
        place = slice(*rows), slice(*columns), slice(*channels)
        assert np.array_equal(kept[place], elements[place])
        kept[place] = -1
        assert (kept == -1).all()


def test_rows_of_a_box() -> None:
    (box,) = boxes_of(np.zeros((6, 2, 3), np.int64), np.arange(36).reshape(6, 2, 3))
    part = box.part((2, 4), (0, 2), (0, 3))
    assert part is not None
    assert (part.y, part.height, part.offset) == (2, 2, 12)
    assert box.part((6, 9), (0, 2), (0, 3)) is None
