"""Makes `import corpus` work in every test, and holds the fixtures that several modules share."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# Behind the project's own root: tests/pipeline must not hide the package of that name.
sys.path.append(str(Path(__file__).parent))

import object_store
from object_store import Proxy

# The first call of a kernel compiles it, and shared machines stall: neither is a fault of the example at hand.
settings.register_profile("anchormix", deadline=None)
settings.load_profile("anchormix")


@pytest.fixture(scope="session")
def store_server() -> Iterator[Proxy]:
    """An S3 server on the loopback behind a proxy that can fail, with an empty bucket."""
    import boto3

    with pytest.MonkeyPatch.context() as patch, object_store.moto_server() as upstream:
        for name, value in object_store.ENVIRONMENT.items():
            patch.setenv(name, value)
        boto3.client("s3", endpoint_url=upstream).create_bucket(Bucket=object_store.BUCKET)
        with Proxy(upstream).serving() as proxy:
            yield proxy


@pytest.fixture
def store(store_server: Proxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The same, with this test's own connections to it: others are kept for as long as a process lives."""
    from transforms import s3

    environment = {**object_store.ENVIRONMENT, "AWS_ENDPOINT_URL": store_server.url, "AWS_MAX_ATTEMPTS": "2"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    s3._connected.cache_clear()
    yield store_server
    store_server.heal()
    s3._connected.cache_clear()
