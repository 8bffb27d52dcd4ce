"""Posts that wait for their time."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from instafeed import posts, scheduled, sweep
from instafeed.resources import Resources
from instafeed.settings import Settings
from instafeed.storage import outbox
from tests.api.answers import anonymous, invalid, problem
from tests.client import PASSWORD, Client, eventually
from tests.locks import is_waited_for
from tests.media.test_form import END, part, photo
from tests.media.test_form import send as send_form
from tests.workers import running_workers

pytestmark = pytest.mark.usefixtures("workers")
SignUp = Callable[..., Awaitable[Client]]
PATH = "/v1/me/scheduled"


def after(**amount: float) -> str:
    """A time that is so far away."""
    return (datetime.now(UTC) + timedelta(**amount)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


async def schedule(client: Client, publish_at: str, caption: str = "", photos: int = 1, **options: Any) -> Any:
    media = [{"id": (await client.upload())["id"]} for _ in range(photos)]
    body = {"caption": caption, "media": media, "publish_at": publish_at}
    return await client.call("POST", "/v1/posts", 201, json=body, **options)


async def become(client: Client, scheduled_id: str) -> Any:
    """The post that a scheduled one becomes."""

    async def probe() -> Any:
        post = await client.call("GET", f"/v1/posts/{scheduled_id}")
        return post if post["published_at"] else None

    return await eventually(probe)


async def test_it_is_its_authors_until_its_time_and_then_a_new_post(sign_up: SignUp) -> None:
    author, follower, named = await sign_up(), await sign_up(), await sign_up()
    await follower.follow(author)
    publish_at = after(hours=1)
    text = f"#later with @{named.account['username']}"
    waiting = await schedule(author, publish_at, text, photos=2)
    assert (waiting["publish_at"], waiting["published_at"]) == (publish_at, None)
    assert (waiting["tags"], [mention["account"]["id"] for mention in waiting["mentions"]]) == (["later"], [named.id])
    assert len(waiting["media"]) == 2
    path = f"/v1/posts/{waiting['id']}"
    page = await author.call("GET", PATH)
    assert [post["id"] for post in page["items"]] == [waiting["id"]]
    nothing = anonymous(await follower.http.get("/v1/posts/1", headers=follower.headers))
    for method, call, body in (
        ("GET", path, None),
        ("PATCH", path, {"caption": "mine"}),
        ("DELETE", path, None),
        ("PUT", f"{path}/like", None),
        ("PUT", f"{path}/save", None),
        ("GET", f"{path}/comments", None),
        ("POST", f"{path}/comments", {"text": "first"}),
    ):
        answer = await follower.http.request(method, call, headers=follower.headers, json=body)
        assert anonymous(answer) == nothing, (method, call)
    assert await follower.walk(PATH) == await author.walk(f"/v1/accounts/{author.id}/posts") == []
    earlier = await author.published((await author.post())["id"])
    # Its place in feeds is that of the time at which it was published.
    publish_at = after(seconds=3)
    await author.call("PATCH", path, json={"publish_at": publish_at})
    post = await become(author, waiting["id"])
    assert post["id"] != waiting["id"]
    assert post["publish_at"] is None
    assert publish_at <= post["published_at"]
    assert publish_at <= post["created_at"]
    assert [(post[name]) for name in ("caption", "tags")] == [text, ["later"]]
    assert [media["id"] for media in post["media"]] == [media["id"] for media in waiting["media"]]
    await follower.sees(post["id"], seconds=30)
    await follower.sees(earlier["id"], seconds=30)
    assert await follower.feed() == [post["id"], earlier["id"]]
    assert await author.walk(f"/v1/accounts/{author.id}/posts") == [post["id"], earlier["id"]]
    assert (await author.call("GET", "/v1/me"))["post_count"] == 2
    assert await author.walk(PATH) == []
    # Its former id is its author's.
    assert anonymous(await follower.http.get(path, headers=follower.headers)) == nothing
    assert (await author.call("PATCH", path, json={"caption": "", "publish_at": None}))["id"] == post["id"]
    await author.call("DELETE", path, 204)
    for gone in (path, f"/v1/posts/{post['id']}"):
        await author.call("GET", gone, 404)
    assert await follower.feed() == [earlier["id"]]


async def test_they_are_listed_soonest_first(sign_up: SignUp) -> None:
    author = await sign_up()
    noon = after(days=2)
    made = [(await schedule(author, when))["id"] for when in (noon, after(days=3), after(days=1), noon)]
    assert await author.walk(PATH, 1) == await author.walk(PATH) == [made[2], made[0], made[3], made[1]]
    await author.call("PATCH", f"/v1/posts/{made[1]}", json={"publish_at": noon})
    assert await author.walk(PATH, 1) == [made[2], made[0], made[3], made[1]]


async def test_one_is_edited_moved_and_published_at_once(sign_up: SignUp) -> None:
    author, follower = await sign_up(), await sign_up()
    await follower.follow(author)
    waiting = await schedule(author, after(hours=1), "before", photos=2)
    path, ids = f"/v1/posts/{waiting['id']}", [media["id"] for media in waiting["media"]]
    later = after(days=364)
    edited = await author.call(
        "PATCH",
        path,
        json={
            "caption": "after",
            "alt_texts": [{"id": ids[0], "alt_text": "Waves"}],
            "media_ids": ids[::-1],
            "publish_at": later,
        },
    )
    assert (edited["id"], edited["caption"], edited["publish_at"]) == (waiting["id"], "after", later)
    assert [(media["id"], media["alt_text"]) for media in edited["media"]] == [(ids[1], ""), (ids[0], "Waves")]
    assert edited == await author.call("GET", path) | {"media": edited["media"]}
    for wrong in ({"media_ids": ids[:1]}, {"publish_at": after(seconds=-1)}, {"alt_texts": [{"id": "1"}]}):
        assert (await author.http.patch(path, json=wrong, headers=author.headers)).status_code == 422
    await asyncio.gather(*(author.ready(id_) for id_ in ids))
    published = await author.call("PATCH", path, json={"publish_at": None})
    again = await author.call("PATCH", path, json={"publish_at": None})
    assert published["id"] == again["id"] != waiting["id"]
    assert [media["id"] for media in published["media"]] == ids[::-1]
    await follower.sees(published["id"], seconds=30)
    answer = await author.http.patch(path, json={"publish_at": later}, headers=author.headers)
    invalid(answer, "/publish_at")
    assert await follower.feed() == [published["id"]]


async def test_one_that_is_deleted_leaves_nothing(sign_up: SignUp, res: Resources) -> None:
    author = await sign_up()
    waiting = await schedule(author, after(hours=1))
    await author.call("DELETE", f"/v1/posts/{waiting['id']}", 204)
    assert await author.walk(PATH) == []
    for path in (f"/v1/posts/{waiting['id']}", f"/v1/media/{waiting['media'][0]['id']}"):
        await author.call("GET", path, 404)
    async with res.db.acquire() as connection:
        left = await connection.fetchval(
            "select count(*) from outbox where kind = 'publish' and payload -> 'scheduled' = to_jsonb($1::bigint)",
            int(waiting["id"]),
        )
    assert left == 0


async def test_what_is_no_time_to_publish_at_is_refused_and_leaves_nothing(ada: Client) -> None:
    media = await ada.upload()
    wrong: list[Any] = [
        after(seconds=-1),
        after(days=366),
        "2099-01-01T00:00:00",
        "2099-01-01",
        "2099-01-01T00:00:60Z",
        "2099-02-30T00:00:00Z",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
        "2099-01-01T00:00:00+25:00",
        "tomorrow",
        "",
        4_070_908_800,
        True,
    ]
    for publish_at in wrong:
        body = {"media": [{"id": media["id"]}], "publish_at": publish_at}
        invalid(await ada.http.post("/v1/posts", json=body, headers=ada.headers), "/publish_at")
    await send_form(ada, photo() + part("publish_at", b"tomorrow") + END, 422)
    await send_form(ada, photo() + part("publish_at", after(seconds=-1).encode()) + END, 422)
    assert await ada.walk(PATH) == []
    now = await ada.call("POST", "/v1/posts", 201, json={"media": [{"id": media["id"]}], "publish_at": None})
    assert now["publish_at"] is None


async def test_one_has_so_many_at_most(sign_up: SignUp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduled, "MOST", 1)
    author = await sign_up()
    waiting = await schedule(author, after(hours=1))
    body = {"media": [{"id": (await author.upload())["id"]}], "publish_at": after(hours=1)}
    answer = await author.http.post("/v1/posts", json=body, headers=author.headers)
    problem(answer, 409, "conflict")
    await author.call("DELETE", f"/v1/posts/{waiting['id']}", 204)
    await author.call("POST", "/v1/posts", 201, json=body)


async def test_a_form_is_scheduled_too(sign_up: SignUp) -> None:
    author = await sign_up()
    publish_at = after(hours=1)
    made = await send_form(author, photo() + part("publish_at", publish_at.encode()) + END, 201)
    assert made["publish_at"] == publish_at
    assert await author.walk(PATH) == [made["id"]]
    await author.ready(made["media"][0]["id"])
    assert await author.walk(f"/v1/accounts/{author.id}/posts") == []


async def test_what_is_sent_again_is_scheduled_once(sign_up: SignUp) -> None:
    author = await sign_up()
    media, publish_at = [{"id": (await author.upload())["id"]}], after(hours=1)
    options = {"json": {"media": media, "publish_at": publish_at}, "headers": {"Idempotency-Key": author.id}}
    first = await author.call("POST", "/v1/posts", 201, **options)
    await author.call("PATCH", f"/v1/posts/{first['id']}", json={"publish_at": None})
    assert await author.call("POST", "/v1/posts", 201, **options) == first
    post = await author.call("GET", f"/v1/posts/{first['id']}")
    assert await author.walk(f"/v1/accounts/{author.id}/posts") == [post["id"]]


@pytest.fixture
async def early(fresh_http: httpx.AsyncClient) -> Client:
    """Somebody where no worker runs."""
    return await Client.sign_up(fresh_http)


async def due(res: Resources) -> list[outbox.Entry]:
    """The entries that wait for scheduled posts, as if their time had come."""
    async with res.db.acquire() as connection:
        found = await connection.fetch(
            "select id, payload from outbox where kind = 'publish' and done_at is null order by id"
        )
    return [outbox.Entry(row["id"], outbox.Kind.PUBLISH, row["payload"], 0, 1) for row in found]


async def test_without_workers_it_is_late_and_not_lost_and_goes_with_its_author(
    early: Client, fresh_res: Resources, fresh_settings: Settings
) -> None:
    waiting = await schedule(early, after(hours=1))
    async with fresh_res.db.acquire() as connection:
        await connection.execute("update outbox set due_at = now() - interval '1 day' where kind = 'publish'")
    assert (await early.call("GET", f"/v1/posts/{waiting['id']}"))["published_at"] is None
    await sweep.publish(fresh_res)
    async with running_workers(fresh_settings):
        post = await become(early, waiting["id"])
        await early.sees(post["id"], seconds=60)
        await schedule(early, after(hours=1))
        await early.call("DELETE", "/v1/me", 204, json={"password": PASSWORD})

        async def gone() -> bool:
            async with fresh_res.db.acquire() as connection:
                left: int = await connection.fetchval("select count(*) from scheduled_posts")
            return not left and not await due(fresh_res)

        await eventually(gone)


async def test_it_is_published_no_earlier_for_having_waited_for_a_lock(early: Client, fresh_res: Resources) -> None:
    waiting, publish_at = await schedule(early, after(hours=1)), after(hours=2)
    async with fresh_res.db.acquire() as connection:
        async with connection.transaction():
            await connection.execute("select from accounts where id = $1 for update", int(early.id))
            moving = asyncio.create_task(
                early.call("PATCH", f"/v1/posts/{waiting['id']}", json={"publish_at": publish_at})
            )
            await eventually(lambda: is_waited_for(connection))
            await asyncio.sleep(0.1)
        await moving
        due_at = await connection.fetchval("select due_at from outbox where kind = 'publish' and done_at is null")
    assert due_at >= datetime.fromisoformat(publish_at)


async def test_of_a_job_that_runs_twice_or_beside_a_change_one_post_comes(early: Client, fresh_res: Resources) -> None:
    waiting = await schedule(early, after(hours=1), "#once")
    path = f"/v1/posts/{waiting['id']}"
    [former] = await due(fresh_res)
    await early.call("PATCH", path, json={"publish_at": after(hours=2)})
    await posts.publish_scheduled(fresh_res, former)
    assert await early.walk(PATH) == [waiting["id"]], "it has another time now"
    [entry] = await due(fresh_res)
    answers = await asyncio.gather(
        *(posts.publish_scheduled(fresh_res, entry) for _ in range(3)),
        *(early.call("PATCH", path, json={"publish_at": None}) for _ in range(3)),
    )
    assert len({answer["id"] for answer in answers if isinstance(answer, dict)} - {waiting["id"]}) == 1
    assert len(await early.walk(f"/v1/accounts/{early.id}/posts")) == 1


async def test_photos_that_are_late_are_waited_for_and_a_failure_is_told_before_the_time(
    early: Client, fresh_res: Resources, fresh_settings: Settings
) -> None:
    waiting = await schedule(early, after(hours=1))
    [entry] = await due(fresh_res)
    await posts.publish_scheduled(fresh_res, entry)
    post = await early.call("GET", f"/v1/posts/{waiting['id']}")
    assert (post["publish_at"], post["published_at"]) == (None, None)
    bad = await early.upload(b"\xff\xd8\xff\xe0" + b"\0" * 100)
    body = {"media": [{"id": bad["id"]}], "publish_at": after(hours=1)}
    doomed = await early.call("POST", "/v1/posts", 201, json=body)
    async with running_workers(fresh_settings):
        assert (await early.published(post["id"]))["id"] == post["id"]
        await early.ready(bad["id"])
    [told] = (await early.call("GET", PATH))["items"]
    assert (told["id"], told["media"][0]["status"]) == (doomed["id"], "failed")
    assert told["media"][0]["failure"]
