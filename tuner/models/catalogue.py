"""The models that tuner can build, by name: what each is, who makes it, what identifies a build."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata

from tuner.errors import ModelError

IMAGE_SIZES = (32, 1024)
"""Least and greatest side of an image model's input, pixels; Keras refuses less than 32."""


@dataclass(frozen=True)
class Recipe:
    """How one model of the catalogue is made.

    ``maker`` names a function ``module:function`` of the program that builds, called with
    ``arguments``; ``packages`` are the libraries whose versions decide what comes out, and
    ``optional`` those that are used only if installed. ``revision`` changes whenever the maker
    would make something else.
    """

    name: str
    summary: str
    maker: str
    workload: str
    packages: tuple[str, ...]
    arguments: Mapping[str, str | int] = field(default_factory=dict)
    optional: tuple[str, ...] = ()
    revision: int = 1

    def versions(self) -> dict[str, str]:
        """Library -> installed version; an optional one that is missing is left out."""
        found = {}
        for package in (*self.packages, *self.optional):
            try:
                found[package] = metadata.version(package)
            except metadata.PackageNotFoundError:
                if package in self.packages:
                    raise ModelError(
                        f"model {self.name!r} needs the package {package}: pip install {package}"
                    ) from None
        return found

    def key(self) -> str:
        """What a build of this recipe on this machine is filed under: 12 hexadecimal digits."""
        identity = [self.name, self.maker, dict(self.arguments), self.revision, self.versions()]
        text = json.dumps(identity, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


_KERAS = ("tensorflow", "keras")


def _image(name: str, summary: str, size: int) -> Recipe:
    return Recipe(
        name=name,
        summary=summary,
        maker="tuner.models.keras_applications:make",
        workload="photographs",
        packages=_KERAS,
        arguments={"application": name, "size": size},
    )


_RECIPES = {
    recipe.name: recipe
    for recipe in (
        _image("mobilenet_v2", "Keras MobileNetV2, images of 224 x 224 pixels", 224),
        Recipe(
            name="cnn1d",
            summary="1-D CNN that tells nine speakers apart by JapaneseVowels series of 29 x 12",
            maker="tuner.models.timeseries:make",
            workload="japanese_vowels",
            packages=(*_KERAS, "sktime"),
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
        raise ModelError(
            f"no model named {name!r}; "
            + (f"did you mean {close[0]!r}? " if close else "")
            + f"There are {', '.join(_RECIPES)}"
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
    summary = re.sub(r"\d+ x \d+", f"{int(side)} x {int(side)}", found.summary)
    arguments = {**found.arguments, "size": int(side)}
    return Recipe(
        name=f"{base}@{int(side)}",
        summary=summary,
        maker=found.maker,
        workload=found.workload,
        packages=found.packages,
        arguments=arguments,
        optional=found.optional,
        revision=found.revision,
    )
