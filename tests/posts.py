"""Posts that are there at once, without photos."""

from instafeed.ids import shard_of
from instafeed.resources import Resources
from instafeed.storage import accounts as account_rows
from tests.client import Client


async def publish(res: Resources, author: Client) -> str:
    """Give somebody a published post; returns its id."""
    post_id = res.ids.next(shard_of(int(author.id)))
    async with res.db.acquire() as connection:
        await connection.execute(
            "insert into posts (shard, id, author_id, caption, published_at) values ($1, $2, $3, '', now())",
            shard_of(post_id),
            post_id,
            int(author.id),
        )
        await account_rows.count(connection, {int(author.id): (1, 0, 0)})
    return str(post_id)
