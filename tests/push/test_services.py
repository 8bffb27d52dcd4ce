"""What push services get of us, and what we make of their answers."""

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import aiohttp
import pytest
from aiohttp.abc import ResolveResult
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import ValidationError

from instafeed.models import Device, Platform, Push
from instafeed.settings import Settings
from instafeed.storage.push import Outcome, PushServices, Verdict
from instafeed.storage.push.verdicts import Breaker, later
from instafeed.storage.push.web import MAX_BYTES, WebPush, encrypt
from tests.client import eventually
from tests.push.browser import Browser, PushService, check_sender, decode, decrypt, encode
from tests.push.sns import ACCESS_KEY, APNS, BAD_TOKEN, FCM, SECRET_KEY, Sns

KEY = "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"  # of RFC 8291, appendix A, as are the others
PUSH = Push(
    topic="abcdefghijklmnopqrstuvwxyz012345",
    seconds=3600,
    text="@ada and 2 others liked your photo",
    loc_key="like_many",
    loc_args=("ada", "2"),
    unread=7,
    data={"kind": "like", "post_id": "412345678901234567"},
)


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[PushServices]:
    services = PushServices(settings)
    await services.open()
    try:
        yield services
    finally:
        await services.close()


@pytest.fixture
async def web(settings: Settings) -> AsyncIterator[WebPush]:
    """Our way to push services of browsers."""
    web = WebPush(KEY, contact="us@example.org", anywhere=True)
    await web.open()
    yield web
    await web.close()


@pytest.fixture
async def mobile(settings: Settings, sns: Sns) -> AsyncIterator[PushServices]:
    """Our way to Amazon SNS."""
    values = {
        "sns_apns_application": APNS,
        "sns_fcm_application": FCM,
        "sns_access_key": ACCESS_KEY,
        "sns_secret_key": SECRET_KEY,
        "sns_endpoint": sns.url,
    }
    async with opened(Settings.model_validate(settings.model_dump() | values)) as services:
        yield services


def device_of(browser: Browser) -> Device:
    return Device(1, "browser", 1, 1, Platform.WEB, browser.endpoint, browser.p256dh, browser.auth)


def test_the_browser_of_these_tests_reads_the_example_of_rfc_8291() -> None:
    key = ec.derive_private_key(int.from_bytes(decode("q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94")), ec.SECP256R1())
    body = decode(
        "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
    )
    assert decrypt(body, key, decode("BTBZMqHH6r4Tts7J_aSIgg")) == b"When I grow up, I want to be a watermelon"


async def test_a_browser_reads_what_only_it_can_read_and_knows_who_sent_it(web: WebPush, service: PushService) -> None:
    browser, other = service.browser(), service.browser()
    for _ in range(2):
        assert await web.send(device_of(browser), PUSH) == Verdict(Outcome.SENT)
    assert (
        browser.messages
        == [
            {
                "kind": "like",
                "post_id": "412345678901234567",
                "text": "@ada and 2 others liked your photo",
                "loc_key": "like_many",
                "loc_args": ["ada", "2"],
                "topic": PUSH.topic,
                "unread": 7,
            }
        ]
        * 2
    )
    first, second = browser.pushes
    assert first.body[:16] != second.body[:16]
    assert first.body[21:86] != second.body[21:86]
    with pytest.raises(InvalidTag):
        decrypt(first.body, other.key, browser.auth)
    told = {name: first.headers[name] for name in ("TTL", "Topic", "Urgency", "Content-Encoding")}
    assert told == {"TTL": "3600", "Topic": PUSH.topic, "Urgency": "normal", "Content-Encoding": "aes128gcm"}
    public_key, claims = check_sender(first.headers["Authorization"], service.origin)
    assert public_key == web.public_key
    assert claims["sub"] == "mailto:us@example.org"


async def test_another_key_is_another_sender_whom_a_browser_must_ask_for_anew(
    web: WebPush, service: PushService
) -> None:
    before, after = service.browser(), service.browser()
    changed = WebPush(encode(secrets.token_bytes(32)), contact="us@example.org", anywhere=True)
    await changed.open()
    try:
        service.answers[before.number] = (403, {})  # it subscribed to the old one
        assert (await changed.send(device_of(before), PUSH)).outcome is Outcome.REFUSED
        assert await changed.send(device_of(after), PUSH) == Verdict(Outcome.SENT)
    finally:
        await changed.close()
    told, _ = check_sender(after.pushes[0].headers["Authorization"], service.origin)
    assert told == changed.public_key != web.public_key


def test_a_message_of_the_most_bytes_fits_and_a_longer_one_does_not() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    browser = Browser(PushService(), 1, key)
    body = encrypt(b"x" * MAX_BYTES, p256dh=browser.p256dh, auth=browser.auth)
    assert len(body) == 4096
    assert decrypt(body, key, browser.auth) == b"x" * MAX_BYTES
    with pytest.raises(ValueError, match="too long"):
        encrypt(b"x" * (MAX_BYTES + 1), p256dh=browser.p256dh, auth=browser.auth)


@pytest.mark.parametrize(
    ("status", "headers", "outcome", "seconds"),
    [
        (404, {}, Outcome.GONE, 0),
        (410, {}, Outcome.GONE, 0),
        (400, {}, Outcome.REFUSED, 0),
        (413, {}, Outcome.REFUSED, 0),
        (307, {"Location": "http://127.0.0.1:1/"}, Outcome.REFUSED, 0),
        (429, {"Retry-After": "17"}, Outcome.LATER, 17),
        (429, {}, Outcome.LATER, 5),
        (500, {}, Outcome.LATER, 5),
        (503, {"Retry-After": "999999999999"}, Outcome.LATER, 3600),
        (503, {"Retry-After": "-3"}, Outcome.LATER, 5),
        (503, {"Retry-After": "soon"}, Outcome.LATER, 5),
    ],
)
async def test_what_a_service_answers(
    web: WebPush, service: PushService, status: int, headers: dict[str, str], outcome: Outcome, seconds: float
) -> None:
    browser = service.browser()
    service.answers[browser.number] = (status, headers)
    verdict = await web.send(device_of(browser), PUSH)
    assert (verdict.outcome, verdict.seconds) == (outcome, seconds)


def test_a_date_tells_when_to_try_again() -> None:
    at = datetime.now(UTC) + timedelta(minutes=2)
    assert 100 < later(format_datetime(at, usegmt=True)).seconds <= 120
    assert later(format_datetime(datetime.now(UTC) - timedelta(days=1), usegmt=True)).seconds == 1


async def test_a_service_that_does_not_answer_is_left_alone_for_a_while(web: WebPush, service: PushService) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}/x"
        there = service.browser()
        away = replace(device_of(there), address=address)
        for _ in range(5):
            assert (await web.send(away, PUSH)).outcome is Outcome.LATER
        closed.listen()
        # It could be reached again, and is not asked: nothing comes, and nobody waits.
        assert (await web.send(away, PUSH)).outcome is Outcome.LATER
        closed.setblocking(False)
        with pytest.raises(BlockingIOError):
            closed.accept()
    assert await web.send(device_of(there), PUSH) == Verdict(Outcome.SENT)


def test_a_service_is_asked_again_after_a_while_once() -> None:
    now = [0.0]
    breaker = Breaker(lambda: now[0])
    for _ in range(4):
        breaker.failed("a")
    assert not breaker.is_open("a")
    breaker.failed("a")
    assert breaker.is_open("a")
    assert not breaker.is_open("b")
    now[0] = 15
    assert not breaker.is_open("a")
    breaker.failed("a")
    assert breaker.is_open("a")
    breaker.answered("a")
    assert not breaker.is_open("a")


class _Inward(aiohttp.abc.AbstractResolver):
    """Leads every name to one address."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        family = socket.AF_INET6 if ":" in self._address else socket.AF_INET
        found = ResolveResult(hostname=host, host=self._address, port=port, family=family, proto=0, flags=0)
        return [found]

    async def close(self) -> None:
        """Do nothing."""


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "169.254.169.254", "100.64.0.1", "::1", "fd00::1", "::ffff:10.0.0.1", "224.0.0.1"],
)
async def test_a_name_that_leads_inward_is_not_connected_to(service: PushService, address: str) -> None:
    web = WebPush(KEY, contact="us@example.org", anywhere=False)
    await web.open()
    connector = web._http.connector
    assert isinstance(connector, aiohttp.TCPConnector)
    connector._resolver = _Inward(address)
    try:
        browser = service.browser()
        port = service.origin.rpartition(":")[2]
        device = replace(device_of(browser), address=f"https://push.example.com:{port}/send/1")
        assert (await web.send(device, PUSH)).outcome is Outcome.GONE
        assert service.asked == []
    finally:
        await web.close()


@pytest.mark.parametrize("key", ["", "AAAA", "A" * 43, "_" * 43, "not base64 at all!", "ü"])
def test_a_key_that_is_none_is_refused_at_the_start(settings: Settings, key: str) -> None:
    with pytest.raises(ValidationError, match="private key of P-256"):
        Settings.model_validate(settings.model_dump() | {"web_push_key": key})


def test_production_pushes_to_the_internet_only(settings: Settings) -> None:
    values = {"environment": "production", "rate_limits": "on", "web_push_anywhere": "on"}
    with pytest.raises(ValidationError, match="web_push_anywhere"):
        Settings.model_validate(settings.model_dump() | values)


IPHONE = Device(1, "phone", 1, 1, Platform.APNS, "0a" * 32)
ANDROID = Device(1, "tablet", 2, 1, Platform.FCM, "dK3x:APA91bH-example")


async def endpoint(services: PushServices, device: Device) -> Device:
    arn = await services.mobile.endpoint(device)
    assert isinstance(arn, str)
    return replace(device, endpoint_arn=arn)


async def test_an_iphone_gets_what_apple_wants(mobile: PushServices, sns: Sns) -> None:
    assert await mobile.send(await endpoint(mobile, IPHONE), PUSH) == Verdict(Outcome.SENT)
    [published] = sns.published
    assert published["APNS"] == {
        "aps": {
            "alert": {
                "body": "@ada and 2 others liked your photo",
                "loc-key": "like_many",
                "loc-args": ["ada", "2"],
            },
            "badge": 7,
            "sound": "default",
            "thread-id": PUSH.topic,
        },
        "kind": "like",
        "post_id": "412345678901234567",
    }
    assert published["attributes"] == {
        "AWS.SNS.MOBILE.APNS.TTL": "3600",
        "AWS.SNS.MOBILE.APNS.COLLAPSE_ID": PUSH.topic,
        "AWS.SNS.MOBILE.APNS.PUSH_TYPE": "alert",
        "AWS.SNS.MOBILE.APNS.PRIORITY": "10",
    }


async def test_an_android_gets_what_google_wants(mobile: PushServices, sns: Sns) -> None:
    assert await mobile.send(await endpoint(mobile, ANDROID), PUSH) == Verdict(Outcome.SENT)
    [published] = sns.published
    message = published["GCM"]["fcmV1Message"]["message"]
    assert message["notification"] == {"body": PUSH.text}
    assert message["data"] == {"kind": "like", "post_id": "412345678901234567", "unread": "7"}
    assert message["android"] == {
        "collapse_key": PUSH.topic,
        "ttl": "3600s",
        "priority": "HIGH",
        "notification": {
            "body_loc_key": "like_many",
            "body_loc_args": ["ada", "2"],
            "tag": PUSH.topic,
            "notification_count": 7,
        },
    }
    assert published["attributes"] == {}


async def test_an_endpoint_is_made_once_and_enabled_again(mobile: PushServices, sns: Sns) -> None:
    device = await endpoint(mobile, IPHONE)
    assert device.endpoint_arn is not None
    sns.endpoints[device.endpoint_arn] |= {"Enabled": "false", "CustomUserData": "somebody's"}
    assert (await mobile.send(device, PUSH)).outcome is Outcome.GONE
    assert await endpoint(mobile, IPHONE) == device
    assert sns.endpoints[device.endpoint_arn]["Enabled"] == "true"
    assert await mobile.send(device, PUSH) == Verdict(Outcome.SENT)
    assert len(sns.endpoints) == 1


async def test_what_sns_answers(mobile: PushServices, sns: Sns) -> None:
    device = await endpoint(mobile, ANDROID)
    bad = await mobile.mobile.endpoint(replace(ANDROID, address=BAD_TOKEN))
    assert bad == Verdict(Outcome.GONE)
    for fault, outcome in (
        ((404, "NotFound", "Endpoint does not exist"), Outcome.GONE),
        ((400, "Throttled", "Rate exceeded"), Outcome.LATER),
        ((500, "InternalError", "oh"), Outcome.LATER),
        ((400, "InvalidParameter", "Message too long"), Outcome.REFUSED),
        ((403, "AuthorizationError", "no"), Outcome.REFUSED),
    ):
        sns.fault = fault
        assert (await mobile.send(device, PUSH)).outcome is outcome
        sns.fault = None
    # Wrong settings are no fault of the devices.
    sns.fault = (404, "NotFound", "PlatformApplication does not exist")
    verdict = await mobile.mobile.endpoint(ANDROID)
    assert isinstance(verdict, Verdict)
    assert verdict.outcome is Outcome.REFUSED


async def test_what_is_not_set_up_is_off(settings: Settings, service: PushService) -> None:
    async with opened(settings) as services:
        for device in (IPHONE, ANDROID, device_of(service.browser())):
            assert (await services.send(device, PUSH)).outcome is Outcome.OFF


async def test_many_pushes_to_one_service_are_under_way_at_once_but_not_all(web: WebPush, service: PushService) -> None:
    web._room = asyncio.Semaphore(5)
    service.gate.clear()
    device = device_of(service.browser())
    sending = [asyncio.create_task(web.send(device, PUSH)) for _ in range(8)]

    async def probe() -> bool:
        return service.busiest >= 5

    await eventually(probe)
    service.gate.set()
    for sent in sending:
        await sent
    assert service.busiest == 5
