"""Learn from studies of other environments, and drop those that mislead.

Each source becomes a prior: the target's (logarithmic) response is taken as ``a + b`` times the
source's, with ``b`` near one, plus a Gaussian process for the rest. Responses of a system in two
environments are often linear in each other (Jamshidi et al. 2017). The target alone is one more
model. Weights compare how well each model predicts every trial from the others (leave-one-out
densities, pseudo-Bayesian model averaging: Yao et al. 2018; RGPE, Feurer et al. 2018, compares
ranks instead). A source has to gain something by each trial, so one that misleads loses its weight
with the first trials that contradict it. A source whose knobs don't even explain its own responses
is left out from the start.

Length scales and bends of the knobs are taken over from the sources, for the links and the target
alone, whatever the weights: they are what a search learns last, and a knob's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tuner.measurement import Configuration
from tuner.propose.averaged import AveragedSurrogate
from tuner.propose.bayesian import AVERAGED, BayesianProposer, Data, Fitted, Floats, Model
from tuner.propose.history import derived_seed
from tuner.propose.source import Source
from tuner.propose.source_model import Prior, SourceModel
from tuner.propose.surrogate import Surrogate
from tuner.space import Space

OWN = "own"
"""Name of the model that learns from the target alone, in the notes."""
_SLOPE = 0.3
"""Prior deviation of the slope ``b`` from one."""
_REST = 0.35
"""Deviation of what a source doesn't explain, relative to the source's own, before trials tell."""
_SLOPES = (0.5, 2.0)
"""Bounds of the slope: beyond them the source isn't about the same thing."""
_MARGIN = 0.1
"""Log density a trial that a source must gain to keep its weight."""
_ALONE = 2
"""Trials from which the target's own model takes part, and models are judged."""
_NEGLIGIBLE = 1e-4
_SETTLED = 5
"""Trials from which a source of negligible weight is dropped for good."""
_EXPLAINED = 0.1
"""Share of a source's variance that its knobs must explain, left-out trial by left-out trial."""


class Linked:
    """A target response given a source: a line through the source's, plus a process of the rest,
    of the source's ``shape`` (``AveragedSurrogate``) where that is known."""

    def __init__(
        self,
        prior: Prior,
        data: Data,
        rng: np.random.Generator,
        deciding: Sequence[Sequence[int]] = (),
        shape: Floats | None = None,
    ) -> None:
        self._prior = prior
        predicted = prior.mean(data.X) if len(data.y) else np.empty(0)
        self._line(predicted, data.y)
        self._learnt_along = self._along(predicted)
        rest = data.y - self._learnt_along
        self._model: Surrogate | AveragedSurrogate | None = None
        if len(data.y):
            scale = _REST * prior.spread
            self._model = (
                AveragedSurrogate(rng, scale, centred=True, deciding=deciding, shape=shape)
                if len(rest) <= AVERAGED
                else Surrogate(data.X.shape[1], scale=scale)
            ).fit(data.X, rest)

    def _line(self, source: Floats, y: Floats) -> None:
        """Intercept free, slope drawn towards one."""
        if not len(y):
            self._offset, self._slope, self._centre = 0.0, 1.0, 0.0
            return
        self._centre, self._offset = float(source.mean()), float(y.mean())
        x, z = source - self._centre, y - self._offset
        rest = (_REST * self._prior.spread) ** 2
        slope = float((x @ z / rest + 1 / _SLOPE**2) / (x @ x / rest + 1 / _SLOPE**2))
        self._slope = min(max(slope, _SLOPES[0]), _SLOPES[1])

    def _along(self, source: Floats) -> Floats:
        return self._offset + self._slope * (source - self._centre)

    def left_out(self) -> tuple[Floats, Floats]:
        """Mean and deviation of each trial as the others predict it; the line is kept."""
        assert self._model is not None
        mean, deviation = self._model.left_out()
        return self._learnt_along + mean, deviation

    def predict(self, X: Floats) -> tuple[Floats, Floats]:
        along = self._along(self._prior.mean(X))
        if self._model is None:
            return along, np.full(len(X), _REST * self._prior.spread)
        mean, deviation = self._model.predict(X)
        return along + mean, deviation


def density(models: Sequence[Fitted], responses: Sequence[Floats]) -> float:
    """Log density of the trials that models learnt from, one model and one array of responses for
    each objective: each trial predicted from the others and taken for normal; up to a constant.
    The objectives of a system go together, so their densities are averaged, not added up."""
    reached = []
    for model, y in zip(models, responses):
        mean, deviation = model.left_out()
        reached.append(-(np.log(deviation) + ((y - mean) / deviation) ** 2 / 2).sum())
    return float(np.mean(reached))


def weights(densities: Mapping[str, float]) -> dict[str, float]:
    """Weights in proportion to densities, given as logarithms."""
    values = np.array(list(densities.values()))
    likelihoods = np.exp(values - values.max())
    return dict(zip(densities, (likelihoods / likelihoods.sum()).tolist()))


@dataclass(frozen=True)
class Mixture:
    """Models of one response, each with a weight."""

    parts: Sequence[tuple[float, Model]]

    def predict(self, X: Floats) -> tuple[Floats, Floats]:
        means, squares = np.zeros(len(X)), np.zeros(len(X))
        total = sum(weight for weight, _ in self.parts)
        for weight, model in self.parts:
            mean, deviation = model.predict(X)
            means += weight / total * mean
            squares += weight / total * (deviation**2 + mean**2)
        return means, np.sqrt(np.maximum(squares - means**2, 1e-12))


class TransferProposer(BayesianProposer):
    """Bayesian optimisation with the sources as priors; their weights stand in the notes."""

    name = "transfer"

    def __init__(
        self,
        space: Space,
        sources: Sequence[Source],
        *,
        seed: int,
        budget: int | None = None,
        repeats: bool = False,
    ) -> None:
        super().__init__(space, seed=seed, budget=budget, repeats=repeats)
        complete = [
            s for s in _told_apart(sources) if any(o.values is not None for o in s.observations)
        ]
        self._given = [source.name for source in complete]
        models = [SourceModel(source, self._encoder, seed) for source in complete]
        objectives = range(len(space.objectives))
        self._useful = [m for m in models if any(m.explained(i) > _EXPLAINED for i in objectives)]
        """Sources whose knobs explain something: they lend their shapes, whatever they weigh."""
        self._sources = self._useful
        """Those that are still listened to."""
        names = [source.name for source in self._sources] or [OWN]
        self._shares = dict.fromkeys(names, 1.0 / len(names))

    def explain(self) -> str:
        kept = [source.name for source in self._useful]
        dropped = [name for name in self._given if name not in kept]
        text = "transfer: Gaussian processes"
        if kept:
            text += f" that learn from {', '.join(kept)} as long as it predicts"
        if dropped:
            text += f"; {', '.join(dropped)} left out: its knobs don't explain its own responses"
        return text

    def _scores(
        self, candidates: Sequence[Configuration], X: Floats, rng: np.random.Generator
    ) -> tuple[Floats, dict[str, Any]]:
        scores, notes = super()._scores(candidates, X, rng)
        dropped = {name: 0.0 for name in self._given if name not in self._shares}
        return scores, {**notes, "weights": {**self._shares, **dropped}}

    def _can_guess(self) -> bool:
        return bool(self._sources)

    def _data(self, objective: int) -> tuple[Data, bool]:
        data, logarithmic = super()._data(objective)
        positive = all(source.is_positive(objective) for source in self._sources)
        if logarithmic and not positive:
            return Data(data.X, np.exp(data.y)), False
        return data, logarithmic

    def _models(self, known: Sequence[tuple[Data, bool]], measured: bool = True) -> Sequence[Model]:
        """The target's own models beside its links to each source, by their weights."""
        if not self._sources:
            return super()._models(known, measured)
        models: dict[str, Sequence[Fitted]] = {
            source.name: [self._linked(source, i, *one) for i, one in enumerate(known)]
            for source in self._sources
        }
        responses = [data.y for data, _ in known]
        trials = len(responses[0])
        is_judged = measured and trials >= _ALONE
        if is_judged:
            gained = {n: density(m, responses) - _MARGIN * trials for n, m in models.items()}
            # Among themselves first: the target's own model takes over the shape of the best.
            self._shares = weights(gained)
        if is_judged or OWN in self._shares:
            models[OWN] = self._own_models(known)
        if is_judged:
            self._shares = weights({**gained, OWN: density(models[OWN], responses)})
            self._drop(trials)
        parts = {name: models[name] for name in self._shares if name in models}
        return [
            Mixture([(self._shares[name], part[i]) for name, part in parts.items()])
            for i in range(len(known))
        ]

    def _drop(self, trials: int) -> None:
        """Listen no more to sources of no weight, once there are enough ``trials`` to say so."""
        if trials >= _SETTLED:
            self._sources = [s for s in self._sources if self._shares[s.name] > _NEGLIGIBLE]
            if not self._sources:
                self._shares = {OWN: 1.0}

    def _linked(
        self, source: SourceModel, objective: int, data: Data, logarithmic: bool
    ) -> Linked:
        rng = np.random.default_rng(derived_seed(self._seed, len(data.y)))
        prior = source.prior(objective, logarithmic)
        shape = source.shape(f"objective {objective}", logarithmic)
        return Linked(prior, data, rng, self._encoder.deciding, shape)

    def _shape(self, response: str, logarithmic: bool) -> Floats | None:
        """The sources' shapes of a response, averaged by weight; all count where none has any."""
        told = {s.name: s.shape(response, logarithmic) for s in self._useful}
        shapes = {name: shape for name, shape in told.items() if shape is not None}
        if not shapes:
            return None
        weights = [self._shares.get(name, 0.0) + _NEGLIGIBLE for name in shapes]
        return np.asarray(np.average(list(shapes.values()), axis=0, weights=weights))


def _told_apart(sources: Sequence[Source]) -> list[Source]:
    """The sources under names of which each is given once, and none is ``OWN``: a second ``a``
    becomes ``a#2``."""
    taken, apart = {OWN}, []
    for source in sources:
        name, number = source.name, 1
        while name in taken:
            number += 1
            name = f"{source.name}#{number}"
        taken.add(name)
        apart.append(Source(name, source.observations))
    return apart
