"""Rows of real photographs: those that packages ship, or a folder of the user's own.

Rows are RGB pixels of 0 to 255. The first rows are the photographs whole, cut square around their
centre; the further ones are seeded crops of a half to all of the shorter side, at a seeded place,
half of them mirrored, so that no two requests are the same and all show what a camera saw.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from tuner.errors import ModelError, UnavailableError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
SMALLEST_CROP = 0.5
"""Least side of a crop, as a share of the photograph's shorter side."""

_FROM_SKIMAGE = ("chelsea", "coffee", "rocket", "astronaut", "immunohistochemistry", "retina")


def packaged() -> list[Image.Image]:
    """Photographs that scikit-learn and scikit-image ship, always in this order.

    A temple and a flower; a cat, a cup of coffee, a rocket on its pad, an astronaut, a motorcycle,
    stained tissue under a microscope and a retina.

    Raises:
        UnavailableError: one of the packages is not installed.
    """
    try:
        from skimage import data
        from sklearn.datasets import load_sample_images
    except ImportError as error:
        raise UnavailableError(
            "the photographs come with the packages scikit-learn and scikit-image: "
            f"pip install scikit-learn scikit-image ({error})"
        ) from None
    arrays = [
        *load_sample_images().images,
        *(getattr(data, name)() for name in _FROM_SKIMAGE),
        data.stereo_motorcycle()[0],
    ]
    return [Image.fromarray(array[..., :3]) for array in arrays]


def from_folder(folder: Path) -> list[Image.Image]:
    """Every image file of ``folder``, by name.

    Raises:
        ModelError: no image there, or one that cannot be decoded.
    """
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)
    if not files:
        raise ModelError(f"{folder}: no images here; files named *{', *'.join(SUFFIXES)} count")
    images = []
    for file in files:
        try:
            with Image.open(file) as opened:
                images.append(opened.convert("RGB"))
        except (UnidentifiedImageError, OSError) as error:
            raise ModelError(f"{file}: not an image that can be decoded ({error})") from None
    return images


def rows(
    images: Sequence[Image.Image], *, height: int, width: int, count: int, seed: int
) -> NDArray[np.uint8]:
    """``count`` distinct rows [count, height, width, 3] cut from ``images`` in turn."""
    cuts = _boxes(images, height / width, count, np.random.default_rng(seed))
    out = np.empty((count, height, width, 3), np.uint8)
    for row, (image, box, mirrored) in zip(out, cuts):
        cut = image.resize((width, height), Image.Resampling.BILINEAR, box=box)
        row[:] = np.asarray(cut)[:, ::-1] if mirrored else np.asarray(cut)
    return out


def _boxes(
    images: Sequence[Image.Image], aspect: float, count: int, rng: np.random.Generator
) -> Iterator[tuple[Image.Image, tuple[float, float, float, float], bool]]:
    """(image, box to cut, mirrored) of each row; ``aspect`` is height over width."""
    for number in range(count):
        image = images[number % len(images)]
        whole_width = min(image.width, image.height / aspect)
        whole_height = whole_width * aspect
        if number < len(images):
            share, across, down, mirrored = 1.0, 0.5, 0.5, False
        else:
            share = rng.uniform(SMALLEST_CROP, 1.0)
            across, down = rng.uniform(size=2)
            mirrored = bool(rng.integers(2))
        width, height = whole_width * share, whole_height * share
        left, top = (image.width - width) * across, (image.height - height) * down
        yield image, (left, top, left + width, top + height), mirrored
