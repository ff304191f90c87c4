"""Whether a graph is one chain of work, or has branches or loops."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping

from tensorflow.core.framework import function_pb2, graph_pb2, node_def_pb2

_HEAVY = frozenset({
    "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Conv1D", "Conv2D", "Conv2DBackpropInput",
    "Conv3D", "DepthwiseConv2dNative", "Einsum", "MatMul", "QuantizedConv2D", "SparseMatMul",
    "_FusedConv2D", "_FusedMatMul",
})  # fmt: skip
"""Operations that are worth a thread."""
_LOOPS = frozenset({"Enter", "For", "RefEnter", "StatelessWhile", "While"})


class Shape(enum.Enum):
    """How a graph's work hangs together."""

    CHAIN = "one heavy operation after the other"
    BRANCHES = "heavy operations that do not wait for one another"
    LOOPS = "loops, of as many turns as the data says"


class _Loop(Exception):
    """There is one."""


def shape_of(graph: graph_pb2.GraphDef, roots: Iterable[str]) -> Shape:
    """The shape of what ``roots`` need.

    Args:
        roots: names of nodes.

    A chain runs its operations one after the other, however many inter-op threads there are.
    """
    functions = {function.signature.name: function for function in graph.library.function}
    try:
        heavy, longest = _measure(graph.node, functions, {}, list(roots))
    except _Loop:
        return Shape.LOOPS
    return Shape.CHAIN if heavy == longest else Shape.BRANCHES


def _measure(
    nodes: Iterable[node_def_pb2.NodeDef],
    functions: Mapping[str, function_pb2.FunctionDef],
    known: dict[str, tuple[int, int]],
    roots: list[str] | None = None,
) -> tuple[int, int]:
    """(heavy operations that ``roots``, or all nodes, need, how many of them the longest path has)."""
    by_name = {node.name: node for node in nodes}
    inputs = {
        name: [source.removeprefix("^").split(":", 1)[0] for source in node.input]
        for name, node in by_name.items()
    }
    weights: dict[str, tuple[int, int]] = {}
    longest: dict[str, int] = {}
    on_path: set[str] = set()
    for root in by_name if roots is None else roots:
        todo = [root]
        while todo:
            name = todo[-1]
            if name in longest or name not in by_name:
                todo.pop()
                on_path.discard(name)
                continue
            missing = [one for one in inputs[name] if one in by_name and one not in longest]
            if not missing:
                weights[name] = _weight(by_name[name], functions, known)
                before = max((longest.get(one, 0) for one in inputs[name]), default=0)
                longest[name] = before + weights[name][1]
            elif on_path.isdisjoint(missing):
                on_path.add(name)
                todo.extend(missing)
            else:
                raise _Loop
    return sum(heavy for heavy, _ in weights.values()), max(longest.values(), default=0)


def _weight(
    node: node_def_pb2.NodeDef,
    functions: Mapping[str, function_pb2.FunctionDef],
    known: dict[str, tuple[int, int]],
) -> tuple[int, int]:
    if node.op in _LOOPS:
        raise _Loop
    names = [node.op] if node.op in functions else []
    for value in node.attr.values():
        names += [value.func.name] if value.HasField("func") else []
        names += [function.name for function in value.list.func]
    heavy = longest = int(node.op in _HEAVY)
    for name in names:
        if name in functions:
            if name not in known:
                known[name] = _measure(functions[name].node_def, functions, known)
            heavy, longest = heavy + known[name][0], longest + known[name][1]
    return heavy, longest
