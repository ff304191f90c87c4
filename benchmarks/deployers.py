"""The same configurations of the same server by every deployer: what do process and container add?

Measures ``search_spaces/probe-deployers.yaml`` with the embedded server forked, as a process of its
own (``--deployer binary``), in a container on the host's network, and in a container whose ports are
published on 127.0.0.1 (Docker's proxy carries them). One pass goes through all four, so that no
drift of the machine is taken for a deployer's effect; there are as many passes as the space has
repeats. Each deployer has studies of its own in one database; the same command goes on where it
stopped. Needs root and Debian's ``docker.io`` (the tests' engine and images, without any registry)
and an idle machine.

    python benchmarks/deployers.py [--database studies/probe-deployers.db]
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from objectives import serving
from tests.deploy import engine
from tests.deploy.test_deployers import stand_in
from tuner import propose, store, study
from tuner import space as spaces
from tuner.propose.listed import ListedProposer, everything, shuffled
from tuner.store.pack import pack

SPACE = "probe-deployers"
SEED = 0


@dataclass(frozen=True)
class Way:
    """How the server is run: a deployer and its options, and the study's name."""

    name: str
    deployer: str
    options: Mapping[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--database", type=Path, default=Path("studies") / f"{SPACE}.db")
    args = parser.parse_args()
    space = spaces.load(SPACE)
    configurations = shuffled(everything(propose.make("grid", space, seed=SEED)), SEED)
    facts: dict[str, Any] = {}
    folder = args.database.with_suffix(".artifacts").absolute()
    with engine.running() as running, _serving_program(folder) as program:
        for passes in range(1, space.settings.repeats + 1):
            for way in _ways(running, program):
                print(f"\npass {passes}: {way.name}", file=sys.stderr, flush=True)
                _measure(space, configurations, passes, way, facts, args.database, folder)
    pack(args.database)
    return 0


def _ways(running: engine.Engine, program: Path) -> list[Way]:
    return [
        Way("embedded", "embedded", {"monitoring": True}),
        Way("binary", "binary", {"server_binary": str(program), "monitoring": True}),
        Way("docker-host", "docker", {**running.options(engine.SERVING), "monitoring": True}),
        Way("docker-published", "docker", {
            **running.options(engine.SERVING_BRIDGED), "network": "bridge", "monitoring": True,
        }),
    ]  # fmt: skip


@contextmanager
def _serving_program(folder: Path) -> Iterator[Path]:
    """The embedded server as an executable of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as inside:
        yield stand_in(Path(inside))


def _measure(
    space: Any, configurations: list[Any], passes: int, way: Way, facts: dict[str, Any], file: Path,
    folder: Path,
) -> None:
    """Bring one deployer's studies to so many measurements of each configuration."""
    settings = dataclasses.replace(space.settings, deployer=way.deployer)
    space = dataclasses.replace(space, settings=settings)
    url = f"sqlite:///{file}"
    with ExitStack() as stack:
        options = serving.Options(folder / way.name, SEED, way.options, only_calm=True)
        evaluator = stack.enter_context(serving.open(space, options, _note))
        facts.update(evaluator.calibrate(facts, _note))  # the idle baseline, once for all
        arms = []
        for load in space.factors["load"]:
            kept = store.Store.create(
                url, store.level_name(f"{SPACE}-{way.name}", {"load": load}), space,
                {**evaluator.environment, "load": load, "way": way.name},
            )  # fmt: skip
            kept.put_missing(facts)
            proposer = ListedProposer("grid", configurations, passes)
            arms.append(study.Arm({"load": load}, kept, proposer))
        summary = study.run(space, arms, evaluator, n_trials=passes * len(configurations))
        _note(str(summary))


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
