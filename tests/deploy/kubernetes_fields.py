"""The fields of the Kubernetes API that a small serving manifest may have, and what is wrong.

Kubernetes ignores an unknown field or refuses the whole manifest, depending on how it is applied:
a misspelt ``resources`` would be a server without limits. Names and types are those of the API
reference (v1 and apps/v1).
"""

from __future__ import annotations

import re
from typing import Any

_LABELS = {"*": str}
_QUANTITY = re.compile(r"\d+(\.\d+)?(m|k|Ki|M|Mi|G|Gi)?")
_PROBE = {
    "tcpSocket": {"port": str, "host": str}, "httpGet": {"path": str, "port": str},
    "grpc": {"port": int, "service": str}, "exec": {"command": [str]},
    "initialDelaySeconds": int, "periodSeconds": int, "timeoutSeconds": int,
    "successThreshold": int, "failureThreshold": int,
}
_RESOURCES = {"requests": {"*": _QUANTITY}, "limits": {"*": _QUANTITY}}
_CONTAINER = {
    "name": str, "image": str, "imagePullPolicy": str, "command": [str], "args": [str],
    "env": [{"name": str, "value": str}],
    "ports": [{"name": str, "containerPort": int, "protocol": str}],
    "resources": _RESOURCES, "startupProbe": _PROBE, "readinessProbe": _PROBE,
    "livenessProbe": _PROBE,
    "volumeMounts": [{"name": str, "mountPath": str, "readOnly": bool, "subPath": str}],
}
_POD = {
    "containers": [_CONTAINER], "nodeSelector": _LABELS, "restartPolicy": str,
    "volumes": [
        {
            "name": str, "configMap": {"name": str},
            "persistentVolumeClaim": {"claimName": str, "readOnly": bool}, "emptyDir": {},
        }
    ],
}
_METADATA = {"name": str, "namespace": str, "labels": _LABELS, "annotations": _LABELS}
_HEAD = {"apiVersion": str, "kind": str, "metadata": _METADATA}
KINDS: dict[tuple[str, str], Any] = {
    ("v1", "ConfigMap"): {**_HEAD, "data": {"*": str}},
    ("apps/v1", "Deployment"): {
        **_HEAD,
        "spec": {
            "replicas": int, "selector": {"matchLabels": _LABELS},
            "template": {"metadata": _METADATA, "spec": _POD},
        },
    },
    ("v1", "Service"): {
        **_HEAD,
        "spec": {
            "selector": _LABELS, "type": str,
            "ports": [{"name": str, "port": int, "targetPort": str, "protocol": str}],
        },
    },
}
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
"""A DNS label (RFC 1123)."""


def problems(manifest: dict[str, Any]) -> list[str]:
    """What the API would not take, each with its path; empty when all is well."""
    kind = manifest.get("apiVersion"), manifest.get("kind")
    if kind not in KINDS:
        return [f"no kind {kind}"]
    found = list(_differences(manifest, KINDS[kind], kind[1]))
    if not _NAME.fullmatch(str(manifest["metadata"].get("name"))):
        found.append(f"{kind[1]}.metadata.name: {manifest['metadata'].get('name')!r}")
    return found


def _differences(value: Any, wanted: Any, path: str) -> list[str]:
    if isinstance(wanted, dict):
        if not isinstance(value, dict):
            return [f"{path}: should be a mapping"]
        found = []
        for name, inner in value.items():
            if name not in wanted and "*" not in wanted:
                found.append(f"{path}.{name}: no such field")
            else:
                found += _differences(inner, wanted.get(name, wanted.get("*")), f"{path}.{name}")
        return found
    if isinstance(wanted, list):
        if not isinstance(value, list):
            return [f"{path}: should be a list"]
        return [d for i, v in enumerate(value) for d in _differences(v, wanted[0], f"{path}[{i}]")]
    if isinstance(wanted, re.Pattern):
        return [] if wanted.fullmatch(str(value)) else [f"{path}: no quantity: {value!r}"]
    # A boolean is a whole number to Python, but not to the API.
    fits = isinstance(value, wanted) and (wanted is bool or not isinstance(value, bool))
    return [] if fits else [f"{path}: should be {wanted.__name__}, not {value!r}"]
