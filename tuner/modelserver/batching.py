"""TensorFlow Serving's batching parameters, read and checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.modelserver.flags import MOST_THREADS, schedulable_cpus
from tuner.modelserver.protos import BatchingParameters, read_text_proto
from tuner.modelserver.status import invalid_argument


@dataclass(frozen=True)
class BatchingOptions:
    """TensorFlow Serving's ``BatchingParameters`` with the defaults filled in."""

    max_batch_size: int = 1000
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 10
    num_batch_threads: int = 1
    thread_pool_name: str = "batch_threads"
    allowed_batch_sizes: tuple[int, ...] = ()
    pad_variable_length_inputs: bool = False
    enable_large_batch_splitting: bool = False
    max_execution_batch_size: int = 1000

    @classmethod
    def from_proto(cls, proto: Any) -> BatchingOptions:
        """Check TensorFlow Serving's rules and fill in its defaults.

        Raises:
            ServingError: INVALID_ARGUMENT that names the field and what would be right.
        """
        values: dict[str, Any] = {"num_batch_threads": schedulable_cpus()}
        for field, value in proto.ListFields():
            if field.name == "allowed_batch_sizes":
                values[field.name] = tuple(value)
            else:
                values[field.name] = value.value if field.message_type else value
        values.setdefault("max_execution_batch_size", values.get("max_batch_size", 1000))
        options = cls(**values)
        options._check()
        return options

    def _check(self) -> None:
        threads = self.num_batch_threads
        if threads < 1:
            raise invalid_argument(f"num_batch_threads must be positive; was {threads}")
        if threads > MOST_THREADS:
            raise invalid_argument(
                f"num_batch_threads must be at most {MOST_THREADS}; was {threads}"
            )

    def check_queue(self) -> None:
        """What TensorFlow Serving finds out when it makes a version's queue: the load fails then.

        Raises:
            ServingError: INVALID_ARGUMENT that names the field and what would be right.
        """
        for name, least in (
            ("max_batch_size", 1),
            ("batch_timeout_micros", 0),
            ("max_enqueued_batches", 0),
        ):
            if getattr(self, name) < least:
                raise invalid_argument(
                    f"{name} must be at least {least}; was {getattr(self, name)}"
                )
        sizes = self.allowed_batch_sizes
        if sizes and sizes[-1] != self.max_batch_size:
            raise invalid_argument(
                "Last entry in allowed_batch_sizes must match max_batch_size; last entry was "
                f"{sizes[-1]}; expected {self.max_batch_size}"
            )
        largest = self.max_execution_batch_size
        if self.enable_large_batch_splitting and not 1 <= largest <= self.max_batch_size:
            raise invalid_argument(
                "max_execution_batch_size must be at most max_batch_size and at least 1; was "
                f"{largest} of {self.max_batch_size}"
            )


def read_options(path: str | Path | None) -> BatchingOptions:
    """The options in a text file, or the defaults of ``--enable_batching`` alone."""
    proto = BatchingParameters()
    if path:
        return BatchingOptions.from_proto(read_text_proto(path, proto))
    proto.thread_pool_name.value = "model_server_batch_threads"
    return BatchingOptions.from_proto(proto)
