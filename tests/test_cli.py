import asyncio
import os
import resource
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import get_args

import pytest
from annotated_types import Ge, Gt, Le
from pydantic import SecretStr

from instafeed.cli import main
from instafeed.settings import PREFIX, Settings
from tests.client import Client
from tests.processes import running_api_process


def environ_of(settings: Settings, **changes: str) -> dict[str, str]:
    """The environment that names the settings of a test."""
    values = {
        "environment": settings.environment,
        "secret_key": settings.secret_key.get_secret_value(),
        "database_url": settings.database_url.get_secret_value(),
        "redis_url": settings.redis_url.get_secret_value(),
        "queue_redis_url": settings.queue_url,
        "s3_endpoint": settings.s3_endpoint or "",
        "s3_access_key": settings.s3_access_key.get_secret_value(),
        "s3_secret_key": settings.s3_secret_key.get_secret_value(),
    }
    return {PREFIX + name.upper(): value for name, value in (values | changes).items()}


@dataclass
class Done:
    """How a command ended."""

    status: int
    output: str


Run = Callable[..., Done]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process."""

    def run_here(*arguments: str, environ: Mapping[str, str]) -> Done:
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        status = main(arguments)
        captured = capsys.readouterr()
        return Done(status, captured.out + captured.err)

    return run_here


def test_the_version_is_the_packages() -> None:
    command = [sys.executable, "-m", "instafeed", "--version"]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip() == version("instafeed")


def test_check_says_that_every_server_answers(run: Run, settings: Settings, tmp_path: Path) -> None:
    done = run("check", environ=environ_of(settings, mail_url=f"file://{tmp_path}/mails"))
    assert done.status == 0, done.output
    assert [line.split()[:2] for line in done.output.splitlines()] == [
        ["ok", "database"],
        ["ok", "redis"],
        ["ok", "queue"],
        ["ok", "photos"],
        ["ok", "mail"],
    ]


async def admin(settings: Settings, *arguments: str) -> str:
    """What `instafeed admin` says, after its exit status."""
    command = [sys.executable, "-m", "instafeed", "admin", *arguments]
    environ = os.environ | environ_of(settings)
    done = await asyncio.to_thread(subprocess.run, command, env=environ, check=False, capture_output=True, text=True)
    return f"{done.returncode} {done.stdout}{done.stderr}"


async def test_an_account_is_suspended_and_brought_back(
    sign_up: Callable[..., Awaitable[Client]], settings: Settings
) -> None:
    one, other = await sign_up(), await sign_up()
    name = one.account["username"]

    assert await admin(settings, "suspend", name.upper()) == f"0 suspended  {name.upper()}\n"
    await other.call("GET", f"/v1/accounts/{one.id}", 404)
    await one.call("GET", "/v1/me", 401)
    assert await admin(settings, "unsuspend", name) == f"0 unsuspended  {name}\n"
    await other.call("GET", f"/v1/accounts/{one.id}")
    assert await admin(settings, "suspend", "no.body") == "1 There is no account no.body.\n"


async def test_the_first_admin_is_made_and_every_command_is_logged(
    sign_up: Callable[..., Awaitable[Client]], settings: Settings
) -> None:
    one = await sign_up()
    name = one.account["username"]

    await one.call("GET", "/v1/admin/audit-log", 404)
    said = await admin(settings, "promote", name, "--operator", "Jo", "--note", "the first")
    assert said == f"0 promoted  {name}\n"
    [entry] = (await one.call("GET", f"/v1/admin/accounts/{one.id}/audit-log"))["items"]
    assert (entry["action"], entry["operator"], entry["note"]) == ("promote", "Jo", "the first")
    assert await admin(settings, "demote", name) == f"0 demoted  {name}\n"
    await one.call("GET", "/v1/admin/audit-log", 404)


@pytest.mark.parametrize("line", ["", "a\nb", "a\udce9", "a" * 201])
def test_what_is_no_line_for_the_audit_log_is_refused(run: Run, settings: Settings, line: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        run("admin", "promote", "nobody", "--note", line, environ=environ_of(settings))


@pytest.mark.parametrize(
    ("part", "changes"),
    [
        ("database", {"database_url": "postgresql://someone:hidden-word@127.0.0.1:1/nothing"}),
        ("redis", {"redis_url": "redis://:hidden-word@127.0.0.1:1/0"}),
        ("queue", {"queue_redis_url": "redis://:hidden-word@127.0.0.1:1/0"}),
        ("photos", {"s3_endpoint": "http://127.0.0.1:1", "s3_secret_key": "hidden-word"}),
        ("photos", {"s3_secret_key": "hidden-word"}),
        ("photos", {"s3_bucket": "another"}),
        ("mail", {"mail_url": "smtp://mailer:hidden-word@127.0.0.1:1"}),
        ("mail", {"mail_url": "file:///dev/null/hidden-word"}),
    ],
)
def test_check_says_which_server_does_not_answer_and_no_secret(
    run: Run, settings: Settings, part: str, changes: dict[str, str]
) -> None:
    done = run("check", environ=environ_of(settings, **changes))
    assert done.status == 1
    assert [line.split()[1] for line in done.output.splitlines() if line.startswith("FAILED")] == [part]
    assert "hidden-word" not in done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    "command",
    [("migrate",), ("migrate", "--status"), ("upkeep",), ("admin", "promote", "ada"), ("admin", "sweep"), ("check",)],
    ids=" ".join,
)
def test_a_database_that_refuses_us_is_said_in_a_sentence(run: Run, settings: Settings, command: tuple[str]) -> None:
    server, _, name = settings.database_url.get_secret_value().rpartition("/")
    stranger = f"postgresql://nobody:hidden-word@{server.rpartition('@')[2]}/{name}"
    for url in (stranger, f"{server}/no_such_database"):
        done = run(*command, environ=environ_of(settings, database_url=url))
        assert done.status == 1
        assert done.output
        assert "hidden-word" not in done.output


def test_check_says_that_the_schema_is_not_up_to_date(run: Run, settings: Settings) -> None:
    nothing = settings.database_url.get_secret_value().rpartition("/")[0] + "/postgres"
    done = run("check", environ=environ_of(settings, database_url=nothing))
    assert done.status == 1
    assert "run `instafeed migrate`" in done.output


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"secret_key": "hidden-word"}, "INSTAFEED_SECRET_KEY"),
        ({"database_url": "hidden-word"}, "INSTAFEED_DATABASE_URL"),
        ({"redis_url": "http://hidden-word"}, "INSTAFEED_REDIS_URL"),
        ({"sekret_key": "hidden-word"}, "INSTAFEED_SEKRET_KEY"),
        ({"upload_max_bytes": "hidden-word"}, "INSTAFEED_UPLOAD_MAX_BYTES"),
        ({"environment": "production", "rate_limits": "off"}, "rate_limits=off is refused in production"),
        ({"database_url": "postgresql://someone:pass#hidden-word@host/db"}, "INSTAFEED_DATABASE_URL"),
        ({"database_url": "postgresql://[hidden-word/db"}, "INSTAFEED_DATABASE_URL"),
        ({"database_url": "postgresql://someone:hidden-word/@host/db"}, "INSTAFEED_DATABASE_URL"),
        ({"database_url": "postgresql://host:5432,other:hidden-word/db"}, "INSTAFEED_DATABASE_URL"),
        ({"redis_url": "redis://:hidden-word#@host:6379/0"}, "INSTAFEED_REDIS_URL"),
        ({"redis_url": "redis://:pass/hidden-word@host:6379/0"}, "INSTAFEED_REDIS_URL"),
        ({"queue_redis_url": "redis://host:hidden-word/0"}, "INSTAFEED_QUEUE_REDIS_URL"),
        ({"s3_endpoint": "hidden-word:9000"}, "INSTAFEED_S3_ENDPOINT"),
        ({"s3_endpoint": "http://"}, "INSTAFEED_S3_ENDPOINT"),
        ({"s3_endpoint": "http://[hidden-word"}, "INSTAFEED_S3_ENDPOINT"),
        ({"s3_endpoint": "http://host:hidden-word"}, "INSTAFEED_S3_ENDPOINT"),
        ({"s3_endpoint": "http://key:hidden-word@host"}, "INSTAFEED_S3_ENDPOINT"),
        ({"s3_public_endpoint": "photos.example.org"}, "INSTAFEED_S3_PUBLIC_ENDPOINT"),
        ({"s3_public_endpoint": "https://photos.example.org/?hidden-word"}, "INSTAFEED_S3_PUBLIC_ENDPOINT"),
        ({"sns_endpoint": "hidden-word"}, "INSTAFEED_SNS_ENDPOINT"),
        ({"s3_region": "hidden-word east"}, "INSTAFEED_S3_REGION"),
        ({"s3_bucket": "hidden-word/photos"}, "INSTAFEED_S3_BUCKET"),
        ({"allowed_hosts": ","}, "INSTAFEED_ALLOWED_HOSTS"),
        ({"allowed_hosts": "https://hidden-word"}, "INSTAFEED_ALLOWED_HOSTS"),
        ({"allowed_hosts": "api.example.org:8443"}, "INSTAFEED_ALLOWED_HOSTS"),
        ({"allowed_hosts": "*.example.org"}, "INSTAFEED_ALLOWED_HOSTS"),
        ({"sentry_dsn": "https://hidden-word@host"}, "INSTAFEED_SENTRY_DSN"),
        ({"database_url": "postgresql://host/db?sslmode=hidden-word"}, "INSTAFEED_DATABASE_URL"),
        ({"upload_grace_seconds": "inf"}, "INSTAFEED_UPLOAD_GRACE_SECONDS"),
        ({"upload_silence_seconds": "nan"}, "INSTAFEED_UPLOAD_SILENCE_SECONDS"),
        ({"session_days": "99999999999"}, "INSTAFEED_SESSION_DAYS"),
    ],
)
def test_wrong_settings_are_named_without_their_values(
    run: Run, settings: Settings, changes: dict[str, str], complaint: str
) -> None:
    done = run("check", environ=environ_of(settings, **changes))
    assert done.status == 2
    assert complaint in done.output
    assert "hidden-word" not in done.output


def test_settings_are_taken_as_operators_write_them(settings: Settings) -> None:
    environ = environ_of(
        settings,
        allowed_hosts="API.Example.org, [::1],127.0.0.1",
        database_url="postgresql://someone:p%23w@first:5432,second:5432/db?sslmode=require",
        redis_url="rediss://:p%23w@host:6379/0",
        queue_redis_url="unix:///run/valkey.sock",
        s3_endpoint="http://[::1]:8333",
        s3_public_endpoint="https://photos.example.org/store",
        sentry_dsn="https://key@host/1",
    )
    assert Settings.from_environ(environ).allowed_hosts == ("api.example.org", "[::1]", "127.0.0.1")
    assert Settings.from_environ(environ | {PREFIX + "SENTRY_DSN": ""}).sentry_dsn == SecretStr("")


def test_every_number_has_bounds() -> None:
    numbers = {
        name: field.metadata
        for name, field in Settings.model_fields.items()
        if {int, float} & {field.annotation, *get_args(field.annotation)}
    }
    assert "originals_days" in numbers
    for name, bounds in numbers.items():
        assert any(isinstance(bound, Ge | Gt) for bound in bounds), name
        assert any(isinstance(bound, Le) for bound in bounds), name


@pytest.mark.parametrize("command", ["serve", "worker", "migrate"])
def test_every_command_refuses_wrong_settings(run: Run, settings: Settings, command: str) -> None:
    done = run(command, environ=environ_of(settings, secret_key="short"))
    assert done.status == 2
    assert "INSTAFEED_SECRET_KEY" in done.output


def test_a_queue_that_does_not_exist_is_named(run: Run, settings: Settings) -> None:
    done = run("worker", "--queues", "fanout,nothing", environ=environ_of(settings))
    assert done.status == 2
    assert "nothing" in done.output


def test_a_taken_port_is_said_in_a_sentence(settings: Settings, base_url: str) -> None:
    command = [sys.executable, "-m", "instafeed", "serve", "--port", base_url.rpartition(":")[2]]
    done = subprocess.run(
        command, env=os.environ | environ_of(settings), check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode != 0
    assert "address already in use" in done.stderr
    assert "Traceback" not in done.stderr


async def test_the_api_may_open_as_many_files_as_the_system_lets_it(settings: Settings) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard - 1, hard))
    try:
        async with running_api_process(settings) as api:
            assert resource.prlimit(api.child.pid, resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
