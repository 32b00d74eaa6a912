"""Images decoded once for several detectors that look at the same category."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

from anomaly.errors import AnomalyError
from anomaly.images import load_image
from prunecore_runtime.images import CROP

MEMORY = 1 << 30  # bytes: 7,100 images
_EACH = 3 * CROP * CROP  # bytes


class DecodedImages:
    """`load_image` that keeps what it decoded, as long as the file keeps its time and size; not for several threads.

    At `limit` bytes it keeps what it has and decodes the others each time: detectors read the same images in the same
    order, so that whatever is thrown out for a new one would be the next that is wanted. The pixels that it returns
    are not to be changed.
    """

    def __init__(self, limit: int = MEMORY) -> None:
        self.limit = limit
        self.bytes = 0
        self._kept: dict[Path, tuple[tuple[int, int], Tensor]] = {}

    def __call__(self, file: Path) -> Tensor:
        """The (3, 224, 224) uint8 pixels that a detector sees.

        Raises:
            AnomalyError: as `load_image`.
        """
        try:
            stat = file.stat()
        except OSError as error:
            raise AnomalyError(f"cannot read {file}: {error.strerror}") from error
        version = stat.st_mtime_ns, stat.st_size
        kept = self._kept.get(file)
        if kept and kept[0] == version:
            return kept[1]
        pixels = load_image(file)
        more = 0 if kept else pixels.nbytes
        if self.bytes + more <= self.limit:
            self._kept[file] = version, pixels
            self.bytes += more
        return pixels

    def fill(self, files: Iterable[Path]) -> None:
        """Decode these images while there is room."""
        for file in files:
            if self.bytes + _EACH > self.limit:
                return
            self(file)
