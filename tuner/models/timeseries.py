"""A small 1-D CNN for time series, trained here in seconds on UCI's JapaneseVowels."""

from __future__ import annotations

from typing import Any

from tuner.models.builder import Made
from tuner.workloads.timeseries import japanese_vowels

SEED = 0
EPOCHS = 40


def make() -> Made:
    """Train on the data set's own training series; accuracy is that on its test series."""
    import keras
    import numpy as np
    import tensorflow as tf

    keras.utils.set_random_seed(SEED)
    tf.config.experimental.enable_op_determinism()
    series, speakers = japanese_vowels("train")
    print(f"training on {len(series)} series", flush=True)
    layers = keras.layers
    network = keras.Sequential(
        [
            keras.Input(series.shape[1:]),
            layers.Normalization(axis=-1, mean=series.mean((0, 1)), variance=series.var((0, 1))),
            layers.Conv1D(64, 5, padding="same", activation="relu"),
            layers.Conv1D(128, 5, padding="same", activation="relu"),
            layers.MaxPooling1D(2),
            layers.Conv1D(128, 3, padding="same", activation="relu"),
            layers.GlobalAveragePooling1D(),
            layers.Dropout(0.3),
            layers.Dense(int(speakers.max()) + 1, activation="softmax"),
        ]
    )
    network.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
    network.fit(series, speakers, epochs=EPOCHS, batch_size=32, verbose=0)
    held_out, truth = japanese_vowels("test")
    guesses = np.argmax(network.predict(held_out, verbose=0), axis=-1)
    accuracy = float(np.mean(guesses == truth))

    def classify(series: Any) -> dict[str, Any]:
        return {"probabilities": network(series, training=False)}

    return Made(
        function=classify,
        inputs={"series": ((None, *held_out.shape[1:]), "float32")},
        variables=[variable.value for variable in network.variables],
        weights=f"trained here on JapaneseVowels, accuracy {accuracy:.3f}",
        accuracy=accuracy,
    )
