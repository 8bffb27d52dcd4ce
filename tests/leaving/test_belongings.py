"""The list of what belongs to an account, beside the schema."""

from instafeed.storage import belongings
from tests.feeds.world import World

# What names something else, in whichever table.
_NO_ACCOUNT = {
    "id",
    "post_id",
    "post_ids",
    "entry_id",
    "place",
    "case_id",
    "session_id",
    "resource_id",
    "read_id",
    "pushed_id",
    "mailed_id",
    "comment_id",
    "parent_id",
    "avatar_id",
    "avatar",
    "tags",
    "level",
    "slips",
    "slot",
    "likes",
    "comments",
    "size",
    "photos",
    "photos_done",
    "width",
    "height",
    "part_size",
    "position",
    "shard",
    "version",
    "attempts",
    "status",
    "delivery",
    "post_count",
    "follower_count",
    "following_count",
    "report_count",
    "renditions",
    "camera",
    "headers",
}


async def test_every_column_that_can_name_an_account_is_deleted_by_or_kept_for_a_reason(world: World) -> None:
    found = await world.sql(
        "select table_name || '.' || column_name from information_schema.columns where table_schema = 'public'"
        " and data_type in ('bigint', 'integer', 'smallint', 'numeric', 'jsonb', 'ARRAY') and table_name !~ '_[0-7]$'"
        " and not column_name = any($1::text[]) or table_name = 'accounts' and column_name = 'id'"
        " and table_schema = 'public'",
        list(_NO_ACCOUNT),
    )
    listed = [(rows.table, rows.column) for rows in (*belongings.ROWS, *belongings.STEPS, *belongings.LAST)]
    for edges in (*belongings.EDGES, *belongings.FOLLOWS, belongings.LIKES):
        listed += [(edges.table, edges.column), (edges.twin, edges.column)]
    texts = {"report_cases.reasons"}
    assert {*found} - texts == {f"{table}.{column}" for table, column in {*listed, *belongings.KEPT}}
    assert not set(listed) & {*belongings.KEPT}
    assert all(belongings.KEPT.values())
