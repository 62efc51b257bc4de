"""What tests of several engines share: the samples, and the mix that this machine alone makes of them."""

from __future__ import annotations

import pytest
from engine_runs import Samples, make_samples


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    return make_samples(tmp_path_factory.mktemp("samples") / "demo")
