"""Pushing what accounts are told of to their devices.

A push is judged when it is sent: what was undone, read, or may not be seen by then is pushed to nobody. One that a service does
not take now is tried again by work of its own, for its device only, so that nobody waits for it.

A push may arrive twice, where a worker was killed after it was sent. The device shows it once: both have one topic.
"""

import asyncio
import time
from base64 import urlsafe_b64encode
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from hashlib import blake2b

from instafeed import activity, digests, telemetry, wording
from instafeed.ids import shard_of, unix_ms_of
from instafeed.models import Activity, ActivityKind, Audience, Channel, Device, Inbox, Platform, Push, Viewer
from instafeed.resources import Resources
from instafeed.storage import devices as device_rows
from instafeed.storage import follows as follow_rows
from instafeed.storage import inboxes as inbox_rows
from instafeed.storage import outbox, pushed
from instafeed.storage import posts as post_rows
from instafeed.storage.activity import EntryRow
from instafeed.storage.database import Connection
from instafeed.storage.outbox import Entry, Kind
from instafeed.storage.push import Outcome, Verdict
from instafeed.work import FollowUp

_ACCOUNTS = 100
"""How many accounts are pushed to at the same time."""
_RUN_SECONDS = 25.0
"""How long one job goes on; the next one takes it up."""
_WORTH_SECONDS = 24 * 3600
"""For how long something is worth telling."""
_TRY_SECONDS = 2 * 3600
"""For how long a push is tried that a service does not take."""
_FIRST_PAUSE_SECONDS = 5.0
_LONGEST_PAUSE_SECONDS = 600.0

_log = telemetry.logger()


async def push(res: Resources, entry: Entry) -> list[FollowUp]:
    """Job: push entries of activity, each account's own, of one kind, subject and actor.

    The payload is `notifications.tell`'s; with `devices`, the ids of registrations, it is about those devices, which a
    service did not take a push for before, `tries` times.
    """
    until = time.monotonic() + _RUN_SECONDS
    account_ids: list[int] = entry.payload["accounts"]
    for start in range(entry.position, len(account_ids), _ACCOUNTS):
        if time.monotonic() > until:
            return [(Kind.PUSH, entry.payload | {"accounts": account_ids[start:]})]
        await _push(res, entry, account_ids[start : start + _ACCOUNTS])
        async with res.db.acquire() as connection:
            await outbox.checkpoint(connection, entry.id, start + _ACCOUNTS)
    return []


async def _push(res: Resources, entry: Entry, account_ids: Sequence[int]) -> None:
    what = _entry_of(entry)
    only: list[int] | None = entry.payload.get("devices")
    if only is None:
        due = await res.db.transact(partial(_take_turns, res, entry, account_ids))
    else:
        async with res.db.acquire() as connection:
            due = await pushed.standing(connection, what, account_ids)
    async with res.db.acquire() as connection:
        inboxes = await inbox_rows.get_many(connection, due)
        pushes = await _pushes(connection, what, due, inboxes)
        devices = await device_rows.of_accounts(connection, pushes, idle_days=res.settings.session_days)
    devices = [device for device in devices if only is None or device.id in only]
    verdicts = await asyncio.gather(*(_send(res, device, pushes[device.account_id]) for device in devices))
    for device, verdict in zip(devices, verdicts, strict=True):
        telemetry.PUSHES.labels(device.platform, verdict.outcome).inc()
        if verdict.reason:
            _log.warning("a push was refused", device=str(device.id), platform=device.platform, reason=verdict.reason)

    async def settle(connection: Connection) -> None:
        await _settle(res, entry, connection, list(zip(devices, verdicts, strict=True)))
        if only is None:
            # Another try tells one device; of what came meanwhile the others are still to be told.
            await pushed.mark(connection, what, due)
            by_mail = [id_ for id_ in due if _hears(inboxes[id_], what, Channel.MAIL)]
            await digests.note(res, connection, by_mail)

    await res.db.transact(settle)


def _hears(inbox: Inbox, what: pushed.Entry, channel: Channel) -> bool:
    return inbox.preferences.audience(what.kind, channel) is not Audience.OFF


def _entry_of(entry: Entry) -> pushed.Entry:
    payload = entry.payload
    return pushed.Entry(ActivityKind(payload["kind"]), payload["subject"], payload["actor"])


async def _take_turns(
    res: Resources, entry: Entry, account_ids: Sequence[int], connection: Connection
) -> dict[int, int]:
    """Those of the accounts whose turn it is, and where their entries stand; for the others work is noted."""
    pause = res.settings.push_pause_seconds
    turns = await pushed.take_turns(connection, _entry_of(entry), account_ids, pause=pause)
    if turns.later:
        payload = entry.payload | {"accounts": turns.later}
        await _note(res, connection, payload, seconds=turns.seconds)
    return turns.now


async def _note(res: Resources, connection: Connection, payload: dict[str, object], *, seconds: float) -> None:
    """Note work for when so many seconds have passed."""
    accounts = payload["accounts"]
    assert isinstance(accounts, list)
    await outbox.add(connection, res.ids.next(shard_of(accounts[0])), Kind.PUSH, payload, seconds=seconds)


async def _send(res: Resources, device: Device, push: Push) -> Verdict:
    if device.platform is not Platform.WEB and device.endpoint_arn is None and res.pushes.serve(device.platform):
        made = await res.pushes.mobile.endpoint(device)
        if isinstance(made, Verdict):
            return made
        async with res.db.acquire() as connection:
            await device_rows.set_endpoint(connection, device, made)
        device = replace(device, endpoint_arn=made)
    return await res.pushes.send(device, push)


async def _settle(
    res: Resources,
    entry: Entry,
    connection: Connection,
    ended: Sequence[tuple[Device, Verdict]],
) -> None:
    """Forget devices that are gone, and note what is to be tried again."""
    await device_rows.forget(connection, [device for device, verdict in ended if verdict.outcome is Outcome.GONE])
    tries = entry.payload.get("tries", 0)
    least = min(_FIRST_PAUSE_SECONDS * 2**tries, _LONGEST_PAUSE_SECONDS)
    later: dict[float, list[Device]] = defaultdict(list)
    for device, verdict in ended:
        if verdict.outcome is Outcome.LATER:
            later[max(verdict.seconds, least)].append(device)
    for seconds, devices in later.items():
        if time.time() + seconds < unix_ms_of(entry.payload["id"]) / 1000 + _TRY_SECONDS:
            accounts = sorted({device.account_id for device in devices})
            payload = {"accounts": accounts, "devices": [device.id for device in devices], "tries": tries + 1}
            await _note(res, connection, entry.payload | payload, seconds=seconds)


async def _pushes(
    connection: Connection, what: pushed.Entry, due: Mapping[int, int], inboxes: Mapping[int, Inbox]
) -> dict[int, Push]:
    """What each of these accounts is to be pushed now, of an entry that stands there."""
    fresh = {id_: stands for id_, stands in due.items() if unix_ms_of(stands) / 1000 > time.time() - _WORTH_SECONDS}
    if what.kind is ActivityKind.POST:
        return await _pushes_of_post(connection, what, fresh, inboxes)
    found = {}
    for account_id, stands in fresh.items():
        viewer, inbox = Viewer.of(account_id), inboxes[account_id]
        row = EntryRow(stands, what.kind, what.subject_id, what.actor_id)
        told = (await activity.entries(connection, viewer, inbox, [row], channel=Channel.PUSH)).get(row)
        if told is not None and told.unread:
            unread = await activity.count_unread(connection, viewer)
            found[account_id] = _made(account_id, what, told, unread)
    return found


async def _pushes_of_post(
    connection: Connection, what: pushed.Entry, due: Mapping[int, int], inboxes: Mapping[int, Inbox]
) -> dict[int, Push]:
    """Like `_pushes`, for the many who are told of one post: in a few statements, without how much is unread."""
    post = await post_rows.get_bare(connection, what.subject_id)
    if post is None or post.published_at is None:
        return {}
    listening = await follow_rows.listeners_among(connection, what.actor_id, due)
    return {
        id_: _made(id_, what, Activity(stands, what.kind, (post.author,), 1, unread=True, post=post), None)
        for id_, stands in due.items()
        if id_ in listening and stands > inboxes[id_].read_id and _hears(inboxes[id_], what, Channel.PUSH)
    }


def _made(account_id: int, what: pushed.Entry, told: Activity, unread: int | None) -> Push:
    words = wording.told(told)
    actor = told.actors[0]
    data = {
        "kind": told.kind.value,
        "activity_id": str(told.id),
        "actor_id": str(actor.id),
        "actor": actor.username,
        "count": str(told.count),
    }
    if told.post is not None:
        data["post_id"] = str(told.post.id)
    if told.comment_id is not None:
        data["comment_id"] = str(told.comment_id)
    return Push(
        topic=_topic(account_id, what),
        seconds=max(int(unix_ms_of(told.id) / 1000 + _WORTH_SECONDS - time.time()), 0),
        text=words.text,
        loc_key=words.key,
        loc_args=words.arguments,
        unread=unread,
        data=data,
    )


def _topic(account_id: int, what: pushed.Entry) -> str:
    """What all pushes of an account's entry have in common, and no others."""
    text = f"{account_id} {what.kind} {what.subject_id} {what.actor_id}"
    return urlsafe_b64encode(blake2b(text.encode(), digest_size=24).digest()).decode()
