"""A client that is generated from the document does what people do."""

import asyncio
import importlib
import importlib.util
import io
import json
import secrets
import sys
from collections.abc import AsyncIterator, Callable
from types import ModuleType
from typing import Any

import httpx
import pytest

from tests.client import PASSWORD, eventually
from tests.photos import jpeg

pytestmark = [
    pytest.mark.usefixtures("workers"),
    pytest.mark.skipif(
        importlib.util.find_spec("openapi_python_client") is None, reason="openapi-python-client is not installed"
    ),
]

PACKAGE = "generated_instafeed_client"
Load = Callable[[str], ModuleType]


@pytest.fixture(scope="module")
async def load(http: httpx.AsyncClient, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Load]:
    """Imports a module of the generated client."""
    folder = tmp_path_factory.mktemp("client")
    document = folder / "openapi.json"
    document.write_text((await http.get("/openapi.json")).text)
    config = folder / "config.json"
    config.write_text(json.dumps({"post_hooks": [], "package_name_override": PACKAGE}))
    command = ["-m", "openapi_python_client", "generate", "--meta", "none", "--fail-on-warning"]
    command += ["--path", str(document), "--config", str(config), "--output-path", str(folder / PACKAGE)]
    generator = await asyncio.create_subprocess_exec(
        sys.executable, *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await generator.communicate()
    assert generator.returncode == 0, said.decode()
    sys.path.insert(0, str(folder))
    yield lambda name: importlib.import_module(f"{PACKAGE}.{name}")
    sys.path.remove(str(folder))


async def test_a_generated_client_signs_up_follows_posts_and_reads(load: Load, base_url: str) -> None:
    client, models, types = load("client"), load("models"), load("types")

    async def call(handler: str, as_: Any, *args: Any, **options: Any) -> Any:
        return await asyncio.to_thread(load(f"api.{handler}").sync, *args, client=as_, **options)

    async def join() -> tuple[Any, Any]:
        body = models.NewAccount(username=f"g{secrets.token_hex(6)}", password=PASSWORD)
        with client.Client(base_url) as nobody:
            log_in = await call("accounts.create_account", nobody, body=body)
        return log_in.account, client.AuthenticatedClient(base_url, token=log_in.token)

    (author, authors), (_, followers) = await join(), await join()
    with authors, followers:
        assert author.viewer is None
        relation = await call("graph.follow_account", followers, author.id, body=models.FollowOptions(notify=False))
        assert relation.following
        assert not relation.notify
        photo = types.File(payload=io.BytesIO(jpeg()))
        media = await call("media.upload_media", authors, body=photo, idempotency_key="once")
        assert media.status == models.MediaStatus.PROCESSING
        caption = f"hello #harbour @{author.username}"
        body = models.NewPost(caption=caption, media=[models.NewPostPhoto(id=media.id, alt_text="A colour")])
        post = await call("posts.create_post", authors, body=body)

        async def in_feed() -> Any:
            return [item for item in (await call("feeds.get_feed", followers)).items if item.id == post.id]

        [seen] = await eventually(in_feed)
        assert (seen.caption, seen.author.username) == (caption, author.username)
        assert (seen.tags, [mention.account.id for mention in seen.mentions]) == (["harbour"], [author.id])
        assert (await call("feeds.list_tag_posts", followers, "harbour", limit=1)).items[0].id == post.id
        assert (await call("feeds.search_tags", followers, q="harb")).items
        found = await call("accounts.search_accounts", followers, q=author.username)
        assert found.items[0].viewer.following
        assert seen.media[0].status == models.MediaStatus.READY
        assert seen.media[0].alt_text == "A colour"
        assert {rendition.name for rendition in seen.media[0].renditions} >= {"640", "150"}
        assert (await call("posts.like_post", followers, post.id)).liked
        body = models.NewComment(text="Nice")
        comment = await call("posts.create_comment", followers, post.id, body=body)
        body = models.NewComment(text="Thanks", reply_to=comment.id)
        reply = await call("posts.create_comment", authors, post.id, body=body)
        [listed] = (await call("posts.list_comments", authors, post.id)).items
        assert (listed.id, listed.reply_to, listed.reply_count) == (comment.id, None, 1)
        assert (await call("posts.list_replies", authors, comment.id)).items == [reply]
        seen = await call("posts.get_post", followers, post.id)
        assert (seen.like_count, seen.comment_count, seen.viewer.liked, seen.viewer.saved) == (1, 2, True, False)
        assert await call("posts.delete_post", authors, post.id) is None
        problem = await call("posts.get_post", followers, post.id)
        assert isinstance(problem, models.Problem)
        assert problem.type_ == "/problems/not-found"
