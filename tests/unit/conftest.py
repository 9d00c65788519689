"""What several unit tests start from."""

from __future__ import annotations

from typing import Any

import pytest

from winnow.stage import Job


@pytest.fixture
def a_job(tmp_path):
    """a_job("pretrain") -> a job without files, on the CPU, for library functions that train."""

    def make(stage: str) -> Job[Any]:
        return Job(stage, {}, {}, {}, device_name="cpu", scratch=tmp_path / "scratch")

    return make
