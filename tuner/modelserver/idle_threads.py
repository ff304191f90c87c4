"""What the batch threads of TensorFlow Serving cost while they have nothing to do.

Each of them looks for a batch every millisecond: about 2 % of a core for one, 7 % for sixteen,
25 % for sixty-four. A study of ``num_batch_threads`` must see that, so the threads of TensorFlow's
own scheduler are here and look; the batches themselves run in the threads of their requests.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import graph_pb2
from tensorflow.core.protobuf import config_pb2
from tensorflow.python.framework import graph_to_function_def


class IdleThreads:
    """``threads`` of them, until this object ends.

    Args:
        config: the models' session configuration. The first session of a process sets the thread
            pools of all, so this one must ask for the same.
    """

    def __init__(self, config: config_pb2.ConfigProto, threads: int) -> None:
        own = config_pb2.ConfigProto()
        own.CopyFrom(config)
        own.ClearField("graph_options")
        body = tf.Graph()
        with body.as_default():
            fed = tf.compat.v1.placeholder(tf.bool)
            result = tf.identity(fed)
        function = graph_to_function_def.graph_to_function_def(
            body, [result.op], [fed], [result], out_names=["output"]
        )
        function.signature.name = "nothing"
        call = graph_pb2.GraphDef(versions=body.graph_def_versions)
        call.library.function.append(function)
        call.node.add(name="input", op="Placeholder").attr["dtype"].type = tf.bool.as_datatype_enum
        attr = call.node.add(name="batch", op="BatchFunction", input=["input"]).attr
        attr["f"].func.name = function.signature.name
        for name in ("Tin", "Tout"):
            attr[name].list.type.append(tf.bool.as_datatype_enum)
        for name in ("Tcaptured", "allowed_batch_sizes"):
            attr[name].list.SetInParent()
        attr["num_batch_threads"].i = threads
        attr["max_batch_size"].i = 1
        attr["batch_timeout_micros"].i = 0
        graph = tf.Graph()
        with graph.as_default():
            tf.import_graph_def(call, name="")
        self._session = tf.compat.v1.Session(graph=graph, config=own)
        self._session.run("batch:0", {"input:0": np.zeros(1, bool)})
