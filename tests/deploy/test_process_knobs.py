"""What a server's process is made of: variables, allocator, compiler, caches, polling."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contracts.deployer_contract import wait_for
from tests.deploy.live import Deploy, ask, process_file
from tuner.deploy import allocators
from tuner.deploy.base import Deployment, ModelToServe
from tuner.deploy.embedded import EmbeddedDeployer

INSTALLED = [name for name in allocators.SONAMES if allocators.library(name) is not None]


@pytest.fixture(scope="module")
def altered(deploy: Deploy) -> Iterator[Deployment]:
    """Whatever has to be set before TensorFlow is imported, set otherwise; and XLA."""
    allocator = "jemalloc" if "jemalloc" in INSTALLED else "system"
    with deploy(onednn=False, allocator=allocator, xla_cpu_compilation_enabled=True) as deployment:
        yield deployment


@pytest.fixture(scope="module")
def usual(deploy: Deploy) -> Iterator[Deployment]:
    with deploy() as deployment:
        yield deployment


def test_onednn_is_on_or_off_when_tensorflow_is_imported(
    embedded: EmbeddedDeployer, altered: Deployment, deploy: Deploy
) -> None:
    assert b"TF_ENABLE_ONEDNN_OPTS=0" in process_file(altered, "environ").split(b"\0")
    with deploy(onednn=True) as on:
        assert b"TF_ENABLE_ONEDNN_OPTS=1" in process_file(on, "environ").split(b"\0")
    # TensorFlow says so while it is imported, which is in the fork server.
    logs = {dict(key).get("TF_ENABLE_ONEDNN_OPTS"): f.log for key, f in embedded._forks.items()}
    assert "oneDNN custom operations are on" in logs["1"].read_text()
    assert "oneDNN custom operations are on" not in logs["0"].read_text()


@pytest.mark.skipif("jemalloc" not in INSTALLED, reason="jemalloc is not installed (libjemalloc2)")
def test_the_allocator_is_mapped_into_the_process(altered: Deployment, usual: Deployment) -> None:
    assert b"libjemalloc" in process_file(altered, "maps")
    assert b"libjemalloc" not in process_file(usual, "maps")


@pytest.mark.parametrize("name", INSTALLED)
def test_an_installed_allocator_can_be_preloaded(name: str) -> None:
    maps = subprocess.run(
        [sys.executable, "-c", "print(open('/proc/self/maps').read())"],
        env={**os.environ, **allocators.preload(name)}, capture_output=True, text=True, check=True,
    ).stdout
    assert Path(str(allocators.library(name))).resolve().name in maps


def test_xla_compiles_the_model(altered: Deployment, usual: Deployment) -> None:
    for deployment in (altered, usual):
        ask(deployment, 1.0, 2.0)
    assert "Compiled cluster using XLA" in altered.log_tail(1000)
    assert "Compiled cluster using XLA" not in usual.log_tail(1000)


def test_the_models_files_leave_the_page_cache_when_asked(
    deploy: Deploy, doubling: ModelToServe, tmp_path: Path
) -> None:
    model = ModelToServe("doubling", tmp_path / "doubling")
    shutil.copytree(doubling.base_path / "1", model.base_path / "1")
    file = model.base_path / "1" / "saved_model.pb"
    with file.open("rb") as stream:
        os.fsync(stream.fileno())  # a page not yet on disk cannot be dropped

        def stays(flush: bool) -> bool:
            file.read_bytes()
            with deploy(model, flush_filesystem_caches=flush):
                return _is_cached(stream.fileno())

        assert stays(False)
        # To the kernel it is advice: a page that it holds at that moment stays.
        assert not all(stays(True) for _ in range(5))


def _is_cached(descriptor: int) -> bool:
    """Whether the file's first page is in memory: a read that may not wait for the disk."""
    try:
        os.preadv(descriptor, [bytearray(1)], 0, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    except OSError as error:
        pytest.skip(f"this filesystem does not tell: {error}")
    return True


def test_a_new_version_is_polled_for(deploy: Deploy, doubling: ModelToServe, tmp_path: Path) -> None:
    model = ModelToServe("doubling", tmp_path / "doubling")
    shutil.copytree(doubling.base_path / "1", model.base_path / "1")
    loaded = "Successfully loaded servable version {name: doubling version: 2}"
    with (
        deploy(model, file_system_poll_wait_seconds=1) as often,
        deploy(model, file_system_poll_wait_seconds=60) as seldom,
    ):
        # Elsewhere first: a version that is half there must not be found.
        shutil.copytree(doubling.base_path / "1", tmp_path / "2")
        (tmp_path / "2").rename(model.base_path / "2")
        assert wait_for(lambda: loaded in often.log_tail(1000), 15)
        assert loaded not in seldom.log_tail(1000)
