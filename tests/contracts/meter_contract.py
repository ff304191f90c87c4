"""What every Meter promises. Inherit, and give the fixture ``meter``."""

from __future__ import annotations

import json
import math
import os
import threading
import time

import pytest

from tuner.measurement import to_json
from tuner.meter import Meter


class MeterContract:
    """A subclass gives a fixture ``meter``: a Meter that can be read for some seconds."""

    def _window(self, meter: Meter, seconds: float = 0.15, **pids):
        """The reading, and the seconds that its window must at least and at most be long."""
        outer_s = time.monotonic()
        meter.open(**pids)
        inner_s = time.monotonic()
        time.sleep(seconds)
        least_s = time.monotonic() - inner_s
        reading = meter.close()
        return reading, least_s, time.monotonic() - outer_s

    def test_names_its_method(self, meter):
        assert meter.method in ("counter", "sampled", "estimate")
        assert meter.name and meter.describe()

    def test_reading_says_where_it_comes_from(self, meter):
        reading, *_ = self._window(meter)
        assert (reading.source, reading.method) == (meter.name, meter.method)
        assert reading.domains and len(set(reading.domains)) == len(reading.domains)
        assert reading.samples >= 2

    def test_window_is_as_long_as_the_work(self, meter):
        reading, least_s, most_s = self._window(meter, 0.3)
        assert least_s <= reading.window_s <= most_s

    def test_energy_is_positive_and_finite(self, meter):
        # A scripted source may stand still while its writer waits for a CPU.
        for seconds in (0.15, 0.5, 2.0):
            reading, *_ = self._window(meter, seconds)
            if reading.gross_j > 0:
                break
        assert 0 < reading.gross_j < math.inf
        assert 0 < reading.average_w < math.inf

    def test_client_gets_a_part_of_the_whole_or_nothing_is_said(self, meter):
        reading, *_ = self._window(meter, client_pids=[os.getpid()])
        assert reading.client_j is None or 0 <= reading.client_j <= reading.gross_j
        assert reading.server_j <= reading.gross_j

    def test_without_a_baseline_there_is_no_net_energy(self, meter):
        reading, *_ = self._window(meter)
        assert (reading.idle_w, reading.net_j) == (None, None)

    def test_baseline_is_taken_off(self, meter):
        meter.idle_w = 1.5
        reading, *_ = self._window(meter)
        served_j = reading.gross_j - (reading.client_j or 0) - (reading.others_j or 0)
        assert reading.idle_w == 1.5
        assert reading.net_j == pytest.approx(served_j - 1.5 * reading.window_s, abs=1e-9)

    def test_is_used_again_and_again(self, meter):
        first, *_ = self._window(meter)
        second, _, most_s = self._window(meter)
        assert second.gross_j >= 0 and second.source == first.source
        assert second.window_s <= most_s

    def test_record_can_be_stored_as_json(self, meter):
        reading, *_ = self._window(meter, server_pids=[os.getpid()])
        assert json.loads(json.dumps(to_json(reading), allow_nan=False))["source"] == meter.name

    def test_processes_that_do_not_exist_are_no_error(self, meter):
        reading, *_ = self._window(meter, server_pids=[2**22 + 1], client_pids=[2**22 + 2])
        assert reading.gross_j >= 0

    def test_opening_twice_is_an_error_and_keeps_the_window(self, meter):
        meter.open()
        with pytest.raises(RuntimeError):
            meter.open()
        time.sleep(0.05)
        reading = meter.close()
        assert reading.window_s >= 0.05 and 0 <= reading.gross_j < math.inf

    def test_closing_what_is_not_open_is_an_error(self, meter):
        with pytest.raises(RuntimeError):
            meter.close()

    def test_release_leaves_no_thread_behind(self, meter):
        before = threading.active_count()
        meter.open(server_pids=[os.getpid()])
        meter.release()
        assert threading.active_count() == before
