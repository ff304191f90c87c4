"""Canonical status codes, and the one error that carries them to the APIs."""

from __future__ import annotations

import enum


class Code(enum.IntEnum):
    """The canonical codes that gRPC and TensorFlow share."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


HTTP_STATUS = {
    Code.OK: 200,
    Code.CANCELLED: 499,
    Code.UNKNOWN: 500,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
    Code.DATA_LOSS: 500,
    Code.UNAUTHENTICATED: 401,
}
"""The HTTP status that the REST API answers with for each code."""


class ServingError(Exception):
    """A request, a file or a model was refused; the message is what the client reads."""

    def __init__(self, code: Code, message: str) -> None:
        self.code, self.message = code, message
        super().__init__(f"{code.name}: {message}")


def invalid_argument(message: str) -> ServingError:
    return ServingError(Code.INVALID_ARGUMENT, message)


def as_serving_error(error: BaseException) -> ServingError:
    """Any exception as a ServingError: TensorFlow's keep their code, others become INTERNAL."""
    if isinstance(error, ServingError):
        # Without its traceback, which holds the servable for as long as the answer is held.
        return ServingError(error.code, error.message)
    if isinstance(error, UnicodeError):  # a lone surrogate in JSON is text that no bytes can carry
        reason = getattr(error, "reason", "")
        return invalid_argument(f"Not valid UTF-8: {reason}".removesuffix(": "))
    code = getattr(error, "error_code", None)  # tf.errors.OpError, without importing TensorFlow
    if isinstance(code, int) and code in Code._value2member_map_:
        return ServingError(Code(code), str(getattr(error, "message", error)))
    return ServingError(Code.INTERNAL, f"{type(error).__name__}: {error}")
