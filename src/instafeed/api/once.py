"""`Idempotency-Key`: what is sent again is done once and answered the same.

Source of the header: IETF draft-ietf-httpapi-idempotency-key-header.
"""

import contextlib
import hashlib
import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Request, Response
from pydantic import BaseModel

from instafeed.api.dependencies import Res
from instafeed.api.strict_json import JsonRequest
from instafeed.errors import FieldError, IdempotencyConflict, IdempotencyMismatch, InstafeedError, Invalid, Unavailable
from instafeed.ids import random_shard, shard_of
from instafeed.resources import Resources
from instafeed.storage import idempotency
from instafeed.storage.idempotency import Found, Hold, Owner

KEY_CHARACTERS = 200
_KEPT_HEADERS = ("content-type", "location")
_HOLE = b"\0"
"""Stands for a secret in what is kept. JSON has no such byte."""


@dataclass(frozen=True, slots=True)
class AlreadyThere:
    """What `make` found in place of what it would have made; it is answered with 200."""

    found: BaseModel


class Once:
    """Creates something for one request, or answers what was answered when it came the first time."""

    def __init__(self, request: Request, res: Resources, key: str | None) -> None:
        self._request = request
        self._res = res
        self.key = key
        """The client's Idempotency-Key."""

    async def create(
        self,
        make: Callable[[int], Awaitable[BaseModel | AlreadyThere]],
        *,
        account_id: int | None,
        shard: int | None = None,
        location: str | None = None,
        secret: Callable[[int, str], str] | None = None,
    ) -> Response:
        """Answer 201 with what `make` makes.

        Args:
            make: makes the thing under the id it is given. Called again with the same id after a crash, it must find
                what it made.
            account_id: whose key it is, and whose shard the id gets; None for nobody's, and a random shard.
            shard: the id's shard, if it is another one.
            location: the path of the thing, with `{id}` for its id.
            secret: a text in the answer that must not be kept; it follows from the thing's id and the key.

        Raises:
            IdempotencyConflict: the first request is still under way.
            IdempotencyMismatch: the key was used for another request.
        """
        if shard is None:
            shard = random_shard() if account_id is None else shard_of(account_id)
        new_id = self._res.ids.next(shard)
        if self.key is None:
            return self._answer(await make(new_id), new_id, location)
        fingerprint = await self._fingerprint()
        async with self._res.db.acquire() as connection:
            hold = await idempotency.reserve(
                connection, Owner(account_id or 0), self.key, fingerprint=fingerprint, resource_id=new_id
            )
        hidden = secret(hold.resource_id, self.key).encode() if secret else _HOLE
        if isinstance(hold, Found):
            return self._replay(hold, fingerprint, hidden)
        try:
            response = self._answer(await make(hold.resource_id), hold.resource_id, location)
        except BaseException as error:
            await self._give_up(hold, error)
            raise
        # It is made: whatever happens now, the answer stands. A request that is sent again finds it by its id.
        with contextlib.suppress(Unavailable):
            async with self._res.db.acquire() as connection:
                headers = {name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers}
                body = bytes(response.body).replace(hidden, _HOLE)
                await idempotency.keep(connection, hold, status=response.status_code, headers=headers, body=body)
        return response

    def _replay(self, found: Found, fingerprint: bytes, hidden: bytes) -> Response:
        if not hmac.compare_digest(found.fingerprint, fingerprint):
            raise IdempotencyMismatch("Use a new Idempotency-Key for a new request.")
        if found.status is None:
            raise IdempotencyConflict("Ask again in a moment.", retry_after=1)
        headers = found.headers | {"Idempotency-Replayed": "true"}
        return Response(found.body.replace(_HOLE, hidden), found.status, headers=headers)

    async def _give_up(self, hold: Hold, error: BaseException) -> None:
        refused = isinstance(error, InstafeedError) and not isinstance(error, Unavailable)
        with contextlib.suppress(Unavailable):  # the lock ends by itself
            async with self._res.db.acquire() as connection:
                await (idempotency.forget if refused else idempotency.unlock)(connection, hold)

    async def _fingerprint(self) -> bytes:
        request = self._request
        told = [request.method, request.url.path + (f"?{request.url.query}" if request.url.query else "")]
        if isinstance(request, JsonRequest):
            body = await request.body()
        else:
            # A photo is not read twice: its length and digest stand for it.
            body = b""
            told += [",".join(request.headers.getlist(name)) for name in ("content-length", "content-digest")]
        secret = self._res.settings.secret_key.get_secret_value().encode()
        return hmac.digest(secret, "\0".join(told).encode() + b"\0" + body, hashlib.sha256)

    def _answer(self, made: BaseModel | AlreadyThere, new_id: int, location: str | None) -> Response:
        if isinstance(made, AlreadyThere):
            return Response(made.found.model_dump_json(), media_type="application/json")
        headers = {} if location is None else {"Location": location.format(id=new_id)}
        return Response(made.model_dump_json(), 201, headers=headers, media_type="application/json")


async def once(
    request: Request,
    res: Res,
    idempotency_key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            description="Any text of your choice, new for each new thing. A request that is sent again with it within 24"
            " hours is done once and answered the same.",
            max_length=KEY_CHARACTERS,
            examples=["7c9e6679-7425-40de-944b-e07fc1f90ae7"],
        ),
    ] = None,
) -> Once:
    """The request's Once."""
    if len(request.headers.getlist("idempotency-key")) > 1:
        raise Invalid("The request is not valid.", errors=(FieldError("Idempotency-Key", "Send one."),))
    if idempotency_key is not None and not (
        idempotency_key.isascii() and idempotency_key.isprintable() and idempotency_key
    ):
        raise Invalid("The request is not valid.", errors=(FieldError("Idempotency-Key", "Must be printable ASCII."),))
    return Once(request, res, idempotency_key)


OnceOnly = Annotated[Once, Depends(once)]
