"""The study database: Optuna's storage with typed records in and out.

A study belongs to one *environment*: one model, workload, deployer, machine and level of every
factor. A space with factors therefore has one Optuna study for each combination of levels, all
in one database: ``batching@load=high``.
"""

from tuner.store.database import Store
from tuner.store.heartbeat import REAPING_TIME_S, Heartbeat
from tuner.store.lookup import (
    existing,
    load_records,
    load_table,
    locate,
    open_study,
    refuse_other_space,
    table_of,
)
from tuner.store.record import TrialRecord, distribution
from tuner.store.urls import STUDIES, artifacts, connect, default_url, level_name, redact

__all__ = [
    "REAPING_TIME_S",
    "STUDIES",
    "Heartbeat",
    "Store",
    "TrialRecord",
    "artifacts",
    "connect",
    "default_url",
    "distribution",
    "existing",
    "level_name",
    "load_records",
    "load_table",
    "locate",
    "open_study",
    "redact",
    "refuse_other_space",
    "table_of",
]
