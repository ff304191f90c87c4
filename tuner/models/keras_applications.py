"""Image classifiers of ``keras.applications`` that take pixels of 0 to 255, RGB."""

from __future__ import annotations

from typing import Any

from tuner.models.builder import Made

SEED = 0
PIXEL_RANGE: dict[str, tuple[str, float, float]] = {
    "mobilenet_v2": ("MobileNetV2", 1 / 127.5, -1.0),
}
"""Name -> (Keras's class, scale and offset that bring pixels to what the network takes)."""


def make(application: str, size: int) -> Made:
    """The network for images of ``size`` x ``size``; bringing pixels into range is part of it."""
    import keras

    class_name, scale, offset = PIXEL_RANGE[application]
    keras.utils.set_random_seed(SEED)
    print("building the network", flush=True)
    network = getattr(keras.applications, class_name)(weights=None, input_shape=(size, size, 3))

    def classify(image: Any) -> dict[str, Any]:
        return {"probabilities": network(image * scale + offset, training=False)}

    return Made(
        function=classify,
        inputs={"image": ((None, size, size, 3), "float32")},
        variables=[variable.value for variable in network.variables],
        weights=f"seeded (seed {SEED}): not trained",
    )
