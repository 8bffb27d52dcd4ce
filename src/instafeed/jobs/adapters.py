"""The jobs: each takes the id of an outbox entry and hands it to the verb that does the work."""

from collections.abc import Callable, Coroutine
from typing import Any, cast

from structlog.contextvars import bind_contextvars

from instafeed import (
    avatars,
    comments,
    delivery,
    digests,
    explore,
    exports,
    follow_requests,
    leaving,
    leftovers,
    mails,
    media,
    notifications,
    posts,
    pushes,
    sweep,
)
from instafeed.resources import Resources
from instafeed.storage.outbox import Kind
from instafeed.work import Body, perform

VERBS: dict[Kind, Body] = {
    Kind.RENDER: media.render,
    Kind.FAN_OUT: delivery.fan_out,
    Kind.DELIVER: delivery.deliver,
    Kind.PUSH_AGAIN: delivery.push_again,
    Kind.NOTIFY: notifications.notify,
    Kind.PUSH: pushes.push,
    Kind.ALIGN: delivery.align,
    Kind.TAG: delivery.tag,
    Kind.RETRACT: posts.retract,
    Kind.PRUNE: posts.prune,
    Kind.PRUNE_REPLIES: comments.prune_replies,
    Kind.PUBLISH: posts.publish_scheduled,
    Kind.DISCARD: media.discard,
    Kind.APPROVE: follow_requests.approve_all,
    Kind.MAIL: mails.send,
    Kind.DIGEST: digests.send,
    Kind.AVATAR: avatars.show,
    Kind.ERASE: leaving.erase,
    Kind.EXPORT: exports.make,
}


def resources(ctx: dict[Any, Any]) -> Resources:
    """What the worker holds."""
    return cast("Resources", ctx["resources"])


def job(kind: Kind) -> Callable[[dict[Any, Any], int], Coroutine[Any, Any, None]]:
    """The job of a kind of work."""

    async def run(ctx: dict[Any, Any], entry_id: int) -> None:
        # Each job is a task of its own: what is bound here, for its lines in the log and for Sentry, ends with it.
        bind_contextvars(kind=kind.value, entry=str(entry_id))
        await perform(resources(ctx), entry_id, kind, VERBS[kind])

    return run


async def ring_late(ctx: dict[Any, Any]) -> None:
    """Every few seconds: ring for what is late."""
    await sweep.ring(resources(ctx))


async def publish(ctx: dict[Any, Any]) -> None:
    """Every second: see which scheduled posts are to be published."""
    await sweep.publish(resources(ctx))


async def rank(ctx: dict[Any, Any]) -> None:
    """Every minute: rank what explore shows."""
    await explore.rank(resources(ctx))


async def heal(ctx: dict[Any, Any]) -> None:
    """Every few seconds: see whether Redis has forgotten something."""
    await sweep.heal(resources(ctx))


async def clear(ctx: dict[Any, Any]) -> None:
    """Every few minutes: clear away what is left over."""
    await sweep.clear(resources(ctx))


async def clear_leftovers(ctx: dict[Any, Any]) -> None:
    """Every few minutes: look for what crashes left of photos."""
    await leftovers.clear(resources(ctx))
