"""Do the tests notice when a number is computed in another way? A seeded sample of mutants tells.

cosmic-ray finds what can be mutated and keeps the session, so that a run goes on where it stopped;
``mutants_fork.py`` runs each module's own unit tests (``mutants.yaml``) against each mutant. A mutant
is one changed operator, number, truth value or loop; those in what is only read by people or type
checkers are left out (``spoken``). Results and the reasons of survivors: tests/mutants/.

    python benchmarks/mutants.py [--only GROUP ...] [--survivors] [--processes N] [--write]
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.ast.ast_query import ASTQuery
from cosmic_ray.plugins import get_operator
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import (
    MutationSpec,
    TestOutcome,
    WorkerOutcome,
    WorkItem,
    WorkResult,
)

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "benchmarks" / "mutants.yaml"
FOLDER = ROOT / "tests" / "mutants"
SESSION = ROOT / "build" / "mutants.sqlite"
WANTED_SHARE = 0.9

# One or two replacements for each operator, those that are hardest to notice (a boundary, the
# inverse): of all that cosmic-ray can make, most are noticed by any test (a shift of two floats).
OPERATORS = tuple(
    f"core/{name}"
    for name in (
        *(f"ReplaceBinaryOperator_{change}" for change in (
            "Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "FloorDiv_Div", "Mod_FloorDiv", "Pow_Mul",
            "BitOr_BitAnd", "BitAnd_BitOr", "BitXor_BitAnd", "LShift_RShift", "RShift_LShift",
        )),
        *(f"ReplaceComparisonOperator_{change}" for change in (
            "Lt_LtE", "Lt_GtE", "LtE_Lt", "LtE_Gt", "Gt_GtE", "Gt_LtE", "GtE_Gt", "GtE_Lt",
            "Eq_NotEq", "NotEq_Eq", "Is_IsNot", "IsNot_Is",
        )),
        "ReplaceUnaryOperator_Delete_USub", "ReplaceUnaryOperator_Delete_Not",
        "ReplaceUnaryOperator_Delete_Invert", "AddNot", "ReplaceTrueWithFalse",
        "ReplaceFalseWithTrue", "ReplaceAndWithOr", "ReplaceOrWithAnd", "ReplaceBreakWithContinue",
        "ReplaceContinueWithBreak", "NumberReplacer", "ZeroIterationForLoop",
    )
)

Position = tuple[int, int]


def spoken(tree: ast.AST) -> Iterator[ast.AST]:
    """Parts of a module that people and type checkers read and no number depends on: annotations,
    assertions, formatted texts, the words of errors and warnings, decorators, ``__repr__``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign | ast.arg):
            yield from [node.annotation] if node.annotation else []
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield from node.decorator_list
            if isinstance(node, ast.FunctionDef):
                yield from [node.returns] if node.returns else []
                yield from node.body if node.name in ("__repr__", "__str__") else []
        elif isinstance(node, ast.JoinedStr | ast.Assert):
            yield node
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            yield from node.exc.args
        elif isinstance(node, ast.Call) and ast.unparse(node.func).startswith(("warnings.", "log.")):
            yield node


class Text:
    """Where in a module's source a mutation counts."""

    def __init__(self, text: str) -> None:
        self._lines = [line.encode() for line in text.splitlines()]
        tree = ast.parse(text)
        self._spoken = [(self._start(n), self._end(n)) for n in spoken(tree)]
        # cosmic-ray takes stars of calls, signatures and displays for operators too.
        self._binary = [
            (self._end(n.left), self._start(n.right))
            for n in ast.walk(tree) if isinstance(n, ast.BinOp)
        ]

    def _place(self, line: int, byte: int) -> Position:
        return line, len(self._lines[line - 1][:byte].decode())

    def _start(self, node: Any) -> Position:
        return self._place(node.lineno, node.col_offset)

    def _end(self, node: Any) -> Position:
        return self._place(node.end_lineno, node.end_col_offset)

    def counts(self, operator: str, at: Position) -> bool:
        if any(start <= at < end for start, end in self._spoken):
            return False
        return "Binary" not in operator or any(a <= at < b for a, b in self._binary)


def candidates(path: Path) -> list[WorkItem]:
    """Every mutant of a module that counts, in a fixed order."""
    text = (ROOT / path).read_text()
    where, nodes = Text(text), list(ast_nodes(get_ast(text)))
    digest = hashlib.sha256(text.encode()).hexdigest()
    found = []
    for name in OPERATORS:
        operator = get_operator(name)()
        places = ((n, *ends) for n in nodes for ends in operator.mutation_positions(n))
        for occurrence, (node, start, end) in enumerate(places):
            if not where.counts(name, start):
                continue
            identity = f"{path}\n{digest}\n{name}\n{occurrence}"
            found.append(WorkItem.single(
                hashlib.sha256(identity.encode()).hexdigest()[:32],
                MutationSpec(
                    path, name, occurrence, start, end,
                    definition_name=ASTQuery(node).get_definition_name(),
                ),
            ))
    return found


def shares(sizes: dict[str, int], wanted: int) -> dict[str, int]:
    """How many mutants each group gives: in proportion to how many it has (largest remainders)."""
    whole = sum(sizes.values())
    exact = {name: min(wanted, whole) * size / whole for name, size in sizes.items()}
    found = {name: int(share) for name, share in exact.items()}
    rest = min(wanted, whole) - sum(found.values())
    for name in sorted(exact, key=lambda n: found[n] - exact[n])[:rest]:
        found[name] += 1
    return found


def plan(table: dict[str, Any], wanted: int, seed: int) -> tuple[dict[str, list[WorkItem]], dict[str, int]]:
    """The sample of each group, and how many mutants each has."""
    pools = {
        name: [item for file in group["files"] for item in candidates(Path(file))]
        for name, group in table.items()
    }
    sizes = {name: len(pool) for name, pool in pools.items()}
    counts = shares(sizes, wanted)
    return {
        name: random.Random(f"{seed}/{name}").sample(pool, counts[name])
        for name, pool in pools.items()
    }, sizes


def prepare(
    database: WorkDB, sample: dict[str, list[WorkItem]], again: str | None, only: Collection[str]
) -> None:
    """Make the session hold the sample, with what is known of it from before.

    Args:
        again: ``all`` or ``survivors`` of the groups in ``only`` are to be tried once more.
    """
    chosen = {item.job_id for name in only for item in sample[name]}
    known = {
        item.job_id: result for item, result in database.completed_work_items
        if again is None or item.job_id not in chosen
        or (again == "survivors" and result.is_killed)
    }
    database.clear()
    items = [item for group in sample.values() for item in group]
    database.add_work_items(items)
    for item in items:
        if item.job_id in known:
            database.set_result(item.job_id, known[item.job_id])


def result_of(told: dict[str, Any]) -> WorkResult:
    if told.get("none"):
        return WorkResult(WorkerOutcome.NO_TEST)
    if told.get("code") in (4, 5):
        raise RuntimeError(f"pytest did not run: {told}")
    why = told.get("failed") or ("time-out" if told.get("timeout") else f"ended: {told}")
    survived = told.get("code") == 0
    return WorkResult(
        WorkerOutcome.NORMAL, None if survived else why,
        TestOutcome.SURVIVED if survived else TestOutcome.KILLED, json.dumps(told["change"]),
    )


class Run:
    """The pending mutants of a session, group by group, in a few processes."""

    def __init__(self, database: WorkDB, table: dict[str, Any]) -> None:
        self._database, self._table = database, table
        self._lock = threading.Lock()

    def group(self, name: str, items: list[WorkItem]) -> None:
        job = {"tests": self._table[name]["tests"], "mutants": [
            {"id": item.job_id, "path": str(m.module_path), "operator": m.operator_name,
             "occurrence": m.occurrence}
            for item in items for m in item.mutations
        ]}
        begun_s, survived = time.monotonic(), 0
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
        with subprocess.Popen(
            [sys.executable, str(ROOT / "benchmarks" / "mutants_fork.py")], cwd=ROOT, text=True,
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        ) as runner:
            assert runner.stdin is not None and runner.stdout is not None
            json.dump(job, runner.stdin)
            runner.stdin.close()
            for line in runner.stdout:
                told = json.loads(line)
                if "id" in told:
                    result = result_of(told)
                    survived += not result.is_killed
                    with self._lock:
                        self._database.set_result(told["id"], result)
        if runner.returncode:
            raise SystemExit(f"{name}: the runner ended with {runner.returncode}")
        print(f"{name}: {len(items)} mutants, {survived} survived, "
              f"{(time.monotonic() - begun_s) / len(items):.1f} s each", flush=True)


@dataclass(frozen=True)
class Survivor:
    group: str
    file: str
    definition: str
    was: str
    now: str

    @property
    def key(self) -> tuple[str, ...]:
        return self.file, self.definition, self.was, self.now


def survivors(database: WorkDB, group_of: dict[str, str]) -> list[Survivor]:
    found = []
    for item, result in database.completed_work_items:
        if not result.is_killed:
            mutation = item.mutations[0]
            file = str(mutation.module_path)
            was, now = json.loads(result.diff or '["", ""]')
            found.append(
                Survivor(group_of[file], file, mutation.definition_name or "(module)", was, now)
            )
    return sorted(found, key=lambda s: s.key)


def read_reasons() -> dict[tuple[str, ...], str]:
    file = FOLDER / "reasons.yaml"
    entries = yaml.safe_load(file.read_text()) if file.exists() else []
    return {(e["file"], e["in"], e["was"], e["now"]): e["reason"] for e in entries or ()}


def report(
    database: WorkDB, table: dict[str, Any], sizes: dict[str, int], seed: int
) -> tuple[str, bool]:
    """The results as Markdown, and whether they are as wanted: enough killed, each survivor with
    a reason."""
    group_of = {file: name for name, group in table.items() for file in group["files"]}
    tried, killed = Counter[str](), Counter[str]()
    for item, result in database.completed_work_items:
        if result.worker_outcome != WorkerOutcome.NO_TEST:
            name = group_of[str(item.mutations[0].module_path)]
            tried[name] += 1
            killed[name] += result.is_killed
    left, reasons = survivors(database, group_of), read_reasons()
    same = Counter(s.group for s in left if reasons.get(s.key, "").startswith("equivalent"))
    lines = [
        "# Do the tests notice a wrong number?", "",
        (
            "Written by `make mutants MUTANTS_ARGS=--write` (`benchmarks/mutants.py` says how). "
            f"Seed {seed}; each group gives mutants in proportion to how many it has. *Equivalent* "
            "ones compute the same; the share is killed of all the others."
        ), "",
        "| group | mutants it has | tried | killed | equivalent | share killed |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    rows = [*table, None]
    for name in rows:
        names = list(table) if name is None else [name]
        n, k, e = (sum(c[x] for x in names) for c in (tried, killed, same))
        share = f"{k / (n - e):.1%}" if n > e else "–"
        lines.append(f"| {name or '**all**'} | {sum(sizes[x] for x in names)} | {n} | {k} | {e} | {share} |")
    lines += ["", "## Survivors", ""]
    group = ""
    for survivor, count in Counter(left).items():
        if survivor.group != group:
            group = survivor.group
            lines += [f"### {group}", ""]
        often = f" ({count} times)" if count > 1 else ""
        why = reasons.get(survivor.key, "**no reason yet**")
        lines += [f"- `{survivor.definition}`{often}: `{survivor.was}` → `{survivor.now}`: {why}"]
    n, k = tried.total(), killed.total()
    enough = n > 0 and k >= WANTED_SHARE * (n - same.total())
    return "\n".join(lines) + "\n", enough and all(s.key in reasons for s in left)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="GROUP", help="run these groups' mutants alone")
    parser.add_argument("--count", type=int, default=600, help="size of the sample (%(default)s)")
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--survivors", action="store_const", const="survivors", dest="again",
                        help="try those that survived once more: tests were added")
    parser.add_argument("--afresh", action="store_const", const="all", dest="again",
                        help="forget what is known from before: tests or other modules changed")
    parser.add_argument("--write", action="store_true", help="write tests/mutants/README.md")
    args = parser.parse_args()
    table = yaml.safe_load(TABLE.read_text())
    if unknown := set(args.only or ()) - set(table):
        parser.error(f"no group {', '.join(sorted(unknown))}; there are: {', '.join(table)}")
    sample, sizes = plan(table, args.count, args.seed)
    SESSION.parent.mkdir(exist_ok=True)
    with use_db(SESSION) as database:
        prepare(database, sample, args.again, args.only or table)
        pending = {item.job_id for item in database.pending_work_items}
        todo = {
            name: [item for item in items if item.job_id in pending]
            for name, items in sample.items() if name in (args.only or table)
        }
        run = Run(database, table)
        with ThreadPoolExecutor(args.processes) as pool:
            jobs = [pool.submit(run.group, n, i) for n, i in todo.items() if i]
            for job in jobs:
                job.result()
        text, good = report(database, table, sizes, args.seed)
    print(text)
    if args.write:
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / "README.md").write_text(text)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
