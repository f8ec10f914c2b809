"""The key that ends a live table."""

import asyncio
import contextlib
import os
import sys
import termios
import tty
from collections.abc import Iterator

__all__ = ["ending_with_q"]


@contextlib.contextmanager
def ending_with_q(stopping: asyncio.Event) -> Iterator[None]:
    """Set the event once somebody types q; does nothing unless standard input is a terminal."""
    if not sys.stdin.isatty():
        yield
        return
    keys, loop = sys.stdin.fileno(), asyncio.get_running_loop()

    def typed() -> None:
        with contextlib.suppress(OSError):
            if b"q" in os.read(keys, 64).lower():
                stopping.set()

    before = termios.tcgetattr(keys)
    tty.setcbreak(keys)
    loop.add_reader(keys, typed)
    try:
        yield
    finally:
        loop.remove_reader(keys)
        termios.tcsetattr(keys, termios.TCSADRAIN, before)
