"""A SavedModel in a DirectSession, loaded as TensorFlow Serving loads it, but leanly.

The graph is pruned to what the signatures, the restore and the initialisation reach before
TensorFlow sees it: MobileNetV2's 2,367 nodes become 529, and loading takes two thirds of the time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import graph_pb2, node_def_pb2
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2
from tensorflow.python.client import pywrap_tf_session
from tensorflow.python.saved_model import loader_impl

from tuner.modelserver.graph_shape import Shape, shape_of
from tuner.modelserver.restore import add_restore, saved_variables
from tuner.modelserver.status import Code, ServingError, invalid_argument

INIT_SIGNATURE = "__saved_model_init_op"
_TRAIN_SIGNATURE = "__saved_model_train_op"
_SURELY, _FORGETS = 4, 0.999
"""A run is expected to end within so many times the longest one, which counts less with time."""


def _tensor(graph: tf.Graph, name: str) -> tf.Tensor:
    """Of a signature's name for it, which is empty for a ragged or a sparse one.

    Raises:
        ServingError: INVALID_ARGUMENT, in TensorFlow's words: there is none of that name.
    """
    name = name if ":" in name else f"{name}:0"
    try:
        return graph.get_tensor_by_name(name)
    except (KeyError, ValueError):
        raise invalid_argument(
            f"Tensor {name}, specified in either feed_devices or fetch_devices was not found in "
            "the Graph"
        ) from None


class Run:
    """A prepared call of a session: takes one array a feed, gives one array a fetch.

    The session's own callable goes past the Python work of ``Session.run`` and
    ``Session.make_callable``: 12,800 calls/s against 4,900 for a small 1-D CNN on one core. Its
    runs cannot be cancelled. So a run whose deadline may come before its end takes the longer way,
    which costs 0.04 ms more, and the first time what it takes to prepare the graph once more.

    Args:
        shape: of the graph; one with loops may run for any time, others for about as long as before.
        in_caller: run in the thread of the call, not in the inter-op threads.
    """

    def __init__(
        self,
        session: tf.compat.v1.Session,
        feeds: Sequence[str],
        fetches: Sequence[str],
        shape: Shape = Shape.LOOPS,
        in_caller: bool = False,
    ) -> None:
        self._session = session
        self._sources = [_tensor(session.graph, name)._as_tf_output() for name in feeds]
        self._targets = [_tensor(session.graph, name)._as_tf_output() for name in fetches]
        options = config_pb2.CallableOptions(feed=feeds, fetch=fetches)
        if in_caller:
            options.run_options.inter_op_thread_pool = -1
        self._call = session._make_callable_from_options(options)
        self._predictable, self._longest_s = shape is not Shape.LOOPS, 0.0

    def __call__(self, *arrays: np.ndarray, deadline_s: float | None = None) -> list[np.ndarray]:
        """Run; at ``deadline_s``, an instant of ``time.monotonic``, the run is cancelled.

        Raises:
            tensorflow.errors.OpError: what TensorFlow says of the run, or of its deadline.
        """
        if deadline_s is None:
            return self._call(*arrays)
        start_s = time.monotonic()
        left_s = deadline_s - start_s
        if self._predictable and left_s > _SURELY * self._longest_s:
            results = self._call(*arrays)
            self._longest_s = max(_FORGETS * self._longest_s, time.monotonic() - start_s)
            return results
        return self._run(max(1, math.ceil(left_s * 1e3)), arrays)

    def warm(self, *arrays: np.ndarray) -> None:
        """Run once, and once more to see how long that takes."""
        self._call(*arrays)
        start_s = time.monotonic()
        self._call(*arrays)
        self._longest_s = time.monotonic() - start_s

    def _run(self, limit_ms: int, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        options = config_pb2.RunOptions(timeout_in_ms=limit_ms).SerializeToString()
        buffer = pywrap_tf_session.TF_NewBufferFromString(options)
        try:
            feeds = dict(zip(self._sources, arrays))
            return self._session._call_tf_sessionrun(buffer, feeds, self._targets, [], None)
        finally:
            pywrap_tf_session.TF_DeleteBuffer(buffer)


class SavedModelSession:
    """One version of a model: first a graph, which may be added to, then a running session.

    Args:
        path: the version's folder, with ``saved_model.pb`` in it.
        tags: tags of the meta graph to load.

    Raises:
        ServingError: NOT_FOUND where there is no such SavedModel or meta graph.
    """

    def __init__(self, path: Path, tags: Sequence[str]) -> None:
        meta_graph = _meta_graph(path, tags)
        self.definitions = dict(meta_graph.signature_def)
        """Of all signatures, those among them that nobody calls."""
        self.signatures = {
            name: signature
            for name, signature in self.definitions.items()
            if name != _TRAIN_SIGNATURE  # whose graph is not kept
        }
        saver = meta_graph.saver_def
        self._restore = self._filename = ""
        self._prefix = path / "variables" / "variables"
        variables = None
        if saver.restore_op_name and self._prefix.with_suffix(".index").is_file():
            variables = saved_variables(meta_graph)
            if variables is None:
                self._restore, self._filename = saver.restore_op_name, saver.filename_tensor_name
        self._init = _init_op(meta_graph)
        self._assets = _asset_feeds(path, meta_graph)
        roots = [name for pair in self.signatures.values() for name in _tensors(pair)]
        roots += [name for name in (self._restore, self._filename, self._init) if name]
        graph_def = prune(meta_graph.graph_def, [*roots, *self._assets])
        self.shapes = {
            key: shape_of(graph_def, {_node_name(name) for name in _tensors(signature)})
            for key, signature in self.signatures.items()
        }
        """For each signature how its work hangs together."""
        _name_resources(graph_def)
        self.graph = tf.Graph()
        with self.graph.as_default():
            tf.import_graph_def(graph_def, name="")
        kept = {node.name for node in graph_def.node}
        self._assignments = add_restore(self.graph, variables or [], kept, str(self._prefix))

    def start(self, config: config_pb2.ConfigProto) -> None:
        """Restore the variables and run the initialisation.

        Args:
            config: of the session; the first session of a process sets the thread pools of all.

        Raises:
            tensorflow.errors.OpError: what TensorFlow says of a damaged model.
        """
        self.session = tf.compat.v1.Session(graph=self.graph, config=config)
        if self._assignments:
            self.session.run(self._assignments)
        if self._restore:
            feeds = {self._filename: str(self._prefix), **self._assets}
            self.session.run(self._element(self._restore), feeds)
        if self._init and not self._is_empty(self._init):
            self.session.run(self._element(self._init), self._assets)

    def callable(
        self,
        feeds: Sequence[str],
        fetches: Sequence[str],
        shape: Shape = Shape.LOOPS,
        in_caller: bool = False,
    ) -> Run:
        """A prepared call: ``feeds`` and ``fetches`` are tensor names, in the order of use."""
        return Run(self.session, feeds, fetches, shape, in_caller)

    def _element(self, name: str) -> Any:
        return self.graph.as_graph_element(name, allow_tensor=True, allow_operation=True)

    def _is_empty(self, name: str) -> bool:
        """A NoOp that waits for nothing, as TensorFlow 2 saves it: running it costs 0.1 s."""
        element = self._element(name)
        operation = element if isinstance(element, tf.Operation) else element.op
        return operation.type == "NoOp" and not operation.control_inputs


def _meta_graph(path: Path, tags: Sequence[str]) -> meta_graph_pb2.MetaGraphDef:
    try:
        saved_model = loader_impl.parse_saved_model(str(path))
    except OSError:
        for name, kind in (("saved_model.pb", "binary"), ("saved_model.pbtxt", "text")):
            if (path / name).is_file():
                raise ServingError(
                    Code.DATA_LOSS, f"Can't parse {path / name} as {kind} proto"
                ) from None
        raise ServingError(
            Code.NOT_FOUND,
            "Specified file path does not appear to contain a SavedModel bundle (should have a "
            f"file called `saved_model.pb`)\nSpecified file path: {path}",
        ) from None
    for meta_graph in saved_model.meta_graphs:
        if set(meta_graph.meta_info_def.tags) == set(tags):
            return meta_graph
    found = [sorted(graph.meta_info_def.tags) for graph in saved_model.meta_graphs]
    raise ServingError(
        Code.NOT_FOUND,
        f"Could not find meta graph def matching supplied tags: {{ {' '.join(sorted(tags))} }}. "
        "To inspect available tag-sets in the SavedModel, please use the SavedModel CLI: "
        f"`saved_model_cli`; found: {found} in {path}",
    )


def _init_op(meta_graph: meta_graph_pb2.MetaGraphDef) -> str:
    if INIT_SIGNATURE in meta_graph.signature_def:
        return meta_graph.signature_def[INIT_SIGNATURE].outputs[INIT_SIGNATURE].name
    for key in ("saved_model_main_op", "legacy_init_op"):
        names = (
            meta_graph.collection_def[key].node_list.value
            if key in meta_graph.collection_def
            else ()
        )
        if names:
            return names[0]
    return ""


def _asset_feeds(path: Path, meta_graph: meta_graph_pb2.MetaGraphDef) -> dict[str, str]:
    definitions = list(meta_graph.asset_file_def)
    if not definitions and "saved_model_assets" in meta_graph.collection_def:
        for packed in meta_graph.collection_def["saved_model_assets"].any_list.value:
            definition = meta_graph_pb2.AssetFileDef()
            packed.Unpack(definition)
            definitions.append(definition)
    return {
        definition.tensor_info.name: str(path / "assets" / definition.filename)
        for definition in definitions
    }


def _tensors(signature: meta_graph_pb2.SignatureDef) -> Iterator[str]:
    for info in [*signature.inputs.values(), *signature.outputs.values()]:
        if info.name:
            yield info.name
        else:  # a sparse or composite tensor: kept reachable, refused when it is asked for
            coo = info.coo_sparse
            yield from filter(
                None,
                [coo.values_tensor_name, coo.indices_tensor_name, coo.dense_shape_tensor_name],
            )


def prune(graph_def: graph_pb2.GraphDef, roots: Iterable[str]) -> graph_pb2.GraphDef:
    """The part of a graph, and of its function library, that ``roots`` (tensors or ops) reach."""
    functions = {function.signature.name: function for function in graph_def.library.function}
    gradients = {item.function_name: item for item in graph_def.library.gradient}
    nodes = {node.name: node for node in graph_def.node}
    kept: set[str] = set()
    todo = [_node_name(name) for name in roots]
    while todo:
        name = todo.pop()
        if name in kept:
            continue
        if name not in nodes:
            raise ServingError(Code.INVALID_ARGUMENT, f"The SavedModel's graph has no node {name}")
        kept.add(name)
        todo.extend(_node_name(source) for source in nodes[name].input)
    used: set[str] = set()
    called = [name for kept_name in kept for name in _called(nodes[kept_name], functions)]
    while called:
        name = called.pop()
        if name in used or name not in functions:
            continue
        used.add(name)
        if name in gradients:
            called.append(gradients[name].gradient_func)
        for node in functions[name].node_def:
            called.extend(_called(node, functions))
    pruned = graph_pb2.GraphDef(versions=graph_def.versions)
    pruned.node.extend(node for node in graph_def.node if node.name in kept)
    pruned.library.function.extend(functions[name] for name in functions if name in used)
    pruned.library.gradient.extend(item for name, item in gradients.items() if name in used)
    return pruned


def _node_name(name: str) -> str:
    return name.removeprefix("^").split(":", 1)[0]


def _called(node: node_def_pb2.NodeDef, functions: Mapping[str, Any]) -> Iterator[str]:
    if node.op in functions:
        yield node.op
    for value in node.attr.values():
        if value.HasField("func"):
            yield value.func.name
        elif value.HasField("list"):
            for function in value.list.func:
                yield function.name


def _name_resources(graph_def: graph_pb2.GraphDef) -> None:
    """Write down the name a resource goes by, so that a copy of its node finds the same one."""
    for node in graph_def.node:
        if "shared_name" in node.attr and not node.attr["shared_name"].s:
            node.attr["shared_name"].s = node.name.encode()
