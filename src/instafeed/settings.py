"""All settings, in one frozen object. Only `cli.py` reads the environment; everything else is handed a `Settings`."""

import re
from collections.abc import Mapping
from email.utils import parseaddr
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Literal, Self
from urllib.parse import parse_qs, urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from instafeed import base64url

PREFIX = "INSTAFEED_"

Network = IPv4Network | IPv6Network
MIB = 1 << 20
GIB = 1 << 30


def _split(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _descending(value: tuple[int, ...]) -> tuple[int, ...]:
    if list(value) != sorted(set(value), reverse=True):
        raise ValueError("has to begin with the largest, and have none twice")
    return value


# Without scheme and port: that none with them is ever answered would show only when phones ask.
_HOST_NAME = re.compile(r"\*|[^\s:/*]+|\[[0-9A-Fa-f:.]+\]")


def _host_names(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value or not all(_HOST_NAME.fullmatch(name) for name in value):
        raise ValueError("holds names and addresses, without scheme and port, or *")
    return tuple(name.lower() for name in value)


# A password that holds what has to be quoted ends up here, or in a fragment: who reads the URL would tell of it.
_HOST = re.compile(r"(?:\[[^\]]*\]|[^:\[\]]*)(?::[0-9]{1,5})?")


def _url(*schemes: str) -> AfterValidator:
    def check(value: SecretStr) -> SecretStr:
        try:
            parts = urlsplit(value.get_secret_value())
        except ValueError:
            parts = urlsplit("")
        right = parts.scheme in schemes and bool(parts.netloc or parts.path) and not parts.fragment
        if not right or not all(map(_HOST.fullmatch, parts.netloc.rpartition("@")[2].split(","))):
            raise ValueError(f"is not a URL of the form {schemes[0]}://..., all of it percent-encoded")
        return value

    return AfterValidator(check)


_SSL_MODES = {"disable", "allow", "prefer", "require", "verify-ca", "verify-full"}


def _ssl_mode(value: SecretStr) -> SecretStr:
    if not _SSL_MODES.issuperset(parse_qs(urlsplit(value.get_secret_value()).query).get("sslmode", ())):
        raise ValueError("has an sslmode that is none of PostgreSQL's")
    return value


def _endpoint(value: str) -> str:
    try:
        parts = urlsplit(value)
        right = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of an IPv6 address, or of the port
        right = False
    if not right or parts.username is not None or parts.query or parts.fragment or re.search(r"\s", value):
        raise ValueError("is not a URL of the form https://host or http://host:port")
    return value


def _dsn(value: SecretStr) -> SecretStr:
    from sentry_sdk.utils import BadDsn, Dsn  # noqa: PLC0415

    try:
        if value.get_secret_value():
            Dsn(value.get_secret_value())
    except BadDsn:
        raise ValueError("is not a DSN of the form https://key@host/project") from None
    return value


def _signing_key(value: SecretStr) -> SecretStr:
    from cryptography.hazmat.primitives.asymmetric import ec, rsa  # noqa: PLC0415 - takes a moment, and few need it
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    pem = value.get_secret_value().replace("\\n", "\n")
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except (TypeError, ValueError):
        raise ValueError("is not a private key in PEM, without a password") from None
    is_rsa = isinstance(key, rsa.RSAPrivateKey) and key.key_size == 2048
    if not is_rsa and not (isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1)):
        raise ValueError("is neither ECDSA P-256 nor RSA with 2048 bits")
    return SecretStr(pem)


def _mail_url(value: SecretStr) -> SecretStr:
    parts = urlsplit(value.get_secret_value())
    try:
        right = parts.path.startswith("/") and not parts.netloc if parts.scheme == "file" else parts.port != 0
    except ValueError:  # of a port that is too large
        right = False
    if not right or (parts.scheme != "file" and (not parts.hostname or parts.path.strip("/"))):
        raise ValueError("is not a URL of the form smtps://user:password@host:port, all of it percent-encoded")
    return value


def _web_push_key(value: SecretStr) -> SecretStr:
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415

    try:
        data = base64url.decode(value.get_secret_value())
        number = int.from_bytes(data) if len(data) == 32 else 0
        ec.derive_private_key(number, ec.SECP256R1())
    except ValueError:
        raise ValueError("is not a private key of P-256: 32 bytes in URL-safe base64") from None
    return value


def _sender(value: str) -> str:
    if not (value.isascii() and value.isprintable()) or not re.fullmatch(r"[^@\s]+@[^@\s]+", parseaddr(value)[1]):
        raise ValueError("is not an e-mail address, with or without a name before it")
    return value


_SNS_APPLICATION = r"^arn:[a-z-]+:sns:[a-z0-9-]+:[0-9]{{12}}:app/{}/[A-Za-z0-9._-]+$"

DatabaseUrl = Annotated[SecretStr, _url("postgresql", "postgres"), AfterValidator(_ssl_mode)]
MailUrl = Annotated[SecretStr, _url("smtps", "smtp+starttls", "smtp", "file"), AfterValidator(_mail_url)]
RedisUrl = Annotated[SecretStr, _url("redis", "rediss", "unix")]
Endpoint = Annotated[str, AfterValidator(_endpoint)]


class Settings(BaseModel):
    """What an operator can set. Each field is the environment variable `INSTAFEED_<NAME>`; its description is the
    README's row.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    environment: Literal["development", "production"] = "production"
    """`production` refuses settings that are only safe on a developer's machine."""

    secret_key: SecretStr = Field(min_length=32)
    """At least 32 random characters. Signs cursors and derives what a repeated request must get again."""

    database_url: DatabaseUrl
    """PostgreSQL, `postgresql://user:password@host:port/database`."""
    database_pool_size: int = Field(default=10, ge=1, le=200)
    """Connections of one process."""
    database_prepared_statements: Literal["on", "off"] = "on"
    """`off` behind a pooler of transactions that knows none, as pgbouncer before 1.21: every statement is then planned anew."""
    database_direct_url: DatabaseUrl | None = None
    """PostgreSQL past a pooler of transactions, which `migrate` and `upkeep` need. Default: `INSTAFEED_DATABASE_URL`."""

    redis_url: RedisUrl
    """Redis for feeds, sessions, rate limits and events."""
    queue_redis_url: RedisUrl | None = None
    """Redis for the job queue, which arq cannot keep in a cluster. Default: `INSTAFEED_REDIS_URL`."""

    s3_endpoint: Endpoint | None = None
    """URL of an S3 server. Default: AWS."""
    s3_public_endpoint: Endpoint | None = None
    """The S3 server's URL as phones see it. Default: `INSTAFEED_S3_ENDPOINT`."""
    s3_region: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,63}$")] = "us-east-1"
    """The bucket's region."""
    s3_bucket: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{3,63}$")] = "instafeed"
    """The bucket of all photos."""
    s3_prefix: Annotated[str, Field(pattern=r"^([A-Za-z0-9._-]+/)*$")] = ""
    """Put before every key, ends with `/`."""
    s3_access_key: SecretStr
    """Access key id."""
    s3_secret_key: SecretStr
    """Secret access key."""

    mail_url: MailUrl | None = None
    """Where mails go: `smtps://user:password@host:465` (TLS), `smtp+starttls://user:password@host:587`, `smtp://host:25` (not
    encrypted, so without a password in production), or `file:///folder`. Default: nowhere, none is sent.
    """
    mail_from: Annotated[str, AfterValidator(_sender)] = "instafeed <instafeed@localhost>"
    """Whom mails are from, `Name <name@example.org>`."""
    app_url: Annotated[str, Field(pattern=r"^https?://[^\s#?]+$")] | None = None
    """Where the app opens links of mails: `<url>/confirm-email#<token>`, `<url>/reset-password#<token>`. Default: mails carry
    the token, to be typed in.
    """

    api_url: Annotated[str, Field(pattern=r"^https?://[^\s#?]+$")] | None = None
    """Where the API is for the rest of the world. Mails of what happens then say how not to get them, which mail programs show.
    """
    web_push_key: Annotated[SecretStr, AfterValidator(_web_push_key)] | None = None
    """The private key (VAPID) by which browsers' push services know us: 32 bytes in URL-safe base64. Default: nothing is pushed
    to browsers. `INSTAFEED_MAIL_FROM` tells the services whom to write to.
    """
    web_push_anywhere: Literal["on", "off"] = "off"
    """`on` takes push services of browsers at any address and without TLS, for tests; refused in production."""
    sns_apns_application: Annotated[str, Field(pattern=_SNS_APPLICATION.format("APNS(_SANDBOX)?"))] | None = None
    """The ARN of Amazon SNS's platform application for iPhones. Default: nothing is pushed to them."""
    sns_fcm_application: Annotated[str, Field(pattern=_SNS_APPLICATION.format("GCM"))] | None = None
    """The ARN of Amazon SNS's platform application for Android. Default: nothing is pushed to it."""
    sns_access_key: SecretStr | None = None
    """Access key id for SNS. Default: that for S3."""
    sns_secret_key: SecretStr | None = None
    """Secret access key for SNS. Default: that for S3."""
    sns_endpoint: Endpoint | None = None
    """URL of an SNS server. Default: AWS."""
    push_pause_seconds: float = Field(default=15, ge=0, le=600)
    """What goes on happening to one thing, as likes of a photo, is pushed once in this time."""

    trusted_proxies: Annotated[tuple[Network, ...], BeforeValidator(_split)] = ()
    """Networks whose `X-Forwarded-For` is believed, separated by commas."""
    allowed_hosts: Annotated[tuple[str, ...], BeforeValidator(_split), AfterValidator(_host_names)] = ("*",)
    """`Host` names that are answered, separated by commas."""
    rate_limits: Literal["on", "off"] = "on"
    """`off` for load tests; refused in production."""

    upload_max_bytes: int = Field(default=40 * MIB, ge=1024, le=5 * GIB)
    """Largest photo, in bytes."""
    upload_max_pixels: int = Field(default=100_000_000, ge=1, le=1_000_000_000)
    """Largest photo, in pixels (width times height)."""
    upload_min_bytes_per_second: int = Field(default=4096, ge=1, le=GIB)
    """An upload that is slower, after its grace, is refused."""
    upload_grace_seconds: float = Field(default=10, gt=0, le=3600)
    """What a slow client may be late, in seconds."""
    upload_silence_seconds: float = Field(default=60, gt=0, le=3600)
    """For how many seconds a client may send nothing, however much it sent before."""
    upload_parts_in_memory: int = Field(default=16, ge=1, le=10_000)
    """How many 5 MiB parts one process holds at once, for uploads without a Content-Length."""
    upload_expiry_seconds: int = Field(default=86_400, ge=60, le=7 * 86_400)
    """A resumable upload that is not completed within this time is dropped."""
    upload_max_open: int = Field(default=50, ge=1, le=10_000)
    """How many resumable uploads an account may have open."""
    media_url_seconds: int = Field(default=3600, ge=60, le=86_400)
    """A photo's signed URL lives for at least this and at most twice this."""
    media_cdn_url: Annotated[str, Field(pattern=r"^https?://[^\s?#*]+$")] | None = None
    """URL of a CloudFront distribution whose origin is the bucket at `INSTAFEED_S3_PREFIX`. Photos' URLs are then its, instead
    of the store's.
    """
    media_cdn_key_pair_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9]+$")] | None = None
    """The id that CloudFront gave the public key."""
    media_cdn_private_key: Annotated[SecretStr, AfterValidator(_signing_key)] | None = None
    """The private key, in PEM, its line ends written `\\n` where a variable has one line: ECDSA P-256, or RSA with 2048 bits."""
    media_unposted_seconds: int = Field(default=86_400, ge=3600, le=365 * 86_400)
    """A photo that is uploaded and not posted within this time is deleted."""
    originals_days: int | None = Field(default=None, ge=1, le=36_500)
    """What a phone sent is deleted after this long, its renditions stay. Default: it is kept with its post."""

    rendition_sizes: Annotated[
        tuple[Annotated[int, Field(ge=64, le=4096)], ...],
        Field(min_length=1, max_length=6),
        BeforeValidator(_split),
        AfterValidator(_descending),
    ] = (1080, 640, 320)
    """Longest sides of renditions, in pixels, separated by commas, the largest first. Photos that are there keep theirs."""
    rendition_square: int = Field(default=150, ge=32, le=1080)
    """Side of the square that is cut from a photo's middle and shown in lists, in pixels; none of the sizes above."""
    jpeg_quality: int = Field(default=94, ge=30, le=95)
    """Quality of renditions in JPEG, as libjpeg counts it."""
    webp_quality: int = Field(default=95, ge=30, le=95)
    """Quality of renditions in WebP, as libwebp counts it."""
    avif_renditions: Literal["on", "off"] = "off"
    """`on` makes renditions in AVIF too: a fifth smaller than WebP, for three times the processor time of all the rest."""
    avif_quality: int = Field(default=87, ge=30, le=95)
    """Quality of renditions in AVIF, as libavif counts it."""

    feed_window: int = Field(default=800, ge=1, le=5000)
    """Post ids that Redis keeps of each home feed; older posts come from PostgreSQL."""
    feed_buckets: int = Field(default=64, ge=1, le=8192)
    """Feeds are spread over this many Redis hash slots."""
    feed_idle_days: int = Field(default=14, ge=1, le=36_500)
    """A feed that nobody reads for this long leaves Redis, and is rebuilt when it is read again."""
    fan_out_chunk: int = Field(default=50_000, ge=1, le=100_000)
    """Followers that a worker takes at a time of a post with many; a killed worker's are taken by another one."""
    celebrity_followers: int = Field(default=100_000, ge=1, le=1_000_000_000)
    """The posts of an account with more followers are not pushed to them, but merged when a feed is read."""

    session_days: int = Field(default=90, ge=1, le=36_500)
    """A session that is not used for this long ends."""

    metrics_port: int = Field(default=0, ge=0, le=65_535)
    """Port on which a worker shows its metrics; 0 for none. The API shows its own at `/metrics`."""
    metrics_host: str = "127.0.0.1"
    """Address on which a worker shows its metrics."""
    sentry_dsn: Annotated[SecretStr, AfterValidator(_dsn)] | None = None
    """Where errors are reported. Default: nowhere."""
    sentry_sample_rate: float = Field(default=1, ge=0, le=1)
    """The part of errors that is reported."""
    sentry_traces_sample_rate: float = Field(default=0, ge=0, le=1)
    """The part of requests and jobs whose duration is reported."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least level that is logged."""
    log_format: Literal["json", "console"] = "json"
    """`console` is for people."""

    @model_validator(mode="after")
    def _production_is_strict(self) -> Self:
        if self.environment == "production" and self.rate_limits == "off":
            raise ValueError("rate_limits=off is refused in production")
        if self.environment == "production" and self.web_push_anywhere == "on":
            raise ValueError("web_push_anywhere=on is refused in production")
        mail = urlsplit(self.mail_url.get_secret_value()) if self.mail_url else None
        if self.environment == "production" and mail and mail.scheme == "smtp" and mail.password:
            raise ValueError("a mail_url that sends its password unencrypted is refused in production")
        return self

    @model_validator(mode="after")
    def _names_of_renditions_differ(self) -> Self:
        if self.rendition_square in self.rendition_sizes:
            raise ValueError("rendition_square is none of rendition_sizes")
        return self

    @model_validator(mode="after")
    def _cdn_is_whole(self) -> Self:
        given = [self.media_cdn_url, self.media_cdn_key_pair_id, self.media_cdn_private_key]
        if any(given) and not all(given):
            raise ValueError("media_cdn_url, media_cdn_key_pair_id and media_cdn_private_key go together")
        return self

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """The settings that `environ` names.

        Raises:
            pydantic.ValidationError: a value is missing, wrong, or has a name that is not known (a typo would
                otherwise pass in silence).
        """
        values = {
            name.removeprefix(PREFIX).lower(): value for name, value in environ.items() if name.startswith(PREFIX)
        }
        return cls.model_validate(values)

    @property
    def upload_longest_seconds(self) -> float:
        """How long a photo may be on its way in one request."""
        return self.upload_max_bytes / self.upload_min_bytes_per_second + self.upload_grace_seconds

    @property
    def direct_url(self) -> str:
        """PostgreSQL itself."""
        return (self.database_direct_url or self.database_url).get_secret_value()

    @property
    def queue_url(self) -> str:
        """The job queue's Redis."""
        return (self.queue_redis_url or self.redis_url).get_secret_value()
