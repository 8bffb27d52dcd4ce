"""`instafeed check --deep` finds every kind of fault that is planted, says nothing of a sound world, and changes neither."""

import asyncio
import time
from collections.abc import AsyncIterator

import asyncpg
import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from instafeed import soundness
from instafeed.ids import lowest_at, shard_of
from instafeed.resources import Resources
from instafeed.settings import Settings
from instafeed.storage.blobs import new_object_key, original_key
from instafeed.storage.queue import queue_name
from tests.client import Client
from tests.media.conftest import poster
from tests.media.test_leftovers import Later, key_of, later, perform, ready, sql, store
from tests.redis import redis_client
from tests.test_cli import Done, Run, environ_of, run
from tests.valkey import running_valkeys

__all__ = ["later", "poster", "run"]

PARTS = ("indexes", "outbox", "counters", "photos", "redis")


async def deep(run: Run, settings: Settings) -> Done:
    """What the command says."""
    environ = environ_of(settings, s3_prefix=settings.s3_prefix)
    return await asyncio.to_thread(run, "check", "--deep", environ=environ)


def findings(done: Done) -> list[str]:
    """The lines that are not a part's summary."""
    return [line for line in done.output.splitlines() if not line.startswith(("ok ", "FAILED "))]


@pytest.fixture
async def queues(fresh_settings: Settings) -> AsyncIterator[Redis]:
    """The queues' Redis, empty."""
    url = SecretStr(fresh_settings.queue_url)
    async with redis_client(fresh_settings.model_copy(update={"redis_url": url})) as redis:
        await redis.flushdb()
        yield redis
        await redis.flushdb()


async def ring(queues: Redis, queue: str, *, seconds: float) -> None:
    """Leave a job in a queue, due for so long."""
    await queues.zadd(queue_name(queue), {"some job": (time.time() - seconds) * 1000})


@pytest.fixture
async def world(fresh_res: Resources, poster: Client, later: Later, queues: Redis) -> list[str]:
    """Two posts with a photo each, a follow and likes, an unposted photo that is due to go, and work that waits as it may; all
    of it old. Yields the posts' ids.
    """
    found = [(await ready(fresh_res, poster))[0]["id"] for _ in range(2)]
    await poster.upload()
    await perform(fresh_res)
    for id_ in found:
        await poster.call("PUT", f"/v1/posts/{id_}/like")
    await sql(fresh_res, "update outbox set done_at = now() where done_at is null")
    later(25 * 3600)
    await entry(fresh_res, 1, due="'infinity'", error="'it failed once'", started="now() - interval '1 day'")
    await entry(
        fresh_res, 2, due="now() - interval '1 minute'", error="'it failed'", started="now() - interval '1 minute'"
    )
    await queues.flushdb()
    await ring(queues, "fanout", seconds=0)
    await ring(queues, "mail", seconds=400)
    return found


async def entry(
    res: Resources, number: int, *, due: str, error: str = "null", started: str = "null", dead: str = "null"
) -> int:
    """Plant an entry of the outbox; times are SQL."""
    id_ = lowest_at(time.time()) + number
    await sql(
        res,
        "insert into outbox (shard, id, kind, payload, due_at, error, started_at, dead_at)"
        f" values ($1, $2, 'mail', '{{}}', {due}, {error}, {started}, {dead})",
        shard_of(id_),
        id_,
    )
    return id_


@pytest.mark.usefixtures("world")
async def test_a_sound_world_has_no_finding(run: Run, fresh_settings: Settings) -> None:
    done = await deep(run, fresh_settings)
    assert (done.status, findings(done)) == (0, []), done.output
    assert [line.split() for line in done.output.splitlines()[4:]] == [["ok", part, "0", "found"] for part in PARTS]


async def test_every_kind_of_fault_is_found_and_left_as_it_is(
    run: Run, fresh_settings: Settings, world: list[str], fresh_res: Resources, poster: Client, queues: Redis
) -> None:
    [lost, post] = world
    # Counters and edges.
    await sql(fresh_res, "update accounts set post_count = 7 where id = $1", int(poster.id))
    await sql(fresh_res, "delete from likers where post_id = $1", int(post))
    # Photos, in both directions.
    [photo] = (await poster.call("GET", f"/v1/posts/{lost}"))["media"]
    stray = original_key(new_object_key())
    await store(fresh_res, stray)
    await fresh_res.blobs.delete([original_key(await key_of(fresh_res, photo["id"]))])
    await fresh_res.blobs.delete(
        [name for name in await fresh_res.blobs.keys("renditions/") if name.endswith("150.jpg")][:1]
    )
    # The outbox.
    dead = await entry(fresh_res, 3, due="now()", error="'no such mailbox'", dead="now()")
    late = await entry(fresh_res, 4, due="now() - interval '6 minutes'")
    failing = await entry(fresh_res, 5, due="now()", error="'it is away'", started="now() - interval '6 minutes'")
    await ring(queues, "fanout", seconds=400)
    # An index whose build broke off.
    [[partition]] = await sql(fresh_res, "select distinct tableoid::regclass::text from posts where id = $1", int(post))
    with pytest.raises(asyncpg.UniqueViolationError):
        await sql(fresh_res, f"create unique index concurrently broken on {partition} ((1))")

    before = await state(fresh_res)
    for _ in range(2):
        done = await deep(run, fresh_settings)
        assert done.status == 1
        said = findings(done)
        assert said[0] == "index broken is not valid"
        assert said[1].startswith("queue fanout: the oldest job has waited for 4")
        assert set(said[2:5]) == {
            f"outbox {dead} mail dead: no such mailbox",
            f"outbox {late} mail not rung for",
            f"outbox {failing} mail failing: it is away",
        }
        assert f"posts of account {poster.id}: 7, and there are 2" in said
        assert f"likes of post {post}: 1, and there are 0" in said
        assert f"likes {poster.id} {post}: nothing in likers" in said
        assert f"object_without_row {stray}" in said
        assert len([line for line in said if line.startswith(("lost_photo", "lost_renditions"))]) == 1
        assert len(said) == 10
        assert [line.split() for line in done.output.splitlines() if line.startswith("FAILED")] == [
            ["FAILED", part, str(count), "found"] for part, count in zip(PARTS[:4], (1, 4, 3, 2), strict=True)
        ]
    assert await state(fresh_res) == before


async def state(res: Resources) -> list[object]:
    """What a look must not change."""
    tables = ("outbox", "accounts", "media", "likes", "scans")
    return [
        sorted(await res.blobs.keys("")),
        *[sorted(map(str, await sql(res, f"select * from {table}"))) for table in tables],
    ]


@pytest.mark.usefixtures("queues")
async def test_of_many_dead_entries_the_first_are_named_and_all_are_counted(
    run: Run, fresh_settings: Settings, fresh_res: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soundness, "_ENTRIES", 2)
    for number in range(5):
        await entry(fresh_res, number, due=f"now() - interval '{number} seconds'", dead="now()")
    done = await deep(run, fresh_settings)
    assert done.status == 1
    assert findings(done)[-1] == "outbox: 3 more"
    assert ["FAILED", "outbox", "5", "found"] in [line.split() for line in done.output.splitlines()]


async def test_a_redis_that_may_forget_is_named(run: Run, fresh_settings: Settings) -> None:
    async with running_valkeys(1, **{"maxmemory-policy": "allkeys-lru"}) as [forgetful]:
        done = await deep(run, fresh_settings.model_copy(update={"redis_url": SecretStr(forgetful.url)}))
    assert findings(done) == ["redis: maxmemory-policy is allkeys-lru, not noeviction"]
    assert ["FAILED", "redis", "1", "found"] in [line.split() for line in done.output.splitlines()]


def test_what_does_not_answer_is_not_looked_at(run: Run, settings: Settings) -> None:
    done = run("check", "--deep", environ=environ_of(settings, redis_url="redis://127.0.0.1:1/0"))
    assert done.status == 1
    assert len(done.output.splitlines()) == 4
