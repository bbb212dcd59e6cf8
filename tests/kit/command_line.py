"""Runs the command line in this process."""

from __future__ import annotations

from celosia.sw.cli.app import app
from typer.testing import CliRunner, Result

__all__ = ["Result", "run_cli"]


def run_cli(*arguments: object) -> Result:
    """Run ``celosia`` with some arguments; return exit code and output.

    Raises
    ------
    AssertionError
        If it ends with an exception: a traceback is never an answer.
    """
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result
