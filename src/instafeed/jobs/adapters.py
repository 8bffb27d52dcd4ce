"""The jobs: each takes the id of an outbox entry and hands it to the verb that does the work."""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, cast

from instafeed import feeds, follow_requests, media, notifications, posts, sweep
from instafeed.resources import Resources
from instafeed.storage.outbox import Entry, Kind
from instafeed.work import FollowUp, perform

VERBS: dict[Kind, Callable[[Resources, Entry], Awaitable[list[FollowUp]]]] = {
    Kind.RENDER: media.render,
    Kind.FAN_OUT: feeds.fan_out,
    Kind.NOTIFY: notifications.notify,
    Kind.ALIGN: feeds.align,
    Kind.RETRACT: posts.retract,
    Kind.DISCARD: media.discard,
    Kind.APPROVE: follow_requests.approve_all,
}


def resources(ctx: dict[Any, Any]) -> Resources:
    """What the worker holds."""
    return cast("Resources", ctx["resources"])


def job(kind: Kind) -> Callable[[dict[Any, Any], int], Coroutine[Any, Any, None]]:
    """The job of a kind of work."""

    async def run(ctx: dict[Any, Any], entry_id: int) -> None:
        await perform(resources(ctx), entry_id, kind, VERBS[kind])

    return run


async def ring_late(ctx: dict[Any, Any]) -> None:
    """Every few seconds: ring for what is late."""
    await sweep.ring(resources(ctx))


async def heal(ctx: dict[Any, Any]) -> None:
    """Every few seconds: see whether Redis has forgotten something."""
    await sweep.heal(resources(ctx))


async def clear(ctx: dict[Any, Any]) -> None:
    """Every few minutes: clear away what is left over."""
    await sweep.clear(resources(ctx))
