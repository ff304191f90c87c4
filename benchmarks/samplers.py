"""Write the tables of samplers in the README: trials to 99 % of a recorded table's hypervolume.

python benchmarks/samplers.py --data ../shared/data --data studies [--only tx2] [--samplers auto,tpe]
python benchmarks/samplers.py --data ../shared/data --only tx2 --transfer

A folder may hold public tables (CSV) and recorded studies (record-*.db). ``--keep FILE.csv`` writes
the results into a table too, in the place of earlier ones of the same table, sampler and source:
``studies/samplers.csv`` is that of the recorded studies.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path

import optuna
import pandas as pd

from tuner.replay import Report, Table, compare, read, read_table

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
SQLITE = ("feature3_3763__fillseq", "feature7_3763__readrandom")
X264 = ("encoding_time_feature8_2762_8", "encoding_time_feature1_2762_128")


def tables(folder: Path) -> Iterator[Table]:
    """Every recorded table of a folder that has two responses of the same configurations."""
    for file in sorted(folder.glob("tx2_*.csv")):
        yield read_table(file, TX2, ("inference_time", "energy"), DERIVED)
    for file in sorted(folder.glob("deeparch*.csv")):
        yield read_table(file, OPTIONS, HOSTS)
    for file in sorted(folder.glob("sqlite*.csv")):
        yield read_table(file, _options(file), SQLITE)
    for file in sorted(folder.glob("x264*.csv")):
        # An encoding time of zero marks a configuration that doesn't work.
        yield read_table(file, _options(file), X264, [f"valid={X264[0]} * {X264[1]} > 0"])
    for file in sorted(folder.glob("record-*.db")):
        for study in optuna.get_all_study_names(f"sqlite:///{file}"):
            yield read(f"{file}:{study}")


def _options(file: Path) -> list[str]:
    """The columns before the first response: boolean options."""
    with file.open(encoding="utf-8") as lines:
        columns = lines.readline().strip().split(",")
    return [c for c in columns if "_2762_" not in c and "_3763__" not in c]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, action="append", required=True, metavar="FOLDER",
                        help="folder of recorded tables; repeatable")
    parser.add_argument("--only", default="", help="tables whose name starts so")
    parser.add_argument("--samplers", default="random,nsga2,tpe,auto")
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=-1)
    parser.add_argument(
        "--transfer", action="store_true", help="each table with every other one as its source"
    )
    parser.add_argument("--from", dest="source", default="", help="only sources whose name ends so")
    parser.add_argument(
        "--bare", action="store_true", help="of --transfer: without auto alone and shuffled sources"
    )
    parser.add_argument("--keep", type=Path, metavar="FILE.csv", help="results kept from run to run")
    args = parser.parse_args()
    found = [t for folder in args.data for t in tables(folder) if t.name.startswith(args.only)]
    settings = {"trials": args.trials, "repeats": args.repeats, "jobs": args.jobs}
    if args.transfer:
        _row("table", "source", "auto, no source", "transfer", "source shuffled")
        _row(*["---"] * 5)
        for table in found:
            alone = (
                ["–"] if args.bare else _reached(compare(table, ["auto"], **settings), args.trials)
            )
            for source in found:
                other = source is not table and source.name.endswith(args.source)
                if not other or source.space.parameters != table.space.parameters:
                    continue
                cells = []
                for shuffle in (False,) if args.bare else (False, True):
                    found_by = compare(
                        table, ["transfer"], sources=[source], shuffle_sources=shuffle, **settings
                    )
                    _keep(args, table, found_by, source.name + ", shuffled" * shuffle)
                    cells += _reached(found_by, args.trials)
                _row(table.name, source.name, *alone, *cells, *["–"] * args.bare)
        return
    samplers = args.samplers.split(",")
    _row("table", "configurations", *samplers)
    _row(*["---"] * (2 + len(samplers)))
    for table in found:
        reports = compare(table, samplers, **settings)
        _keep(args, table, reports)
        _row(table.name, str(table.space.size), *_reached(reports, args.trials))


def _reached(reports: Mapping[str, Report], trials: int) -> list[str]:
    return [str(report.trials_to_99 or f"> {trials}") for report in reports.values()]


def _keep(
    args: argparse.Namespace, table: Table, reports: Mapping[str, Report], source: str = ""
) -> None:
    """Put results into the file of results, one row a sampler."""
    if args.keep is None:
        return
    key = ["table", "sampler", "source"]
    rows = [
        {"table": table.name, "configurations": table.space.size, "sampler": sampler,
         "source": source, "trials": args.trials, "repeats": args.repeats,
         "trials_to_99": report.trials_to_99}
        for sampler, report in reports.items()
    ]
    before = [pd.read_csv(args.keep, keep_default_na=False)] if args.keep.exists() else []
    kept = pd.concat([*before, pd.DataFrame(rows, dtype=object)]).drop_duplicates(key, keep="last")
    kept.sort_values(key).to_csv(args.keep, index=False)


def _row(*cells: str) -> None:
    print("|", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
