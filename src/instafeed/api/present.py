"""The domain's values in the shapes that clients get."""

import functools
from collections.abc import Container, Iterable, Sequence
from typing import Any

from fastapi import Response

from instafeed import models, moderation
from instafeed.api import schemas
from instafeed.api.dependencies import PageRequest
from instafeed.resources import Resources
from instafeed.storage.blobs import original_key

_EXPORT_URL_SECONDS = 3600


def relation(value: models.Relation) -> schemas.Relation:
    """How the viewer stands to an account."""
    return schemas.Relation(
        following=value.following,
        requested=value.requested,
        followed_by=value.followed_by,
        blocking=value.blocking,
        muting=value.muting,
        notify=value.notify,
    )


def renditions(res: Resources, values: Iterable[models.Rendition]) -> list[schemas.Rendition]:
    """Sizes of a photo, their URLs signed."""
    return [
        schemas.Rendition(
            name=value.name,
            url=res.blobs.url(value.key),
            width=value.width,
            height=value.height,
            content_type=value.content_type,
            bytes=value.size,
        )
        for value in values
    ]


def _square(values: Sequence[models.Rendition]) -> list[models.Rendition]:
    """What lists show of a photo. Settings name it, and photos may be older than they: it is the last one."""
    return [rendition for rendition in values if rendition.name == values[-1].name]


def _all_but_the_largest(values: Sequence[models.Rendition]) -> list[models.Rendition]:
    return [rendition for rendition in values if rendition.name != values[0].name]


def account_ref(res: Resources, value: models.Account) -> schemas.AccountRef:
    """Who an account is."""
    return schemas.AccountRef(
        id=value.id,
        username=value.username,
        display_name=value.display_name,
        avatar=renditions(res, _square(value.avatar)) or None,
    )


def _profile(res: Resources, value: models.Account) -> dict[str, Any]:
    return {
        "id": value.id,
        "username": value.username,
        "display_name": value.display_name,
        "avatar": renditions(res, _all_but_the_largest(value.avatar)) or None,
        "bio": value.bio,
        "website": value.website,
        "is_private": value.is_private,
        "post_count": value.post_count,
        "follower_count": value.follower_count,
        "following_count": value.following_count,
        "created_at": models.made_at(value.id),
    }


def account(res: Resources, value: models.Account, viewer: models.Relation | None) -> schemas.Account:
    """An account as the viewer sees it."""
    return schemas.Account(**_profile(res, value), viewer=relation(viewer) if viewer else None)


def me(res: Resources, value: models.Account, emails: models.Emails) -> schemas.Me:
    """An account as its owner sees it."""
    shown = dict(account(res, value, None))
    return schemas.Me(**shown, email=emails.confirmed, pending_email=emails.pending)


def accounts(
    res: Resources, response: Response, page: PageRequest, found: models.Page[models.Listed]
) -> schemas.AccountList:
    """A page of accounts."""
    return schemas.AccountList(
        items=[account(res, item.account, item.viewer) for item in found.items],
        next_cursor=page.next_cursor(response, found.next),
    )


def session(value: models.Session, *, current: bool) -> schemas.Session:
    """A device."""
    return schemas.Session(
        id=value.id,
        device_name=value.device_name,
        created_at=models.made_at(value.id),
        used_at=value.used_at,
        current=current,
    )


def device(value: models.Device, viewer: models.Viewer) -> schemas.Device:
    """What notifications are pushed to."""
    return schemas.Device(
        id=value.name,
        platform=value.platform.value,
        registered_at=models.made_at(value.id),
        current=value.session_id == viewer.session_id,
    )


def camera(value: models.Camera) -> schemas.Camera:
    """What a camera wrote down."""
    return schemas.Camera(
        make=value.make,
        model=value.model,
        lens=value.lens,
        exposure_seconds=value.exposure_seconds,
        f_number=value.f_number,
        iso=value.iso,
        focal_length_mm=value.focal_length_mm,
    )


def media(res: Resources, value: models.Media) -> schemas.Media:
    """A photo, its URLs signed."""
    return schemas.Media(
        id=value.id,
        status=value.status.value,
        failure=value.failure,
        width=value.width,
        height=value.height,
        blurhash=value.blurhash,
        dominant_color=value.dominant_color,
        camera=camera(value.camera) if value.camera else None,
        alt_text=value.alt_text,
        renditions=renditions(res, value.renditions),
    )


def upload(res: Resources, value: models.Upload, arrived: Container[int]) -> schemas.Upload:
    """An upload, with signed URLs for the parts that have not arrived."""
    key = original_key(value.object_key)
    s3_upload_id = value.s3_upload_id
    assert s3_upload_id is not None  # nobody is shown one that has not begun

    def part(number: int) -> schemas.UploadPart:
        size, there = value.bytes_of(number), number in arrived
        url = None if there else res.blobs.part_url(key, s3_upload_id, number, size)
        return schemas.UploadPart(number=number, size=size, arrived=there, url=url)

    return schemas.Upload(
        id=value.id,
        size=value.size,
        part_size=value.part_size,
        parts=[part(number) for number in value.numbers],
        expires_at=value.expires_at,
    )


def export(res: Resources, value: models.Export) -> schemas.Export:
    """A copy of somebody's data, with a signed URL once it is ready."""
    ready = value.status is models.ExportStatus.READY
    # Lists and the end of the ZIP are the last hundredth.
    progress = 100 if ready else 99 * value.photos_done // max(value.photos, 1)
    return schemas.Export(
        id=value.id,
        status=value.status.value,
        progress=progress,
        bytes=value.size,
        url=res.blobs.download_url(value.object_key, seconds=_EXPORT_URL_SECONDS) if ready else None,
        created_at=models.made_at(value.id),
        expires_at=value.expires_at,
    )


def _content(res: Resources, value: models.Post) -> dict[str, Any]:
    return {
        "id": value.id,
        "author": account_ref(res, value.author),
        "caption": value.caption,
        "tags": list(value.tags),
        "mentions": _mentions(res, value.mentions),
        "media": [media(res, photo) for photo in value.media],
        "created_at": models.made_at(value.id),
        "published_at": value.published_at,
        "edited_at": value.edited_at,
    }


def _mentions(res: Resources, values: Iterable[models.Mention]) -> list[schemas.Mention]:
    return [
        schemas.Mention(start=mention.start, length=mention.length, account=account_ref(res, mention.account))
        for mention in values
        if mention.account is not None
    ]


def post_marks(value: models.Marks) -> schemas.PostMarks:
    """How the viewer has marked a post."""
    return schemas.PostMarks(liked=value.liked, saved=value.saved)


def post(res: Resources, value: models.PostView) -> schemas.Post:
    """A post as the viewer sees it."""
    return schemas.Post(
        **_content(res, value.post),
        publish_at=value.post.publish_at,
        like_count=value.counts.likes,
        comment_count=value.counts.comments,
        viewer=post_marks(value.viewer),
    )


def post_content(res: Resources, value: models.Post) -> schemas.PostContent:
    """What of a post is the same for every viewer; `counts_json` goes on from there."""
    return schemas.PostContent(**_content(res, value))


class _CountsJson(dict[models.Counts, bytes]):
    def __missing__(self, counts: models.Counts) -> bytes:
        if len(self) >= _MOST_COUNTS:
            self.clear()
        # No page that is made of it has a post that waits for its time.
        text = f',"publish_at":null,"like_count":{counts.likes},"comment_count":{counts.comments},"viewer":'
        self[counts] = made = text.encode()
        return made


_MOST_COUNTS = 10_000
counts_json = _CountsJson()
"""What comes next of a post as it is sent: its counts. Looked up by every post of a page: a function that remembers takes
five times as long as a dictionary.
"""


@functools.cache
def marks_json(marks: models.Marks) -> bytes:
    """The rest of a post as it is sent, and the comma before the next one."""
    return post_marks(marks).model_dump_json().encode() + b"},"


def comment(res: Resources, value: models.Comment) -> schemas.Comment:
    """A comment."""
    return schemas.Comment(
        id=value.id,
        post_id=value.post_id,
        reply_to=value.parent_id,
        author=account_ref(res, value.author),
        text=value.text,
        mentions=_mentions(res, value.mentions),
        reply_count=value.reply_count,
        created_at=models.made_at(value.id),
    )


def comments(
    res: Resources, response: Response, page: PageRequest, found: models.Page[models.Comment]
) -> schemas.CommentList:
    """A page of comments."""
    return schemas.CommentList(
        items=[comment(res, item) for item in found.items], next_cursor=page.next_cursor(response, found.next)
    )


def activity(
    res: Resources, response: Response, page: PageRequest, found: models.Page[models.Activity]
) -> schemas.ActivityList:
    """A page of activity."""
    return schemas.ActivityList(
        items=[_activity(res, item) for item in found.items], next_cursor=page.next_cursor(response, found.next)
    )


def _activity(res: Resources, value: models.Activity) -> schemas.Activity:
    sizes = _square(value.photo.renditions) if value.photo else []
    return schemas.Activity(
        id=value.id,
        kind=value.kind,
        actors=[account_ref(res, actor) for actor in value.actors],
        count=value.count,
        post_id=value.post.id if value.post else None,
        preview=renditions(res, sizes) or None,
        comment_id=value.comment_id,
        text=value.text,
        created_at=models.made_at(value.id),
        unread=value.unread,
    )


def preferences(value: models.Preferences) -> schemas.Preferences:
    """Of what somebody is told."""
    return schemas.Preferences.model_validate(
        {
            kind: {channel: value.audience(kind, channel) for channel in models.Channel}
            for kind in models.ActivityKind
            if kind is not models.ActivityKind.OTHER
        }
    )


def posts(
    res: Resources, response: Response, page: PageRequest, found: models.Page[models.PostView]
) -> schemas.PostList:
    """A page of posts."""
    return schemas.PostList(
        items=[post(res, item) for item in found.items], next_cursor=page.next_cursor(response, found.next)
    )


def tag(value: models.TagView) -> schemas.Tag:
    """A tag as the viewer sees it."""
    return schemas.Tag(
        name=value.name,
        post_count=value.posts,
        is_exact=value.exact,
        viewer=schemas.TagRelation(following=value.following),
    )


def event(value: models.Event) -> schemas.Event:
    """An event."""
    return schemas.Event(
        id=value.id,
        type=value.type.value,
        created_at=value.created_at,
        post_id=value.post_id,
        account_id=value.author_id,
    )


def subject(value: models.Subject) -> schemas.Subject:
    """What something is about."""
    return schemas.Subject(kind=value.kind, id=value.id)


def report(value: models.Report, about: models.Subject) -> schemas.Report:
    """A report as its reporter sees it."""
    return schemas.Report(
        id=value.id,
        subject=subject(about),
        reason=value.reason,
        detail=value.detail,
        created_at=models.made_at(value.id),
    )


def warning(value: models.AccountWarning) -> schemas.AccountWarning:
    """A warning."""
    return schemas.AccountWarning(
        id=value.id,
        subject=subject(value.subject),
        message=value.message,
        created_at=models.made_at(value.id),
    )


def moderated_account(res: Resources, value: models.Account) -> schemas.ModeratedAccount:
    """An account as admins see it."""
    return schemas.ModeratedAccount(**_profile(res, value), suspended=value.suspended)


def case(res: Resources, value: moderation.CaseFile) -> schemas.ReportCase:
    """A case."""
    return schemas.ReportCase(
        id=value.case.id,
        subject=subject(value.case.subject),
        account=moderated_account(res, value.account) if value.account else None,
        post=post(res, value.post) if value.post else None,
        comment=comment(res, value.comment) if value.comment else None,
        report_count=value.case.report_count,
        reasons=list(value.case.reasons),
        created_at=models.made_at(value.case.id),
        resolution=value.case.resolution,
        resolved_at=value.case.resolved_at,
        resolved_by=account_ref(res, value.resolver) if value.resolver else None,
    )


def statement(res: Resources, value: moderation.Statement) -> schemas.ReportStatement:
    """What a reporter said."""
    return schemas.ReportStatement(
        id=value.report.id,
        reporter=account_ref(res, value.reporter) if value.reporter else None,
        reason=value.report.reason,
        detail=value.report.detail,
        created_at=models.made_at(value.report.id),
    )


def _action(res: Resources, value: moderation.Logged) -> schemas.ModerationAction:
    return schemas.ModerationAction(
        id=value.entry.id,
        action=value.entry.action,
        subject=subject(value.entry.subject),
        account=account_ref(res, value.account) if value.account else None,
        case_id=value.entry.case_id,
        admin=account_ref(res, value.admin) if value.admin else None,
        operator=value.entry.operator,
        note=value.entry.note,
        created_at=models.made_at(value.entry.id),
    )


def actions(
    res: Resources, response: Response, page: PageRequest, found: models.Page[moderation.Logged]
) -> schemas.ModerationActionList:
    """A page of the audit log."""
    return schemas.ModerationActionList(
        items=[_action(res, item) for item in found.items], next_cursor=page.next_cursor(response, found.next)
    )
