"""The entry: `atelier serve`, `atelier work`, `atelier doctor`, `atelier documents`, `atelier openapi`."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import gc
import json
import logging
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from atelier import __version__, keeping, worker
from atelier.app import create_app
from atelier.doctor import examine
from atelier.hub import LineProtocol
from atelier.logs import configure_logs
from atelier.settings import Settings, from_environment


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="atelier", description="A workshop in the browser.")
    parser.add_argument("--version", action="version", version=f"atelier {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    serve_parser = commands.add_parser("serve", help="start the server")
    serve_parser.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    serve_parser.add_argument("--port", type=int, help="port to listen on; 0 takes a free one (default 8080)")
    doctor_parser = commands.add_parser("doctor", help="say what works here and what is missing")
    doctor_parser.add_argument("--json", action="store_true", help="print it as JSON")
    commands.add_parser("work", help="compact documents beside servers that have the log in Redis")
    for sub in (serve_parser, doctor_parser):
        sub.add_argument("--data", type=Path, help="folder of databases and files (default .data)")
    keeping.add_commands(commands.add_parser("documents", help="look after what the document log keeps"))
    commands.add_parser("openapi", help="print the API's description")
    options = parser.parse_args(arguments)
    flags: dict[str, Any] = {name: getattr(options, name, None) for name in ("host", "port", "data")}
    try:
        settings = from_environment(**flags)
    except ValueError as error:
        print(f"atelier: {error}", file=sys.stderr)
        return 2
    match options.command:
        case "serve":
            return serve(settings)
        case "work":
            return worker.run(settings)
        case "doctor":
            return asyncio.run(examine(settings, as_json=options.json))
        case "documents":
            return keeping.run(settings, options)
        case _:
            print(json.dumps(create_app(settings).openapi(), indent=1, sort_keys=True))
            return 0


def serve(settings: Settings) -> int:
    """Listen until told to stop; prints the address once it answers."""
    configure_logs(settings.log_format)
    # The thread that syncs the log must not wait 5 ms, the default, until a busy event loop lets it say so.
    sys.setswitchinterval(0.0005)
    try:
        listener = listen(settings.host, settings.port)
    except OSError as error:
        print(
            f"atelier: cannot listen on {settings.host}:{settings.port}: {error.strerror}. "
            "Choose another port with --port.",
            file=sys.stderr,
        )
        return 1
    port = listener.getsockname()[1]
    if settings.public_url.endswith(":0"):
        settings = dataclasses.replace(settings, port=port, public_url=f"{settings.public_url[:-2]}:{port}")
    app = create_app(settings)
    server = Server(
        app,
        uvicorn.Config(
            app,
            loop="uvloop",
            http="httptools",
            ws=LineProtocol,
            ws_max_size=settings.limits.frame_bytes,
            ws_ping_interval=20.0,
            ws_ping_timeout=20.0,
            ws_per_message_deflate=False,
            proxy_headers=True,
            forwarded_allow_ips=settings.trusted_proxies,
            server_header=False,
            access_log=False,
            log_config=None,
            timeout_graceful_shutdown=5,
        ),
        settings.public_url,
    )
    # What keeps it from starting is said in words below, not as a traceback.
    logging.getLogger("uvicorn.error").addFilter(lambda _: not hasattr(app.state, "failure"))
    try:
        server.run(sockets=[listener])
    except SystemExit:
        if not hasattr(app.state, "failure"):
            raise
        print(f"atelier: {app.state.failure}", file=sys.stderr)
        return 1
    return 0 if server.started else 1


class Server(uvicorn.Server):
    """uvicorn, which says its address when it is ready to answer."""

    def __init__(self, app: FastAPI, config: uvicorn.Config, address: str) -> None:
        super().__init__(config)
        self._app = app
        self._address = address

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take nobody new, let document sockets go one after the other, then end as uvicorn does."""
        for server in self.servers:
            server.close()
        rooms = getattr(self._app.state, "rooms", None)
        if rooms is not None and not self.force_exit:
            await rooms.drain()
        await super().shutdown(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            # What lives as long as the process need not be looked through again and again.
            gc.collect()
            gc.freeze()
            gc.set_threshold(20_000, 20, 20)
            print(f"Atelier is ready: {self._address}", flush=True)


def listen(host: str, port: int) -> socket.socket:
    """Bind before anything else starts, so that a taken port is said at once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.set_inheritable(False)
    return listener


def run() -> None:
    """Console-script entry."""
    sys.exit(main())


if __name__ == "__main__":
    run()
