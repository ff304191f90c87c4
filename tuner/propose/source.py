"""What another environment's study teaches: its observations, under a name."""

from __future__ import annotations

from dataclasses import dataclass

from tuner.propose.base import Observation


@dataclass(frozen=True)
class Source:
    """A study of another DNN, workload, load level or machine.

    Its objectives are the target's, in the same order and minimised. Its configurations may come
    from another space: knobs that the target lacks are ignored, and knobs that it lacks itself
    count as inactive.
    """

    name: str
    observations: tuple[Observation, ...]
