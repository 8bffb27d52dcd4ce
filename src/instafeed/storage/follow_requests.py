"""Requests to follow private accounts: each is a row at the requester's shard and one at the account's."""

from typing import NamedTuple

from instafeed.ids import shard_of
from instafeed.storage.database import Connection


class Request(NamedTuple):
    """A request as it was when it ended."""

    id: int
    notify: bool


async def upsert(connection: Connection, request_id: int, *, requester: int, followee: int, notify: bool) -> bool:
    """Ask to follow; True if that is new. An open request keeps its place, and only `notify` is set: whether the follow will
    tell of posts.
    """
    new: bool = await connection.fetchval(
        "insert into requesting (shard, requester_id, followee_id, id, notify) values ($1, $2, $3, $4, $5)"
        " on conflict (shard, requester_id, followee_id) do update set notify = excluded.notify returning id = $4",
        shard_of(requester),
        requester,
        followee,
        request_id,
        notify,
    )
    await connection.execute(
        "insert into requesters (shard, followee_id, requester_id, id, notify) values ($1, $2, $3, $4, $5)"
        " on conflict (shard, followee_id, requester_id) do update set notify = excluded.notify",
        shard_of(followee),
        followee,
        requester,
        request_id,
        notify,
    )
    return new


async def delete(connection: Connection, *, requester: int, followee: int) -> Request | None:
    """End a request; None if there is none."""
    record = await connection.fetchrow(
        "delete from requesting where shard = $1 and requester_id = $2 and followee_id = $3 returning id, notify",
        shard_of(requester),
        requester,
        followee,
    )
    await connection.execute(
        "delete from requesters where shard = $1 and followee_id = $2 and requester_id = $3",
        shard_of(followee),
        followee,
        requester,
    )
    return Request(record["id"], record["notify"]) if record else None


async def page(connection: Connection, account_id: int, *, below: int, limit: int) -> list[tuple[int, int]]:
    """(request id, requester) of the requests to follow the account, newest first, with ids below `below`."""
    records = await connection.fetch(
        "select id, requester_id from requesters where shard = $1 and followee_id = $2 and id < $3"
        " order by id desc limit $4",
        shard_of(account_id),
        account_id,
        below,
        limit,
    )
    return [(record["id"], record["requester_id"]) for record in records]
