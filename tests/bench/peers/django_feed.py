"""A home feed as one would first write it with Django: the posts of whom I follow, by a join, newest first.

The tables have the indexes that Django makes for foreign keys, and one for an account's posts in their order. What is sent
has the fields that ours has. `FEED_DATABASE` is a libpq URL; `tests.bench.django_join` installs and fills the tables.
"""

import os
from urllib.parse import urlsplit

import django
from django.conf import settings

_url = urlsplit(os.environ["FEED_DATABASE"])
settings.configure(
    DEBUG=False,
    SECRET_KEY="x",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["tests.bench.peers"],
    USE_TZ=True,
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": _url.path[1:],
            "USER": _url.username,
            "PASSWORD": _url.password,
            "HOST": _url.hostname,
            "PORT": _url.port,
            "CONN_MAX_AGE": None,
        }
    },
)
django.setup()

from django.core.wsgi import get_wsgi_application  # noqa: E402 - Django wants its settings first
from django.db import connection  # noqa: E402
from django.http import HttpRequest, JsonResponse  # noqa: E402
from django.urls import path  # noqa: E402

from tests.bench.peers.models import Account, Follow, Photo, Post, Token  # noqa: E402

PAGE = 30


def install() -> None:
    """Make the tables."""
    with connection.schema_editor() as editor:
        for model in (Account, Token, Follow, Post, Photo):
            editor.create_model(model)


def feed(request: HttpRequest) -> JsonResponse:
    """The first page."""
    token = Token.objects.get(key=request.headers["Authorization"].removeprefix("Bearer "))
    posts = (
        Post.objects.filter(author__followers__follower_id=token.account_id)
        .select_related("author")
        .prefetch_related("photos")
        .order_by("-id")[:PAGE]
    )
    items = [
        {
            "id": str(post.id),
            "author": {
                "id": str(post.author.id),
                "username": post.author.username,
                "display_name": post.author.display_name,
            },
            "caption": post.caption,
            "media": [
                {
                    "id": str(photo.id),
                    "status": "ready",
                    "failure": None,
                    "width": photo.width,
                    "height": photo.height,
                    "blurhash": photo.blurhash,
                    "alt_text": "",
                    "renditions": photo.renditions,
                }
                for photo in post.photos.all()
            ],
            "created_at": post.published_at.isoformat(),
            "published_at": post.published_at.isoformat(),
            "edited_at": None,
        }
        for post in posts
    ]
    response = JsonResponse({"items": items, "next_cursor": items[-1]["id"]})
    response["Content-Length"] = str(len(response.content))
    return response


urlpatterns = [path("v1/feed", feed)]
application = get_wsgi_application()
