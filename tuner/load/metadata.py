"""The signature that a server reports, to refuse requests that it would refuse one by one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from google.protobuf.message import DecodeError

from tuner import rows
from tuner.errors import ModelError
from tuner.load import messages
from tuner.load.base import StagePlan
from tuner.load.requests import Input
from tuner.rows import Rows


def check(plan: StagePlan, sent: Rows, answer: bytes | None) -> bool:
    """Compare the requests with the server's signature; false when the server did not say.

    Raises:
        ModelError: no such signature, or the requests do not fit it.
    """
    if answer is None:
        return False
    signatures = from_grpc(answer) if plan.protocol == "grpc" else from_rest(answer)
    if not signatures:
        return False
    if plan.signature not in signatures:
        raise ModelError(
            f"the model {plan.model_names[0]!r} has no signature {plan.signature!r}; "
            f"it has: {', '.join(sorted(signatures))}"
        )
    inputs = signatures[plan.signature]
    rows.check(
        plan.requests_file, sent, inputs, plan.signature, per_request=plan.rows_per_request,
        optional=[name for name, one in inputs.items() if one.has_default],
    )
    return True


def from_grpc(answer: bytes) -> dict[str, dict[str, Input]]:
    """Signature name -> input name -> input, from a GetModelMetadataResponse."""
    try:
        response = messages.GetModelMetadataResponse.FromString(answer)
        packed = response.metadata["signature_def"].value
        signatures = messages.SignatureDefMap.FromString(packed)
    except DecodeError:
        return {}
    return {
        name: {
            key: Input(
                messages.DATA_TYPE_NAMES.get(info.dtype, str(info.dtype)),
                None
                if info.tensor_shape.unknown_rank
                else tuple(_size(dim.size) for dim in info.tensor_shape.dim),
                key in signature.defaults,
            )
            for key, info in signature.inputs.items()
        }
        for name, signature in signatures.signature_def.items()
        if signature.inputs
    }


def from_rest(answer: bytes) -> dict[str, dict[str, Input]]:
    """The same from the JSON of GET /v1/models/NAME/metadata."""
    try:
        listed = json.loads(answer)["metadata"]["signature_def"]["signature_def"]
    except (ValueError, KeyError, TypeError):
        return {}
    return {
        name: {
            key: _rest_input(info, key in signature.get("defaults", {}))
            for key, info in signature["inputs"].items()
        }
        for name, signature in listed.items()
        if signature.get("inputs")
    }


def _size(size: int) -> int | None:
    return None if size < 0 else size


def _rest_input(info: Mapping[str, Any], has_default: bool) -> Input:
    """``DT_FLOAT`` and sizes as strings, as protobuf's JSON has them."""
    name = str(info.get("dtype", "")).removeprefix("DT_").lower()
    name = {"float": "float32", "double": "float64", "half": "float16"}.get(name, name)
    shape = info.get("tensor_shape", {})
    if shape.get("unknown_rank"):
        return Input(name, None, has_default)
    sizes = tuple(_size(int(dim["size"])) for dim in shape.get("dim", []))
    return Input(name, sizes, has_default)
