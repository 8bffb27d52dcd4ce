"""Push services of our own, and a world that pushes to them."""

from collections.abc import AsyncIterator

import pytest

from tests.feeds.conftest import town, world
from tests.push.browser import PushService, running_push_service
from tests.push.sns import Sns, running_sns

__all__ = ["town", "world"]


@pytest.fixture
async def service() -> AsyncIterator[PushService]:
    """A push service of browsers."""
    async with running_push_service() as running:
        yield running


@pytest.fixture
async def sns() -> AsyncIterator[Sns]:
    """Amazon SNS, as far as we speak with it."""
    async with running_sns() as running:
        yield running
