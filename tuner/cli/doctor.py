"""``tuner doctor``: what this machine offers, and why not where it does not."""

from __future__ import annotations

import argparse
import json
from typing import Any

HELP = "what this machine offers: deployers, energy sources, knobs, each with why not"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--knobs", action="store_true", help="list every knob a space can name")


def run(args: argparse.Namespace) -> int:
    if args.knobs:
        print(json.dumps(knobs(), indent=2) if args.json else knobs_text())
        return 0
    found = examine()
    print(json.dumps(found, indent=2) if args.json else text(found))
    return 0


def examine() -> dict[str, Any]:
    """Everything, as JSON: ``{"available": bool, "why_not": text | null}`` for each offer."""
    from tuner import machine, meter
    from tuner.deploy import cgroups, offers
    from tuner.load import placement

    placed = placement.place()
    seen = offers.inspect()
    versions = {c: h.version for c, h in cgroups.hierarchies().items()}
    return {
        "machine": machine.describe(),
        "cores": {
            "usable": seen.cpus,
            "server": list(placed.server_cores),
            "load_generator": list(placed.client_cores) or None,
        },
        "deployers": _offers(offers.deployers()),
        "energy_sources": [
            {
                "name": name, "available": available,
                "why_not": None if available else detail,
                "detail": detail if available else None,
            }
            for name, available, detail in meter.sources()
        ],
        "limits": {
            "cpu_quota": {**_offer(seen.cpu_quota), "cgroup_version": versions.get("cpu")},
            "memory_limit_mb": {**_offer(seen.memory_limit), "cgroup_version": versions.get("memory")},
            "cpu_frequency_mhz": {**_offer(seen.cpufreq), "range_mhz": seen.frequency_mhz},
        },
        "allocators": _offers(seen.allocators),
    }


def _offers(found: Any) -> dict[str, Any]:
    return {name: _offer(why_not) for name, why_not in found.items()}


def _offer(why_not: str | None) -> dict[str, Any]:
    return {"available": why_not is None, "why_not": why_not}


def text(found: dict[str, Any]) -> str:
    """The same for a person."""
    machine = found["machine"]
    lines = [
        ", ".join(
            (
                machine["cpu_model"],
                f"{machine['cores']} cores",
                f"{machine['memory_mib']} MiB",
                f"Linux {machine['kernel']}",
            )
        )
    ]
    own = found["cores"]["load_generator"]
    lines.append(
        f"The server has cores {_listed(found['cores']['server'])}, the load generator "
        + (f"{_listed(own)}." if own else "shares them (from four on it has one of its own).")
    )
    for heading, key in (
        ("Deployers", "deployers"), ("Limits", "limits"), ("Allocators", "allocators")
    ):
        lines += ["", heading]
        for name, offer in found[key].items():
            lines.append(_line(name, offer["available"], offer["why_not"] or ""))
    lines += ["", "Energy sources"]
    for source in found["energy_sources"]:
        lines.append(_line(source["name"], source["available"], source["why_not"] or source["detail"]))
    return "\n".join(lines)


def _listed(cores: list[int]) -> str:
    return ", ".join(map(str, cores))


def _line(name: str, available: bool, why_not: str) -> str:
    return f"  {'yes' if available else 'no ':3}  {name:18} {why_not}".rstrip()


def knobs() -> list[dict[str, Any]]:
    """Every knob, as JSON."""
    from tuner.deploy.knobs import KNOBS

    return [
        {
            "name": knob.name, "type": knob.kind.__name__, "default": knob.default,
            "applied": knob.applied, "turns": knob.turns, "low": knob.low, "high": knob.high,
            "choices": knob.choices, "needs": {k: list(v) for k, v in knob.needs.items()},
            "ours": knob.ours,
        }
        for knob in KNOBS.values()
    ]


def knobs_text() -> str:
    from tabulate import tabulate

    rows = [
        (k["name"], k["type"], "automatic" if k["default"] is None else repr(k["default"]),
         k["applied"], k["turns"])
        for k in knobs()
    ]
    return tabulate(rows, headers=("knob", "type", "default", "applied as", "turns"))
