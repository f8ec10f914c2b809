"""Signals that end a command: it cleans up first, and nothing interrupts that."""

import signal
import sys

__all__ = ["SIGNALS", "ignore_signals", "interrupt_once"]

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Those that end a command."""


def interrupt_once(said: str = "") -> None:
    """Raise KeyboardInterrupt at the first of `SIGNALS`, and ignore all further ones.

    Args:
        said: printed at the first one.
    """

    def interrupt(*_: object) -> None:
        ignore_signals()
        if said:
            print(said, file=sys.stderr)
        raise KeyboardInterrupt

    for number in SIGNALS:
        signal.signal(number, interrupt)


def ignore_signals() -> None:
    """Ignore `SIGNALS` from here on: cleanup must not be interrupted."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
