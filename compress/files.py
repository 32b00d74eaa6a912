"""Files that are either written whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from compress.errors import CompressError
from prunecore_runtime.regular_file import why_no_file

_LONGEST_HEADER = 10_000_000  # bytes: names of 100,000 tensors; the largest network of timm has a few thousand


def require_file(path: str | os.PathLike[str], *, most: int | None = None) -> Path:
    """Check that `path` is a file that can be read to its end.

    Args:
        most: bytes that it may have, where all of it is to be read into memory.

    Raises:
        CompressError: there is none, or one that is too large, or a folder, a pipe, a socket or a device, which might
            never end.
    """
    file = Path(path)
    try:
        complaint = why_no_file(file, most=most)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CompressError(f"no such file: {file}") from error
    except (OSError, ValueError) as error:  # no permission, a name that is too long or holds a null character
        raise CompressError(f"cannot read {file}: {getattr(error, 'strerror', None) or error}") from error
    if complaint:
        raise CompressError(complaint)
    return file


def require_short_header(content: Path | bytes) -> None:
    """Check that the header of a `.safetensors` file, or of its bytes, has a length that some network's could have.

    The format allows 100 MB, which name a million and a half empty tensors, and these take a minute to read.

    Raises:
        SafetensorError: it is longer than 10 MB, or the file is no such file.
        OSError: the file cannot be read.
    """
    if isinstance(content, Path):
        with content.open("rb") as stream:
            content = stream.read(8)
    length = int.from_bytes(content[:8], "little")
    if length > _LONGEST_HEADER:
        raise SafetensorError(f"its header has {length} bytes, the limit is {_LONGEST_HEADER}")


def require_writable(path: str | os.PathLike[str]) -> Path:
    """Check before any work that `path` can be written; makes no file.

    Raises:
        CompressError: the folder is missing or read-only, or `path` is a folder.
    """
    target = Path(path)
    if target.is_dir():
        raise CompressError(f"cannot write {target}: it is a folder; name a file in it")
    if target.exists() and not target.is_file():
        raise CompressError(f"cannot write {target}: it is a device or a pipe; name a file")
    folder = target.absolute().parent
    if not folder.is_dir():
        raise CompressError(f"cannot write {target}: the folder {folder} does not exist; create it")
    if not os.access(folder, os.W_OK):
        raise CompressError(f"cannot write {target}: no permission to write in {folder}")
    return target


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well.

    The content is flushed to the disk before the rename, so that after a crash or a kill
    `path` holds either the old content or the whole new one.

    Raises:
        CompressError: `path` cannot be written.
    """
    target = require_writable(path)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.absolute().parent)
    except OSError as error:
        raise CompressError(f"cannot write {target}: {error.strerror}") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
    except OSError as error:
        raise CompressError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def atomic_write(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Write `content` (text as UTF-8) to `path`, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def atomic_save(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> None:
    """Write a `.safetensors` file of `tensors` with that `header`, whole or not at all; the same ones, the same bytes.

    Raises:
        CompressError: `path` cannot be written.
    """
    with atomic_path(path) as temporary:
        try:
            save_file(dict(tensors), temporary, dict(header))
            _order_header(temporary)
        except SafetensorError as error:  # what a full disk comes out as
            raise OSError(str(error)) from error


def _order_header(file: Path) -> None:
    """Sort what a `.safetensors` file says of itself, which safetensors writes in an order drawn anew each time."""
    with file.open("rb+") as stream:
        length = int.from_bytes(stream.read(8), "little")
        found = json.loads(stream.read(length))
        found["__metadata__"] = dict(sorted(found["__metadata__"].items()))
        ordered = json.dumps(found, separators=(",", ":"), ensure_ascii=False).encode()
        if len(ordered) <= length:  # as long as it was, by spaces at its end: the tensors stay where they are
            stream.seek(8)
            stream.write(ordered.ljust(length))


def read_saved(path: str | os.PathLike[str]) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The header and the tensors of a `.safetensors` file, as `atomic_save` takes them.

    Raises:
        CompressError: there is no such file, or none that can be read to its end.
        SafetensorError, OSError, RuntimeError, ValueError, MemoryError: it is damaged, or something else.
    """
    file = require_file(path)
    require_short_header(file)
    with safe_open(file, framework="pt") as opened:
        header = opened.metadata() or {}
        return header, {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 not a dict


def sha256_of_file(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _umask() -> int:
    # mkstemp makes private files; the result should have the permissions of any other file.
    mask = os.umask(0)
    os.umask(mask)
    return mask
