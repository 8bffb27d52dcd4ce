"""The OpenAPI document as the tests read it."""

import re
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import httpx
from jsonschema import Draft202012Validator

Json = dict[str, Any]


@dataclass(frozen=True)
class Operation:
    """One call."""

    method: str
    path: str
    spec: Json

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    def contents(self) -> Iterator[tuple[str, Json]]:
        """The media types of its body and of its responses."""
        for part in (self.spec.get("requestBody", {}), *self.spec["responses"].values()):
            yield from part.get("content", {}).items()


class Contract:
    """The document, which real responses are held against."""

    def __init__(self, document: Json) -> None:
        self.document = document
        self.operations = [
            Operation(method.upper(), path, spec)
            for path, item in document["paths"].items()
            for method, spec in item.items()
        ]
        self._closed = deepcopy(document["components"])
        for schema in self._closed["schemas"].values():
            schema["additionalProperties"] = False

    def errors(self, schema: Json, value: Any, *, closed: bool = False) -> list[str]:
        """Where `value` is not as `schema` says; `closed`: fields that are not documented are errors too."""
        components = self._closed if closed else self.document["components"]
        validator = Draft202012Validator(
            schema | {"components": components}, format_checker=Draft202012Validator.FORMAT_CHECKER
        )
        return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]

    def operation(self, method: str, path: str) -> Operation:
        """The call that a request makes; a path without parameters goes before one with."""
        found = [
            operation
            for operation in self.operations
            if operation.method == method and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", operation.path), path)
        ]
        return min(found, key=lambda operation: operation.path.count("{"))

    def check(self, answer: httpx.Response) -> None:
        """Fail if the answer is not one that the document promises."""
        operation = self.operation(answer.request.method, answer.request.url.path)
        responses = operation.spec["responses"]
        response = responses.get(str(answer.status_code)) or responses["default"]
        assert response is not responses["default"] or answer.is_error, f"{operation}: {answer.status_code}"
        content = response.get("content", {})
        sent = answer.headers.get("content-type", "").partition(";")[0]
        assert (sent in content) if content else not answer.content, f"{operation}: {sent}"
        if content and sent.endswith("json"):
            assert not self.errors(content[sent]["schema"], answer.json(), closed=True), f"{operation}: {answer.text}"
        for name, reference in response["headers"].items():
            header = self.document["components"]["headers"][reference["$ref"].rpartition("/")[2]]
            assert name in answer.headers or not header.get("required"), f"{operation}: {name}"
