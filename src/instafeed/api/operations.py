"""For operators: limits, health, metrics."""

from typing import cast

from fastapi import APIRouter, Request, Response
from prometheus_client import REGISTRY
from prometheus_client.exposition import choose_encoder

from instafeed import entities, scheduled, tags
from instafeed.api import limits, schemas, strict_json, text
from instafeed.api.dependencies import MAX_LIMIT, Res
from instafeed.checks import Watch, check_all
from instafeed.imaging.process import formats
from instafeed.storage.blobs import PART_BYTES

router = APIRouter(tags=["operations"])

_OPENMETRICS = "application/openmetrics-text"
_XML = {
    "text/xml": {"schema": {"type": "string"}, "example": "<pingdom_http_custom_check></pingdom_http_custom_check>"}
}


@router.get("/v1/limits", summary="What is taken")
async def get_limits(res: Res) -> schemas.Limits:
    """The limits of uploads, texts, pages and rates."""
    settings = res.settings
    return schemas.Limits(
        upload_max_bytes=settings.upload_max_bytes,
        upload_max_pixels=settings.upload_max_pixels,
        upload_min_bytes_per_second=settings.upload_min_bytes_per_second,
        upload_grace_seconds=settings.upload_grace_seconds,
        upload_silence_seconds=settings.upload_silence_seconds,
        upload_part_bytes=PART_BYTES,
        upload_expiry_seconds=settings.upload_expiry_seconds,
        upload_max_open=settings.upload_max_open,
        media_unposted_seconds=settings.media_unposted_seconds,
        photo_types=[kind.content_type for kind in formats()],
        photos_per_post=schemas.PHOTOS_PER_POST,
        tags_per_post=entities.TAGS_PER_TEXT,
        tag_max_characters=entities.TAG_CHARACTERS,
        followed_tags_max=tags.FOLLOWED_MAX,
        mentions_per_post=entities.NAMES_PER_TEXT,
        caption_max_characters=text.CAPTION_MAX_CHARACTERS,
        alt_text_max_characters=text.ALT_TEXT_MAX_CHARACTERS,
        comment_max_characters=text.COMMENT_MAX_CHARACTERS,
        scheduled_posts_max=scheduled.MOST,
        schedule_max_days=scheduled.DAYS,
        body_max_bytes=strict_json.MAX_BYTES,
        page_max_items=MAX_LIMIT,
        web_push_public_key=res.pushes.web.public_key if res.pushes.web else None,
        rate_limits=[
            schemas.RateLimit(name=policy.name, quota=policy.quota, seconds=policy.seconds) for policy in limits.ALL
        ],
    )


# Uptime checkers ask by HEAD, too.
@router.head("/livez", include_in_schema=False)
@router.get("/livez", summary="Whether the process answers")
async def get_livez() -> schemas.Liveness:
    """For a supervisor: does not look at any other server."""
    return schemas.Liveness(alive=True)


@router.head("/readyz", include_in_schema=False)
@router.get(
    "/readyz",
    summary="Whether every part answers",
    responses={503: {"model": schemas.Readiness, "description": "A part does not answer."}},
)
async def get_readyz(response: Response, res: Res) -> schemas.Readiness:
    """For a load balancer: names each part and whether it answers."""
    parts = await check_all(res)
    ready = all(part.ready for part in parts)
    response.status_code = 200 if ready else 503
    return schemas.Readiness(
        ready=ready, parts=[schemas.ReadinessPart(name=part.name, ready=part.ready) for part in parts]
    )


@router.head("/status", include_in_schema=False)
@router.get(
    "/status",
    summary="Whether the product works",
    responses={503: {"model": schemas.Status, "description": "Something does not work."}},
)
async def get_status(request: Request, response: Response) -> schemas.Status:
    """For uptime checkers: whether database, Redis and photo store answer and work gets done. An answer is some seconds old at
    most; what is wrong it does not tell.
    """
    found = await cast("Watch", request.state.watch).read()
    response.status_code = 200 if found.works else 503
    return schemas.Status(status="ok" if found.works else "down", seconds=found.seconds)


@router.head("/status.xml", include_in_schema=False)
@router.get(
    "/status.xml",
    summary="Whether the product works, for Pingdom",
    response_class=Response,
    responses={200: {"content": _XML}, 503: {"content": _XML, "description": "Something does not work."}},
)
async def get_status_xml(request: Request) -> Response:
    """The same as `GET /status` in the form of Pingdom's custom HTTP check, which wants milliseconds above 0."""
    found = await cast("Watch", request.state.watch).read()
    status, milliseconds = "OK" if found.works else "DOWN", max(found.seconds * 1000, 0.001)
    body = (
        f"<pingdom_http_custom_check><status>{status}</status>"
        f"<response_time>{milliseconds:.3f}</response_time></pingdom_http_custom_check>\n"
    )
    return Response(body, 200 if found.works else 503, media_type="text/xml")


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={
        200: {
            "content": {
                "text/plain": {"schema": {"type": "string"}, "example": "process_start_time_seconds 1.79e+09\n"},
                "application/openmetrics-text": {
                    "schema": {"type": "string"},
                    "example": "process_start_time_seconds 1.79e+09\n# EOF\n",
                },
            }
        }
    },
)
async def get_metrics(request: Request) -> Response:
    """This process's metrics in Prometheus's text format, or in OpenMetrics, with exemplars, for whoever accepts that. Not for
    the public: nginx does not pass it on.
    """
    # The library fails at versions that are none. Its other forms write none of our names differently.
    accepts = _OPENMETRICS in request.headers.get("accept", "")
    encode, content_type = choose_encoder(f"{_OPENMETRICS};version=1.0.0" if accepts else "")
    return Response(encode(REGISTRY), media_type=content_type)
