"""The contract suite, for every name that ``make`` knows."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

import pytest

from tests.contracts.proposer_contract import FINITE, ProposerContract, values
from tuner.errors import UnavailableError, UsageError
from tuner.propose import NAMES, Observation, Source, make

HAS_TORCH = importlib.util.find_spec("torch") is not None


def source_of_finite() -> Source:
    return Source(
        "earlier",
        tuple(
            Observation(c, "complete", tuple(2.0 * v for v in values(c)), number=i)
            for i, c in enumerate(FINITE.configurations())
        ),
    )


class TestAuto(ProposerContract):
    name = "auto"


class TestRandom(ProposerContract):
    name = "random"


class TestTpe(ProposerContract):
    name = "tpe"


class TestNsga2(ProposerContract):
    name = "nsga2"


class TestNsga3(ProposerContract):
    name = "nsga3"


class TestGrid(ProposerContract):
    name = "grid"


class TestQmc(ProposerContract):
    name = "qmc"


class TestScreening(ProposerContract):
    name = "screening"
    covers = False


class TestTransfer(ProposerContract):
    name = "transfer"

    @pytest.fixture
    def sources(self) -> Sequence[Source]:
        return (source_of_finite(),)


@pytest.mark.slow
@pytest.mark.skipif(not HAS_TORCH, reason="torch (the extra `gp`) is not installed")
class TestGp(ProposerContract):
    name = "gp"


def test_every_name_has_its_contract():
    tested = {c.name for c in ProposerContract.__subclasses__()}
    assert tested == set(NAMES)


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(UsageError, match="nsga2"):
        make("genetic", FINITE, seed=0)


def test_gp_without_torch_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UnavailableError, match=r"tuner\[gp\]"):
        make("gp", FINITE, seed=0)


def test_transfer_without_a_source_says_so():
    with pytest.raises(UsageError, match="--source"):
        make("transfer", FINITE, seed=0)
