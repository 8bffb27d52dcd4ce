"""The shapes of requests and responses. Ids are strings of decimal digits: 64 bits do not survive JavaScript numbers."""

import re
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)
from pydantic.config import JsonDict

from instafeed import models
from instafeed.accounts import USERNAME, normalize_username
from instafeed.api.text import (
    AltText,
    Bio,
    Caption,
    CommentText,
    DeviceName,
    DisplayName,
    Remark,
    WebAddress,
    one_line,
)
from instafeed.entities import TAG_CHARACTERS, fold_prefix, fold_tag
from instafeed.folding import fold
from instafeed.ids import MAX_ID

_ID = re.compile(r"[1-9][0-9]{0,18}")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_SHA256 = re.compile("[0-9a-fA-F]{64}")
PHOTOS_PER_POST = 10
# RFC 5322's dot-atom: what would have to be quoted no provider gives to anybody.
_ATOM = r"[a-z0-9!#$%&'*+/=?^_`{|}~-]+"
_EMAIL = re.compile(
    rf"(?=[^@]{{1,64}}@){_ATOM}(?:\.{_ATOM})*@(?:[a-z0-9](?:[a-z0-9-]{{0,61}}[a-z0-9])?\.)+[a-z0-9-]{{2,63}}"
)
EXAMPLE_ID = "412345678901234567"
EXAMPLE_MAIL_TOKEN = f"{EXAMPLE_ID}.kAqk0Jm0b6v1x1Hk0o1g8y0d2o7Yt5jYb2q1n9c3w4E"


def _parse_id(value: object) -> int:
    if not isinstance(value, str) or not _ID.fullmatch(value) or int(value) > MAX_ID:
        raise ValueError("is not an id: send the string of decimal digits that you were given")
    return int(value)


def _parse_username(value: str) -> str:
    name = normalize_username(value)
    if not USERNAME.fullmatch(name):
        raise ValueError(
            "is not a username: 1 to 30 of a-z, 0-9, dot and underscore; no dot or underscore at the ends, no two in a row"
        )
    return name


def _parse_tag(value: str) -> str:
    tag = fold_tag(value)
    if tag is None:
        raise ValueError(f"is not a tag: up to {TAG_CHARACTERS} letters, digits and underscores, not digits only")
    return tag


def _parse_tag_query(value: str) -> str:
    prefix = fold_prefix(value.strip().removeprefix("#"))
    if prefix is None:
        raise ValueError(f"is not how a tag begins: 1 to {TAG_CHARACTERS} letters, digits and underscores")
    return prefix


def _parse_search(value: str) -> str:
    if not fold(value):
        raise ValueError("is nothing to search for: it has no letter or digit")
    return value


def _parse_email(value: str) -> str:
    address = value.strip().lower()
    if len(address) > 254 or not _EMAIL.fullmatch(address):
        raise ValueError("is not an e-mail address")
    return address


def _parse_name(value: str) -> str:
    return _parse_email(value) if "@" in value else _parse_username(value)


def _parse_password(value: str) -> str:
    if "\x00" in value or len(value.encode()) > 1024:
        raise ValueError("is too long or has a NUL")
    return value


def _parse_sha256(value: object) -> bytes:
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        raise ValueError("is not a SHA-256: send 64 hexadecimal digits")
    return bytes.fromhex(value)


def _parse_time(value: object) -> datetime:
    try:
        if not isinstance(value, str) or not _TIME.fullmatch(value):
            raise ValueError
        time = datetime.fromisoformat(value.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(
            "is not a time with its offset, as 2026-11-22T10:01:02Z or 2026-11-22T11:01:02+01:00"
        ) from None
    return time.replace(microsecond=time.microsecond // 1000 * 1000)


def _format_time(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


_ID_SCHEMA = {"type": "string", "pattern": "^[1-9][0-9]{0,18}$", "examples": [EXAMPLE_ID]}

IdIn = Annotated[int, BeforeValidator(_parse_id), WithJsonSchema(_ID_SCHEMA)]
"""An id that a client sends."""
Id = Annotated[int, PlainSerializer(str, return_type=str), WithJsonSchema(_ID_SCHEMA)]
"""An id that a client gets."""
Time = Annotated[
    datetime,
    PlainSerializer(_format_time, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-11-22T10:01:02.123Z"]}),
]
TimeIn = Annotated[
    datetime,
    BeforeValidator(_parse_time),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-11-22T18:00:00+01:00"]}),
]
"""A time that a client sends, to the millisecond."""
Username = Annotated[
    str,
    StringConstraints(min_length=1, max_length=100),
    AfterValidator(_parse_username),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 30, "examples": ["ada"]}),
]
TagName = Annotated[
    str,
    StringConstraints(max_length=100),
    AfterValidator(_parse_tag),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": TAG_CHARACTERS, "examples": ["harbour"]}),
]
TagQuery = Annotated[
    str,
    StringConstraints(max_length=100),
    AfterValidator(_parse_tag_query),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": TAG_CHARACTERS, "examples": ["harb"]}),
]
SearchText = Annotated[
    str,
    StringConstraints(max_length=100),
    AfterValidator(one_line),
    AfterValidator(_parse_search),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 100, "examples": ["ada love"]}),
]
Email = Annotated[
    str,
    StringConstraints(max_length=300),
    AfterValidator(_parse_email),
    WithJsonSchema({"type": "string", "format": "email", "maxLength": 254, "examples": ["ada@example.org"]}),
]
Sha256 = Annotated[
    bytes,
    BeforeValidator(_parse_sha256),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": "^[0-9a-fA-F]{64}$",
            "examples": ["5f8f04f6a3a892aaabbddb6cf273894493773960d4a325b105fee46eef4304f1"],
        }
    ),
]
Name = Annotated[
    str,
    StringConstraints(max_length=300),
    AfterValidator(_parse_name),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 254, "examples": ["ada"]}),
]
"""A username or an e-mail address."""
MailToken = Annotated[str, StringConstraints(max_length=200)]
NewPassword = Annotated[str, StringConstraints(min_length=8, max_length=256), AfterValidator(_parse_password)]
Password = Annotated[str, StringConstraints(max_length=256), AfterValidator(_parse_password)]


class _Request(BaseModel):
    """What a client sends: unknown fields are refused, and nothing is taken for something else."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


class _Response(BaseModel):
    """What a client gets: every field is always there."""

    model_config = ConfigDict(
        frozen=True, json_schema_serialization_defaults_required=True, use_attribute_docstrings=True
    )


class NewAccount(_Request):
    """A sign-up."""

    username: Username
    """1 to 30 of a-z, 0-9, dot and underscore. Upper case and Unicode variants are brought into this form."""
    password: NewPassword = Field(examples=["correct horse battery staple"], json_schema_extra={"format": "password"})
    email: Email | None = None
    """It counts, to reset the password with, once the token in the mail that goes there was confirmed."""
    display_name: DisplayName = Field(default="", examples=["Ada Lovelace"])
    device_name: DeviceName = Field(default="", examples=["Ada's phone"])
    """What this log-in is called in the list of devices."""


class Export(_Response):
    """A copy of your data: a ZIP of JSON files and of your photos as you sent them, named by their ids."""

    id: Id
    status: Literal["processing", "ready", "failed"] = Field(examples=["ready"])
    """`failed`: ask for another one."""
    progress: int = Field(ge=0, le=100, examples=[40])
    """How much of it is made, in per cent."""
    bytes: int | None = Field(examples=[73400320])
    """How large it is, once it is ready."""
    url: str | None = Field(examples=["https://photos.example/exports/Zm9v.zip?X-Amz-Signature=..."])
    """Where to fetch it, once it is ready; good for an hour. Read the export again for another URL."""
    created_at: Time
    expires_at: Time
    """When it is deleted."""


class Farewell(_Request):
    """What proves that it is you who deletes your account."""

    password: Password = Field(examples=["correct horse battery staple"], json_schema_extra={"format": "password"})


class AccountPatch(_Request):
    """Changes to an account. What is left out stays as it is; an empty text takes a text away."""

    username: Username = Field(default="", examples=["ada"])
    """Another name. Your old one is held for you for 14 days, and finds you for as long."""
    display_name: DisplayName = Field(default="", examples=["Ada Lovelace"])
    bio: Bio = Field(default="", examples=["Wrote the first program."])
    website: WebAddress = Field(default="", examples=["https://example.org/ada"])
    """`https://` or `http://`."""
    is_private: bool = Field(default=False, examples=[True])
    """Only followers see the posts, and followers must be approved. False approves all who asked to follow."""


class PasswordChange(_Request):
    """Another password."""

    current_password: Password = Field(
        examples=["correct horse battery staple"], json_schema_extra={"format": "password"}
    )
    new_password: NewPassword = Field(
        examples=["staple battery horse correct"], json_schema_extra={"format": "password"}
    )


class EmailChange(_Request):
    """Another e-mail address."""

    email: Email | None
    """Null takes your address away."""
    current_password: Password = Field(
        examples=["correct horse battery staple"], json_schema_extra={"format": "password"}
    )


class EmailConfirmation(_Request):
    """What the mail that confirms an address carried."""

    token: MailToken = Field(examples=[EXAMPLE_MAIL_TOKEN])


class PasswordReset(_Request):
    """Somebody who forgot the password."""

    name: Name
    """Your username, or your e-mail address if you confirmed it."""


class PasswordResetConfirmation(_Request):
    """What the mail that resets a password carried, and the new password."""

    token: MailToken = Field(examples=[EXAMPLE_MAIL_TOKEN])
    new_password: NewPassword = Field(
        examples=["staple battery horse correct"], json_schema_extra={"format": "password"}
    )


class NewSession(_Request):
    """A log-in."""

    username: Username
    password: Password = Field(examples=["correct horse battery staple"], json_schema_extra={"format": "password"})
    device_name: DeviceName = Field(default="", examples=["Ada's phone"])
    """What this log-in is called in the list of devices."""


class DeviceRegistration(_Request):
    """What reaches a device: a `token`, or what a browser's `PushSubscription` holds."""

    platform: Literal["apns", "fcm", "web"] = Field(examples=["web"])
    """`apns` and `fcm` are apps, and take a `token`. `web` is a browser, and takes `endpoint`, `p256dh` and `auth`."""
    token: str | None = Field(default=None, max_length=1000, examples=[None])
    """Of APNs in hexadecimal digits, or of FCM."""
    endpoint: str | None = Field(default=None, max_length=2000, examples=["https://push.example.com/send/dGhlcmU"])
    p256dh: str | None = Field(
        default=None,
        max_length=200,
        examples=["BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"],
    )
    """URL-safe base64, as is `auth`."""
    auth: str | None = Field(default=None, max_length=200, examples=["BTBZMqHH6r4Tts7J_aSIgg"])


class Avatar(_Request):
    """The photo to be shown with."""

    media_id: IdIn
    """What `POST /v1/media` answered."""


class FollowOptions(_Request):
    """How to follow."""

    notify: bool = True
    """Whether to be told of each new post; true if it is left out."""


class NewPostPhoto(_Request):
    """A photo of a new post."""

    id: IdIn
    """What `POST /v1/media` answered."""
    alt_text: AltText = Field(default="", examples=["A lighthouse at dusk"])
    """What the photo shows, for those who cannot see it."""


class NewPost(_Request):
    """A post."""

    caption: Caption = Field(default="", examples=["Evening at the harbour"])
    media: list[NewPostPhoto] = Field(min_length=1, max_length=PHOTOS_PER_POST)
    """The photos in their order."""
    publish_at: TimeIn | None = None
    """When to publish it, at most a year from now; left out or null publishes it now. Until then only you see it, and it has an
    id of its own: the post that it becomes has another one."""


class NewUpload(_Request):
    """A photo that will come in parts."""

    size: int = Field(ge=1, le=MAX_ID, examples=[12_345_678])
    """How many bytes it has."""
    sha256: Sha256
    """Their SHA-256 as 64 hexadecimal digits."""
    camera_facts: bool = False
    """Keep what the camera wrote of itself and its settings (never place, time or serial numbers), and show it to all who
    see the photo."""


class AltTextPatch(_Request):
    """Another text for a photo."""

    id: IdIn
    """One of the post's photos."""
    alt_text: AltText = Field(examples=["A lighthouse at dusk"])
    """What the photo shows; an empty text takes it away."""


class PostPatch(_Request):
    """Changes to a post. What is left out stays as it is."""

    caption: Caption = Field(default="", examples=["Evening at the harbour"])
    """An empty text takes it away."""
    alt_texts: list[AltTextPatch] = Field(default_factory=list, max_length=PHOTOS_PER_POST)
    """Photos that are left out keep their texts."""
    media_ids: list[IdIn] = Field(default_factory=list, max_length=PHOTOS_PER_POST)
    """All photos of the post in their new order."""
    publish_at: TimeIn | None = None
    """Another time for a scheduled post; null publishes it now."""


class ReportSubject(_Request):
    """What is reported."""

    kind: Literal["account", "post", "comment"] = Field(examples=["post"])
    id: IdIn


class NewReport(_Request):
    """A report."""

    subject: ReportSubject
    reason: Literal[
        "spam",
        "harassment",
        "hate",
        "nudity",
        "violence",
        "self_harm",
        "illegal",
        "impersonation",
        "copyright",
        "other",
    ] = Field(examples=["spam"])
    detail: Remark = Field(default="", examples=["The same link in every post."])
    """What admins should know besides."""


class Justification(_Request):
    """Why an admin acts."""

    note: Remark = Field(default="", examples=["Sells followers."])
    """For the audit log; only admins read it."""


class Resolution(Justification):
    """What an admin does about a case."""

    action: Literal["dismiss", "remove", "warn", "suspend"] = Field(examples=["warn"])
    """`dismiss` does nothing, `remove` deletes a post or a comment, `warn` and `suspend` are for the account whose it is."""
    message: Remark = Field(default="", examples=["Please do not post advertisements."])
    """What to tell the account, for `warn` only."""


class NewComment(_Request):
    """A comment."""

    text: CommentText = Field(examples=["What a light!"])
    reply_to: IdIn | None = None
    """A comment of the same post. A reply to a reply belongs to the first comment."""


class ReadMarker(_Request):
    """How far you have read."""

    id: IdIn
    """The highest `id` of the entries that you have seen: the first one's."""


_SomeAudience = Annotated[Literal["everyone", "following", "off"], Field(examples=["following"])]


class ChannelPreferencesPatch(_Request):
    """Changes for one kind. A channel that is left out stays as it is."""

    activity: _SomeAudience = "everyone"
    push: _SomeAudience = "everyone"
    mail: _SomeAudience = "off"


_UNCHANGED = Field(default_factory=ChannelPreferencesPatch)


class PreferencesPatch(_Request):
    """Changes to preferences. A kind that is left out stays as it is."""

    like: ChannelPreferencesPatch = _UNCHANGED
    comment: ChannelPreferencesPatch = _UNCHANGED
    reply: ChannelPreferencesPatch = _UNCHANGED
    mention: ChannelPreferencesPatch = _UNCHANGED
    follow: ChannelPreferencesPatch = _UNCHANGED
    follow_request: ChannelPreferencesPatch = _UNCHANGED
    request_accepted: ChannelPreferencesPatch = _UNCHANGED
    post: ChannelPreferencesPatch = _UNCHANGED


class Relation(_Response):
    """How you stand to an account."""

    following: bool
    """You follow it."""
    requested: bool
    """You asked to follow it, which it has not answered."""
    followed_by: bool
    """It follows you."""
    blocking: bool
    """You block it."""
    muting: bool
    """You mute it."""
    notify: bool
    """You are told of its new posts."""


class Rendition(_Response):
    """One size and format of a photo."""

    name: str = Field(examples=["640"])
    """`1080`, `640`, `320` (pixels of the longer side, at most) or `150` (square), or others if the server is set to make them: the
    largest comes first, the square last. New names may come.
    """
    url: str = Field(json_schema_extra={"format": "uri"}, examples=["https://photos.example.org/renditions/…/640.jpg"])
    """Valid for at least an hour."""
    width: int = Field(examples=[640])
    height: int = Field(examples=[480])
    content_type: str = Field(examples=["image/jpeg"])
    """`image/jpeg`, `image/webp`, or where the server makes it, `image/avif`. New types may come."""
    bytes: int = Field(examples=[81234])


class AccountRef(_Response):
    """Who it is."""

    id: Id
    username: str = Field(examples=["ada"])
    display_name: str = Field(examples=["Ada Lovelace"])
    avatar: list[Rendition] | None
    """The photo that it is shown with, as in lists: the square. Null without one."""


class _Profile(AccountRef):
    """What an account shows of itself."""

    avatar: list[Rendition] | None
    """The photo that it is shown with: all sizes but the largest (whole: show their middle), and the square. Null without one."""
    bio: str = Field(examples=["Wrote the first program."])
    website: str = Field(examples=["https://example.org/ada"])
    """Empty without one. Nobody has checked that it is theirs."""
    is_private: bool = Field(examples=[False])
    """Only its followers see its posts, and whom it approves can follow it."""
    post_count: int = Field(ge=0, examples=[12])
    follower_count: int = Field(ge=0, examples=[340])
    following_count: int = Field(ge=0, examples=[56])
    created_at: Time


class Account(_Profile):
    """An account."""

    viewer: Relation | None
    """How you stand to it; null for your own account."""


class Me(Account):
    """Your own account."""

    email: str | None = Field(examples=["ada@example.org"])
    """Your e-mail address, if you confirmed one. Nobody else is shown it."""
    pending_email: str | None = Field(examples=[None])
    """An address that waits to be confirmed by the token in its mail; it does not count before."""


class Session(_Response):
    """A device that is logged in."""

    id: Id
    device_name: str = Field(examples=["Ada's phone"])
    created_at: Time
    used_at: Time
    """When it was last used, to some 15 minutes."""
    current: bool
    """It is the one that asks."""


class Device(_Response):
    """What notifications are pushed to."""

    id: str = Field(examples=["3f2c9d1e-phone"])
    """What you call it."""
    platform: Literal["apns", "fcm", "web"] = Field(examples=["web"])
    """More may come."""
    registered_at: Time
    current: bool
    """It goes with the session that asks."""


class LogIn(_Response):
    """A fresh log-in."""

    account: Me
    token: str = Field(examples=[EXAMPLE_MAIL_TOKEN])
    """Send it as `Authorization: Bearer …`. It is shown only here."""
    session: Session


class Camera(_Response):
    """What the camera wrote down of itself and its settings; null for what it did not."""

    make: str | None = Field(examples=["NIKON"])
    model: str | None = Field(examples=["COOLPIX P6000"])
    lens: str | None = Field(examples=["iPhone 6s back camera 4.15mm f/2.2"])
    exposure_seconds: float | None = Field(examples=[0.008])
    f_number: float | None = Field(examples=[5.9])
    iso: int | None = Field(examples=[64])
    focal_length_mm: float | None = Field(examples=[24.0])
    """Of the lens itself, not converted to that of a film camera."""


class Media(_Response):
    """A photo."""

    id: Id
    status: Literal["processing", "ready", "failed"] = Field(examples=["ready"])
    failure: str | None = Field(examples=[None])
    """Why it failed, in words for its owner."""
    width: int | None = Field(examples=[4032])
    """Of the upright original; null until it is ready."""
    height: int | None = Field(examples=[3024])
    """Of the upright original; null until it is ready."""
    blurhash: str | None = Field(examples=["LEHV6nWB2yk8pyo0adR*.7kCMdnj"])
    """What to show until a rendition has come (blurha.sh); null until it is ready."""
    dominant_color: str | None = Field(pattern=r"^#[0-9a-f]{6}$", examples=["#3a6ea5"])
    """The colour that most of it has; null until it is ready."""
    camera: Camera | None
    """Null unless it was uploaded with `camera_facts=true`, and its camera wrote something down."""
    alt_text: str = Field(examples=["A lighthouse at dusk"])
    """What the photo shows, for those who cannot see it."""
    renditions: list[Rendition]
    """Empty until it is ready."""


class UploadPart(_Response):
    """A part of an upload."""

    number: int = Field(examples=[1])
    """The first is 1."""
    size: int = Field(examples=[5_242_880])
    """It has exactly so many bytes."""
    arrived: bool = Field(examples=[False])
    """It is there whole."""
    url: str | None = Field(
        json_schema_extra={"format": "uri"}, examples=["https://photos.example.org/originals/…?partNumber=1&uploadId=…"]
    )
    """`PUT` the part's bytes here, without your token, or to `PUT /v1/media/uploads/{id}/parts/{number}`. Valid for an hour;
    null if the part has arrived."""


class Upload(_Response):
    """A photo that comes in parts, in any order and as many at once as you like."""

    id: Id
    """Also of the photo that it becomes."""
    size: int = Field(examples=[12_345_678])
    part_size: int = Field(examples=[5_242_880])
    """Of each part but the last, which has the rest."""
    parts: list[UploadPart]
    expires_at: Time
    """When it is dropped if it is not completed."""


class Mention(_Response):
    """An account that a text names. Places are counted in Unicode code points of the text as it is answered."""

    start: int = Field(ge=0, examples=[11])
    """Where the `@` is."""
    length: int = Field(ge=2, examples=[4])
    """With the `@`. What is written there may be an earlier username."""
    account: AccountRef
    """As it is called now."""


class PostContent(_Response):
    """What of a post is the same for everybody."""

    id: Id
    author: AccountRef
    caption: str = Field(examples=["Evening at the harbour"])
    tags: list[str] = Field(examples=[["harbour"]])
    """The hashtags of its caption, without `#`, folded (NFKC, lower case), each once: what `GET /v1/tags/{tag}/posts` takes."""
    mentions: list[Mention]
    """The accounts that its caption names with `@`, in their order, without those that you may not see."""
    media: list[Media]
    created_at: Time
    published_at: Time | None
    """When followers could first see it; null while its photos are made ready, when only its author sees it."""
    edited_at: Time | None
    """When its caption, a text of its photos or their order was last changed; null if never."""


class PostMarks(_Response):
    """How you have marked a post."""

    liked: bool
    """You like it."""
    saved: bool
    """You have saved it, which nobody else is told."""


class Post(PostContent):
    """A post."""

    publish_at: Time | None
    """When it will be published, of a scheduled post, which only its author sees; null for any other."""
    like_count: int = Field(ge=0, examples=[128])
    """In your feed it may be a second old."""
    comment_count: int = Field(ge=0, examples=[7])
    """With replies. In your feed it may be a second old."""
    viewer: PostMarks


class Comment(_Response):
    """A comment of a post."""

    id: Id
    post_id: Id
    reply_to: Id | None = Field(examples=[None])
    """The comment that it replies to; null for one that replies to none. No reply is replied to."""
    author: AccountRef
    text: str = Field(examples=["What a light!"])
    mentions: list[Mention]
    """The accounts that it names with `@`, in their order, without those that you may not see."""
    reply_count: int = Field(ge=0, examples=[2])
    created_at: Time


class DeviceList(_Response):
    """A page of what is pushed to, the one that registered last first."""

    items: list[Device]
    next_cursor: str | None = Field(examples=[None])
    """Send it as `cursor` for the next page; null at the end."""


class SessionList(_Response):
    """A page of your devices, newest first."""

    items: list[Session]
    next_cursor: str | None = Field(examples=[None])
    """Send it as `cursor` for the next page; null at the end."""


class AccountList(_Response):
    """A page of accounts."""

    items: list[Account]
    next_cursor: str | None = Field(examples=[None])
    """Send it as `cursor` for the next page; null at the end."""


class CommentList(_Response):
    """A page of comments."""

    items: list[Comment]
    next_cursor: str | None = Field(examples=[None])
    """Send it as `cursor` for the next page; null at the end."""


class PostList(_Response):
    """A page of posts."""

    items: list[Post]
    next_cursor: str | None = Field(examples=[None])
    """Send it as `cursor` for the next page; null at the end."""


_ACTIVITY_KINDS: JsonDict = {"x-extensible-enum": [kind for kind in models.ActivityKind if kind != "other"]}


class Activity(_Response):
    """Something that others did."""

    id: Id
    """What `PUT /v1/activity/read` takes. The same entry has a higher one once somebody else did so too."""
    kind: str = Field(examples=["like"], json_schema_extra=_ACTIVITY_KINDS)
    """`like`, `comment` (on your post), `reply` (to your comment), `mention` (in a caption, or if there is a `comment_id` in
    that comment), `follow`, `follow_request`, `request_accepted`, or `post` (by somebody whom you follow with `notify`).
    New kinds may come: pass over what you do not know.
    """
    actors: list[AccountRef]
    """Who did so: the newest three, at most."""
    count: int = Field(ge=1, examples=[12])
    """How many accounts did so. See docs/activity.md for how far they are counted."""
    post_id: Id | None
    """The post that it is about, or whose comment it is about; null where it is about none."""
    preview: list[Rendition] | None
    """The first photo of that post: the square."""
    comment_id: Id | None
    """The comment, the newest of several; null where it is about none."""
    text: str | None = Field(examples=["What a light!"])
    """What the comment says."""
    created_at: Time
    """When the newest of them did so."""
    unread: bool
    """Something of it happened after what was marked as read."""


class ActivityList(_Response):
    """A page of activity, newest first."""

    items: list[Activity]
    next_cursor: str | None = Field(examples=[None])
    """Send it as `cursor` for the next page; null at the end."""


class UnreadActivity(_Response):
    """How much there is to read."""

    count: int = Field(ge=0, le=100, examples=[3])
    """How many entries are unread; 100 stands for as many or more."""


_Audience = Literal["everyone", "following", "off"]


class ChannelPreferences(_Response):
    """Of whose acts of a kind you are told: `everyone`, `following` (whom you follow) or `off`."""

    activity: _Audience = Field(examples=["everyone"])
    """In `GET /v1/activity`."""
    push: _Audience = Field(examples=["following"])
    """On your devices."""
    mail: _Audience = Field(examples=["off"])
    """By e-mail, if you confirmed an address."""


class Preferences(_Response):
    """Of what you are told."""

    like: ChannelPreferences
    comment: ChannelPreferences
    """On your posts."""
    reply: ChannelPreferences
    """To your comments."""
    mention: ChannelPreferences
    follow: ChannelPreferences
    follow_request: ChannelPreferences
    request_accepted: ChannelPreferences
    post: ChannelPreferences
    """By those whom you follow with `notify`."""


_KINDS: JsonDict = {"x-extensible-enum": [*models.SubjectKind]}
_REASONS: JsonDict = {"x-extensible-enum": [*models.Reason]}
_ACTIONS: JsonDict = {"x-extensible-enum": [*models.Action]}


class Subject(_Response):
    """What a report, a warning or an action is about."""

    kind: str = Field(examples=["post"], json_schema_extra=_KINDS)
    """`account`, `post` or `comment`. New kinds may come."""
    id: Id


class Report(_Response):
    """What you reported."""

    id: Id
    subject: Subject
    reason: str = Field(examples=["spam"], json_schema_extra=_REASONS)
    """New reasons may come."""
    detail: str = Field(examples=["The same link in every post."])
    created_at: Time


class AccountWarning(_Response):
    """What admins told you about something of yours."""

    id: Id
    subject: Subject
    message: str = Field(examples=["Please do not post advertisements."])
    created_at: Time


class AccountWarningList(_Response):
    """A page of warnings, newest first."""

    items: list[AccountWarning]
    next_cursor: str | None = Field(examples=[None])
    """Send it as `cursor` for the next page; null at the end."""


class ModeratedAccount(_Profile):
    """An account as admins see it."""

    suspended: bool = Field(examples=[False])


class ReportCase(_Response):
    """All reports of one thing until they are resolved."""

    id: Id
    subject: Subject
    account: ModeratedAccount | None
    """Whose the subject is, or the subject itself; null if it is gone."""
    post: Post | None
    """The subject, if it is a post that is still there."""
    comment: Comment | None
    """The subject, if it is a comment that is still there."""
    report_count: int = Field(ge=0, examples=[3])
    """From how many accounts."""
    reasons: list[str] = Field(examples=[["spam", "other"]])
    """Each that was given, in the order in which they came."""
    created_at: Time
    """When the first report came."""
    resolution: str | None = Field(examples=[None], json_schema_extra=_ACTIONS)
    """What was done; null while it is open."""
    resolved_at: Time | None
    resolved_by: AccountRef | None
    """Null also if that admin is gone."""


class ReportCaseList(_Response):
    """A page of cases, oldest first."""

    items: list[ReportCase]
    next_cursor: str | None = Field(examples=[None])
    """Send it as `cursor` for the next page; null at the end."""


class ReportStatement(_Response):
    """What one account reported."""

    id: Id
    reporter: AccountRef | None
    """Null if it is gone."""
    reason: str = Field(examples=["spam"], json_schema_extra=_REASONS)
    detail: str = Field(examples=["The same link in every post."])
    created_at: Time


class ReportStatementList(_Response):
    """A page of reports of one case, newest first."""

    items: list[ReportStatement]
    next_cursor: str | None = Field(examples=[None])
    """Send it as `cursor` for the next page; null at the end."""


class ModerationAction(_Response):
    """What an admin did, or an operator at the command line."""

    id: Id
    action: str = Field(examples=["suspend"], json_schema_extra=_ACTIONS)
    """New actions may come."""
    subject: Subject
    account: AccountRef | None
    """Whose the subject is, or the subject itself; null if it is gone."""
    case_id: Id | None
    """The case that it resolved, if it did."""
    admin: AccountRef | None
    """Who did it; null for an operator, or if that admin is gone."""
    operator: str | None = Field(examples=[None])
    """Who did it at the command line."""
    note: str = Field(examples=["Sells followers."])
    created_at: Time


class ModerationActionList(_Response):
    """A page of the audit log, newest first."""

    items: list[ModerationAction]
    next_cursor: str | None = Field(examples=[None])
    """Send it as `cursor` for the next page; null at the end."""


class TagRelation(_Response):
    """How you stand to a tag."""

    following: bool
    """You follow it."""


class Tag(_Response):
    """A tag."""

    name: str = Field(examples=["harbour"])
    """Folded, without `#`."""
    post_count: int = Field(ge=0, examples=[12])
    """How many of its posts you may see."""
    is_exact: bool
    """They were counted. If false, there are many, and `post_count` is an estimate."""
    viewer: TagRelation


class TagList(_Response):
    """A page of tags."""

    items: list[Tag]
    next_cursor: str | None = Field(examples=[None])
    """Send it as `cursor` for the next page; null at the end. What was found is on one page."""


class Event(_Response):
    """Something that happened, as it is told over `GET /v1/feed/events`."""

    id: str = Field(examples=["1795341662123-0"])
    type: str = Field(
        examples=["post.created"], json_schema_extra={"x-extensible-enum": ["post.created", "post.deleted"]}
    )
    """`post.created` or `post.deleted`. New types may come: pass over what you do not know."""
    created_at: Time
    post_id: Id
    account_id: Id
    """The post's author."""


class RateLimit(_Response):
    """`quota` requests in `seconds`, all at once or spread out."""

    name: str = Field(examples=["read"])
    quota: int = Field(examples=[600])
    seconds: int = Field(examples=[60])


class Limits(_Response):
    """What is taken, so that a client can ask before it sends."""

    upload_max_bytes: int = Field(examples=[41_943_040])
    upload_max_pixels: int = Field(examples=[100_000_000])
    upload_min_bytes_per_second: int = Field(examples=[4096])
    """An upload that is slower for longer than its grace is refused."""
    upload_grace_seconds: float = Field(examples=[10])
    """How long a sender may be late, all in all."""
    upload_silence_seconds: float = Field(examples=[60])
    """How long a sender may send nothing, however much it sent before."""
    upload_part_bytes: int = Field(examples=[5_242_880])
    """Of each part of a resumable upload but the last."""
    upload_expiry_seconds: int = Field(examples=[86_400])
    """A resumable upload that is not completed within this time is dropped."""
    upload_max_open: int = Field(examples=[50])
    """How many resumable uploads you may have open."""
    media_unposted_seconds: int = Field(examples=[86_400])
    """A photo that is not posted within this time is deleted."""
    photo_types: list[str] = Field(examples=[["image/jpeg", "image/heif"]])
    photos_per_post: int = Field(examples=[10])
    tags_per_post: int = Field(examples=[30])
    """Those beyond are text like any other."""
    tag_max_characters: int = Field(examples=[64])
    """Folded; what is longer is no tag."""
    followed_tags_max: int = Field(examples=[100])
    """How many tags you may follow."""
    mentions_per_post: int = Field(examples=[20])
    """Of a comment as many. Those beyond are text like any other."""
    caption_max_characters: int = Field(examples=[2200])
    alt_text_max_characters: int = Field(examples=[1500])
    comment_max_characters: int = Field(examples=[2200])
    scheduled_posts_max: int = Field(examples=[100])
    """How many scheduled posts you may have."""
    schedule_max_days: int = Field(examples=[365])
    """How far away their times may be."""
    body_max_bytes: int = Field(examples=[131_072])
    """Of every other request."""
    page_max_items: int = Field(examples=[100])
    web_push_public_key: str | None = Field(
        examples=["BA1Hxzyi1RUM1b5wjxsn7nGxAszw2u61m164i3MrAIxHF6YK5h4SDYic-dRuU_RCPCfA5aq9ojSwk5Y2EmClBPs"]
    )
    """What a browser wants as `applicationServerKey`; null where nothing is pushed to browsers."""
    rate_limits: list[RateLimit]


class ReadinessPart(_Response):
    """One of the servers behind the API."""

    name: str = Field(examples=["database"])
    ready: bool


class Readiness(_Response):
    """Whether every part answers."""

    ready: bool
    parts: list[ReadinessPart]


class Status(_Response):
    """Whether the product works as a whole."""

    status: Literal["ok", "down"] = Field(examples=["ok"])
    seconds: float = Field(examples=[0.012])
    """In what time that was found out."""


class Liveness(_Response):
    """The process answers."""

    alive: bool


class ProblemField(_Response):
    """One field that is wrong."""

    pointer: str = Field(examples=["/caption"])
    """A JSON pointer into the body, or a parameter's name."""
    detail: str = Field(examples=["Has control characters."])


class Problem(_Response):
    """What went wrong (RFC 9457)."""

    type: str = Field(examples=["/problems/not-found"])
    """A stable name; docs/errors.md lists them."""
    title: str = Field(examples=["Not found"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["There is nothing here that you may see."])
    request_id: str = Field(examples=["2b8f0c6e5d1a4f7b9c3e8a6d4f2b1c0e"])
    errors: list[ProblemField] = Field(examples=[[]])
