"""The OpenAPI document: whole, true, and in the form from which generators make good clients."""

import json
import re
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import openapi_spec_validator
import pytest
from fastapi.routing import APIRoute, iter_route_contexts

from instafeed import accounts
from instafeed.api.app import create_app
from instafeed.resources import Resources
from instafeed.settings import Settings
from tests.api.contract import Contract, Json
from tests.client import PASSWORD, Client
from tests.photos import jpeg

SignUp = Callable[..., Awaitable[Client]]
Call = Callable[..., Awaitable[Any]]

HIDDEN = {"/openapi.json", "/docs", "/docs/{path:path}", "/problems/{slug}"}
FORBIDDEN = {
    "allOf",
    "const",
    "discriminator",
    "ge",
    "itemSchema",  # OpenAPI 3.2
    "le",
    "nullable",  # OpenAPI 3.0
    "oneOf",
    "prefixItems",  # tuples
    "title",
}


@pytest.fixture(scope="session")
async def contract(http: httpx.AsyncClient) -> Contract:
    """What is promised."""
    return Contract((await http.get("/openapi.json")).json())


def schemas(node: Any) -> Iterator[Json]:
    """Every schema below a part of the document."""
    if isinstance(node, list):
        for item in node:
            yield from schemas(item)
    elif isinstance(node, dict):
        if isinstance(node.get("type"), str | list) or "$ref" in node or "anyOf" in node:
            yield node
        for name, item in node.items():
            if name not in {"example", "examples"}:
                yield from schemas(item)


async def test_the_document_is_valid_openapi(contract: Contract) -> None:
    openapi_spec_validator.validate(contract.document)
    assert contract.document["openapi"].startswith("3.1.")
    assert contract.document["info"]["description"]


async def test_every_route_is_documented_or_hidden(contract: Contract, settings: Settings) -> None:
    documented = {(operation.method, operation.path) for operation in contract.operations}
    served = {
        (method, route.path)
        for route in iter_route_contexts(create_app(settings).routes)
        for method in (route.methods or set()) - {"HEAD"}
        if route.path not in HIDDEN
    }
    assert served == documented


async def test_an_operation_is_called_like_its_handler(contract: Contract, settings: Settings) -> None:
    names = {
        (method, route.path): route.name
        for route in iter_route_contexts(create_app(settings).routes)
        if isinstance(route.original_route, APIRoute)
        for method in route.methods or set()
    }
    ids = [operation.spec["operationId"] for operation in contract.operations]
    assert ids == [names[operation.method, operation.path] for operation in contract.operations]
    assert len(set(ids)) == len(ids)


async def test_every_operation_is_described(contract: Contract) -> None:
    tags = {tag["name"]: tag["description"] for tag in contract.document["tags"]}
    for operation in contract.operations:
        assert re.fullmatch(r"[A-Z].{3,60}[^.]", operation.spec["summary"]), operation
        assert operation.spec["description"].endswith("."), operation
        assert len(operation.spec["tags"]) == 1, operation
        assert tags[operation.spec["tags"][0]], operation
        for parameter in operation.spec.get("parameters", []):
            assert parameter["description"], (str(operation), parameter["name"])


async def test_every_operation_tells_its_errors(contract: Contract, http: httpx.AsyncClient) -> None:
    kinds = set()
    for operation in contract.operations:
        response = operation.spec["responses"]["default"]
        assert set(response["content"]) == {"application/problem+json"}
        assert response["content"]["application/problem+json"]["schema"] == {"$ref": "#/components/schemas/Problem"}
        assert "422" not in operation.spec["responses"]
        named = re.findall(r"\[([a-z-]+)\]\(/problems/\1\)", response["description"])
        assert "internal" in named, operation
        assert ("unauthenticated" in named) == ("security" in operation.spec), operation
        kinds |= set(named)
    for kind in kinds:
        assert (await http.get(f"/problems/{kind}")).status_code == 200, kind


async def test_every_body_has_an_example_that_is_valid(contract: Contract) -> None:
    for operation in contract.operations:
        for media_type, content in operation.contents():
            if media_type in {"application/octet-stream", "multipart/form-data"}:
                continue  # bytes have no example in JSON
            assert "example" in content, (str(operation), media_type)
            assert not contract.errors(content["schema"], content["example"]), (str(operation), media_type)


async def test_the_examples_of_schemas_are_valid(contract: Contract) -> None:
    for schema in schemas(contract.document):
        for example in schema.get("examples", []):
            assert not contract.errors(schema, example), schema


async def test_nothing_in_it_confuses_generators(contract: Contract) -> None:
    models = contract.document["components"]["schemas"]
    assert {"Event", "Problem"} <= models.keys()
    assert not models.keys() & {"HTTPValidationError", "ValidationError"}
    for name in models:
        assert re.fullmatch("[A-Z][A-Za-z]+", name), "a model is a request's or a response's, not both"
    for schema in schemas(contract.document):
        assert not schema.keys() & FORBIDDEN, schema
        if "anyOf" in schema:
            assert len(schema["anyOf"]) == 2, schema
            assert schema["anyOf"][1] == {"type": "null"}, schema
        if isinstance(schema.get("type"), list):
            assert schema["type"][1:] == ["null"], schema
        if "x-extensible-enum" in schema:
            assert "enum" not in schema, "an open list of values that generators take for a closed one"


async def test_ids_are_strings(contract: Contract) -> None:
    named = [
        (name, schema)
        for model in contract.document["components"]["schemas"].values()
        for name, schema in model.get("properties", {}).items()
    ] + [
        (parameter["name"], parameter["schema"])
        for operation in contract.operations
        for parameter in operation.spec.get("parameters", [])
    ]
    ids = [schema for name, schema in named if name == "id" or name.endswith("_id")]
    assert len(ids) > 10
    assert all(schema["type"] in ("string", ["string", "null"]) for schema in ids)


async def test_requests_are_closed_and_responses_whole(contract: Contract) -> None:
    requests = {
        reference.rpartition("/")[2]
        for operation in contract.operations
        for schema in schemas(operation.spec.get("requestBody", {}))
        if (reference := schema.get("$ref"))
    }
    for name, model in contract.document["components"]["schemas"].items():
        if name in requests:
            assert model["additionalProperties"] is False, name
        elif "additionalProperties" not in model:
            assert set(model["required"]) == set(model["properties"]), f"{name}: every field is always there"


async def test_photos_are_bytes_and_nothing_else(contract: Contract) -> None:
    body = contract.operation("POST", "/v1/media").spec["requestBody"]
    assert body["content"] == {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    form = contract.operation("POST", "/v1/posts/form").spec["requestBody"]["content"]
    assert form["multipart/form-data"]["schema"]["properties"]["photo"] == {"type": "string", "format": "binary"}


async def test_exactly_the_calls_that_need_a_token_say_so(contract: Contract, http: httpx.AsyncClient) -> None:
    schemes = contract.document["components"]["securitySchemes"]
    assert (schemes["bearer"]["type"], schemes["bearer"]["scheme"]) == ("http", "bearer")
    for operation in contract.operations:
        answer = await http.request(operation.method, re.sub(r"\{\w+\}", "1", operation.path))
        refused = answer.status_code == 401
        assert refused == ("security" in operation.spec), f"{operation}: {answer.status_code}"
        contract.check(answer)


@pytest.fixture
def call(contract: Contract, http: httpx.AsyncClient) -> Call:
    """Sends a request whose answer must have a status and be as promised; gives its JSON."""

    async def send(status: int, who: Client | None, method: str, path: str, **options: Any) -> Any:
        headers = (who.headers if who else {}) | options.pop("headers", {})
        answer = await http.request(method, path, headers=headers, **options)
        assert answer.status_code == status, answer.text
        contract.check(answer)
        return answer.json() if "json" in answer.headers.get("content-type", "") and answer.content else None

    return send


async def test_answers_about_ones_own_account_are_as_promised(call: Call, sign_up: SignUp) -> None:
    one = await sign_up()
    await call(200, one, "GET", "/v1/me")
    await call(409, one, "PATCH", "/v1/me", json={"username": "admin"})
    passwords = {"current_password": PASSWORD, "new_password": PASSWORD}
    await call(204, one, "PUT", "/v1/me/password", json=passwords)
    await call(403, one, "PUT", "/v1/me/password", json=passwords | {"current_password": "another"})
    await call(200, one, "PUT", "/v1/me/email", json={"email": "ada@example.org", "current_password": PASSWORD})
    await call(200, one, "PUT", "/v1/me/email", json={"email": None, "current_password": PASSWORD})
    await call(422, None, "POST", "/v1/emails/confirm", json={"token": one.token})
    await call(422, one, "PUT", "/v1/me/avatar", json={"media_id": one.id})
    await call(204, one, "DELETE", "/v1/me/avatar")
    await call(202, None, "POST", "/v1/password-resets", json={"name": one.account["username"]})
    await call(422, None, "POST", "/v1/password-resets/confirm", json={"token": one.token, "new_password": PASSWORD})


@pytest.mark.usefixtures("workers")
async def test_real_answers_are_as_promised(call: Call, sign_up: SignUp) -> None:
    author, follower = await sign_up(), await sign_up()
    name = author.account["username"]
    await call(201, None, "POST", "/v1/sessions", json={"username": name, "password": PASSWORD})
    await call(401, None, "POST", "/v1/sessions", json={"username": name, "password": "wrong password"})
    await call(409, None, "POST", "/v1/accounts", json={"username": name, "password": PASSWORD})
    await call(400, None, "POST", "/v1/accounts", content=b"{", headers={"Content-Type": "application/json"})
    await call(200, author, "GET", "/v1/me")
    await call(200, author, "GET", "/v1/sessions")
    await call(200, follower, "PUT", f"/v1/accounts/{author.id}/follow", json={"notify": False})
    await call(200, author, "GET", f"/v1/accounts/{author.id}/followers")
    await call(200, author, "GET", f"/v1/accounts/{follower.id}/following")
    await call(200, author, "GET", f"/v1/accounts/by-username/{follower.account['username']}")
    await call(415, author, "POST", "/v1/media", content=b"no photo")
    media = await call(201, author, "POST", "/v1/media", content=jpeg(), headers={"Idempotency-Key": "once"})
    await call(201, author, "POST", "/v1/media", content=jpeg(), headers={"Idempotency-Key": "once"})
    body = {"caption": "hello", "media": [{"id": media["id"]}]}
    post = await call(201, author, "POST", "/v1/posts", json=body)
    await call(422, author, "POST", "/v1/posts", json=body | {"colour": "red"})
    form = await call(201, author, "POST", "/v1/posts/form", files={"photo": jpeg(seed=1)}, data={"caption": "form"})
    await call(200, author, "GET", f"/v1/media/{media['id']}")
    await follower.sees(post["id"])
    await follower.sees(form["id"])
    await call(200, author, "GET", f"/v1/media/{media['id']}")
    page = await call(200, follower, "GET", "/v1/feed", params={"limit": 1})
    assert page["next_cursor"]
    await call(422, follower, "GET", "/v1/feed", params={"limit": 0})
    await call(200, follower, "GET", f"/v1/posts/{post['id']}")
    await call(204, author, "DELETE", f"/v1/posts/{post['id']}")
    await call(404, follower, "GET", f"/v1/posts/{post['id']}")
    await call(200, author, "PATCH", "/v1/me", json={"is_private": True, "bio": "Hello."})
    await call(200, author, "PUT", "/v1/me/avatar", json={"media_id": (await author.upload())["id"]})
    await call(422, author, "PATCH", "/v1/me", json={"username": "no name"})
    await call(200, author, "PATCH", f"/v1/posts/{form['id']}", json={"caption": "edited"})
    asking = await sign_up()
    await call(200, asking, "PUT", f"/v1/accounts/{author.id}/follow")
    await call(200, author, "GET", "/v1/me/follow-requests")
    await call(204, author, "PUT", f"/v1/me/follow-requests/{asking.id}")
    await call(204, author, "DELETE", f"/v1/me/follow-requests/{asking.id}")
    await call(204, author, "DELETE", f"/v1/me/followers/{asking.id}")
    for edge in ("mute", "block"):
        await call(204, author, "PUT", f"/v1/accounts/{asking.id}/{edge}")
        await call(200, author, "GET", f"/v1/me/{edge}s")
    await call(409, author, "PUT", f"/v1/accounts/{asking.id}/follow")
    await call(404, asking, "GET", f"/v1/accounts/{author.id}")
    await call(204, author, "DELETE", f"/v1/accounts/{asking.id}/block")
    await call(204, author, "DELETE", f"/v1/accounts/{asking.id}/mute")
    for path in ("/v1/limits", "/livez", "/readyz", "/metrics"):
        await call(200, None, "GET", path)
    await call(200, None, "GET", "/metrics", headers={"Accept": "application/openmetrics-text"})


async def test_answers_about_posts_that_wait_and_about_explore_are_as_promised(call: Call, sign_up: SignUp) -> None:
    author = await sign_up()
    waits = {"media": [{"id": (await author.upload())["id"]}], "publish_at": "2999-01-01T00:00:00Z"}
    await call(422, author, "POST", "/v1/posts", json=waits)
    waits["publish_at"] = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    scheduled = await call(201, author, "POST", "/v1/posts", json=waits)
    await call(200, author, "GET", "/v1/me/scheduled")
    await call(200, author, "PATCH", f"/v1/posts/{scheduled['id']}", json={"publish_at": None})
    await call(200, author, "GET", f"/v1/posts/{scheduled['id']}")
    await call(200, author, "GET", "/v1/explore")
    await call(422, author, "GET", "/v1/explore", params={"cursor": "forged"})


@pytest.mark.usefixtures("workers")
async def test_what_admins_are_answered_is_as_promised(call: Call, sign_up: SignUp, res: Resources) -> None:
    author, one, admin = [await sign_up() for _ in range(3)]
    post = await author.published((await author.post())["id"])
    await accounts.promote(res, admin.account["username"])
    for subject in ({"kind": "account", "id": author.id}, {"kind": "post", "id": post["id"]}):
        await call(201, one, "POST", "/v1/reports", json={"subject": subject, "reason": "spam"})
    await call(404, one, "GET", "/v1/admin/reports")
    for case in (await call(200, admin, "GET", "/v1/admin/reports"))["items"][:2]:
        path = f"/v1/admin/reports/{case['id']}"
        await call(200, admin, "GET", f"{path}/statements")
        await call(200, admin, "POST", f"{path}/resolve", json={"action": "warn", "message": "Stop."})
        await call(409, admin, "POST", f"{path}/resolve", json={"action": "suspend"})
        await call(200, admin, "GET", path)
    await call(200, author, "GET", "/v1/me/warnings")
    await call(200, admin, "GET", f"/v1/admin/accounts/{author.id}")
    await call(204, admin, "POST", f"/v1/admin/accounts/{author.id}/suspend", json={})
    await call(204, admin, "POST", f"/v1/admin/accounts/{author.id}/unsuspend", json={"note": "A mistake."})
    await call(204, admin, "POST", f"/v1/admin/posts/{post['id']}/remove", json={})
    await call(200, admin, "GET", "/v1/admin/audit-log")
    await call(200, admin, "GET", f"/v1/admin/accounts/{author.id}/audit-log")


@pytest.mark.usefixtures("workers")
async def test_answers_about_what_captions_name_are_as_promised(
    contract: Contract, http: httpx.AsyncClient, sign_up: SignUp
) -> None:
    author = await sign_up()
    name = author.account["username"]
    post = await author.published((await author.post(f"#harbour @{name}"))["id"])
    await author.sees(post["id"])
    for status, path, params in [
        (200, f"/v1/posts/{post['id']}", {}),
        (200, "/v1/feed", {}),
        (200, "/v1/tags/harbour", {}),
        (200, "/v1/tags/harbour/posts", {}),
        (422, "/v1/tags/1/posts", {}),
        (200, "/v1/search/tags", {"q": "harb"}),
        (422, "/v1/search/tags", {"q": "-"}),
        (200, "/v1/search/accounts", {"q": name}),
        (422, "/v1/search/accounts", {}),
    ]:
        answer = await http.get(path, params=params, headers=author.headers)
        assert answer.status_code == status, answer.text
        assert answer.json().get("items") != []
        contract.check(answer)


@pytest.mark.usefixtures("workers")
async def test_events_are_as_promised(contract: Contract, http: httpx.AsyncClient, sign_up: SignUp) -> None:
    author = await sign_up()
    async with http.stream("GET", "/v1/feed/events", headers=author.headers) as stream:
        operation = contract.operation("GET", "/v1/feed/events")
        assert stream.headers["content-type"].partition(";")[0] in operation.spec["responses"]["200"]["content"]
        await author.post()
        async for line in stream.aiter_lines():
            if line.startswith("data: "):
                event = json.loads(line.removeprefix("data: "))
                break
    assert not contract.errors({"$ref": "#/components/schemas/Event"}, event, closed=True)
