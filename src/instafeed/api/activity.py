"""What others did that concerns one, and of what one wants to be told."""

from fastapi import APIRouter, Request, Response

from instafeed import activity, preferences
from instafeed.api import present, schemas
from instafeed.api.dependencies import Page, Reader, Res, Writer
from instafeed.api.strict_json import JsonRoute
from instafeed.models import ActivityKind, Audience, Channel

router = APIRouter(tags=["activity"], route_class=JsonRoute)


@router.get("/v1/activity", summary="What others did")
async def list_activity(
    request: Request, response: Response, res: Res, viewer: Reader, page: Page
) -> schemas.ActivityList:
    """What others did that concerns you, newest first: likes of a post are one entry, its comments another one, and so are
    the follows of a day. What was undone, and whom you may not see, mute, or do not want to hear of, is left out.
    """
    found = await activity.page(res, viewer, below=page.below, limit=page.limit)
    return present.activity(res, response, page, found)


@router.get("/v1/activity/unread", summary="How much there is to read")
async def get_unread_activity(res: Res, viewer: Reader) -> schemas.UnreadActivity:
    """How many entries of your activity have something new, up to 100."""
    return schemas.UnreadActivity(count=await activity.unread(res, viewer))


@router.put("/v1/activity/read", status_code=204, summary="Mark activity as read")
async def mark_activity_read(body: schemas.ReadMarker, res: Res, viewer: Writer) -> None:
    """Mark everything up to an entry as read, on all of your devices. What was read stays so."""
    await activity.mark_read(res, viewer, body.id)


@router.get("/v1/me/preferences", summary="Of what I am told")
async def get_preferences(res: Res, viewer: Reader) -> schemas.Preferences:
    """Of whose acts you are told, by kind and channel."""
    return present.preferences(await preferences.get(res, viewer))


@router.patch("/v1/me/preferences", summary="Change of what I am told")
async def update_preferences(body: schemas.PreferencesPatch, res: Res, viewer: Writer) -> schemas.Preferences:
    """Change some of it. What you do not want to hear of is left out of your activity at once, past acts too, and comes back
    if you do again.
    """
    changes = {
        ActivityKind(kind): {Channel(channel): Audience(audience) for channel, audience in of_kind.items()}
        for kind, of_kind in body.model_dump(exclude_unset=True).items()
    }
    return present.preferences(await preferences.update(res, viewer, changes))
