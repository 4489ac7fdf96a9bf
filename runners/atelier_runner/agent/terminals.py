"""A pseudo-terminal and its size. Standard library only; imported when a program is to have one."""

from __future__ import annotations

import fcntl
import os
import struct
import termios

SET_WINDOW = 0x5414  # TIOCSWINSZ


def open_terminal(window: list[int]) -> tuple[int, str]:
    """Open a pseudo-terminal of [columns, rows]; returns its master and the path of the other side.

    The other side stays open here, so that the master does not end before the program, or between two programs.
    """
    master, slave = os.openpty()
    modes = termios.tcgetattr(slave)
    modes[0] |= 0o40000  # IUTF8: erasing takes a whole character
    termios.tcsetattr(slave, termios.TCSANOW, modes)
    set_window(master, *window)
    os.set_blocking(master, False)
    return master, os.ttyname(slave)


def set_window(master: int, columns: int, rows: int) -> None:
    fcntl.ioctl(master, SET_WINDOW, struct.pack("HHHH", rows, columns, 0, 0))
