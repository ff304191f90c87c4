"""The wheel works alone: installed into an environment of its own, run from another folder."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run(*command: str | Path, cwd: Path) -> str:
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(c) for c in command], cwd=cwd, env=clean, capture_output=True, text=True,
        timeout=600, check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_wheel_runs_a_trial_from_another_folder(tmp_path: Path) -> None:
    run(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path / "dist", ROOT, cwd=tmp_path)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    # What it depends on is what this environment was installed from; minutes to install again.
    run(
        python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", wheel,
        cwd=tmp_path,
    )
    own = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path)
    Path(own.strip(), "beside.pth").write_text(sysconfig.get_path("purelib") + "\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    out = run(
        tmp_path / "venv" / "bin" / "tuner", "study", "--space", "batching.yaml",
        "--model", "cnn1d", "--trials", "1", "--duration", "1", "--load", "50", cwd=elsewhere,
    )
    assert "1 trials finished" in out
    assert (elsewhere / "studies" / "batching.db").exists()
    origin = run(python, "-c", "import tuner; print(tuner.__file__)", cwd=elsewhere)
    assert str(tmp_path / "venv") in origin
