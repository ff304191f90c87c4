"""Records of requests into the window's numbers, worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tuner.load.base import StagePlan
from tuner.load.processes import RECORD_DTYPE
from tuner.load.summary import _stalled, summarise
from tuner.load.window import (
    Window,
    error_counts,
    first_error,
    lag_p99_ms,
    select_window,
    status_name,
    timeline,
    write_samples,
)

OPENED_S = 100.0


def records(*rows: tuple[float, float, float, int, int]) -> np.ndarray:
    """Rows of due, sent, done (seconds after the opening; done ``None``-like -1: never), status, window."""
    table = np.zeros(len(rows), RECORD_DTYPE)
    for place, (due, sent, done, status, window) in enumerate(rows):
        table[place] = (
            OPENED_S + due, OPENED_S + sent, 0.0 if done < 0 else OPENED_S + done, place, status, window
        )
    return table


def steady(count: int, latency_s: float, lag_s: float = 0.0, over_s: float = 4.0) -> np.ndarray:
    due = np.arange(count) * over_s / count
    return records(*((d, d + lag_s, d + lag_s + latency_s, 0, 1) for d in due))


def summary(table: np.ndarray, length_s: float = 4.0, **plan: Any) -> Any:
    window = Window(OPENED_S, OPENED_S + length_s, table)
    return summarise(
        StagePlan("", ("m",), Path(), **plan), window, warmup_s=1.0, reason=None, message="",
        client_cpu_s=0.1, details={},
    )


def test_a_latency_counts_from_the_moment_the_request_was_due() -> None:
    """A client that was stalled sends late: the wait belongs to the request."""
    window = Window(OPENED_S, OPENED_S + 4, records((1.0, 1.25, 1.30, 0, 1)))
    assert window.latencies_ms == pytest.approx([300.0])
    assert window.latencies_of_all_ms == pytest.approx([300.0])
    entry = timeline(window)[1]
    assert entry["latency_p50_ms"] == pytest.approx(300.0)
    assert entry["latency_max_ms"] == pytest.approx(300.0)


def test_lag_is_how_late_the_client_sent() -> None:
    table = steady(100, 0.005, lag_s=0.002)
    table["sent"][40] += 0.050
    assert lag_p99_ms(Window(OPENED_S, OPENED_S + 4, table)) == pytest.approx(2.0)
    table["sent"][60] += 0.070
    assert lag_p99_ms(Window(OPENED_S, OPENED_S + 4, table)) == pytest.approx(52.0)
    assert lag_p99_ms(Window(OPENED_S, OPENED_S + 4, records())) is None


def test_an_open_loop_has_no_silence_to_tell() -> None:
    assert Window(OPENED_S, OPENED_S + 4, records()).longest_silence_s == 0.0


@pytest.mark.parametrize(("hung", "clients", "told"), [(1, 3, False), (2, 4, True), (3, 5, True), (2, 5, False)])
def test_a_closed_loop_is_no_result_where_half_of_its_clients_hang(
    hung: int, clients: int, told: bool
) -> None:
    waiting = [(1.0, 1.0, -1, 0, 0)] * hung
    answered = [(t, t, t + 0.01, 0, 0) for t in np.arange(0, 4, 0.01)]
    window = select_window(records(*answered, *waiting), OPENED_S, OPENED_S + 4, closed_loop=True)
    found = _stalled(StagePlan("", ("m",), Path(), pattern="closed", clients=clients), window)
    assert (found is not None) == told
    assert not told or f"{hung} of {clients} clients waited" in str(found)


@pytest.mark.parametrize(
    ("silent_s", "length_s", "answers", "told"),
    [
        (0.99, 2.0, 100, False), (1.0, 2.0, 100, True),  # at least a second,
        (2.4, 10.0, 1000, False), (2.5, 10.0, 1000, True),  # at least a quarter of the window,
        (2.0, 8.0, 1000, True), (5.9, 6.0, 10, False), (6.0, 6.0, 10, True),  # ten usual pauses
        (4.0, 4.0, 0, False),  # without an answer nobody knows what is usual
    ],
)
def test_how_long_a_closed_loop_must_stand_still(
    silent_s: float, length_s: float, answers: int, told: bool
) -> None:
    window = Window(0.0, length_s, records(), answers=answers, longest_silence_s=silent_s)
    found = _stalled(StagePlan("", ("m",), Path(), pattern="closed", clients=4), window)
    assert (found is not None) == told


def test_a_window_holds_what_was_due_in_it_not_what_was_sent_in_it() -> None:
    table = records(
        (-0.01, 0.01, 0.02, 0, 1),  # due before, sent inside
        (0.0, 0.0, 0.01, 0, 1),
        (3.99, 4.20, 4.30, 0, 1),  # sent after the close
        (4.0, 4.0, 4.01, 0, 1),
        (2.0, 2.0, 2.01, 0, 0),  # of the warm-up's sequence
    )
    chosen = select_window(table, OPENED_S, OPENED_S + 4, closed_loop=False)
    assert (chosen.records["due"] - OPENED_S) == pytest.approx([0.0, 3.99])


def test_a_closed_loop_holds_what_was_sent_in_it_and_who_still_waits_at_its_end() -> None:
    table = records(
        (-0.5, -0.5, 0.1, 0, 0),  # sent before, answered inside
        (3.9, 3.9, 4.1, 0, 0),  # answered after the close
        (2.0, 2.0, -1, 0, 0),  # never answered
        (-2.0, -2.0, -1, 0, 0),  # hung since the warm-up
        (-1.0, -1.0, 4.5, 0, 0),  # waited through the whole window
        (1.0, 1.0, 1.2, 0, 0),
        (-0.25, -0.25, 0.0, 0, 0),  # answered as it opened
        (0.0, 0.0, 0.3, 14, 0),
        (4.0, 4.0, -1, 0, 0),
    )
    chosen = select_window(table, OPENED_S, OPENED_S + 4, closed_loop=True)
    assert (chosen.records["due"] - OPENED_S) == pytest.approx([-2.0, -1.0, 0.0, 1.0, 2.0, 3.9])
    assert chosen.errors() == {"UNANSWERED": 2, "UNAVAILABLE": 1}
    # Good answers that came inside: at 0.0, 0.1 and 1.2; nothing came from 1.2 to the close.
    assert chosen.answers == 3
    assert chosen.longest_silence_s == pytest.approx(2.8)


def closed_loop(clients: int, over_s: float, latency_s: float = 0.01) -> list[tuple[float, float, float, int, int]]:
    """Clients that each send again as soon as they are answered, for some seconds."""
    count = round(over_s / latency_s)
    return [(k * latency_s, k * latency_s, (k + 1) * latency_s, 0, 0)
            for k in range(count) for _ in range(clients)]


def closed_summary(rows: list[tuple[float, float, float, int, int]], clients: int) -> Any:
    window = select_window(records(*rows), OPENED_S, OPENED_S + 4, closed_loop=True)
    return summarise(
        StagePlan("", ("m",), Path(), pattern="closed", clients=clients), window, warmup_s=1.0,
        reason=None, message="", client_cpu_s=0.1, details={},
    )


def test_a_closed_loop_counts_the_answers_of_its_window() -> None:
    found = closed_summary(closed_loop(4, 5.0), 4)
    assert found.valid and found.throughput_rps == pytest.approx(400, rel=0.01)
    assert found.latency_p99_ms == pytest.approx(10.0)


@pytest.mark.parametrize(("answered_s", "reason"), [(-1.0, "no_answers"), (5.5, "no_answers")])
def test_a_server_that_stalls_a_closed_loop_gives_no_result(answered_s: float, reason: str) -> None:
    """Four clients wait from 1.5 s on; no other request tells of it."""
    rows = closed_loop(4, 1.5) + [(1.5, 1.5, answered_s, 0, 0)] * 4
    found = closed_summary(rows, 4)
    assert (found.valid, found.reason) == (False, reason)
    assert found.latency_max_ms == pytest.approx(10.0 if answered_s < 0 else 4_000.0)
    assert ("4 of 4 clients" if answered_s < 0 else "nothing for 2.5 s") in found.message


def test_clients_that_hang_since_the_warm_up_give_no_result() -> None:
    rows = closed_loop(1, 5.0) + [(-0.5, -0.5, -1.0, 0, 0)] * 3
    found = closed_summary(rows, 4)
    assert (found.valid, found.reason) == (False, "no_answers") and "3 of 4 clients" in found.message


def test_a_short_stall_of_a_closed_loop_is_a_result() -> None:
    rows = closed_loop(4, 1.5) + [(1.5, 1.5, 2.3, 0, 0)] * 4
    rows += [(due + 2.3, sent + 2.3, done + 2.3, 0, 0) for due, sent, done, _, _ in closed_loop(4, 2.0)]
    found = closed_summary(rows, 4)
    assert found.valid and found.latency_max_ms == pytest.approx(800.0)


def test_requests_are_put_in_the_order_in_which_they_were_due() -> None:
    table = records((2.0, 2.0, 2.1, 0, 1), (1.0, 1.0, 1.3, 0, 1))
    assert select_window(table, OPENED_S, OPENED_S + 4, False).latencies_ms == pytest.approx([300, 100])


def test_unanswered_and_failed_requests_are_counted_by_what_became_of_them() -> None:
    window = Window(OPENED_S, OPENED_S + 4, records(
        (0.1, 0.1, 0.2, 0, 1), (0.2, 0.2, -1, 0, 1), (0.3, 0.3, -1, 0, 1),
        (0.4, 0.4, 0.5, 14, 1), (0.5, 0.5, 0.6, 1503, 1), (0.6, 0.6, 0.7, 14, 1),
    ))
    assert window.errors() == {"HTTP_503": 1, "UNANSWERED": 2, "UNAVAILABLE": 2}
    assert np.isinf(window.latencies_of_all_ms).tolist() == [False, True, True, True, True, True]
    assert window.latencies_ms == pytest.approx([100.0])


def test_a_request_whose_record_is_half_written_is_unanswered_and_counted_once() -> None:
    table = records((0.1, 0.1, -1, 14, 1), (0.2, 0.2, 0.3, 14, 1))
    assert error_counts(table) == {"UNAVAILABLE": 1}
    window = Window(OPENED_S, OPENED_S + 4, table)
    assert window.errors() == {"UNAVAILABLE": 1, "UNANSWERED": 1}
    assert not window.answered.any()
    table["status"] = 0
    assert window.answered.tolist() == [False, True] and window.errors() == {"UNANSWERED": 1}


def test_a_machine_that_has_just_started_counts_like_any_other(tmp_path: Path) -> None:
    table = np.array([(0.1, 0.1, 0.3, 0, 0, 1), (0.2, 0.2, 0.5, 1, 14, 1)], RECORD_DTYPE)
    window = Window(0.0, 1.0, table)
    assert window.latencies_ms == pytest.approx([200.0])
    assert window.errors() == error_counts(table) == {"UNAVAILABLE": 1}
    (entry,) = timeline(window)
    assert (entry["requests"], entry["errors"]) == (2, 1)
    assert entry["latency_max_ms"] == pytest.approx(200.0)
    write_samples(tmp_path / "samples", window, StagePlan("", ("m",), Path()), np.arange(2))
    assert np.load(tmp_path / "samples")["latency_ms"] == pytest.approx([200.0, 300.0])


def test_kept_samples_tell_of_every_request_when_how_long_and_which(tmp_path: Path) -> None:
    table = records(
        (0.5, 0.6, 0.75, 0, 1), (1.0, 1.0, -1, 0, 1), (1.5, 1.5, 1.625, 1503, 1), (2.0, 2.0, 2.5, 0, 1)
    )
    table["number"] = [4, 5, 6, 7]
    file = tmp_path / "new" / "folder" / "samples.npz"
    write_samples(
        file, Window(OPENED_S, OPENED_S + 4, table), StagePlan("", ("a", "b", "c"), Path()),
        np.array([30, 10, 20, 0, 40]),
    )
    kept = np.load(file)
    assert kept["due_s"] == pytest.approx([0.5, 1.0, 1.5, 2.0])
    assert kept["sent_s"] == pytest.approx([0.6, 1.0, 1.5, 2.0])
    assert kept["latency_ms"] == pytest.approx([250.0, np.nan, 125.0, 500.0], nan_ok=True)
    assert kept["status"].tolist() == [0, 0, 1503, 0]
    assert kept["request"].tolist() == [40, 30, 10, 20]
    assert kept["model"].tolist() == [1, 2, 0, 1]
    write_samples(file, Window(OPENED_S, OPENED_S + 4, table[:1]), StagePlan("", ("a",), Path()), np.zeros(1))
    assert len(np.load(file)["due_s"]) == 1


def test_the_most_frequent_error_that_the_server_explained_is_quoted() -> None:
    errors = {"INTERNAL": 3, "UNANSWERED": 9, "UNAVAILABLE": 5}
    texts = {"error_messages": {"INTERNAL": "bug", "UNAVAILABLE": "full", "UNKNOWN": "?"}}
    assert first_error(errors, texts) == "UNAVAILABLE: full"
    assert first_error({"UNANSWERED": 9}, texts) is None
    assert first_error(errors, {}) is None


def test_statuses_have_the_names_of_grpc_or_http() -> None:
    assert [status_name(s) for s in (0, 4, 8, 14, 16)] == [
        "OK", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "UNAUTHENTICATED"]
    assert (status_name(17), status_name(1000), status_name(1429)) == (
        "STATUS_17", "HTTP_0", "HTTP_429")


def test_a_second_of_the_timeline_counts_requests_and_errors() -> None:
    window = Window(OPENED_S, OPENED_S + 2.5, records(
        (0.0, 0.0, 0.010, 0, 1), (0.9, 0.9, 0.930, 0, 1), (0.99, 0.99, 1.040, 0, 1),
        (1.5, 1.5, -1, 0, 1), (2.2, 2.2, 2.3, 14, 1),
    ))
    first, second, third = timeline(window)
    assert (first["second"], first["requests"], first["errors"]) == (0, 3, 0)
    assert first["latency_p50_ms"] == pytest.approx(30.0)
    assert first["latency_max_ms"] == pytest.approx(50.0)
    assert (second["requests"], second["errors"], "latency_p50_ms" in second) == (1, 1, False)
    assert (third["second"], third["requests"], third["errors"]) == (2, 1, 1)


def test_a_server_that_drops_its_slowest_requests_gets_no_better_p99() -> None:
    table = steady(1_000, 0.005)
    table["done"] += np.linspace(0, 0.1, 1_000)
    honest = summary(table)
    table["done"][-9:] = 0.0
    dropped = summary(table)
    assert honest.latency_p99_ms == pytest.approx(dropped.latency_p99_ms)
    assert dropped.errors == {"UNANSWERED": 9} and dropped.valid
    assert dropped.error_rate == pytest.approx(0.009)
    assert dropped.throughput_rps == pytest.approx(991 / 4)


def test_a_stage_without_a_window_has_no_numbers_and_is_not_precise() -> None:
    found = summarise(
        StagePlan("", ("m",), Path(), rate_rps=50.0, seed=3, rows_per_request=2), None, warmup_s=1.5,
        reason="crash", message="it ended", client_cpu_s=None, details={"kept": 1},
    )
    assert (found.valid, found.reason, found.message) == (False, "crash", "it ended")
    assert (found.window_s, found.warmup_s, found.requests, found.timeline) == (0.0, 1.5, 0, ())
    assert (found.precise, found.errors, found.client_lag_p99_ms) == (False, {}, None)
    assert (found.throughput_rps, found.latency_p50_ms, found.latency_p99_interval_ms) == (None,) * 3
    assert (found.target_rate_rps, found.seed, found.rows_per_request) == (50.0, 3, 2)
    assert found.details == {"kept": 1}


def test_what_ended_a_stage_stands_above_what_its_window_shows() -> None:
    table = steady(100, 0.005)
    table["done"][:50] = 0.0
    found = summarise(
        StagePlan("", ("m",), Path()), Window(OPENED_S, OPENED_S + 4, table), warmup_s=1.0,
        reason="crash", message="it ended", client_cpu_s=0.1, details={},
    )
    assert (found.valid, found.reason, found.message) == (False, "crash", "it ended")
    assert (found.requests, found.errors) == (100, {"UNANSWERED": 50})
    assert [entry["requests"] for entry in found.timeline] == [25] * 4


def test_precise_means_that_the_interval_is_as_narrow_as_asked() -> None:
    latency_s = np.random.default_rng(8).lognormal(-5, 0.3, 4_000)
    table = steady(4_000, 0.0)
    table["done"] += latency_s
    found = summary(table)
    low, high = found.latency_p99_interval_ms
    half_width = (high - low) / 2 / found.latency_p99_ms
    assert 0.01 < half_width < 0.5
    assert summary(table, precision=half_width * 1.001).precise is True
    assert summary(table, precision=half_width * 0.999).precise is False
    for name, q in (("p50", 0.5), ("p95", 0.95)):
        low, high = getattr(found, f"latency_{name}_interval_ms")
        assert low < np.quantile(latency_s * 1e3, q) < high


def test_a_percentile_among_failed_requests_has_no_value() -> None:
    table = steady(1_000, 0.005)
    table["done"][::50] = 0.0  # 2 %
    found = summary(table, max_error_rate=0.05)
    assert found.valid and found.latency_p99_ms is None
    assert found.latency_p95_ms == pytest.approx(5.0)
    assert found.latency_p99_interval_ms is None or found.latency_p99_interval_ms[1] is None
    assert not found.precise


def test_the_summary_of_known_latencies() -> None:
    table = steady(400, 0.001)
    table["done"] += np.arange(400) * 1e-4  # 1.0, 1.1, … 40.9 ms
    found = summary(table)
    assert (found.requests, found.window_s) == (400, 4.0)
    assert found.latency_p50_ms == pytest.approx(1.0 + 0.1 * 199)
    assert found.latency_p95_ms == pytest.approx(1.0 + 0.1 * 379)
    assert found.latency_p99_ms == pytest.approx(1.0 + 0.1 * 395)
    assert found.latency_mean_ms == pytest.approx(1.0 + 0.1 * 199.5)
    assert found.latency_max_ms == pytest.approx(40.9)
    assert found.throughput_rps == pytest.approx(100.0)
    assert found.latency_p99_interval_ms is not None and found.latency_p99_interval_ms[1] is None
    assert found.details["percentile_rule"] == "ceiling"


@pytest.mark.parametrize(("lag_ms", "latency_ms", "valid"), [
    (0.9, 5.0, True), (1.1, 5.0, False),  # a millisecond is allowed
    (1.9, 20.0, True), (2.6, 20.0, False),  # or a tenth of the median
])
def test_a_client_that_was_late_gives_no_result(lag_ms: float, latency_ms: float, valid: bool) -> None:
    found = summary(steady(400, latency_ms / 1e3, lag_s=lag_ms / 1e3))
    assert found.valid is valid
    assert found.reason == (None if valid else "client_limited")
    assert found.client_lag_p99_ms == pytest.approx(lag_ms)


def test_a_closed_loop_has_no_lag() -> None:
    assert summary(steady(400, 0.005, lag_s=0.1), pattern="closed").client_lag_p99_ms is None


@pytest.mark.parametrize(("lost", "status", "reason"), [
    (10, -1, None), (11, -1, "overloaded"), (10, 14, None), (11, 14, "errors"),
])
def test_more_failures_than_are_allowed_make_no_result(lost: int, status: int, reason: str | None) -> None:
    table = steady(1_000, 0.005)
    if status < 0:
        table["done"][:lost] = 0.0
    else:
        table["status"][:lost] = status
    assert summary(table).reason == reason


def test_a_request_that_takes_longer_than_the_window_is_told_what_it_needs() -> None:
    for max_error_rate in (0.01, 1.0):
        table = steady(3, 0.005)
        table["done"][:] = 0.0
        found = summary(table, max_error_rate=max_error_rate)
        assert found.reason == "no_answers" and found.latency_p99_ms is None
        assert found.message == (
            "none of 3 requests was answered inside the window of 4 s; where one takes longer than "
            "that, give it a longer --duration"
        )


def test_a_window_without_an_answer_says_so() -> None:
    table = steady(10, 0.005)
    table["status"][:] = 14
    found = summary(table, max_error_rate=1.0)
    assert (found.reason, found.latency_p99_ms, found.throughput_rps) == ("no_answers", None, None)
    assert found.precise is False
