"""What Sentry is told: errors of requests and jobs, how long they take, and whose and which they were; nothing that anybody sent."""

import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import sentry_sdk
import structlog
from sentry_sdk.integrations.arq import ArqIntegration
from sentry_sdk.integrations.atexit import AtexitIntegration
from sentry_sdk.integrations.excepthook import ExcepthookIntegration
from sentry_sdk.integrations.logging import LoggingIntegration

from instafeed import causes
from instafeed.errors import Unavailable
from instafeed.settings import Settings
from instafeed.version import VERSION

if TYPE_CHECKING:
    from sentry_sdk.types import Event, Hint

# Named, not taken out: what a new version of the library adds to an event does not leave by itself.
_KEPT = (
    *("event_id", "type", "timestamp", "start_timestamp", "platform", "sdk", "release", "environment", "server_name"),
    *("level", "logger", "exception", "transaction", "transaction_info", "spans"),
)
_CONTEXTS = ("trace", "runtime")
_TAGS = ("process", "request_id", "route", "kind", "entry", "post")


def set_up(dsn: str, settings: Settings) -> None:
    """Report to Sentry from now on.

    Each error is reported once: by `api/context.py`, by `work.py`, by arq's integration where a job does not end as the outbox
    says, or by the library that logs it.
    """
    sentry_sdk.init(
        dsn=dsn,
        release=f"instafeed@{VERSION}",
        environment=settings.environment,
        sample_rate=settings.sentry_sample_rate,
        traces_sample_rate=settings.sentry_traces_sample_rate or None,
        # A server that is away has its alerts, and would be reported by every request and job.
        ignore_errors=[Unavailable],
        # Those of clients and frameworks would send URLs with their signatures, statements, and an error once more.
        default_integrations=False,
        auto_enabling_integrations=False,
        integrations=[
            LoggingIntegration(level=None, event_level=logging.ERROR),
            ArqIntegration(),
            ExcepthookIntegration(),
            AtexitIntegration(callback=lambda _pending, _seconds: None),
        ],
        send_default_pii=False,
        include_local_variables=False,
        max_request_body_size="never",
        before_send=_bare,
        before_send_transaction=_bare,
    )


def note_request(name: str, status: int, seconds: float) -> None:
    """Tell how long a request took that ends now, if such things are told."""
    if sentry_sdk.get_client().options.get("traces_sample_rate"):
        began = datetime.now(UTC) - timedelta(seconds=seconds)
        request = sentry_sdk.start_transaction(op="http.server", name=name, source="route", start_timestamp=began)
        request.set_http_status(status)
        request.finish()


def _bare(event: "Event", hint: "Hint") -> "Event":
    """An event with no more in it than it needs, and the log's names for what it was about."""
    given: dict[str, Any] = dict(event)
    bare = {name: given[name] for name in _KEPT if name in given}
    bare["contexts"] = {name: of for name, of in given.get("contexts", {}).items() if name in _CONTEXTS}
    about = structlog.contextvars.get_contextvars()
    bare["tags"] = {name: about[name] for name in _TAGS if name in about}
    if account := about.get("account"):
        bare["user"] = {"id": account}
    error = hint["exc_info"][1] if hint.get("exc_info") else None
    told = {type(one).__qualname__: causes.words(one) for one in causes.chain(error)} if error else {}
    for value in given.get("exception", {}).get("values", ()):
        value["value"] = told.get(value["type"], "")
    if error is None and "log_record" in hint:
        # As the library wrote it: its arguments are anybody's, and so is what follows in further lines.
        bare["logentry"] = {"message": str(hint["log_record"].msg).partition("\n")[0]}
    return bare  # type: ignore[return-value]  # a TypedDict made of another one's items
