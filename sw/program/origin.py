"""Where in a model a layer or a tensor comes from, by the numbers and names of the model's file."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Origin"]


@dataclass(frozen=True)
class Origin:
    """Where in a model an operator or a tensor comes from.

    Attributes
    ----------
    format : str
        ``tflite``; empty for one that the compiler adds.
    index : int
        Number of the operator or tensor in the file, -1 for one that the compiler adds.
    name : str
        As the format calls the operator, for example ``CONV_2D``; of a tensor, its name.
    """

    format: str = ""
    index: int = -1
    name: str = ""
