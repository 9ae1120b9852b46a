"""Settings and fixtures for all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Read by the OpenMP runtime when torch is first imported, and inherited by child processes: threads that wait
# must sleep, not spin, and two test workers on two cores get one thread each.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent

# `ci` draws the same examples on every run, so that a change is judged by what it changed.
settings.register_profile(
    "ci", derandomize=True, deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("thorough", deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of public networks and queries beside the repository; skips where there is none."""
    folder = ROOT.parent / "shared"
    if not (folder / "vnncomp").is_dir():
        pytest.skip("needs the benchmark networks in ../shared/vnncomp, which are not part of the repository")
    return folder
