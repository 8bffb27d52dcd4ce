"""Pushes to devices: the ways that there are."""

from email.utils import parseaddr

from instafeed.models import Device, Platform, Push
from instafeed.settings import Settings
from instafeed.storage.push.mobile import MobilePush
from instafeed.storage.push.verdicts import OFF, Outcome, Verdict
from instafeed.storage.push.web import WebPush

__all__ = ["Outcome", "PushServices", "Verdict"]


class PushServices:
    """Every way to devices that the settings open."""

    def __init__(self, settings: Settings) -> None:
        self.web: WebPush | None = None
        if settings.web_push_key is not None:
            self.web = WebPush(
                settings.web_push_key.get_secret_value(),
                contact=parseaddr(settings.mail_from)[1],
                anywhere=settings.web_push_anywhere == "on",
            )
        self.mobile = MobilePush(settings)

    async def open(self) -> None:
        """Make the clients."""
        if self.web is not None:
            await self.web.open()
        await self.mobile.open()

    async def close(self) -> None:
        """Close the clients."""
        if self.web is not None:
            await self.web.close()
        await self.mobile.close()

    def serve(self, platform: Platform) -> bool:
        """Whether there is a way to this platform."""
        return self.web is not None if platform is Platform.WEB else self.mobile.serves(platform)

    async def send(self, device: Device, push: Push) -> Verdict:
        """Push to a device; one of SNS's has its `endpoint_arn`."""
        if not self.serve(device.platform):
            return OFF
        if device.platform is Platform.WEB:
            assert self.web is not None
            return await self.web.send(device, push)
        assert device.endpoint_arn is not None
        return await self.mobile.send(device, device.endpoint_arn, push)
