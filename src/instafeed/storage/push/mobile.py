"""Pushes to apps on phones: Amazon SNS hands them to APNs (Apple) and FCM (Google).

Source: AWS, "Sending mobile push notifications with Amazon SNS", its pages on endpoints and on reserved message attributes.
"""

import asyncio
import json
import re
from contextlib import AsyncExitStack
from typing import Any

import aioboto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from instafeed.models import Device, Platform, Push
from instafeed.settings import Settings
from instafeed.storage.push.verdicts import GONE, SENT, Breaker, Outcome, Verdict, later

_SERVICE = "sns"
_CONNECT_SECONDS = 3
_ANSWER_SECONDS = 5
_AT_ONCE = 50
_GONE = frozenset({"EndpointDisabled", "EndpointDisabledException", "NotFound", "NotFoundException"})
_INVALID = frozenset({"InvalidParameter", "InvalidParameterException"})
_BUSY = frozenset({"Throttled", "ThrottledException", "Throttling", "ThrottlingException", "RequestLimitExceeded"})
_KNOWN = re.compile(r"Endpoint (arn:\S+) already exists")


class MobilePush:
    """Sends pushes to phones, through the platform applications that the settings name."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._applications = {
            platform: arn
            for platform, arn in (
                (Platform.APNS, settings.sns_apns_application),
                (Platform.FCM, settings.sns_fcm_application),
            )
            if arn
        }
        self._stack = AsyncExitStack()
        self._breaker = Breaker()
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._clients: dict[Platform, Any] = {}

    async def open(self) -> None:
        """Make the clients; AWS itself may be away."""
        settings = self._settings
        key, secret = (
            settings.sns_access_key or settings.s3_access_key,
            settings.sns_secret_key or settings.s3_secret_key,
        )
        session = aioboto3.Session()
        for platform, arn in self._applications.items():
            self._clients[platform] = await self._stack.enter_async_context(
                session.client(
                    "sns",
                    endpoint_url=settings.sns_endpoint,
                    region_name=arn.split(":")[3],
                    aws_access_key_id=key.get_secret_value(),
                    aws_secret_access_key=secret.get_secret_value(),
                    config=Config(
                        connect_timeout=_CONNECT_SECONDS,
                        read_timeout=_ANSWER_SECONDS,
                        max_pool_connections=_AT_ONCE,
                        retries={"total_max_attempts": 1},  # the outbox does it
                    ),
                )
            )

    async def close(self) -> None:
        """Close the clients."""
        await self._stack.aclose()

    def serves(self, platform: Platform) -> bool:
        """Whether there is a way to this platform."""
        return platform in self._applications

    async def endpoint(self, device: Device) -> str | Verdict:
        """What SNS calls a device, made ready for pushes: SNS disables one after a push that the platform refused, and
        the app would not have registered again if its token were not good. Or why there is none.
        """
        async with self._room:
            return later() if self._breaker.is_open(_SERVICE) else await self._ready(device)

    async def _ready(self, device: Device) -> str | Verdict:
        client = self._clients[device.platform]
        try:
            arn = await self._create(client, device)
            if isinstance(arn, str):
                attributes = {"Token": device.address, "Enabled": "true"}
                await client.set_endpoint_attributes(EndpointArn=arn, Attributes=attributes)
        except (ClientError, BotoCoreError, OSError, TimeoutError) as error:
            return self._failed(error)
        self._breaker.answered(_SERVICE)
        return arn

    async def _create(self, client: Any, device: Device) -> str | Verdict:
        application = self._applications[device.platform]
        try:
            made = await client.create_platform_endpoint(PlatformApplicationArn=application, Token=device.address)
        except ClientError as error:
            # Somebody gave it attributes: it is the same endpoint.
            if known := _KNOWN.search(str(error)):
                return known[1]
            if _code(error) in _INVALID and "Token" in str(error):
                return GONE
            if _code(error) in _GONE:
                return Verdict(Outcome.REFUSED, reason="SNS knows no such platform application")
            raise
        return str(made["EndpointArn"])

    async def send(self, device: Device, endpoint_arn: str, push: Push) -> Verdict:
        """Hand a push over to SNS for a device that it calls so."""
        async with self._room:
            # Asked here: while a push waited for room, others may have found the service away.
            return later() if self._breaker.is_open(_SERVICE) else await self._publish(device, endpoint_arn, push)

    async def _publish(self, device: Device, endpoint_arn: str, push: Push) -> Verdict:
        # An application says in its name of which kind it is: APNS or APNS_SANDBOX, GCM.
        kind = self._applications[device.platform].split(":")[5].split("/")[1]
        message = _apns(push) if device.platform is Platform.APNS else _fcm(push)
        try:
            await self._clients[device.platform].publish(
                TargetArn=endpoint_arn,
                MessageStructure="json",
                Message=json.dumps({"default": push.text, kind: json.dumps(message, ensure_ascii=False)}),
                MessageAttributes={
                    name: {"DataType": "String", "StringValue": value}
                    for name, value in (
                        _apns_attributes(kind, push) if device.platform is Platform.APNS else {}
                    ).items()
                },
            )
        except (ClientError, BotoCoreError, OSError, TimeoutError) as error:
            return self._failed(error)
        self._breaker.answered(_SERVICE)
        return SENT

    def _failed(self, error: Exception) -> Verdict:
        if not isinstance(error, ClientError):
            self._breaker.failed(_SERVICE)
            return later()
        self._breaker.answered(_SERVICE)
        code = _code(error)
        if code in _GONE:
            return GONE
        if code in _BUSY or error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) >= 500:
            return later()
        return Verdict(Outcome.REFUSED, reason=f"SNS answers {code}")


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code"))


def _apns(push: Push) -> dict[str, Any]:
    alert = {"body": push.text, "loc-key": push.loc_key, "loc-args": push.loc_args}
    aps = {"alert": alert, "sound": "default", "thread-id": push.topic}
    return {"aps": aps if push.unread is None else aps | {"badge": push.unread}} | push.data


def _apns_attributes(kind: str, push: Push) -> dict[str, str]:
    return {
        f"AWS.SNS.MOBILE.{kind}.TTL": str(push.seconds),
        "AWS.SNS.MOBILE.APNS.COLLAPSE_ID": push.topic,
        "AWS.SNS.MOBILE.APNS.PUSH_TYPE": "alert",
        "AWS.SNS.MOBILE.APNS.PRIORITY": "10",
    }


def _fcm(push: Push) -> dict[str, Any]:
    shown: dict[str, Any] = {"body_loc_key": push.loc_key, "body_loc_args": push.loc_args, "tag": push.topic}
    data = push.data
    if push.unread is not None:
        shown["notification_count"] = push.unread
        data = data | {"unread": str(push.unread)}  # FCM takes texts only
    return {
        "fcmV1Message": {
            "message": {
                "notification": {"body": push.text},
                "data": data,
                "android": {
                    "collapse_key": push.topic,
                    "ttl": f"{push.seconds}s",
                    "priority": "HIGH",
                    "notification": shown,
                },
            }
        }
    }
