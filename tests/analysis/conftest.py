from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of public measurements, which is not part of the project."""
    if not SHARED.is_dir():
        pytest.skip("needs the public measurements in ../shared/data, which are not here")
    return SHARED


@pytest.fixture(scope="session")
def x264(shared_data: Path) -> pd.DataFrame:
    return pd.read_csv(shared_data / "x264_dev.csv")


@pytest.fixture(scope="session")
def sqlite(shared_data: Path) -> pd.DataFrame:
    return pd.read_csv(shared_data / "sqlite_dev.csv")
