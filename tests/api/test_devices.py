"""The devices that pushes go to, as their owner registers them."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from instafeed.devices import PER_ACCOUNT
from tests.client import PASSWORD, Client

SignUp = Callable[..., Awaitable[Client]]

BROWSER = {
    "platform": "web",
    "endpoint": "https://push.example.com/send/dGhlcmU",
    # Of RFC 8291, appendix A.
    "p256dh": "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
    "auth": "BTBZMqHH6r4Tts7J_aSIgg",
}
IPHONE = {"platform": "apns", "token": "0a" * 32}
ANDROID = {"platform": "fcm", "token": "dK3x:APA91bH_-example"}


async def registered(client: Client) -> list[str]:
    return [device["id"] for device in (await client.call("GET", "/v1/me/devices"))["items"]]


async def put(client: Client, name: str, body: dict[str, Any], status: int = 200) -> Any:
    return await client.call("PUT", f"/v1/me/devices/{name}", status, json=body)


async def log_in(client: Client) -> Client:
    body = {"username": client.account["username"], "password": PASSWORD}
    answer = await client.http.post("/v1/sessions", json=body)
    return Client(client.http, answer.json()["account"], answer.json()["token"])


async def test_devices_of_each_platform_are_registered_listed_and_removed(sign_up: SignUp) -> None:
    ada = await sign_up()
    for name, body in (("phone", IPHONE | {"token": "a" * 64}), ("tablet", ANDROID), ("browser", BROWSER)):
        device = await put(ada, name, body)
        assert device.pop("registered_at")
        assert device == {"id": name, "platform": body["platform"], "current": True}
    assert await ada.walk("/v1/me/devices", limit=1) == ["browser", "tablet", "phone"]
    listed = await (await log_in(ada)).call("GET", "/v1/me/devices")
    assert {device["current"] for device in listed["items"]} == {False}
    for _ in range(2):
        await ada.call("DELETE", "/v1/me/devices/tablet", 204)
    assert await registered(ada) == ["browser", "phone"]


async def test_registering_again_renews_a_device(sign_up: SignUp) -> None:
    ada = await sign_up()
    await put(ada, "one", IPHONE)
    await put(ada, "two", ANDROID)
    await put(ada, "one", BROWSER)
    assert [(device["id"], device["platform"]) for device in (await ada.call("GET", "/v1/me/devices"))["items"]] == [
        ("one", "web"),
        ("two", "fcm"),
    ]


async def test_a_token_belongs_to_whoever_registered_it_last(sign_up: SignUp) -> None:
    ada, bob = await sign_up(), await sign_up()
    token = {"platform": "apns", "token": "b7" * 32}
    await put(ada, "phone", token)
    await put(bob, "mine", token)
    assert (await registered(ada), await registered(bob)) == ([], ["mine"])
    await put(bob, "renamed", token)
    assert await registered(bob) == ["renamed"]


async def _log_out(client: Client, other: Client) -> None:
    await client.call("DELETE", "/v1/sessions/current", 204)


async def _logged_out(client: Client, other: Client) -> None:
    [session] = [item for item in (await other.call("GET", "/v1/sessions"))["items"] if not item["current"]]
    await other.call("DELETE", f"/v1/sessions/{session['id']}", 204)


async def _everywhere(client: Client, other: Client) -> None:
    await other.call("DELETE", "/v1/sessions", 204)


async def _password(client: Client, other: Client) -> None:
    body = {"current_password": PASSWORD, "new_password": PASSWORD + "!"}
    await other.call("PUT", "/v1/me/password", 204, json=body)


@pytest.mark.parametrize("end", [_log_out, _logged_out, _everywhere, _password])
async def test_a_device_goes_with_its_session(
    sign_up: SignUp, end: Callable[[Client, Client], Awaitable[None]]
) -> None:
    ada = await sign_up()
    other = await log_in(ada)
    await put(ada, "phone", IPHONE | {"token": "c1" * 32})
    await put(other, "browser", BROWSER | {"endpoint": "https://push.example.com/other"})
    await end(ada, other)
    assert await registered(other) == ["browser"]


async def test_of_too_many_devices_the_newest_stay(sign_up: SignUp) -> None:
    ada = await sign_up()
    for number in range(PER_ACCOUNT + 2):
        await put(ada, f"d{number}", {"platform": "fcm", "token": f"{ada.id}:{number:020}"})
    assert await registered(ada) == [f"d{number}" for number in range(PER_ACCOUNT + 1, 1, -1)]


_ODD_POINT = "B" + "A" * 86  # the right length and beginning, and not on the curve


WRONG: list[tuple[dict[str, Any], str]] = [
    (BROWSER | {"endpoint": "http://push.example.com/x"}, "/endpoint"),
    (BROWSER | {"endpoint": "https://127.0.0.1/x"}, "/endpoint"),
    (BROWSER | {"endpoint": "https://[::1]/x"}, "/endpoint"),
    (BROWSER | {"endpoint": "https://2130706433/x"}, "/endpoint"),
    (BROWSER | {"endpoint": "https://0x7f.1/x"}, "/endpoint"),
    (BROWSER | {"endpoint": "https://localhost/x"}, "/endpoint"),
    (BROWSER | {"endpoint": "https://push.example.com:8443/x"}, "/endpoint"),
    (BROWSER | {"endpoint": "https://me:you@push.example.com/x"}, "/endpoint"),
    (BROWSER | {"endpoint": "https://push.example.com:99999/x"}, "/endpoint"),
    (BROWSER | {"endpoint": "https://push.example.com/\r\nHost: x"}, "/endpoint"),
    (BROWSER | {"endpoint": "https://[::1/x"}, "/endpoint"),
    (BROWSER | {"endpoint": ""}, "/endpoint"),
    (BROWSER | {"endpoint": "https://push.example.com/" + "x" * 2000}, "/endpoint"),
    (BROWSER | {"p256dh": _ODD_POINT}, "/p256dh"),
    (BROWSER | {"p256dh": BROWSER["p256dh"][:-4]}, "/p256dh"),
    (BROWSER | {"p256dh": "not base64!"}, "/p256dh"),
    (BROWSER | {"p256dh": "ü"}, "/p256dh"),
    (BROWSER | {"auth": BROWSER["auth"] + "AA"}, "/auth"),
    (BROWSER | {"auth": ""}, "/auth"),
    (BROWSER | {"token": "0a" * 32}, "/token"),
    ({"platform": "web", "token": "0a" * 32}, "/token"),
    ({"platform": "apns"}, "/token"),
    ({"platform": "apns", "token": "0a"}, "/token"),
    ({"platform": "apns", "token": "zz" * 32}, "/token"),
    ({"platform": "apns", "token": "0a" * 32 + "\n"}, "/token"),
    ({"platform": "fcm", "token": "white space"}, "/token"),
    ({"platform": "fcm", "token": "x" * 1001}, "/token"),
    (ANDROID | {"auth": BROWSER["auth"]}, "/auth"),
    ({"platform": "baidu", "token": "0a" * 32}, "/platform"),
    (ANDROID | {"account_id": "1"}, "/account_id"),
]


async def test_what_reaches_no_device_is_refused(sign_up: SignUp) -> None:
    ada = await sign_up()
    for body, pointer in WRONG:
        problem = await put(ada, "phone", body, 422)
        assert [error["pointer"] for error in problem["errors"]] == [pointer], body
    assert await registered(ada) == []


async def test_a_name_is_short_and_plain(sign_up: SignUp) -> None:
    ada = await sign_up()
    for name in ("a" * 65, "a b", "%00", "é"):
        await put(ada, name, IPHONE, 422)
    assert await registered(ada) == []
