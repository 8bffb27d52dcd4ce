"""Amazon SNS as far as we speak with it: its query protocol, its signatures, platform endpoints and publishing to them."""

import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs

from aiohttp import web

ACCESS_KEY, SECRET_KEY = "AKIDEXAMPLE", "secret of the example"
REGION = "eu-central-1"
APNS = f"arn:aws:sns:{REGION}:123456789012:app/APNS/instafeed"
FCM = f"arn:aws:sns:{REGION}:123456789012:app/GCM/instafeed"
BAD_TOKEN = "bad"
"""A token that is none."""


class Sns:
    """Platform endpoints, and what was published to them."""

    def __init__(self) -> None:
        self.url = ""
        self.endpoints: dict[str, dict[str, str]] = {}
        """Attributes of each endpoint, by its ARN."""
        self.published: list[dict[str, Any]] = []
        self.calls: list[str] = []
        self.fault: tuple[int, str, str] | None = None
        """Status, code and message of all answers."""

    async def serve(self, request: web.Request) -> web.Response:
        """Answer a call."""
        body = await request.read()
        assert signature(request, body) == request.headers["Authorization"].rpartition("Signature=")[2]
        form = {name: values[0] for name, values in parse_qs(body.decode(), keep_blank_values=True).items()}
        action = form["Action"]
        self.calls.append(action)
        if self.fault is not None:
            return _fault(*self.fault)
        match action:
            case "CreatePlatformEndpoint":
                return self._create(form)
            case "SetEndpointAttributes":
                if form["EndpointArn"] not in self.endpoints:
                    return _fault(404, "NotFound", "Endpoint does not exist")
                self.endpoints[form["EndpointArn"]] |= _entries(form, "Attributes.entry", "key", "value")
                return _answer(action, "")
            case "Publish":
                return self._publish(form)
        return _fault(400, "InvalidAction", action)

    def _create(self, form: dict[str, str]) -> web.Response:
        application, token = form["PlatformApplicationArn"], form["Token"]
        if application not in {APNS, FCM}:
            return _fault(404, "NotFound", "PlatformApplication does not exist")
        if token == BAD_TOKEN:
            return _fault(400, "InvalidParameter", "Invalid parameter: Token Reason: must be something else")
        arn = f"{application.replace(':app/', ':endpoint/')}/{hashlib.sha256(token.encode()).hexdigest()[:32]}"
        known = self.endpoints.setdefault(arn, {"Token": token, "Enabled": "true"})
        if "CustomUserData" in known:
            text = f"Invalid parameter: Token Reason: Endpoint {arn} already exists with the same Token, but different attributes."
            return _fault(400, "InvalidParameter", text)
        return _answer("CreatePlatformEndpoint", f"<EndpointArn>{arn}</EndpointArn>")

    def _publish(self, form: dict[str, str]) -> web.Response:
        arn = form["TargetArn"]
        if arn not in self.endpoints:
            return _fault(404, "NotFound", "Endpoint does not exist")
        if self.endpoints[arn]["Enabled"] != "true":
            return _fault(400, "EndpointDisabled", "Endpoint is disabled")
        assert form["MessageStructure"] == "json"
        message = json.loads(form["Message"])
        told = {kind: json.loads(text) for kind, text in message.items() if kind != "default"}
        attributes = _entries(form, "MessageAttributes.entry", "Name", "Value.StringValue")
        self.published.append({"arn": arn, "default": message["default"], "attributes": attributes} | told)
        return _answer("Publish", "<MessageId>1</MessageId>")


def signature(request: web.Request, body: bytes) -> str:
    """What the call must be signed with: AWS's Signature Version 4."""
    told = dict(part.strip().split("=", 1) for part in request.headers["Authorization"].partition(" ")[2].split(","))
    scope = told["Credential"].partition("/")[2]
    day, region, service, end = scope.split("/")
    assert told["Credential"].startswith(f"{ACCESS_KEY}/")
    assert (region, service, end) == (REGION, "sns", "aws4_request")
    names = told["SignedHeaders"].split(";")
    headers = "".join(f"{name}:{request.headers[name].strip()}\n" for name in names)
    canonical = "\n".join(("POST", "/", "", headers, ";".join(names), hashlib.sha256(body).hexdigest()))
    text = "\n".join(
        ("AWS4-HMAC-SHA256", request.headers["X-Amz-Date"], scope, hashlib.sha256(canonical.encode()).hexdigest())
    )
    key = f"AWS4{SECRET_KEY}".encode()
    for part in (day, region, service, end):
        key = hmac.digest(key, part.encode(), hashlib.sha256)
    return hmac.digest(key, text.encode(), hashlib.sha256).hex()


def _entries(form: dict[str, str], prefix: str, name: str, value: str) -> dict[str, str]:
    numbers = [key.split(".")[2] for key in form if key.startswith(prefix) and key.endswith(f".{name}")]
    return {form[f"{prefix}.{number}.{name}"]: form[f"{prefix}.{number}.{value}"] for number in numbers}


def _answer(action: str, result: str) -> web.Response:
    inner = f"<{action}Result>{result}</{action}Result>"
    text = f'<{action}Response xmlns="http://sns.amazonaws.com/doc/2010-03-31/">{inner}</{action}Response>'
    return web.Response(text=text, content_type="text/xml")


def _fault(status: int, code: str, message: str) -> web.Response:
    text = f"<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"
    return web.Response(status=status, text=text, content_type="text/xml")


@asynccontextmanager
async def running_sns() -> AsyncIterator[Sns]:
    """SNS on a port of its own."""
    sns = Sns()
    app = web.Application()
    app.router.add_post("/", sns.serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    sns.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield sns
    finally:
        await runner.cleanup()
