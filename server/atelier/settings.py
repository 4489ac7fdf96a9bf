"""Every setting: one frozen class, built once in `main` from flags and ATELIER_* variables, and passed down."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from atelier.limits import Limits


@dataclass(frozen=True, slots=True)
class Settings:
    """Where things are and who may come in. Each field is the variable ATELIER_<NAME>."""

    host: str = "127.0.0.1"
    """Address to listen on. Anything but loopback is a public bind."""
    port: int = 8080
    """TCP port; 0 takes a free one."""
    data: Path = Path(".data")
    """Folder of the embedded adapters: databases, blobs, the secret key. Created with mode 0700."""
    public_url: str = ""
    """The address that people type, without a trailing slash; empty: http://host:port."""
    db_url: str = ""
    """sqlite:///PATH or postgresql://…; empty: sqlite in the data folder."""
    log_url: str = ""
    """Document log: sqlite:///PATH or postgresql://… for one server process; redis://… for several, which keeps documents
    in `?archive=postgresql://…`, or else in `db_url`. Empty: sqlite in the data folder."""
    bus_url: str = "memory://"
    """Signals between parts: memory:// within one process, redis://… between several."""
    sandbox_url: str = "embedded://"
    """Where programs run: embedded:// (this machine, under bubblewrap), http(s)://host:port (a runner service), or
    redis://… (all that register there)."""
    runner_secret: str = field(default="", repr=False)
    """What the runner service asks for; the same for both sides."""
    environments: Path = Path()
    """Where embedded:// keeps the packages that runs have had installed; empty: in the data folder, or where programs run as
    users that cannot get to that, beneath /var/cache/atelier."""
    python_index: str = ""
    """Where embedded:// has Python packages from: a PEP 503 index, and after commas further HOST:PORT that its files come
    from. Empty: what uv takes by itself."""
    npm_registry: str = ""
    """The same for npm."""
    blobs_url: str = ""
    """Binary files: file:///FOLDER; empty: a folder in the data folder."""
    mail_url: str = "log://"
    """Outgoing mail: smtp://USER:PASSWORD@HOST:PORT (smtps:// for TLS from the start), or log:// (written to the log)."""
    mail_from: str = "Atelier <atelier@localhost>"
    """Sender of outgoing mail."""
    import_hosts: str = ""
    """Comma-separated hosts (host or host:port) that files may be imported from, wherever they are; empty: any host with
    a public address, on port 443."""
    egress: bool = False
    """on: the owner of a session may let its programs reach public addresses of the internet, through the runner's proxy."""
    secret_key: str = field(default="", repr=False)
    """Signs access tokens; at least 32 characters. Empty: made once and kept in the data folder (mode 0600)."""
    sign_up: bool = True
    """Whether strangers may make an account; an admin can change it later in the admin page."""
    history_days: int = 0
    """How long it is kept who wrote what, and what was deleted; older edits become one of nobody's. 0: for ever."""
    trusted_proxies: str = "127.0.0.1"
    """Comma-separated addresses whose X-Forwarded-For and X-Forwarded-Proto are believed."""
    log_format: str = "text"
    """text or json."""
    limits: Limits = field(default_factory=Limits)
    """Bounds on everything that comes from outside: ATELIER_LIMIT_<NAME>."""

    def with_defaults(self) -> Settings:
        """Fill in what depends on other fields."""
        data = self.data.absolute()
        host = f"[{self.host}]" if ":" in self.host else self.host
        db_url = self.db_url or f"sqlite:///{data / 'atelier.db'}"
        log_url = self.log_url or f"sqlite:///{data / 'log.db'}"
        if log_url.startswith("redis") and "archive=" not in log_url and db_url.startswith("postgres"):
            log_url += f"{'&' if '?' in log_url else '?'}archive={quote(db_url, safe='')}"
        return dataclasses.replace(
            self,
            data=data,
            public_url=(self.public_url or f"http://{host}:{self.port}").rstrip("/"),
            db_url=db_url,
            log_url=log_url,
            environments=data / "environments"
            if self.environments == Path()
            else self.environments.absolute(),
            blobs_url=self.blobs_url or f"file://{data / 'blobs'}",
        )


def from_environment(environ: Mapping[str, str] = os.environ, **flags: Any) -> Settings:
    """Build the settings: flags first, then ATELIER_* variables, then the defaults.

    Raises:
        ValueError: a variable is unknown or has the wrong type; the text names it.
    """
    values: dict[str, Any] = {}
    limits: dict[str, int] = {}
    fields = {f.name: f for f in dataclasses.fields(Settings)}
    limit_names = {f.name for f in dataclasses.fields(Limits)}
    for name, text in environ.items():
        if not name.startswith("ATELIER_"):
            continue
        key = name.removeprefix("ATELIER_").lower()
        if key.startswith("limit_") and key.removeprefix("limit_") in limit_names:
            limits[key.removeprefix("limit_")] = _integer(name, text)
        elif key in fields and key != "limits":
            values[key] = _parse(name, text, fields[key].type)
        else:
            raise ValueError(f"{name} is not a setting of Atelier")
    values.update({k: v for k, v in flags.items() if v is not None})
    return Settings(**values, limits=Limits(**limits)).with_defaults()


def _parse(name: str, text: str, kind: Any) -> Any:
    if kind == "int":
        return _integer(name, text)
    if kind == "bool":
        if text.lower() not in ("1", "0", "true", "false", "yes", "no", "on", "off"):
            raise ValueError(f"{name} must be true or false, not {text!r}")
        return text.lower() in ("1", "true", "yes", "on")
    return Path(text) if kind == "Path" else text


def _integer(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{name} must be a whole number, not {text!r}") from None
