"""Warm-up: the records that a model brings are replayed before it serves."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from tuner.modelserver.executor import Servable
from tuner.modelserver.status import Code, ServingError, as_serving_error

RECORDS = Path("assets.extra") / "tf_serving_warmup_requests"
MOST_RECORDS = 1000


class Inference(Protocol):
    """Answers requests for one given servable."""

    def predict(self, servable: Servable, request: object) -> object: ...

    def classify(self, servable: Servable, request: object) -> object: ...

    def regress(self, servable: Servable, request: object) -> object: ...

    def multi_inference(self, servable: Servable, request: object) -> object: ...


def warm_up(servable: Servable, path: Path, inference: Inference, iterations: int) -> int:
    """Replay ``assets.extra/tf_serving_warmup_requests``, ``iterations`` times each record.

    Returns:
        The number of records; 0 where the model brings none.

    Raises:
        ServingError: a record cannot be read or fails, or there are more than 1000.
    """
    file = path / RECORDS
    if not file.is_file():
        return 0
    count = 0
    try:
        for record in tf.compat.v1.io.tf_record_iterator(str(file)):
            count += 1
            if count > MOST_RECORDS:
                raise ServingError(
                    Code.INVALID_ARGUMENT,
                    f"Number of warmup records exceeds the maximum ({MOST_RECORDS}) at {file}",
                )
            log = prediction_log_pb2.PredictionLog.FromString(record)
            for _ in range(max(1, iterations)):
                _replay(servable, log, inference)
    except Exception as error:
        failure = as_serving_error(error)
        raise ServingError(
            failure.code, f"Warm-up record {count} of {file} failed: {failure.message}"
        ) from error
    return count


def _replay(
    servable: Servable, log: prediction_log_pb2.PredictionLog, inference: Inference
) -> None:
    kind = log.WhichOneof("log_type")
    if kind == "predict_log":
        inference.predict(servable, log.predict_log.request)
    elif kind == "classify_log":
        inference.classify(servable, log.classify_log.request)
    elif kind == "regress_log":
        inference.regress(servable, log.regress_log.request)
    elif kind == "multi_inference_log":
        inference.multi_inference(servable, log.multi_inference_log.request)
    else:
        raise ServingError(
            Code.UNIMPLEMENTED, f"Unsupported log_type for warmup: {kind or 'none set'}"
        )
