"""A space that cannot be deployed is refused before its first trial, by file, line and key."""

from __future__ import annotations

import dataclasses

import pytest

from tuner import space
from tuner.deploy import check_space, joining_note
from tuner.deploy.knobs import KNOBS
from tuner.deploy.offers import Offers
from tuner.errors import SpaceError, UnavailableError, UsageError
from tuner.modelserver.flags import flag_table
from tuner.space_file import parse

RICH = Offers(
    cpus=4, memory_mb=8192, cpu_quota=None, memory_limit=None, cpufreq=None,
    frequency_mhz=(1000, 3000), allocators={"system": None, "tcmalloc": None, "jemalloc": None},
)
POOR = Offers(
    cpus=2, memory_mb=1024, cpu_quota="no cpu cgroup", memory_limit="no memory cgroup",
    cpufreq="no cpufreq", frequency_mhz=None,
    allocators={"system": None, "tcmalloc": "install tcmalloc", "jemalloc": "install jemalloc"},
)


def space_of(parameters: str, top: str = "") -> space.Space:
    return parse(f"{top}\nparameters:\n  {parameters}\n", file="a.yaml")


@pytest.mark.parametrize(
    "name", ["batching", "threads", "protocol", "resources", "models_at_once", "caching", "everything"]
)
def test_the_shipped_spaces_are_deployable_on_a_machine_that_offers_all(name: str) -> None:
    check_space(space.load(name), RICH)


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ("max_batchsize: [1, 2]", "nearest: max_batch_size"),
        ("other_models: [0, 2]", "put it under factors"),
        ("rest_api_num_threads: [2, 4]", "no effect unless protocol is rest"),
        ("tensorflow_intra_op_parallelism: [-1, 2]", "at least 0"),
        ("cpus: {low: 0, high: 2}", "at least 1"),
        ("enable_batching: ['yes', 'no']", "true or false"),
        ("port: [8500, 8501]", "chosen free"),
    ],
)
def test_a_wrong_knob_is_a_space_error_with_its_place(parameters: str, told: str) -> None:
    with pytest.raises(SpaceError, match=told) as caught:
        check_space(space_of(parameters), RICH)
    name = parameters.partition(":")[0]
    assert caught.value.line == 3
    assert str(caught.value).startswith(f"a.yaml:3: parameters.{name}: ")


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ("cpu_frequency_mhz: [1200, 1800]", "nearest alternative: cpu_quota"),
        ("cpu_quota: [0.5, 1.0]", "nearest alternative: cpus"),
        ("memory_limit_mb: [512, 1024]", "nearest alternative: --deployer docker"),
        ("cpus: [1, 4]", "at most 2"),
        ("allocator: [system, jemalloc]", "install jemalloc"),
    ],
)
def test_what_the_machine_cannot_turn_is_refused_with_the_nearest(parameters, told) -> None:
    with pytest.raises(UnavailableError, match=told) as caught:
        check_space(space_of(parameters), POOR)
    assert str(caught.value).startswith("a.yaml:3: parameters.")


def test_a_frequency_beyond_the_hardware_is_refused() -> None:
    with pytest.raises(UsageError, match="1000 to 3000 MHz"):
        check_space(space_of("cpu_frequency_mhz: [2000, 9000]"), RICH)


def test_containers_have_limits_of_their_own() -> None:
    docker = "deployer: docker"
    check_space(space_of("memory_limit_mb: [512, 1024]", docker), POOR)
    check_space(space_of("cpu_quota: [0.5, 1.0]", docker), POOR)


def test_the_response_cache_is_refused_outside_the_embedded_server() -> None:
    with pytest.raises(UnavailableError, match="use deployer embedded"):
        check_space(space_of("response_cache_bytes: [0, 1000]", "deployer: binary"), RICH)


def test_what_the_embedded_server_ignores_is_refused_before_the_first_trial() -> None:
    ignored = {flag.name for flag in flag_table() if flag.ignored}
    assert {name for name, knob in KNOBS.items() if knob.not_embedded} >= ignored & set(KNOBS)
    lite = "prefer_tflite_model: [false, true]"
    with pytest.raises(UnavailableError, match="use deployer binary or docker"):
        check_space(space_of(lite), RICH)
    check_space(space_of(lite, "deployer: binary"), RICH)


def test_a_wrong_fixed_setting_is_refused_by_key() -> None:
    wrong = space_of("cpus: [1, 2]", "fixed: {protocol: http}")
    with pytest.raises(SpaceError, match=r"fixed\.protocol: protocol takes one of grpc, rest"):
        check_space(wrong, RICH)


def test_all_three_thread_counts_are_refused() -> None:
    three = space_of("tensorflow_intra_op_parallelism: [1, 2]")
    more = {"tensorflow_inter_op_parallelism": 1, "tensorflow_session_parallelism": 1}
    with pytest.raises(SpaceError, match="leave it out"):
        check_space(dataclasses.replace(three, fixed=more), RICH)


@pytest.mark.parametrize(
    ("parameters", "rows", "told"),
    [
        ("enable_batching: [false, true]\n  max_batch_size: {values: [4, 8], when: {enable_batching: true}}",
         4, "up to max_batch_size 8"),
        ("enable_batching: [false, true]\n  max_batch_size: {values: [2, 4], when: {enable_batching: true}}",
         4, None),
        ("enable_batching: [false, true]\n  max_batch_size: {values: [4], when: {enable_batching: true}}",
         1, "exactly 1 row at once"),
        ("enable_batching: [false, true]", 4, "up to max_batch_size 1000"),
        ("num_load_threads: [1, 2]", 4, None),
    ],
)
def test_batching_that_a_fixed_batch_dimension_refuses_is_told(
    parameters: str, rows: int, told: str | None
) -> None:
    note = joining_note(parse(f"parameters:\n  {parameters}\n"), rows)
    assert (note is None) == (told is None)
    assert told is None or told in str(note)
