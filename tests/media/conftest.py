"""What tests of photos need."""

from collections.abc import AsyncIterator

import httpx
import pytest

from instafeed.resources import Resources
from tests.client import Client
from tests.media.traces import Traces, tracing


@pytest.fixture(scope="session")
async def traces(res: Resources) -> AsyncIterator[Traces]:
    """Looks for what uploads left behind."""
    async with tracing(res) as found:
        yield found


@pytest.fixture
async def poster(fresh_http: httpx.AsyncClient) -> Client:
    """Somebody in a world without workers."""
    return await Client.sign_up(fresh_http)


@pytest.fixture(scope="session")
async def author(http: httpx.AsyncClient) -> Client:
    """Somebody with photos."""
    return await Client.sign_up(http)
