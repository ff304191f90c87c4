"""Columns of the unit cube, and which of them tell branches apart."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.contracts.proposer_contract import FINITE, drive
from tuner.propose import Source, bayesian, make, transfer
from tuner.propose.averaged import AveragedSurrogate
from tuner.propose.encoding import Encoder
from tuner.space import Parameter, Space


def space(*parameters: Parameter) -> Space:
    return replace(FINITE, parameters=parameters, exclude=())


ON = Parameter("on", "categorical", choices=(False, True))
MODE = Parameter("mode", "categorical", choices=("a", "b", "c"))


def child(name: str, parent: str, *values) -> Parameter:
    return Parameter(name, "categorical", choices=(False, True), when={parent: values})


@pytest.mark.parametrize(
    ("parameters", "deciding"),
    [
        ((MODE, ON), []),
        ((MODE, ON, child("size", "on", True)), [[3]]),
        ((ON, child("split", "on", True), child("size", "split", True)), [[0], [1]]),
        # Two of three modes are one branch: not told, so no knob is taken for a branch.
        ((MODE, child("size", "mode", "a", "b")), []),
    ],
)
def test_knobs_of_two_values_that_others_depend_on_tell_branches_apart(parameters, deciding):
    assert Encoder(space(*parameters)).deciding == deciding


@pytest.mark.parametrize("name", ["auto", "transfer"])
def test_the_surrogates_know_the_branches(name, monkeypatch):
    told = []

    class Spy(AveragedSurrogate):
        def __init__(self, *args, deciding=(), **more):
            told.append(list(deciding))
            super().__init__(*args, deciding=deciding, **more)

    for module in (bayesian, transfer):
        monkeypatch.setattr(module, "AveragedSurrogate", Spy)
    known = tuple(drive(make("random", FINITE, seed=1), 12))
    sources = [Source("earlier", known)] if name == "transfer" else []
    drive(make(name, FINITE, seed=0, budget=12, sources=sources), 4)
    assert told and all(columns == Encoder(FINITE).deciding == [[0]] for columns in told)
