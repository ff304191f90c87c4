"""Small SavedModels for the tests, written in tenths of a second."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2

v1 = tf.compat.v1


def _info(tensor: tf.Tensor) -> meta_graph_pb2.TensorInfo:
    return v1.saved_model.build_tensor_info(tensor)


def _signature(
    inputs: dict[str, tf.Tensor], outputs: dict[str, tf.Tensor], method: str = "predict"
) -> meta_graph_pb2.SignatureDef:
    return v1.saved_model.build_signature_def(
        {name: _info(tensor) for name, tensor in inputs.items()},
        {name: _info(tensor) for name, tensor in outputs.items()},
        f"tensorflow/serving/{method}",
    )


def _save(folder: Path, build) -> Path:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with v1.Graph().as_default(), v1.Session() as session:
        signatures = build()
        session.run(v1.global_variables_initializer())
        builder = v1.saved_model.Builder(str(folder))
        builder.add_meta_graph_and_variables(session, ["serve"], signatures)
        builder.save()
    return folder


def linear(folder: Path, scale: float, offset: float) -> Path:
    """y = scale * x + offset, with TensorFlow Serving's own signatures for its half_plus_two."""

    def build():
        a = v1.get_variable("a", initializer=tf.constant(scale), use_resource=True)
        b = v1.get_variable("b", initializer=tf.constant(offset), use_resource=True)
        x = v1.placeholder(tf.float32, [None], name="x")
        y = a * x + b
        examples = v1.placeholder(tf.string, [None], name="examples")
        parsed = v1.parse_example(examples, {"x": tf.io.FixedLenFeature([1], tf.float32)})
        scores = a * parsed["x"] + b
        labels = tf.tile([["score"]], [tf.shape(scores)[0], 1])
        z = v1.placeholder(tf.float32, [None], name="z")
        return {
            "serving_default": _signature({"x": x}, {"y": y}),
            "two": _signature({"x": x, "z": z}, {"sum": x + z, "difference": x - z}),
            "classify": _signature(
                {"inputs": examples}, {"classes": labels, "scores": scores}, "classify"
            ),
            "regress": _signature({"inputs": examples}, {"outputs": scores}, "regress"),
        }

    return _save(folder, build)


def rows(folder: Path) -> Path:
    """Variable-length rows (n, None): their sum, their width after padding, and the batch's size."""

    def build():
        x = v1.placeholder(tf.float32, [None, None], name="x")
        count, width = tf.unstack(tf.shape(x))
        return {
            "serving_default": _signature(
                {"x": x},
                {
                    "sum": tf.reduce_sum(x, axis=1),
                    "width": tf.fill([count], width),
                    "batch": tf.fill([count], count),
                },
            )
        }

    return _save(folder, build)


def slow(folder: Path, products: int) -> Path:
    """x + 0 after so many products of 256 x 256 matrices, whatever the batch; tells its size."""

    def build():
        x = v1.placeholder(tf.float32, [None], name="x")
        matrix = tf.eye(256) * (1.0 + 0.0 * tf.reduce_sum(x))
        _, product = tf.while_loop(
            lambda i, _: i < products, lambda i, m: (i + 1, tf.matmul(m, m)), (0, matrix)
        )
        y = x + 0.0 * product[0, 0]
        count = tf.shape(x)[0]
        return {"serving_default": _signature({"x": x}, {"y": y, "batch": tf.fill([count], count)})}

    return _save(folder, build)


def stamped(folder: Path) -> Path:
    """When each batch ran: seconds since the epoch; its first row says how many products it takes."""

    def build():
        x = v1.placeholder(tf.float32, [None], name="x")
        with tf.control_dependencies([x]):
            start = tf.timestamp()
        with tf.control_dependencies([start]):
            products = tf.cast(x[0], tf.int32)
        _, product = tf.while_loop(
            lambda i, _: i < products, lambda i, m: (i + 1, tf.matmul(m, m)), (0, tf.eye(256))
        )
        with tf.control_dependencies([product]):
            end = tf.timestamp()
        rows = tf.shape(x)
        return {
            "serving_default": _signature(
                {"x": x}, {"start": tf.fill(rows, start), "end": tf.fill(rows, end)}
            )
        }

    return _save(folder, build)


def text(folder: Path) -> Path:
    """Strings in, the same strings out as text and as bytes, and their lengths."""

    def build():
        s = v1.placeholder(tf.string, [None], name="s")
        outputs = {
            "same": tf.identity(s),
            "same_bytes": tf.identity(s),
            "length": tf.strings.length(s),
        }
        return {"serving_default": _signature({"s": s}, outputs)}

    return _save(folder, build)


def keras_like(folder: Path) -> Path:
    """A TensorFlow 2 SavedModel: y = x @ w, from a tf.Module."""

    class Module(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = tf.Variable([[1.0], [10.0]])

        @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
        def __call__(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"y": tf.matmul(x, self.w)}

    module = Module()
    tf.saved_model.save(module, str(folder), signatures=module.__call__)
    return folder
