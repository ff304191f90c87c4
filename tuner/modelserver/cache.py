"""A cache of Predict answers, least recently used out. Ours: TensorFlow Serving has none."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable


class ResponseCache:
    """Answers by the bytes that asked for them.

    The key holds the request's bytes themselves rather than a digest: equal keys are equal
    requests, without doubt, and both sides count against the limit.

    Args:
        limit_bytes: of requests and answers kept.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit, self._held = limit_bytes, 0
        self._answers: OrderedDict[tuple[Hashable, bytes], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, servable: Hashable, request: bytes) -> bytes | None:
        """The answer that this very request got from this very servable, if it is kept."""
        key = (servable, request)
        with self._lock:
            answer = self._answers.get(key)
            if answer is not None:
                self._answers.move_to_end(key)
            return answer

    def put(self, servable: Hashable, request: bytes, answer: bytes) -> None:
        """Keep an answer; those least recently used make room for it."""
        size = len(request) + len(answer)
        if size > self._limit:
            return
        with self._lock:
            key = (servable, request)
            if key in self._answers:
                return
            self._answers[key] = answer
            self._held += size
            while self._held > self._limit:
                (_, old_request), old_answer = self._answers.popitem(last=False)
                self._held -= len(old_request) + len(old_answer)
