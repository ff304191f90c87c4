"""Real time series that come with a package: UCI's JapaneseVowels, from sktime.

Nine men say two Japanese vowels; a series is 7 to 29 frames of 12 LPC cepstrum coefficients, the
class is the speaker; 270 series to train, 370 to test. Kudo, Toyama, Shimbo (1999),
doi:10.24432/C5NS47.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tuner.errors import ModelError, UnavailableError

FRAMES, CHANNELS = 29, 12


def japanese_vowels(split: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Series [n, 29, 12], zeros after the end of the shorter ones, and speakers [n] of 0 to 8.

    ``split`` is ``train`` or ``test``, as the data set divides itself.

    Raises:
        UnavailableError: sktime is not installed.
    """
    try:
        from sktime.datasets import load_japanese_vowels
    except ImportError as error:
        raise UnavailableError(
            f"the JapaneseVowels series come with the package sktime: pip install sktime ({error})"
        ) from None
    frames, speakers = load_japanese_vowels(
        split=split, return_X_y=True, return_type="pd-multiindex"
    )
    series = np.zeros((len(speakers), FRAMES, CHANNELS), np.float32)
    for row, (_, one) in zip(series, frames.groupby(level=0)):
        row[: len(one)] = one.to_numpy(np.float32)
    return series, speakers.astype(np.int64) - 1


def shuffled(*, count: int, seed: int) -> NDArray[np.float32]:
    """``count`` of the test series in a seeded order, without repetition.

    Raises:
        ModelError: more were asked for than there are.
    """
    series, _ = japanese_vowels("test")
    if count > len(series):
        raise ModelError(f"requests: JapaneseVowels has {len(series)} test series, not {count}")
    return series[np.random.default_rng(seed).permutation(len(series))[:count]]
