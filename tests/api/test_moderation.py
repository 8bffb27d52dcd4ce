"""Reports, what admins do about them, and who may."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import httpx
import pytest

from instafeed import accounts, reports, sessions
from instafeed.api.app import create_app
from instafeed.errors import NotFound
from instafeed.ids import shard_of
from instafeed.models import Reason, Report, SubjectKind
from instafeed.resources import Resources
from instafeed.settings import Settings
from tests.api.answers import anonymous, invalid, is_now, problem
from tests.client import PASSWORD, Client, eventually, http_client
from tests.locks import is_waited_for

SignUp = Callable[..., Awaitable[Client]]
Json = dict[str, Any]


@pytest.fixture(scope="session")
async def admin(http: httpx.AsyncClient, res: Resources) -> Client:
    """An admin, who stays one."""
    client = await Client.sign_up(http)
    await accounts.promote(res, client.account["username"])
    return client


async def make_admin(sign_up: SignUp, res: Resources) -> Client:
    client = await sign_up()
    await accounts.promote(res, client.account["username"])
    return client


async def report(who: Client, kind: str, id_: str, **fields: Any) -> Json:
    body = {"subject": {"kind": kind, "id": id_}, "reason": "spam"} | fields
    found: Json = await who.call("POST", "/v1/reports", 201, json=body)
    return found


async def cases(admin: Client, *subjects: str, limit: int = 100) -> list[Json]:
    """The open cases about these subjects, in the queue's order."""
    found: list[Json] = []
    cursor = None
    while True:
        params = {"limit": str(limit)} | ({"cursor": cursor} if cursor else {})
        page = await admin.call("GET", "/v1/admin/reports", params=params)
        found += [item for item in page["items"] if item["subject"]["id"] in subjects]
        cursor = page["next_cursor"]
        if cursor is None:
            return found


async def the_case(admin: Client, subject: str) -> Json:
    [found] = await cases(admin, subject)
    return found


async def resolve(who: Client, case: Json, action: str, **fields: Any) -> httpx.Response:
    body = {"action": action, **fields}
    return await who.http.post(f"/v1/admin/reports/{case['id']}/resolve", json=body, headers=who.headers)


async def log_of(admin: Client, account_id: str) -> list[tuple[str, str | None, str | None, str]]:
    """What was done about an account: action, admin, operator and note, newest first."""
    page = await admin.call("GET", f"/v1/admin/accounts/{account_id}/audit-log")
    return [
        (item["action"], item["admin"] and item["admin"]["id"], item["operator"], item["note"])
        for item in page["items"]
    ]


# Who may.


def admin_calls(settings: Settings) -> list[tuple[str, str]]:
    """Every call below /v1/admin, on ids that nothing has."""
    paths = create_app(settings).openapi()["paths"]
    return [
        (method.upper(), re.sub(r"\{\w+\}", "1", path))
        for path, item in paths.items()
        if path.startswith("/v1/admin/")
        for method in item
    ]


async def test_for_others_no_call_of_admins_is_there(sign_up: SignUp, settings: Settings) -> None:
    one = await sign_up()
    nothing = anonymous(await one.http.get("/v1/admin/nothing", headers=one.headers))
    calls = admin_calls(settings)
    assert len(calls) == 10
    for method, path in calls:
        headers = one.headers | {"Content-Type": "application/json"}
        for sent, body in ((method, b'{"action": "dismiss"}'), (method, b"{"), (method, b""), ("PROPFIND", b"")):
            answer = await one.http.request(sent, f"{path}?limit=0", content=body, headers=headers)
            assert anonymous(answer) == nothing, f"{sent} {path} {body!r}"
        problem(await one.http.request(method, path), 401, "unauthenticated")
    assert anonymous(await one.http.get("/v1/admin/accounts/x", headers=one.headers)) == nothing


async def test_whoever_is_demoted_or_suspended_is_no_admin_from_then_on(
    http: httpx.AsyncClient, sign_up: SignUp, res: Resources
) -> None:
    admin = await sign_up()
    name = admin.account["username"]
    await admin.call("GET", "/v1/admin/reports", 404)
    for _ in range(2):
        await accounts.promote(res, name)
    await admin.call("GET", "/v1/admin/reports")
    for _ in range(2):
        await accounts.demote(res, name)
    await admin.call("GET", "/v1/admin/reports", 404)
    await accounts.promote(res, name)
    await admin.call("GET", "/v1/admin/reports")
    await accounts.suspend(res, name)
    await admin.call("GET", "/v1/admin/reports", 401)
    await accounts.unsuspend(res, name)
    body = {"username": name, "password": PASSWORD}
    back = Client(http, admin.account, (await http.post("/v1/sessions", json=body)).json()["token"])
    await back.call("GET", "/v1/admin/reports")
    found = await log_of(back, admin.id)
    assert found == [(action, None, "cli", "") for action in ("unsuspend", "suspend", "promote", "demote", "promote")]
    for verb in (accounts.promote, accounts.demote):
        with pytest.raises(NotFound):
            await verb(res, "nobody.has.this.name")


# Reports.


async def test_one_has_one_open_report_of_a_thing(admin: Client, bad: Client, sign_up: SignUp) -> None:
    one, two = await sign_up(), await sign_up()
    first = await report(one, "account", bad.id, reason="hate", detail=" Look! ")
    assert first == {
        "id": first["id"],
        "subject": {"kind": "account", "id": bad.id},
        "reason": "hate",
        "detail": "Look!",
        "created_at": first["created_at"],
    }
    assert is_now(first["created_at"])
    assert await report(one, "account", bad.id, detail="again") == first
    second = await report(two, "account", bad.id)
    assert second["id"] != first["id"]
    case = await the_case(admin, bad.id)
    assert (case["report_count"], case["reasons"]) == (2, ["hate", "spam"])
    assert (case["account"]["id"], case["post"], case["resolution"]) == (bad.id, None, None)
    assert case == await admin.call("GET", f"/v1/admin/reports/{case['id']}")
    path = f"/v1/admin/reports/{case['id']}/statements"
    assert await admin.walk(path, limit=1) == [second["id"], first["id"]]
    said = (await admin.call("GET", path))["items"][1]
    assert (said["reporter"]["id"], said["reason"], said["detail"]) == (one.id, "hate", "Look!")
    # What is reported once it was decided about is another case.
    assert (await resolve(admin, case, "dismiss")).status_code == 200
    assert await cases(admin, bad.id) == []
    third = await report(one, "account", bad.id)
    assert third["id"] != first["id"]
    again = await the_case(admin, bad.id)
    assert again["id"] != case["id"]
    assert again["report_count"] == 1


async def test_many_who_report_at_once_are_counted_in_one_case(admin: Client, bad: Client, sign_up: SignUp) -> None:
    many = [await sign_up() for _ in range(4)]
    await asyncio.gather(
        *(report(who, "account", bad.id, reason=reason) for who in many for reason in ("spam", "hate"))
    )
    case = await the_case(admin, bad.id)
    assert case["report_count"] == len(many)
    assert len(await admin.walk(f"/v1/admin/reports/{case['id']}/statements")) == len(many)


async def test_while_a_case_is_resolved_no_report_is_lost(admin: Client, bad: Client, sign_up: SignUp) -> None:
    many = [await sign_up() for _ in range(4)]
    await report(many[0], "account", bad.id)
    first = await the_case(admin, bad.id)
    answers = await asyncio.gather(
        *(report(who, "account", bad.id) for who in many[1:2]),
        resolve(admin, first, "dismiss"),
        *(report(who, "account", bad.id) for who in many[2:]),
    )
    ids = {first["id"], *(case["id"] for case in await cases(admin, bad.id))}
    told = [said for id_ in ids for said in await admin.walk(f"/v1/admin/reports/{id_}/statements")]
    counts = [(await admin.call("GET", f"/v1/admin/reports/{id_}"))["report_count"] for id_ in ids]
    assert sum(counts) == len(told) == len(many)
    assert {answer["id"] for answer in answers if isinstance(answer, dict)} <= set(told)


async def test_a_report_that_is_sent_again_is_one(admin: Client, ada: Client, bad: Client) -> None:
    headers = ada.headers | {"Idempotency-Key": "once"}
    body = {"subject": {"kind": "account", "id": bad.id}, "reason": "other"}
    answers = [await ada.http.post("/v1/reports", json=body, headers=headers) for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    assert answers[1].headers["idempotency-replayed"] == "true"
    assert (await the_case(admin, bad.id))["report_count"] == 1


async def test_a_report_whose_answer_was_lost_is_found_also_when_it_is_resolved(
    admin: Client, bad: Client, ada: Client, res: Resources
) -> None:
    viewer = await sessions.authenticate(res, ada.token)
    report_id, subject_id = res.ids.next(shard_of(viewer.account_id)), int(bad.id)

    async def send() -> Report:
        return await reports.create(
            res, viewer, report_id, kind=SubjectKind.ACCOUNT, subject_id=subject_id, reason=Reason.SPAM, detail=""
        )

    first = await send()
    await resolve(admin, await the_case(admin, bad.id), "dismiss")
    assert await send() == first
    assert await cases(admin, bad.id) == []


@pytest.mark.parametrize("reason", Reason)
async def test_every_reason_is_taken(ada: Client, bob: Client, admin: Client, reason: str) -> None:
    for case in await cases(admin, bob.id):
        await resolve(admin, case, "dismiss")
    assert (await report(ada, "account", bob.id, reason=reason))["reason"] == reason


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"reason": "boring"}, "/reason"),
        ({"reason": None}, "/reason"),
        ({"subject": {"kind": "tag", "id": "1"}}, "/subject/kind"),
        ({"subject": {"kind": "post", "id": "0"}}, "/subject/id"),
        ({"subject": {"kind": "post", "id": 1}}, "/subject/id"),
        ({"subject": "post"}, "/subject"),
        ({"detail": "a" * 1001}, "/detail"),
        ({"detail": "a\x00"}, "/detail"),
        ({"detail": None}, "/detail"),
        ({"status": "open"}, "/status"),
    ],
)
async def test_what_is_no_report_is_refused(ada: Client, bob: Client, changes: Json, pointer: str) -> None:
    body = {"subject": {"kind": "account", "id": bob.id}, "reason": "spam"} | changes
    invalid(await ada.http.post("/v1/reports", json=body, headers=ada.headers), pointer)


async def test_nobody_reports_themselves_or_what_they_do_not_see(sign_up: SignUp, res: Resources) -> None:
    one, hidden, gone = [await sign_up() for _ in range(3)]
    own = await one.post()
    kept = await hidden.post()
    await hidden.edit(is_private=True)
    await gone.block(one)

    async def send(kind: str, id_: str) -> httpx.Response:
        body = {"subject": {"kind": kind, "id": id_}, "reason": "spam"}
        return await one.http.post("/v1/reports", json=body, headers=one.headers)

    invalid(await send("account", one.id), "/subject/id")
    invalid(await send("post", own["id"]), "/subject/id")
    nothing = [anonymous(await send(kind, "1")) for kind in ("account", "post")]
    assert nothing[0] == nothing[1]
    for kind, id_ in (("post", kept["id"]), ("account", gone.id), ("post", one.id), ("account", own["id"])):
        assert anonymous(await send(kind, id_)) == nothing[0]
    assert nothing[0][0] == 404
    async with res.db.acquire() as connection:
        found = await connection.fetchval("select count(*) from reports where reporter_id = $1", int(one.id))
    assert found == 0


# The queue.


async def test_the_queue_is_oldest_first_and_has_pages(
    admin: Client, ada: Client, sign_up: SignUp, res: Resources
) -> None:
    bad = [await sign_up() for _ in range(3)]
    for who in bad:
        await report(ada, "account", who.id)
    await report(admin, "account", bad[0].id)
    ids = [who.id for who in bad]
    for limit in (1, 100):
        assert [case["subject"]["id"] for case in await cases(admin, *ids, limit=limit)] == ids
    page = await admin.call("GET", "/v1/admin/reports", params={"limit": "1"})
    assert page["next_cursor"]
    for path, name, wrong in (
        ("/v1/admin/reports", "limit", "0"),
        ("/v1/admin/reports", "cursor", "A" * 24),
        ("/v1/admin/audit-log", "cursor", page["next_cursor"]),
        ("/v1/me/warnings", "cursor", page["next_cursor"]),
    ):
        invalid(await admin.http.get(path, params={name: wrong}, headers=admin.headers), name)
    other = await make_admin(sign_up, res)
    cursor = {"cursor": page["next_cursor"]}
    invalid(await other.http.get("/v1/admin/reports", params=cursor, headers=other.headers), "cursor")


@pytest.mark.usefixtures("workers")
async def test_an_admin_sees_what_is_reported_wherever_it_is_hidden(
    admin: Client, sign_up: SignUp, res: Resources
) -> None:
    author, fan = await sign_up(), await sign_up()
    post = await author.published((await author.post("hidden"))["id"])
    await author.edit(is_private=True)
    await fan.follow(author)
    await author.approve(fan)
    await author.block(admin)
    await report(fan, "post", post["id"])
    await admin.call("GET", f"/v1/posts/{post['id']}", 404)
    await admin.call("GET", f"/v1/accounts/{author.id}", 404)
    case = await the_case(admin, post["id"])
    assert (case["post"]["caption"], case["account"]["id"]) == ("hidden", author.id)
    assert (case["account"]["is_private"], case["account"]["suspended"]) == (True, False)
    await accounts.suspend(res, author.account["username"])
    seen = await admin.call("GET", f"/v1/admin/accounts/{author.id}")
    assert seen == (await the_case(admin, post["id"]))["account"]
    assert seen["suspended"]


# What becomes of reports.


@pytest.fixture
async def bad(sign_up: SignUp) -> Client:
    """Somebody who gets reported."""
    return await sign_up()


@pytest.fixture
async def case(ada: Client, bad: Client, admin: Client) -> Json:
    """The case about them."""
    await report(ada, "account", bad.id)
    return await the_case(admin, bad.id)


async def test_a_case_is_dismissed(admin: Client, bad: Client, case: Json) -> None:
    answer = await resolve(admin, case, "dismiss", note="Nothing wrong.")
    done = answer.json()
    assert answer.status_code == 200
    assert (done["resolution"], done["resolved_by"]["id"]) == ("dismiss", admin.id)
    assert is_now(done["resolved_at"])
    assert await cases(admin, bad.id) == []
    again = await resolve(admin, case, "dismiss", note="Sent again.")
    assert (again.status_code, again.json()) == (200, done)
    assert await log_of(admin, bad.id) == [("dismiss", admin.id, None, "Nothing wrong.")]
    await bad.call("GET", "/v1/me")
    assert await bad.walk("/v1/me/warnings") == []


async def test_a_warning_is_read_by_whom_it_is_for(admin: Client, bad: Client, case: Json) -> None:
    for _ in range(2):
        assert (await resolve(admin, case, "warn", message="Please stop.", note="First time.")).status_code == 200
    [warning] = (await bad.call("GET", "/v1/me/warnings"))["items"]
    assert warning == {
        "id": warning["id"],
        "subject": {"kind": "account", "id": bad.id},
        "message": "Please stop.",
        "created_at": warning["created_at"],
    }
    assert is_now(warning["created_at"])
    assert await admin.walk("/v1/me/warnings") == []
    assert await log_of(admin, bad.id) == [("warn", admin.id, None, "First time.")]


async def test_a_suspended_account_vanishes_and_is_brought_back(
    admin: Client, bad: Client, case: Json, sign_up: SignUp
) -> None:
    other = await sign_up()
    for _ in range(2):
        answer = await resolve(admin, case, "suspend")
        assert answer.json()["account"]["suspended"]
    await bad.call("GET", "/v1/me", 401)
    await other.call("GET", f"/v1/accounts/{bad.id}", 404)
    path = f"/v1/admin/accounts/{bad.id}"
    for action in ("unsuspend", "unsuspend", "suspend", "suspend", "unsuspend"):
        await admin.call("POST", f"{path}/{action}", 204, json={"note": action})
        status = 200 if action == "unsuspend" else 404
        await other.call("GET", f"/v1/accounts/{bad.id}", status)
    actions = [("unsuspend", "unsuspend"), ("suspend", "suspend"), ("unsuspend", "unsuspend"), ("suspend", "")]
    assert await log_of(admin, bad.id) == [(action, admin.id, None, note) for action, note in actions]


@pytest.mark.usefixtures("workers")
@pytest.mark.parametrize("directly", [False, True])
async def test_a_removed_post_is_on_no_surface(admin: Client, sign_up: SignUp, directly: bool) -> None:
    author, fan = await sign_up(), await sign_up()
    await fan.follow(author)
    post = await author.published((await author.post())["id"])
    kept = await author.published((await author.post())["id"])
    await fan.sees(kept["id"])
    await fan.sees(post["id"])
    await report(fan, "post", post["id"])
    case = await the_case(admin, post["id"])
    if directly:
        await admin.call("POST", f"/v1/admin/posts/{post['id']}/remove", 204, json={"note": "bad"})
        await admin.call("POST", f"/v1/admin/posts/{post['id']}/remove", 404, json={"note": "bad"})
    else:
        assert (await resolve(admin, case, "remove", note="bad")).status_code == 200
    for who in (author, fan):
        await who.call("GET", f"/v1/posts/{post['id']}", 404)
        assert await who.walk(f"/v1/accounts/{author.id}/posts") == [kept["id"]]
        assert await who.feed() == [kept["id"]]
        assert (await who.call("GET", f"/v1/accounts/{author.id}"))["post_count"] == 1
    assert await log_of(admin, author.id) == [("remove", admin.id, None, "bad")]
    if directly:  # what is reported and gone can be resolved all the same
        assert (await the_case(admin, post["id"]))["post"] is None
    assert (await resolve(admin, case, "remove")).status_code == 200
    assert await cases(admin, post["id"]) == []

    async def photos_gone() -> bool:
        async with http_client() as anybody:
            answers = [await anybody.get(rendition["url"]) for rendition in post["media"][0]["renditions"]]
        return all(answer.status_code == 404 for answer in answers)

    await eventually(photos_gone)


@pytest.mark.usefixtures("workers")
async def test_a_removed_comment_is_gone_with_its_replies(admin: Client, ada: Client, bad: Client) -> None:
    post = await ada.published((await ada.post())["id"])
    path = f"/v1/posts/{post['id']}"
    said = await bad.call("POST", f"{path}/comments", 201, json={"text": "Buy!"})
    reply = await bad.call("POST", f"{path}/comments", 201, json={"text": "Now!", "reply_to": said["id"]})
    for of in (said, reply):
        await report(ada, "comment", of["id"])
    case = await the_case(admin, said["id"])
    assert (case["comment"], case["post"], case["account"]["id"]) == (said | {"reply_count": 1}, None, bad.id)
    assert (await resolve(admin, case, "remove")).status_code == 200
    assert (await ada.call("GET", path))["comment_count"] == 0
    assert (await ada.call("GET", f"{path}/comments"))["items"] == []
    gone = await the_case(admin, reply["id"])
    assert (gone["comment"], gone["subject"]) == (None, {"kind": "comment", "id": reply["id"]})
    assert (await resolve(admin, gone, "remove")).status_code == 200, "what is gone already counts as done"


async def test_what_is_no_way_to_resolve_a_case_is_refused(admin: Client, bad: Client, case: Json) -> None:
    for body, pointer in (
        ({}, "/action"),
        ({"action": "unsuspend"}, "/action"),
        ({"action": "promote"}, "/action"),
        ({"action": "remove"}, "/action"),
        ({"action": "warn"}, "/message"),
        ({"action": "warn", "message": "\u200b"}, "/message"),
        ({"action": "warn", "message": "a" * 1001}, "/message"),
        ({"action": "dismiss", "message": "a"}, "/message"),
        ({"action": "dismiss", "note": "a\x00"}, "/note"),
        ({"action": "dismiss", "by": "me"}, "/by"),
    ):
        path = f"/v1/admin/reports/{case['id']}/resolve"
        invalid(await admin.http.post(path, json=body, headers=admin.headers), pointer)
    assert (await the_case(admin, bad.id)) == case
    assert await log_of(admin, bad.id) == []
    for method, path in (
        ("GET", "/v1/admin/reports/{}"),
        ("GET", "/v1/admin/reports/{}/statements"),
        ("POST", "/v1/admin/reports/{}/resolve"),
        ("GET", "/v1/admin/accounts/{}"),
        ("POST", "/v1/admin/accounts/{}/suspend"),
        ("POST", "/v1/admin/accounts/{}/unsuspend"),
        ("POST", "/v1/admin/posts/{}/remove"),
    ):
        body = {"action": "dismiss"} if path.endswith("resolve") else {}
        for missing in ("1", admin.id if "accounts" not in path else case["id"]):
            options: Json = {"json": body} if method == "POST" else {}
            answer = await admin.http.request(method, path.format(missing), headers=admin.headers, **options)
            problem(answer, 404, "not-found")
        answer = await admin.http.request(method, path.format("0"), headers=admin.headers)
        assert answer.status_code == 422


# Several at once.


async def test_of_admins_who_resolve_a_case_one_does_and_the_others_are_told(
    admin: Client, bad: Client, case: Json, sign_up: SignUp, res: Resources
) -> None:
    admins = [admin, await make_admin(sign_up, res), await make_admin(sign_up, res)]
    actions: list[Json] = [
        {"action": "suspend"},
        {"action": "warn", "message": "Stop."},
        {"action": "dismiss"},
    ]
    ways = list(zip(admins, actions, strict=True))
    answers = await asyncio.gather(*(resolve(who, case, **way) for who, way in ways))
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409]
    for answer in answers:
        if answer.status_code == 409:
            problem(answer, 409, "conflict")
    [won] = [(who, way["action"]) for (who, way), answer in zip(ways, answers, strict=True) if answer.is_success]
    done = await admin.call("GET", f"/v1/admin/reports/{case['id']}")
    assert (done["resolved_by"]["id"], done["resolution"]) == (won[0].id, won[1])
    assert await log_of(admin, bad.id) == [(won[1], won[0].id, None, "")]
    assert done["account"]["suspended"] == (won[1] == "suspend")
    async with res.db.acquire() as connection:
        warned = await connection.fetchval("select count(*) from warnings where account_id = $1", int(bad.id))
    assert warned == (won[1] == "warn")
    # Nor may the winner decide otherwise later.
    other = "dismiss" if won[1] != "dismiss" else "suspend"
    problem(await resolve(won[0], case, other), 409, "conflict")


async def test_an_admin_who_resolves_a_case_several_times_at_once_does_it_once(
    admin: Client, bad: Client, case: Json
) -> None:
    answers = await asyncio.gather(*(resolve(admin, case, "warn", message="Stop.") for _ in range(4)))
    assert [answer.status_code for answer in answers] == [200] * 4
    assert len(await bad.walk("/v1/me/warnings")) == 1
    assert len(await log_of(admin, bad.id)) == 1


async def test_of_two_admins_who_suspend_each_other_one_is_left(admin: Client, sign_up: SignUp, res: Resources) -> None:
    one, two = await make_admin(sign_up, res), await make_admin(sign_up, res)
    answers = await asyncio.gather(
        *(
            who.http.post(f"/v1/admin/accounts/{other.id}/suspend", json={}, headers=who.headers)
            for who, other in ((one, two), (two, one))
        )
    )
    assert 204 in [answer.status_code for answer in answers]
    seen = [(await admin.call("GET", f"/v1/admin/accounts/{who.id}"))["suspended"] for who in (one, two)]
    assert sorted(seen) == [False, True]


@pytest.mark.parametrize(
    "end", ["delete from admins where account_id = $1", "update accounts set suspended_at = now() where id = $1"]
)
async def test_an_admin_who_is_none_any_more_by_the_time_of_acting_does_nothing(
    admin: Client, bad: Client, case: Json, sign_up: SignUp, res: Resources, end: str
) -> None:
    former = await make_admin(sign_up, res)
    async with res.db.acquire() as connection, connection.transaction():
        await connection.execute("select from accounts where id = $1 for update", int(former.id))
        acting = asyncio.create_task(resolve(former, case, "suspend"))
        await eventually(lambda: is_waited_for(connection))
        await connection.execute(end, int(former.id))
    problem(await acting, 404, "not-found")
    assert await the_case(admin, bad.id) == case
    assert await log_of(admin, bad.id) == []


@pytest.mark.usefixtures("workers")
async def test_a_post_that_its_author_and_an_admin_delete_at_once_is_counted_once(
    admin: Client, sign_up: SignUp
) -> None:
    author = await sign_up()
    for _ in range(2):
        post = await author.published((await author.post())["id"])
        answers = await asyncio.gather(
            author.http.delete(f"/v1/posts/{post['id']}", headers=author.headers),
            admin.http.post(f"/v1/admin/posts/{post['id']}/remove", json={}, headers=admin.headers),
        )
        assert sorted(answer.status_code for answer in answers) == [204, 404]
        assert (await author.call("GET", "/v1/me"))["post_count"] == 0


# The log.


async def test_the_log_tells_everything_and_never_changes(
    admin: Client, bad: Client, case: Json, res: Resources
) -> None:
    await resolve(admin, case, "dismiss", note="why")
    await accounts.suspend(res, bad.account["username"], operator="Jo", note="asked for")
    everything = (await admin.call("GET", "/v1/admin/audit-log", params={"limit": "2"}))["items"]
    assert everything == (await admin.call("GET", f"/v1/admin/accounts/{bad.id}/audit-log"))["items"]
    suspended, dismissed = everything
    subject = {"kind": "account", "id": bad.id}
    assert (suspended["operator"], suspended["admin"], suspended["note"]) == ("Jo", None, "asked for")
    assert (dismissed["operator"], dismissed["admin"]["id"], dismissed["note"]) == (None, admin.id, "why")
    assert (suspended["case_id"], dismissed["case_id"]) == (None, case["id"])
    for item in everything:
        assert (item["subject"], item["account"]["id"]) == (subject, bad.id)
        assert is_now(item["created_at"])
    assert [item["id"] for item in everything] == await admin.walk(f"/v1/admin/accounts/{bad.id}/audit-log", limit=1)
    async with res.db.acquire() as connection:
        for statement in ("update audit_log set note = ''", "delete from audit_log", "truncate audit_log"):
            with pytest.raises(asyncpg.RaiseError, match="audit_log is append-only"):
                await connection.execute(statement)
