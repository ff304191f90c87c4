"""The FlexiBO measurements of a Jetson TX2: one network, four input sizes, numeric knobs."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest

from tuner.analysis.environments import Environment, compare
from tuner.analysis.influence import influences
from tuner.analysis.loader import Loader
from tuner.analysis.options import describe_options

SIZES = (200, 400, 600, 800)
CORES = ["core1_status", "core2_status", "core3_status"]
FREQUENCIES = ["core_freq", "gpu_freq", "emc_freq"]


def tables(folder: Path, response: str) -> list[str]:
    return [f"{folder}/tx2_inceptionv3_{size}x{size}.csv:{response}" for size in SIZES]


def environments(folder: Path, response: str) -> list[Environment]:
    return Loader(options=[*CORES, *FREQUENCIES]).load(tables(folder, response))


def test_all_sizes_share_768_configurations(shared_data: Path) -> None:
    for one, other in combinations(environments(shared_data, "inference_time"), 2):
        assert len(compare(one, other).table) == 768


@pytest.mark.parametrize("response", ["inference_time", "power_consumption"])
def test_effects_of_frequencies_have_the_same_sign_at_every_size(
    shared_data: Path, response: str
) -> None:
    signs: dict[str, set[bool]] = {}
    for environment in environments(shared_data, response):
        options = describe_options(environment.table, FREQUENCIES + CORES)
        for found in influences(environment.table, options, environment.values):
            if found.option in FREQUENCIES and found.influential():
                effect = found.contrasts[0].median_effect
                assert effect is not None
                signs.setdefault(found.option, set()).add(effect > 0)
    assert signs and all(len(held) == 1 for held in signs.values())
    if response == "inference_time":
        assert signs["core_freq"] == signs["gpu_freq"] == {False}


def test_the_default_options_leave_the_frequencies_out_and_say_so(shared_data: Path) -> None:
    loader = Loader()
    first, *_ = loader.load(tables(shared_data, "inference_time"))
    assert list(first.options) == [
        "core0_status", *CORES, "gpu_status", "emc_status"
    ]
    assert len(loader.notes) == 4
    assert "core_freq, gpu_freq, emc_freq look like options too" in loader.notes[0]
