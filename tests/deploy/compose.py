"""compose.yaml as it is read on an operator's machine."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
FILE = ROOT / "compose.yaml"

VALUES = {
    "INSTAFEED_SECRET_KEY": "a secret key that is long enough for production",
    "POSTGRES_PASSWORD": "postgrespassword",
    "VALKEY_PASSWORD": "valkeypassword",
    "S3_ACCESS_KEY": "s3accesskey",
    "S3_SECRET_KEY": "s3secretkey",
    "INSTAFEED_ALLOWED_HOSTS": "api.example.org",
    "INSTAFEED_S3_PUBLIC_ENDPOINT": "https://photos.example.org",
}
"""What an operator must write into .env."""

_VARIABLE = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<name>\w+)(?:(?P<rule>:[-?])(?P<rest>[^}]*))?\})")


class MissingValueError(Exception):
    """A value that has no default is not given; its text is the variable's name."""


def variables() -> dict[str, bool]:
    """Every variable of the file, and whether it must be given."""
    found: dict[str, bool] = {}
    for match in _VARIABLE.finditer(FILE.read_text()):
        if name := match["name"]:
            found[name] = found.get(name, False) or match["rule"] == ":?"
    return found


@dataclass(frozen=True)
class Compose:
    """The file with an operator's values."""

    values: Mapping[str, str]

    @cached_property
    def document(self) -> dict[str, Any]:
        """The whole file.

        Raises:
            MissingValueError: a value that must be given is not.
        """
        found: dict[str, Any] = self._interpolated(yaml.safe_load(FILE.read_text()))
        return found

    @property
    def services(self) -> dict[str, dict[str, Any]]:
        """What it runs."""
        found: dict[str, dict[str, Any]] = self.document["services"]
        return found

    def environment(self, service: str) -> dict[str, str]:
        """The service's environment; a variable without a value is there only if the operator gave one."""
        given = self.services[service].get("environment", {})
        named = {name: self.values.get(name) if value is None else str(value) for name, value in given.items()}
        return {name: value for name, value in named.items() if value is not None}

    def _interpolated(self, value: Any) -> Any:
        match value:
            case str():
                return _VARIABLE.sub(self._value, value)
            case dict():
                return {key: self._interpolated(item) for key, item in value.items()}
            case list():
                return [self._interpolated(item) for item in value]
        return value

    def _value(self, match: re.Match[str]) -> str:
        if match["dollar"]:
            return "$"
        value = self.values.get(match["name"], "")
        if not value and match["rule"] == ":?":
            raise MissingValueError(match["name"])
        return value or (match["rest"] if match["rule"] == ":-" else "")


COMPOSE = Compose(VALUES)
