"""From what a user names to environments: a study's response or a CSV's column.

A reference is ``STUDY``, ``STUDY:METRIC`` or ``FILE.csv:COLUMN``; in a CSV the column may be a
pattern (``sqlite.csv:feature*``) that stands for every column it matches.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tuner.analysis.energy import refuse_mixed
from tuner.analysis.environments import Bools, Environment, Floats
from tuner.analysis.options import boolean_columns
from tuner.analysis.recording import sisters
from tuner.analysis.repeats import pool
from tuner.analysis.tables import numbers, require
from tuner.errors import StudyError, TableError, UsageError

Predicate = Callable[[Floats], Bools]

_OPERATORS: Mapping[str, Callable[[Any, float], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_PREDICATE = re.compile(r"\s*(==|!=|<=|>=|<|>)\s*(\S+)\s*")
_ROWS_A_LEVEL = 8
"""A number with at least so many rows a value may be a knob; a response has nearly all distinct."""
_STUDY_METRIC = re.compile(r"(?P<study>.+):(?P<metric>[A-Za-z_][A-Za-z0-9_]*)")


def parse_predicate(text: str) -> Predicate:
    """``"==0"`` -> which responses that holds for; operators == != < <= > >=."""
    match = _PREDICATE.fullmatch(text)
    try:
        if match is None:
            raise ValueError
        holds, bound = _OPERATORS[match[1]], float(match[2])
    except ValueError:
        raise UsageError(
            f"{text!r} should be an operator (== != < <= > >=) and a number, like '==0'"
        ) from None
    return lambda values: np.asarray(holds(values, bound), dtype=bool)


@dataclass
class Loader:
    """Reads environments; a file or study named twice is read once, so its rows stay aligned.

    A study has one row a configuration, its repeats pooled (``repeats.pool``).

    ``options`` overrides which columns are options. Without it a study's options are its
    parameters, and a CSV's its boolean columns (0/1 or False/True), responses excepted. In a CSV
    a column ``valid``, where there is one, and ``invalid`` say which rows count. ``read_study``
    is ``tuner.store.load_table`` unless a test says otherwise.
    """

    options: Sequence[str] | None = None
    invalid: Predicate | None = None
    response: str | None = None
    """The metric of a study named without one; else its first objective."""
    storage: str | None = None
    feasible: bool = False
    """Whether what misses a constraint of its study's space counts as invalid too."""
    read_study: Callable[..., pd.DataFrame] | None = None
    notes: list[str] = field(default_factory=list)
    """What a person should know of the environments loaded, a line each."""
    _tables: dict[str, pd.DataFrame] = field(default_factory=dict)

    def load(self, references: Sequence[str]) -> list[Environment]:
        """The environments named, patterns expanded, in order."""
        found = [named for reference in references for named in self._resolve(reference)]
        responses: dict[int, set[str]] = {}
        for _, table, column in found:
            responses.setdefault(id(table), set()).add(column)
        return [
            self._environment(label, table, column, responses[id(table)])
            for label, table, column in found
        ]

    def _resolve(self, reference: str) -> list[tuple[str, pd.DataFrame, str]]:
        path, separator, column = _split_csv(reference)
        if path is None:
            return [self._study(reference)]
        table = self._csv(path)
        if not separator or not column:
            raise TableError(f"{reference}: name the response too, as {path}:COLUMN")
        if column in table.columns:
            return [(f"{Path(path).stem}:{column}", table, column)]
        matches = [str(name) for name in table.columns if fnmatchcase(str(name), column)]
        if not matches:
            require(table, [column])
        return [(f"{Path(path).stem}:{name}", table, name) for name in matches]

    def _csv(self, path: str) -> pd.DataFrame:
        if path not in self._tables:
            try:
                self._tables[path] = pd.read_csv(path)
            except FileNotFoundError:
                raise TableError(f"{path}: no such file") from None
            except (OSError, ValueError) as error:
                raise TableError(f"{path}: not a readable CSV table: {error}") from None
        return self._tables[path]

    def _study(self, reference: str) -> tuple[str, pd.DataFrame, str]:
        match = _STUDY_METRIC.fullmatch(reference)
        metric = self.response
        try:
            table = self._read_study(reference)
        except StudyError:
            # "NAME:METRIC", unless what follows the colon is the study's own name in a file.
            if match is None:
                raise
            table, metric = self._read_study(match["study"]), match["metric"]
            if metric not in table.columns:
                raise
        column = metric or _first_objective(table)
        require(table, [column])
        label = str(table.attrs.get("name") or reference)
        return (f"{label}:{column}" if metric else label), table, column

    def _read_study(self, study: str) -> pd.DataFrame:
        if study not in self._tables:
            from tuner.store import load_table, locate

            table = (self.read_study or load_table)(study, storage=self.storage)
            name = str(table.attrs.get("name"))

            def beside() -> list[pd.DataFrame]:
                if self.read_study is not None or "@" not in name:
                    return []
                return sisters(locate(study, self.storage)[0], name)

            self._tables[study] = pool(table, beside)
        return self._tables[study]

    def _environment(
        self, label: str, table: pd.DataFrame, column: str, responses: set[str]
    ) -> Environment:
        options = self.options
        if options is None:
            options = table.attrs.get("parameters") or None
        if options is None:
            options = boolean_columns(table, exclude=responses)
            self._note_collapse(label, table, options, responses)
        if not options:
            raise TableError(f"{label}: no boolean column to take as option; name them: --options")
        require(table, options)
        if column in options:
            raise TableError(f"{label}: {column!r} cannot be an option and the response")
        refuse_mixed(table, [column])
        values, valid = numbers(table, column), None
        if "valid" in table.columns:
            valid = table["valid"].fillna(False).astype(bool).to_numpy()
        if self.feasible and "feasible" in table.columns:
            kept = table["feasible"].fillna(False).astype(bool).to_numpy()
            valid = kept if valid is None else valid & kept
        if self.invalid is not None:
            valid = ~self.invalid(values) & (True if valid is None else valid)
        names = tuple(map(str, options))
        return Environment(label, table, column, names, valid)


    def _note_collapse(
        self, label: str, table: pd.DataFrame, options: Sequence[str], responses: set[str]
    ) -> None:
        """Note that rows differ in columns that were not taken as options and look like knobs."""
        told = table.drop(columns=[*responses, "valid"], errors="ignore").select_dtypes("number")
        kept = len(table[list(options)].drop_duplicates())
        knobs = [
            str(name) for name in told.columns if name not in options
            and 1 < told[name].nunique() <= len(table) / _ROWS_A_LEVEL
        ]
        if options and knobs and kept < len(table):
            self.notes.append(
                f"{label}: {len(table)} rows are {kept} configurations of the columns taken as "
                f"options ({', '.join(options)}), averaged where two tables are compared; "
                f"{', '.join(knobs)} look like options too: name them all with --options"
            )


def _split_csv(reference: str) -> tuple[str | None, str, str]:
    """Path, separator and column of a CSV reference; path ``None`` for a study."""
    place = reference.lower().rfind(".csv")
    end = place + len(".csv")
    if place < 0 or (len(reference) > end and reference[end] != ":"):
        return None, "", ""
    return reference[:end], reference[end : end + 1], reference[end + 1 :]


def _first_objective(table: pd.DataFrame) -> str:
    objectives = table.attrs.get("objectives") or ()
    for objective in objectives:
        return str(getattr(objective, "name", objective))
    raise StudyError(f"{table.attrs.get('name')}: names no objective; say --response METRIC")
