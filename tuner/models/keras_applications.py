"""Image classifiers of ``keras.applications``, fed with pixels of 0 to 255, RGB.

What brings pixels into the range that a network takes is part of the model, so that one workload
of photographs fits all of them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from tuner.models.builder import Made
from tuner.models.torch_weights import load_torch_weights, with_torch_padding
from tuner.models.weights import Located

SEED = 0


def make(module: str, network: str, size: int, weights: Located | None = None) -> Made:
    """``keras.applications.<network>``, whose ``<module>`` prepares pixels, for images of ``size`` x ``size`` pixels.

    ``weights`` are ImageNet weights of the same network from torchvision; without them the
    network is seeded: it costs the same to serve, but what it answers means nothing.
    """
    import keras

    application = importlib.import_module(f"keras.applications.{module}")
    keras.utils.set_random_seed(SEED)
    print("building the network", flush=True)
    build = getattr(keras.applications, network)
    if weights is None:
        built = build(weights=None, input_shape=(size, size, 3))
        return classifier(built, size, application.preprocess_input, seeded())
    margin = 2  # the image comes to the first convolution already padded
    built = with_torch_padding(build(weights=None, input_shape=(size + margin, size + margin, 3)))
    load_torch_weights(built, weights)

    def prepare(image: Any) -> Any:
        pixels = keras.applications.imagenet_utils.preprocess_input(image, mode="torch")
        return keras.ops.pad(pixels, ((0, 0), (1, 1), (1, 1), (0, 0)))

    return classifier(built, size, prepare, weights.label)


def classifier(network: Any, size: int, prepare: Callable[[Any], Any], weights: str) -> Made:
    """``network`` behind ``prepare``, which turns pixels [n, size, size, 3] into its input."""

    def classify(image: Any) -> dict[str, Any]:
        return {"probabilities": network(prepare(image), training=False)}

    return Made(
        function=classify,
        inputs={"image": ((None, size, size, 3), "float32")},
        variables=[variable.value for variable in network.variables],
        weights=weights,
    )


def seeded() -> str:
    return f"seeded (seed {SEED}): not trained"
