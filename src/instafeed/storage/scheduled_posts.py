"""Posts that wait for their time, and which posts they have become."""

from dataclasses import dataclass
from datetime import datetime

from asyncpg import Record

from instafeed.ids import lowest_at, shard_of
from instafeed.models import made_at
from instafeed.storage.database import Connection


@dataclass(frozen=True, slots=True)
class ScheduledPost:
    """One that waits, or, once it has a `post_id`, has become that post."""

    id: int
    author_id: int
    caption: str
    place: int
    """Among the author's, soonest first; no two have the same."""
    entry_id: int
    """Of the outbox's entry that waits for its time."""
    post_id: int | None = None

    @property
    def publish_at(self) -> datetime:
        """Its time, to the millisecond."""
        return made_at(self.place)


_COLUMNS = "id, author_id, caption, place, entry_id, post_id"


def _from_record(record: Record) -> ScheduledPost:
    return ScheduledPost(**dict(record))


async def free_place(connection: Connection, author_id: int, publish_at: datetime) -> int:
    """A place at this time that none of the author's has; the author's account is locked."""
    # Half a millisecond more, so that none is lost in the numbers' rounding.
    middle = publish_at.timestamp() + 0.0005
    lowest = lowest_at(middle)
    highest: int | None = await connection.fetchval(
        "select max(place) from scheduled_posts where shard = $1 and author_id = $2 and place >= $3 and place < $4"
        " and post_id is null",
        shard_of(author_id),
        author_id,
        lowest,
        lowest_at(middle + 0.001),
    )
    return lowest if highest is None else highest + 1


async def insert(connection: Connection, scheduled: ScheduledPost) -> None:
    """Add one."""
    await connection.execute(
        f"insert into scheduled_posts (shard, {_COLUMNS}) values ($1, $2, $3, $4, $5, $6, $7)",
        shard_of(scheduled.id),
        scheduled.id,
        scheduled.author_id,
        scheduled.caption,
        scheduled.place,
        scheduled.entry_id,
        scheduled.post_id,
    )


async def get(connection: Connection, scheduled_id: int) -> ScheduledPost | None:
    """One, which waits or is published."""
    record = await connection.fetchrow(
        f"select {_COLUMNS} from scheduled_posts where shard = $1 and id = $2", shard_of(scheduled_id), scheduled_id
    )
    return _from_record(record) if record else None


async def count(connection: Connection, author_id: int) -> int:
    """How many of the author's wait."""
    found: int = await connection.fetchval(
        "select count(*) from scheduled_posts where shard = $1 and author_id = $2 and post_id is null",
        shard_of(author_id),
        author_id,
    )
    return found


async def page(connection: Connection, author_id: int, *, above: int, limit: int) -> list[ScheduledPost]:
    """Those of the author's that wait, soonest first, with places above `above`."""
    records = await connection.fetch(
        f"select {_COLUMNS} from scheduled_posts where shard = $1 and author_id = $2 and place > $3 and post_id is null"
        " order by place limit $4",
        shard_of(author_id),
        author_id,
        above,
        limit,
    )
    return [_from_record(record) for record in records]


async def update(connection: Connection, scheduled: ScheduledPost) -> None:
    """Set everything of one but its author."""
    await connection.execute(
        "update scheduled_posts set caption = $3, place = $4, entry_id = $5, post_id = $6 where shard = $1 and id = $2",
        shard_of(scheduled.id),
        scheduled.id,
        scheduled.caption,
        scheduled.place,
        scheduled.entry_id,
        scheduled.post_id,
    )


async def delete(connection: Connection, scheduled_id: int) -> None:
    """Forget one."""
    await connection.execute(
        "delete from scheduled_posts where shard = $1 and id = $2", shard_of(scheduled_id), scheduled_id
    )


async def delete_of_post(connection: Connection, post_id: int) -> None:
    """Forget as what a post waited."""
    await connection.execute(
        "delete from scheduled_posts where shard = $1 and post_id = $2", shard_of(post_id), post_id
    )


async def of_author(connection: Connection, author_id: int, *, limit: int) -> list[ScheduledPost]:
    """Some of the author's, whether they wait or are published."""
    records = await connection.fetch(
        f"select {_COLUMNS} from scheduled_posts where shard = $1 and author_id = $2 limit $3",
        shard_of(author_id),
        author_id,
        limit,
    )
    return [_from_record(record) for record in records]
