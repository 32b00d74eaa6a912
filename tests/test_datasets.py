"""Dataset readers: what they find in a folder, and what they refuse."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from anomaly import AnomalyError, Category, Sample, fingerprint, open_dataset
from anomaly.datasets import elpv
from anomaly.images import load_mask
from anomaly.samples import split_good


def _open(folder: Path, *only: str) -> list[Category]:
    return open_dataset(str(folder), cache=folder / "no-cache", only=only)


def _image(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), (1, 2, 3)).save(file)
    return file


def _mask(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (16, 16), 255).save(file)
    return file


@pytest.fixture
def mvtec(tmp_path: Path) -> Path:
    for name in ("bottle", "cable"):
        for index in range(3):
            _image(tmp_path / "parts" / name / "train" / "good" / f"{index:03}.png")
        _image(tmp_path / "parts" / name / "test" / "good" / "000.png")
        for kind in ("broken", "dirty"):
            _image(tmp_path / "parts" / name / "test" / kind / "000.png")
            _mask(tmp_path / "parts" / name / "ground_truth" / kind / "000_mask.png")
    return tmp_path / "parts"


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    for index in range(10):
        _image(tmp_path / "line" / "good" / f"{index}.png")
    for index in range(2):
        _image(tmp_path / "line" / "bad" / f"{index}.png")
    return tmp_path / "line"


def test_mvtec_categories_are_discovered(mvtec: Path) -> None:
    bottle, cable = _open(mvtec)
    assert (bottle.dataset, bottle.name, cable.name) == ("parts", "bottle", "cable")
    assert [sample.kind for sample in bottle.test] == ["broken", "dirty", "good"]
    assert len(bottle.train) == 3
    assert bottle.has_masks
    assert bottle.is_two_sided
    assert all((sample.mask is not None) == sample.is_defective for sample in bottle.test)


def test_one_category_can_be_named_or_pointed_at(mvtec: Path) -> None:
    assert [category.name for category in _open(mvtec, "cable")] == ["cable"]
    assert [category.name for category in _open(mvtec / "cable")] == ["cable"]
    with pytest.raises(AnomalyError, match="no category 'bottel': choose from bottle, cable"):
        _open(mvtec, "bottel")


def test_without_ground_truth_there_are_no_masks(mvtec: Path) -> None:
    shutil.rmtree(mvtec / "bottle" / "ground_truth")
    assert not _open(mvtec, "bottle")[0].has_masks


def test_masks_for_some_defects_only_are_refused(mvtec: Path) -> None:
    (mvtec / "bottle" / "ground_truth" / "dirty" / "000_mask.png").unlink()
    with pytest.raises(AnomalyError, match=r"parts/bottle: 1 defective images have no mask.*dirty/000\.png"):
        _open(mvtec)


def test_a_category_without_defects_is_read_and_known_to_be_one_sided(mvtec: Path) -> None:
    for kind in ("broken", "dirty"):
        shutil.rmtree(mvtec / "bottle" / "test" / kind)
    (bottle,) = _open(mvtec, "bottle")
    assert not bottle.is_two_sided
    assert not bottle.has_masks


@pytest.mark.parametrize(("gone", "split"), [("train/good", "train"), ("test", "test")])
def test_empty_splits_are_refused(mvtec: Path, gone: str, split: str) -> None:
    for file in (mvtec / "bottle" / gone).rglob("*.png"):
        file.unlink()
    with pytest.raises(AnomalyError, match=f"parts/bottle has no {split} images"):
        _open(mvtec)


def test_a_category_without_a_test_folder_is_for_fitting_alone(mvtec: Path) -> None:
    whole = _open(mvtec, "bottle")
    shutil.rmtree(mvtec / "cable" / "test")
    shutil.rmtree(mvtec / "cable" / "ground_truth")
    assert _open(mvtec, "bottle") == whole
    for folder, only in ((mvtec, ()), (mvtec, ("cable",)), (mvtec / "cable", ())):
        with pytest.raises(AnomalyError, match=r"/cable has no test images: add some, or choose another category"):
            _open(folder, *only)
    bottle, cable = open_dataset(str(mvtec), cache=mvtec / "no-cache", train_only=True)
    assert bottle == whole[0]
    assert [sample.image.name for sample in cable.train] == [sample.image.name for sample in bottle.train]
    assert cable.test == ()
    assert not cable.is_two_sided


def test_all_good_images_of_a_plain_folder_train_where_nothing_is_judged(plain: Path) -> None:
    (judged,) = _open(plain)
    assert open_dataset(str(plain), cache=plain / "no-cache", train_only=True) == [judged]
    shutil.rmtree(plain / "bad")
    (fitted,) = open_dataset(str(plain), cache=plain / "no-cache", train_only=True)
    assert [sample.image.name for sample in fitted.train] == [f"{index}.png" for index in range(10)]
    assert fitted.test == ()
    assert _open(plain)[0].train == judged.train


def test_a_plain_folder_is_split_the_same_way_every_time(plain: Path) -> None:
    (category,) = _open(plain)
    assert len(category.train) == 7
    assert [sample.kind for sample in category.test] == ["good"] * 3 + ["bad"] * 2
    assert not {sample.image for sample in category.train} & {sample.image for sample in category.test}
    assert _open(plain) == [category]
    assert not category.has_masks


def test_a_plain_folders_masks_are_found_by_name(plain: Path) -> None:
    _mask(plain / "masks" / "0.png")
    with pytest.raises(AnomalyError, match="1 defective images have no mask"):
        _open(plain)
    _mask(plain / "masks" / "1_mask.png")
    (category,) = _open(plain)
    assert category.has_masks
    assert load_mask(category.test[-1]).all()


def test_a_plain_folders_files_that_are_not_understood_are_refused(plain: Path) -> None:
    _mask(plain / "masks" / "7.png")
    with pytest.raises(AnomalyError, match="holds no mask of a bad image: name them like the images"):
        _open(plain)
    shutil.rmtree(plain / "masks")
    shutil.rmtree(plain / "bad")
    _image(plain / "bad" / "scratch" / "0.png")
    with pytest.raises(AnomalyError, match="put them right into it"):
        _open(plain)


def test_a_plain_folder_with_one_good_image_is_refused(tmp_path: Path) -> None:
    _image(tmp_path / "good" / "only.png")
    with pytest.raises(AnomalyError, match="holds 1 images: at least 2"):
        _open(tmp_path)


def test_every_split_has_both_sides() -> None:
    for count in range(2, 12):
        train, test = split_good(range(count))
        assert train
        assert test
        assert sorted((*train, *test)) == list(range(count))


def test_the_fingerprint_waits_for_no_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    samples = (Sample(tmp_path / "a.png", "good"),)
    with pytest.raises(AnomalyError, match=r"a\.png is a pipe: name a file"):
        fingerprint(Category("d", "c", samples, samples))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("generatd", "did you mean generated"),
        ("no/such/folder", "named datasets are generated, elpv"),
    ],
)
def test_unknown_datasets_are_refused(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(AnomalyError, match=message):
        open_dataset(name, cache=tmp_path)


def test_a_folder_in_no_layout_is_told_the_layouts(tmp_path: Path) -> None:
    _image(tmp_path / "loose.png")
    with pytest.raises(AnomalyError, match=r"in no known layout\. mvtec: .*folder: good/"):
        _open(tmp_path)


def test_elpv_comes_out_of_its_package(tmp_path: Path) -> None:
    mono, poly = open_dataset("elpv", cache=tmp_path)
    assert (mono.name, poly.name) == ("mono", "poly")
    good = [s for c in (mono, poly) for s in (*c.train, *c.test) if not s.is_defective]
    defective = [s for c in (mono, poly) for s in c.test if s.is_defective]
    assert len(good) == 1508  # the paper's count of functional cells
    assert len(defective) == 106 + 715  # probabilities 2/3 and 1
    assert not any(sample.is_defective for category in (mono, poly) for sample in category.train)
    assert not mono.has_masks


def test_elpv_without_its_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elpv, "PACKAGE", "no_such_package")
    with pytest.raises(AnomalyError, match=r"pip install 'prunecore\[elpv\]'"):
        open_dataset("elpv", cache=tmp_path)


def test_the_fingerprint_follows_content_names_and_roles(mvtec: Path) -> None:
    before = fingerprint(_open(mvtec, "bottle")[0])
    assert before == fingerprint(_open(mvtec, "bottle")[0])
    assert before == fingerprint(_open(mvtec, "cable")[0])  # the same files under another folder
    file = mvtec / "bottle" / "test" / "good" / "000.png"
    file.rename(file.with_name("001.png"))
    renamed = fingerprint(_open(mvtec, "bottle")[0])
    Image.new("RGB", (16, 16), (1, 2, 4)).save(file.with_name("001.png"))
    assert len({before, renamed, fingerprint(_open(mvtec, "bottle")[0])}) == 3


def test_a_file_that_vanishes_is_named(tmp_path: Path) -> None:
    gone = Sample(tmp_path / "gone.png", "good")
    with pytest.raises(AnomalyError, match=r"cannot read .*gone\.png"):
        fingerprint(Category("d", "c", (gone,), (gone,)))


def test_a_name_that_is_no_text_has_a_fingerprint(tmp_path: Path) -> None:
    for name in (b"0.png", b"1.png", b"\xff\xfe.png"):
        _image(Path(os.fsdecode(os.fsencode(tmp_path / "odd" / "good") + b"/" + name)))
    (category,) = _open(tmp_path / "odd")
    assert len(category.train) + len(category.test) == 3
    assert len(fingerprint(category)) == 64
