"""Posts that are there at once, without photos."""

from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from instafeed.resources import Resources
from tests import posts
from tests.client import Client

Publish = Callable[[Client], Awaitable[str]]


@pytest.fixture
def publish(res: Resources) -> Publish:
    """Gives somebody a published post, and tells its id."""
    return partial(posts.publish, res)
