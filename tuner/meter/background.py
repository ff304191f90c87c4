"""A function called again and again beside the work, for sources that must be watched in a window."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Background:
    """Calls ``function`` every ``period_s`` seconds from a thread until ``stop``.

    An exception ends the calls and is raised by ``stop``: a source that failed in the middle of a
    window must not look like one that didn't.
    """

    def __init__(self, function: Callable[[], None], period_s: float) -> None:
        self._function, self._period_s = function, period_s
        self._stopping = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="meter", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._stopping.wait(self._period_s):
                self._function()
        except Exception as failure:  # noqa: BLE001 - handed to whoever stops us
            self._failure = failure

    def cancel(self) -> None:
        """End the calls and wait for the one under way; what one of them raised is forgotten."""
        self._stopping.set()
        self._thread.join()

    def stop(self) -> None:
        """End the calls, wait for the one under way, and raise what one of them raised."""
        self.cancel()
        if self._failure is not None:
            raise self._failure
