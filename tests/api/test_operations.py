"""What operators see: limits, health, metrics, logs."""

import json
import secrets
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi.routing import iter_route_contexts
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from pydantic import ValidationError

from instafeed.api import limits
from instafeed.api.app import create_app
from instafeed.settings import Settings
from tests.api.answers import JSON
from tests.client import PASSWORD, Client, eventually, http_client
from tests.conftest import running_api
from tests.processes import running_api_process

PARTS = ["database", "redis", "queue", "photos"]
AWAY: dict[str, dict[str, str]] = {
    "database": {"database_url": "postgresql://postgres@127.0.0.1:1/nothing"},
    "redis": {"redis_url": "redis://127.0.0.1:1/0"},
    "queue": {"queue_redis_url": "redis://127.0.0.1:1/0"},
    "photos": {"s3_endpoint": "http://127.0.0.1:1"},
}


def changed(settings: Settings, changes: Mapping[str, object]) -> Settings:
    """The settings with some others, checked as they would be at a start."""
    return Settings.model_validate({**settings.model_dump(), **changes})


async def is_away(http: httpx.AsyncClient, *away: str) -> bool:
    """Whether these parts are not ready, and no others: on a busy machine another one may be late once."""
    answer = await http.get("/readyz")
    body = answer.json()
    assert [part["name"] for part in body["parts"]] == PARTS
    assert body["ready"] is all(part["ready"] for part in body["parts"])
    assert answer.status_code == (200 if body["ready"] else 503)
    return {part["name"] for part in body["parts"] if not part["ready"]} == {*away}


async def only_is_away(settings: Settings, changes: Mapping[str, object], part: str) -> None:
    """Assert that with these changes one part is not ready, and that the process lives."""
    async with running_api(changed(settings, changes)) as url, http_client(base_url=url) as client:
        assert (await client.get("/livez")).json() == {"alive": True}
        await eventually(lambda: is_away(client, part))


async def test_all_parts_are_ready(http: httpx.AsyncClient) -> None:
    await eventually(lambda: is_away(http))


@pytest.mark.parametrize("part", PARTS)
async def test_a_part_that_is_away_is_named(settings: Settings, part: str) -> None:
    await only_is_away(settings, AWAY[part], part)


@pytest.mark.parametrize(
    ("part", "changes"),
    [
        ("database", {"database_url": "{server}/no_such_database"}),
        ("database", {"database_url": "{server}/postgres"}),  # without our tables
        ("photos", {"s3_secret_key": "wrong"}),
        ("photos", {"s3_bucket": "no-such-bucket"}),
    ],
)
async def test_a_part_that_answers_what_it_should_not_is_not_ready(
    settings: Settings, part: str, changes: dict[str, str]
) -> None:
    server = settings.database_url.get_secret_value().rpartition("/")[0]
    await only_is_away(settings, {name: value.format(server=server) for name, value in changes.items()}, part)


@pytest.mark.parametrize(
    "database", ["postgresql://postgres@127.0.0.1:1/nothing", "{server}/no_such_database", "{stranger}"]
)
async def test_a_process_that_is_not_ready_says_so_to_clients(settings: Settings, ada: Client, database: str) -> None:
    ours = urlsplit(settings.database_url.get_secret_value())
    stranger = ours._replace(netloc=f"nobody:wrong@{ours.netloc.rpartition('@')[2]}").geturl()
    server = ours._replace(path="").geturl()
    away = {"database_url": database.format(server=server, stranger=stranger)}
    broken = changed(settings, away | AWAY["redis"])
    async with running_api(broken) as url, http_client(base_url=url) as client:
        for method, path in (
            ("GET", "/v1/me"),
            ("GET", "/v1/feed"),
            ("POST", "/v1/sessions"),
            ("POST", "/v1/accounts"),
        ):
            body = json.dumps({"username": "ada", "password": PASSWORD})
            answer = await client.request(method, path, content=body, headers=ada.headers | JSON)
            assert answer.status_code == 503, f"{path}: {answer.text}"
            assert answer.json()["type"] == "/problems/unavailable"
            assert answer.headers["retry-after"] == "1"


async def test_limits_are_published(http: httpx.AsyncClient, settings: Settings) -> None:
    answer = await http.get("/v1/limits")
    assert answer.status_code == 200
    body = answer.json()
    assert body["upload_max_bytes"] == settings.upload_max_bytes
    assert body["upload_max_pixels"] == settings.upload_max_pixels
    assert body["upload_min_bytes_per_second"] == settings.upload_min_bytes_per_second
    assert body["upload_grace_seconds"] == settings.upload_grace_seconds
    assert body["upload_silence_seconds"] == settings.upload_silence_seconds
    assert {"image/jpeg", "image/png", "image/webp"} <= set(body["photo_types"])
    assert body["rate_limits"] == [
        {"name": policy.name, "quota": policy.quota, "seconds": policy.seconds} for policy in limits.ALL
    ]


async def test_photos_that_cannot_be_decoded_are_not_among_those_that_are_taken(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pillow_heif")
    types = (await http.get("/v1/limits")).json()["photo_types"]
    assert "image/heif" in types
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # as if it were not installed
    assert (await http.get("/v1/limits")).json()["photo_types"] == [kind for kind in types if kind != "image/heif"]


async def test_published_limits_are_those_that_hold(settings: Settings, ada: Client) -> None:
    others = {"upload_grace_seconds": 3.5, "upload_min_bytes_per_second": 77, "upload_max_pixels": 123}
    others |= {"upload_max_bytes": 5000, "upload_expiry_seconds": 61, "media_unposted_seconds": 3601}
    async with running_api(changed(settings, others)) as url, http_client(base_url=url) as client:
        published = (await client.get("/v1/limits")).json()
    assert {name: published[name] for name in others} == others
    photos, caption, alt_text = (
        published[name] for name in ("photos_per_post", "caption_max_characters", "alt_text_max_characters")
    )
    # No such photo: what is within the limits gets as far as that, what is beyond them does not.
    for one_more, problem in ((0, "/problems/media-unusable"), (1, "/problems/invalid")):
        for count, characters, alt_characters in (
            (photos + one_more, 1, 1),
            (1, caption + one_more, 1),
            (1, 1, alt_text + one_more),
        ):
            media = [{"id": str(ident), "alt_text": "a" * alt_characters} for ident in range(1, count + 1)]
            body = await ada.call("POST", "/v1/posts", 422, json={"caption": "c" * characters, "media": media})
            assert body["type"] == problem, (count, characters, alt_characters)
    page = published["page_max_items"]
    await ada.call("GET", "/v1/feed", params={"limit": page})
    await ada.call("GET", "/v1/feed", 422, params={"limit": page + 1})


async def test_a_duration_leads_to_its_request_however_long_the_id_is(http: httpx.AsyncClient) -> None:
    request_id = secrets.token_hex(64)
    assert (await http.get("/livez", headers={"X-Request-Id": request_id})).headers["x-request-id"] == request_id
    answer = await http.get("/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    found = [
        sample.exemplar.labels
        for family in openmetrics.text_string_to_metric_families(answer.text)  # type: ignore[no-untyped-call]
        for sample in family.samples
        if sample.exemplar and sample.labels.get("route") == "/livez"
    ]
    assert {"request_id": request_id[:118]} in found


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text;version=new",
        "text/plain;version=1.x",
        "application/openmetrics-text;version;=;",
        ";,",
    ],
)
async def test_metrics_are_shown_whatever_is_accepted(http: httpx.AsyncClient, accept: str) -> None:
    answer = await http.get("/metrics", headers={"Accept": accept})
    assert answer.status_code == 200
    assert "process_start_time_seconds" in answer.text


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/status", "/status.xml"])
async def test_checkers_may_ask_for_no_body(http: httpx.AsyncClient, path: str) -> None:
    whole, head = await http.get(path), await http.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == whole.headers["content-type"]


async def test_metrics_name_routes_and_never_paths(http: httpx.AsyncClient, ada: Client, settings: Settings) -> None:
    await ada.call("GET", f"/v1/accounts/{ada.id}")
    for path in (f"/v1/{secrets.token_hex(8)}", "/v1/accounts/abc", "/v1/posts/1"):
        await http.get(path, headers=ada.headers)
    await http.request("PROPFIND", "/v1/me")
    answer = await http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    requests = families["instafeed_http_requests"].samples
    routes = {sample.labels["route"] for sample in requests}
    assert "/v1/accounts/{account_id}" in routes
    assert "none" in routes
    assert all(route == "none" or not any(part.isdigit() for part in route.split("/")) for route in routes)
    assert routes <= {"none", *(route.path for route in iter_route_contexts(create_app(settings).routes))}
    assert {sample.labels["method"] for sample in requests} <= {
        "GET",
        "HEAD",
        "POST",
        "PUT",
        "PATCH",
        "DELETE",
        "OPTIONS",
        "other",
    }
    assert families["instafeed_http_request_seconds"].type == "histogram"
    assert ada.id not in answer.text


async def test_a_served_process_logs_every_request_once_and_no_secret(settings: Settings, tmp_path: Path) -> None:
    log = tmp_path / "log"
    username, request_id = f"logged{secrets.token_hex(4)}", "a-request-of-ours"
    told = changed(settings, {"log_level": "info"})
    async with running_api_process(told, log=log) as api, http_client(base_url=api.url) as http:
        client = await Client.sign_up(http, username)
        headers = client.headers | {"X-Request-Id": request_id}
        await http.get("/v1/me", headers=headers)
        await http.get(f"/v1/nothing\u2028{client.id}", params={"token": client.token})
        wrong = {"username": username, "password": "a wrong password"}
        assert (await http.post("/v1/sessions", json=wrong)).status_code == 401
        # What libraries have to say is a line of the same form: uvicorn says that it cannot do this.
        await http.get("/v1/me", headers={"Connection": "Upgrade", "Upgrade": "websocket"})
    text = log.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    requests = [line for line in lines if line["event"] == "request" and line["route"] != "/livez"]
    assert [(line["method"], line["route"], line["status"]) for line in requests] == [
        ("POST", "/v1/accounts", 201),
        ("GET", "/v1/me", 200),
        ("GET", "none", 404),
        ("POST", "/v1/sessions", 401),
        ("GET", "/v1/me", 401),
    ]
    assert {line["level"] for line in lines if line.get("logger") == "uvicorn.error"} == {"warning"}
    [mine] = [line for line in lines if line.get("request_id") == request_id]
    assert (mine["account"], mine["process"], mine["level"]) == (client.id, "api", "info")
    assert mine["seconds"] >= 0
    for secret in (client.token, client.token.partition(".")[2], PASSWORD, "a wrong password", username):
        assert secret not in text
    for name in ("secret_key", "s3_secret_key"):
        assert getattr(settings, name).get_secret_value() not in text


def test_rate_limits_cannot_be_off_in_production(settings: Settings) -> None:
    with pytest.raises(ValidationError, match="rate_limits=off is refused in production"):
        changed(settings, {"environment": "production"})
    assert changed(settings, {"environment": "production", "rate_limits": "on"}).rate_limits == "on"


async def test_another_secret_key_ends_cursors_and_no_session(
    settings: Settings, sign_up: Callable[..., Awaitable[Client]]
) -> None:
    ada = await sign_up()
    for _ in range(2):
        await ada.follow(await sign_up())
    path = f"/v1/accounts/{ada.id}/following"
    page = await ada.call("GET", path, params={"limit": 1})
    rotated = changed(settings, {"secret_key": secrets.token_hex(32)})
    async with running_api(rotated) as url, http_client(base_url=url, headers=ada.headers) as client:
        assert (await client.get("/v1/me")).status_code == 200
        old = await client.get(path, params={"cursor": page["next_cursor"]})
        assert (old.status_code, old.json()["errors"][0]["pointer"]) == (422, "cursor")
        again = (await client.get(path, params={"limit": 1})).json()
        assert again["items"] == page["items"]
        rest = await client.get(path, params={"cursor": again["next_cursor"]})
        assert len(rest.json()["items"]) == 1
