"""The estimate's two constants, idle and maximum watts of the CPUs in sight, and their origin.

Each constant comes from the first of: the caller's argument, the user's ``energy.yaml``, and else
from the processor's thermal design power (TDP) in ``tdp.csv``:

    max_w  = TDP of one package x cores in sight / cores of one package
    idle_w = IDLE_FRACTION x max_w

so a virtual machine is charged for the part of the package that it sees, and a board with two
sockets for two packages. Where the processor hides its model name, as in most clouds, its family
and model numbers still tell the generation, whose watts per core (all TDP / all cores of the
generation's rows) stand in; where not even that is known, the whole table's do.
"""

from __future__ import annotations

import csv
import math
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import psutil
import yaml

from tuner.errors import UsageError

IDLE_FRACTION = 0.24
IDLE_FRACTION_FROM = (
    "0.24, the median idle / full-load ratio of 16 server CPU generations in SPECpower_ssj2008 as "
    "evaluated by github.com/cloud-carbon-footprint/ccf-coefficients (coefficients-aws-use.csv)"
)
GENERATIONS: tuple[tuple[str, int, range, range, str], ...] = (
    # vendor, family, models, steppings, generation in tdp.csv. Numbers: Linux arch/x86/include/asm/
    # intel-family.h and arch/x86/kernel/cpu/amd.c; only families of servers hide behind clouds.
    ("AuthenticAMD", 23, range(0x10), range(16), "EPYC 7001"),
    ("AuthenticAMD", 23, range(0x30, 0x40), range(16), "EPYC 7002"),
    ("AuthenticAMD", 25, range(0x10), range(16), "EPYC 7003"),
    ("AuthenticAMD", 25, range(0x10, 0x20), range(16), "EPYC 9004"),
    ("AuthenticAMD", 25, range(0xA0, 0xB0), range(16), "EPYC 9004"),
    ("AuthenticAMD", 26, range(0x20), range(16), "EPYC 9005"),
    ("GenuineIntel", 6, range(0x4F, 0x50), range(16), "Xeon E5 v4"),
    ("GenuineIntel", 6, range(0x55, 0x56), range(5), "Xeon Skylake-SP"),
    ("GenuineIntel", 6, range(0x55, 0x56), range(5, 8), "Xeon Cascade Lake"),
    ("GenuineIntel", 6, range(0x6A, 0x6B), range(16), "Xeon Ice Lake-SP"),
    ("GenuineIntel", 6, range(0x8F, 0x90), range(16), "Xeon Sapphire Rapids"),
    ("GenuineIntel", 6, range(0xCF, 0xD0), range(16), "Xeon Emerald Rapids"),
)


@dataclass(frozen=True)
class PowerModel:
    """``idle_w`` at rest and ``max_w`` with every CPU busy, watts, and where each comes from."""

    idle_w: float
    max_w: float
    idle_from: str
    max_from: str

    def __post_init__(self) -> None:
        for name, value in (("idle_w", self.idle_w), ("max_w", self.max_w)):
            if not math.isfinite(value) or value < 0:
                raise UsageError(f"{name} must be a finite number of watts >= 0, not {value}")
        if self.max_w <= self.idle_w:
            raise UsageError(
                f"max_w ({self.max_w:g}, {self.max_from}) must be above "
                f"idle_w ({self.idle_w:g}, {self.idle_from})"
            )


@dataclass(frozen=True)
class Cpu:
    """The processor as the kernel names it, and how many of its cores are in sight."""

    vendor: str
    family: int
    model: int
    stepping: int
    name: str
    cores: int

    @classmethod
    def here(cls) -> Cpu:
        """This machine's processor; fields that ``/proc/cpuinfo`` lacks (ARM) are empty or zero."""
        first = Path("/proc/cpuinfo").read_text(errors="replace").split("\n\n")[0]
        fields = dict(re.findall(r"^([^\n\t:]+?)[ \t]*:[ \t]*(.*)$", first, re.MULTILINE))

        def number(key: str) -> int:
            return int(fields[key]) if fields.get(key, "").isdigit() else 0

        return cls(
            vendor=fields.get("vendor_id", ""),
            family=number("cpu family"),
            model=number("model"),
            stepping=number("stepping"),
            name=fields.get("model name", ""),
            cores=psutil.cpu_count(logical=False) or psutil.cpu_count() or 1,
        )


@dataclass(frozen=True)
class TdpRow:
    """One processor of ``tdp.csv``."""

    model: str
    generation: str
    cores: int
    tdp_w: float
    source: str


def tdp_table() -> tuple[TdpRow, ...]:
    """The kept table of thermal design powers."""
    text = resources.files("tuner.meter").joinpath("tdp.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
    return tuple(
        TdpRow(r["model"], r["generation"], int(r["cores"]), float(r["tdp_w"]), r["source"])
        for r in rows
    )


def max_watts(cpu: Cpu) -> tuple[float, str]:
    """Watts of the cores in sight at full load, and where the number comes from."""
    table = tdp_table()
    name = re.sub(r"\((R|TM)\)|\bCPU\b|\bProcessor\b", " ", cpu.name)
    name = " ".join(name.split()).lower()
    # The longest name wins: "7443P" is not "7443".
    for row in sorted(table, key=lambda row: -len(row.model)):
        if re.search(rf"(^| ){re.escape(row.model.lower())}( |$)", name):
            watts = row.tdp_w * cpu.cores / row.cores
            return watts, (
                f"TDP {row.tdp_w:g} W of {row.model} x {cpu.cores} of {row.cores} cores in sight"
                f" ({row.source})"
            )
    for vendor, family, models, steppings, generation in GENERATIONS:
        same_family = (vendor, family) == (cpu.vendor, cpu.family)
        if same_family and cpu.model in models and cpu.stepping in steppings:
            rows = [row for row in table if row.generation == generation]
            return _per_core(cpu, rows, f"generation {generation}, told by family and model")
    return _per_core(cpu, table, f"generic guess: {cpu.name or 'a nameless CPU'} is not in tdp.csv")


def _per_core(cpu: Cpu, rows: Iterable[TdpRow], why: str) -> tuple[float, str]:
    rows = list(rows)
    per_core_w = sum(row.tdp_w for row in rows) / sum(row.cores for row in rows)
    return per_core_w * cpu.cores, (
        f"{per_core_w:.2f} W per core (all TDP / all cores of {len(rows)} processors in tdp.csv; "
        f"{why}) x {cpu.cores} cores in sight"
    )


def config_file() -> Path:
    """``$XDG_CONFIG_HOME/tuner/energy.yaml``, by default in ``~/.config`` (XDG base directories)."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    # The specification: a relative path there is invalid and must be ignored.
    folder = Path(base) if os.path.isabs(base) else Path.home() / ".config"
    return folder / "tuner" / "energy.yaml"


def read_config(file: Path) -> dict[str, tuple[float, str]]:
    """The constants that a user set in ``energy.yaml``: name -> (watts, where it stands).

    Raises:
        UsageError: names file, line and key, and what would be right.
    """
    keys = ("idle_w", "max_w", "origin")
    try:
        root = yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise UsageError(f"{file}{line}: not YAML: {getattr(error, 'problem', error)}") from None
    if root is None:
        return {}
    if not isinstance(root, yaml.MappingNode):
        raise UsageError(f"{file}:{root.start_mark.line + 1}: expected `key: value` lines")
    found: dict[str, tuple[float, str]] = {}
    origin = ""
    for key_node, value_node in root.value:
        place = f"{file}:{key_node.start_mark.line + 1}"
        key, value = key_node.value, value_node.value
        if key not in keys:
            raise UsageError(f"{place}: {key}: unknown key; allowed are {', '.join(keys)}")
        if key in found or (key == "origin" and origin):
            raise UsageError(f"{place}: {key}: given twice")
        if key == "origin":
            origin = str(value)
            continue
        try:
            watts = float(value)
        except (TypeError, ValueError):
            watts = math.nan
        if not math.isfinite(watts) or watts < 0:
            raise UsageError(f"{place}: {key}: must be a number of watts >= 0, not {value!r}")
        found[key] = (watts, place)
    return {k: (w, f"{p} ({origin})" if origin else p) for k, (w, p) in found.items()}


def power_model(
    idle_w: float | None = None,
    max_w: float | None = None,
    *,
    file: Path | None = None,
    cpu: Cpu | None = None,
) -> PowerModel:
    """The constants in force: argument, else ``energy.yaml``, else the table of TDPs.

    Raises:
        UsageError: a constant is not a number of watts >= 0, or max is not above idle.
    """
    configured = read_config(file or config_file())
    chosen: dict[str, tuple[float, str]] = {}
    for name, given in (("idle_w", idle_w), ("max_w", max_w)):
        if given is not None:
            chosen[name] = (float(given), "given by the caller")
        elif name in configured:
            chosen[name] = configured[name]
    maximum, max_from = chosen.get("max_w") or max_watts(cpu or Cpu.here())
    idle, idle_from = chosen.get("idle_w") or (
        IDLE_FRACTION * maximum,
        f"{IDLE_FRACTION:g} x max_w ({IDLE_FRACTION_FROM})",
    )
    return PowerModel(idle, maximum, idle_from, max_from)
