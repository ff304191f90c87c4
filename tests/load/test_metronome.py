"""The tests' own judge of the machine: what it excuses and what it does not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.metronome import PRIORITY, Metronome, in_time

BURSTS = """
import os, sys, time
os.sched_setaffinity(0, {int(sys.argv[1])})
os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(int(sys.argv[2])))
print("ready", flush=True)
for _ in range(20):
    end = time.monotonic() + 0.01
    while time.monotonic() < end:
        pass
    time.sleep(0.04)
"""


@pytest.fixture
def stolen_core() -> Iterator[int]:
    """A core that something more urgent takes for 10 ms in 50, for a second."""
    core = min(os.sched_getaffinity(0))
    with subprocess.Popen(
        [sys.executable, "-c", BURSTS, str(core), str(PRIORITY + 1)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as thief:
        assert thief.stdout is not None
        if thief.stdout.readline() != "ready\n":
            pytest.skip("skipped: real-time priority is not allowed here")
        yield core


def test_a_core_that_is_taken_away_is_an_excuse(stolen_core: int) -> None:
    with Metronome() as beside:
        subprocess.run(["sleep", "0.8"], check=True)
    assert beside.late_shares[stolen_core] == pytest.approx(0.2, abs=0.12)
    assert "beats came" in str(beside.excuse())


@pytest.mark.parametrize(
    ("excuses", "given"),
    [(["late"] * 3, None), (["late", None, "late"], 2), ([None] * 3, 2)],
)
def test_what_is_late_on_a_punctual_machine_is_not_excused(
    excuses: list[str | None], given: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, runs = iter(excuses), iter(range(3))
    monkeypatch.setattr(Metronome, "excuse", lambda _: next(told))
    if given is None:
        with pytest.raises(pytest.skip.Exception, match="any of 3 attempts: late"):
            in_time(lambda: next(runs), lambda _: True, attempts=3)
    else:
        assert in_time(lambda: next(runs), lambda _: True, attempts=3) == given


def test_the_first_run_in_time_counts() -> None:
    runs = iter(range(5))
    assert in_time(lambda: next(runs), lambda run: run < 2) == 2
