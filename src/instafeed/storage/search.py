"""Terms by which accounts are found. Searches ask all shards: who is sought may be on any."""

from collections.abc import Iterable

from instafeed.folding import slips, words_of
from instafeed.ids import shard_of, shard_of_text
from instafeed.storage.database import Connection

_LEVELS = 10
_NEAR = 200
_LAST = "\U0010ffff"


def level(followers: int) -> int:
    """How popular an account with so many followers is."""
    return len(str(followers)) - 1


async def put(connection: Connection, account_id: int, terms: Iterable[str], *, followers: int) -> None:
    """Let the account be found by these terms, and by no others."""
    kept = list(terms)
    await connection.execute(
        "delete from search_terms where shard = $1 and account_id = $2 and term <> all($3::text[])",
        shard_of(account_id),
        account_id,
        kept,
    )
    await connection.execute(
        "insert into search_terms (shard, account_id, term, level) select $1, $2, term, $4 from unnest($3::text[]) as term"
        " on conflict do nothing",
        shard_of(account_id),
        account_id,
        kept,
        level(followers),
    )
    await _put_words(connection, words_of(kept), level(followers))


async def _put_words(connection: Connection, words: set[str], popularity: int) -> None:
    names = sorted(words)
    shards = [shard_of_text(word) for word in names]
    await connection.executemany(
        "insert into search_words (shard, word, level, slips) values ($1, $2, $3, $4) on conflict do nothing",
        [(shard, word, popularity, slips(word)) for shard, word in zip(shards, names, strict=True)],
    )
    await _raise_words(connection, words, popularity)


async def _raise_words(connection: Connection, words: set[str], popularity: int) -> None:
    # Each by itself, in their order: of two accounts with the same words neither waits for the other's end.
    await connection.executemany(
        "update search_words set level = $3 where shard = $1 and word = $2 and level < $3",
        [(shard_of_text(word), word, popularity) for word in sorted(words)],
    )


async def set_level(connection: Connection, account_id: int, *, followers: int) -> None:
    """Note that the account has so many followers now."""
    records = await connection.fetch(
        "update search_terms set level = $3 where shard = $1 and account_id = $2 returning term",
        shard_of(account_id),
        account_id,
        level(followers),
    )
    await _raise_words(connection, words_of(record["term"] for record in records), level(followers))


# Each level has its own range of the index: however many terms begin so, no more than these are read.
_POPULAR = " union all ".join(
    f"(select account_id, level from search_terms where level = {number} and term >= $1 and term <= $2 order by term limit $3)"
    for number in reversed(range(_LEVELS))
)


async def beginning_with(connection: Connection, prefix: str, *, limit: int) -> list[int]:
    """Accounts with a term that begins so, the most popular first."""
    records = await connection.fetch(
        f"select account_id, max(level) as level from ({_POPULAR}) as found group by account_id"
        " order by level desc, account_id limit $3",
        prefix,
        prefix + _LAST,
        limit,
    )
    return [record["account_id"] for record in records]


async def beginning_with_among(connection: Connection, prefix: str, account_ids: Iterable[int]) -> list[int]:
    """Those of the accounts with a term that begins so."""
    wanted = list(account_ids)
    records = await connection.fetch(
        "select distinct account_id from search_terms where shard = any($1::smallint[]) and account_id = any($2::bigint[])"
        " and term >= $3 and term <= $4",
        list({shard_of(id_) for id_ in wanted}),
        wanted,
        prefix,
        prefix + _LAST,
    )
    return [record["account_id"] for record in records]


async def words_near(connection: Connection, word: str) -> list[str]:
    """Words that are, or may be, one slip away from this one, of the most popular accounts first; it itself, if anybody has it."""
    # Materialised: for the first few the planner would read the table from its beginning.
    records = await connection.fetch(
        "with near as materialized (select word, level from search_words where slips && $1::integer[])"
        " select word from near order by word <> $2, level desc, word limit $3",
        slips(word),
        word,
        _NEAR,
    )
    return [record["word"] for record in records]
