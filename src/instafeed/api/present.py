"""The domain's values in the shapes that clients get."""

import functools
from collections.abc import Container
from typing import Any

from fastapi import Response

from instafeed import models
from instafeed.api import schemas
from instafeed.api.dependencies import PageRequest
from instafeed.resources import Resources
from instafeed.storage.blobs import original_key


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


def account_ref(value: models.Account) -> schemas.AccountRef:
    """Who an account is."""
    return schemas.AccountRef(id=value.id, username=value.username, display_name=value.display_name)


def account(value: models.Account, viewer: models.Relation | None) -> schemas.Account:
    """An account as the viewer sees it."""
    return schemas.Account(
        id=value.id,
        username=value.username,
        display_name=value.display_name,
        bio=value.bio,
        is_private=value.is_private,
        post_count=value.post_count,
        follower_count=value.follower_count,
        following_count=value.following_count,
        created_at=models.made_at(value.id),
        viewer=relation(viewer) if viewer else None,
    )


def accounts(response: Response, page: PageRequest, found: models.Page[models.Listed]) -> schemas.AccountList:
    """A page of accounts."""
    return schemas.AccountList(
        items=[account(item.account, item.viewer) for item in found.items],
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
    status = value.status
    assert status is not models.MediaStatus.PENDING  # nobody is shown one that has not arrived
    return schemas.Media(
        id=value.id,
        status=status.value,
        failure=value.failure,
        width=value.width,
        height=value.height,
        blurhash=value.blurhash,
        dominant_color=value.dominant_color,
        camera=camera(value.camera) if value.camera else None,
        alt_text=value.alt_text,
        renditions=[
            schemas.Rendition(
                name=rendition.name,
                url=res.blobs.url(rendition.key),
                width=rendition.width,
                height=rendition.height,
                content_type=rendition.content_type,
                bytes=rendition.size,
            )
            for rendition in value.renditions
        ],
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


def _content(res: Resources, value: models.Post) -> dict[str, Any]:
    return {
        "id": value.id,
        "author": account_ref(value.author),
        "caption": value.caption,
        "media": [media(res, photo) for photo in value.media],
        "created_at": models.made_at(value.id),
        "published_at": value.published_at,
        "edited_at": value.edited_at,
    }


def post_marks(value: models.Marks) -> schemas.PostMarks:
    """How the viewer has marked a post."""
    return schemas.PostMarks(liked=value.liked, saved=value.saved)


def post(res: Resources, value: models.PostView) -> schemas.Post:
    """A post as the viewer sees it."""
    return schemas.Post(
        **_content(res, value.post),
        like_count=value.counts.likes,
        comment_count=value.counts.comments,
        viewer=post_marks(value.viewer),
    )


def post_json(res: Resources, value: models.Post) -> bytes:
    """What of a post is the same for every viewer, as it is sent; `counts_json` goes on from there."""
    return schemas.PostContent(**_content(res, value)).model_dump_json()[:-1].encode()


class _CountsJson(dict[models.Counts, bytes]):
    def __missing__(self, counts: models.Counts) -> bytes:
        if len(self) >= _MOST_COUNTS:
            self.clear()
        text = f',"like_count":{counts.likes},"comment_count":{counts.comments},"viewer":'
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


def comment(value: models.Comment) -> schemas.Comment:
    """A comment."""
    return schemas.Comment(
        id=value.id,
        post_id=value.post_id,
        reply_to=value.parent_id,
        author=account_ref(value.author),
        text=value.text,
        reply_count=value.reply_count,
        created_at=models.made_at(value.id),
    )


def comments(response: Response, page: PageRequest, found: models.Page[models.Comment]) -> schemas.CommentList:
    """A page of comments."""
    return schemas.CommentList(
        items=[comment(item) for item in found.items], next_cursor=page.next_cursor(response, found.next)
    )


def posts(
    res: Resources, response: Response, page: PageRequest, found: models.Page[models.PostView]
) -> schemas.PostList:
    """A page of posts."""
    return schemas.PostList(
        items=[post(res, item) for item in found.items], next_cursor=page.next_cursor(response, found.next)
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
