"""The agent, standard library only, is the first process inside every sandbox: `agent.py`, and `collect.py` beside it.

`library/` is what every Python of a sandbox finds on its path. Nothing here is ever imported by the host.
"""

from pathlib import Path

SOURCE = Path(__file__).with_name("agent.py")
COLLECT = Path(__file__).with_name("collect.py")
LIBRARY = Path(__file__).with_name("library")
