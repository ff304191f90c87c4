"""Where the embedded server answers differently: a difference that is not here fails the tests.

docs/modelserver.md tells the reasons that are ours.
"""

from __future__ import annotations

_ZEROS = "asked for tensor_content the real REST front answers zeros, a fault of its own"
_KERNELS = "TensorFlow 2.21 computes what 2.20 refused"

REQUESTS: dict[tuple[str, str], str] = {
    **dict.fromkeys([("fix", f"g-conv.{number:03}") for number in (10, 11)], _KERNELS),
    **dict.fromkeys([("content", f"cors.{number:03}") for number in (1, 5, 9)], _ZEROS),
    ("content", "c-method.004"): _ZEROS,
}
"""(suite, id) -> why."""

_UNKNOWN = "an unknown argument is refused: a flag misspelt must not be served without"
_PORT = "a port that cannot be opened ends the start: no server stays that lacks an API asked for"

STARTS: dict[str, str] = {
    "unknown": _UNKNOWN,
    "unknown_bare": _UNKNOWN,
    "same_port": _PORT,
    "rest_used": _PORT,
    "rest_neg": _PORT,
    "port_big": _PORT,
}
"""Start -> why."""
