"""One cache for the session, with a small catalogue model in it, and SavedModels of one's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_SAVE = """
import sys
import tensorflow as tf

folder = sys.argv[1]


class Sum(tf.Module):
    def __init__(self):
        self.scale = tf.Variable([[1.0], [2.0], [3.0]])

    @tf.function
    def __call__(self, x, n):
        return {"total": tf.matmul(x, self.scale) + tf.cast(n, tf.float32)}


network = Sum()
x, n = tf.TensorSpec([None, 3], tf.float32, name="x"), tf.TensorSpec([None, 1], tf.int32, name="n")
serve = network.__call__.get_concrete_function(x, n)
for place in ("plain", "numbered/1", "numbered/12", "unloadable"):
    tf.saved_model.save(network, f"{folder}/{place}", signatures=serve)
tf.saved_model.save(network, f"{folder}/unsigned", signatures={"score": serve})
"""


@pytest.fixture(scope="session")
def own_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SavedModels of two inputs: plain, numbered, unloadable (no variables), unsigned."""
    folder = tmp_path_factory.mktemp("own")
    subprocess.run([sys.executable, "-c", _SAVE, str(folder)], check=True, capture_output=True)
    for file in (folder / "unloadable" / "variables").iterdir():
        file.unlink()
    return folder


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")
