"""Write the table of samplers in docs/search.md: trials to 99 % of a recorded table's hypervolume.

python benchmarks/samplers.py --data ../shared/data [--samplers auto,tpe,gp] [--repeats 20]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from tuner.replay import Table, compare, read_table

TX2 = ("cores", "core_freq", "gpu_freq", "emc_freq")
DERIVED = (
    "cores=core0_status+core1_status+core2_status+core3_status",
    "energy=inference_time*power_consumption",
)
OPTIONS = [
    "batch_size",
    "conv1_filters",
    "conv1_size",
    "conv2_filters",
    "conv2_size",
    "conv3_filters",
    "conv3_size",
    "log_lr",
    "log_beta1",
    "log_beta2",
    "log_epsilon",
    "log_decay",
]
HOSTS = ("t__azure__Wafer", "t__feature3-tf__Wafer")


def tables(folder: Path) -> Iterator[Table]:
    for file in sorted(folder.glob("tx2_*.csv")):
        yield read_table(file, TX2, ("inference_time", "energy"), DERIVED)
    for file in sorted(folder.glob("deeparch*.csv")):
        yield read_table(file, OPTIONS, HOSTS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of recorded tables")
    parser.add_argument("--samplers", default="random,nsga2,tpe,auto")
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=20)
    args = parser.parse_args()
    samplers = args.samplers.split(",")
    print("| table | configurations |", " | ".join(samplers), "|")
    print("|---|---|" + "---|" * len(samplers))
    for table in tables(args.data):
        reports = compare(table, samplers, trials=args.trials, repeats=args.repeats, jobs=-1)
        cells = [str(report.trials_to_99 or f"> {args.trials}") for report in reports.values()]
        print(f"| {table.name} | {table.space.size} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
