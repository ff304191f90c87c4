"""Sending by REST: predict on kept-alive HTTP/1.1 connections, one for each request under way."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any
from urllib.parse import quote

import aiohttp

from tuner.load.http2.calls import Answered
from tuner.load.records import HTTP_STATUS_OFFSET, OK

DEADLINE_EXCEEDED, UNAVAILABLE = 4, 14
HEADERS = {"Content-Type": "application/json"}


class RestTransport:
    """A client of TF Serving's REST API; answers are read to their end, not parsed."""

    def __init__(self, job: dict[str, Any], bodies: list[bytes], answered: Answered) -> None:
        self._bodies, self._answered = bodies, answered
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        host, _, port = job["address"].rpartition(":")
        self._host, self._port = host, int(port)
        models = [f"http://{job['address']}/v1/models/{quote(name)}" for name in job["models"]]
        self._predict = [f"{model}:predict" for model in models]
        self._metadata = f"{models[0]}/metadata"
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=3600.0),
            timeout=aiohttp.ClientTimeout(total=job["request_timeout_s"]),
            headers=HEADERS,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def connect(self) -> None:
        _, writer = await asyncio.open_connection(self._host, self._port)
        writer.close()

    def send(self, slot: int, model: int, body: int) -> None:
        task = self._loop.create_task(self._ask(slot, model, body))
        # The loop itself holds tasks only weakly.
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def flush(self) -> None:
        """Nothing waits: every request is sent by its own task."""

    async def _ask(self, slot: int, model: int, body: int) -> None:
        status, text = await self._outcome(model, body)
        self._answered(slot, self._loop.time(), status, text)

    async def _outcome(self, model: int, body: int) -> tuple[int, str]:
        try:
            async with self._session.post(self._predict[model], data=self._bodies[body]) as answer:
                text = await answer.read()
        except TimeoutError:
            return DEADLINE_EXCEEDED, "no answer in time"
        except (aiohttp.ClientError, OSError) as error:
            return UNAVAILABLE, str(error)
        if answer.status == 200:
            return OK, ""
        return HTTP_STATUS_OFFSET + answer.status, text[:500].decode(errors="replace")

    async def metadata(self) -> bytes | None:
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with self._session.get(self._metadata) as answer:
                if answer.status == 200:
                    return await answer.read()
        return None
