"""Logs and Sentry, of an API and a worker in processes of their own: what is in them, and what never is."""

import asyncio
import hashlib
import json
import secrets
import sys
from collections import Counter
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import asyncpg
import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import SecretStr

from instafeed.settings import Settings
from instafeed.version import VERSION
from tests.client import PASSWORD, Client, eventually, http_client
from tests.mail import CONFIRM, RESET, Mailbox
from tests.photos import jpeg
from tests.processes import environ_of, running_api_process, running_worker
from tests.push.sns import FCM
from tests.relay import running_relay
from tests.sentry import Sentry, running_sentry
from tests.storage.test_cdn_signing import pem

_ADDRESS = "203.0.113.77"
_BROWSER = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"

_ERRORS = """
import os, sentry_sdk
from instafeed import telemetry
from instafeed.settings import Settings
telemetry.set_up(Settings.from_environ(os.environ), process="test")
for _ in range(40):
    sentry_sdk.capture_exception(ValueError())
sentry_sdk.flush()
"""

# Faults that a database can have, each of which quotes what it was about.
_FAULTS = """
create function fail() returns trigger language plpgsql as
    $$ begin raise exception 'no room for %', new using detail = new::text, hint = new::text; end $$;
create trigger fail before insert on posts for each row execute function fail();
alter table accounts add constraint short check (length(bio) < 20) not valid;
create trigger fail before update on media for each row when (new.status = 'ready') execute function fail();
create trigger fail before update on outbox for each row
    when (new.kind = 'export' and new.done_at is not null) execute function fail();
"""


def lines(log: Path) -> list[dict[str, Any]]:
    """What a process logged: every line is JSON, but the one that is just being written."""
    return [json.loads(line) for line in log.read_bytes().split(b"\n")[:-1]]


@pytest.fixture
def told(fresh_settings: Settings, tmp_path: Path) -> Settings:
    """Settings under which processes say all that they say in production."""
    (tmp_path / "mails").mkdir()
    changes = {
        "log_level": "info",
        "mail_url": SecretStr((tmp_path / "mails").as_uri()),
        "trusted_proxies": ("127.0.0.0/8",),
        "push_pause_seconds": 0,
        "sns_fcm_application": FCM,
        "sns_endpoint": "http://127.0.0.1:9",  # nobody is there
        "web_push_key": SecretStr(secrets.token_urlsafe(32)),
        "web_push_anywhere": "on",
        "media_cdn_url": "https://photos.example.org",
        "media_cdn_key_pair_id": "K2JCJMDEHXQW5F",
        "media_cdn_private_key": SecretStr(pem(ec.generate_private_key(ec.SECP256R1()))),
    }
    return Settings.model_validate(fresh_settings.model_dump() | changes)


async def test_a_post_is_followed_through_the_logs_by_its_id(told: Settings, tmp_path: Path) -> None:
    api_log, worker_log = tmp_path / "api.log", tmp_path / "worker.log"
    sent = [f"request-{secrets.token_hex(8)}" for _ in range(4)]
    in_chunks = told.model_copy(update={"fan_out_chunk": 1})
    async with (
        running_api_process(told, log=api_log) as api,
        http_client(base_url=api.url) as http,
    ):
        author, friend, other = [await Client.sign_up(http) for _ in range(3)]
        await friend.call("PUT", f"/v1/accounts/{author.id}/follow", json={"notify": True})
        await other.follow(author)
        post = await author.post("at the harbour")
        for request_id, path in zip(sent, ["/v1/feed", "/v1/nowhere", "/v1/posts/1", "/v1/me"], strict=True):
            await http.get(path, headers={"X-Request-Id": request_id} | (author.headers if path == "/v1/feed" else {}))
        async with running_worker(in_chunks, log=worker_log):

            async def notified() -> bool:
                return any(line.get("kind") == "notify" for line in lines(worker_log))

            await eventually(notified, seconds=60)
    found = [line for line in lines(api_log) + lines(worker_log) if line.get("post") == post["id"]]
    found.sort(key=lambda line: line["timestamp"])
    trace = [(line["process"], line["event"], line.get("route") or line["kind"]) for line in found]
    assert trace[0] == ("api", "request", "/v1/posts")
    assert found[0]["status"] == 201
    assert found[0]["account"] == author.id
    assert {(process, event) for process, event, _ in trace[1:]} == {("worker", "job done")}
    kinds = [kind for _, _, kind in trace[1:]]
    assert kinds.count("deliver") > 1
    # A fan-out that has chunks runs before them, and after them once more.
    assert [kind for kind, _ in groupby(kinds)] == ["render", "fan_out", "deliver", "fan_out", "notify"]
    answered = Counter(line["request_id"] for line in lines(api_log) if line["event"] == "request")
    assert [answered[request_id] for request_id in sent] == [1] * len(sent)
    assert set(answered.values()) == {1}
    ended = Counter((line["kind"], line["entry"]) for line in lines(worker_log) if line["event"] == "job done")
    assert {(kind, times) for (kind, _), times in ended.items() if times > 1} == {("fan_out", 2)}


def secret_of(*urls: str) -> set[str]:
    """What in URLs lets anybody who has it read or write: signatures, and what they are for."""
    found = {value for url in urls for _, value in parse_qsl(urlsplit(url).query) if len(value) > 30}
    assert found
    return found


@dataclass
class Story:
    """What people do, and what of it must be told to nobody."""

    http: httpx.AsyncClient
    box: Mailbox
    typed: str = field(default_factory=lambda: f"planted{secrets.token_hex(12)}")
    """In all that anybody types."""

    def __post_init__(self) -> None:
        self.planted = {PASSWORD, self.typed, self.box.address, _ADDRESS, "X-Amz-Signature"}
        sent = {"X-Forwarded-For": _ADDRESS, "Cookie": f"crumb={self.typed}", "User-Agent": self.typed}
        self.http.headers.update(sent)

    async def goes_well(self) -> Client:
        """Sign up, have an address, a password forgotten, a photo, a phone, and a follower of whom it is told."""
        author, friend = await Client.sign_up(self.http, email=self.box.address), await Client.sign_up(self.http)
        confirmation = await self.box.token(CONFIRM)
        assert (await self.http.post("/v1/emails/confirm", json={"token": confirmation})).is_success
        assert (await self.http.post("/v1/password-resets", json={"name": self.box.address})).is_success
        reset = await self.box.token(RESET)
        self.photo = await author.ready((await author.upload())["id"])
        await author.call("PUT", "/v1/me/devices/phone", json={"platform": "fcm", "token": f"{self.typed}-phone"})
        browser = {"endpoint": f"http://127.0.0.1:9/{self.typed}", "p256dh": _BROWSER, "auth": _BROWSER[1:23]}
        await author.call("PUT", "/v1/me/devices/browser", json={"platform": "web"} | browser)
        await friend.follow(author)
        self.planted |= {_BROWSER[1:23], author.token, friend.token, author.account["username"]}
        self.planted |= {confirmation.partition(".")[2], reset.partition(".")[2]}
        self.planted |= secret_of(*(one["url"] for one in self.photo["renditions"]))
        await self._sends_parts(author)
        return author

    async def _sends_parts(self, author: Client) -> None:
        """Send a photo straight to the store."""
        photo = jpeg(seed=1)
        about = {"size": len(photo), "sha256": hashlib.sha256(photo).hexdigest()}
        upload = await author.call("POST", "/v1/media/uploads", 201, json=about)
        [part] = upload["parts"]
        self.planted |= secret_of(part["url"])
        async with http_client() as anybody:
            assert (await anybody.put(part["url"], content=photo)).is_success
        await author.call("POST", f"/v1/media/uploads/{upload['id']}/complete", 201)
        await author.ready(upload["id"])

    async def goes_wrong(self, author: Client) -> None:
        """What people do wrong."""
        wrong = {"username": author.account["username"], "password": self.typed}
        bad = {"Authorization": f"Bearer {self.typed}"}
        answers = [
            await self.http.post("/v1/sessions", json=wrong),
            await self.http.post("/v1/sessions", content=f'{{"username": "{self.typed}'),
            await self.http.get(f"/v1/{self.typed}", headers=bad),
            await self.http.get("/v1/me", headers=bad),
        ]
        assert [answer.status_code for answer in answers] == [401, 400, 404, 401]

    async def fails(self, author: Client) -> tuple[str, str]:
        """Do what the database's faults are about; returns the ids of the two requests that fail."""
        posting, editing = (f"request-{secrets.token_hex(8)}" for _ in range(2))
        body = {"caption": self.typed, "media": [{"id": self.photo["id"]}]}
        edit = {"bio": f"{self.typed} {self.typed}"}
        path = f"/v1/posts?secret={self.typed}"
        await author.call("POST", path, 500, json=body, headers={"X-Request-Id": posting})
        await author.call("PATCH", "/v1/me", 500, json=edit, headers={"X-Request-Id": editing})
        await author.upload()
        await author.call("POST", "/v1/me/export", 201)
        return posting, editing


async def test_neither_logs_nor_sentry_have_what_people_sent(told: Settings, tmp_path: Path) -> None:
    api_log, worker_log = tmp_path / "api.log", tmp_path / "worker.log"
    database_url = told.database_url.get_secret_value()
    async with running_sentry() as sentry, running_relay(database_url) as database:
        changes = {"database_url": SecretStr(database.url), "sentry_dsn": SecretStr(sentry.dsn)}
        settings = told.model_copy(update=changes | {"sentry_traces_sample_rate": 1.0})
        async with (
            running_api_process(settings, log=api_log) as api,
            running_worker(settings, log=worker_log),
            http_client(base_url=api.url) as http,
        ):
            story = Story(http, Mailbox(settings, f"{secrets.token_hex(8)}@example.org"))
            author = await story.goes_well()
            await story.goes_wrong(author)
            connection = await asyncpg.connect(database_url)
            await connection.execute(_FAULTS)
            await connection.close()
            posting, editing = await story.fails(author)

            async def reported() -> bool:
                wanted = [{"kind": "render"}, {"kind": "export"}, {"request_id": posting}, {"request_id": editing}]
                pushed = any(line.get("kind") == "push" for line in lines(worker_log))
                return pushed and all(sentry.about(**tags) for tags in wanted)

            await eventually(reported, seconds=60)
            # A database that is away is no error of ours, and has its own alert.
            await database.cut()
            assert (await author.http.get("/v1/explore", headers=author.headers)).status_code == 503
            database.mend()
    # Both have ended, and sent all that they had to send.
    _check_requests(sentry, author, posting, editing)
    _check_jobs(sentry, lines(worker_log))
    assert told.web_push_key is not None
    assert told.media_cdn_private_key is not None
    keys = {key.get_secret_value() for key in (told.s3_secret_key, told.secret_key, told.web_push_key)}
    # Line by line: in JSON the ends of lines are written in another way.
    keys |= {line for line in told.media_cdn_private_key.get_secret_value().splitlines() if "--" not in line}
    passwords = {urlsplit(url).password or "" for url in (database_url, told.queue_url)}
    assert "" not in passwords
    assert lines(api_log)
    logs, envelopes = api_log.read_text() + worker_log.read_text(), b"\n".join(sentry.taken).decode()
    for secret in story.planted | keys | passwords:
        assert secret not in logs
        assert secret not in envelopes


def _check_requests(sentry: Sentry, author: Client, posting: str, editing: str) -> None:
    [posted], [edited] = sentry.about(request_id=posting), sentry.about(request_id=editing)
    assert posted["user"] == edited["user"] == {"id": author.id}
    assert posted["tags"]["route"] == "/v1/posts"
    [*_, cause] = posted["exception"]["values"]
    assert (cause["type"], cause["value"]) == ("RaiseError", "P0001")
    assert edited["exception"]["values"][-1]["value"].startswith("23514 new row for relation")
    for event in sentry.events():
        assert (event["release"], event["environment"]) == (f"instafeed@{VERSION}", "development")
        assert not event.keys() & {"request", "breadcrumbs", "extra", "modules"}


def _check_jobs(sentry: Sentry, log: list[dict[str, Any]]) -> None:
    """Each failure is reported once: those that the log has of a job's own, and what the outbox raised, which arq logs."""
    failed = Counter(line["entry"] for line in log if line["event"] == "job failed")
    assert failed == Counter(event["tags"]["entry"] for event in sentry.about(kind="render"))
    escaped = [line for line in log if line["event"].endswith("export failed, RaiseError: P0001")]
    assert len(escaped) == len(sentry.about(kind="export")) > 0
    assert {event["tags"]["process"] for event in sentry.events()} == {"api", "worker"}
    assert {"POST /v1/posts", "render"} <= {event["transaction"] for event in sentry.events("transaction")}


async def test_of_errors_the_part_is_told_that_the_setting_names(settings: Settings) -> None:
    async with running_sentry() as sentry:
        sampled = settings.model_copy(update={"sentry_dsn": SecretStr(sentry.dsn), "sentry_sample_rate": 0.5})
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", _ERRORS, env=environ_of(sampled))
        assert await process.wait() == 0
    assert 0 < len(sentry.events()) < 40
