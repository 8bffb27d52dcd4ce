"""The devices that pushes go to."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from instafeed import devices
from instafeed.api import present, schemas
from instafeed.api.dependencies import Page, Reader, Res, Writer
from instafeed.api.strict_json import JsonRoute
from instafeed.models import Platform

router = APIRouter(tags=["activity"], route_class=JsonRoute)

DeviceName = Annotated[
    str,
    Path(
        pattern="^[A-Za-z0-9._-]{1,64}$",
        description="What you call the device: the same one each time, as an id of the installation.",
        examples=["3f2c9d1e-phone"],
    ),
]


@router.put("/v1/me/devices/{device_id}", summary="Push to a device")
async def put_device(
    body: schemas.DeviceRegistration, res: Res, viewer: Writer, device_id: DeviceName
) -> schemas.Device:
    """Have your notifications pushed to this device, until the session that you register it with ends.

    Register at each start of the app, and when the platform gives it another token. A token or endpoint that another account
    registered is yours from now on. Of more than 20 devices those stay that registered last.
    """
    device = await devices.register(
        res,
        viewer,
        device_id,
        Platform(body.platform),
        token=body.token,
        endpoint=body.endpoint,
        p256dh=body.p256dh,
        auth=body.auth,
    )
    return present.device(device, viewer)


@router.delete("/v1/me/devices/{device_id}", status_code=204, summary="Push to a device no more")
async def delete_device(res: Res, viewer: Writer, device_id: DeviceName) -> None:
    """Have nothing pushed to this device any more."""
    await devices.remove(res, viewer, device_id)


@router.get("/v1/me/devices", summary="Where I am pushed to")
async def list_devices(
    request: Request, response: Response, res: Res, viewer: Reader, page: Page
) -> schemas.DeviceList:
    """The devices that your notifications are pushed to, the one that registered last first."""
    found = await devices.page(res, viewer, below=page.below, limit=page.limit)
    return schemas.DeviceList(
        items=[present.device(device, viewer) for device in found.items],
        next_cursor=page.next_cursor(response, found.next),
    )
