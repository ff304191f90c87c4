"""``kubernetes.yaml``: ConfigMap, Deployment and Service, with resources and probes."""

from __future__ import annotations

import re
from typing import Any

import yaml

from tuner.export.bundle import CONFIG, GRPC_PORT, MODELS, REST_PORT, Bundle


def manifests(bundle: Bundle) -> list[dict[str, Any]]:
    """The three objects, in the order in which they are to be applied."""
    name = f"serving-{_label(bundle.model.name)}"
    labels = {"app": name}
    # An open port means loaded and ready: gRPC opens after the initial models.
    opened = {"tcpSocket": {"port": "grpc"}}
    container: dict[str, Any] = {
        "name": "serving",
        "image": bundle.image,
        "args": bundle.arguments,
        "ports": [
            {"name": "grpc", "containerPort": GRPC_PORT},
            {"name": "rest", "containerPort": REST_PORT},
        ],
        "startupProbe": {**opened, "periodSeconds": 2, "failureThreshold": 150},
        "readinessProbe": {**opened, "periodSeconds": 5},
        "livenessProbe": {**opened, "periodSeconds": 10, "failureThreshold": 6},
        "volumeMounts": [
            {"name": "config", "mountPath": str(CONFIG), "readOnly": True},
            {"name": "models", "mountPath": str(MODELS), "readOnly": True},
        ],
    }
    if bundle.server.environment:
        container["env"] = [{"name": k, "value": v} for k, v in bundle.server.environment.items()]
    found = resources(bundle)
    if found:
        container["resources"] = found
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "labels": labels},
            "data": dict(bundle.server.texts),
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, "labels": labels},
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {
                        "containers": [container],
                        "volumes": [
                            {"name": "config", "configMap": {"name": name}},
                            {"name": "models", "persistentVolumeClaim": {"claimName": "models"}},
                        ],
                    },
                },
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "labels": labels},
            "spec": {
                "selector": labels,
                "ports": [
                    {"name": "grpc", "port": GRPC_PORT, "targetPort": "grpc"},
                    {"name": "rest", "port": REST_PORT, "targetPort": "rest"},
                ],
            },
        },
    ]


def resources(bundle: Bundle) -> dict[str, Any]:
    """Requests equal to limits, so that the pod gets what was measured (QoS class Guaranteed)."""
    cpus, quota, memory = (bundle.knob(k) for k in ("cpus", "cpu_quota", "memory_limit_mb"))
    cores = [float(value) for value in (cpus, quota) if value is not None]
    limits = {}
    if cores:
        limits["cpu"] = f"{round(min(cores) * 1000)}m"
    if memory is not None:
        limits["memory"] = f"{memory}Mi"
    return {"requests": dict(limits), "limits": limits} if limits else {}


def text(bundle: Bundle) -> str:
    """The file."""
    return yaml.dump_all(manifests(bundle), Dumper=_Plain, sort_keys=False)


class _Plain(yaml.SafeDumper):
    """Writes what stands in two places twice: people read manifests, and tools edit them."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _label(name: str) -> str:
    """A DNS label (RFC 1123) of a model's name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:50] or "model"
