"""Who leaves is hidden at once, and nothing is left in the end."""

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from instafeed import accounts, leaving, sweep, work
from instafeed.errors import NotFound
from instafeed.ids import shard_of
from instafeed.storage import belongings
from instafeed.storage.blobs import new_object_key, original_key, rendition_prefix
from instafeed.storage.outbox import Kind
from tests.api.answers import anonymous, invalid, problem
from tests.client import PASSWORD, Client
from tests.feeds.gates import Actor
from tests.feeds.world import World, viewer
from tests.media.traces import Traces
from tests.photos import jpeg
from tests.redis import redis_client
from tests.test_cli import Run, environ_of, run

__all__ = ["run"]


async def leave(client: Client, status: int = 204, password: str = PASSWORD) -> None:
    await client.call("DELETE", "/v1/me", status, json={"password": password})


COLUMNS = [
    *((rows.table, rows.column) for rows in (*belongings.ROWS, *belongings.STEPS, *belongings.LAST)),
    *(
        (table, edges.column)
        for edges in (*belongings.EDGES, *belongings.FOLLOWS, belongings.LIKES)
        for table in (edges.table, edges.twin)
    ),
]


async def everywhere(world: World, account_id: int) -> dict[str, int]:
    """What is left of an account in all tables and all partitions, the other sides of edges too."""
    counts = {
        f"{table}.{column}": (await world.sql(f"select count(*) from {table} where {column} = $1", account_id))[0]
        for table, column in COLUMNS
    }
    return {name: count for name, count in counts.items() if count}


async def finish(world: World) -> None:
    """Run all jobs, the second look among them."""
    await world.settle()
    assert not await world.pending()


async def counters(client: Client) -> tuple[int, int, int]:
    found = await client.call("GET", "/v1/me")
    return found["post_count"], found["follower_count"], found["following_count"]


@dataclass
class Scene:
    """Somebody with everything that an account can have, and those who have to do with them."""

    one: Client
    fan: Client
    star: Client
    muter: Client
    blocker: Client
    asked: Client
    other: Client
    post_id: str
    kept_id: str
    """The other one's post."""


async def scene(world: World, http: httpx.AsyncClient) -> Scene:
    one, fan, star, muter, blocker, asked, other, asking, muted, blocked = [
        await Client.sign_up(http, email=f"{name}@example.org") for name in "abcdefghij"
    ]
    await fan.call("PUT", f"/v1/accounts/{one.id}/follow", json={"notify": True})
    await other.call("PUT", f"/v1/accounts/{star.id}/follow", json={"notify": True})
    await one.call("PUT", f"/v1/accounts/{other.id}/follow", json={"notify": True})
    await star.follow(one)
    await one.follow(star)
    await fan.follow(other)
    await muter.mute(one)
    await blocker.block(one)
    await one.mute(muted)
    await one.call("PUT", "/v1/tags/harbour/follow")
    await one.block(blocked)
    await asked.edit(is_private=True)
    await one.follow(asked)
    await one.edit(is_private=True)
    await asking.follow(one)
    post, kept = await one.post("hello", photos=2), await other.post()
    await one.upload()
    await world.settle()
    await one.upload(jpeg(seed=9))  # not rendered yet
    upload = {"size": 9, "sha256": hashlib.sha256(b"a" * 9).hexdigest()}
    await one.call("POST", "/v1/media/uploads", 201, json=upload, headers={"Idempotency-Key": secrets.token_hex(8)})
    for who, kind, id_ in (
        (one, "post", kept["id"]),
        (fan, "post", kept["id"]),
        (one, "account", star.id),
        (fan, "account", one.id),
    ):
        await who.call("POST", "/v1/reports", 201, json={"subject": {"kind": kind, "id": id_}, "reason": "spam"})
    of_kept = f"/v1/posts/{kept['id']}"
    for mark in ("like", "save"):
        await one.call("PUT", f"{of_kept}/{mark}")
        await fan.call("PUT", f"{of_kept}/{mark}")
    said = await one.call("POST", f"{of_kept}/comments", 201, json={"text": "Nice"})
    for who, body in ((fan, {"text": "It is", "reply_to": said["id"]}), (fan, {"text": "Nice"})):
        await who.call("POST", f"{of_kept}/comments", 201, json=body)
    for who, whom in ((one, muter), (other, one)):
        await who.follow(whom)
        await who.unfollow(whom)
    await one.call("PATCH", "/v1/me/preferences", json={"like": {"push": "off"}})
    await one.call("PUT", "/v1/me/devices/phone", json={"platform": "apns", "token": "ab" * 32})
    await accounts.promote(world.res, one.account["username"])
    await world.sql(
        "with confirmed as (insert into emails (email, account_id, confirmed_at) values ('a@example.org', $2::bigint, now())),"
        " told as (insert into mail_tokens (shard, account_id, id, purpose, email, token_hash, expires_at)"
        " values ($1, $2::bigint, 1, 'reset', 'a@example.org', '', now()))"
        " update accounts set email = 'a@example.org', pending_email = null where id = $2 returning 1",
        shard_of(int(one.id)),
        int(one.id),
    )
    await world.sql(
        "insert into warnings (shard, account_id, id, subject_kind, subject_id, message)"
        " values ($1, $2::bigint, 1, 'account', $2::bigint, 'Stop it.') returning 1",
        shard_of(int(one.id)),
        int(one.id),
    )
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    waits = {"media": [{"id": (await one.upload())["id"]}], "publish_at": tomorrow}
    await one.call("POST", "/v1/posts", 201, json=waits)
    await one.post("the last one")  # nobody has delivered it yet
    await one.feed()
    assert await fan.feed() == [kept["id"], post["id"]]
    return Scene(one, fan, star, muter, blocker, asked, other, post["id"], kept["id"])


async def is_hidden(there: Scene) -> None:
    """No surface shows the one any more."""
    one, fan, http = there.one, there.fan, there.one.http
    problem(await http.get("/v1/me", headers=one.headers), 401, "unauthenticated")
    log_in = {"username": one.account["username"], "password": PASSWORD}
    problem(await http.post("/v1/sessions", json=log_in), 401, "wrong-credentials")
    account, nobody = f"/v1/accounts/{one.id}", anonymous(await http.get("/v1/posts/1", headers=fan.headers))
    for path in (
        account,
        f"{account}/posts",
        f"{account}/followers",
        f"{account}/following",
        f"/v1/accounts/by-username/{one.account['username']}",
        f"/v1/posts/{there.post_id}",
    ):
        assert anonymous(await http.get(path, headers=fan.headers)) == nobody
    assert await fan.feed() == [there.kept_id]
    assert await there.star.walk(f"/v1/accounts/{there.star.id}/followers") == [there.other.id]
    assert await there.asked.walk("/v1/me/follow-requests") == []
    assert await there.muter.walk("/v1/me/mutes") == await there.blocker.walk("/v1/me/blocks") == []


async def departures(world: World, run: Run) -> str:
    done = await asyncio.to_thread(lambda: run("admin", "departures", environ=environ_of(world.res.settings)))
    assert done.status == 0
    return done.output


async def test_nothing_is_left_but_what_others_have(
    alone: World, phone: httpx.AsyncClient, stored: Traces, run: Run
) -> None:
    there = await scene(alone, phone)
    one, me = there.one, int(there.one.id)
    await one.call("POST", "/v1/me/export", 201)
    assert set(await everywhere(alone, me)) == {f"{table}.{column}" for table, column in COLUMNS}
    await leave(one, 403, "another password")
    await leave(one)
    await is_hidden(there)
    await accounts.suspend(alone.res, one.account["username"])
    with pytest.raises(NotFound):
        await accounts.unsuspend(alone.res, one.account["username"])
    shown = await departures(alone, run)
    assert one.id in shown
    assert "followers.followee_id 2" in shown

    await finish(alone)
    await is_hidden(there)
    assert await everywhere(alone, me) == {}
    assert await departures(alone, run) == ""
    # Of the photos, those of others.
    [key] = await alone.sql("select object_key from media")
    objects = await stored.objects()
    assert len(objects) > 1
    assert all(name == original_key(key) or name.startswith(rendition_prefix(key)) for name in objects)
    assert await stored.open_uploads() == set()
    async with redis_client(alone.res.settings) as redis:
        assert await redis.exists(alone.key(me), f"{alone.key(me)}:ahead") == 0
    assert await alone.res.timelines.entries(int(there.fan.id)) == [int(there.kept_id)]
    for who, expected in (
        (there.fan, (0, 0, 1)),
        (there.star, (0, 1, 0)),
        (there.other, (1, 1, 1)),
        (there.asked, (0, 0, 0)),
    ):
        assert await counters(who) == expected
    assert await alone.sql("select report_count from report_cases") == [1]
    # A comment of the one's goes with the replies to it.
    kept = await there.fan.call("GET", f"/v1/posts/{there.kept_id}")
    assert (kept["like_count"], kept["comment_count"], kept["viewer"]) == (1, 1, {"liked": True, "saved": True})
    # Nobody else gets the name for now; the address is free.
    name = {"username": one.account["username"], "password": PASSWORD}
    problem(await phone.post("/v1/accounts", json=name), 409, "username-taken")
    await Client.sign_up(phone, email="a@example.org")
    with pytest.raises(NotFound):
        await accounts.unsuspend(alone.res, one.account["username"])


async def test_the_password_is_asked_for(alone: World, phone: httpx.AsyncClient) -> None:
    one = await Client.sign_up(phone)
    bodies: list[tuple[dict[str, object], list[str]]] = [({}, ["/password"]), ({"password": 1}, ["/password"])]
    for body, pointers in bodies:
        invalid(await phone.request("DELETE", "/v1/me", json=body, headers=one.headers), *pointers)
    for wrong in ("", "another password"):
        answer = await phone.request("DELETE", "/v1/me", json={"password": wrong}, headers=one.headers)
        problem(answer, 403, "wrong-password")
    assert (await one.call("GET", "/v1/me"))["id"] == one.id
    assert await alone.pending() == []


async def test_of_what_is_done_at_the_same_time_nothing_stays(
    alone: World, phone: httpx.AsyncClient, stored: Traces
) -> None:
    for after in (0.0, 0.03):
        one, fan, star = [await Client.sign_up(phone) for _ in range(3)]
        photo, other = [(await one.upload(jpeg(seed=seed)))["id"] for seed in (1, 2)]
        await fan.follow(one)

        async def ask(who: Client, method: str, path: str, **options: Any) -> int:
            answer = await phone.request(method, path, headers=who.headers | options.pop("headers", {}), **options)
            return answer.status_code

        async def depart(client: Client, seconds: float) -> int:
            await asyncio.sleep(seconds)
            return await ask(client, "DELETE", "/v1/me", json={"password": PASSWORD})

        upload = {"size": 9, "sha256": hashlib.sha256(b"a" * 9).hexdigest()}
        spam = {"subject": {"kind": "account", "id": star.id}, "reason": "spam"}
        statuses = await asyncio.gather(
            depart(one, after),
            ask(one, "POST", "/v1/posts", json={"media": [{"id": photo}]}),
            ask(one, "POST", "/v1/posts", json={"media": [{"id": other}]}),
            ask(one, "POST", "/v1/media", content=jpeg(seed=3)),
            ask(one, "POST", "/v1/media/uploads", json=upload),
            ask(one, "POST", "/v1/reports", json=spam),
            ask(one, "POST", "/v1/me/export"),
            ask(one, "PUT", f"/v1/accounts/{star.id}/follow"),
            ask(one, "PUT", f"/v1/accounts/{fan.id}/block"),
            ask(star, "PUT", f"/v1/accounts/{one.id}/follow"),
            ask(star, "PUT", f"/v1/accounts/{one.id}/mute"),
            alone.settle(),
        )
        assert statuses[0] == 204
        # 400 and 503: of an upload whose row was gone before S3 had it.
        assert set(statuses) <= {200, 201, 204, 400, 401, 404, 503, None}
        await finish(alone)
        assert await everywhere(alone, int(one.id)) == {}
        for who in (fan, star):
            assert await counters(who) == (0, 0, 0)
    assert await stored.objects() == {}
    assert await stored.open_uploads() == set()


async def populate(world: World) -> tuple[int, list[int]]:
    """An account that is about to leave, and others that have to do with it."""
    me, fan, star, stranger = [await world.account(shard) for shard in (1, 2, 3, 1)]
    for _ in range(2):
        await world.post(me)
    await world.post(star)
    await world.follow(fan, me)
    await world.follow(star, me)
    await world.follow(me, star)
    await world.follow(fan, star)
    await world.block(me, stranger)
    await world.mute(stranger, star)
    await world.mute(star, me)
    await world.draft(me)
    await world.settle()
    await world.materialise(fan, me)
    await hide(world, me)
    return me, [fan, star, stranger]


async def hide(world: World, account_id: int) -> None:
    """What `leaving.leave` does when the password is right."""
    hashed = await world.res.passwords.hash(PASSWORD)
    await world.sql("update accounts set password_hash = $2 where id = $1 returning 1", account_id, hashed)
    await leaving.leave(world.res, viewer(account_id), password=PASSWORD)


async def check(world: World, me: int, others: list[int]) -> None:
    """Nothing is left of the one; the others have what is theirs, and rightly counted."""
    assert await everywhere(world, me) == {}
    fan, star, stranger = others
    for other in others:
        counted = await world.sql(
            "select array[post_count = (select count(*) from posts where author_id = $1 and published_at is not null),"
            " follower_count = (select count(*) from followers where followee_id = $1),"
            " following_count = (select count(*) from following where follower_id = $1)] from accounts where id = $1",
            other,
        )
        assert counted == [[True] * 3]
    assert await world.defined(fan) == await world.walk(fan, [2])
    assert await world.sql("select muter_id from mutes where muter_id = any($1)", others) == [stranger]
    assert len(await world.walk(fan, [2])) == len(await world.walk(star, [2])) == 1


async def erasing(world: World) -> tuple[int, Kind]:
    [entry] = [found for found in await world.pending() if found[1] is Kind.ERASE]
    return entry


async def test_a_worker_may_be_killed_at_each_step(gated: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaving, "_EDGES", 1)
    monkeypatch.setattr(leaving, "_ROWS", 1)
    monkeypatch.setattr(leaving, "_POSTS", 1)
    at, ended = 0, False
    while not ended:
        me, others = await populate(gated)
        actor = await Actor.begin(gated.perform(*await erasing(gated)))
        for _ in range(at):
            await actor.step()
        ended = actor.ended
        await actor.kill()
        await gated.end_holds()
        await finish(gated)
        await check(gated, me, others)
        at += 7  # each step in turn takes half a minute
    assert at > 50


@pytest.mark.parametrize("late", [Kind.FAN_OUT, Kind.NOTIFY, Kind.ALIGN, Kind.APPROVE, Kind.RENDER])
async def test_work_that_is_late_brings_nothing_back(world: World, late: Kind) -> None:
    me, others = await populate(world)
    posts = await world.sql("select id from posts where author_id = $1", me)
    payloads: dict[Kind, list[dict[str, Any]]] = {
        Kind.FAN_OUT: [{"post": post, "author": me} for post in posts],
        Kind.NOTIFY: [{"post": post, "author": me} for post in posts],
        Kind.ALIGN: [{"viewer": others[0], "author": me}, {"viewer": me, "author": others[1]}],
        Kind.APPROVE: [{"account": me}],
        Kind.RENDER: [{"media": me, "key": "gone"}],
    }
    await finish(world)
    for payload in payloads[late]:
        async with world.res.db.acquire() as connection:
            await work.note(world.res, connection, shard_of(me), late, payload)
    await finish(world)
    await check(world, me, others)


async def test_what_is_too_large_for_one_job_is_taken_up_by_the_next(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaving, "_RUN_SECONDS", 0)
    monkeypatch.setattr(leaving, "_ROWS", 1)
    me, others = await populate(world)
    for _ in range(100):
        entries = await world.pending()
        for entry in entries:
            await world.perform(*entry)
        if not entries:
            break
    await check(world, me, others)


async def test_an_object_that_comes_late_is_found_by_the_second_look(world: World) -> None:
    me, key, blobs = await world.account(), new_object_key(), world.res.blobs
    await world.sql(
        "insert into media (shard, id, account_id, status, object_key) values ($1, $2, $3, 'processing', $4) returning 1",
        shard_of(me),
        world.res.ids.next(shard_of(me)),
        me,
        key,
    )
    await hide(world, me)
    await world.perform(*await erasing(world))
    late = rendition_prefix(key) + "640.jpg"
    [discard, second] = await world.pending()
    for entry in (discard, second):
        assert await blobs.keys(rendition_prefix(key)) == []

        async def content() -> AsyncIterator[bytes]:
            yield b"late"

        for name in (original_key(key), late):
            await blobs.put(name, content(), size=4, content_type="image/jpeg")
        await world.perform(*entry)
    assert await blobs.size(original_key(key)) is None
    assert await blobs.keys(rendition_prefix(key)) == []
    assert await world.pending() == []


async def test_what_comes_while_it_is_deleted_is_deleted_too(world: World) -> None:
    me, others = await populate(world)
    entry = await erasing(world)
    await world.perform(*entry)
    assert await everywhere(world, me) == {}
    # What a job that was under way adds after the account's row is gone.
    await world.sql(
        "insert into activity (shard, account_id, kind, subject_id, actor_id) values ($1, $2, 'post', 1, $3) returning 1",
        shard_of(me),
        me,
        others[0],
    )
    [(second, kind)] = [found for found in await world.pending() if found[1] is Kind.ERASE]
    assert second != entry[0]
    # Nobody rings for it yet.
    await sweep.ring(world.res)
    assert await world.sql("select due_at > now() + interval '1 minute' from outbox where id = $1", second) == [True]
    await world.perform(second, kind)
    assert await everywhere(world, me) == {}
