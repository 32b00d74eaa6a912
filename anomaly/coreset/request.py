"""How large a memory bank is asked for."""

from __future__ import annotations

from anomaly.errors import AnomalyError


def check_bank_request(ratio: float, size: int | None) -> None:
    """Refuse, before any work, what no memory bank can be made by.

    Raises:
        AnomalyError: a ratio outside (0, 1], or a size below 1.
    """
    if not 0 < ratio <= 1:
        raise AnomalyError(f"coreset ratio {ratio} is outside (0, 1]: 0.01 keeps one patch in a hundred")
    if size is not None and size < 1:
        raise AnomalyError(f"bank size {size} is below 1: 1000 patches make a small bank")


def check_coverage(coverage: float | None) -> None:
    """Refuse a covering radius that no coreset can stop at.

    Raises:
        AnomalyError: a negative radius, or one that is no number.
    """
    if coverage is not None and not coverage >= 0:
        raise AnomalyError(f"coverage {coverage} is below 0: it is a distance between patch features")


def coreset_size(patches: int, ratio: float) -> int:
    """How many of `patches` a coreset of `ratio` keeps.

    Raises:
        AnomalyError: a ratio outside (0, 1], or one that keeps none.
    """
    check_bank_request(ratio, None)
    size = int(patches * ratio)
    if size < 1:
        raise AnomalyError(f"coreset ratio {ratio} of {patches} patches keeps none: raise the ratio or add images")
    return size


def check_size(size: int, patches: int) -> None:
    """Refuse a coreset that is empty or larger than what it is drawn from.

    Raises:
        AnomalyError: size outside [1, patches].
    """
    if not 1 <= size <= patches:
        raise AnomalyError(f"coreset size {size} is outside 1 to {patches}, the number of patches")
