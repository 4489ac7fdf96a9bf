"""Builds the command line that starts the agent under bubblewrap: what the sandbox can see, and as whom it runs.

Inside: read-only /usr (with /bin, /lib as this machine has them) and a few files of /etc, a fresh /proc and minimal
/dev, /work and /tmp as tmpfs of a fixed size, nothing else; every namespace of its own; no network but its own
loopback; user 1000, which outside is a user that owns nothing.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from atelier_runner.agent import FOLDER, LIBRARY
from atelier_runner.languages import SYSTEM_PATH, Tool
from atelier_runner.model import MIB

INSTALL_HINT = "Install bubblewrap: apt-get install bubblewrap"
UID = 1000
WORK = "/work"
ENVIRONMENTS = "/environments"
"""Installed packages, read-only; a folder that can be passed through, not listed."""
FIGURES = ".atelier/figures"
"""Beneath the working folder: where a program's figures are put when it shows them."""
HOST_NAME = "atelier"
SHM_BYTES = 16 * MIB

ENVIRONMENT = {
    "ATELIER_FIGURES": f"{WORK}/{FIGURES}",
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "LOGNAME": "atelier",
    "MPLBACKEND": "module://atelier_matplotlib",
    "PATH": "/opt/node/bin:" + SYSTEM_PATH,
    "PYTHONPATH": LIBRARY,
    "PYTHONUNBUFFERED": "1",
    "SHELL": "/bin/bash",
    "TMPDIR": "/tmp",
    "USER": "atelier",
}

# What a program finds besides when its streams are a terminal.
TERMINAL = {"TERM": "xterm-256color", "COLORTERM": "truecolor"}

# What an interactive shell starts with.
SHELL = """\
PS1='\\[\\e[1;34m\\]\\w\\[\\e[0m\\] \\$ '
alias ls='ls --color=auto' ll='ls -l' grep='grep --color=auto'
HISTFILE=
"""
# Files that programs expect in /etc, with what a sandbox may know.
ETC = {
    "/etc/passwd": f"root:x:0:0:root:/root:/bin/sh\natelier:x:{UID}:{UID}:Atelier:/tmp:/bin/bash\n",
    "/etc/group": f"root:x:0:\natelier:x:{UID}:\n",
    "/etc/hosts": f"127.0.0.1 localhost {HOST_NAME}\n::1 localhost\n",
    "/etc/bash.bashrc": SHELL,
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}
# Public parts of this machine's /etc that its programs need to start, as they were when the server started.
ETC_SHOWN = (
    "/etc/ld.so.cache", "/etc/localtime", "/etc/mime.types", "/etc/java-*", "/etc/R", "/etc/php",
    "/etc/matplotlibrc", "/etc/fonts", "/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/ca-certificates", "/etc/pki/tls/certs",
    "/etc/pki/ca-trust/extracted",
)  # fmt: skip


# Hundreds of links: a mount for each sandbox costs less than a copy.
ETC_BOUND = "/etc/alternatives"
RELEASE = "/.released"
"""An empty file inside: where bubblewrap waits, everything else laid out, until it is let go."""


@dataclass(frozen=True, slots=True)
class Handles:
    """Descriptors that bubblewrap inherits: where it says its child's pid, and what it reads to the end."""

    info: int
    release: int
    seccomp: int | None

    def all(self) -> list[int]:
        """Return every descriptor, for `pass_fds`."""
        return [self.info, self.release, *([] if self.seccomp is None else [self.seccomp])]


@dataclass(frozen=True, slots=True)
class Shown:
    """Folders of this machine that every sandbox shows, and what is started in it; see `staging`."""

    atelier: str
    etc: str
    agent: str
    """Inside: the agent, compiled if that went well."""


def find() -> str | None:
    """Return the path of bubblewrap, or None."""
    return shutil.which("bwrap", path=SYSTEM_PATH + ":" + os.environ.get("PATH", ""))


def command(
    bwrap: str,
    python: str,
    tools: Iterable[Tool],
    shown: Shown,
    *,
    disk_mb: int,
    handles: Handles,
    environments: str,
) -> list[str]:
    """Return the command line of one sandbox; `environments` is the folder of installed packages here, or empty.

    Mounts cost: what can lie in one folder does.
    """
    size = str(disk_mb * MIB)
    line = [
        bwrap,
        "--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try",
        "--uid", str(UID), "--gid", str(UID), "--hostname", HOST_NAME,
        "--die-with-parent", "--new-session", "--as-pid-1",
        "--info-fd", str(handles.info),
        *_system_folders(),
        "--ro-bind", shown.etc, "/etc", "--ro-bind-try", ETC_BOUND, ETC_BOUND, "--ro-bind", shown.atelier, FOLDER,
        "--proc", "/proc", "--dev", "/dev", "--size", str(SHM_BYTES), "--tmpfs", "/dev/shm", "--remount-ro", "/dev",
    ]  # fmt: skip
    for tool in tools:
        if tool.bind is not None:
            line += ["--ro-bind", *tool.bind]
    if environments:  # bubblewrap binds everything nosuid and nodev
        line += ["--ro-bind", environments, ENVIRONMENTS]
    for path in (WORK, "/tmp"):
        line += ["--perms", "0755" if path == WORK else "1777", "--size", size, "--tmpfs", path]
    line += ["--perms", "0444", "--file", str(handles.release), RELEASE]
    line += ["--remount-ro", "/", "--chdir", WORK, "--clearenv"]
    for name, value in ENVIRONMENT.items():
        line += ["--setenv", name, value]
    if handles.seccomp is not None:
        line += ["--seccomp", str(handles.seccomp)]
    return [*line, "--", python, shown.agent]


def _system_folders() -> Iterator[str]:
    """Yield the options that show /usr, and /bin, /lib and so on as they are here: links into it, or folders."""
    yield from ("--ro-bind", "/usr", "/usr")
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        path = Path("/", name)
        if path.is_symlink():
            yield from ("--symlink", os.readlink(path), str(path))
        elif path.is_dir():
            yield from ("--ro-bind", str(path), str(path))


def reachable(path: str) -> bool:
    """Say whether a user who owns nothing can read and run `path`: every folder above lets others through."""
    real = Path(path).resolve()
    wanted = stat.S_IROTH | stat.S_IXOTH
    return real.stat().st_mode & wanted == wanted and all(
        p.stat().st_mode & stat.S_IXOTH for p in real.parents
    )


def stage(tools: Mapping[str, Tool], folder: Path) -> dict[str, Tool]:
    """Return the tools, those that the sandbox's user cannot reach replaced by a link or copy in `folder` (mode 0755).

    A tool that is a whole prefix of folders is left out instead: copying an interpreter's installation is too much.
    """
    staged: dict[str, Tool] = {}
    for name, tool in tools.items():
        if tool.bind is None or reachable(tool.bind[0]):
            staged[name] = tool
        elif os.path.isfile(tool.bind[0]):
            copy = folder / name
            try:
                os.link(tool.bind[0], copy)
            except OSError:
                shutil.copyfile(tool.bind[0], copy)
                copy.chmod(0o755)
            staged[name] = Tool(tool.here, tool.inside, (str(copy), tool.inside))
    return staged
