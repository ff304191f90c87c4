"""``compose.yaml``: the configuration as a service of Docker Compose."""

from __future__ import annotations

from typing import Any

import yaml

from tuner.export.bundle import CONFIG, GRPC_PORT, MODELS, MODELS_FOLDER, REST_PORT, Bundle


def service(bundle: Bundle) -> dict[str, Any]:
    """The one service, as a mapping."""
    found: dict[str, Any] = {
        "image": bundle.image,
        "command": bundle.arguments,
        "volumes": [
            f".:{CONFIG}:ro",
            f"./{MODELS_FOLDER}:{MODELS}:ro",
        ],
        "ports": [
            f"127.0.0.1:${{{name}:-{port}}}:{port}"
            for name, port in (("GRPC_PORT", GRPC_PORT), ("REST_PORT", REST_PORT))
        ],
        "restart": "unless-stopped",
        # The port opens only once the models are loaded.
        "healthcheck": {
            "test": ["CMD", "bash", "-c", f"</dev/tcp/127.0.0.1/{GRPC_PORT}"],
            "interval": "10s",
            "start_period": "60s",
        },
    }
    if bundle.server.environment:
        found["environment"] = dict(bundle.server.environment)
    quota, memory = (bundle.knob(k) for k in ("cpu_quota", "memory_limit_mb"))
    if bundle.cpu_list is not None:
        found["cpuset"] = f"${{CPUS:-{bundle.cpu_list}}}"
    if quota is not None:
        found["cpus"] = float(quota)
    if memory is not None:
        found["mem_limit"] = found["memswap_limit"] = f"{memory}m"
    return found


def text(bundle: Bundle) -> str:
    """The file."""
    return yaml.safe_dump({"services": {"serving": service(bundle)}}, sort_keys=False)
