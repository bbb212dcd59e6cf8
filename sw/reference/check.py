"""Runs a model and compares every tensor with what it must be.

Two programs are run: the plain one, whose outputs and cycles count, and an instrumented one that
leaves every intermediate tensor in system memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from celosia.errors import InputError
from celosia.hw.contract.config import NpuConfig
from celosia.sw.compiler.build import compile_model
from celosia.sw.compiler.ir import UNPROVEN
from celosia.sw.driver.device import Device
from celosia.sw.driver.result import Result
from celosia.sw.program.file import Program
from celosia.sw.reference.interpreter import Expected, ReferenceModel
from celosia.sw.report.locate import Origin, find_origin
from celosia.sw.runtime.session import Session

__all__ = ["CheckReport", "Difference", "check_model"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The first tensor, in the model's order, that is not what it must be.

    Attributes
    ----------
    tensor : str
        Its name.
    index : tuple of int
        The first element that differs, in the model's tensor.
    got, expected : int or float
        That element.
    wrong, elements : int
        How many elements differ, of how many.
    source : str
        What it was compared with.
    sample : int
        Number of the inference.
    program : str
        ``plain`` or ``instrumented``.
    origin : Origin
        What computed the element.
    """

    tensor: str
    index: tuple[int, ...]
    got: int | float
    expected: int | float
    wrong: int
    elements: int
    source: str
    sample: int
    program: str
    origin: Origin

    def __str__(self) -> str:
        return (
            f"sample {self.sample}: tensor {self.tensor!r} differs from the {self.source}:"
            f" element {list(self.index)} is {self.got}, must be {self.expected}"
            f" ({self.wrong} of {self.elements} elements differ).\n"
            f"{self.program} program: {self.origin}"
        )


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """The result of `check_model`.

    Attributes
    ----------
    program : Program
        The plain program.
    results : list of Result
        Its result for each sample.
    tensors : int
        Tensors compared in each inference, outputs included.
    absent : tuple of str
        Tensors of the model that do not exist on the NPU: folded into the operators around them.
    narrowed : dict of str to tuple of int
        Of tensors that have fewer channels on the NPU than in the model, the channels they have.
        These were compared; the others do not exist.
    sources : tuple of str
        What they were compared with.
    unconfirmed : str or None
        Why the reference interpreter, if it was asked, did not confirm the golden model.
    foreseen : tuple of str
        What differs where the compiler has said so (`celosia.sw.compiler.ir.NpuOp.exactness`): in
        single elements, by one step. Tensors behind such an element are not compared.
    elsewhere : int
        Elements of outputs that onnxruntime's default options make others of on this processor.
    difference : Difference or None
        The first one, if there is any.
    state : dict of str to ndarray
        The plain program's variables as the last inference left them.
    """

    program: Program
    results: list[Result]
    tensors: int
    absent: tuple[str, ...]
    narrowed: dict[str, tuple[int, ...]]
    sources: tuple[str, ...]
    unconfirmed: str | None = None
    foreseen: tuple[str, ...] = ()
    elsewhere: int = 0
    difference: Difference | None
    state: Mapping[str, Array] = field(default_factory=dict)

    @property
    def equal(self) -> bool:
        """Whether nothing differs; the golden model alone decides if the reference cannot run."""
        return self.difference is None


def check_model(
    path: Path,
    config: NpuConfig,
    device: Device,
    inputs: Sequence[Mapping[str, Array]],
    *,
    program: Program | None = None,
    fold: bool = False,
    interpreter: bool | None = None,
    progress: Callable[[int], None] | None = None,
    state: Mapping[str, Array] | None = None,
    exact: bool = False,
) -> CheckReport:
    """Run a model on a device and compare every tensor with the golden model's.

    A model with variables runs its inferences one after the other, here as in the reference.

    Parameters
    ----------
    path : Path
        The ``.tflite`` file.
    config : NpuConfig
        What to compile for; the device's configuration.
    device : Device
        An open device.
    inputs : sequence of mapping
        One entry a run: arrays by input name. Samples of a batch are one after the other, and the
        reference runs each alone.
    program : Program, optional
        The plain program, if it is compiled already.
    fold : bool
        Whether to compile the plain program with constant channels removed. The instrumented one
        follows the plain one.
    interpreter : bool, optional
        Whether to compare with the reference interpreter too; by default if it is installed.
    progress : callable, optional
        Called with the number of samples that are done.
    state : mapping of str to ndarray, optional
        What the variables hold before the first inference, by name. The reference interpreter
        cannot begin so, and is not asked then.
    exact : bool
        As of `celosia.sw.compiler.build.compile_model`.

    Returns
    -------
    CheckReport
        Ends at the first sample with a difference.

    Raises
    ------
    CelosiaError
        If the model cannot be compiled or checked, is not the program's, or the device fails.
    """
    plain = program if program is not None else compile_model(path, config, fold=fold, exact=exact)
    with ExitStack() as stack:
        reference = stack.enter_context(ReferenceModel(path, interpreter=interpreter))
        samples = reference.samples(plain.inputs[0].shape)
        if not 1 <= samples <= plain.batch:
            raise _another_model(path, plain)
        instrumented = compile_model(
            path,
            config,
            keep_tensors=True,
            fold=plain.folded_macs > 0,
            batch=samples,
            exact=exact,
        )
        if _interface(instrumented) != _interface(plain):
            raise _another_model(path, plain)
        # Two sessions: what a program keeps from run to run is its own.
        session = stack.enter_context(Session(plain, device))
        kept_session = stack.enter_context(Session(instrumented, device))
        if state is not None:
            reference.restore({info.origin.index: state[info.name] for info in plain.persistent})
            session.restore(state)
            kept_session.restore(state)
        return _check(reference, session, kept_session, inputs, progress)


def _interface(program: Program) -> list[list[tuple[str, tuple[int, ...], str]]]:
    """Return what a program takes and gives."""
    return [
        [(info.name, info.shape, info.dtype) for info in infos]
        for infos in (program.inputs, program.outputs)
    ]


def _another_model(path: Path, program: Program) -> InputError:
    return InputError(
        f"cannot check program {program.model!r} against {path}",
        "their inputs or outputs differ: it was compiled from another model",
        "name the model that it was compiled from",
    )


def _check(
    reference: ReferenceModel,
    session: Session,
    kept_session: Session,
    inputs: Sequence[Mapping[str, Array]],
    progress: Callable[[int], None] | None,
) -> CheckReport:
    results: list[Result] = []
    compared: set[str] = set()
    difference: Difference | None = None
    foreseen: list[str] = []
    plain, instrumented = session.program, kept_session.program
    # Both take turns on the device, and keep their variables apart.
    runs = zip(inputs, session.run_many(inputs), kept_session.run_many(inputs), strict=True)
    for number, (sample, result, kept) in enumerate(runs):
        expected = reference.run(sample)
        results.append(result)
        compare = _Comparison(expected, reference.operators, number)
        # The instrumented program first: it knows which layer went wrong, not only that one did.
        difference = compare.first_difference(
            instrumented, "instrumented", {**kept.tensors, **kept.outputs}
        )
        if difference is None and not compare.foreseen:
            difference = compare.first_difference(plain, "plain", results[-1].outputs)
        foreseen += [compare.foreseen] if compare.foreseen else []
        compared |= compare.compared
        if progress is not None:
            progress(number + 1)
        if difference is not None:
            break
    return CheckReport(
        program=plain,
        results=results,
        tensors=len(compared),
        absent=tuple(name for name in reference.operators if name not in compared),
        narrowed={
            info.name: info.kept_channels
            for info in instrumented.intermediates
            if info.kept_channels is not None and info.name in compared
        },
        sources=reference.sources,
        unconfirmed=reference.unconfirmed,
        foreseen=tuple(foreseen),
        elsewhere=reference.elsewhere,
        difference=difference,
        state=session.state,
    )


class _Comparison:
    """Compares the tensors of one sample."""

    def __init__(
        self, expected: Sequence[Expected], operators: Mapping[str, int], sample: int
    ) -> None:
        self._expected = expected
        self._operators = operators
        self._sample = sample
        self.compared: set[str] = set()
        self.foreseen = ""

    def first_difference(
        self, program: Program, kind: str, tensors: Mapping[str, Array]
    ) -> Difference | None:
        missing = [info.name for info in program.outputs if info.name not in tensors]
        assert not missing, f"the device returned no {missing}"
        infos = {info.name: info for info in program.tensors}
        for name, op_index in self._operators.items():
            # A tensor that the compiler has made is nobody else's.
            sources = [source for source in self._expected if name in source.tensors]
            if name not in tensors or not sources:
                continue
            self.compared.add(name)
            kept = infos[name].kept_channels
            got = np.asarray(tensors[name])
            for source in sources:
                wanted = source.tensors[name]
                if wanted.dtype == np.uint8 and got.dtype == np.int8:
                    got = (got.astype(np.int16) + 128).astype(np.uint8)
                if kept is not None:
                    wanted = wanted[..., list(kept)]
                # Equal bytes of another shape are equal: a batch of one comes and goes.
                wrong = _different(got, wanted) if got.size == wanted.size else None
                if wrong is not None and not wrong.any():
                    continue
                assert wrong is not None, f"{name!r} is {got.shape}, must be {wanted.shape}"
                if _is_foreseen(program, name, got, wanted):
                    self.foreseen = (
                        f"sample {self._sample}: {int(wrong.sum())} of {got.size} elements of"
                        f" {name!r} differ by one step from the {source.source}"
                    )
                    return None
                first = int(np.argmax(wrong))
                index = tuple(int(i) for i in np.unravel_index(first, got.shape))
                return Difference(
                    tensor=name,
                    index=index if kept is None else (*index[:-1], kept[index[-1]]),
                    got=got.reshape(-1)[first].item(),
                    expected=wanted.reshape(-1)[first].item(),
                    wrong=int(wrong.sum()),
                    elements=got.size,
                    source=source.source,
                    sample=self._sample,
                    program=kind,
                    origin=find_origin(program, name, index, op_index),
                )
        return None


MOST_FORESEEN = 1 / 256
"""Of a tensor's elements: how many may differ because the compiler has said that some could."""


def _is_foreseen(program: Program, name: str, got: Array, wanted: Array) -> bool:
    """Whether a layer differs as its exactness says that it could: seldom, and by one step."""
    layer = next((layer for layer in program.layers if layer.name == name), None)
    if layer is None or UNPROVEN not in layer.reason or got.dtype.kind not in "iu":
        return False
    apart = np.abs(got.reshape(-1).astype(np.int64) - wanted.reshape(-1).astype(np.int64))
    return bool(apart.max() <= 1 and np.count_nonzero(apart) <= max(1, got.size * MOST_FORESEEN))


def _different(got: Array, wanted: Array) -> npt.NDArray[np.bool_]:
    """Return where two tensors of equally many elements differ; two that are no number do not."""
    one, other = got.reshape(-1), wanted.reshape(-1)
    wrong: npt.NDArray[np.bool_] = one != other
    if np.issubdtype(one.dtype, np.floating):
        wrong &= ~(np.isnan(one) & np.isnan(other))
    return wrong
