"""Indexes of packages on this machine, for tests and benchmarks: a PEP 503 one for uv and a registry for npm, with packages made on the fly."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HOST = "127.0.0.2"
"""This machine, under an address that no program takes for itself and so asks the proxy for."""


class Index:
    """Both indexes, at one address. `asked` has every path that was asked for."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.versions: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.url = ""
        self.silent: set[str] = set()
        """Names about which nothing is ever answered."""
        self.waited: set[str] = set()
        """Where somebody waits for such an answer, or has."""
        self.ended = threading.Event()

    # --- Python

    def wheel(
        self, name: str, version: str, files: Mapping[str, str | bytes], requires: Sequence[str] = ()
    ) -> None:
        """Add a wheel with these files; RECORD lists them, whatever their paths."""
        stem = f"{name.replace('-', '_')}-{version}"
        info = f"{stem}.dist-info"
        content = {
            **files,
            f"{info}/METADATA": _metadata(name, version, requires),
            f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        record = "".join(f"{path},,\n" for path in (*content, f"{info}/RECORD"))
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for path, data in {**content, f"{info}/RECORD": record}.items():
                archive.writestr(path, data)
        self.files[f"/files/{stem}-py3-none-any.whl"] = packed.getvalue()

    def linked_wheel(self, name: str, version: str, links: Mapping[str, str]) -> None:
        """Add a wheel that has symbolic links."""
        self.wheel(name, version, {f"{name}/__init__.py": ""})
        path = f"/files/{name}-{version}-py3-none-any.whl"
        packed = io.BytesIO(self.files[path])
        with zipfile.ZipFile(packed, "a") as archive:
            for place, target in links.items():
                entry = zipfile.ZipInfo(place)
                entry.create_system, entry.external_attr = 3, 0o120777 << 16
                archive.writestr(entry, target)
        self.files[path] = packed.getvalue()

    def sdist(self, name: str, version: str, backend: str) -> None:
        """Add a source distribution whose build backend is this text; it needs nothing else to be built."""
        stem = f"{name}-{version}"
        self.files[f"/files/{stem}.tar.gz"] = _tar(
            {
                f"{stem}/pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
                f"{stem}/PKG-INFO": _metadata(name, version, ()),
                f"{stem}/backend.py": backend,
            }
        )

    # --- npm

    def package(self, name: str, version: str, files: Mapping[str, str], **manifest: Any) -> None:
        """Add a package of the registry."""
        described = {"name": name, "version": version, **manifest}
        packed = _tar(
            {
                "package/package.json": json.dumps(described),
                **{f"package/{path}": text for path, text in files.items()},
            }
        )
        path = f"/{name}/-/{name.rpartition('/')[2]}-{version}.tgz"
        self.files[path] = packed
        integrity = "sha512-" + base64.b64encode(hashlib.sha512(packed).digest()).decode()
        described["dist"] = {"tarball": self.url + path, "integrity": integrity}
        self.versions.setdefault(name, {})[version] = described

    # --- HTTP

    def answer(self, path: str) -> tuple[str, bytes] | None:
        """Return what is at a path: its media type and content."""
        path = path.replace("%2f", "/").replace("%2F", "/")
        self.asked.append(path)
        if path.startswith("/simple/"):
            name = path.split("/")[2]
            links = [
                f'<a href="{place}#sha256={hashlib.sha256(data).hexdigest()}">{place.rpartition("/")[2]}</a>'
                for place, data in self.files.items()
                if place.startswith("/files/") and _name_of(place) == name
            ]
            return ("text/html", "\n".join(["<!DOCTYPE html>", *links]).encode()) if links else None
        if path in self.files:
            return "application/octet-stream", self.files[path]
        if (versions := self.versions.get(path[1:])) is not None:
            newest = max(versions, key=lambda version: [int(part) for part in version.split(".")])
            packument = {"name": path[1:], "dist-tags": {"latest": newest}, "versions": versions}
            return "application/json", json.dumps(packument).encode()
        return None


def _name_of(place: str) -> str:
    stem = place.rpartition("/")[2].removesuffix(".tar.gz").removesuffix("-py3-none-any.whl")
    return stem.rpartition("-")[0].replace("_", "-").lower()


def _metadata(name: str, version: str, requires: Sequence[str]) -> str:
    lines = [
        "Metadata-Version: 2.2",
        f"Name: {name}",
        f"Version: {version}",
        *(f"Requires-Dist: {r}" for r in requires),
    ]
    return "\n".join(lines) + "\n"


def _tar(files: Mapping[str, str]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for path, text in files.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(text.encode()), 0o755
            archive.addfile(entry, io.BytesIO(text.encode()))
    return packed.getvalue()


@contextmanager
def package_index() -> Iterator[Index]:
    """Serve an empty index on a free port."""
    index = Index()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if any(name in self.path for name in index.silent):
                index.waited.add(self.path)
                index.ended.wait(60)
            found = index.answer(self.path)
            self.send_response(404 if found is None else 200)
            media_type, content = found or ("text/plain", b"there is no such thing")
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_HEAD = do_POST = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer((HOST, 0), Handler) as server:
        server.daemon_threads = True
        index.url = f"http://{HOST}:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, name="package-index")
        thread.start()
        try:
            yield index
        finally:
            index.ended.set()
            server.shutdown()
            thread.join()
