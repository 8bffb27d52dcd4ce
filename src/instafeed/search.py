"""Finding accounts by their names."""

from instafeed import access
from instafeed.folding import fold, is_slip, words_of
from instafeed.ids import MAX_ID
from instafeed.models import Account, Listed, Relation, Viewer
from instafeed.resources import Resources
from instafeed.storage import accounts as account_rows
from instafeed.storage import follows as follow_rows
from instafeed.storage import search as search_rows
from instafeed.storage.database import Connection

_FOLLOWED = 500
"""So many of whom the viewer follows, the latest, are found however unpopular they are."""
_SPARE = 50
"""Accounts looked at beyond what is asked for: the viewer may not see some, and ranks others higher."""
_CORRECTIONS = 5
"""Ways to put a slip right that are tried."""


async def accounts(res: Resources, viewer: Viewer, text: str, *, limit: int) -> list[Listed]:
    """Accounts whose username or display name begins so, from any word on; one slip is forgiven.

    First whose username it is, then what begins so, then what does but for the slip; among these first whom the viewer follows, then
    by followers. Accounts that the viewer may not come across are not there.
    """
    sought = fold(text)
    async with res.db.acquire() as connection:
        named = await account_rows.ids_of_usernames(connection, [text.removeprefix("@").lower()])
        beginning = await _beginning_with(connection, viewer, sought, limit=limit + _SPARE)
        found = await access.among(connection, viewer, {*named.values(), *beginning})
        nearly: dict[int, tuple[Account, Relation]] = {}
        if len(found) < limit:
            ids = [
                account_id
                for corrected in await _corrections(connection, sought)
                for account_id in await search_rows.beginning_with(connection, corrected, limit=limit + _SPARE)
            ]
            nearly = await access.among(connection, viewer, set(ids) - found.keys())

    def rank(item: tuple[Account, Relation]) -> tuple[bool, bool, bool, int, int]:
        account, relation = item
        return (
            account.id not in named.values(),
            account.id in nearly,
            not relation.following,
            -account.follower_count,
            account.id,
        )

    best = sorted([*found.values(), *nearly.values()], key=rank)[:limit]
    return [
        Listed(account.id, account, None if account.id == viewer.account_id else relation) for account, relation in best
    ]


async def _beginning_with(connection: Connection, viewer: Viewer, sought: str, *, limit: int) -> list[int]:
    followed = await follow_rows.page_of_following(connection, viewer.account_id, below=MAX_ID, limit=_FOLLOWED)
    mine = await search_rows.beginning_with_among(connection, sought, [account_id for _, account_id in followed])
    return [*mine, *await search_rows.beginning_with(connection, sought, limit=limit)]


async def _corrections(connection: Connection, sought: str) -> list[str]:
    """What may have been meant, if one of the words is nobody's: with words that are a slip away, of the most popular accounts."""
    words = sought.split()
    found: list[str] = []
    for at, word in enumerate(words):
        if word not in words_of([word]):
            continue
        near = await search_rows.words_near(connection, word)
        if word not in near:
            found += [" ".join([*words[:at], other, *words[at + 1 :]]) for other in near if is_slip(word, other)]
    return found[:_CORRECTIONS]
