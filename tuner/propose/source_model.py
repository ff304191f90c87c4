"""What one source study tells of another environment, each thing learnt once."""

from __future__ import annotations

import numpy as np

from tuner.propose.averaged import AveragedSurrogate, expected_scale
from tuner.propose.encoding import Encoder
from tuner.propose.history import derived_seed
from tuner.propose.source import Source
from tuner.propose.surrogate import Floats, Surrogate

_POINTS = 800
"""Trials of a source that its surrogate learns from."""
_KNOWN = 100_000
"""Predictions of a source that are kept."""
_TELLING = 20
"""Trials that it takes to say what a source's knobs explain, and how their effects are shaped."""
_SHAPED_BY, _SWEEPS = 60, 20
"""Trials of a source that the shape of its responses is learnt from, and sweeps to draw it."""


class Prior:
    """One source's belief of one objective, fitted once."""

    def __init__(self, X: Floats, y: Floats) -> None:
        self.spread = float(np.std(y)) or 1.0
        self._model = Surrogate(X.shape[1]).fit(X, y)
        self._known: dict[bytes, float] = {}
        self.explained = self._model.explained if len(y) >= _TELLING else 1.0
        """Share of the variance that each trial's prediction from the others explains."""

    def mean(self, X: Floats) -> Floats:
        """Prediction at each row, shape (n,). Rows come again in every proposal, and a source's
        belief of them never changes."""
        keys = [row.tobytes() for row in np.ascontiguousarray(X)]
        new = [i for i, key in enumerate(keys) if key not in self._known]
        if new:
            if len(self._known) > _KNOWN:  # a continuous space, whose candidates are drawn anew
                self._known.clear()
                new = list(range(len(keys)))
            means = self._model.mean(X[new])
            self._known.update((keys[i], mean) for i, mean in zip(new, means.tolist()))
        return np.array([self._known[key] for key in keys], dtype=float)


class SourceModel:
    """One source as the target sees it: complete trials alone, encoded like the target's.

    Args:
        source: the study; must have a complete trial.
        encoder: the target space's.
        seed: of the order in which trials are taken, and of what is drawn.
    """

    def __init__(self, source: Source, encoder: Encoder, seed: int) -> None:
        self.name = source.name
        self._seed, self._deciding = seed, encoder.deciding
        complete = [o for o in source.observations if o.values is not None]
        # In random order: hyperparameters are fitted on the first and last of them.
        order = np.random.default_rng(seed).permutation(len(complete))[:_POINTS]
        taken = [complete[i] for i in order.tolist()]
        self._X = encoder.encode([o.configuration for o in taken])
        self._values = np.array([o.values for o in taken], dtype=float)
        self._priors: dict[tuple[int, bool], Prior] = {}
        self._shapes: dict[tuple[str, bool], Floats] = {}

    def is_positive(self, objective: int) -> bool:
        return bool((self._values[:, objective] > 0).all())

    def explained(self, objective: int) -> float:
        """Share of an objective's variance that the knobs explain, 0 to 1 (below 0: worse than its
        mean)."""
        return self.prior(objective, bool((self._values > 0).all())).explained

    def prior(self, objective: int, logarithmic: bool) -> Prior:
        """The source's belief of an objective, or of its logarithm."""
        key = (objective, logarithmic)
        if key not in self._priors:
            self._priors[key] = Prior(
                self._X, self._response(f"objective {objective}", logarithmic)
            )
        return self._priors[key]

    def shape(self, response: str, logarithmic: bool) -> Floats | None:
        """Length scales and bends of a response, as ``AveragedSurrogate.shape``: where a knob's
        effect levels off is a matter of the knob, in one environment as in the other.

        Args:
            response: ``objective N``, or ``quotient`` (the second by the first).

        Returns:
            ``None`` where the source has too few trials to tell, or not this response.
        """
        if len(self._X) < _TELLING or response.startswith("constraint"):
            return None
        key = (response, logarithmic)
        if key not in self._shapes:
            y = self._response(response, logarithmic)[:_SHAPED_BY]
            scale = expected_scale(y, logarithmic)
            rng = np.random.default_rng(derived_seed(self._seed, len(self._shapes)))
            model = AveragedSurrogate(rng, scale, deciding=self._deciding)
            self._shapes[key] = model.fit(self._X[:_SHAPED_BY], y, _SWEEPS).shape
        return self._shapes[key]

    def _response(self, name: str, logarithmic: bool) -> Floats:
        if name == "quotient":
            first, second = np.log(self._values).T
            return np.asarray(second - first)
        values = self._values[:, int(name.split()[-1])]  # the others may have no logarithm
        return np.log(values) if logarithmic else values
