"""The generated dataset: its layout, its determinism and the exactness of its masks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from PIL import Image

from anomaly.datasets.generated import DEFECTS, SURFACES, VERSION, generate, read_generated
from anomaly.datasets.generated.camera import photograph
from anomaly.errors import AnomalyError

T = TypeVar("T")
SIZE = 256
# The protocol looks at the central 224 of 256.
CROP = slice(16, 240)
PAIRS = [(surface, kind) for surface, record in SURFACES.items() for kind in record.defects]


def _tiny(folder: Path, *, seed: int = 0, train: int = 2, good: int = 1, per_defect: int = 1, size: int = 64) -> Path:
    surfaces = ["printed_grid"]
    return generate(folder, seed=seed, surfaces=surfaces, train=train, good=good, per_defect=per_defect, size=size)


def _files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_there_are_four_surfaces_with_five_kinds_of_defect_each() -> None:
    assert len(SURFACES) >= 4
    assert all(len(record.defects) >= 5 for record in SURFACES.values())
    assert {kind for _, kind in PAIRS} == set(DEFECTS)


def test_layout_and_counts(tmp_path: Path) -> None:
    folder = generate(tmp_path / "set", train=2, good=1, per_defect=1, size=64)
    for surface, record in SURFACES.items():
        root = folder / surface
        assert [file.name for file in sorted((root / "train" / "good").iterdir())] == ["000.png", "001.png"]
        assert {kind.name for kind in (root / "test").iterdir()} == {"good", *record.defects}
        assert {kind.name for kind in (root / "ground_truth").iterdir()} == set(record.defects)
        for kind in record.defects:
            assert [file.name for file in (root / "test" / kind).iterdir()] == ["000.png"]
            mask = Image.open(root / "ground_truth" / kind / "000_mask.png")
            assert mask.mode == "L"
            assert mask.size == (64, 64)
            assert set(np.unique(np.asarray(mask))) == {0, 255}
        assert Image.open(root / "test" / "good" / "000.png").mode == "RGB"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["version"] == VERSION
    assert manifest["seed"] == 0
    assert manifest["counts"]["images"] == sum(3 + len(record.defects) for record in SURFACES.values())
    assert [entry.name for entry in tmp_path.iterdir()] == ["set"]


def test_same_seed_same_bytes_other_seed_other_images(tmp_path: Path) -> None:
    first, second, other = _tiny(tmp_path / "a"), _tiny(tmp_path / "b"), _tiny(tmp_path / "c", seed=1)
    assert _files(first) == _files(second)
    changed = _files(other)
    assert all(changed[name] != content for name, content in _files(first).items() if "ground_truth" not in name)


def test_an_image_does_not_depend_on_how_many_are_made(tmp_path: Path) -> None:
    few, many = _files(_tiny(tmp_path / "few")), _files(_tiny(tmp_path / "many", train=4, good=2, per_defect=3))
    del few["manifest.json"]
    assert few.items() <= many.items()


def test_every_image_is_another() -> None:
    shots = [
        photograph("woven_fabric", "good", split, index, seed=0, size=64).image.tobytes()
        for split in ("train", "test")
        for index in range(3)
    ]
    assert len(set(shots)) == len(shots)


@pytest.mark.parametrize(("surface", "kind"), PAIRS)
def test_masks_are_exact(surface: str, kind: str) -> None:
    for index in range(3):
        shot = photograph(surface, kind, "test", index, seed=0, size=SIZE)
        change = np.abs(shot.image.astype(int) - shot.clean.astype(int)).max(axis=-1)
        # 2/255 is where the mask ends; rounding to whole levels adds one.
        assert change[~shot.mask].max() <= 3
        # Nor is the mask padded: what it holds has changed, but for places where the texture hides it.
        assert (change[shot.mask] > 0).mean() > 0.9
        assert change[shot.mask].max() > 12
        area = shot.mask.sum()
        assert 10 < area < 0.08 * SIZE**2
        assert shot.mask[CROP, CROP].sum() > 0.9 * area


@pytest.mark.parametrize("surface", SURFACES)
def test_good_images_vary_and_keep_within_the_sensor(surface: str) -> None:
    shots = np.stack([photograph(surface, "good", "train", index, seed=0, size=SIZE).image for index in range(4)])
    assert (shots == 255).mean() < 0.01
    assert (shots == 0).mean() < 0.01
    assert shots.mean(axis=(1, 2, 3)).std() > 1


def _fingerprint(surface: str) -> tuple[float, float, float]:
    """Mean and deviation of the first good image, and the mean change that the first defects of all kinds make."""
    good = photograph(surface, "good", "train", 0, seed=0, size=SIZE).image
    shots = [photograph(surface, kind, "test", 0, seed=0, size=SIZE) for kind in SURFACES[surface].defects]
    changes = [np.abs(shot.image.astype(int) - shot.clean.astype(int)).mean() for shot in shots]
    return float(good.mean()), float(good.std()), float(np.sum(changes))


# In grey levels, under the version that drew them.
FINGERPRINTS = (
    "1",
    {
        "woven_fabric": (104.4050, 29.2582, 1.3591),
        "wood_grain": (141.2728, 39.5839, 0.6186),
        "brushed_metal": (131.0194, 24.0504, 0.3350),
        "printed_grid": (168.3731, 43.8438, 1.7258),
    },
)


@pytest.mark.parametrize("surface", SURFACES)
def test_output_changes_only_with_the_version(surface: str) -> None:
    version, fingerprints = FINGERPRINTS
    measured = _fingerprint(surface)
    # Processors round differently; a change of design moves these numbers further.
    assert measured == pytest.approx(fingerprints[surface], abs=0.005), (
        "output changed: raise VERSION and these numbers"
    )
    assert version == VERSION


def test_a_folder_that_holds_anything_is_refused(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(AnomalyError, match=r"full exists.*remove it or name another"):
        _tiny(tmp_path / "full")
    assert (tmp_path / "full" / "thesis.txt").read_text() == "mine"


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert (_tiny(tmp_path / "empty") / "manifest.json").is_file()


def test_unknown_surface_names_the_near_ones(tmp_path: Path) -> None:
    with pytest.raises(AnomalyError, match=r"'wood'.*wood_grain"):
        generate(tmp_path / "set", surfaces=["wood"])
    with pytest.raises(AnomalyError, match="choose from woven_fabric"):
        generate(tmp_path / "set", surfaces=[])


@pytest.mark.parametrize(
    ("name", "value"), [("train", 0), ("good", -1), ("per_defect", -1), ("size", 32), ("seed", -1)]
)
def test_counts_out_of_range(tmp_path: Path, name: str, value: int) -> None:
    with pytest.raises(AnomalyError, match=f"{name} is {value}, the least is"):
        _tiny(tmp_path / "set", **{name: value})


def test_an_interrupted_run_leaves_nothing(tmp_path: Path) -> None:
    def interrupted(steps: Iterable[T], description: str, total: int) -> Iterator[T]:
        yield from list(steps)[:3]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path / "set", track=interrupted)
    assert list(tmp_path.iterdir()) == []


def test_the_track_sees_every_image(tmp_path: Path) -> None:
    seen: list[int] = []

    def counted(steps: Iterable[T], description: str, total: int) -> Iterator[T]:
        for step in steps:
            yield step
            seen.append(total)

    generate(tmp_path / "set", surfaces=["wood_grain"], train=1, good=1, per_defect=1, size=64, track=counted)
    assert seen == [7] * 7


def test_the_registry_reads_it_from_the_cache(tmp_path: Path) -> None:
    folder = generate(tmp_path / f"generated-{VERSION}", train=1, good=1, per_defect=1, size=64)
    before = _files(folder)
    categories = read_generated(tmp_path)
    assert sorted(category.name for category in categories) == sorted(SURFACES)
    assert all(category.has_masks and category.is_two_sided for category in categories)
    assert _files(folder) == before


def test_the_registry_takes_what_another_process_finished_first(tmp_path: Path) -> None:
    def overtaken(steps: Iterable[T], description: str, total: int) -> Iterator[T]:
        yield from list(steps)[:1]
        generate(tmp_path / f"generated-{VERSION}", train=1, good=1, per_defect=1, size=64)

    categories = read_generated(tmp_path, overtaken)
    assert [len(category.train) for category in categories] == [1] * len(SURFACES)
    assert len(list(tmp_path.iterdir())) == 1
