"""The threads that answer calls, one for each call in flight."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

Work = Callable[..., None]


class Workers:
    """At most ``limit`` calls in flight; threads start as they are needed.

    Most calls are worked on by the thread that read them; these threads are for those that came
    together with another one.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._tasks: queue.SimpleQueue[tuple[Work, tuple[object, ...]] | None]
        self._tasks = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._in_flight = self._given = 0

    def enter(self) -> bool:
        """Have a call in flight; ``False`` where ``limit`` are."""
        with self._lock:
            if self._in_flight >= self._limit:
                return False
            self._in_flight += 1
            return True

    def submit(self, work: Work, *arguments: object) -> None:
        """Have ``work`` run in a thread: a call that is in flight.

        ``work`` calls ``done`` when its call is over, before it tells the client: the next
        request may come from there before the thread has returned.
        """
        with self._lock:
            self._given += 1
            if self._given > len(self._threads):
                name = f"grpc-{len(self._threads)}"
                thread = threading.Thread(target=self._work, name=name, daemon=True)
                self._threads.append(thread)
                thread.start()
        self._tasks.put((work, arguments))

    def done(self) -> None:
        """A call is over."""
        with self._lock:
            self._in_flight -= 1

    def idle(self) -> bool:
        return self._in_flight == 0

    def stop(self) -> None:
        """End the threads once they have nothing to do."""
        for _ in self._threads:
            self._tasks.put(None)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            work, arguments = task
            work(*arguments)
            # Until the next call comes, nothing may keep this one's message and servable alive.
            del task, work, arguments
            with self._lock:
                self._given -= 1
