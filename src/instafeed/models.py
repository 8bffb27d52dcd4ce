"""The values that everything else speaks in. All times are aware UTC datetimes; all sizes are bytes or pixels."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from typing import Generic, NamedTuple, Self, TypeVar

from instafeed import ids

T = TypeVar("T")


def made_at(id_: int) -> datetime:
    """When the row `id_` was made, to the millisecond."""
    return datetime.fromtimestamp(ids.unix_ms_of(id_) / 1000, UTC)


@dataclass(frozen=True, slots=True)
class Rendition:
    """One size and format of a photo; `key` is its object in S3."""

    name: str
    key: str
    width: int
    height: int
    content_type: str
    size: int


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who asks: a log-in of an account."""

    account_id: int
    session_id: int
    session_key: str
    """What the session is called in the cache: no secret, and no way back to the token."""

    @classmethod
    def of(cls, account_id: int) -> Self:
        """The account without a log-in, for what is done in its name."""
        return cls(account_id, 0, "")


@dataclass(frozen=True, slots=True)
class Account:
    """An account with its counters."""

    id: int
    username: str
    display_name: str
    bio: str
    website: str
    post_count: int
    follower_count: int
    following_count: int
    is_private: bool
    suspended: bool
    avatar: tuple[Rendition, ...] = ()
    """Of the photo that it is shown with; empty without one."""


@dataclass(frozen=True, slots=True)
class AccountChanges:
    """What an owner changes of an account; None leaves as it is."""

    username: str | None = None
    display_name: str | None = None
    bio: str | None = None
    website: str | None = None
    is_private: bool | None = None


@dataclass(frozen=True, slots=True)
class Emails:
    """The addresses of an account, which only its owner is shown."""

    confirmed: str | None = None
    """The one that counts: for resets, and for nobody else's account."""
    pending: str | None = None
    """One that waits to be confirmed."""


@dataclass(frozen=True, slots=True)
class Relation:
    """How a viewer stands to an account."""

    following: bool = False
    requested: bool = False
    """The viewer asked to follow it, which it has not answered."""
    followed_by: bool = False
    blocking: bool = False
    muting: bool = False
    notify: bool = False
    blocked_by: bool = False
    """It blocks the viewer, who must not be told."""


@dataclass(frozen=True, slots=True)
class Session:
    """A device that is logged in."""

    id: int
    device_name: str
    used_at: datetime


class Platform(StrEnum):
    """Through whom a device is reached."""

    APNS = "apns"
    FCM = "fcm"
    WEB = "web"


@dataclass(frozen=True, slots=True)
class Device:
    """What pushes go to: an app or a browser of a session. `id` is its registration's: another one each time."""

    account_id: int
    name: str
    """What its account's clients call it."""
    id: int
    session_id: int
    platform: Platform
    address: str = field(repr=False)
    """A token of APNs or FCM, or the URL of a browser's push service."""
    p256dh: bytes | None = None
    """A browser's public key."""
    auth: bytes | None = field(default=None, repr=False)
    """What a browser and we know only."""
    endpoint_arn: str | None = None
    """What Amazon SNS calls a token, once it was asked."""


@dataclass(frozen=True, slots=True)
class Push:
    """What a device is told, with the words for it in English, and what an app needs to find its own."""

    topic: str
    """Of those with the same topic the last one stays; 32 characters of URL-safe base64."""
    seconds: int
    """For how long it is worth telling."""
    text: str
    loc_key: str
    loc_args: tuple[str, ...]
    unread: int | None
    """How many entries of activity are; None where that was not counted."""
    data: dict[str, str]
    """What it is about."""


class Delivery(IntEnum):
    """How an author's posts get into the feeds of followers."""

    PUSHED = 0
    """Pushed into each of them."""
    BOTH = 1
    """Pushed, and merged when a feed is read: on the way from one to the other."""
    MERGED = 2
    """Merged when a feed is read: an author with so many followers is a celebrity."""


class MediaStatus(StrEnum):
    """How far a photo is."""

    PROCESSING = "processing"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Camera:
    """What a camera wrote down of itself and its settings; None for what it did not, or not legibly."""

    make: str | None = None
    model: str | None = None
    lens: str | None = None
    exposure_seconds: float | None = None
    f_number: float | None = None
    iso: int | None = None
    focal_length_mm: float | None = None


@dataclass(frozen=True, slots=True)
class Media:
    """A photo."""

    id: int
    account_id: int
    status: MediaStatus
    object_key: str
    content_type: str
    size: int
    sha256: bytes
    failure: str | None = None
    width: int | None = None
    height: int | None = None
    blurhash: str | None = None
    dominant_color: str | None = None
    camera_facts: bool = False
    """Its camera's facts are kept."""
    camera: Camera | None = None
    renditions: tuple[Rendition, ...] = ()
    post_id: int | None = None
    """The post's that has it; below 0 for an account's avatar."""
    alt_text: str = ""


@dataclass(frozen=True, slots=True)
class Upload:
    """A photo that comes in parts, numbered from 1; each has `part_size` bytes, and the last one the rest."""

    id: int
    """Also of the photo that it becomes."""
    account_id: int
    object_key: str
    s3_upload_id: str | None
    """None until parts may come."""
    size: int
    sha256: bytes
    part_size: int
    camera_facts: bool
    expires_at: datetime

    @property
    def numbers(self) -> range:
        """The numbers of its parts."""
        return range(1, -(-self.size // self.part_size) + 1)

    def bytes_of(self, number: int) -> int:
        """The size of a part."""
        return min(self.part_size, self.size - (number - 1) * self.part_size)


class ExportStatus(StrEnum):
    """How far a copy of somebody's data is."""

    PROCESSING = "processing"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Export:
    """A copy of somebody's data; `size` is None until it is ready."""

    id: int
    account_id: int
    object_key: str
    status: ExportStatus
    photos: int
    photos_done: int
    size: int | None
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Mention:
    """An account that a text names; `start` and `length` are code points, the sign before the name included."""

    name: str
    """As it was written, folded."""
    start: int
    length: int
    account_id: int
    account: Account | None = None
    """As a viewer sees it; None until a viewer's right to see it is known."""


@dataclass(frozen=True, slots=True)
class Post:
    """A post with its author and its photos in their order; `published_at` is None until all of them are ready."""

    id: int
    author: Account
    caption: str
    published_at: datetime | None
    edited_at: datetime | None = None
    publish_at: datetime | None = None
    """Of one that waits for this time, and is its author's until then."""
    media: tuple[Media, ...] = ()
    tags: tuple[str, ...] = ()
    """Folded."""
    mentions: tuple[Mention, ...] = ()


@dataclass(frozen=True, slots=True)
class TagView:
    """A tag, folded, how many of its posts a viewer may see, counted, or estimated where that is not `exact`, and whether the
    viewer follows it.
    """

    name: str
    posts: int
    exact: bool
    following: bool


class Counts(NamedTuple):
    """How often a post was liked and commented; of a comment, `comments` are its replies."""

    likes: int
    comments: int


class Marks(NamedTuple):
    """How a viewer has marked a post."""

    liked: bool
    saved: bool


NO_MARKS = Marks(liked=False, saved=False)


@dataclass(frozen=True, slots=True)
class PostView:
    """A post as a viewer sees it."""

    post: Post
    counts: Counts
    viewer: Marks


@dataclass(frozen=True, slots=True)
class Comment:
    """A comment of a post; `parent_id` is the comment that it replies to, None for a first one."""

    id: int
    post_id: int
    parent_id: int | None
    author: Account
    text: str
    mentions: tuple[Mention, ...] = ()
    reply_count: int = 0


@dataclass(frozen=True, slots=True)
class PhotoOfPost:
    """A photo that a post claims, or whose text is changed."""

    media_id: int
    alt_text: str = ""


@dataclass(frozen=True, slots=True)
class PostChanges:
    """What an author changes of a post; None leaves as it is."""

    caption: str | None = None
    alt_texts: list[PhotoOfPost] = field(default_factory=list)
    """Of those photos that get another text."""
    media_ids: list[int] | None = None
    """All of its photos, in another order."""
    publish_at: datetime | None = None
    publish_now: bool = False


@dataclass(frozen=True, slots=True)
class Listed:
    """One entry of a list of accounts; `id` is the edge's (a follow's, a block's, ...) and orders it, newest first."""

    id: int
    account: Account
    viewer: Relation | None
    """How the viewer stands to it; None for the viewer's own account."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A page of a list; the next one begins below the id `next`, None at the end."""

    items: list[T] = field(default_factory=list)
    next: int | None = None


class EventType(StrEnum):
    """What an event tells. New kinds may come."""

    POST_CREATED = "post.created"
    POST_DELETED = "post.deleted"
    OTHER = "other"
    """One that a newer release logged: nobody is told of it."""

    @classmethod
    def _missing_(cls, value: object) -> "EventType":
        return cls.OTHER


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a post; `id` is its place in the log of events."""

    id: str
    type: EventType
    author_id: int
    post_id: int

    @property
    def created_at(self) -> datetime:
        """When it was logged."""
        return datetime.fromtimestamp(int(self.id.partition("-")[0]) / 1000, UTC)


class ActivityKind(StrEnum):
    """What accounts are told of. New kinds may come."""

    LIKE = "like"
    """Of a post of one's own."""
    COMMENT = "comment"
    """On a post of one's own, and no reply."""
    REPLY = "reply"
    """To a comment of one's own."""
    MENTION = "mention"
    """In a caption or a comment."""
    FOLLOW = "follow"
    FOLLOW_REQUEST = "follow_request"
    REQUEST_ACCEPTED = "request_accepted"
    POST = "post"
    """By somebody whom one follows with `notify`."""
    OTHER = "other"
    """One that a newer release wrote: it is not shown."""

    @classmethod
    def _missing_(cls, value: object) -> "ActivityKind":
        return cls.OTHER


class Channel(StrEnum):
    """A way on which somebody is told."""

    ACTIVITY = "activity"
    PUSH = "push"
    MAIL = "mail"


class Audience(StrEnum):
    """Of whose acts somebody wants to be told."""

    EVERYONE = "everyone"
    FOLLOWING = "following"
    """Of those whom one follows."""
    OFF = "off"


_MAILED = frozenset({ActivityKind.FOLLOW_REQUEST})


@dataclass(frozen=True, slots=True)
class Preferences:
    """Of whose acts an account wants to be told, by kind and channel."""

    said: Mapping[ActivityKind, Mapping[Channel, Audience]] = field(default_factory=dict)
    """What the account has said itself."""

    def audience(self, kind: ActivityKind, channel: Channel) -> Audience:
        """What it said, or else everyone; but that mails are for what waits for an answer."""
        usual = Audience.OFF if channel is Channel.MAIL and kind not in _MAILED else Audience.EVERYONE
        return self.said.get(kind, {}).get(channel, usual)


@dataclass(frozen=True, slots=True)
class Inbox:
    """How an account reads its activity."""

    read_id: int = 0
    """Acts with ids up to this one have been seen, on one device or another."""
    preferences: Preferences = Preferences()


@dataclass(frozen=True, slots=True)
class Act:
    """What an account did: its like, follow, request or comment has this id."""

    id: int
    actor_id: int


@dataclass(frozen=True, slots=True)
class Activity:
    """An entry of somebody's activity, as its owner sees it now."""

    id: int
    """Of the newest act of it."""
    kind: ActivityKind
    actors: tuple[Account, ...]
    """The newest of them."""
    count: int
    """How many accounts did so."""
    unread: bool
    post: Post | None = None
    """That it is about, or whose comment; without photos."""
    photo: "Media | None" = None
    """The first one of the post, where it is shown."""
    comment_id: int | None = None
    text: str | None = None
    """Of the comment."""


class SubjectKind(StrEnum):
    """What can be reported."""

    ACCOUNT = "account"
    POST = "post"
    COMMENT = "comment"


@dataclass(frozen=True, slots=True)
class Subject:
    """What a report, a warning or an action of an admin is about."""

    kind: str
    """A `SubjectKind`, or one that a newer release knows."""
    id: int


class Reason(StrEnum):
    """Why something is reported."""

    SPAM = "spam"
    HARASSMENT = "harassment"
    HATE = "hate"
    NUDITY = "nudity"
    VIOLENCE = "violence"
    SELF_HARM = "self_harm"
    ILLEGAL = "illegal"
    IMPERSONATION = "impersonation"
    COPYRIGHT = "copyright"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Report:
    """What one account said about a subject."""

    id: int
    reporter_id: int
    reason: str
    detail: str


class Action(StrEnum):
    """What an admin, or an operator at the command line, does."""

    DISMISS = "dismiss"
    REMOVE = "remove"
    WARN = "warn"
    SUSPEND = "suspend"
    UNSUSPEND = "unsuspend"
    PROMOTE = "promote"
    DEMOTE = "demote"


@dataclass(frozen=True, slots=True)
class Case:
    """All reports of a subject until an admin resolved them; `account_id` is whose the subject is."""

    id: int
    subject: Subject
    account_id: int
    report_count: int
    reasons: tuple[str, ...]
    """Each that was given, in the order in which they came."""
    resolution: str | None = None
    resolved_by: int | None = None
    resolved_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class AccountWarning:
    """What an account was told about something of its own."""

    id: int
    subject: Subject
    message: str


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """An action, and who did it: either an admin or an operator at the command line."""

    id: int
    admin_id: int | None
    operator: str | None
    action: str
    subject: Subject
    account_id: int
    """Whose the subject is."""
    case_id: int | None
    """The case that it resolved."""
    note: str
