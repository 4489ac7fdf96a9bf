"""The command line of a runner service: `serve` listens, `doctor` says what this machine enforces."""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import json
import logging
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from atelier_runner.backend import MOST_RUNS
from atelier_runner.environments import EnvironmentOptions
from atelier_runner.errors import SandboxUnavailable
from atelier_runner.opening import open_backend
from atelier_runner.service.app import create_app
from atelier_runner.service.membership import Membership
from atelier_runner.service.options import Options
from atelier_runner.service.runs import HostedRuns

MESSAGE_BYTES = 1024 * 1024
SECRET_CHARACTERS = 16
BACKLOG = 128


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    defaults = Options()
    parser = argparse.ArgumentParser(
        prog="atelier_runner", description="Runs programs in sandboxes, for others."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    serve_parser = commands.add_parser(
        "serve",
        help="listen for runs; the secret comes from ATELIER_RUNNER_SECRET, where packages come from out of ATELIER_PYTHON_INDEX "
        "and ATELIER_NPM_REGISTRY",
    )
    serve_parser.add_argument(
        "--listen",
        default=f"{defaults.host}:{defaults.port}",
        help="HOST:PORT; port 0 takes a free one (%(default)s)",
    )
    serve_parser.add_argument("--runs", type=int, default=defaults.runs, help="runs at once (%(default)s)")
    serve_parser.add_argument(
        "--pool", type=int, default=defaults.pool, help="sandboxes that wait, at least (%(default)s)"
    )
    serve_parser.add_argument(
        "--pool-most",
        type=int,
        default=defaults.pool_most,
        help="and at most, when many are asked for (%(default)s)",
    )
    serve_parser.add_argument(
        "--pool-memory",
        type=int,
        default=defaults.pool_memory_mb,
        metavar="MIB",
        help="memory that waiting sandboxes may hold together (%(default)s)",
    )
    serve_parser.add_argument(
        "--strict", action="store_true", help="start a new interpreter for every program"
    )
    serve_parser.add_argument("--join", default="", metavar="redis://…", help="register there and claim runs")
    serve_parser.add_argument(
        "--address", default="", help="how servers reach it then (http://HOST:PORT it listens on)"
    )
    kept = defaults.environments
    serve_parser.add_argument(
        "--environments",
        type=Path,
        default=None,
        metavar="FOLDER",
        help="keep installed packages here; for docker:// a folder that the engine finds too (one that goes with this process)",
    )
    serve_parser.add_argument(
        "--environments-mb", type=int, default=kept.all_mb, help="MiB of all that is kept (%(default)s)"
    )
    serve_parser.add_argument(
        "--environment-mb", type=int, default=kept.each_mb, help="MiB of one environment (%(default)s)"
    )
    serve_parser.add_argument(
        "--install-seconds",
        type=float,
        default=kept.seconds,
        help="how long installing may take (%(default)s)",
    )
    commands.add_parser("doctor", help="try every control and print what is found, as JSON")
    for sub in commands.choices.values():
        sub.add_argument(
            "--carrier",
            default=defaults.carrier,
            metavar="URL",
            help="embedded:// (bubblewrap on this machine), docker:///path/to/docker.sock or kubernetes://namespace?images=FILE (%(default)s)",
        )
        sub.add_argument("--untrusted", action="store_true", help="refuse to run while a control is absent")
    options = parser.parse_args(arguments)
    if options.command == "doctor":
        return asyncio.run(_doctor(options.carrier, untrusted=options.untrusted))
    host, _, port = options.listen.rpartition(":")
    try:
        chosen = replace(
            defaults, host=host.strip("[]"), port=int(port), secret=os.environ.get("ATELIER_RUNNER_SECRET", ""),
            untrusted=options.untrusted, pool=options.pool, runs=options.runs, join=options.join, address=options.address.rstrip("/"),
            carrier=options.carrier, strict=options.strict, pool_most=max(options.pool, options.pool_most),
            pool_memory_mb=options.pool_memory,
            environments=EnvironmentOptions(
                options.environments, os.environ.get("ATELIER_PYTHON_INDEX", ""), os.environ.get("ATELIER_NPM_REGISTRY", ""),
                options.environment_mb, options.environments_mb, options.install_seconds,
            ),
        )  # fmt: skip
        _refuse_unsafe(chosen)
        listener = listen(chosen)
    except (ValueError, OSError) as error:
        print(f"atelier_runner: {error}", file=sys.stderr)
        return 2
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    # A WebSocket that is refused with a problem detail is no mistake.
    logging.getLogger("uvicorn.error").addFilter(
        lambda record: "without completing handshake" not in record.getMessage()
    )
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        asyncio.run(_serve(chosen, listener))
    except (ValueError, SandboxUnavailable) as error:
        print(f"atelier_runner: {error}", file=sys.stderr)
        return 2
    return 0


def _refuse_unsafe(options: Options) -> None:
    """Raise ValueError for what would let strangers run programs here."""
    if options.secret and len(options.secret) < SECRET_CHARACTERS:
        raise ValueError(f"ATELIER_RUNNER_SECRET must have at least {SECRET_CHARACTERS} characters")
    if not options.secret and not _is_loopback(options.host):
        raise ValueError(
            f"{options.host or 'every address'} is not loopback: set ATELIER_RUNNER_SECRET, or whoever reaches it could run programs"
        )
    if options.join and not options.secret:
        raise ValueError("servers bring a secret to a runner that registers: set ATELIER_RUNNER_SECRET")
    if options.join and not options.address and not ipaddress.ip_address(options.host).is_loopback:
        raise ValueError(
            f"--address is needed: servers cannot tell from {options.host} how to reach this runner"
        )
    if not 1 <= options.runs <= MOST_RUNS or not 0 <= options.pool <= MOST_RUNS:
        raise ValueError(f"--runs is 1 to {MOST_RUNS}, --pool 0 to {MOST_RUNS}")
    if options.pool_most > MOST_RUNS or options.pool_memory_mb < 0:
        raise ValueError(f"--pool-most is at most {MOST_RUNS}, --pool-memory 0 or more")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listen(options: Options) -> socket.socket:
    """Bind before anything else starts, so that a taken port is said at once."""
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    # Named, so that asyncio sends small messages at once (TCP_NODELAY); without, an echo takes 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((options.host, options.port))
    listener.set_inheritable(False)
    return listener


async def _doctor(carrier: str, *, untrusted: bool) -> int:
    try:
        async with open_backend(carrier, untrusted=untrusted) as backend:
            found = await backend.capabilities()
    except (ValueError, SandboxUnavailable) as error:
        print(f"atelier_runner: {error}", file=sys.stderr)
        return 2
    print(json.dumps(asdict(found), indent=1))
    return 0 if found.available and all(control.state != "absent" for control in found.controls) else 1


async def _serve(options: Options, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    async with (
        open_backend(
            options.carrier,
            pool_size=options.pool,
            pool_most=options.pool_most,
            pool_memory_mb=options.pool_memory_mb,
            untrusted=options.untrusted,
            strict=options.strict,
            environments=options.environments,
        ) as backend,
        HostedRuns(backend, options) as runs,
        AsyncExitStack() as membership,
    ):
        if options.join:
            joining = Membership(options.join, options.address or address, runs, options)
            await membership.enter_async_context(joining)
        server = _Server(
            configured(create_app(runs, options), options),
            address,
            (membership.aclose, runs.stop),
        )
        await server.serve(sockets=[listener])


def configured(app: ASGIApp, options: Options) -> uvicorn.Config:
    """Return how uvicorn serves a runner: with a bound on everything."""
    return uvicorn.Config(
        app,
        http=type("HeadsInTime", (HeadsInTime,), {"seconds": options.head_seconds}),
        ws="websockets-sansio",
        ws_max_size=MESSAGE_BYTES,
        ws_ping_interval=5.0,
        ws_ping_timeout=10.0,
        ws_per_message_deflate=False,
        limit_concurrency=options.connections,
        backlog=BACKLOG,
        lifespan="off",
        server_header=False,
        access_log=False,
        log_config=None,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=5,
    )


class HeadsInTime(H11Protocol):
    """uvicorn's HTTP that bounds what a head may have, and here also how long it may take: a silent line is closed."""

    seconds = 10.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.loop.call_later(self.seconds, self._close_if_silent)

    def _close_if_silent(self) -> None:
        # A line that has become a WebSocket has another protocol by now, and is not ours to close.
        if self.scope is None and self.transport.get_protocol() is self:
            self.transport.close()


class _Server(uvicorn.Server):
    """uvicorn, which says its address when it is ready to answer, and ends what it has in hand before it goes."""

    def __init__(
        self, config: uvicorn.Config, address: str, ending: Sequence[Callable[[], Awaitable[None]]]
    ) -> None:
        super().__init__(config)
        self._address = address
        self._ending = ending

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do not raise the signal again at the end, as uvicorn does: the sandboxes are closed after it."""
        with super().capture_signals():
            try:
                yield
            finally:
                self._captured_signals.clear()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for end in self._ending:
            await end()
        await super().shutdown(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            print(f"The runner is ready: {self._address}", flush=True)
