"""ELPV: 2,624 electroluminescence images of solar cells (Buerhop-Lux et al. 2018; Deitsch et al. 2019).

They come out of the Python package `elpv-dataset`; labels are of whole images, there are no masks.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from anomaly.errors import AnomalyError
from anomaly.samples import GOOD, Category, Sample, split_good

PACKAGE = "elpv_dataset"
DEFECTIVE = "defective"


def read_elpv() -> list[Category]:
    """Two categories, mono and poly (crystalline cells).

    Good are cells of defect probability 0, defective those of 2/3 and 1; the 295 of 1/3, on which
    the experts did not agree, are left out. A fixed random 70 % of the good cells train.

    Raises:
        AnomalyError: the package is not installed, or not whole.
    """
    folder = _data_folder()
    cells: dict[str, list[tuple[Path, float]]] = {}
    for line in (folder / "labels.csv").read_text().splitlines():
        path, probability, kind = line.split()
        cells.setdefault(kind, []).append((folder / path, float(probability)))
    return [_category(name, cells[name]) for name in sorted(cells)]


def _category(name: str, cells: list[tuple[Path, float]]) -> Category:
    train, held_out = split_good([Sample(image, GOOD) for image, probability in cells if probability == 0])
    defective = (Sample(image, DEFECTIVE) for image, probability in cells if probability > 0.5)
    return Category("elpv", name, train, (*held_out, *defective))


def _data_folder() -> Path:
    package = importlib.util.find_spec(PACKAGE)  # looks the package up without running it
    if package is None or package.origin is None:
        raise AnomalyError("dataset elpv needs a package: pip install 'prunecore[elpv]'")
    folder = Path(package.origin).parent / "data"
    if not (folder / "labels.csv").is_file():
        raise AnomalyError(f"{folder} has no labels.csv: pip install --force-reinstall elpv-dataset")
    return folder
