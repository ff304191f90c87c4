"""Asking a running server what a model takes, for whoever has no requests file yet."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from typing import Any

from tuner.errors import UnavailableError
from tuner.load import metadata
from tuner.load.processes import CONNECT_TIMEOUT_S
from tuner.load.requests import Input, grpc_metadata_request


def signatures(address: str, model: str, protocol: str) -> Mapping[str, Mapping[str, Input]]:
    """Signature name -> input name -> input, as the server at ``address`` reports them.

    Raises:
        UnavailableError: nobody listens there, or the server does not know the model.
    """
    try:
        answer = asyncio.run(_ask(address, model, protocol))
    except (OSError, TimeoutError) as error:
        why = str(error) or "timed out"
        raise UnavailableError(f"no connection to {address}: {why}") from None
    found = None
    if answer is not None:
        read = metadata.from_grpc if protocol == "grpc" else metadata.from_rest
        found = read(answer)
    if not found:
        raise UnavailableError(f"the server at {address} does not tell what model {model!r} takes")
    return found


async def _ask(address: str, model: str, protocol: str) -> bytes | None:
    job: dict[str, Any] = {
        "address": address,
        "models": [model],
        "heads": [],
        "metadata_request": base64.b64encode(grpc_metadata_request(model)).decode(),
        "connections": 1,
        "request_timeout_s": CONNECT_TIMEOUT_S,
    }
    if protocol == "grpc":
        from tuner.load.grpc_client import GrpcTransport as Transport
    else:
        from tuner.load.rest_client import RestTransport as Transport  # type: ignore[assignment]
    transport = Transport(job, [], _ignore)
    await asyncio.wait_for(transport.connect(), CONNECT_TIMEOUT_S)
    try:
        return await transport.metadata()
    finally:
        await transport.close()


def _ignore(slot: int, at_s: float, status: int, message: str) -> None:
    """No request of a load is sent here."""
