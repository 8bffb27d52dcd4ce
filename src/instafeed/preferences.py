"""Of whose acts accounts want to be told, by kind and channel. A change counts for all that is shown or sent after it."""

from collections.abc import Mapping

from instafeed import access
from instafeed.models import ActivityKind, Audience, Channel, Preferences, Viewer
from instafeed.resources import Resources
from instafeed.storage import inboxes as inbox_rows
from instafeed.storage.database import Connection


async def get(res: Resources, viewer: Viewer) -> Preferences:
    """The viewer's preferences."""
    async with res.db.acquire() as connection:
        return (await inbox_rows.get(connection, viewer.account_id)).preferences


async def update(
    res: Resources, viewer: Viewer, changes: Mapping[ActivityKind, Mapping[Channel, Audience]]
) -> Preferences:
    """Change some of the viewer's preferences, and return all."""

    async def body(connection: Connection) -> Preferences:
        await access.lock_self(connection, viewer)
        said = dict((await inbox_rows.get(connection, viewer.account_id)).preferences.said)
        for kind, of_kind in changes.items():
            said[kind] = {**said.get(kind, {}), **of_kind}
        preferences = Preferences(said)
        await inbox_rows.set_preferences(connection, viewer.account_id, preferences)
        return preferences

    return await res.db.transact(body)
