"""CPU frequency by the kernel's cpufreq, put back afterwards, also after a kill.

Kernel documentation: ``admin-guide/pm/cpufreq.rst``. The clock is pinned by setting
``scaling_min_freq`` and ``scaling_max_freq`` (kHz) of every policy to the same value.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.deploy import proc
from tuner.deploy.watchdog import Watchdog
from tuner.errors import UnavailableError

SYSFS = Path("/sys/devices/system/cpu/cpufreq")
_BOUNDS = ("scaling_min_freq", "scaling_max_freq")


@dataclass(frozen=True)
class Range:
    """What the hardware can do, MHz."""

    low_mhz: float
    high_mhz: float


def policies(root: Path = SYSFS) -> tuple[Path, ...]:
    """The frequency domains."""
    return tuple(sorted(path for path in root.glob("policy*") if (path / _BOUNDS[1]).exists()))


def hardware_range(root: Path = SYSFS) -> Range | None:
    """Frequencies that every policy can run at; ``None`` without cpufreq."""
    found = policies(root)
    if not found:
        return None
    return Range(
        max(_read(policy / "cpuinfo_min_freq") for policy in found) / 1000,
        min(_read(policy / "cpuinfo_max_freq") for policy in found) / 1000,
    )


def why_not(root: Path = SYSFS) -> str | None:
    """Why the clock cannot be set here, ``None`` when it can."""
    found = policies(root)
    if not found:
        return "no cpufreq: the kernel offers no frequency control (as in most virtual machines)"
    locked = [
        path
        for policy in found
        for path in (policy / b for b in _BOUNDS)
        if not os.access(path, os.W_OK)
    ]
    return f"no right to write {locked[0]}: run as root" if locked else None


@contextmanager
def clock(frequency_mhz: int, watchdog: Watchdog, root: Path = SYSFS) -> Iterator[dict[str, str]]:
    """Pin every CPU's clock while the context is open; gives file -> value as read back.

    Raises:
        UnavailableError: no cpufreq, no right, or a frequency that the hardware does not have.
    """
    reason = why_not(root)
    if reason:
        raise UnavailableError(f"cpu_frequency_mhz: {reason}; nearest alternative: cpu_quota")
    restore(root)
    saved = {
        str(policy / bound): (policy / bound).read_text().strip()
        for policy in policies(root)
        for bound in _BOUNDS
    }
    state = _state_file(root)
    state.write_text(
        json.dumps({"pid": os.getpid(), "started": proc.start_time(os.getpid()), "saved": saved})
    )
    with ExitStack() as stack:
        # Written twice: the lower bound may not pass the upper one, whichever is changed first.
        undos = [{"write": path, "text": text} for path, text in saved.items()] * 2
        # Undone from the last to the first: the state file goes when all is put back.
        stack.enter_context(watchdog.undoing({"remove": str(state)}, *undos))
        stack.callback(state.unlink, missing_ok=True)
        stack.callback(_put_back, saved)
        wanted = str(frequency_mhz * 1000)
        for _ in range(2):
            for path in saved:
                _try_write(Path(path), wanted)
        seen = {path: Path(path).read_text().strip() for path in saved}
        if set(seen.values()) != {wanted}:
            raise UnavailableError(
                f"cpu_frequency_mhz: {frequency_mhz} MHz was not accepted; "
                f"the machine set {min(seen.values())} to {max(seen.values())} kHz"
            )
        yield seen


def restore(root: Path = SYSFS) -> bool:
    """Put the clock back where a killed study left it changed; whether there was one."""
    left = _left(root)
    if left is None:
        return False
    if proc.runs(left["pid"], left["started"]) and left["pid"] != os.getpid():
        raise UnavailableError(
            f"cpu_frequency_mhz: the study of process {left['pid']} holds the clock; wait for it"
        )
    _put_back(left["saved"])
    _state_file(root).unlink(missing_ok=True)
    return True


def reap(root: Path = SYSFS) -> bool:
    """As ``restore``, at any study's start: a clock that a living study holds is left alone."""
    left = _left(root)
    if left is None or proc.runs(left["pid"], left["started"]) or why_not(root):
        return False
    return restore(root)


def _left(root: Path) -> dict[str, Any] | None:
    """What a study wrote before it changed the clock."""
    try:
        left = json.loads(_state_file(root).read_text())
        # The file's folder may be anybody's: nothing else is written, whatever it says.
        ours = {str(policy / bound) for policy in policies(root) for bound in _BOUNDS}
        saved = {path: text for path, text in left["saved"].items() if path in ours}
        return {"pid": int(left["pid"]), "started": int(left["started"]), "saved": saved}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _put_back(saved: dict[str, str]) -> None:
    for _ in range(2):
        for path, text in saved.items():
            _try_write(Path(path), text)


def _try_write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError:
        pass  # The kernel refuses a lower bound above the upper one; the second round sets it.


def _state_file(root: Path) -> Path:
    """Kept where a restart of the machine clears it, as it clears the clock's setting."""
    folder = next(
        (Path(d) for d in ("/run", "/dev/shm") if os.access(d, os.W_OK)),
        Path(tempfile.gettempdir()),
    )
    return folder / f"tuner-cpufreq{str(root).replace('/', '-')}.json"


def _read(path: Path) -> int:
    return int(path.read_text())
