"""Operators that move elements: compiled, on the emulator, against golden and reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from celosia.hw.contract.config import NpuConfig, preset
from celosia.sim.models.random_moves import MOVES, random_move
from celosia.sw.compiler.arithmetic.boxes import Box, boxes_of
from celosia.sw.reference.golden import GoldenModel
