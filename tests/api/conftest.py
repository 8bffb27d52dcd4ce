"""Accounts that are there all the time, and an API of one's own."""

from collections.abc import AsyncIterator

import httpx
import pytest

from instafeed.resources import Resources, open_resources
from instafeed.settings import Settings
from tests.client import Client, http_client
from tests.conftest import running_api


@pytest.fixture(scope="session")
async def ada(http: httpx.AsyncClient) -> Client:
    """Somebody; tests change nothing about her."""
    return await Client.sign_up(http)


@pytest.fixture(scope="session")
async def bob(http: httpx.AsyncClient) -> Client:
    """Somebody else; tests change nothing about him."""
    return await Client.sign_up(http)


@pytest.fixture
async def fresh_http(fresh_settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an API of the test's own, on empty servers and without workers."""
    async with running_api(fresh_settings) as url, http_client(base_url=url, timeout=30) as client:
        yield client


@pytest.fixture
async def fresh_res(fresh_settings: Settings) -> AsyncIterator[Resources]:
    """What that API's servers hold."""
    async with open_resources(fresh_settings) as opened:
        yield opened
