"""Pushes from act to device: judged when they are sent, never lost, one for what is one, and nobody waits for anybody else."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace

import pytest

from instafeed import comments, devices, likes, work
from instafeed.ids import lowest_at, shard_of
from instafeed.models import Platform
from instafeed.pushes import push
from instafeed.settings import Settings
from instafeed.storage import inboxes
from instafeed.storage.outbox import Kind
from instafeed.storage.push import PushServices
from tests.client import eventually
from tests.feeds.world import World, add_rows, viewer
from tests.push.browser import Browser, PushService, running_push_service
from tests.push.sns import ACCESS_KEY, APNS, FCM, SECRET_KEY, Sns

KEY = "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"


@dataclass
class Town(World):
    """A world where devices are pushed to."""

    async def open_session(self, account: int) -> None:
        """Log an account in."""
        row = {"shard": shard_of(account), "id": account, "account_id": account, "device_name": ""}
        await add_rows(self, "sessions", [row | {"token_hash": secrets.token_bytes(32)}])

    async def register(self, account: int, browser: Browser, name: str = "browser") -> None:
        """Register a browser."""
        body = browser.subscription
        keys = {name: body[name] for name in ("endpoint", "p256dh", "auth")}
        await devices.register(self.res, viewer(account), name, Platform.WEB, token=None, **keys)

    async def owner(self, browser: Browser) -> int:
        """An account with a browser."""
        account = await self.account()
        await self.open_session(account)
        await self.register(account, browser)
        return account

    async def liked(self, post: int, count: int = 1) -> list[int]:
        """So many accounts that like a post."""
        found = [await self.account() for _ in range(count)]
        for account in found:
            await likes.like(self.res, viewer(account), post)
        return found

    async def wait(self, seconds: float = 60) -> None:
        """Let so much time pass for pushes, and for work that is noted for later."""
        await self.sql("update activity set pushed_at = pushed_at - make_interval(secs => $1) returning 1", seconds)
        await self.sql("update outbox set due_at = due_at - make_interval(secs => $1) returning 1", seconds)

    async def push(self) -> None:
        """Do the work that is due, and none that waits for its time."""
        await self.lapse()
        for _ in range(10):
            due = await self.sql(
                "select id from outbox where done_at is null and kind = 'push' and due_at < now() + interval '6 seconds'"
                " and due_at > now() - interval '1 day' order by id"
            )
            for entry in due:
                await work.perform(self.res, entry, Kind.PUSH, push)
            if not due:
                return

    async def deliver(self) -> None:
        """Do all other work."""
        for _ in range(10):
            found = [(id_, kind) for id_, kind in await self.pending() if kind not in {Kind.PUSH, Kind.DIGEST}]
            for entry in found:
                await self.perform(*entry)
            if not found:
                return

    async def read(self, account: int) -> None:
        """Mark all of an account's activity as read."""
        async with self.res.db.acquire() as connection:
            await inboxes.set_read(connection, account, self.res.ids.next(0))

    async def waiting(self) -> list[str]:
        """How many devices each push waits for that is to be tried again."""
        return await self.sql("select payload ->> 'devices' from outbox where done_at is null and kind = 'push'")


@asynccontextmanager
async def town_of(world: World, **values: str) -> AsyncIterator[Town]:
    """The world with these settings."""
    settings = Settings.model_validate(world.res.settings.model_dump() | values)
    services = PushServices(settings)
    await services.open()
    yield Town(replace(world.res, settings=settings, pushes=services))
    await services.close()


@pytest.fixture
async def pushing(world: World) -> AsyncIterator[Town]:
    """A world that pushes to browsers, whose services are at any address."""
    async with town_of(world, web_push_key=KEY, web_push_anywhere="on") as town:
        yield town


async def test_a_like_is_pushed_to_every_device_of_the_author(pushing: Town, service: PushService) -> None:
    browser, other = service.browser(), service.browser()
    bob = await pushing.owner(browser)
    await pushing.register(bob, other, "other")
    post = await pushing.post(bob)
    [ada] = await pushing.liked(post)
    await pushing.push()
    for device in (browser, other):
        [message] = device.messages
        assert message.pop("activity_id").isdigit()
        assert message == {
            "kind": "like",
            "post_id": str(post),
            "actor_id": str(ada),
            "actor": f"u{ada}",
            "count": "1",
            "text": f"@u{ada} liked your photo",
            "loc_key": "like_one",
            "loc_args": [f"u{ada}"],
            "topic": device.pushes[0].headers["Topic"],
            "unread": 1,
        }


async def test_each_kind_is_pushed_in_its_words(pushing: Town, service: PushService) -> None:
    browser = service.browser()
    bob = await pushing.owner(browser)
    ada = await pushing.account()
    post = await pushing.post(bob)
    others = await pushing.post(ada)

    async def comment(author: int, post_id: int, text: str, reply_to: int | None = None) -> int:
        id_ = pushing.res.ids.next(shard_of(post_id))
        await comments.create(pushing.res, viewer(author), id_, post_id, text=text, reply_to=reply_to)
        return id_

    first = await comment(ada, post, "a secret of hers")
    own = await comment(bob, others, "Nice")
    await comment(ada, others, "Thanks", own)
    await comment(ada, others, f"@u{bob} look")
    await pushing.follow(ada, bob)
    await pushing.follow(bob, ada)
    await pushing.deliver()
    new = await pushing.post(ada)
    await pushing.deliver()
    await pushing.set_private(bob, True)
    eve = await pushing.account()
    await pushing.follow(eve, bob)
    await pushing.set_private(ada, True)
    await pushing.unfollow(bob, ada)
    await pushing.follow(bob, ada)
    await pushing.approve(ada, bob)
    await pushing.push()
    told = {message["kind"]: message for message in browser.messages}
    assert {kind: message["text"] for kind, message in told.items()} == {
        "comment": f"@u{ada} commented on your photo",
        "reply": f"@u{ada} replied to your comment",
        "mention": f"@u{ada} mentioned you",
        "follow": f"@u{ada} started following you",
        "post": f"@u{ada} posted a photo",
        "follow_request": f"@u{eve} asked to follow you",
        "request_accepted": f"@u{ada} accepted your request to follow",
    }
    assert told["comment"]["post_id"] == str(post)
    assert told["post"]["post_id"] == str(new)
    assert told["reply"]["post_id"] == told["mention"]["post_id"] == str(others)
    assert {"comment_id"} <= told["reply"].keys() & told["mention"].keys()
    assert first
    assert "secret" not in str(browser.messages)


async def test_a_storm_of_likes_is_one_push_and_then_one_that_takes_its_place(
    pushing: Town, service: PushService
) -> None:
    browser = service.browser()
    bob = await pushing.owner(browser)
    post = await pushing.post(bob)
    await pushing.liked(post)
    await pushing.push()
    newest: list[int] = []
    for _ in range(4):
        # Each is a second after the one before, or they would not move the entry.
        pushing.res.ids._ms += 2000
        newest = await pushing.liked(post)
        await pushing.push()
    assert len(browser.messages) == 1
    await pushing.wait()
    await pushing.push()
    [_, message] = browser.messages
    assert (message["loc_key"], message["loc_args"]) == ("like_many", [f"u{newest[0]}", "4"])
    assert message["count"] == "5"
    topics = {push_.headers["Topic"] for push_ in browser.pushes}
    assert len(topics) == 1
    assert {len(topic) for topic in topics} == {32}
    await pushing.wait()
    await pushing.push()
    assert len(browser.messages) == 2
    other = await pushing.post(bob)
    await pushing.liked(other)
    await pushing.push()
    assert browser.pushes[-1].headers["Topic"] not in topics


async def test_what_was_undone_before_it_was_sent_is_pushed_to_nobody(pushing: Town, service: PushService) -> None:
    browser = service.browser()
    bob = await pushing.owner(browser)
    post = await pushing.post(bob)
    [ada] = await pushing.liked(post)
    await likes.unlike(pushing.res, viewer(ada), post)
    gone = await pushing.post(bob)
    await pushing.liked(gone)
    await pushing.delete(bob, gone)
    eve = await pushing.account()
    await pushing.follow(eve, bob)
    await pushing.unfollow(eve, bob)
    await pushing.push()
    assert browser.pushes == []
    assert await pushing.waiting() == []


async def test_who_likes_again_is_pushed_once(pushing: Town, service: PushService) -> None:
    browser = service.browser()
    bob = await pushing.owner(browser)
    post = await pushing.post(bob)
    [ada] = await pushing.liked(post)
    await pushing.push()
    await likes.unlike(pushing.res, viewer(ada), post)
    await pushing.wait()
    await likes.like(pushing.res, viewer(ada), post)
    await pushing.push()
    await pushing.wait()
    await pushing.push()
    assert len(browser.messages) == 1


async def test_whom_one_may_not_see_or_mutes_pushes_nothing(pushing: Town, service: PushService) -> None:
    browser = service.browser()
    bob = await pushing.owner(browser)
    post = await pushing.post(bob)
    blocked, muted, suspended, friend = await pushing.liked(post, 4)
    await pushing.block(bob, blocked)
    await pushing.mute(bob, muted)
    await pushing.suspend(suspended)
    await pushing.push()
    [message] = browser.messages
    assert (message["text"], message["count"]) == (f"@u{friend} liked your photo", "1")


async def test_of_a_post_whose_author_was_suspended_meanwhile_no_subscriber_is_told(
    pushing: Town, service: PushService
) -> None:
    browser, author = service.browser(), await pushing.account()
    await pushing.follow(await pushing.owner(browser), author)
    await pushing.post(author)
    await pushing.deliver()
    await pushing.suspend(author)
    await pushing.push()
    assert browser.pushes == []


async def test_a_session_that_ended_is_not_pushed_to(pushing: Town, service: PushService) -> None:
    browser = service.browser()
    bob = await pushing.owner(browser)
    post = await pushing.post(bob)
    await pushing.liked(post)
    await pushing.sql("delete from sessions where account_id = $1 returning 1", bob)
    await pushing.push()
    assert browser.pushes == []
    assert await pushing.sql("select name from devices where account_id = $1", bob) == []


async def test_a_session_that_idled_too_long_is_not_pushed_to(pushing: Town, service: PushService) -> None:
    browser = service.browser()
    bob = await pushing.owner(browser)
    post = await pushing.post(bob)
    await pushing.liked(post)
    await pushing.sql("update sessions set used_at = now() - interval '91 days' where account_id = $1 returning 1", bob)
    await pushing.push()
    assert browser.pushes == []


async def test_who_has_no_device_causes_no_work(pushing: Town) -> None:
    bob = await pushing.account()
    await pushing.liked(await pushing.post(bob))
    assert Kind.PUSH not in {kind for _, kind in await pushing.pending()}


@pytest.mark.parametrize("status", [404, 410])
async def test_a_browser_that_is_gone_is_forgotten(pushing: Town, service: PushService, status: int) -> None:
    gone, there = service.browser(), service.browser()
    bob = await pushing.owner(gone)
    await pushing.register(bob, there, "there")
    service.answers[gone.number] = (status, {})
    await pushing.liked(await pushing.post(bob))
    await pushing.push()
    assert len(there.messages) == 1
    assert await pushing.sql("select name from devices where account_id = $1", bob) == ["there"]
    assert await pushing.waiting() == []


async def test_a_browser_that_registered_again_meanwhile_stays(pushing: Town, service: PushService) -> None:
    browser = service.browser()
    bob = await pushing.owner(browser)
    service.answers[browser.number] = (410, {})
    service.gate.clear()
    await pushing.liked(await pushing.post(bob))
    pushing_ = asyncio.create_task(pushing.push())
    await _until(lambda: bool(service.asked))
    await pushing.register(bob, browser)
    service.gate.set()
    await pushing_
    assert await pushing.sql("select name from devices where account_id = $1", bob) == ["browser"]


async def _until(probe: Callable[[], bool]) -> None:
    async def asked() -> bool:
        return probe()

    await eventually(asked)


async def test_a_service_that_is_busy_is_asked_again_when_it_said_and_for_that_device_only(
    pushing: Town, service: PushService
) -> None:
    busy, there = service.browser(), service.browser()
    bob = await pushing.owner(busy)
    await pushing.register(bob, there, "there")
    service.answers[busy.number] = (429, {"Retry-After": "120"})
    await pushing.liked(await pushing.post(bob))
    await pushing.push()
    assert (len(busy.messages), len(there.messages)) == (0, 1)
    seconds = await pushing.sql(
        "select extract(epoch from due_at - now())::int from outbox where done_at is null and kind = 'push'"
    )
    assert len(seconds) == 1
    assert 60 < seconds[0] <= 120
    service.answers[busy.number] = (500, {})
    await pushing.wait(115)
    await pushing.push()
    del service.answers[busy.number]
    await pushing.wait(115)
    await pushing.push()
    assert (len(busy.messages), len(there.messages)) == (1, 1)
    assert await pushing.waiting() == []


async def test_another_try_takes_no_push_from_the_other_devices(pushing: Town, service: PushService) -> None:
    busy, there = service.browser(), service.browser()
    bob = await pushing.owner(busy)
    await pushing.register(bob, there, "there")
    service.answers[busy.number] = (503, {"Retry-After": "3"})
    post = await pushing.post(bob)
    await pushing.liked(post)
    await pushing.push()
    del service.answers[busy.number]
    pushing.res.ids._ms += 2000
    await pushing.liked(post)
    again, new = await pushing.sql("select id from outbox where done_at is null and kind = 'push' order by id")
    await pushing.wait()
    for entry in (again, new):
        await work.perform(pushing.res, entry, Kind.PUSH, push)
    assert [message["count"] for message in busy.messages] == ["2", "2"]
    assert [message["count"] for message in there.messages] == ["1", "2"]


async def test_what_was_read_before_another_try_is_not_pushed(pushing: Town, service: PushService) -> None:
    browser = service.browser()
    bob = await pushing.owner(browser)
    service.answers[browser.number] = (503, {})
    await pushing.liked(await pushing.post(bob))
    await pushing.push()
    await pushing.read(bob)
    del service.answers[browser.number]
    await pushing.wait()
    await pushing.push()
    assert browser.pushes == []
    assert await pushing.waiting() == []


async def test_a_push_that_nobody_takes_is_given_up_after_two_hours(pushing: Town, service: PushService) -> None:
    browser = service.browser()
    bob = await pushing.owner(browser)
    service.answers[browser.number] = (503, {"Retry-After": "3600"})
    await pushing.liked(await pushing.post(bob))
    await pushing.sql(
        "update outbox set payload = payload || jsonb_build_object('id', $1::bigint) where kind = 'push' returning 1",
        lowest_at(time.time() - 7200 + 1800),
    )
    await pushing.push()
    assert service.asked == [browser.number]
    assert await pushing.waiting() == []


@pytest.mark.parametrize("where", ["before it was sent", "after it was sent"])
async def test_a_worker_that_is_killed_loses_no_push(
    pushing: Town, service: PushService, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    browser = service.browser()
    bob = await pushing.owner(browser)
    await pushing.liked(await pushing.post(bob))
    [entry] = await pushing.sql("select id from outbox where done_at is null and kind = 'push'")

    class Killed(BaseException):
        """What ends a process leaves no trace."""

    async def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("instafeed.pushes._send" if where.startswith("before") else "instafeed.pushes._settle", killed)
        patch.setattr("instafeed.work._hand_back", killed)
        with suppress(Killed):
            await work.perform(pushing.res, entry, Kind.PUSH, push)
    sent = len(browser.pushes)
    assert sent == (0 if where.startswith("before") else 1)
    await pushing.push()
    await pushing.wait()
    await pushing.push()
    assert len(browser.pushes) == sent + 1
    assert len({push_.headers["Topic"] for push_ in browser.pushes}) == 1
    await pushing.wait()
    await pushing.push()
    assert len(browser.pushes) == sent + 1
    assert await pushing.waiting() == []


async def test_a_slow_service_holds_up_no_other(pushing: Town, service: PushService) -> None:
    """The slow one does not answer at all until the others' pushes are there."""
    async with running_push_service() as slow:
        slow.gate.clear()
        stuck, there = slow.browser(), service.browser()
        first, second = await pushing.owner(stuck), await pushing.owner(there)
        await pushing.liked(await pushing.post(first))
        await pushing.liked(await pushing.post(second))
        entries = await pushing.sql("select id from outbox where done_at is null and kind = 'push' order by id")
        jobs = [asyncio.create_task(work.perform(pushing.res, entry, Kind.PUSH, push)) for entry in entries]
        assert len(await there.reads(1)) == 1
        assert stuck.pushes == []
        slow.gate.set()
        await asyncio.gather(*jobs)
        # Or it was found too slow, and is tried again.
        await pushing.wait()
        await pushing.push()
    assert stuck.pushes


async def test_subscribers_are_pushed_to_in_chunks(
    pushing: Town, service: PushService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instafeed.pushes._ACCOUNTS", 3)
    author = await pushing.account()
    browsers = [service.browser() for _ in range(8)]
    owners = [await pushing.owner(browser) for browser in browsers]
    for owner in owners:
        await pushing.follow(owner, author)
    await pushing.follow(await pushing.account(), author)
    await pushing.deliver()
    await pushing.mute(owners[1], author)
    post = await pushing.post(author)
    await pushing.deliver()
    await pushing.unfollow(owners[2], author)
    await pushing.mute(owners[3], author)
    [entry] = await pushing.sql("select id from outbox where done_at is null and kind = 'push'")
    await work.perform(pushing.res, entry, Kind.PUSH, push)
    assert [len(browser.pushes) for browser in browsers] == [1, 0, 0, 0, 1, 1, 1, 1]
    assert browsers[0].messages[0]["post_id"] == str(post)
    assert await pushing.waiting() == []


@pytest.fixture
async def calling(world: World, sns: Sns) -> AsyncIterator[Town]:
    """A world that pushes to phones."""
    keys = {"sns_access_key": ACCESS_KEY, "sns_secret_key": SECRET_KEY}
    async with town_of(world, sns_apns_application=APNS, sns_fcm_application=FCM, sns_endpoint=sns.url, **keys) as town:
        yield town


async def test_phones_get_an_endpoint_and_are_forgotten_when_it_is_gone(calling: Town, sns: Sns) -> None:

    bob = await calling.account()
    await calling.open_session(bob)
    for name, platform, token in (
        ("iphone", Platform.APNS, secrets.token_hex(32)),
        ("android", Platform.FCM, secrets.token_urlsafe(40)),
    ):
        await devices.register(
            calling.res, viewer(bob), name, platform, token=token, endpoint=None, p256dh=None, auth=None
        )
    post = await calling.post(bob)
    [ada] = await calling.liked(post)
    await calling.push()
    assert sorted(call for call in sns.calls if call != "Publish") == [
        *["CreatePlatformEndpoint"] * 2,
        *["SetEndpointAttributes"] * 2,
    ]
    assert {published["default"] for published in sns.published} == {f"@u{ada} liked your photo"}
    assert len(sns.published) == 2
    [apple] = [arn for arn in sns.endpoints if "/APNS/" in arn]
    sns.endpoints[apple]["Enabled"] = "false"
    await calling.liked(await calling.post(bob))
    await calling.push()
    assert sns.calls.count("CreatePlatformEndpoint") == 2
    assert len(sns.published) == 3
    assert await calling.sql("select name from devices where account_id = $1", bob) == ["android"]
