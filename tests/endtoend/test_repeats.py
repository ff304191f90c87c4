"""``repeats:`` of a space makes the command measure each configuration again, pass by pass."""

from __future__ import annotations

from tests.endtoend.conftest import Tuner
from tuner import store

TWO = """
name: two
model: cnn1d
deployer: fake
load: 100
duration_s: 0.5
repeats: 2
parameters:
  tensorflow_intra_op_parallelism: [1, 2]
"""


def test_a_grid_goes_through_the_space_as_often_as_it_says(tuner: Tuner) -> None:
    (tuner.folder / "two.yaml").write_text(TWO)
    done = tuner.run("study", "--space", "two.yaml", "--sampler", "grid")
    assert done.returncode == 0, done.stderr
    assert "each configuration 2 times, in whole passes" in done.stderr
    assert "[4/4] trial 3" in done.stderr
    records = store.load_records(f"{tuner.folder}/studies/two.db")
    values = [r.configuration["tensorflow_intra_op_parallelism"] for r in records]
    assert values == [1, 2, 1, 2]
