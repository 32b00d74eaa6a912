"""Whether a path that a user names is a file that can be read from its beginning to its end.

To open a pipe is to wait until someone writes to it, perhaps for ever, and a device may never end.
"""

from __future__ import annotations

import stat
from pathlib import Path

_OTHERS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def other_than_a_file(path: Path) -> str | None:
    """What is there in the place of a regular file, such as `a pipe`; None for a regular file. Links are followed.

    Raises:
        OSError: nothing is there, or it may not be looked up.
    """
    mode = path.stat().st_mode
    return None if stat.S_ISREG(mode) else _OTHERS.get(stat.S_IFMT(mode), "no regular file")
