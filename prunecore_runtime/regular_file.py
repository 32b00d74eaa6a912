"""Whether a path that a user names is a file that can be read from its beginning to its end.

To open a pipe is to wait until someone writes to it, perhaps for ever, and a device may never end. A file can be larger
than the memory, and yet take no room on the disk or in an archive.
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


def why_no_file(path: Path, *, most: int | None = None) -> str | None:
    """What to say of a path that is no regular file, such as `a.png is a pipe: name a file`; None where it is one.

    Links are followed.

    Args:
        most: bytes that such a file can have.

    Raises:
        OSError: nothing is there, or it may not be looked up.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        return f"{path} is {_OTHERS.get(stat.S_IFMT(found.st_mode), 'no regular file')}: name a file"
    if most is not None and found.st_size > most:
        return f"{path} has {found.st_size:,} bytes, the limit is {most:,}: it is no such file as is read here"
    return None
