"""What the shell offers behind an option, once ``celosia --install-completion`` has been run."""

from __future__ import annotations

__all__ = ["complete_board", "complete_config", "complete_device"]


def complete_config(incomplete: str) -> list[str]:
    """Return the presets that begin so; where there are none the shell offers files."""
    from celosia.hw.contract.named import NAMED_CONFIGS

    return [name for name in NAMED_CONFIGS if name.startswith(incomplete)]


def complete_board(incomplete: str) -> list[str]:
    """Return the boards that begin so."""
    from celosia.boards.registry import BOARDS

    return [name for name in BOARDS if name.startswith(incomplete)]


def complete_device(incomplete: str) -> list[str]:
    """Return the devices that begin so: also serial ports, none of which is asked anything."""
    from celosia.sim.board.terminals import simulated_terminals
    from celosia.sw.driver.opening import KINDS, UART
    from celosia.sw.driver.uart.find import system_ports

    ports = [path for path, _ in system_ports()]
    ports += [terminal.path for terminal in simulated_terminals()]
    names = [name for name in KINDS if name != f"{UART}PORT"]
    names += [f"{UART}{path}" for path in ports]
    return [name for name in names if name.startswith(incomplete)]
