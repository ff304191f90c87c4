"""A model that doubles, saved once for a test run."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tuner.deploy.base import ModelToServe

_SAVE = """
import sys, tensorflow as tf

class Doubling(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None, 1], tf.float32, name="x")])
    def __call__(self, x):
        return {"y": 2.0 * x}

module = Doubling()
tf.saved_model.save(module, sys.argv[1], signatures=module.__call__)
"""


@pytest.fixture(scope="session")
def doubling(tmp_path_factory: pytest.TempPathFactory) -> ModelToServe:
    base = tmp_path_factory.mktemp("models") / "doubling"
    subprocess.run(
        [sys.executable, "-c", _SAVE, str(base / "1")], check=True, capture_output=True
    )
    return ModelToServe("doubling", base)
