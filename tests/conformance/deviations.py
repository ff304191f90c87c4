"""Where the embedded server answers differently: a difference that is not here fails the tests.

docs/modelserver.md tells the reasons that are ours.
"""

from __future__ import annotations

_ZEROS = "asked for tensor_content the real REST front answers zeros, a fault of its own"
_KERNELS = "another TensorFlow: 2.21 computes what 2.20 refused"
_WRAPS = "an integer beyond its type is refused over REST, where the real one wraps it"
_DENORMAL = "a denormal number stays what it is, where the real one makes it 0"


def _cases(suite: str, kind: str, *numbers: int) -> list[tuple[str, str]]:
    return [(suite, f"{kind}.{number:03}") for number in numbers]


REQUESTS: dict[tuple[str, str], str] = {
    **dict.fromkeys(_cases("fix", "g-conv", 10, 11), _KERNELS),
    **dict.fromkeys(_cases("content", "cors", 1, 5, 9), _ZEROS),
    **dict.fromkeys(_cases("content", "c-method", 4), _ZEROS),
    **dict.fromkeys(_cases("rest", "intlimit", 2, 3, 7, 18, 19), _WRAPS),
    **dict.fromkeys(_cases("rest", "numfmt", 87), _WRAPS),
    **dict.fromkeys(_cases("rest", "floattext", 72), _DENORMAL),
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
