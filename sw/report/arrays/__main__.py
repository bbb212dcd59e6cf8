"""``python -m celosia.sw.report.arrays``: measures how several arrays share the networks."""

from __future__ import annotations

import argparse
from pathlib import Path

from celosia.errors import CelosiaError
from celosia.sw.report.arrays.study import ARRAY, WIDE, study_network
from celosia.sw.report.bench.bench import find_models
from celosia.sw.report.files import require_writable
from celosia.sw.report.records import put_entry

__all__ = ["main"]

MODELS = Path(__file__).resolve().parents[3] / "examples/mlperf_tiny"


def main(arguments: list[str] | None = None) -> None:
    """Measure networks, or synthesise the arrays, and put the figures into a record."""
    parser = argparse.ArgumentParser(
        description="Measure networks on several arrays: parts of their layers on the RTL of one."
        " Every part's output is compared with the golden model of the whole network."
    )
    parser.add_argument(
        "models", nargs="*", type=Path, metavar="MODEL.tflite", help="default: MLPerf Tiny"
    )
    parser.add_argument("--record", type=Path, metavar="FILE.json", help="put the figures there")
    parser.add_argument(
        "--area", action="store_true", help="synthesise the arrays for ECP5 instead (minutes)"
    )
    chosen = parser.parse_args(arguments)
    try:
        require_writable(chosen.record)
        if chosen.area:
            _synthesise(chosen.record)
            return
        for path in chosen.models or find_models(MODELS):
            entry = study_network(path, say=lambda line: print(line, flush=True))
            if chosen.record is not None:
                put_entry(chosen.record, path.stem, entry)
    except CelosiaError as error:
        parser.exit(1, f"{error}\n")


def _synthesise(record: Path | None) -> None:
    from celosia.boards.fpga import resources

    for config in (ARRAY, WIDE):
        found = resources.synthesise(config, family="ecp5")
        print(f"{config.name}: {found.tables:,} tables, {found.ff:,} flip-flops", flush=True)
        if record is not None:
            put_entry(record, f"area {config.name}", found.as_dict())


if __name__ == "__main__":
    main()
