"""Fills a running instafeed with accounts, follows and posts, through its public API."""

import asyncio
import io
import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Self

import aiohttp
from PIL import Image, ImageDraw, ImageFilter
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

PASSWORD = "instafeed-demo"  # noqa: S105 - of accounts that anybody may try
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".heic", ".heif", ".avif", ".gif"}
SIZES = [(1080, 1350), (1080, 1080), (1620, 1080), (1600, 900), (1080, 1440), (900, 1600)]
PHOTOS_OF_A_POST = [1, 1, 3, 1, 2, 1, 1, 1, 2, 1]
GENERATED_PHOTOS = 56  # 40 posts

WAIT_SECONDS = 120.0
READY_SECONDS = 300.0
UPLOADS_AT_ONCE = 4

PEOPLE = {
    "maya.okafor": "Maya Okafor",
    "jonas_lindqvist": "Jonas Lindqvist",
    "sofia.marin": "Sofía Marín",
    "kenji.watanabe": "Kenji Watanabe",
    "amelie_rousseau": "Amélie Rousseau",
    "tariq.haddad": "Tariq Haddad",
    "nina.kowalska": "Nina Kowalska",
    "leo_ferreira": "Leo Ferreira",
    "priya.raman": "Priya Raman",
    "oscar.whitfield": "Oscar Whitfield",
    "ingrid_solheim": "Ingrid Solheim",
    "dani.castellano": "Dani Castellano",
}

CAPTIONS = [
    "Golden hour never gets old.",
    "Took the long way home.",
    "Sunday, and nowhere to be.",
    "Found this around the corner from my own front door.",
    "The light did all of the work today.",
    "Up before everybody else. Worth it.",
    "One more for the wall.",
    "If you know, you know.",
    "First warm evening of the year!",
    "I could look at these colours for hours.",
    "Five minutes later it rained.",
    "Not a filter.",
    "Somewhere between here and there.",
    "Quiet, for once.",
    "We stayed until it was dark.",
    "Testing the old lens again. Still love it.",
    "Postcard from last weekend.",
    "The view from lunch.",
    "Blue, mostly.",
    "Can we go back, please?",
]


class DemoError(Exception):
    """Why the demo cannot be filled in, as a sentence."""


@dataclass(frozen=True)
class Login:
    """An account to try."""

    username: str
    password: str


@dataclass(frozen=True)
class _Account:
    id: str
    username: str
    token: str


@dataclass(frozen=True)
class _Draft:
    account: _Account
    caption: str
    media: list[dict[str, str]]


@dataclass(frozen=True)
class _Photo:
    data: bytes
    alt_text: str


async def fill(base_url: str, *, photos: Path | None, report: Callable[[str], None]) -> Login:
    """Sign up the demo's accounts, let them follow each other, and post; what is there already stays as it is.

    Args:
        base_url: Of a running API with a worker.
        photos: Folder of photos to post. Default: generated ones.
        report: Called with a line for the person who waits.

    Returns:
        An account with a full feed.

    Raises:
        DemoError: the API refuses something or does not answer, or the folder has no photo.
    """
    files = None if photos is None else await asyncio.to_thread(_image_files, photos)
    async with _Api(base_url) as api:
        accounts = [await api.enter(username, name) for username, name in PEOPLE.items()]
        for account, other in _follows(accounts):
            await api.call("PUT", f"/v1/accounts/{other.id}/follow", account, json={})
        if any([await api.has_posts(account) for account in accounts]):
            report("The demo's accounts have posts already; nothing is added.")
        else:
            for post in await _upload(api, accounts, files, report):
                await api.publish(post)
    first = next(iter(PEOPLE))
    return Login(username=first, password=PASSWORD)


def invitation(base_url: str, login: Login) -> str:
    """What to do with the log-in."""
    body = f'{{"username": "{login.username}", "password": "{login.password}"}}'
    return (
        f"The demo is filled in. Log in as {login.username} with the password {login.password}, or paste this to see the\n"
        f"home feed:\n\n"
        f"TOKEN=$(curl -s {base_url}/v1/sessions -H 'Content-Type: application/json' -d '{body}' |"
        f' sed -E \'s/.*"token": ?"([^"]+)".*/\\1/\'); curl -s {base_url}/v1/feed -H "Authorization: Bearer $TOKEN"\n'
    )


class _Api:
    """The public API, as a client that waits when it is told to."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            self._base_url, timeout=aiohttp.ClientTimeout(total=60), headers={"User-Agent": "instafeed-demo"}
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def call(self, method: str, path: str, account: _Account | None = None, **body: Any) -> Any:
        """Send a request; its answer's JSON.

        Raises:
            DemoError: it was refused, or the API does not answer.
        """
        status, answer = await self._send(method, path, account, **body)
        if status >= 400:
            raise DemoError(f"{method} {path} was answered with {status}: {answer.get('detail', '')}")
        return answer

    async def enter(self, username: str, display_name: str) -> _Account:
        """Log the account in; sign it up if it is not there."""
        name = {"username": username, "password": PASSWORD, "device_name": "Demo"}
        status, answer = await self._send("POST", "/v1/sessions", json=name)
        if status == 401:
            answer = await self.call("POST", "/v1/accounts", json={**name, "display_name": display_name})
        elif status >= 400:
            raise DemoError(f"{username} cannot log in: {answer.get('detail', status)}")
        return _Account(id=answer["account"]["id"], username=username, token=answer["token"])

    async def has_posts(self, account: _Account) -> bool:
        """Whether the account has posted, as far as it sees itself."""
        answer = await self.call("GET", f"/v1/accounts/{account.id}/posts?limit=1", account)
        return bool(answer["items"])

    async def upload(self, account: _Account, photo: _Photo) -> str | None:
        """Upload a photo; its id, or None if it is not one that is taken."""
        status, answer = await self._send("POST", "/v1/media", account, data=photo.data)
        if status in {400, 413, 415, 422}:
            return None
        if status >= 400:
            raise DemoError(f"A photo was not taken ({status}): {answer.get('detail', '')}")
        return str(answer["id"])

    async def publish(self, post: _Draft) -> None:
        """Post."""
        await self.call("POST", "/v1/posts", post.account, json={"caption": post.caption, "media": post.media})

    async def until_processed(self, account: _Account, media_id: str) -> bool:
        """Wait until the photo's renditions are made; False if they cannot be made."""
        for _ in range(int(READY_SECONDS / 0.25)):
            status = (await self.call("GET", f"/v1/media/{media_id}", account))["status"]
            if status != "processing":
                return bool(status == "ready")
            await asyncio.sleep(0.25)
        raise DemoError(f"A photo was not ready after {READY_SECONDS:.0f} seconds. Does a worker run?")

    async def _send(self, method: str, path: str, account: _Account | None = None, **body: Any) -> tuple[int, Any]:
        headers = {} if account is None else {"Authorization": f"Bearer {account.token}"}
        if "data" in body:
            headers["Content-Type"] = "application/octet-stream"
        waited = 0.0
        while True:
            try:
                async with self._session.request(method, path, headers=headers, **body) as response:
                    answer = await response.json(content_type=None)
                    if response.status not in {429, 503}:
                        return response.status, answer
                    wait = _retry_after(response.headers)
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                raise DemoError(f"The API does not answer as it should: {type(error).__name__} {error}") from error
            waited += wait
            if waited > WAIT_SECONDS:
                raise DemoError(
                    f"{method} {path} was answered with {response.status}; it asks to wait for {wait:.0f} more seconds. "
                    f"Try again later."
                )
            await asyncio.sleep(wait)


def _retry_after(headers: Mapping[str, str]) -> float:
    text = headers.get("Retry-After", "1")
    return max(float(text), 0.1) if text.isascii() and text.isdigit() else 1.0


def _follows(accounts: list[_Account]) -> Iterator[tuple[_Account, _Account]]:
    """Who follows whom: the first, whose feed is looked at, all; everybody else some."""
    chance = random.Random(7)  # noqa: S311 - the same every time
    for account in accounts:
        others = [other for other in accounts if other is not account]
        chosen = others if account is accounts[0] else chance.sample(others, k=chance.randint(3, 8))
        for other in chosen:
            yield account, other


async def _upload(
    api: _Api, accounts: list[_Account], files: list[Path] | None, report: Callable[[str], None]
) -> list[_Draft]:
    """Upload the photos and wait until they are ready; the posts to make of them."""
    sources: list[Path | int] = list(files) if files is not None else list(range(GENERATED_PHOTOS))
    slots = asyncio.Semaphore(UPLOADS_AT_ONCE)
    with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), transient=False) as progress:
        sent = progress.add_task("Uploading photos", total=len(sources))

        async def upload(account: _Account, source: Path | int) -> dict[str, str] | None:
            async with slots:
                photo = await asyncio.to_thread(_load, source)
                media_id = await api.upload(account, photo)
                ready = media_id is not None and await api.until_processed(account, media_id)
            progress.advance(sent)
            if media_id is None or not ready:
                report(f"{source} is not a photo that can be taken; it is left out.")
                return None
            return {"id": media_id, "alt_text": photo.alt_text}

        async def draft(account: _Account, caption: str, group: list[Path | int]) -> _Draft:
            uploaded = await asyncio.gather(*(upload(account, source) for source in group))
            return _Draft(account, caption, [media for media in uploaded if media is not None])

        groups = list(_groups(sources))
        authors = random.Random(11).choices(accounts, k=len(groups))  # noqa: S311 - the same every time
        authors[: len(accounts)] = accounts[: len(authors)]  # each posts, and in no order
        random.Random(13).shuffle(authors)  # noqa: S311
        drafts = await asyncio.gather(
            *(draft(author, caption, group) for author, caption, group in zip(authors, cycle(CAPTIONS), groups))
        )
    return [one for one in drafts if one.media]


def _groups(sources: list[Path | int]) -> Iterator[list[Path | int]]:
    """The photos of each post."""
    rest = iter(sources)
    for size in cycle(PHOTOS_OF_A_POST):
        group = list(islice(rest, size))
        if not group:
            return
        yield group


def _image_files(folder: Path) -> list[Path]:
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    if not files:
        raise DemoError(f"There is no photo in {folder}; the files' names end with {', '.join(sorted(SUFFIXES))}.")
    return files


def _load(source: Path | int) -> _Photo:
    if isinstance(source, int):
        return _picture(source)
    try:
        return _Photo(source.read_bytes(), alt_text="")
    except OSError as error:
        raise DemoError(f"{source} cannot be read: {error.strerror}.") from error


# Each from the sky's top down to the nearest hill.
_PALETTES = {
    "at dawn": ["#2b3a67", "#f2a07b", "#f7d9a3", "#8a5a83", "#4d3b6b", "#241f3d"],
    "at noon": ["#3d8bd4", "#a9d6f5", "#fdf6d8", "#7fb069", "#4a8c5f", "#23583f"],
    "at dusk": ["#141e46", "#bb2f5b", "#ff8e4f", "#5a2a5c", "#371b47", "#180f2b"],
    "in the fog": ["#c3cfd9", "#e6e9ea", "#ffffff", "#9fb2bd", "#6d8795", "#3d5462"],
    "in autumn": ["#6fa3b5", "#f4d9a8", "#fff1c9", "#d98e3f", "#a8502f", "#57291f"],
    "at night": ["#050b1f", "#1b2f5c", "#e8ecff", "#16264a", "#0e1934", "#060c1c"],
}


def _picture(number: int) -> _Photo:
    """A landscape of hills below a sky, or out-of-focus lights; the same for the same number."""
    chance = random.Random(number)  # noqa: S311
    size = SIZES[number % len(SIZES)]
    time, palette = chance.choice(list(_PALETTES.items()))
    image = _sky(size, palette)
    if number % 4 == 3:
        _lights(image, palette, chance)
        alt_text = f"Blurred round lights {time}"
    else:
        _sun(image, palette, chance)
        _hills(image, palette, chance)
        alt_text = f"Hills below a wide sky {time}"
    # A little grain keeps the gradients from showing steps.
    grain = Image.effect_noise(size, 10).convert("RGB")
    image = Image.blend(image, grain, 0.04)
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=88)
    return _Photo(encoded.getvalue(), alt_text)


def _sky(size: tuple[int, int], palette: list[str]) -> Image.Image:
    colors = Image.new("RGB", (1, 3))
    for row, color in enumerate([palette[0], palette[1], palette[2]]):
        colors.paste(color, (0, row, 1, row + 1))
    return colors.resize(size, Image.Resampling.BICUBIC)


def _sun(image: Image.Image, palette: list[str], chance: random.Random) -> None:
    width, height = image.size
    radius = min(image.size) * chance.uniform(0.05, 0.11)
    x, y = width * chance.uniform(0.2, 0.8), height * chance.uniform(0.25, 0.55)
    for reach, blur, strength in ((2.6, 1.0, 90), (1.0, 0.03, 255)):
        mask = Image.new("L", image.size)
        edge = radius * reach
        ImageDraw.Draw(mask).ellipse((x - edge, y - edge, x + edge, y + edge), fill=strength)
        image.paste(palette[2], mask=mask.filter(ImageFilter.BoxBlur(radius * blur)))


def _hills(image: Image.Image, palette: list[str], chance: random.Random) -> None:
    width, height = image.size
    for layer, color in enumerate(palette[3:]):
        base = height * (0.58 + 0.13 * layer)
        waves = [
            (chance.uniform(0.02, 0.08) * height / (n + 1), chance.uniform(1, 2.5) * (n + 1), chance.uniform(0, 7))
            for n in range(4)
        ]
        ridge = [
            (x, base + sum(rise * math.sin(x / width * often * 2 + shift) for rise, often, shift in waves))
            for x in range(0, width + 8, 8)
        ]
        ImageDraw.Draw(image).polygon([(0, height), *ridge, (width, height)], fill=color)


def _lights(image: Image.Image, palette: list[str], chance: random.Random) -> None:
    width, height = image.size
    for blur, count in ((14, 18), (3, 14)):
        mask = Image.new("L", image.size)
        draw = ImageDraw.Draw(mask)
        for _ in range(count):
            radius = min(image.size) * chance.uniform(0.03, 0.12)
            x, y = width * chance.random(), height * chance.random()
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=chance.randint(40, 150))
        image.paste(chance.choice(palette[1:4]), mask=mask.filter(ImageFilter.BoxBlur(blur)))
