"""Ctrl-C as a request that is met between two steps."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """While entered, the first Ctrl-C or SIGTERM is noted, and a second one interrupts.

    Only the main thread hears signals; elsewhere nothing is changed.

    Example:
      >>> with Interruption() as interruption:
      ...     signal.raise_signal(signal.SIGINT)
      ...     interruption.requested
      True
    """

    def __init__(self):
        self.requested = False
        self._previous = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            self._previous = {s: signal.signal(s, self._note) for s in _SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
