"""deploy/nginx does what it is there for, in front of the real API and the real store."""

import asyncio
import contextlib
import gzip
import hashlib
import json
import re
import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from instafeed.api.problems import KINDS
from instafeed.dev.process import Child
from instafeed.settings import MIB
from instafeed.storage.s3_signing import Signer
from tests.client import Client, eventually, http_client
from tests.deploy.compose import COMPOSE, DEPLOY
from tests.deploy.running import HOST, Machine, nginx_command, program, write_nginx
from tests.photos import jpeg, large_jpeg
from tests.ports import free_ports

if program("nginx") is None:
    pytest.skip("nginx is not installed", allow_module_level=True)

API_HOST = "api.example.org"


_GIVEN_UP = 'instafeed_uploads_total{outcome="MediaIncomplete"}'


def nginx_version() -> tuple[int, ...]:
    """Of the nginx that is installed here."""
    command = program("nginx")
    assert command is not None
    found = subprocess.run([command, "-v"], capture_output=True, text=True, check=True).stderr
    return tuple(map(int, re.findall(r"nginx/(\d+)\.(\d+)\.(\d+)", found)[0]))


async def _counted(machine: Machine, name: str) -> float:
    """The sum of a counter of the APIs."""
    async with http_client() as http:
        texts = [(await http.get(f"{machine.url(name)}/metrics")).text for name in ("api-1", "api-2")]
    return sum(float(n) for text in texts for n in re.findall(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE))


async def _received(machine: Machine) -> float:
    """Bytes of photos that have reached the APIs so far."""
    return await _counted(machine, "instafeed_upload_bytes_total")


def _logged(log: Path) -> list[dict[str, Any]]:
    """What nginx has logged of requests, but for a line that is just being written."""
    return [json.loads(line) for line in log.read_text().split("\n")[:-1] if line.startswith("{")]


def _problem(answer: httpx.Response) -> dict[str, Any]:
    """The problem that the answer says, seen to be one that clients know."""
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    kind = KINDS[problem["type"].removeprefix("/problems/")]
    assert (problem["title"], problem["status"]) == (kind.title, kind.status)
    assert problem["status"] == answer.status_code
    assert problem.keys() == {"type", "title", "status", "detail", "request_id", "errors"}
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert answer.headers["cache-control"] == "no-store"
    return problem


def test_nginx_takes_the_configuration_of_the_image(tmp_path: Path) -> None:
    """As it is mounted, but for what needs the containers' names and a newer nginx."""
    port, photos, health = free_ports(3)
    conf = write_nginx(tmp_path, None, port=port, photos=photos, health=health)
    if nginx_version() < (1, 27, 3):  # `resolve` is newer
        for servers in tmp_path.glob("*-servers.conf"):
            servers.write_text(re.sub(r"server [\w-]+:(\d+) resolve", r"server 127.0.0.1:\1", servers.read_text()))
    done = subprocess.run([*nginx_command(conf), "-t"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "[warn]" not in done.stderr


async def test_a_post_goes_all_the_way_to_a_follower_and_back(nginx: Machine, phone: httpx.AsyncClient) -> None:
    author, follower = await Client.sign_up(phone), await Client.sign_up(phone)
    await follower.follow(author)
    post = await author.post("through nginx")
    await follower.sees(post["id"], seconds=30)
    [seen] = (await follower.call("GET", "/v1/feed"))["items"]
    async with http_client() as anywhere:
        for rendition in seen["media"][0]["renditions"]:
            assert rendition["url"].startswith(f"{nginx.url('photos')}/instafeed/renditions/")
            answer = await anywhere.get(rendition["url"], headers={"Origin": "https://web.example.org"})
            assert answer.status_code == 200
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers.get_list("access-control-allow-origin") == ["*"]
            assert answer.headers["content-type"] == rendition["content_type"]
            assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
            assert len(answer.content) == rendition["bytes"]
            part = await anywhere.get(rendition["url"], headers={"Range": "bytes=2-5"})
            assert (part.status_code, part.content) == (206, answer.content[2:6])


async def test_parts_of_an_upload_go_through(phone: httpx.AsyncClient) -> None:
    client = await Client.sign_up(phone)
    photo = large_jpeg(6 * MIB, seed=11)
    about = {"size": len(photo), "sha256": hashlib.sha256(photo).hexdigest()}
    upload = await client.call("POST", "/v1/media/uploads", 201, json=about)
    path, size = f"/v1/media/uploads/{upload['id']}", upload["part_size"]
    for number, start in enumerate(range(0, len(photo), size), 1):
        await client.call("PUT", f"{path}/parts/{number}", 204, content=photo[start : start + size])
    assert (await client.call("POST", f"{path}/complete", 201))["status"] == "processing"


async def test_a_client_that_vanishes_ends_its_upload(nginx: Machine, phone: httpx.AsyncClient) -> None:
    client = await Client.sign_up(phone)
    given_up, received = await _counted(nginx, _GIVEN_UP), await _received(nginx)
    _, writer = await asyncio.open_connection(HOST, nginx.ports["nginx"])
    head = f"POST /v1/media HTTP/1.1\r\nHost: {API_HOST}\r\nAuthorization: Bearer {client.token}\r\nContent-Length: {MIB}\r\n\r\n"
    writer.write(head.encode() + large_jpeg(MIB)[:300_000])

    async def came() -> bool:
        return await _received(nginx) > received

    async def heard() -> bool:
        return await _counted(nginx, _GIVEN_UP) > given_up

    await eventually(came)
    writer.transport.abort()
    await eventually(heard)


async def test_an_upload_reaches_the_api_while_it_is_sent(nginx: Machine, phone: httpx.AsyncClient) -> None:
    client = await Client.sign_up(phone)
    photo = large_jpeg(3 * MIB)
    before = await _received(nginx)
    early = 0.0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal early
        yield photo[:MIB]

        async def came() -> bool:
            return await _received(nginx) - before >= MIB

        await eventually(came)
        early = await _received(nginx) - before
        yield photo[MIB:]

    headers = {"Content-Length": str(len(photo))}
    media = await client.call("POST", "/v1/media", 201, content=pieces(), headers=headers)
    assert early == MIB
    assert media["status"] == "processing"


async def test_a_form_goes_through_too(phone: httpx.AsyncClient) -> None:
    client = await Client.sign_up(phone)
    post = await client.call("POST", "/v1/posts/form", 201, files={"photo": ("photo.jpg", large_jpeg(2 * MIB))})
    assert (await client.published(post["id"]))["id"] == post["id"]


@pytest.mark.parametrize("path", ["/v1/media", "/v1/posts/form"])
async def test_a_refusal_is_heard_in_the_middle_of_an_upload(phone: httpx.AsyncClient, path: str) -> None:
    for _ in range(5):
        answer = await phone.post(path, content=large_jpeg(8 * MIB))
        assert answer.status_code == 401, answer.text
        _problem(answer)


async def test_too_large_is_said_before_it_is_sent(nginx: Machine) -> None:
    for path, length, slug in (
        ("/v1/media", 42 * MIB, "media-too-large"),
        ("/v1/posts/form", 42 * MIB, "media-too-large"),
        ("/v1/media/uploads/1/parts/1", 7 * MIB, "media-too-large"),
        ("/v1/accounts", MIB, "body-too-large"),
    ):
        reader, writer = await asyncio.open_connection(HOST, nginx.ports["nginx"])
        writer.write(f"POST {path} HTTP/1.1\r\nHost: {API_HOST}\r\nContent-Length: {length}\r\n\r\n".encode())
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
        assert head.startswith(b"HTTP/1.1 413 ")
        assert b"application/problem+json" in head
        body = await reader.readexactly(int(re.findall(rb"(?i)content-length: (\d+)", head)[0]))
        assert json.loads(body)["type"] == f"/problems/{slug}"
        writer.close()


async def test_a_body_without_a_length_is_bounded_too(phone: httpx.AsyncClient) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield b" " * 8192

    headers = {"Content-Type": "application/json"}
    answer = await phone.post("/v1/accounts", content=endless(), headers=headers)
    assert answer.status_code == 413
    _problem(answer)


async def test_the_apis_own_refusal_of_a_body_comes_through(phone: httpx.AsyncClient) -> None:
    headers = {"Content-Type": "application/json"}
    answer = await phone.post("/v1/accounts", content=b" " * 140_000, headers=headers)
    assert _problem(answer)["detail"] == "A body has at most 131072 bytes."


async def test_events_come_as_they_happen(phone: httpx.AsyncClient) -> None:
    author, follower = await Client.sign_up(phone), await Client.sign_up(phone)
    await follower.follow(author)
    async with phone.stream("GET", "/v1/feed/events", headers=follower.headers) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = stream.aiter_lines()
        first = await asyncio.wait_for(anext(lines), 20)
        assert first.startswith("retry:")
        post = await author.post("live")
        async with asyncio.timeout(30):
            async for line in lines:
                if line.startswith("data:"):
                    assert post["id"] in line
                    break


@pytest.mark.parametrize(
    "path", ["/metrics", "/metrics?x=1", "//metrics", "/./metrics", "/%6detrics", "/v1/../metrics", "/v1/..%2fmetrics"]
)
async def test_metrics_are_not_there_for_the_public(nginx: Machine, path: str) -> None:
    reader, writer = await asyncio.open_connection(HOST, nginx.ports["nginx"])
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {API_HOST}\r\nConnection: close\r\n\r\n".encode())
    text = (await reader.read()).decode()
    writer.close()
    assert text.startswith("HTTP/1.1 404 ")
    assert "process_" not in text


async def test_what_nginx_hides_looks_like_what_is_not_there(phone: httpx.AsyncClient) -> None:
    headers = {"X-Request-Id": "the-same-id-for-both"}
    hidden = await phone.get("/metrics", headers=headers)
    missing = await phone.get("/nothing", headers=headers)
    assert hidden.content == missing.content
    assert _problem(hidden)["request_id"] == "the-same-id-for-both"
    assert {name: value for name, value in hidden.headers.items() if name != "date"} == {
        name: value for name, value in missing.headers.items() if name != "date"
    }


async def test_json_is_compressed(phone: httpx.AsyncClient) -> None:
    async with phone.stream("GET", "/openapi.json", headers={"Accept-Encoding": "gzip"}) as answer:
        raw = b"".join([piece async for piece in answer.aiter_raw()])
    assert answer.headers["content-encoding"] == "gzip"
    assert "openapi" in json.loads(gzip.decompress(raw))


async def test_nginx_does_not_tell_its_version(phone: httpx.AsyncClient) -> None:
    assert (await phone.get("/livez")).headers["server"] == "nginx"


class TestPhotos:
    """What the photos' server lets through."""

    def _signed(self, nginx: Machine, key: str, *, host: str = "", method: str = "GET") -> str:
        signer = Signer(
            endpoint=f"http://{host}" if host else nginx.url("photos"),
            region="us-east-1",
            bucket="instafeed",
            access_key=COMPOSE.values["S3_ACCESS_KEY"],
            secret_key=COMPOSE.values["S3_SECRET_KEY"],
        )
        return signer.url(method, key, at=time.time(), seconds=600)

    async def _put(self, nginx: Machine, key: str) -> None:
        url = self._signed(nginx, key, host=f"{HOST}:{nginx.ports['seaweedfs']}", method="PUT")
        async with http_client() as http:
            assert (await http.put(url, content=jpeg())).status_code == 200

    async def test_a_signed_rendition_is_given_and_nothing_else(self, nginx: Machine) -> None:
        for key in ("renditions/a/1080.jpg", "originals/a"):
            await self._put(nginx, key)
        async with http_client() as http:
            url = self._signed(nginx, "renditions/a/1080.jpg")
            assert (await http.get(url)).content == jpeg()
            assert (await http.get(url, headers={"X-Forwarded-Host": "elsewhere", "Cookie": "a=b"})).content == jpeg()
            # Not signed, or for something else.
            assert (await http.get(url.partition("?")[0])).status_code == 403
            assert (await http.get(url.replace("1080", "640"))).status_code == 403
            # An original stays inside, however well it is signed; so do the list and the rest of S3.
            for key in ("originals/a", "renditions/../originals/a", "", "?list-type=2"):
                answer = await http.get(self._signed(nginx, key))
                assert answer.status_code == 404, key
                assert "type" in _problem(answer)
            for method in ("PUT", "POST", "DELETE", "OPTIONS"):
                answer = await http.request(method, self._signed(nginx, "renditions/a/1080.jpg", method=method))
                assert answer.status_code == 405
                _problem(answer)
            assert (await http.get(url)).content == jpeg()

    async def test_the_name_for_photos_works_on_the_apis_port(self, nginx: Machine) -> None:
        await self._put(nginx, "renditions/b/1080.jpg")
        url = self._signed(nginx, "renditions/b/1080.jpg", host="photos.example.org")
        path = url.removeprefix("http://photos.example.org")
        async with http_client() as http:
            answer = await http.get(nginx.url("nginx") + path, headers={"Host": "photos.example.org"})
            assert answer.content == jpeg()
            assert (await http.get(nginx.url("nginx") + path, headers={"Host": API_HOST})).status_code == 404

    async def test_a_photo_is_fetched_once_and_its_url_is_the_key(self, nginx: Machine) -> None:
        await self._put(nginx, "renditions/c/1080.jpg")
        url = self._signed(nginx, "renditions/c/1080.jpg")
        async with http_client() as http:
            answers = [await http.get(url, headers={"Origin": f"https://{name}.example.org"}) for name in "abc"]
            assert [answer.content for answer in answers] == [jpeg()] * 3
            for spoilt in (url.partition("?")[0], url[:-1] + ("0" if url[-1] != "0" else "1")):
                assert (await http.get(spoilt)).status_code == 403

        async def logged() -> list[dict[str, Any]]:
            lines = _logged(nginx.log("nginx"))
            found = [line for line in lines if line["path"].endswith("/c/1080.jpg")]
            return found if len(found) == 5 else []

        lines = await eventually(logged)
        assert [line["cache"] for line in lines[:3]] == ["MISS", "HIT", "HIT"]

    async def test_no_signature_is_in_the_log(self, nginx: Machine) -> None:
        async with http_client() as http:
            await http.get(self._signed(nginx, "renditions/none/1080.jpg"))

        async def logged() -> bool:
            return "/instafeed/renditions/none/1080.jpg" in nginx.log("nginx").read_text()

        await eventually(logged)
        text = nginx.log("nginx").read_text()
        assert "X-Amz-Signature" not in text
        assert all(line["status"] for line in _logged(nginx.log("nginx")))


async def test_nginx_is_healthy_while_it_answers(nginx: Machine) -> None:
    command = nginx.health("nginx")
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    assert (await nginx.run("nginx", command))[0] == 0
    assert (await nginx.run("nginx", nginx.health("nginx", port=free_ports(1)[0])))[0] != 0


async def test_no_request_fails_while_an_api_is_replaced(nginx: Machine, phone: httpx.AsyncClient) -> None:
    client = await Client.sign_up(phone)
    stop = asyncio.Event()
    statuses: list[int] = []

    async def read() -> None:
        while not stop.is_set():
            statuses.append((await phone.get("/v1/limits", headers=client.headers)).status_code)
            await asyncio.sleep(0.01)

    reading = [asyncio.create_task(read()) for _ in range(4)]
    await asyncio.sleep(0.3)
    assert await nginx.stop("api-1") in {0, -signal.SIGTERM}
    await asyncio.sleep(0.3)
    await nginx.start("api-1")
    await nginx.answers("api-1", "/livez")
    await asyncio.sleep(0.3)
    stop.set()
    await asyncio.gather(*reading)
    assert set(statuses) == {200}


async def test_no_request_fails_when_an_api_dies_but_one_that_must_not_be_done_twice(
    nginx: Machine, phone: httpx.AsyncClient
) -> None:
    reader, liker, writer = [await Client.sign_up(phone) for _ in range(3)]
    post = await writer.post("liked")
    await writer.published(post["id"])
    path = f"/v1/posts/{post['id']}"
    comment = {"text": "hello"}

    async def shared() -> bool:
        # One that was restarted a moment ago may be left alone by nginx for 2 s.
        await asyncio.gather(*(reader.call("GET", path) for _ in range(4)), asyncio.sleep(0.1))
        logged = _logged(nginx.log("nginx"))
        asked = {line["upstream"] for line in logged if line["path"] == path}
        return asked >= {nginx.url(name).removeprefix("http://") for name in ("api-1", "api-2")}

    await eventually(shared)
    stop = asyncio.Event()
    statuses: dict[str, list[int]] = {"GET": [], "PUT": [], "POST": []}

    async def ask(client: Client, method: str, path: str, **options: Any) -> None:
        while not stop.is_set():
            answer = await phone.request(method, path, headers=client.headers, **options)
            statuses[method].append(answer.status_code)

    async def many_more() -> bool:
        return all(len(of_one) > seen + 25 for of_one, seen in zip(statuses.values(), before, strict=True))

    asking = [asyncio.create_task(ask(reader, "GET", "/v1/feed")) for _ in range(2)]
    asking += [asyncio.create_task(ask(liker, "PUT", f"{path}/like"))]
    asking += [asyncio.create_task(ask(writer, "POST", f"{path}/comments", json=comment)) for _ in range(2)]
    try:
        before = [0] * 3
        await eventually(many_more)
        nginx.children["api-1"].send(signal.SIGKILL)
        before = [len(of_one) for of_one in statuses.values()]
        await eventually(many_more)
    finally:
        stop.set()
        await nginx.stop("api-1")
        await nginx.start("api-1")
        await nginx.answers("api-1", "/readyz")
    await asyncio.gather(*asking)
    assert set(statuses["GET"]) == set(statuses["PUT"]) == {200}
    # What was under way may have been done. Its client asks again, with its Idempotency-Key.
    posted = statuses["POST"]
    assert len(posted) - posted.count(201) == posted.count(503) <= 2
    made = (await reader.call("GET", path))["comment_count"]
    assert posted.count(201) <= made <= len(posted)


async def test_what_is_under_way_is_finished_when_nginx_is_reloaded_or_stopped(
    nginx: Machine, phone: httpx.AsyncClient
) -> None:
    # On a connection of its own: those that are idle are closed, 0.1 s after a reload, whatever is on its way to them.
    alone = {"Connection": "close"}
    client = await Client.sign_up(phone)
    photo = large_jpeg(MIB, seed=5)

    async def upload(go_on: asyncio.Event) -> Any:
        async def pieces() -> AsyncIterator[bytes]:
            yield photo[:300_000]
            await go_on.wait()
            yield photo[300_000:]

        return await client.call("POST", "/v1/media", 201, content=pieces(), headers=alone)

    async def asks() -> int:
        return (await phone.get("/livez", headers=alone)).status_code

    async def refuses() -> bool:
        try:
            await asks()
        except httpx.TransportError:
            return True
        return False

    for number in (signal.SIGHUP, signal.SIGQUIT):
        before = await _received(nginx)
        go_on = asyncio.Event()
        uploading = asyncio.create_task(upload(go_on))

        async def came(before: float = before) -> bool:
            return await _received(nginx) > before

        await eventually(came)
        nginx.children["nginx"].send(number)
        if number == signal.SIGHUP:
            assert {await asks() for _ in range(20)} == {200}
        else:
            await eventually(refuses)
        go_on.set()
        assert (await uploading)["status"] == "processing"
    assert await nginx.children["nginx"].wait() == 0
    await nginx.start("nginx")
    await nginx.answers("nginx", "/", url=nginx.url("nginx-health"))


class Echo:
    """An upstream that answers with what it got, as text."""

    def __init__(self) -> None:
        self.connections = 0
        self.tls_port = 0
        self.requests: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.connections += 1
        try:
            while True:
                self.requests.append((await reader.readuntil(b"\r\n\r\n")).decode(errors="replace"))
                large = b" " * (16 * MIB if self.requests[-1].startswith("GET /large ") else 0)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(large), large))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


@pytest.fixture
async def echo(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[tuple[Echo, str]]:
    """An echo behind nginx, and nginx's address; nothing listens behind the photos' server.

    A parameter is added to proxies.conf. Slow clients are cut sooner, for tests' sake.
    """
    echo = Echo()
    port, photos, health, nowhere, tls = free_ports(5)
    async with await asyncio.start_server(echo.serve, HOST, 0) as server:
        behind = server.sockets[0].getsockname()[1]
        upstreams = f"""
            upstream api {{ server {HOST}:{behind}; keepalive 4; }}
            upstream photos {{ server {HOST}:{nowhere}; }}
        """
        conf = write_nginx(tmp_path, upstreams, port=port, photos=photos, health=health)
        text = conf.read_text()
        for patience in ("client_header_timeout 10s", "send_timeout 15s"):
            assert patience in text
            text = text.replace(f" {patience}", f" {patience.split()[0]} 3s")
        conf.write_text(text)
        _write_tls(tmp_path, tls)
        with (tmp_path / "proxies.conf").open("a") as proxies:
            proxies.write(getattr(request, "param", ""))
        with (tmp_path / "log").open("ab") as log:
            child = await Child.start(nginx_command(conf), environ={}, output=log)
        try:

            async def listens() -> bool:
                assert child.running, (tmp_path / "log").read_text()
                with socket.socket() as attempt:
                    return attempt.connect_ex((HOST, health)) == 0

            await eventually(listens)
            echo.tls_port = tls
            yield echo, f"http://{HOST}:{port}"
        finally:
            await child.stop(signal.SIGTERM, seconds=5)


async def test_processes_may_be_replaced_without_a_pause(tmp_path: Path) -> None:
    """One is back, and nginx would still leave it alone for two seconds, when the other one goes."""
    port, photos, health, *behind = free_ports(5)
    conf = write_nginx(tmp_path, None, port=port, photos=photos, health=health)
    places = {f"api-{n}:8000 resolve": f"{HOST}:{place}" for n, place in enumerate(behind, 1)}
    for servers in tmp_path.glob("*-servers.conf"):
        text = servers.read_text().replace("seaweedfs:8333 resolve", f"{HOST}:{photos}")
        for name, place in places.items():
            text = text.replace(name, place)
        servers.write_text(text)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    upstreams = [await asyncio.start_server(answer, HOST, place) for place in behind]
    with (tmp_path / "log").open("ab") as log:
        child = await Child.start(nginx_command(conf), environ={}, output=log)
    try:
        async with http_client(base_url=f"http://{HOST}:{port}") as http:

            async def answers() -> bool:
                with contextlib.suppress(httpx.ConnectError):
                    return (await http.get("/")).status_code == 200
                return False

            await eventually(answers)
            for at, gone in enumerate(behind):
                upstreams[at].close()
                assert {(await http.post("/")).status_code for _ in range(6)} == {200}
                upstreams[at] = await asyncio.start_server(answer, HOST, gone)
            upstreams[0].close()
            assert {(await http.post("/")).status_code for _ in range(6)} == {200}
    finally:
        await child.stop(signal.SIGTERM, seconds=5)
        for upstream in upstreams:
            upstream.close()


def _write_tls(folder: Path, port: int) -> None:
    """The example of TLS with a certificate of ours."""
    text = (DEPLOY / "nginx/tls.example.conf").read_text()
    text = text.replace("listen 8443", f"listen {HOST}:{port}").replace("/etc/nginx/tls/", f"{folder}/")
    if nginx_version() < (1, 25, 1):  # `http2` was said in another way
        text = text.replace("http2 on;", "").replace(" ssl;", " ssl http2;", 1)
    (folder / "tls.conf").write_text(text)
    make = shlex.split(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=api.example.org"
    )
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "chain.pem")]
    subprocess.run(["openssl", *make, *files], check=True, capture_output=True)


async def test_tls_may_end_in_nginx(echo: tuple[Echo, str], tmp_path: Path) -> None:
    upstream, _ = echo
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")

    async def curl(*options: str, name: str = "api.example.org") -> tuple[int, str]:
        place = f"{name}:{upstream.tls_port}"
        command = ["curl", "-sS", "--noproxy", "*", "--cacert", str(tmp_path / "chain.pem"), *options]
        command += ["--resolve", f"{place}:{HOST}", "-w", "%{http_version} %{http_code}", "-o", "/dev/null"]
        process = await asyncio.create_subprocess_exec(
            *command, f"https://{place}/", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        output, _ = await process.communicate()
        return process.returncode or 0, output.decode()

    assert await curl("--http2") == (0, "2 200")
    assert await curl("--http1.1") == (0, "1.1 200")
    assert (await curl("--tls-max", "1.1", "--ciphers", "ALL:@SECLEVEL=0"))[0] != 0
    # The photos' server answers to its name here too.
    assert await curl("--insecure", name="photos.example.org") == (0, "2 404")
    assert len(upstream.requests) == 2


async def test_a_flood_of_log_ins_is_held_off(echo: tuple[Echo, str]) -> None:
    upstream, url = echo
    async with http_client(base_url=url) as http:
        answers = await asyncio.gather(*(http.post("/v1/%73essions") for _ in range(150)))
        refused = [answer for answer in answers if answer.status_code == 429]
        assert 0 < len(refused) < 130
        assert len(upstream.requests) == 150 - len(refused)
        assert _problem(refused[0])["type"] == "/problems/rate-limited"
        assert refused[0].headers["retry-after"] == "5"
        # Whoever is logged in looks at their devices.
        assert {(await http.get("/v1/sessions")).status_code for _ in range(30)} == {200}


async def _send_slowly(port: int, said: bytes) -> bytes:
    """Send a byte at a time for as long as it is let; returns what is answered, nothing if it is cut."""
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(said)
    try:
        while True:
            with contextlib.suppress(TimeoutError):
                return await asyncio.wait_for(reader.read(4096), 0.5)
            writer.write(b"x")
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def _read_slowly(port: int, said: bytes) -> None:
    """Read a byte at a time until the connection is cut."""
    loop = asyncio.get_running_loop()
    with socket.socket() as client, contextlib.suppress(ConnectionError):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        await loop.sock_connect(client, (HOST, port))
        await loop.sock_sendall(client, said)
        # What came before it was cut could still be read.
        while await loop.sock_recv(client, 1) and not client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):  # noqa: ASYNC110
            await asyncio.sleep(0.5)


async def test_slow_clients_are_cut_off_and_harm_nobody(echo: tuple[Echo, str]) -> None:
    upstream, url = echo
    port = int(url.rpartition(":")[2])
    slow_headers = b"GET / HTTP/1.1\r\nHost: x\r\nX: "
    slow_body = b"POST /v1/accounts HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\n{"
    slow_read = b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n"
    async with asyncio.TaskGroup() as slow, http_client(base_url=url) as http:
        cut: list[asyncio.Task[Any]] = [slow.create_task(_send_slowly(port, slow_headers)) for _ in range(100)]
        cut += [slow.create_task(_read_slowly(port, slow_read)) for _ in range(10)]
        bodies = [slow.create_task(_send_slowly(port, slow_body)) for _ in range(230)]

        async def done() -> bool:
            assert (await http.get("/v1/feed")).status_code == 200
            refused = [task.result() for task in bodies if task.done()]
            assert all(b" 429 " in said for said in refused)
            return len(refused) == 30 and all(task.done() for task in cut)

        await eventually(done, seconds=90)
        assert not any(request.startswith("POST") for request in upstream.requests), (
            "what is not complete is kept from it"
        )
        for task in bodies:
            task.cancel()


async def test_a_line_of_the_log_is_json_whatever_was_asked_for(echo: tuple[Echo, str], tmp_path: Path) -> None:
    _, url = echo
    asked = (
        b"/a\xff\xc3(b",
        b'/"quoted"\\',
        b"/%ff",
        b"/%22%0a",
        b"/" + "\N{SNOWMAN}".encode(),
        b"/a/../b?token=secret",
    )
    for path in asked:
        reader, writer = await asyncio.open_connection(HOST, int(url.rpartition(":")[2]))
        head = b'Host: h\xff"\r\nUser-Agent: \xff"\x01\r\nX-Request-Id: \xff"quoted\r\nConnection: close\r\n\r\n'
        writer.write(b"GET " + path + b" HTTP/1.1\r\n" + head)
        await reader.read()
        writer.close()

    async def logged() -> list[bytes]:
        found = [line for line in (tmp_path / "log").read_bytes().split(b"\n")[:-1] if line.startswith(b"{")]
        return found if len(found) == len(asked) else []

    paths = [json.loads(line.decode())["path"] for line in await eventually(logged)]
    assert paths == ["/a", '/"quoted"\\', "/%ff", "/%22%0a", "/", "/a/../b"]


async def test_the_api_learns_who_asks_for_what(echo: tuple[Echo, str]) -> None:
    upstream, url = echo
    async with http_client(base_url=url) as http:
        spoofed = {"X-Forwarded-For": "6.6.6.6", "Host": "api.example.org:8443", "X-Request-Id": "mine-1234"}
        await http.get("/v1/posts/a%2Fb?cursor=%20x", headers=spoofed)
        await http.get("/", headers={"X-Request-Id": "no good id!"})
        await http.get("/")
    first, second, third = upstream.requests
    assert first.startswith("GET /v1/posts/a%2Fb?cursor=%20x HTTP/1.1\r\n")
    assert re.findall(r"(?im)^x-forwarded-for: *(.*)\r$", first) == [HOST]
    assert re.findall(r"(?im)^host: *(.*)\r$", first) == ["api.example.org:8443"]
    assert re.findall(r"(?im)^x-request-id: *(.*)\r$", first) == ["mine-1234"]
    assert not re.findall(r"(?im)^connection: *(.*)\r$", first)
    ids = [re.findall(r"(?im)^x-request-id: *(.*)\r$", request)[0] for request in (second, third)]
    assert all(re.fullmatch(r"[0-9a-f]{32}", id_) for id_ in ids)
    assert ids[0] != ids[1]
    assert upstream.connections == 1


@pytest.mark.parametrize("echo", [f"set_real_ip_from {HOST};\n"], indirect=True)
async def test_a_balancer_in_front_is_believed_when_it_is_named(echo: tuple[Echo, str]) -> None:
    upstream, url = echo
    async with http_client(base_url=url) as http:
        await http.get("/", headers={"X-Forwarded-For": "6.6.6.6, 203.0.113.7"})
    assert re.findall(r"(?im)^x-forwarded-for: *(.*)\r$", upstream.requests[0]) == ["203.0.113.7"]


async def test_nothing_behind_it_is_a_problem_that_passes(echo: tuple[Echo, str], tmp_path: Path) -> None:
    _, url = echo
    async with http_client(base_url=url, headers={"Host": "photos.example.org"}) as http:
        answer = await http.get("/instafeed/renditions/a.jpg?X-Amz-Signature=secret")
    assert _problem(answer)["type"] == "/problems/unavailable"
    assert answer.headers["retry-after"] == "2"
    assert "secret" not in (tmp_path / "log").read_text()


async def test_what_is_no_request_is_refused_in_the_same_words(echo: tuple[Echo, str]) -> None:
    upstream, url = echo
    async with http_client(base_url=url) as http:
        assert _problem(await http.get("/", headers={"X-Large": "x" * 20_000}))["status"] == 431
        assert _problem(await http.get("/" + "x" * 20_000))["status"] == 400
    for nonsense in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01 a TLS hello\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"):
        reader, writer = await asyncio.open_connection(HOST, int(url.rpartition(":")[2]))
        writer.write(nonsense)
        said = await asyncio.wait_for(reader.read(), 20)
        assert said.startswith(b"HTTP/1.1 400 "), said
        assert b'"status":400' in said
        writer.close()
    assert not upstream.requests
