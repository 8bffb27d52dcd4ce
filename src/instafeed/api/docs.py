"""The documentation page. Its assets are served from here: it works offline."""

from fastapi import APIRouter

router = APIRouter(include_in_schema=False)
