"""Put the weights of a PyTorch checkpoint into a Keras network of the same architecture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.errors import ModelError
from tuner.models.torch_checkpoint import read_state_dict
from tuner.models.weights import Located

Group = Mapping[str, NDArray[Any]]


def with_torch_padding(network: Any) -> Any:
    """``network`` anew, padding its strided convolutions by one on every side as PyTorch does.

    Where a stride of 2 meets an even size, Keras pads after the last row only, which shifts what
    trained kernels see by one pixel. The network's own first convolution is left without padding:
    its input must come padded, so build ``network`` for images two pixels larger.
    """
    import keras

    def padded(layer: Any) -> Any:
        config = layer.get_config()
        if isinstance(layer, keras.layers.ZeroPadding2D):
            config["padding"] = ((1, 1), (1, 1))
        elif isinstance(layer, keras.layers.Conv2D) and layer.strides == (2, 2):
            config["padding"] = "valid"
        return type(layer).from_config(config)

    return keras.models.clone_model(network, clone_function=padded)


def load_torch_weights(network: Any, weights: Located, *, epsilon: float = 1e-5) -> None:
    """Set every weight of ``network`` from the checkpoint, layer by layer in their order.

    Args:
        epsilon: what the checkpoint's batch normalisations add to the variance; where Keras adds
            something else, the scale makes up for it.

    Raises:
        ModelError: the file is not the known one, or its layers are not those of ``network``.
    """
    weights.verify()
    groups = list(_groups(read_state_dict(weights.file)))
    layers = [layer for layer in network.layers if layer.weights]
    if len(groups) != len(layers):
        raise ModelError(
            f"{weights.file}: has {len(groups)} layers with weights, {network.name} {len(layers)}"
        )
    for layer, (name, group) in zip(layers, groups):
        arrays = _for_layer(layer, group, epsilon)
        shapes = [array.shape for array in arrays]
        if shapes != [tuple(weight.shape) for weight in layer.weights]:
            raise ModelError(f"{weights.file}: {name} does not fit the layer {layer.name}")
        layer.set_weights(arrays)


def _groups(state: Mapping[str, NDArray[Any]]) -> Iterator[tuple[str, Group]]:
    """(layer name, its arrays by their last name), in the checkpoint's order."""
    grouped: dict[str, dict[str, NDArray[Any]]] = {}
    for name, array in state.items():
        layer, _, kind = name.rpartition(".")
        grouped.setdefault(layer, {})[kind] = array
    yield from grouped.items()


def _for_layer(layer: Any, group: Group, epsilon: float) -> list[NDArray[Any]]:
    """The arrays in the order and layout of ``layer.weights``."""
    kind = type(layer).__name__
    weight = group["weight"]
    if kind == "BatchNormalization":
        variance = group["running_var"]
        scale = weight * np.sqrt((variance + layer.epsilon) / (variance + epsilon))
        return [scale.astype(np.float32), group["bias"], group["running_mean"], variance]
    if kind == "Dense":
        return [weight.T, group["bias"]]
    # PyTorch keeps [out, in, height, width], Keras [height, width, in, out] and, for each channel
    # on its own, [height, width, channels, 1].
    axes = (2, 3, 0, 1) if kind == "DepthwiseConv2D" else (2, 3, 1, 0)
    return [weight.transpose(axes), *([group["bias"]] if layer.use_bias else [])]
