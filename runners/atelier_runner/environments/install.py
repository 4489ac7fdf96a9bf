"""Runs inside a sandbox: lets uv or npm install what `plan.json` says, then writes the folder to standard output.

What the tools and the packages' own build scripts print goes to standard error. The host believes none of it: see
`archive.py` for the shape of what comes out. Standard library only, Python 3.9 or later.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from typing import Any

HEAD = struct.Struct(">BHQ")
FOLDER, FILE, PROGRAM, LINK, END = b"DFXLE"
CHUNK = 256 * 1024
ENV = "/work/.venv"


def install_python(plan: dict[str, Any], environ: dict[str, str]) -> int:
    """Make a virtual environment, which can be moved, and install into it."""
    with open("/work/requirements.txt", "w") as file:
        file.write("\n".join(plan["wanted"]) + "\n")
    environ.update(
        UV_CACHE_DIR="/work/.cache", UV_LINK_MODE="hardlink", UV_NO_CONFIG="1", UV_NO_PROGRESS="1",
        UV_PYTHON_DOWNLOADS="never", UV_CONCURRENT_DOWNLOADS="8", UV_CONCURRENT_BUILDS="2", UV_HTTP_TIMEOUT="30",
    )  # fmt: skip
    if plan["index"]:
        environ["UV_DEFAULT_INDEX"] = plan["index"]
    uv = plan["tool"]
    make = [uv, "venv", "-q", "--relocatable", "--system-site-packages", "--no-project"]
    code = subprocess.call([*make, "--python", plan["runtime"], ENV], env=environ)
    if code:
        return code
    for name in os.listdir(f"{ENV}/bin"):
        if not name.startswith("python"):
            os.unlink(f"{ENV}/bin/{name}")
    code = subprocess.call([uv, "pip", "install", "-r", "/work/requirements.txt"], env=environ, cwd="/work")
    if code == 0:
        # Nobody can write beside the modules later, and times are not kept. Nobody imports their tests. Not by the environment's
        # own Python: that would run lines of .pth files. What cannot be compiled is none the worse for it.
        sys.stderr.write("Compiling them\n")
        options = ["-qq", "-j", "0", "--invalidation-mode", "unchecked-hash", "-x", r"/tests?/"]
        subprocess.call(
            [plan["runtime"], "-m", "compileall", *options, f"{ENV}/lib"],
            env=environ,
            stderr=subprocess.DEVNULL,
        )
    return code


def install_node(plan: dict[str, Any], environ: dict[str, str]) -> int:
    """Install beside a package.json of ours."""
    os.mkdir(ENV)
    wanted = {}
    for text in plan["wanted"]:
        name, _, range_ = text.rpartition("@")
        wanted[name] = range_ or "*"
    with open(f"{ENV}/package.json", "w") as file:
        json.dump({"private": True, "dependencies": wanted}, file)
    node = plan["runtime"]
    environ.update(
        PATH=os.path.dirname(node) + ":" + environ["PATH"],
        npm_config_cache="/work/.cache", npm_config_userconfig="/dev/null", npm_config_globalconfig="/tmp/npmrc",
        npm_config_audit="false", npm_config_fund="false", npm_config_update_notifier="false", npm_config_progress="false",
        npm_config_color="false", npm_config_maxsockets="8", npm_config_fetch_retries="1", npm_config_logs_max="0",
        npm_config_package_lock="false",
    )  # fmt: skip
    if plan["index"]:
        environ["npm_config_registry"] = plan["index"]
    return subprocess.call([node, plan["tool"], "install"], env=environ, cwd=ENV)


class Writer:
    """Writes the archive; counts first, so that what is too large is said and not sent."""

    def __init__(self, out: int, most_bytes: int) -> None:
        self.out, self.most = out, most_bytes

    def size(self, folder: str) -> int:
        """Add up a folder."""
        total = 0
        with os.scandir(folder) as entries:
            for entry in entries:
                total += 4096
                if entry.is_dir(follow_symlinks=False):
                    total += self.size(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    total += entry.stat(follow_symlinks=False).st_size
        return total

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self.out, view) :]

    def entry(self, kind: int, path: str, size: int, content: bytes = b"") -> None:
        name = os.fsencode(path)
        self.write(HEAD.pack(kind, len(name), size) + name + content)

    def folder(self, folder: str, prefix: str) -> None:
        """Write all that is beneath a folder; what is no file, folder or link is left out."""
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        for entry in entries:
            path = prefix + entry.name
            if entry.is_symlink():
                target = os.fsencode(os.readlink(entry.path))
                self.entry(LINK, path, len(target), target)
            elif entry.is_dir():
                self.entry(FOLDER, path, 0)
                self.folder(entry.path, path + "/")
            elif entry.is_file():
                self.file(entry.path, path)

    def file(self, place: str, path: str) -> None:
        """Write a file; what becomes shorter meanwhile is filled with zeros."""
        with open(place, "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            left = status.st_size
            self.entry(PROGRAM if status.st_mode & 0o100 else FILE, path, left)
            while left:
                part = file.read(min(CHUNK, left)) or bytes(min(CHUNK, left))
                self.write(part)
                left -= len(part)


def main() -> int:
    # The program's standard output is the archive's alone; no child inherits it.
    out = os.dup(1)
    os.dup2(2, 1)
    with open("/work/plan.json") as file:
        plan = json.load(file)
    environ = {**os.environ, "NO_COLOR": "1", "CI": "1"}
    for name in ("PYTHONPATH", "MPLBACKEND", "ATELIER_FIGURES"):
        environ.pop(name, None)
    if os.path.getsize("/work/certificates.pem"):
        environ.update(SSL_CERT_FILE="/work/certificates.pem", NODE_EXTRA_CA_CERTS="/work/certificates.pem")
    code = (install_python if plan["kind"] == "python" else install_node)(plan, environ)
    if code:
        return code if code > 0 else 128 - code
    shutil.rmtree("/work/.cache", ignore_errors=True)
    writer = Writer(out, plan["most_bytes"])
    size = writer.size(ENV)
    if size > writer.most:
        sys.stderr.write(f"The environment has {size >> 20} MiB; it may have {writer.most >> 20}.\n")
        return 75
    writer.folder(ENV, "")
    writer.entry(END, "", 0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
