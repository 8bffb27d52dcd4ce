"""What belongs to an account, in all tables: the one list of it. Leaving deletes by it, and proves by it that nothing is left.

A test holds it against the schema: each column that can name an account is in it, or in `KEPT` with a reason.
"""

from dataclasses import dataclass

from instafeed.ids import shard_of
from instafeed.storage.database import Connection
from instafeed.storage.outbox import Kind


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows whose `column` names the account, and on which nothing hangs."""

    table: str
    column: str
    anywhere: bool = False
    """They are at any shard, and an index on the column finds them. False: they are at the account's."""


@dataclass(frozen=True, slots=True)
class Edges:
    """Rows at the account's shard whose `column` names it and whose `other` names another account, or a post, at whose shard
    `twin`, with columns of the same names, has a row as well.
    """

    table: str
    column: str
    other: str
    twin: str

    @property
    def back(self) -> "Edges":
        """The same rows from their other ends."""
        return Edges(self.twin, self.other, self.column, self.table)


ROWS = (
    Rows("devices", "account_id"),
    Rows("sessions", "account_id"),
    Rows("idempotency_keys", "account_id"),
    Rows("warnings", "account_id"),
    Rows("mail_tokens", "account_id"),
    Rows("search_terms", "account_id"),
    Rows("followed_tags", "account_id"),
    Rows("mutes", "muter_id"),
    Rows("mutes", "muted_id", anywhere=True),
    Rows("activity", "account_id"),
    Rows("activity", "actor_id", anywhere=True),
    Rows("inboxes", "account_id"),
    Rows("undone", "account_id"),
    Rows("undone", "actor_id", anywhere=True),
)
"""A new table of this kind is one line here."""

_BLOCKS = Edges("blocks", "blocker_id", "blocked_id", "blocked_by")
_REQUESTS = Edges("requesting", "requester_id", "followee_id", "requesters")
SAVES = Edges("saves", "account_id", "post_id", "savers")
EDGES = (_BLOCKS, _BLOCKS.back, _REQUESTS, _REQUESTS.back, SAVES)
"""Edges that nothing counts."""

_FOLLOWERS = Edges("followers", "followee_id", "follower_id", "following")
FOLLOWS = (_FOLLOWERS, _FOLLOWERS.back)
"""Counted at both ends."""

LIKES = Edges("likes", "account_id", "post_id", "likers")
"""Counted at the post."""

STEPS = (
    Rows("commented", "account_id"),
    Rows("posts", "author_id"),
    Rows("scheduled_posts", "author_id"),
    Rows("media", "account_id"),
    Rows("uploads", "account_id"),
    Rows("exports", "account_id"),
    Rows("reports", "reporter_id", anywhere=True),
)
"""On these something hangs: a step of `leaving` deletes them with it."""

LAST = (
    Rows("admins", "account_id", anywhere=True),
    Rows("emails", "account_id", anywhere=True),
    Rows("accounts", "id"),
)
"""They go in one transaction, when everything else is gone."""

KEPT = {
    ("usernames", "account_id"): "held for 14 days, or others would be taken for who left; then it goes",
    ("audit_log", "admin_id"): "what admins did is never changed; it is an id",
    ("audit_log", "account_id"): "what admins did is never changed; it is an id",
    ("audit_log", "subject_id"): "what admins did is never changed; it is an id",
    ("report_cases", "account_id"): "a decision stays known, by ids; open cases of the account go",
    ("report_cases", "subject_id"): "a decision stays known, by ids; open cases of the account go",
    ("report_cases", "resolved_by"): "a decision stays known, by ids",
    ("warnings", "subject_id"): "is the warned account's own, and goes with it",
    ("activity", "subject_id"): "is what `actor_id` posted or did, and goes with it",
    ("undone", "subject_id"): "is a post of the one whom it concerned",
    ("inboxes", "preferences"): "names no accounts",
    ("comments", "mentions"): "is what others wrote; who left is left out when it is read",
    ("counters", "subject_id"): "is a post or a comment",
    ("comments", "author_id"): "goes with its row of `commented`",
    ("tagged_posts", "author_id"): "goes with its post",
    ("posts", "mentions"): "is what others wrote; who left is left out when it is read",
    ("outbox", "payload"): "work names accounts by ids, and is forgotten some days after it is done",
}
"""Columns that can name an account that left, and why they do."""

_OPEN_CASES = "report_cases where shard = $1 and account_id = $2 and resolved_at is null"


def _where(rows: Rows) -> str:
    # Both parameters in every statement.
    shard = "$1::smallint is not null" if rows.anywhere else "shard = $1"
    return f"{shard} and {rows.column} = $2"


async def delete_rows(connection: Connection, rows: Rows, account_id: int, *, limit: int) -> int:
    """Delete about `limit` of the account's rows; returns how many it were, 0 when none is left."""
    where = _where(rows)
    # A place says nothing of the partition: of other partitions the condition leaves only what is to go as well.
    status = await connection.execute(
        f"delete from {rows.table} where {where} and ctid = any(array(select ctid from {rows.table} where {where} limit $3))",
        shard_of(account_id),
        account_id,
        limit,
    )
    return _count(status)


def _count(status: str) -> int:
    return int(status.rpartition(" ")[2])


async def others(connection: Connection, edges: Edges, account_id: int, *, limit: int) -> list[int]:
    """At most `limit` accounts at the other ends of the account's edges."""
    records = await connection.fetch(
        f"select {edges.other} from {edges.table} where shard = $1 and {edges.column} = $2 limit $3",
        shard_of(account_id),
        account_id,
        limit,
    )
    return [record[0] for record in records]


async def delete_edges(connection: Connection, edges: Edges, account_id: int, other_ids: list[int]) -> list[int]:
    """Delete the account's edges with these others, whose rows are locked; returns with whom there was one."""
    records = await connection.fetch(
        f"delete from {edges.table} where shard = $1 and {edges.column} = $2 and {edges.other} = any($3::bigint[])"
        f" returning {edges.other}",
        shard_of(account_id),
        account_id,
        other_ids,
    )
    await connection.execute(
        f"delete from {edges.twin} where shard = any($1::smallint[]) and {edges.other} = any($2::bigint[])"
        f" and {edges.column} = $3",
        list({shard_of(id_) for id_ in other_ids}),
        other_ids,
        account_id,
    )
    return [record[0] for record in records]


async def delete_stored(connection: Connection, table: str, account_id: int, *, limit: int) -> list[tuple[int, str]]:
    """Delete at most `limit` rows of `media`, `uploads` or `exports`; returns their ids and object keys."""
    records = await connection.fetch(
        f"delete from {table} where shard = $1 and id = any(array(select id from {table} where shard = $1 and account_id = $2"
        " limit $3)) returning id, object_key",
        shard_of(account_id),
        account_id,
        limit,
    )
    return [(record["id"], record["object_key"]) for record in records]


async def delete_reports(connection: Connection, account_id: int, *, limit: int) -> int:
    """Delete about `limit` of what the account reported; an open case without any report goes too. Returns how many."""
    records = await connection.fetch(
        "select shard, case_id from reports where reporter_id = $1 limit $2", account_id, limit
    )
    for shard, case_id in records:
        # The case first, as whoever adds a report does.
        await connection.execute(
            "update report_cases set report_count = report_count - 1 where shard = $1 and id = $2", shard, case_id
        )
        await connection.execute(
            "delete from reports where shard = $1 and case_id = $2 and reporter_id = $3", shard, case_id, account_id
        )
        await connection.execute(
            "delete from report_cases where shard = $1 and id = $2 and resolved_at is null and report_count = 0",
            shard,
            case_id,
        )
    return len(records)


async def delete_open_case(connection: Connection, account_id: int, *, limit: int) -> bool:
    """Delete at most `limit` reports of an open case of the account, and with the last ones the case; False if there is none."""
    shard = shard_of(account_id)
    case_id = await connection.fetchval(f"select id from {_OPEN_CASES} limit 1 for update", shard, account_id)
    if case_id is None:
        return False
    status = await connection.execute(
        "delete from reports where shard = $1 and case_id = $2 and reporter_id = any(array(select reporter_id from reports"
        " where shard = $1 and case_id = $2 limit $3))",
        shard,
        case_id,
        limit,
    )
    if _count(status) < limit:
        await connection.execute("delete from report_cases where shard = $1 and id = $2", shard, case_id)
    return True


async def left(connection: Connection, account_id: int) -> dict[str, int]:
    """How many rows of the account are left, by table and column, as far as a thousand; of an edge its own side is counted.

    In one statement: what is just moved from one table to another one is seen in one of them.
    """
    counted = [f"{rows.table} where {_where(rows)}" for rows in (*ROWS, *STEPS)]
    counted += [f"{edges.table} where shard = $1 and {edges.column} = $2" for edges in (*EDGES, *FOLLOWS, LIKES)]
    names = [f"{owned.table}.{owned.column}" for owned in (*ROWS, *STEPS, *EDGES, *FOLLOWS, LIKES)]
    counted.append(_OPEN_CASES)
    names.append("report_cases.account_id")
    records = await connection.fetch(
        " union all ".join(
            f"select '{name}' as name, count(*) as count from (select from {source} limit 1000) as rows_left"
            for name, source in zip(names, counted, strict=True)
        ),
        shard_of(account_id),
        account_id,
    )
    return {record["name"]: record["count"] for record in records}


async def delete_account(connection: Connection, account_id: int) -> bool:
    """Delete what goes last, the account's own row among it, which is locked; False if it was gone."""
    counts = [
        _count(
            await connection.execute(f"delete from {rows.table} where {_where(rows)}", shard_of(account_id), account_id)
        )
        for rows in LAST
    ]
    return bool(counts[-1])


async def export_keys(connection: Connection, account_id: int) -> list[str]:
    """The objects of the account's exports of the last days."""
    records = await connection.fetch(
        "select distinct payload ->> 'key' as key from outbox"
        " where shard = $1 and kind = $3 and payload -> 'account' = to_jsonb($2::bigint)",
        shard_of(account_id),
        account_id,
        Kind.EXPORT,
    )
    return [record["key"] for record in records]


async def object_keys(connection: Connection, account_id: int) -> list[str]:
    """The object keys of the account's photos that were deleted in the last days, in a lasting order."""
    records = await connection.fetch(
        "select jsonb_array_elements_text(payload -> 'object_keys') as key, id from outbox"
        " where shard = $1 and kind = $3 and payload -> 'author' = to_jsonb($2::bigint)"
        " union all select payload ->> 'key', id from outbox"
        " where shard = $1 and kind = $4 and payload -> 'account' = to_jsonb($2::bigint) order by id, key",
        shard_of(account_id),
        account_id,
        Kind.RETRACT,
        Kind.DISCARD,
    )
    return [record["key"] for record in records]


@dataclass(frozen=True, slots=True)
class Departure:
    """An account that is being deleted, and what the last try said that failed."""

    account_id: int
    entry_id: int
    dead: bool
    error: str | None


async def departures(connection: Connection) -> list[Departure]:
    """All that is not done. Names no shard: only operators ask."""
    records = await connection.fetch(
        "select id, payload -> 'account' as account, dead_at is not null as dead, error from outbox"
        " where done_at is null and kind = $1 order by id",
        Kind.ERASE,
    )
    return [Departure(record["account"], record["id"], record["dead"], record["error"]) for record in records]
