"""Accounts that are there all the time."""

import httpx
import pytest

from tests.client import Client


@pytest.fixture(scope="session")
async def ada(http: httpx.AsyncClient) -> Client:
    """Somebody; tests change nothing about her."""
    return await Client.sign_up(http)


@pytest.fixture(scope="session")
async def bob(http: httpx.AsyncClient) -> Client:
    """Somebody else; tests change nothing about him."""
    return await Client.sign_up(http)
