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


def why_no_file(path: Path) -> str | None:
    """What to say of a path that is no regular file, such as `a.png is a pipe: name a file`; None where it is one.

    Links are followed.

    Raises:
        OSError: nothing is there, or it may not be looked up.
    """
    mode = path.stat().st_mode
    if stat.S_ISREG(mode):
        return None
    return f"{path} is {_OTHERS.get(stat.S_IFMT(mode), 'no regular file')}: name a file"
