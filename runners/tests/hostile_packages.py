"""What the tests' package index has: a few that work, and those that try what a package should not."""

from __future__ import annotations

import os
import textwrap

from deploy.package_index import Index

ECHO = """
import base64, hashlib, io, zipfile

def build_wheel(directory, config_settings=None, metadata_directory=None):
    tried = attempt()
    name, version = NAME, "1.0"
    with zipfile.ZipFile(f"{directory}/{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", f"TRIED = {tried!r}")
        wheel.writestr(f"{name}-{version}.dist-info/METADATA", f"Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n")
        wheel.writestr(f"{name}-{version}.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(f"{name}-{version}.dist-info/RECORD", "")
    return f"{name}-{version}-py3-none-any.whl"
"""
"""A build backend that makes a module of what `attempt` returned."""


def backend_of(name: str, attempt: str) -> str:
    return f"NAME = {name!r}\n{ECHO}\n{textwrap.dedent(attempt)}"


def filled(index: Index, secret_port: int) -> None:
    """Put into an index what the tests ask for."""
    index.wheel(
        "moo",
        "1.0",
        {
            "moo/__init__.py": "def say(): print('moo 1')\n",
            "moo-1.0.dist-info/entry_points.txt": "[console_scripts]\nmoo = moo:say\n",
        },
    )
    index.wheel("moo", "2.0", {"moo/__init__.py": "def say(): print('moo 2')\n"})
    index.wheel("needs-moo", "1.0", {"needs_moo.py": "import moo\n"}, ["moo<2"])
    index.wheel("large", "1.0", {"large.bin": os.urandom(3 << 20)})
    index.wheel("shadow", "1.0", {"json/__init__.py": "raise SystemExit('shadowed')\n", "shadow.py": ""})
    index.wheel(
        "pathy", "1.0", {"pathy.pth": "import os; os.environ['PATHY'] = str(os.getpid())\n", "pathy.py": ""}
    )
    index.wheel("loopy", "1.0", {"loopy.pth": "import sys\nimport sys; exec('while True: pass')\n"})
    index.wheel("climbing", "1.0", {"../../../../../../tmp/climbed": "x", "climbing.py": ""})
    index.wheel("rooted", "1.0", {"/tmp/rooted": "x", "rooted.py": ""})
    index.linked_wheel("linked", "1.0", {"linked/shadow": "/etc/shadow", "linked/up": "../../../../../.."})
    index.sdist(
        "curious",
        "1.0",
        backend_of(
            "curious",
            f"""
        import os, socket, urllib.request
        def attempt():
            tried = {{}}
            os.environ.pop("NO_PROXY", None); os.environ.pop("no_proxy", None)
            for name, address in (("secret", ("127.0.0.1", {secret_port})), ("public", ("93.184.215.14", 80)), ("metadata", ("169.254.169.254", 80))):
                try:
                    with socket.create_connection(address, 3): tried[name] = "reached"
                except OSError as error: tried[name] = type(error).__name__
            for name, url in (("proxied", "http://127.0.0.2:{secret_port}/"), ("named", "http://localhost:{secret_port}/"), ("other", "http://example.com/")):
                try: tried[name] = urllib.request.urlopen(url, timeout=5).status
                except Exception as error: tried[name] = str(error)
            tried["files"] = sorted(os.listdir("/work"))
            tried["environments"] = os.path.exists("/environments/uv")
            try: os.listdir("/environments"); tried["listed"] = True
            except OSError: tried["listed"] = False
            try: open("/environments/x", "w"); tried["written"] = True
            except OSError: tried["written"] = False
            return tried
        """,
        ),
    )
    index.sdist(
        "forking",
        "1.0",
        backend_of(
            "forking",
            """
        import os, time
        def attempt():
            while True:
                try: os.fork()
                except OSError: time.sleep(0.01)
        """,
        ),
    )
    index.sdist(
        "flooding",
        "1.0",
        backend_of(
            "flooding",
            """
        def attempt():
            with open("/work/flood", "wb") as file:
                while True: file.write(bytes(1 << 20))
        """,
        ),
    )
    index.sdist(
        "shouting",
        "1.0",
        backend_of(
            "shouting",
            """
        import sys
        def attempt():
            for _ in range(200): sys.stderr.write("\\x1b[31m" + "x" * 99_999 + "\\n")
            raise SystemExit("it was loud")
        """,
        ),
    )
    index.sdist(
        "forging",
        "1.0",
        backend_of(
            "forging",
            """
        import os, struct
        def attempt():
            # Every process here is this user's: write what looks like the end of the archive into whatever can be opened.
            end = struct.pack(">BHQ", ord("F"), 14, 1) + b"../../escaped!" + b"x"
            wrote = 0
            for process in os.listdir("/proc"):
                if not process.isdigit() or int(process) == os.getpid(): continue
                for handle in range(12):
                    try:
                        with open(f"/proc/{process}/fd/{handle}", "wb", buffering=0) as file: file.write(end); wrote += 1
                    except OSError: pass
            return wrote
        """,
        ),
    )
    index.sdist(
        "lasting",
        "1.0",
        backend_of(
            "lasting",
            """
        import subprocess
        def attempt():
            nothing = subprocess.DEVNULL
            subprocess.Popen(["sleep", "1000"], start_new_session=True, stdin=nothing, stdout=nothing, stderr=nothing)
            return "left a daemon"
        """,
        ),
    )
    index.package(
        "cow",
        "1.2.0",
        {
            "index.js": "module.exports = () => 'moo'\n",
            "cli.js": "#!/usr/bin/env node\nconsole.log('cli moo')\n",
        },
        bin={"cow": "cli.js"},
    )
    index.package(
        "@herd/calf",
        "2.0.0",
        {"index.mjs": "import cow from 'cow'\nexport default () => cow() + '!'\n"},
        main="index.mjs",
        dependencies={"cow": "^1.0.0"},
    )
    index.package(
        "after",
        "1.0.0",
        {
            "index.js": "module.exports = require('./tried.json')\n",
            "install.js": f"""
        const fs = require('fs'), net = require('net'), tried = {{}}
        const done = (name, what) => {{ tried[name] = what; fs.writeFileSync('tried.json', JSON.stringify(tried)) }}
        const socket = net.connect({secret_port}, '127.0.0.1', () => {{ done('secret', 'reached'); process.exit(0) }})
        socket.on('error', (error) => done('secret', error.code))
        try {{ fs.writeFileSync('/environments/x', ''); done('written', true) }} catch {{ done('written', false) }}
        """,
        },
        scripts={"postinstall": "node install.js"},
    )
    index.package(
        "broken", "1.0.0", {"index.js": ""}, scripts={"postinstall": "echo this cannot be built; exit 3"}
    )
