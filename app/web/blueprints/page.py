"""The web client as Vite built it, or a page that says how to build it."""

from __future__ import annotations

import mimetypes
import os
from pathlib import Path

from flask import Blueprint, Response, make_response, render_template, request, send_from_directory
from werkzeug.routing import BaseConverter
from werkzeug.security import safe_join

from app.web.monitoring.status_file import describe_phase
from app.web.services import services

bp = Blueprint("page", __name__)


class FileName(BaseConverter):
    """A name with an extension. If it matched any name, every other top-level route would allow GET."""

    regex = r"[^/]+\.[^/.]+"


bp.record_once(lambda state: state.app.url_map.converters.update(file=FileName))

DIST = Path(__file__).resolve().parent.parent / "static" / "dist"
_YEAR_SECONDS = 365 * 24 * 3600


@bp.get("/")
def index() -> Response:
    """The client's index.html. Browsers must revalidate it: it names the hashed files of the current build."""
    if (DIST / "index.html").is_file():
        return _file("index.html")
    status = services().status.read()
    page = make_response(render_template("unbuilt.html", status=status, message=describe_phase(status)))
    page.headers["Cache-Control"] = "no-store"
    return page


@bp.get("/assets/<path:name>")
def asset(name: str) -> Response:
    """A file whose name contains its hash, so it never changes. The build compressed the larger ones."""
    response = _compressed(name) or send_from_directory(DIST / "assets", name)
    response.vary.add("Accept-Encoding")
    response.headers["Cache-Control"] = f"public, max-age={_YEAR_SECONDS}, immutable"
    return response


@bp.get("/<file:name>")
def top_level_file(name: str) -> Response:
    """A file beside index.html, such as an icon."""
    if name == "favicon.ico" and not (DIST / name).is_file():
        # Browsers request it by default, although the page names its own icon.
        return Response(status=204)
    return _file(name)


def _compressed(name: str) -> Response | None:
    path = safe_join(str(DIST / "assets"), f"{name}.gz")
    if path is None or not request.accept_encodings.quality("gzip") or not os.path.isfile(path):  # noqa: PTH113 - False for an invalid path
        return None
    kind = mimetypes.guess_type(name)[0]
    response = send_from_directory(DIST / "assets", f"{name}.gz", mimetype=kind)
    response.headers["Content-Encoding"] = "gzip"
    return response


def _file(name: str) -> Response:
    response = send_from_directory(DIST, name)
    response.headers["Cache-Control"] = "no-cache"
    return response
