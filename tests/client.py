"""A person with a phone: what the tests do through HTTP, in few words."""

import asyncio
import itertools
import secrets
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

from tests.photos import jpeg

PASSWORD = "correct horse battery staple"
_numbers = itertools.count()
_NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
T = TypeVar("T")

NO_RELATION = dict.fromkeys(("following", "requested", "followed_by", "blocking", "muting", "notify"), False)
"""How strangers stand to each other."""


def http_client(**options: Any) -> httpx.AsyncClient:
    """A client that trusts no certificates: to read all that httpx would trust takes 20 ms, in each of thousands of tests. It is
    patient, for a machine may be slow.
    """
    defaults: dict[str, Any] = {"verify": _NO_CERTIFICATES, "timeout": 30}
    return httpx.AsyncClient(**(defaults | options))


async def eventually(probe: Callable[[], Awaitable[T]], *, seconds: float = 30) -> T:
    """What `probe` returns as soon as it is true; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        found = await probe()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {seconds} s: {probe}"
        await asyncio.sleep(0.02)


@dataclass
class Client:
    """A log-in of an account."""

    http: httpx.AsyncClient
    account: dict[str, Any]
    token: str

    @classmethod
    async def sign_up(cls, http: httpx.AsyncClient, username: str | None = None, **fields: Any) -> "Client":
        """Make an account, with a name of its own if none is given."""
        name = username or f"user{next(_numbers)}.{secrets.token_hex(5)}"
        answer = await http.post("/v1/accounts", json={"username": name, "password": PASSWORD, **fields})
        assert answer.status_code == 201, answer.text
        return cls(http, answer.json()["account"], answer.json()["token"])

    @property
    def id(self) -> str:
        """The account's id."""
        found: str = self.account["id"]
        return found

    @property
    def headers(self) -> dict[str, str]:
        """What authenticates a request."""
        return {"Authorization": f"Bearer {self.token}"}

    async def call(self, method: str, path: str, status: int = 200, **options: Any) -> Any:
        """Send a request and return the JSON of its answer, which must have `status`."""
        headers = self.headers | options.pop("headers", {})
        answer = await self.http.request(method, path, headers=headers, **options)
        assert answer.status_code == status, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    async def follow(self, other: "Client") -> None:
        """Follow somebody."""
        await self.call("PUT", f"/v1/accounts/{other.id}/follow")

    async def unfollow(self, other: "Client") -> None:
        """Unfollow somebody."""
        await self.call("DELETE", f"/v1/accounts/{other.id}/follow", 204)

    async def block(self, other: "Client") -> None:
        """Block somebody."""
        await self.call("PUT", f"/v1/accounts/{other.id}/block", 204)

    async def unblock(self, other: "Client") -> None:
        """Unblock somebody."""
        await self.call("DELETE", f"/v1/accounts/{other.id}/block", 204)

    async def mute(self, other: "Client") -> None:
        """Mute somebody."""
        await self.call("PUT", f"/v1/accounts/{other.id}/mute", 204)

    async def unmute(self, other: "Client") -> None:
        """Unmute somebody."""
        await self.call("DELETE", f"/v1/accounts/{other.id}/mute", 204)

    async def approve(self, other: "Client") -> None:
        """Let somebody follow who asked to."""
        await self.call("PUT", f"/v1/me/follow-requests/{other.id}", 204)

    async def refuse(self, other: "Client") -> None:
        """Refuse somebody who asked to follow."""
        await self.call("DELETE", f"/v1/me/follow-requests/{other.id}", 204)

    async def remove_follower(self, other: "Client") -> None:
        """Have somebody follow no more."""
        await self.call("DELETE", f"/v1/me/followers/{other.id}", 204)

    async def edit(self, **fields: Any) -> dict[str, Any]:
        """Change one's account."""
        found: dict[str, Any] = await self.call("PATCH", "/v1/me", json=fields)
        return found

    async def relation(self, other: "Client") -> dict[str, Any]:
        """How one stands to somebody."""
        found: dict[str, Any] = (await self.call("GET", f"/v1/accounts/{other.id}"))["viewer"]
        return found

    async def upload(self, data: bytes | None = None, **options: Any) -> dict[str, Any]:
        """Upload a photo."""
        content = jpeg() if data is None else data
        found: dict[str, Any] = await self.call("POST", "/v1/media", 201, content=content, **options)
        return found

    async def ready(self, media_id: str) -> dict[str, Any]:
        """The photo, once it is ready or failed."""

        async def probe() -> dict[str, Any] | None:
            media: dict[str, Any] = await self.call("GET", f"/v1/media/{media_id}")
            return media if media["status"] != "processing" else None

        found = await eventually(probe)
        assert found is not None
        return found

    async def post(self, caption: str = "", photos: int = 1) -> dict[str, Any]:
        """Post generated photos."""
        media = [{"id": (await self.upload())["id"]} for _ in range(photos)]
        found: dict[str, Any] = await self.call("POST", "/v1/posts", 201, json={"caption": caption, "media": media})
        return found

    async def published(self, post_id: str) -> dict[str, Any]:
        """The post, once it is published."""

        async def probe() -> dict[str, Any] | None:
            post: dict[str, Any] = await self.call("GET", f"/v1/posts/{post_id}")
            return post if post["published_at"] else None

        found = await eventually(probe)
        assert found is not None
        return found

    async def feed(self, limit: int = 30) -> list[str]:
        """The ids of the whole home feed, read page by page to its end."""
        return await self.walk("/v1/feed", limit)

    async def walk(self, path: str, limit: int = 30) -> list[str]:
        """The ids of a whole list, read page by page."""
        ids: list[str] = []
        cursor = None
        while True:
            params = {"limit": str(limit)} | ({"cursor": cursor} if cursor else {})
            page = await self.call("GET", path, params=params)
            ids += [item["id"] for item in page["items"]]
            cursor = page["next_cursor"]
            if cursor is None:
                return ids

    async def sees(self, post_id: str, *, seconds: float = 30) -> None:
        """Wait until the post is in the feed."""

        async def probe() -> bool:
            page = await self.call("GET", "/v1/feed")
            return post_id in [item["id"] for item in page["items"]]

        await eventually(probe, seconds=seconds)
