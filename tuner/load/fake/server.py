"""The scripted server's process: ``python -m tuner.load.fake.server JSON``."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from typing import Any

import numpy as np

from tuner.load import child, messages, placement
from tuner.load.fake import http1, http2
from tuner.load.fake.laws import from_json
from tuner.load.fake.script import Script
from tuner.load.requests import fill_tensor

HOST = "127.0.0.1"


def predict_answer() -> bytes:
    """A PredictResponse with one small output."""
    response = messages.PredictResponse()
    fill_tensor(response.outputs["scripted"], np.zeros((1, 1), np.float32))
    data: bytes = response.SerializeToString()
    return data


async def serve(job: dict[str, Any]) -> None:
    loop = asyncio.get_running_loop()
    child.listen(lambda _line: None)
    script = Script(from_json(job["law"]), **job["script"])
    grpc = await loop.create_server(http2.factory(script, predict_answer()), HOST, 0, backlog=1024)
    rest = await loop.create_server(http1.factory(script), HOST, 0, backlog=1024)
    ports = [server.sockets[0].getsockname()[1] for server in (grpc, rest)]
    # A collection would be a delay that no law knows.
    gc.collect()
    gc.freeze()
    gc.disable()
    print(json.dumps({"grpc": ports[0], "rest": ports[1]}), flush=True)
    await asyncio.gather(grpc.serve_forever(), rest.serve_forever())


def main() -> None:
    job = json.loads(sys.argv[1])
    child.tie_to_parent(job["parent_pid"])
    # A server that is kept waiting for a core breaks its law.
    placement.raise_priority(0)
    child.run(serve(job))


if __name__ == "__main__":
    main()
