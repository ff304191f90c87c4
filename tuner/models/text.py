"""A small CNN for text, trained here within a minute on film reviews: praise or not.

Words are embedded, a convolution looks for telling phrases of five, and the strongest sign of
each kind over the whole text decides: Kim (2014), "Convolutional Neural Networks for Sentence
Classification".
"""

from __future__ import annotations

from typing import Any

from tuner.models.builder import Made
from tuner.workloads.text import VOCABULARY, movie_reviews

SEED = 0
EPOCHS = 3


def make() -> Made:
    """Train on the reviews that are not held out; accuracy is that on those that are."""
    import keras
    import numpy as np
    import tensorflow as tf

    keras.utils.set_random_seed(SEED)
    tf.config.experimental.enable_op_determinism()
    reviews, praise = movie_reviews("train")
    print(f"training on {len(reviews)} reviews", flush=True)
    layers = keras.layers
    network = keras.Sequential(
        [
            keras.Input(reviews.shape[1:], dtype="int32"),
            layers.Embedding(VOCABULARY, 32),
            layers.Dropout(0.3),
            layers.Conv1D(64, 5, activation="relu"),
            layers.GlobalMaxPooling1D(),
            layers.Dropout(0.4),
            layers.Dense(2, activation="softmax"),
        ]
    )
    network.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
    network.fit(reviews, praise, epochs=EPOCHS, batch_size=64, verbose=0)
    held_out, truth = movie_reviews("test")
    guesses = np.argmax(network.predict(held_out, batch_size=256, verbose=0), axis=-1)
    accuracy = float(np.mean(guesses == truth))

    def classify(tokens: Any) -> dict[str, Any]:
        return {"probabilities": network(tokens, training=False)}

    return Made(
        function=classify,
        inputs={"tokens": ((None, *reviews.shape[1:]), "int32")},
        variables=[variable.value for variable in network.variables],
        weights=f"trained here on IMDB film reviews, accuracy {accuracy:.3f}",
        accuracy=accuracy,
    )
