"""The first page against a join in Django: readers of 200 and of 1,000 accounts among a million posts, one process each, the same
PostgreSQL, JSON of the same fields (ours are signed for S3; Django's URLs are ready in its table).

Django is installed by whoever runs this, away from our own packages:

    pip install --target <folder> 'django>=5' 'psycopg[binary]' gunicorn
    PEERS=<folder> python -m tests.bench.django_join [--runs 5]

Needs wrk.
"""

import asyncio
import json
import os
import random
import sys
from pathlib import Path
from statistics import median

from instafeed.settings import Settings
from tests.bench.common import Options, Row, fresh_servers, progress, run_alone
from tests.bench.community import Loader, a_site, loading, new_accounts
from tests.bench.http import Load, free_port, has_wrk, pages, program, wrk
from tests.processes import running_api_process

AUTHORS = 20_000
POSTS = 1_000_000
FOLLOWEES = (200, 1000)
READERS = 20
WITH_PHOTOS = 30_000
SECONDS = 3
MODULE = "tests.bench.peers.django_feed"


async def bench(options: Options) -> list[Row]:
    """Both numbers of followees."""
    folder = os.environ.get("PEERS")
    if folder is None or not Path(folder, "django").is_dir():
        progress("skipped: PEERS names no folder with Django, see tests/bench/django_join.py")
        return []
    if not has_wrk():
        return []
    rows = []
    async with (
        fresh_servers() as settings,
        loading(settings) as load,
        running_api_process(settings) as api,
    ):
        authors, posts = await a_site(load, options.size(AUTHORS, 2000), options.size(POSTS, 50_000))
        readers = new_accounts(len(FOLLOWEES) * READERS)
        groups = [readers[at : at + READERS] for at in range(0, len(readers), READERS)]
        await load.accounts(readers)
        for number, some in zip(FOLLOWEES, groups, strict=True):
            await load.follows(
                [(reader, author) for reader in some for author in random.Random(reader).sample(authors, number)]
            )
        # Whoever is read at all: the first pages.
        await load.photos(posts[-options.size(WITH_PHOTOS, 10_000) :])
        tokens = await load.tokens(readers)
        await load.analyze()
        url = _url(settings)
        environ = {"FEED_DATABASE": url, "PYTHONPATH": f"{folder}:{os.getcwd()}"}  # noqa: PTH109 - a string is wanted
        progress("filling Django's tables")
        await _install(environ)
        await _copy(load, tokens)
        port = free_port()
        how = "-w 1 -k gthread --threads 4 --keep-alive 75 --log-level error"
        command = [sys.executable, "-m", "gunicorn", *how.split(), "-b", f"127.0.0.1:{port}", f"{MODULE}:application"]
        async with program(f"http://127.0.0.1:{port}", command, environ) as django:
            for number, at in zip(FOLLOWEES, range(0, len(readers), READERS), strict=True):
                log_ins = tokens[at : at + READERS]
                ours = json.loads(await pages(api.url, log_ins))
                theirs = json.loads(await pages(django.url, log_ins))
                found = [[post["id"] for post in page["items"]] for page in (ours, theirs)]
                assert found[0] == found[1], "the pages are the same"
                progress(f"against Django, {number:,} followees")
                plain, fast = list[Load](), list[Load]()
                for _ in range(options.runs):
                    plain.append(await wrk(django, log_ins, seconds=options.size(SECONDS, 1)))
                    fast.append(await wrk(api, log_ins, seconds=options.size(SECONDS, 1)))
                rates = [median(load.rate for load in loads) for loads in (fast, plain)]
                what = f"first page, {number:,} followees, {len(posts):,} posts, against a join in Django"
                rows.append(Row(what, rates[0], "pages/s", rates[1], least=12))
    return rows


def _url(settings: Settings) -> str:
    return settings.database_url.get_secret_value()


async def _install(environ: dict[str, str]) -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", f"import {MODULE} as peer; peer.install()", env={**os.environ, **environ}
    )
    assert await child.wait() == 0


async def _copy(load: Loader, tokens: list[str]) -> None:
    execute = load.connection.execute
    await execute(
        "insert into peers_account (id, username, display_name) select id, username, display_name from accounts"
    )
    await load.copy("peers_token", "key account_id", [(token, int(token.partition(".")[0])) for token in tokens])
    await execute("insert into peers_follow (follower_id, followee_id) select follower_id, followee_id from following")
    await execute(
        "insert into peers_post (id, author_id, caption, published_at) select id, author_id, caption, published_at from posts"
        " order by id"
    )
    await execute(
        "insert into peers_photo (post_id, blurhash, width, height, renditions)"
        " select post_id, blurhash, width, height, (select jsonb_agg(jsonb_build_object('name', r->'name', 'url',"
        " 'https://photos.example.com/instafeed/' || (r->>'key') || '?signature=' || repeat('x', 260),"
        " 'width', r->'width', 'height', r->'height', 'content_type', r->'content_type', 'bytes', r->'size'))"
        " from jsonb_array_elements(renditions) r) from media order by post_id"
    )
    await load.analyze()


if __name__ == "__main__":
    run_alone(bench, __doc__)
