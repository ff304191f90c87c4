"""EfficientNet-Lite0: EfficientNet without squeeze-and-excitation, with ReLU6, made for CPUs.

Tan and Le, EfficientNet (2019), table 1, with the changes of the Lite variants; stem and head of
fixed width; padding as TensorFlow pads, since the weights were trained there.
"""

from __future__ import annotations

from typing import Any

from tuner.models.builder import Made
from tuner.models.keras_applications import SEED, classifier, seeded
from tuner.models.torch_weights import load_torch_weights
from tuner.models.weights import Located

STAGES = (
    # kernel, stride, expansion, channels, blocks
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
STEM_CHANNELS, HEAD_CHANNELS, CLASSES = 32, 1280, 1000
EPSILON = 1e-3


def make(size: int, weights: Located | None = None) -> Made:
    """The network for images of ``size`` x ``size`` pixels, with ImageNet weights if given."""
    import keras

    keras.utils.set_random_seed(SEED)
    print("building the network", flush=True)
    network = _network(size)
    if weights is not None:
        load_torch_weights(network, weights, epsilon=EPSILON)

    def prepare(image: Any) -> Any:
        return (image - 127.0) / 128.0

    return classifier(network, size, prepare, weights.label if weights else seeded())


def _network(size: int) -> Any:
    import keras
    from keras import layers

    def normalised(x: Any, activate: bool = True) -> Any:
        x = layers.BatchNormalization(epsilon=EPSILON)(x)
        return layers.ReLU(max_value=6)(x) if activate else x

    def pointwise(x: Any, channels: int, activate: bool = True) -> Any:
        return normalised(layers.Conv2D(channels, 1, use_bias=False)(x), activate)

    image = keras.Input((size, size, 3))
    x = layers.Conv2D(STEM_CHANNELS, 3, strides=2, padding="same", use_bias=False)(image)
    x = normalised(x)
    for kernel, stage_stride, expansion, channels, blocks in STAGES:
        for block in range(blocks):
            stride, shortcut = (1, x) if block else (stage_stride, None)
            if expansion > 1:
                x = pointwise(x, x.shape[-1] * expansion)
            x = layers.DepthwiseConv2D(kernel, strides=stride, padding="same", use_bias=False)(x)
            x = pointwise(normalised(x), channels, activate=False)
            x = x if shortcut is None else layers.add([x, shortcut])
    x = layers.GlobalAveragePooling2D()(pointwise(x, HEAD_CHANNELS))
    probabilities = layers.Dense(CLASSES, activation="softmax")(x)
    return keras.Model(image, probabilities, name="efficientnet_lite0")
