"""Avatars: photos that accounts are shown with."""

from instafeed import access
from instafeed.changes import Change, transact
from instafeed.errors import FieldError, MediaUnusable
from instafeed.ids import shard_of
from instafeed.models import Account, Emails, Media, MediaStatus, Viewer
from instafeed.resources import Resources
from instafeed.storage import accounts as account_rows
from instafeed.storage import emails as email_rows
from instafeed.storage import media as media_rows
from instafeed.storage.outbox import Entry, Kind
from instafeed.work import FollowUp


async def put(res: Resources, viewer: Viewer, media_id: int) -> tuple[Account, Emails]:
    """Show the viewer's account with one of their photos, which can be posted no more; the photo before is deleted.

    One whose renditions are not made yet is shown when they are; until then the one before goes on being shown.

    Raises:
        MediaUnusable: the viewer has no such photo, it failed, or a post has it.
    """

    async def body(change: Change) -> tuple[Account, Emails]:
        account = await access.lock_self(change.connection, viewer)
        if not await media_rows.claim_avatar(change.connection, account.id, media_id):
            field = FieldError("/media_id", "Not a photo of yours that can be used: missing, failed, or a post's.")
            raise MediaUnusable("The photo cannot be used.", errors=(field,))
        await _show(change, account.id, await media_rows.get(change.connection, media_id))
        await _delete_others(change, account.id, media_id, await account_rows.avatar_id(change.connection, account.id))
        shown = await account_rows.get(change.connection, account.id)
        return shown or account, await email_rows.get(change.connection, account.id)

    return await transact(res, body)


async def remove(res: Resources, viewer: Viewer) -> None:
    """Show the viewer's account without a photo; the one that it was shown with is deleted."""

    async def body(change: Change) -> None:
        account = await access.lock_self(change.connection, viewer)
        await change.hold_author(account.id)
        await account_rows.set_avatar(change.connection, account.id, None, ())
        await _delete_others(change, account.id)

    await transact(res, body)


async def show(res: Resources, entry: Entry) -> list[FollowUp]:
    """Job: show an account with a photo that is ready now, if it is still to be.

    Besides the one that is shown, an account claims at most the one that is to be shown next.
    """
    account_id, media_id = entry.payload["account"], entry.payload["media"]

    async def body(change: Change) -> None:
        await account_rows.lock(change.connection, [account_id])
        before = await account_rows.avatar_id(change.connection, account_id)
        await _show(change, account_id, await media_rows.get(change.connection, media_id))
        shown = await account_rows.avatar_id(change.connection, account_id)
        if shown != before:
            await _delete_others(change, account_id, shown)

    await transact(res, body)
    return []


async def _show(change: Change, account_id: int, media: Media | None) -> None:
    """Show the account with a photo, if that is there and ready."""
    account = await account_rows.get(change.connection, account_id)
    if account is None or media is None or media.status is not MediaStatus.READY or media.renditions == account.avatar:
        return
    await change.hold_author(account_id)
    await account_rows.set_avatar(change.connection, account_id, media.id, media.renditions)


async def _delete_others(change: Change, account_id: int, *kept: int | None) -> None:
    but = [media_id for media_id in kept if media_id is not None]
    for object_key in await media_rows.delete_avatars(change.connection, account_id, but=but):
        await change.note(shard_of(account_id), Kind.DISCARD, {"key": object_key})
