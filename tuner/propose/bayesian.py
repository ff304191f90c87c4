"""Bayesian optimisation over the valid configurations: Gaussian processes and EHVI."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from tuner.feasibility import KEPT
from tuner.measurement import Configuration, configuration_key
from tuner.propose.averaged import AveragedSurrogate, expected_scale
from tuner.propose.base import Observation, Proposal, Proposer
from tuner.propose.candidates import draw, draw_value, enumerated
from tuner.propose.encoding import Encoder
from tuner.propose.history import History, derived_seed
from tuner.propose.improvement import (
    Belief,
    expected_hypervolume_improvement,
    expected_improvement,
    scalarised_improvement,
)
from tuner.propose.keeping import deviation, kept
from tuner.propose.surrogate import Surrogate
from tuner.space import Space

Floats = NDArray[np.float64]

CANDIDATES = 5_000
"""Configurations weighed in one proposal; of larger spaces a fresh draw of as many."""
_BUSY = 60
"""Trials after which fewer candidates are weighed, to keep a proposal under a second."""
_CANDIDATES_BUSY = 1_000
AVERAGED = 40
"""Trials up to which hyperparameters are averaged over; then the mode says enough, and is fast."""
_UNSURE = 0.2
"""Deviation of a failure's label, -1 or 1; without it the forecast is far too sure of itself."""
_FAR = 2.0
"""Violations, relative to their bound, are cut off here: far beyond tells no more."""


@dataclass(frozen=True)
class Data:
    """What is known of one response: encoded inputs (n, columns) and values (n,)."""

    X: Floats
    y: Floats
    errors: Floats | None = None
    """Deviations that the measurement of each value is known to have, (n,); ``None``: unknown."""


class Model(Protocol):
    """Predicts mean and deviation of a response at rows of shape (n, columns), each shape (n,)."""

    def predict(self, X: Floats) -> tuple[Floats, Floats]: ...


class Fitted(Model, Protocol):
    """Predicts each of the trials it learnt from by the others, too."""

    def left_out(self) -> tuple[Floats, Floats]: ...


@dataclass(frozen=True)
class Multiple:
    """A response as another one times a factor, all as logarithms."""

    base: Fitted
    factor: Fitted
    power: int
    """-1 where it is divided by the factor."""

    def predict(self, X: Floats) -> tuple[Floats, Floats]:
        return self._joined(self.base.predict(X), self.factor.predict(X))

    def left_out(self) -> tuple[Floats, Floats]:
        return self._joined(self.base.left_out(), self.factor.left_out())

    def _joined(
        self, base: tuple[Floats, Floats], factor: tuple[Floats, Floats]
    ) -> tuple[Floats, Floats]:
        return base[0] + self.power * factor[0], np.hypot(base[1], factor[1])


class BayesianProposer(Proposer):
    """The middle of the space and of branches unlike it, then what promises most improvement.

    Each objective has a surrogate of its own, of its logarithm where every value is positive.
    Improvement is expected hypervolume improvement for two objectives, expected improvement for
    one, and ParEGO's for more, times the probability that the constraints hold. Trials that
    still run count as if they had ended as expected (Ginsbourger et al. 2010).
    """

    name = "bayesian"

    def __init__(
        self, space: Space, *, seed: int, budget: int | None = None, repeats: bool = False
    ) -> None:
        self._space, self._seed, self._repeats = space, seed, repeats
        self._history = History()
        self._encoder = Encoder(space)
        self._all = enumerated(space)
        if self._all is not None:
            self._encoded = self._encoder.encode(self._all)
            self._keys = [configuration_key(c) for c in self._all]
        self._thetas: dict[str, Floats] = {}

    def propose(self) -> Proposal | None:
        rng = np.random.default_rng(derived_seed(self._seed, self._history.trials))
        candidates, encoded = self._candidates(rng)
        if not candidates:
            return None
        scores, notes = self._scores(candidates, encoded, rng)
        # Equal scores are common in flat regions; the first of them would favour low levels.
        order = rng.permutation(len(candidates))
        chosen = candidates[int(order[np.argmax(scores[order])])]
        self._history.propose(chosen)
        return Proposal(chosen, notes)

    def observe(self, observation: Observation) -> None:
        self._history.observe(observation)

    def explain(self) -> str:
        return (
            f"{self.name}: from the middle of the space on, Gaussian processes with expected "
            "hypervolume improvement"
        )

    # Which configurations are weighed.

    def _candidates(self, rng: np.random.Generator) -> tuple[Sequence[Configuration], Floats]:
        limit = CANDIDATES if len(self._history.finished) <= _BUSY else _CANDIDATES_BUSY
        if self._all is None:
            drawn = [draw(self._space, rng, self._is_new) for _ in range(min(limit, 1_000))]
            found: list[Configuration] = [c for c in drawn if c is not None]
            found += self._neighbours(rng)
            return found, self._encoder.encode(found)
        seen = self._history.seen_keys() if not self._repeats else frozenset()
        left = np.array([i for i, key in enumerate(self._keys) if key not in seen], dtype=int)
        if len(left) > limit:
            near = self._nearest(left, limit // 2)
            left = np.union1d(near, rng.choice(left, limit // 2, replace=False))
        return [self._all[i] for i in left], self._encoded[left]

    def _is_new(self, configuration: Configuration) -> bool:
        return self._repeats or not self._history.has_seen(configuration)

    def _nearest(self, left: NDArray[np.int_], count: int) -> NDArray[np.int_]:
        """The untried configurations nearest to the best ones so far."""
        best = self._encoder.encode([o.configuration for o in self._best()])
        if not len(best):
            return left[:0]
        gaps = np.min([((self._encoded[left] - b) ** 2).sum(axis=1) for b in best], axis=0)
        return left[np.argsort(gaps, kind="stable")[:count]]

    def _neighbours(self, rng: np.random.Generator) -> list[Configuration]:
        """Best configurations of a continuous space with one knob drawn anew."""
        found: list[Configuration] = []
        for observation in self._best():
            for parameter in self._space.parameters:
                if parameter.name not in observation.configuration:
                    continue
                for _ in range(10):
                    value = draw_value(parameter, rng)
                    changed = {**observation.configuration, parameter.name: value}
                    if self._space.is_valid(changed) and self._is_new(changed):
                        found.append(changed)
        return found

    def _best(self) -> list[Observation]:
        """Feasible trials that no other one beats in every objective, at most twenty."""
        found = self._feasible()
        values = np.array([o.values for o in found])
        beaten = [bool((values < row).all(axis=1).any()) for row in values]
        return [o for o, is_beaten in zip(found, beaten) if not is_beaten][:20]

    def _feasible(self) -> list[Observation]:
        """Complete trials of configurations that keep every limit for sure, all their trials taken
        together; where there is none, those that were measured within the limits. What kept a limit
        by luck is nothing yet to be improved upon."""
        certainty = kept(self._history.finished)
        measured = [o for o in self._history.complete if o.feasible]
        sure = [
            o for o in self._history.complete
            if certainty[configuration_key(o.configuration)] >= KEPT
        ]
        return sure or measured

    # How good each looks.

    def _opening(self, candidates: Sequence[Configuration], X: Floats) -> Floats | None:
        """Scores of the first trials, ``None`` after them.

        The middle of the space is nearest to everything, and no end of a knob is taken for typical.
        Then the middle of what was not seen at all: with the knobs that only matter under a
        condition, where the middle lacked them, or without. One knob's change would not tell.
        """
        tried = [o.configuration for o in self._history.finished] + self._history.pending
        if not tried:
            return -((X - X.mean(axis=0)) ** 2).sum(axis=1)
        knobs = self._space.conditional
        seen = {(name, name in c) for c in tried for name in knobs}
        if len(seen) == 2 * len(knobs):
            return None
        unseen = [sum((name, name in c) not in seen for name in knobs) for c in candidates]
        if not max(unseen):
            return None
        most = np.array(unseen) == max(unseen)
        return np.where(most, -((X - X[most].mean(axis=0)) ** 2).sum(axis=1), -np.inf)

    def _scores(
        self, candidates: Sequence[Configuration], X: Floats, rng: np.random.Generator
    ) -> tuple[Floats, dict[str, Any]]:
        """Scores of shape (candidates,) and notes for the proposal."""
        opening = None if self._can_guess() else self._opening(candidates, X)
        if opening is not None:
            return opening, {}
        probable = self._probably_feasible(X)
        complete = self._history.complete
        if not complete and not self._can_guess():
            return probable + 1e-6 * self._distance(X), {}
        beliefs, ceilings, notes = self._beliefs(X)
        feasible = [o.values for o in self._feasible()]
        found = np.array(feasible, dtype=float).reshape(-1, len(beliefs))
        if not len(found) and complete:
            return probable, notes
        if len(beliefs) == 1:
            best = float(found.min()) if len(found) else float(ceilings[0])
            scores = expected_improvement(beliefs[0], best)
        elif len(beliefs) == 2:
            running = self._expected_of_pending()
            scores = expected_hypervolume_improvement(
                beliefs, np.vstack([found, running]) if len(running) else found, ceilings
            )
        else:
            scores = scalarised_improvement(beliefs, found, rng)
        return scores * probable, notes

    def _can_guess(self) -> bool:
        """Whether objectives can be predicted before any trial is complete."""
        return False

    def _data(self, objective: int) -> tuple[Data, bool]:
        complete = self._history.complete
        y = np.array([o.values[objective] for o in complete if o.values is not None], dtype=float)
        logarithmic = bool((y > 0).all())
        X = self._encoder.encode([o.configuration for o in complete])
        return Data(X, np.log(y) if logarithmic else y), logarithmic

    def _beliefs(self, X: Floats) -> tuple[list[Belief], Floats, dict[str, Any]]:
        """Beliefs at the candidates, the reference point, and notes."""
        known = [self._data(i) for i in range(len(self._space.objectives))]
        models = self._models(known)
        pending = self._encoder.encode(self._history.pending)
        self._pending_values: list[Floats] = []
        if len(pending):
            joined = []
            for (data, logarithmic), model in zip(known, models):
                guess, _ = model.predict(pending)
                self._pending_values.append(np.exp(guess) if logarithmic else guess)
                y = np.concatenate([data.y, guess])
                joined.append((Data(np.vstack([data.X, pending]), y), logarithmic))
            models = self._models(joined, measured=False)
        beliefs, ceilings = [], []
        for (data, logarithmic), model in zip(known, models):
            beliefs.append(Belief(*model.predict(X), logarithmic))
            seen = np.exp(data.y) if logarithmic else data.y
            ceilings.append(max([float(beliefs[-1].centre().max()), *map(float, seen)]))
        return beliefs, np.array(ceilings), {}

    def _models(self, known: Sequence[tuple[Data, bool]], measured: bool = True) -> Sequence[Model]:
        """A model of each objective; where not ``measured``, some of the values are expected only.
        """
        return self._own_models(known)

    def _own_models(self, known: Sequence[tuple[Data, bool]]) -> list[Fitted]:
        """What the trials alone tell of each objective. Where their quotient is easier to explain
        than one of them (an energy is a duration times a power), that one is the other's multiple.
        """
        own = [self._fit(f"objective {i}", *one) for i, one in enumerate(known)]
        models: list[Fitted] = list(own)
        if len(known) == 2 and all(logarithmic for _, logarithmic in known):
            (first, _), (second, _) = known
            rest = self._fit("quotient", Data(second.X, second.y - first.y), True)
            worst = int(np.argmin([own[0].evidence, own[1].evidence, rest.evidence]))
            if worst < 2:
                models[worst] = Multiple(own[1 - worst], rest, (-1, 1)[worst])
        return models

    def _expected_of_pending(self) -> Floats:
        return np.column_stack(self._pending_values) if self._pending_values else np.empty((0, 2))

    def _fit(
        self, name: str, data: Data, logarithmic: bool = False
    ) -> Surrogate | AveragedSurrogate:
        if len(data.y) <= AVERAGED:
            rng = np.random.default_rng(derived_seed(self._seed, len(data.y)))
            scale = expected_scale(data.y, logarithmic, data.errors)
            shape = self._shape(name, logarithmic)
            model = AveragedSurrogate(rng, scale, deciding=self._encoder.deciding, shape=shape)
            return model.fit(data.X, data.y, errors=data.errors)
        plain = Surrogate(data.X.shape[1], start=self._thetas.get(name))
        plain.fit(data.X, data.y, data.errors)
        if len(data.y) > _BUSY:
            self._thetas[name] = plain.theta
        return plain

    def _shape(self, response: str, logarithmic: bool) -> Floats | None:
        """What other environments tell of the columns' length scales and bends; here nothing."""
        return None

    def _probably_feasible(self, X: Floats) -> Floats:
        """Probability that every constraint holds at each candidate; one where none ever broke."""
        finished = [o for o in self._history.finished if not o.tells_nothing]
        probable = np.ones(len(X))
        if not finished:
            return self._distance(X)
        failed = np.array([1.0 if o.state != "complete" else -1.0 for o in finished])
        encoded = self._encoder.encode([o.configuration for o in finished])
        if (failed > 0).any() and not (failed > 0).all():
            mean, error = self._fit("constraint failed", Data(encoded, failed)).predict(X)
            probable *= norm.cdf(-mean / np.hypot(error, _UNSURE))
        for key in sorted({k for o in finished for k in o.violations} - {"failed"}):
            rows = [i for i, o in enumerate(finished) if key in o.violations]
            values = np.array([finished[i].violations[key] for i in rows])
            errors = np.array([deviation(finished[i], key) for i in rows])
            if (values + norm.ppf(KEPT) * errors > 0).any():
                values, errors = np.clip(values, -_FAR, _FAR), np.minimum(errors, _FAR)
                data = Data(encoded[rows], values, errors if errors.any() else None)
                mean, error = self._fit(f"constraint {key}", data).predict(X)
                probable *= norm.cdf(-mean / error)
        # While everything fails, the next trial goes furthest from what was tried.
        return probable * self._distance(X) if (failed > 0).all() else probable

    def _distance(self, X: Floats) -> Floats:
        """Distance of each candidate to the nearest trial, shape (candidates,)."""
        tried = [o.configuration for o in self._history.finished] + self._history.pending
        if not tried:
            return np.ones(len(X))
        gaps = [((X - row) ** 2).sum(axis=1) for row in self._encoder.encode(tried)]
        return np.sqrt(np.min(gaps, axis=0))
