"""Finding accounts among a million, a page of a tag with a million posts of which the viewer may see none, and publishing with
one tag at once.

By hand: `python -m tests.bench.search [--runs 5]`. Names are put together from syllables: many share their beginnings.
"""

import asyncio
import itertools
import random
import time
from statistics import median

from instafeed import posts, search, tags
from instafeed.folding import slips, terms_of, words_of
from instafeed.ids import MAX_ID, IdMaker, random_shard, shard_of, shard_of_text
from instafeed.models import Viewer
from instafeed.resources import Resources, open_resources
from instafeed.storage.database import Connection
from instafeed.storage.search import level
from tests.bench.common import Options, Row, fresh_servers, p99, progress, run_alone
from tests.bench.community import loading
from tests.feeds.world import viewer

ACCOUNTS = 1_000_000
TAGGED = 1_000_000
TIMES = 40
WRITERS = 10
MOST_MS = 50
_CHUNK = 50_000
_SYLLABLES = "an be cha do el fi ga ha is jo ka la mi no or pe ri sa to vi wa"


async def bench(options: Options) -> list[Row]:
    """Searches of every kind, and a page of a tag."""
    count = options.size(ACCOUNTS, 20_000)
    async with fresh_servers() as settings, open_resources(settings) as res, loading(settings) as load:
        names = await _names(load.connection, count)
        await load.analyze()
        me = viewer(names[0][0])
        picked = random.Random(1).sample(names, TIMES)
        kinds = {
            "1 letter": [name[:1] for _, name in picked],
            "3 letters": [name[:3] for _, name in picked],
            "a first name": [name.split()[0] for _, name in picked],
            "a whole name": [name for _, name in picked],
            "a name with a slip": [_typo(name) for _, name in picked],
            "what nobody is called": [f"{name[::-1]}xq" for _, name in picked],
        }
        rows = []
        for kind, texts in kinds.items():
            progress(f"searching {kind}")
            rows += await _timed(res, me, f"search among {count:,} accounts: {kind}", texts, options)
        rows += await _tag(res, load.connection, me, names, options)
        return rows


async def _timed(res: Resources, me: Viewer, what: str, texts: list[str], options: Options) -> list[Row]:
    times, found = [], 0
    for _ in range(options.runs):
        for text in texts:
            began = time.perf_counter()
            found += bool(await search.accounts(res, me, text, limit=20))
            times.append((time.perf_counter() - began) * 1000)
    progress(f"found something for {found / options.runs:.0f} of {len(texts)}")
    return [Row(f"{what}, median", median(times), "ms", most=MOST_MS), Row(f"{what}, p99", p99(times), "ms")]


async def _names(connection: Connection, count: int) -> list[tuple[int, str]]:
    """Accounts with terms, but without passwords; one in a thousand has many followers."""
    progress(f"{count:,} accounts")
    chance, ids = random.Random(2), IdMaker()
    found: list[tuple[int, str]] = []
    words: dict[str, int] = {}
    await connection.execute("drop index search_terms_prefix, search_words_slips")
    while len(found) < count:
        accounts, terms = [], []
        for number in range(len(found), min(len(found) + _CHUNK, count)):
            name = f"{_word(chance, 2)} {_word(chance, 3)}"
            id_ = ids.next(random_shard())
            username = name.replace(" ", chance.choice("._")) + (_in_letters(number) if number % 2 else str(number))
            followers = chance.randrange(10_000, 1_000_000) if number % 1000 == 0 else chance.randrange(500)
            accounts.append((shard_of(id_), id_, username, name.title(), "", followers))
            own = terms_of(username, name)
            terms += [(shard_of(id_), id_, term, level(followers)) for term in own]
            for word in words_of(own):
                words[word] = max(level(followers), words.get(word, 0))
            found.append((id_, name))
        columns = ["shard", "id", "username", "display_name", "password_hash", "follower_count"]
        await connection.copy_records_to_table("accounts", records=accounts, columns=columns)
        columns = ["username", "account_id"]
        await connection.copy_records_to_table(
            "usernames", records=[(row[2], row[1]) for row in accounts], columns=columns
        )
        columns = ["shard", "account_id", "term", "level"]
        await connection.copy_records_to_table("search_terms", records=terms, columns=columns)
    progress(f"{len(words):,} words")
    columns = ["shard", "word", "level", "slips"]
    records = ((shard_of_text(word), word, popularity, slips(word)) for word, popularity in words.items())
    await connection.copy_records_to_table("search_words", records=records, columns=columns)
    progress("indexes")
    await connection.execute("create index search_terms_prefix on search_terms (level, term)")
    await connection.execute("create index search_words_slips on search_words using gin (slips)")
    await connection.execute("vacuum analyze search_terms, search_words")
    return found


def _word(chance: random.Random, syllables: int) -> str:
    return "".join(chance.choice(_SYLLABLES.split()) for _ in range(syllables))


def _in_letters(number: int) -> str:
    syllables = _SYLLABLES.split()
    return "".join(syllables[number // 20**place % 20] for place in range(5))


def _typo(name: str) -> str:
    middle = len(name) - 3
    return name[:middle] + "z" + name[middle + 1 :]


async def _tag(
    res: Resources, connection: Connection, me: Viewer, names: list[tuple[int, str]], options: Options
) -> list[Row]:
    """The worst page: all of the posts are of private accounts."""
    count = options.size(TAGGED, 20_000)
    progress(f"a tag with {count:,} posts")
    authors = [id_ for id_, _ in random.Random(3).sample(names, 10_000)]
    await connection.execute("update accounts set is_private = true where id = any($1::bigint[])", authors)
    ids, shard = IdMaker(), shard_of_text("hot")
    rows = [
        (shard, "hot", ids.next(shard_of(author)), author)
        for author in itertools.islice(itertools.cycle(authors), count)
    ]
    columns = ["shard", "tag", "post_id", "author_id"]
    await connection.copy_records_to_table("tagged_posts", records=rows, columns=columns)
    await connection.execute("analyze tagged_posts")
    times = []
    for _ in range(options.runs):
        began = time.perf_counter()
        page = await tags.posts_of(res, me, "hot", below=MAX_ID, limit=30)
        times.append((time.perf_counter() - began) * 1000)
        assert not page.items
    return [
        Row(f"page of a tag, none of {count:,} posts visible", median(times), "ms"),
        await _publishing(res, [id_ for id_, _ in names[-WRITERS:]], options),
    ]


async def _publishing(res: Resources, authors: list[int], options: Options) -> Row:
    """Whether a tag that everybody uses at once holds them up: against as many posts, each with a tag of its own."""
    progress("publishing with one tag")
    number = itertools.count()

    async def write(author: int, tag: str | None) -> None:
        for _ in range(options.size(50, 5)):
            post_id = res.ids.next(shard_of(author))
            caption = f"#{tag or f't{next(number)}'}"
            await posts.create(res, viewer(author), post_id, caption=caption, photos=[])

    async def rate(tag: str | None) -> float:
        began = time.perf_counter()
        await asyncio.gather(*(write(author, tag) for author in authors))
        return len(authors) * options.size(50, 5) / (time.perf_counter() - began)

    own, common = [], []
    for _ in range(options.runs):
        own.append(await rate(None))
        common.append(await rate("everybody"))
    return Row(f"{len(authors)} publish with one tag at once", median(common), "posts/s", median(own), least=0.8)


if __name__ == "__main__":
    run_alone(bench, __doc__)
