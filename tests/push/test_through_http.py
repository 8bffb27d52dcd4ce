"""The whole way: an app registers, somebody does something, a worker pushes."""

import asyncio

from instafeed.settings import Settings
from tests.client import Client, http_client
from tests.conftest import running_api
from tests.push.browser import PushService, check_sender
from tests.workers import running_workers

KEY = "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"


async def test_an_app_that_registered_is_pushed_to(fresh_settings: Settings, service: PushService) -> None:
    values = {"web_push_key": KEY, "web_push_anywhere": "on"}
    settings = Settings.model_validate(fresh_settings.model_dump() | values)
    async with running_api(settings) as url, running_workers(settings), http_client(base_url=url) as http:
        ada, bob = [await Client.sign_up(http) for _ in range(2)]
        browser, old = service.browser(), service.browser()
        # Two at the same time, of whom one has it then.
        await asyncio.gather(
            *(client.call("PUT", "/v1/me/devices/it", json=old.subscription) for client in (ada, bob, ada, bob))
        )
        devices = [await client.call("GET", "/v1/me/devices") for client in (ada, bob)]
        assert sum(len(listed["items"]) for listed in devices) == 1
        await ada.call("PUT", "/v1/me/devices/browser", json=browser.subscription)
        await bob.edit(is_private=True)
        await ada.follow(bob)
        await bob.approve(ada)
        [message] = await browser.reads(1)
        assert message["text"] == f"@{bob.account['username']} accepted your request to follow"
        assert message["actor_id"] == bob.id
        public_key, _ = check_sender(browser.pushes[0].headers["Authorization"], service.origin)
        assert public_key == (await ada.call("GET", "/v1/limits"))["web_push_public_key"]
        await ada.call("PUT", "/v1/activity/read", 204, json={"id": message["activity_id"]})
        assert (await ada.call("GET", "/v1/activity/unread"))["count"] == 0
