"""An S3 that fails to order: it stands before the real one and passes on what it is not told to spoil."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

Fault = Callable[[web.Request, "S3Proxy"], Awaitable[web.StreamResponse]]
Which = Callable[[web.Request], bool]


def put(request: web.Request) -> bool:
    """An object, or a part of one, is sent."""
    return request.method == "PUT"


def create(request: web.Request) -> bool:
    """A multipart upload begins."""
    return request.method == "POST" and "uploads" in request.query


def complete(request: web.Request) -> bool:
    """A multipart upload is to become an object."""
    return request.method == "POST" and "uploadId" in request.query


def parts(request: web.Request) -> bool:
    """Somebody asks which parts have arrived."""
    return request.method == "GET" and "uploadId" in request.query


def read(request: web.Request) -> bool:
    """An object is read."""
    return request.method == "GET" and "X-Amz-Signature" in request.query


def copy(request: web.Request) -> bool:
    """An object is copied."""
    return request.method == "PUT" and "x-amz-copy-source" in request.headers


def delete(request: web.Request) -> bool:
    """Objects are deleted."""
    return request.method == "POST" and "delete" in request.query


def listing(request: web.Request) -> bool:
    """Somebody asks which objects there are."""
    return request.method == "GET" and "list-type" in request.query


def listings(request: web.Request) -> bool:
    """Somebody asks which objects or which uploads in parts there are."""
    return listing(request) or (request.method == "GET" and "uploads" in request.query)


def first(which: Which) -> Which:
    """The first of such requests."""
    left = [True]
    return lambda request: which(request) and bool(left) and left.pop()


class S3Proxy:
    """Passes requests on, and notes how many bytes of bodies it has seen."""

    def __init__(self, upstream: str, session: aiohttp.ClientSession) -> None:
        self._upstream = upstream
        self._session = session
        self._fault: tuple[Which, Fault] | None = None
        self.seen: list[str] = []
        """Methods and queries of the requests so far."""
        self.body_bytes = 0
        """Bytes of bodies that were passed on so far."""
        self.url = ""

    @asynccontextmanager
    async def failing(self, which: Which, fault: Fault) -> AsyncIterator[None]:
        """Spoil the requests of a kind."""
        self._fault = which, fault
        try:
            yield
        finally:
            self._fault = None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve a request."""
        self.seen.append(f"{request.method} {request.path_qs.partition('X-Amz')[0]}")
        if self._fault and self._fault[0](request):
            return await self._fault[1](request, self)
        return await self.pass_on(request)

    async def pass_on(self, request: web.Request) -> web.StreamResponse:
        """Have the real one answer. The Host header stays, for it is signed."""

        async def body() -> AsyncIterator[bytes]:
            async for chunk in request.content.iter_any():
                self.body_bytes += len(chunk)
                yield chunk

        headers = CIMultiDict(request.headers)
        headers.popall("Connection", None)
        url = URL(self._upstream + request.raw_path, encoded=True)
        data = body() if request.can_read_body else None
        async with self._session.request(
            request.method, url, headers=headers, data=data, skip_auto_headers=["Content-Type", "User-Agent"]
        ) as answer:
            text = await answer.read()
            names = ("ETag", "Content-Type", *(["Content-Length"] if request.method == "HEAD" else []))
            kept = {name: answer.headers[name] for name in names if name in answer.headers}
            return web.Response(status=answer.status, body=text, headers=kept)


def answering(status: int, text: str = "") -> Fault:
    """Take the whole body, and say something else than what is true."""

    async def fault(request: web.Request, _: S3Proxy) -> web.StreamResponse:
        async for _chunk in request.content.iter_any():
            pass
        return web.Response(status=status, text=text, content_type="application/xml")

    return fault


def answering_early(status: int) -> Fault:
    """Refuse at once, without taking the body."""

    async def fault(_request: web.Request, _: S3Proxy) -> web.StreamResponse:
        return web.Response(status=status)

    return fault


async def resetting(request: web.Request, _: S3Proxy) -> web.StreamResponse:
    """Reset the connection when some of the body has come."""
    await request.content.readany()
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def losing_the_answer(request: web.Request, proxy: S3Proxy) -> web.StreamResponse:
    """Do what is asked for, and reset the connection instead of saying so."""
    await proxy.pass_on(request)
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def hanging(request: web.Request, _: S3Proxy) -> web.StreamResponse:
    """Take nothing and answer nothing."""
    await asyncio.Event().wait()
    return web.Response()


async def hanging_after(request: web.Request, proxy: S3Proxy) -> web.StreamResponse:
    """Do what is asked for, and never say so."""
    await proxy.pass_on(request)
    await asyncio.Event().wait()
    return web.Response()


@asynccontextmanager
async def running_s3_proxy(upstream: str) -> AsyncIterator[S3Proxy]:
    """The proxy on a port of its own."""
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        proxy = S3Proxy(upstream, session)
        app = web.Application(client_max_size=0)
        app.router.add_route("*", "/{path:.*}", proxy.handle)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        proxy.url = f"http://{host}:{port}"
        try:
            yield proxy
        finally:
            await runner.cleanup()
