"""Count what a SavedModel's signature holds and does: ``python -m tuner.models.cost FOLDER``.

Prints one JSON object: ``parameters`` and ``flops_per_inference``. A program of its own because
it needs TensorFlow, which the caller should not have to import.
"""

from __future__ import annotations

import json
import math
import sys
from typing import Any

from tuner.models.process import end_with_caller


def count(folder: str, signature: str = "serving_default") -> dict[str, int | None]:
    """``parameters`` and ``flops_per_inference`` (one row) of a SavedModel's signature.

    Floating-point operations are those that TensorFlow's profiler knows (a multiply-add counts
    two), on the graph with variables frozen, functions inlined and one row fed. ``None`` when
    the graph cannot be frozen, or when a free size other than the batch leaves them open.
    """
    import tensorflow as tf

    loaded = tf.saved_model.load(folder, tags=["serve"])  # held: the function's variables live as long as it
    function = loaded.signatures[signature]
    parameters = sum(math.prod(variable.shape) for variable in function.variables)
    try:
        flops = _flops(tf, function)
    except Exception:  # noqa: BLE001 - control flow, tables, custom operations all fail their own way
        flops = None
    return {"parameters": parameters, "flops_per_inference": flops}


def _flops(tf: Any, function: Any) -> int | None:
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    frozen = convert_variables_to_constants_v2(function)
    with tf.Graph().as_default() as graph:
        feeds = {}
        for tensor in frozen.inputs:
            shape = [1, *tensor.shape[1:]] if tensor.shape.rank else tensor.shape
            feeds[tensor.name] = tf.compat.v1.placeholder(tensor.dtype, shape)
        tf.import_graph_def(frozen.graph.as_graph_def(), input_map=feeds, name="")
        if any(not feed.shape.is_fully_defined() for feed in feeds.values()):
            return None
        options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
        options["output"] = "none"
        profile = tf.compat.v1.profiler.profile(graph, options=options)
    return int(profile.total_float_ops) if profile and profile.total_float_ops > 0 else None


if __name__ == "__main__":
    end_with_caller()
    print(json.dumps(count(*sys.argv[1:3])))
