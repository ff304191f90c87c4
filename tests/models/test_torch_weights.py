"""PyTorch checkpoints: read without PyTorch and safely, and computing the same in Keras."""

from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from tuner.errors import ModelError
from tuner.models.torch_checkpoint import MAGIC, read_state_dict
from tuner.models.weights import Located, WeightsFile

torch = pytest.importorskip("torch", reason="writes the checkpoints of these tests")


def _save(state: dict, file: Path) -> Path:
    torch.save(state, file, _use_new_zipfile_serialization=False)
    return file


def _network() -> torch.nn.Module:
    """Every kind of layer, with strides of two on even sizes where the paddings differ."""
    torch.manual_seed(0)
    layers = torch.nn
    network = layers.Sequential(
        layers.Conv2d(3, 6, 3, stride=2, padding=1, bias=False),
        layers.BatchNorm2d(6),
        layers.ReLU6(),
        layers.Conv2d(6, 6, 3, stride=2, padding=1, groups=6, bias=False),
        layers.BatchNorm2d(6),
        layers.Conv2d(6, 4, 1, bias=True),
        layers.AdaptiveAvgPool2d(1),
        layers.Flatten(),
        layers.Linear(4, 5),
    )
    for layer in network:
        if isinstance(layer, layers.BatchNorm2d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(1e-4, 2)  # small enough for epsilon to matter
            layer.weight.data.normal_()
    return network.eval()


def _located(file: Path) -> Located:
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    return Located(WeightsFile("package", file.name, sha256, "a test"), file, "1")


def test_a_checkpoint_reads_as_pytorch_wrote_it(tmp_path: Path) -> None:
    state = _network().state_dict()
    base = torch.arange(12.0).reshape(3, 4)
    state["a column of a shared storage"] = base[:, 1]
    state["its transpose"] = base.T
    read = read_state_dict(_save(state, tmp_path / "file.pth"))
    assert list(read) == list(state)
    for name, tensor in state.items():
        np.testing.assert_array_equal(read[name], tensor.numpy())


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "attacked"),)

    file = tmp_path / "file.pth"
    parts = [MAGIC, 1001, {}, {"weight": Attack()}]
    file.write_bytes(b"".join(pickle.dumps(part, protocol=2) for part in parts))
    with pytest.raises(ModelError, match="it asks for posix.mkdir"):
        read_state_dict(file)
    assert not (tmp_path / "attacked").exists()


@pytest.mark.parametrize("keep", [0, 10, 300, -5])
def test_a_checkpoint_cut_short_is_refused(tmp_path: Path, keep: int) -> None:
    file = _save({"weight": torch.ones(100)}, tmp_path / "file.pth")
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ModelError, match="not a PyTorch state dict"):
        read_state_dict(file)


def test_a_file_other_than_the_known_one_is_refused(tmp_path: Path) -> None:
    file = _save(_network().state_dict(), tmp_path / "file.pth")
    located = _located(file)
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(ModelError, match="not the weights known by this name"):
        located.verify()


@pytest.mark.parametrize("size", [16, 18, 21])  # even and odd sizes meet the second stride
def test_a_keras_network_computes_what_pytorch_does(tmp_path: Path, size: int) -> None:
    import keras

    from tuner.models.torch_weights import load_torch_weights, with_torch_padding

    torch_network = _network()
    layers = keras.layers
    network = with_torch_padding(
        keras.Sequential(
            [
                keras.Input((size + 2, size + 2, 3)),
                layers.Conv2D(6, 3, strides=2, padding="same", use_bias=False),
                layers.BatchNormalization(),
                layers.ReLU(max_value=6),
                layers.ZeroPadding2D(((0, 1), (0, 1))),
                layers.DepthwiseConv2D(3, strides=2, padding="valid", use_bias=False),
                layers.BatchNormalization(),
                layers.Conv2D(4, 1),
                layers.GlobalAveragePooling2D(),
                layers.Dense(5),
            ]
        )
    )
    weights = _located(_save(torch_network.state_dict(), tmp_path / "file.pth"))
    load_torch_weights(network, weights)
    images = np.random.default_rng(0).standard_normal((2, size, size, 3)).astype(np.float32)
    with torch.no_grad():
        wanted = torch_network(torch.tensor(images).permute(0, 3, 1, 2)).numpy()
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    np.testing.assert_allclose(network(padded), wanted, rtol=1e-4, atol=1e-5)


def test_a_network_of_other_layers_is_refused(tmp_path: Path) -> None:
    import keras

    from tuner.models.torch_weights import load_torch_weights

    network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(5)])
    weights = _located(_save(_network().state_dict(), tmp_path / "file.pth"))
    with pytest.raises(ModelError, match="has 6 layers with weights"):
        load_torch_weights(network, weights)
