"""Random histories of acts and undos by several accounts at once: at rest, what each is told equals a definition."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NamedTuple

import pytest

from instafeed import activity, blocks, comments, follow_requests, follows, likes, mutes
from instafeed.errors import Conflict, Invalid, NotFound
from instafeed.ids import MAX_ID, shard_of, unix_ms_of
from instafeed.models import Viewer
from instafeed.resources import Resources
from tests.client import Client
from tests.community.conftest import Publish

SignUp = Callable[..., Awaitable[Client]]
_PEOPLE = 4
_ROUNDS = 6
_AT_ONCE = 12


class Told(NamedTuple):
    """An entry; `subject` is a post, a comment or None."""

    kind: str
    subject: int | None
    actors: frozenset[int]
    newest: int
    unread: bool


def viewer(account_id: int) -> Viewer:
    return Viewer(account_id, account_id, str(account_id))


class Town:
    """Some people, one of whom is private, with two posts each."""

    def __init__(self, res: Resources, people: list[int], post_ids: list[int], chance: random.Random) -> None:
        self.res, self.people, self.posts, self.chance = res, people, post_ids, chance
        self.comments: list[int] = []
        self.names: dict[int, str] = {}

    def act(self) -> Coroutine[Any, Any, Any]:
        """Something that somebody does."""
        me, other = self.chance.sample(self.people, 2)
        one, post_id = viewer(me), self.chance.choice(self.posts)
        act: Callable[[], Coroutine[Any, Any, Any]] = self.chance.choice(
            [
                *[lambda: likes.like(self.res, one, post_id), lambda: likes.unlike(self.res, one, post_id)] * 2,
                *[lambda: self.comment(one, post_id, other), lambda: self.delete(one)],
                *[lambda: follows.follow(self.res, one, other, notify=True)] * 2,
                lambda: follows.unfollow(self.res, one, other),
                lambda: follows.remove_follower(self.res, one, other),
                lambda: follow_requests.approve(self.res, one, other),
                lambda: follow_requests.refuse(self.res, one, other),
                lambda: mutes.mute(self.res, one, other),
                lambda: mutes.unmute(self.res, one, other),
                lambda: blocks.block(self.res, one, other),
                *[lambda: blocks.unblock(self.res, one, other)] * 2,
                lambda: self.read(one),
            ]
        )
        return self.tried(act())

    async def tried(self, act: Coroutine[Any, Any, Any]) -> None:
        """Do it, if it is possible."""
        with contextlib.suppress(NotFound, Conflict, Invalid):
            await act

    async def comment(self, one: Viewer, post_id: int, other: int) -> None:
        """Comment, perhaps naming somebody, or reply."""
        of_post = [id_ for id_ in self.comments if shard_of(id_) == shard_of(post_id)]
        reply_to = self.chance.choice([None, *of_post])
        text = self.chance.choice(["Nice", f"@{self.names[other]}"])
        comment_id = self.res.ids.next(shard_of(post_id))
        await comments.create(self.res, one, comment_id, post_id, text=text, reply_to=reply_to)
        self.comments.append(comment_id)

    async def delete(self, one: Viewer) -> None:
        """Delete a comment."""
        if self.comments:
            await comments.delete(self.res, one, self.chance.choice(self.comments))

    async def read(self, one: Viewer) -> None:
        """Mark what is there as read."""
        found = await activity.page(self.res, one, below=MAX_ID, limit=2)
        for item in found.items[-1:]:
            await activity.mark_read(self.res, one, item.id)

    async def shown(self, me: int) -> set[Told]:
        """What the activity shows, read page by page."""
        found: list[Told] = []
        below: int | None = MAX_ID
        while below is not None:
            page = await activity.page(self.res, viewer(me), below=below, limit=2)
            for item in page.items:
                post_id = item.post.id if item.post else None
                subject = item.comment_id if item.kind in {"reply", "mention"} else post_id
                actors = frozenset(actor.id for actor in item.actors)
                assert len(actors) == item.count, "there are not more than are shown"
                found.append(Told(item.kind, subject, actors, item.id, item.unread))
            below = page.next
        assert len(found) == len(set(found))
        assert await activity.unread(self.res, viewer(me)) == sum(entry.unread for entry in found)
        return set(found)

    async def defined(self, me: int) -> set[Told]:
        """What it must show, by the rows of the acts."""
        async with self.res.db.acquire() as connection:

            async def rows(query: str, *arguments: object) -> list[tuple[Any, ...]]:
                return [tuple(row) for row in await connection.fetch(query, me, *arguments)]

            blocked = {
                row[0]
                for row in await rows(
                    "select blocked_id from blocks where blocker_id = $1"
                    " union select blocker_id from blocked_by where blocked_id = $1"
                )
            }
            muted = {row[0] for row in await rows("select muted_id from mutes where muter_id = $1")}
            followed = {row[0] for row in await rows("select followee_id from following where follower_id = $1")}
            private = {row[0] for row in await rows("select id from accounts where is_private and id <> $1")}
            [(marker,)] = await rows("select coalesce((select read_id from inboxes where account_id = $1), 0)")
            acts = [
                ("like", post_id, actor_id, id_)
                for post_id, actor_id, id_ in await rows(
                    "select post_id, likers.account_id, likers.id from likers join posts on posts.id = post_id"
                    " where author_id = $1"
                )
            ]
            for kind, table, actor in (
                ("follow", "followers", "follower_id"),
                ("follow_request", "requesters", "requester_id"),
            ):
                found = await rows(f"select {actor}, id from {table} where followee_id = $1")
                acts += [(kind, -(unix_ms_of(id_) // 86_400_000), actor_id, id_) for actor_id, id_ in found]
            written = await rows(
                "select c.id, c.post_id, c.author_id, c.mentions @> jsonb_build_array(jsonb_build_object('account', $1::bigint)),"
                " p.author_id, parent.author_id from comments c join posts p on p.id = c.post_id"
                " left join comments parent on parent.id = c.parent_id where p.author_id = any($2::bigint[])",
                self.people,
            )
            accepted = await rows(
                "select actor_id, id from activity where account_id = $1 and kind = 'request_accepted'"
            )
        for id_, post_id, writer, names_me, owner, replied_to in written:
            sees = owner == me or (owner not in blocked and (owner not in private or owner in followed))
            if names_me and sees:
                acts.append(("mention", id_, writer, id_))
            elif not names_me and replied_to == me and sees:
                acts.append(("reply", id_, writer, id_))
            elif not names_me and replied_to is None and owner == me:
                acts.append(("comment", post_id, writer, id_))
        acts += [("request_accepted", -actor_id, actor_id, id_) for actor_id, id_ in accepted if actor_id in followed]
        entries: dict[tuple[str, int], dict[int, int]] = {}
        for kind, subject, actor_id, id_ in acts:
            if actor_id != me and actor_id not in blocked | muted:
                told = entries.setdefault((kind, subject), {})
                told[actor_id] = max(id_, told.get(actor_id, 0))
        return {
            Told(
                kind, subject if subject > 0 else None, frozenset(told), max(told.values()), max(told.values()) > marker
            )
            for (kind, subject), told in entries.items()
        }


@pytest.mark.parametrize("seed", range(3))
async def test_at_rest_everybody_is_told_what_is_so(
    sign_up: SignUp, publish: Publish, res: Resources, seed: int
) -> None:
    clients = [await sign_up() for _ in range(_PEOPLE)]
    await clients[0].edit(is_private=True)
    town = Town(
        res,
        [int(client.id) for client in clients],
        [int(await publish(client)) for client in clients for _ in range(2)],
        random.Random(seed),
    )
    town.names = {int(client.id): client.account["username"] for client in clients}
    for _ in range(_ROUNDS):
        await asyncio.gather(*(town.act() for _ in range(_AT_ONCE)))
        for me in town.people:
            assert await town.shown(me) == await town.defined(me)
