"""`Idempotency-Key`: what is sent again is done once and answered the same.

Source of the header: IETF draft-ietf-httpapi-idempotency-key-header.
"""

import contextlib
import hashlib
import hmac
from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Header, Request, Response
from pydantic import BaseModel

from instafeed.api.dependencies import Res
from instafeed.errors import FieldError, IdempotencyConflict, IdempotencyMismatch, InstafeedError, Invalid, Unavailable
from instafeed.ids import random_shard, shard_of
from instafeed.resources import Resources
from instafeed.storage import idempotency
from instafeed.storage.idempotency import Owner

_KEPT_HEADERS = ("content-type", "location")


class Once:
    """Creates something for one request, or answers what was answered when it came the first time."""

    def __init__(self, request: Request, res: Resources, key: str | None) -> None:
        self._request = request
        self._res = res
        self.key = key
        """The client's Idempotency-Key."""

    async def create(
        self,
        make: Callable[[int], Awaitable[BaseModel]],
        *,
        account_id: int | None,
        location: str | None = None,
        keep: bool = True,
    ) -> Response:
        """Answer 201 with what `make` makes.

        Args:
            make: makes the thing under the id it is given. Called again with the same id after a crash, it must find
                what it made.
            account_id: whose key it is, and whose shard the id gets; None for nobody's, and a random shard.
            location: the path of the thing, with `{id}` for its id.
            keep: whether the answer is kept. If not (it holds a secret), `make` is called again and must answer alike.

        Raises:
            IdempotencyConflict: the first request is still under way.
            IdempotencyMismatch: the key was used for another request.
        """
        new_id = self._res.ids.next(random_shard() if account_id is None else shard_of(account_id))
        if self.key is None:
            return self._answer(await make(new_id), new_id, location)
        owner = Owner(account_id or 0)
        fingerprint = await self._fingerprint()
        async with self._res.db.acquire() as connection:
            found = await idempotency.reserve(connection, owner, self.key, fingerprint=fingerprint, resource_id=new_id)
        if not hmac.compare_digest(found.fingerprint, fingerprint):
            raise IdempotencyMismatch("Use a new Idempotency-Key for a new request.")
        if found.status is not None:
            return Response(found.body, found.status, headers=(found.headers or {}) | {"Idempotency-Replayed": "true"})
        if not found.mine:
            raise IdempotencyConflict("Ask again in a moment.", retry_after=1)
        try:
            response = self._answer(await make(found.resource_id), found.resource_id, location)
        except BaseException as error:
            await self._give_up(owner, self.key, error)
            raise
        # It is made: whatever happens now, the answer is 201. A request that is sent again finds it by its id.
        with contextlib.suppress(Unavailable):
            async with self._res.db.acquire() as connection:
                if keep:
                    headers = {name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers}
                    await idempotency.keep(
                        connection, owner, self.key, status=201, headers=headers, body=bytes(response.body)
                    )
                else:
                    await idempotency.unlock(connection, owner, self.key)
        return response

    async def _give_up(self, owner: Owner, key: str, error: BaseException) -> None:
        refused = isinstance(error, InstafeedError) and not isinstance(error, Unavailable)
        with contextlib.suppress(Unavailable):  # the lock ends by itself
            async with self._res.db.acquire() as connection:
                await (idempotency.forget if refused else idempotency.unlock)(connection, owner, key)

    async def _fingerprint(self) -> bytes:
        request = self._request
        told = [request.method, request.url.path]
        if request.headers.get("content-type", "").startswith("application/json"):
            body = await request.body()
        else:
            # A photo is not read twice: its length and digest stand for it.
            body = b""
            told += [request.headers.get(name, "") for name in ("content-length", "content-digest")]
        secret = self._res.settings.secret_key.get_secret_value().encode()
        return hmac.digest(secret, "\0".join(told).encode() + b"\0" + body, hashlib.sha256)

    def _answer(self, made: BaseModel, new_id: int, location: str | None) -> Response:
        headers = {} if location is None else {"Location": location.format(id=new_id)}
        return Response(made.model_dump_json(), 201, headers=headers, media_type="application/json")


def once(
    request: Request,
    res: Res,
    idempotency_key: Annotated[
        str | None,
        Header(
            description="Any text of your choice, new for each new thing. A request that is sent again with it within 24"
            " hours is done once and answered the same.",
            max_length=200,
        ),
    ] = None,
) -> Once:
    """The request's Once."""
    if idempotency_key is not None and not (
        idempotency_key.isascii() and idempotency_key.isprintable() and idempotency_key
    ):
        raise Invalid("The request is not valid.", errors=(FieldError("Idempotency-Key", "Must be printable ASCII."),))
    return Once(request, res, idempotency_key)


OnceOnly = Annotated[Once, Depends(once)]
