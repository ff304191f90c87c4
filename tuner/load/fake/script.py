"""What happens to a request at a scripted server: queue, delay, answer or error."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable

from tuner.load.fake.laws import Law

Answer = Callable[[bool], None]
"""Called once, with whether the request succeeded."""


class Script:
    """Serves at most ``concurrency`` requests at a time (``None``: all), first come, first served.

    Args:
        error_rate: share of the requests that fail, after their delay.
        warm_up_s: extra delay of the very first requests, dying away as exp(-number / 20):
            a cold server.
    """

    def __init__(
        self,
        law: Law,
        concurrency: int | None = None,
        error_rate: float = 0.0,
        warm_up_s: float = 0.0,
    ) -> None:
        self._law, self._limit = law, concurrency
        self._error_rate, self._warm_up_s = error_rate, warm_up_s
        self._loop = asyncio.get_running_loop()
        self._number = 0
        self._busy = 0
        self._queue: deque[Answer] = deque()

    def request(self, answer: Answer) -> None:
        """A request has arrived."""
        if self._limit is not None and self._busy >= self._limit:
            self._queue.append(answer)
        else:
            self._serve(answer)

    def _serve(self, answer: Answer) -> None:
        number, self._number = self._number, self._number + 1
        now = self._loop.time()
        delay = self._law.delay_s(now, number)
        if self._warm_up_s and number < 400:
            delay += self._warm_up_s * 0.5 ** (number / 20)
        good = not self._error_rate or random.Random(number).random() >= self._error_rate
        if delay <= 0 and self._limit is None:
            answer(good)
            return
        self._busy += 1
        self._loop.call_at(now + delay, self._finish, answer, good)

    def _finish(self, answer: Answer, good: bool) -> None:
        self._busy -= 1
        answer(good)
        if self._queue:
            self._serve(self._queue.popleft())
