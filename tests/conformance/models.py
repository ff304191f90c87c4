"""The SavedModels that the recorded requests were sent to, made anew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

v1 = tf.compat.v1
Spec = tf.TensorSpec
DTYPES = (
    *("float32", "float64", "float16", "bfloat16"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("bool", "string", "complex64", "complex128"),
)
CLASSIFY, REGRESS, PREDICT = (f"tensorflow/serving/{kind}" for kind in ("classify", "regress", "predict"))


def make(base: Path) -> Path:
    """Every model, each in a folder of its name."""
    for maker in (_types, _conv, _heads, _versions, _slow, _variable, _examples, _warm):
        maker(base)
    _save(base / "nodefault" / "1", {"mine": _function([_floats()], lambda x: {"y": x + 1})})
    (base / "broken" / "1").mkdir(parents=True)
    (base / "broken" / "1" / "saved_model.pb").write_bytes(b"not a saved model")
    (base / "hollow" / "1" / "variables").mkdir(parents=True)
    return base


def _function(specs: list[tf.TensorSpec], body: Callable) -> tf.types.experimental.GenericFunction:
    return tf.function(body, input_signature=specs)


def _floats(*shape: int | None, name: str = "x") -> tf.TensorSpec:
    return Spec(shape or [None], tf.float32, name=name)


def _save(folder: Path, signatures: dict) -> None:
    module = tf.Module()
    module.functions = list(signatures.values())
    tf.saved_model.save(module, str(folder), signatures=signatures)


def _types(base: Path) -> None:
    signatures = {}
    for name in DTYPES:
        dtype = tf.as_dtype(name)
        for prefix, shape in (("v_", [None]), ("m_", [None, 2])):
            signatures[prefix + name] = _function(
                [Spec(shape, dtype, name="x")], lambda x: {"y": tf.identity(x)}
            )
    text = [Spec([None], tf.string, name="s_bytes"), Spec([None], tf.string, name="p")]
    signatures |= {
        "scalar": _function([Spec([], tf.float32, name="x")], lambda x: {"y": x * 2}),
        "mat": _function([_floats(None, None)], lambda x: {"y": x + 0}),
        "mat3": _function([_floats(None, 3)], lambda x: {"y": x + 0}),
        "mm3": _function([_floats(None, 3)], lambda x: {"y": tf.matmul(x, tf.ones([3, 2]))}),
        "fixed": _function([_floats(2, 3)], lambda x: {"y": x + 0}),
        "unk": _function([Spec(None, tf.float32, name="x")], lambda x: {"y": x + 0}),
        "t4": _function([_floats(None, None, None, None)], lambda x: {"y": x + 0}),
        "two": _function(
            [_floats(None, 3, name="a"), Spec([None], tf.int32, name="b")],
            lambda a, b: {"s": tf.reduce_sum(a, 1), "t": tf.cast(b, tf.int64) * 2, "u": a},
        ),
        "str2": _function(
            text, lambda s_bytes, p: {"s_bytes": s_bytes, "plain": p, "q": tf.identity(s_bytes)}
        ),
        "scalar_out": _function([_floats()], lambda x: {"y": tf.reduce_sum(x)}),
        "mixed_out": _function([_floats()], lambda x: {"y": x, "n": tf.reduce_sum(x)}),
        "incons": _function([_floats()], lambda x: {"y": x, "z": tf.concat([x, x], 0)}),
        "empty_out": _function([_floats()], lambda x: {"y": tf.zeros([tf.shape(x)[0], 0])}),
        "no_in": _function([], lambda: {"y": tf.constant([1.0, 2.0])}),
        "check": _function([_floats()], lambda x: {"y": tf.debugging.check_numerics(x, "found it")}),
        "div": _function([Spec([None], tf.int32, name="x")], lambda x: {"y": 10 // x}),
        "serving_default": _function([_floats()], lambda x: {"y": x + 1}),
    }
    _save(base / "types" / "1", signatures)


def _conv(base: Path) -> None:
    keras.utils.set_random_seed(1)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((32, 8)),
            layers.Conv1D(16, 3, activation="relu"),
            layers.GlobalAveragePooling1D(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    model.export(str(base / "conv" / "1"), verbose=False)


def _heads(base: Path) -> None:
    keras.utils.set_random_seed(2)
    layers = keras.layers
    left, right = keras.Input((6,), name="left"), keras.Input((4,), name="right")
    hidden = layers.concatenate([layers.Dense(5, activation="relu")(left), right])
    heads = {
        "cls": layers.Dense(3, activation="softmax", name="cls")(hidden),
        "reg": layers.Dense(1, name="reg")(hidden),
    }
    model = keras.Model({"left": left, "right": right}, heads)
    model.export(str(base / "heads" / "1"), verbose=False)


def _versions(base: Path) -> None:
    for version in (1, 2, 3, 5):
        function = _function([_floats()], lambda x, v=float(version): {"y": x * 0 + v})
        _save(base / "vers" / str(version), {"serving_default": function})


def _slow(base: Path) -> None:
    def slow(x: tf.Tensor) -> dict[str, tf.Tensor]:
        """About as many matrix products as the largest input says."""
        count = tf.cast(tf.reduce_max(tf.concat([tf.reshape(x, [-1]), [0.0]], 0)), tf.int32)
        matrix = tf.fill([300, 300], tf.reduce_sum(x) * 0 + 1e-4)
        _, matrix = tf.while_loop(
            lambda i, a: i < count,
            lambda i, a: (i + 1, tf.matmul(a, a) * 1e-3 + 1e-4),
            [0, matrix],
            parallel_iterations=1,
        )
        rows = tf.fill(tf.shape(x)[:1], tf.shape(x)[0])
        return {"y": x + tf.reduce_mean(matrix) * 0, "n": rows}

    _save(base / "slow" / "1", {"serving_default": _function([_floats(None, 1)], slow)})


def _variable(base: Path) -> None:
    cube = Spec([None, None, None], tf.int32, name="a")
    _save(
        base / "var" / "1",
        {
            "serving_default": _function(
                [_floats(None, None)],
                lambda x: {"y": x + 0, "n": tf.fill(tf.shape(x)[:1], tf.shape(x)[0])},
            ),
            "str": _function(
                [Spec([None, None], tf.string, name="x")], lambda x: {"y": tf.identity(x)}
            ),
            "two": _function(
                [cube, _floats(None, 2, name="b")], lambda a, b: {"a": a + 0, "b": b + 0}
            ),
            "sum": _function([_floats()], lambda x: {"y": tf.reduce_sum(x)}),
            "first": _function([_floats()], lambda x: {"y": x[:1]}),
            "ab": _function(
                [_floats(name="a"), _floats(name="b")], lambda a, b: {"y": a + 0, "z": b + 0}
            ),
            "unk": _function([Spec(None, tf.float32, name="x")], lambda x: {"y": x + 0}),
            "check": _function(
                [_floats()], lambda x: {"y": tf.debugging.check_numerics(x, "found it")}
            ),
        },
    )


def _examples(base: Path) -> None:
    """Signatures for Classify and Regress, sound and odd."""
    with v1.Graph().as_default(), v1.Session() as session:
        serialised = v1.placeholder(tf.string, [None], name="ser")
        parsed = v1.io.parse_example(
            serialised,
            {
                "x": v1.io.FixedLenFeature([2], tf.float32),
                "i": v1.io.FixedLenFeature([], tf.int64, 7),
                "s": v1.io.FixedLenFeature([], tf.string, "dflt"),
            },
        )
        weights = np.array([[1.0, 2.0, 3.0], [0.1, 0.2, 0.3]], np.float32)
        scores = tf.matmul(parsed["x"], v1.get_variable("w", initializer=weights))
        count = tf.shape(serialised)[0]
        classes = tf.stack(
            [parsed["s"], tf.strings.as_string(parsed["i"]), tf.fill([count], "c")], 1
        )
        value = tf.reduce_sum(parsed["x"], 1, keepdims=True)
        sparse = v1.sparse.placeholder(tf.float32, [None, 4], name="sp")
        session.run(v1.global_variables_initializer())
        one = {"inputs": serialised}
        # The order of what follows gives the tensors the names that the recorded metadata has.
        table = {
            "serving_default": (one, {"outputs": value}, REGRESS),
            "cls": (one, {"classes": classes, "scores": scores}, CLASSIFY),
            "cls_scores": (one, {"scores": scores}, CLASSIFY),
            "cls_classes": (one, {"classes": classes}, CLASSIFY),
            "cls_none": (one, {"other": scores}, CLASSIFY),
            "cls_extra": (one, {"scores": scores, "other": scores}, CLASSIFY),
            "cls_1d": (one, {"scores": scores[:, 0]}, CLASSIFY),
            "cls_short": (one, {"scores": scores[:1]}, CLASSIFY),
            "cls_differ": (one, {"classes": classes, "scores": scores[:, :2]}, CLASSIFY),
            "cls_f64": (one, {"scores": tf.cast(scores, tf.float64)}, CLASSIFY),
            "cls_intcl": (
                one, {"classes": tf.cast(scores, tf.int64), "scores": scores}, CLASSIFY
            ),
            "cls_bytes": (
                one,
                {"classes": tf.fill([count, 1], b"\xff\x01"), "scores": scores[:, :1]},
                CLASSIFY,
            ),
            "cls_othin": ({"ex": serialised}, {"scores": scores}, CLASSIFY),
            "cls_twoin": (
                {"inputs": serialised, "z": v1.placeholder_with_default([1.0], [None])},
                {"scores": scores},
                CLASSIFY,
            ),
            "reg1": (one, {"outputs": value[:, 0]}, REGRESS),
            "reg_none": (one, {"other": value}, REGRESS),
            "reg_extra": (one, {"outputs": value, "other": value}, REGRESS),
            "reg_wide": (one, {"outputs": scores}, REGRESS),
            "reg_short": (one, {"outputs": value[:1]}, REGRESS),
            "reg_f64": (one, {"outputs": tf.cast(value, tf.float64)}, REGRESS),
            "pred": (one, {"outputs": value, "scores": scores}, PREDICT),
            "nometh": (one, {"outputs": value}, ""),
            "oddmeth": (one, {"outputs": value}, "my/own/method"),
            "raw": ({"x": parsed["x"]}, {"scores": scores}, PREDICT),
            "sparse_in": ({"sp": sparse}, {"y": v1.sparse.to_dense(sparse)}, PREDICT),
        }
        info = v1.saved_model.build_tensor_info
        signatures = {
            key: v1.saved_model.build_signature_def(
                {name: info(tensor) for name, tensor in inputs.items()},
                {name: info(tensor) for name, tensor in outputs.items()},
                method,
            )
            for key, (inputs, outputs, method) in table.items()
        }
        builder = v1.saved_model.Builder(str(base / "cr" / "1"))
        builder.add_meta_graph_and_variables(session, ["serve"], signatures)
        builder.save()


def _warm(base: Path) -> None:
    """A model with a record to warm up, and one whose record no signature takes."""
    for name, key in (("warm", "x"), ("warmbad", "q")):
        folder = base / name / "1"
        _save(folder, {"serving_default": _function([_floats()], lambda x: {"y": x + 1})})
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "m"
        request.inputs[key].CopyFrom(tf.make_tensor_proto([1.0]))
        log = prediction_log_pb2.PredictionLog(
            predict_log=prediction_log_pb2.PredictLog(request=request)
        )
        (folder / "assets.extra").mkdir(exist_ok=True)
        path = folder / "assets.extra" / "tf_serving_warmup_requests"
        with tf.io.TFRecordWriter(str(path)) as writer:
            writer.write(log.SerializeToString())
