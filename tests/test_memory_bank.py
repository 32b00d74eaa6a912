"""The memory bank: each index against brute force, images that come and go, files that break."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import faiss
import numpy as np
import pytest
import torch
from torch import Tensor

from anomaly import AnomalyError
from anomaly.memory_bank import INDEX_KINDS, MemoryBank, choose_index, exact, kinds, resolve_index
from anomaly.memory_bank.screening import Screen

SPECS = [*INDEX_KINDS, "Flat", "PCA8,IVF8,Flat", "HNSW16,SQ8", "IVF16,PQ8x4"]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """On little data a second thread only waits, on a busy machine for long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _blobs(count: int, dimension: int = 32, seed: int = 0) -> Tensor:
    """Vectors around 20 centres, with a spectrum that falls as that of real features does."""
    generator = torch.Generator().manual_seed(seed)
    centres = 3 * torch.randn(20, dimension, generator=torch.Generator().manual_seed(99))
    noise = torch.randn(count, dimension, generator=generator) * torch.linspace(1.5, 0.05, dimension)
    return centres[torch.randint(20, (count,), generator=generator)] + noise


def _brute(queries: Tensor, bank: Tensor) -> tuple[Tensor, Tensor]:
    near = torch.cdist(queries.double(), bank.double()).min(dim=1)
    return near.values.float(), near.indices


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [2048, 5000, 9000])
def test_the_screen_loses_no_nearest_neighbour(monkeypatch: pytest.MonkeyPatch, size: int, dtype: torch.dtype) -> None:
    monkeypatch.setattr("anomaly.memory_bank.screening._product_dtype", lambda: dtype)
    monkeypatch.setattr("anomaly.memory_bank.screening._HOPELESS", 1.0)  # no query is given up
    vectors, queries = _blobs(size, 48), _blobs(700, 48, seed=1)
    rows, found = Screen(vectors).nearest(queries, vectors)
    assert found.all()
    assert torch.equal(rows, _brute(queries, vectors)[1])


def test_the_screen_allows_for_a_rest_that_rounding_took(monkeypatch: pytest.MonkeyPatch) -> None:
    """A query in the span of the leading components but for a sliver, which |x|^2 - |x1|^2 cancels in float32.

    Its nearest row lies in the sliver's direction; another row is a ten-thousandth farther, within the span.
    """
    monkeypatch.setattr("anomaly.memory_bank.screening._product_dtype", lambda: torch.float32)
    monkeypatch.setattr("anomaly.memory_bank.screening._HOPELESS", 1.0)
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(2048, 64, generator=generator)
    screen = Screen(vectors)
    onto = torch.linalg.qr(screen._basis.double()).Q
    near, mean = vectors[:200].double(), screen._mean.double()
    leading = (near - mean) @ onto @ onto.T
    queries = mean + leading + (near - mean - leading) * torch.logspace(-5, -2.5, 200)[:, None]
    aside = torch.randn(200, 64, generator=generator).double() @ onto @ onto.T
    aside *= 1.0001 * (queries - near).norm(dim=1, keepdim=True) / aside.norm(dim=1, keepdim=True)
    vectors = torch.cat([vectors, (queries + aside).float()])
    screen._blocks = []
    screen._append(vectors)  # by the same basis
    rows, found = screen.nearest(queries.float(), vectors)
    assert found.all()
    assert torch.equal(rows, _brute(queries.float(), vectors)[1])


def test_a_hopeless_query_is_given_up_and_compared_in_full() -> None:
    generator = torch.Generator().manual_seed(0)  # no components stand out, and the queries are far from all rows
    vectors, queries = torch.randn(4096, 256, generator=generator), 30 * torch.randn(40, 256, generator=generator)
    _, found = Screen(vectors).nearest(queries, vectors)
    assert not found.all()
    distances, rows = MemoryBank(vectors).search(queries, 1)
    expected, nearest = _brute(queries, vectors)
    assert torch.allclose(distances[:, 0], expected, rtol=1e-5)
    assert torch.equal(rows[:, 0], nearest)


@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("block_bytes", [None, 1 << 14])
def test_exact_search_equals_faiss_flat_whatever_the_blocks(k: int, block_bytes: int | None) -> None:
    vectors, queries = _blobs(3000), _blobs(300, seed=1)
    flat = faiss.IndexFlatL2(32)
    flat.add(vectors.numpy())
    squared, nearest = flat.search(queries.numpy(), k)
    distances, rows = MemoryBank(vectors).search(queries, k, block_bytes=block_bytes)
    assert np.array_equal(rows.numpy(), nearest)
    assert np.allclose(distances.numpy(), np.sqrt(squared), atol=1e-3)


def test_exact_distances_are_not_cancelled_away() -> None:
    vectors = _blobs(2500) + 20.0
    assert MemoryBank(vectors).nearest(vectors).max() == 0


@pytest.mark.parametrize("spec", SPECS)
def test_every_index_finds_near_patches(spec: str) -> None:
    vectors, queries = _blobs(3000), _blobs(200, seed=1)
    bank = MemoryBank(vectors, index=spec)
    distances, rows = bank.search(queries, 1)
    expected, nearest = _brute(queries, vectors)
    assert distances.shape == rows.shape == (200, 1)
    assert len(bank) == 3000
    assert (rows[:, 0] == nearest).float().mean() > 0.08  # 8 dimensions of 32, or 4 bytes, tell neighbours badly apart
    assert torch.isfinite(distances).all()
    found = (queries - vectors[rows[:, 0]]).norm(dim=1)  # what was found is near, whatever its code says
    assert (found / expected).median() < 1.3


def test_a_learnt_rotation_in_front_of_product_codes() -> None:
    vectors = _blobs(300, 16)
    bank = MemoryBank(vectors, index="OPQ4_8,PQ4x4")
    assert bank.nearest(vectors).mean() < vectors.std(dim=0).norm() / 3


@pytest.mark.parametrize("spec", SPECS)
def test_the_same_seed_gives_the_same_bank(spec: str) -> None:
    queries = _blobs(50, seed=1)
    first, again = (MemoryBank(_blobs(2000), index=spec, seed=3).nearest(queries) for _ in range(2))
    assert torch.equal(first, again)


@pytest.mark.parametrize("spec", SPECS)
def test_images_are_taken_out_and_added_without_refitting(spec: str) -> None:
    vectors = _blobs(3000)
    images = torch.arange(3000) // 100
    bank = MemoryBank(vectors, images, index=spec)
    assert bank.remove(torch.tensor([4, 7])) == 200
    assert len(bank) == 2800
    assert sorted(set(range(30)) - set(bank.images.tolist())) == [4, 7]
    gone = vectors[400:500]
    distances, rows = bank.search(gone, 3)
    assert (distances[:, 0] > 0).all()
    assert (rows >= 0).all()
    remembered = bank.vectors_at(rows[:, :1])[:, 0]
    left = torch.cat([vectors[:400], vectors[500:700], vectors[800:]])
    fresh = MemoryBank(left, index=spec).nearest(left)
    assert float(bank.nearest(left).median()) == pytest.approx(float(fresh.median()), rel=0.1, abs=1e-3)
    assert (remembered - gone).norm(dim=1).min() > 0
    bank.add(gone, torch.full((100,), 40))
    assert len(bank) == 2900
    assert (bank.nearest(gone) <= distances[:, 0] + 1e-4).all()
    before = bank.nearest(left)
    bank.compact()
    assert len(bank) == 2900
    assert (bank.nearest(left) - before).abs().quantile(0.9) < 0.05  # a graph that is built anew finds nearly the same


def test_rows_and_images_stay_together_after_a_removal() -> None:
    vectors, images = _blobs(2600), torch.arange(2600) // 100
    for spec in ("exact", "ivf", "hnsw"):
        bank = MemoryBank(vectors, images, index=spec)
        bank.remove(torch.tensor([0, 3]))
        if spec == "hnsw":
            bank.compact()
        kept = torch.cat([vectors[100:300], vectors[400:]])
        assert torch.equal(bank.vectors, kept)
        assert torch.equal(bank.vectors_at(bank.search(kept[500:600], 1)[1][:, 0]), kept[500:600])
        assert bank.images[:200].tolist() == [1] * 100 + [2] * 100


def test_a_removed_patch_is_never_found_again() -> None:
    vectors = _blobs(2000)
    for spec in ("exact", "ivf", "hnsw", "sq8"):
        bank = MemoryBank(vectors, torch.arange(2000) // 50, index=spec)
        bank.remove(torch.arange(1, 40))  # all but one image: an inverted list or a path may hold none of it
        distances, rows = bank.search(vectors, 2)
        assert torch.isfinite(distances).all()
        difference = (distances[:, 0] - _brute(vectors, vectors[:50])[0]).abs()
        assert difference.quantile(1.0 if spec == "exact" else 0.9) < 0.2
        assert (rows < 50).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda bank: bank.remove(torch.tensor([9])), "image 9 has no patch in the bank"),
        (lambda bank: bank.remove(torch.tensor([-1])), "image -1 has no patch"),
        (lambda bank: bank.remove(torch.tensor([0, 1])), "leaves no bank"),
        (lambda bank: bank.add(torch.zeros(2, 5)), "do not fit a bank of 8 dimensions"),
        (lambda bank: bank.search(torch.zeros(2, 5), 1), "do not fit a bank of 8 dimensions"),
        (lambda bank: bank.add(torch.full((2, 8), math.nan)), "not finite"),
        (lambda bank: bank.add(torch.zeros(2, 8), torch.tensor([1])), "one number for each patch"),
        (lambda bank: bank.add(torch.zeros(1, 8), torch.tensor([-4])), "outside 0 to"),
    ],
)
def test_changes_that_make_no_sense_are_refused(call: object, message: str) -> None:
    bank = MemoryBank(_blobs(40, 8), torch.arange(40) // 20)
    with pytest.raises(AnomalyError, match=message):
        call(bank)  # type: ignore[operator]
    assert len(bank) == 40


def test_added_patches_get_the_next_image_number() -> None:
    bank = MemoryBank(_blobs(10, 8), torch.arange(10))
    bank.add(_blobs(3, 8, seed=5))
    assert bank.images.tolist() == [*range(10), 10, 10, 10]


@pytest.mark.parametrize(
    ("index", "shape", "message"),
    [
        ("PQ7", (600, 32), "cuts 32 dimensions into 7 parts.*8 parts"),
        ("OPQ8_20,PQ8", (600, 32), "cuts 20 dimensions into 8 parts"),
        ("PCA20,PQ8", (600, 32), "cuts 20 dimensions into 8 parts"),
        ("ivf_pq", (100, 32), "learns 256 centroids, and the bank has 100"),
        ("IVF4,PQ8x4fs", (600, 32), "FAISS crashes where .* drop the fs"),
        ("PCA16,IVF4,PQ8x4fsr,Refine(SQfp16)", (600, 32), "FAISS crashes where"),
        ("PCA64,SQ8", (600, 32), "at most 32"),
        ("PCA16,SQ8", (10, 32), "at most 10"),
        ("IVF5000,Flat", (600, 32), "more lists than the bank has patches"),
        ("hnws", (600, 32), "perhaps hnsw"),
        ("Flatt", (600, 32), "FAISS makes no index 'Flatt'"),
        (
            "IVF4,Foo",
            (600, 32),
            r"'IVF4,Foo' of 32 dimensions \('index_ivf' failed: could not parse",
        ),
        ("IDMap,Flat", (600, 32), "FAISS refuses index IDMap,Flat: add does not make sense"),
        ("", (600, 32), "no index ''"),
    ],
)
def test_what_faiss_would_crash_on_is_refused_with_the_cure(index: str, shape: tuple[int, int], message: str) -> None:
    with pytest.raises(AnomalyError, match=message):
        MemoryBank(_blobs(*shape), index=index)


@pytest.mark.parametrize("size", [1, 2, 40, 300])
@pytest.mark.parametrize("kind", INDEX_KINDS)
def test_a_small_bank_is_searched_or_refused_in_one_sentence(kind: str, size: int) -> None:
    vectors = _blobs(size)
    needed = {"pca": 8, "pca_ivf": 8, "ivf_pq": 256}.get(kind, 1)
    if size < needed:
        with pytest.raises(AnomalyError, match=f" {size} patches"):
            MemoryBank(vectors, index=kind)
    else:
        assert torch.isfinite(MemoryBank(vectors, index=kind).nearest(_blobs(5, seed=2))).all()


@pytest.mark.parametrize("index", ["exact", "ivf"])
def test_patches_that_are_not_finite_make_no_bank(index: str) -> None:
    vectors = _blobs(3000)
    vectors[1234, 5] = math.inf
    with pytest.raises(AnomalyError, match="not finite"):
        MemoryBank(vectors, index=index)


def test_one_dimension_and_no_query_are_searched() -> None:
    line = torch.linspace(0, 1, 3000)[:, None]
    assert MemoryBank(line).search(line[7:9], 1)[1][:, 0].tolist() == [7, 8]
    distances, rows = MemoryBank(_blobs(3000)).search(torch.empty(0, 32), 1)
    assert distances.shape == rows.shape == (0, 1)


@pytest.mark.parametrize("index", ["exact", "ivf", "hnsw"])
@pytest.mark.parametrize("size", [600, 3000])
def test_a_patch_that_is_not_finite_has_no_distance(index: str, size: int) -> None:
    queries = _blobs(3)
    queries[1, 4] = math.nan
    distances = MemoryBank(_blobs(size), index=index).nearest(queries)
    assert distances.isnan().tolist() == [False, True, False]


def test_product_codes_learn_from_few_patches_in_silence(capfd: pytest.CaptureFixture[str]) -> None:
    for index in ("ivf_pq", "PQ8"):
        MemoryBank(_blobs(600), index=index)
    assert capfd.readouterr() == ("", "")


def test_auto_is_exact_until_the_bank_is_large_or_the_wish_is_strict(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_index(59_662, 384) == "exact"
    assert choose_index(3_000_000, 384) == "pca_ivf"
    monkeypatch.setattr(kinds, "exact_ms", lambda size, dimension: size / 1000)
    assert choose_index(10_000, 384, latency_ms=20) == "exact"
    assert choose_index(50_000, 384, latency_ms=20) != "exact"
    assert resolve_index("auto", 5966, 384) == "exact"
    assert resolve_index("Flat", 5966, 384) == "Flat"
    assert kinds.exact_ms(2000, 64) > 0


@pytest.mark.parametrize("memory_map", [True, False])
@pytest.mark.parametrize("spec", SPECS)
def test_a_saved_bank_is_the_same_bank(tmp_path: Path, spec: str, memory_map: bool) -> None:
    bank = MemoryBank(_blobs(3000), torch.arange(3000) // 100, index=spec)
    bank.remove(torch.tensor([3]))
    bank.save(tmp_path / "bank")
    loaded = MemoryBank.load(tmp_path / "bank", memory_map=memory_map)
    queries = _blobs(50, seed=1)
    assert loaded.index == bank.index
    assert torch.equal(loaded.images, bank.images)
    assert torch.equal(loaded.nearest(queries), bank.nearest(queries))
    loaded.add(queries)
    assert len(loaded) == 2950
    assert (loaded.nearest(queries) <= bank.nearest(queries) + 1e-4).all()
    loaded.save(tmp_path / "bank")
    assert len(MemoryBank.load(tmp_path / "bank")) == 2950
    assert len(list((tmp_path / "bank").iterdir())) == 3  # what the old bank.json named is gone


def test_a_mapped_bank_that_was_replaced_is_not_changed_by_mistake(tmp_path: Path) -> None:
    MemoryBank(_blobs(2000), index="ivf").save(tmp_path)
    loaded = MemoryBank.load(tmp_path)
    before = loaded.nearest(_blobs(20, seed=1))
    MemoryBank(_blobs(1000), index="ivf").save(tmp_path)
    assert torch.equal(loaded.nearest(_blobs(20, seed=1)), before)
    with pytest.raises(AnomalyError, match="was replaced meanwhile"):
        loaded.add(_blobs(5))


def test_a_mapped_bank_is_not_read_into_memory(tmp_path: Path) -> None:
    MemoryBank(torch.randn(60_000, 256), index="SQfp16").save(tmp_path / "bank")  # 31 MB
    code = (
        "import re, sys, torch; from pathlib import Path; from anomaly.memory_bank import MemoryBank\n"
        "anonymous = lambda: int(re.search(r'RssAnon:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])\n"
        "before = anonymous(); bank = MemoryBank.load(sys.argv[1]); print(anonymous() - before, len(bank))"
    )
    if not Path("/proc/self/status").exists():
        pytest.skip("needs /proc to tell a process's own memory")
    grown, size = subprocess.check_output([sys.executable, "-c", code, str(tmp_path / "bank")], text=True).split()
    assert int(size) == 60_000
    assert int(grown) < 12_000  # kB


def test_vectors_are_for_exporters_and_only_where_they_are_held() -> None:
    vectors = _blobs(2000)
    for spec in ("exact", "ivf", "hnsw", "Flat"):
        assert torch.equal(MemoryBank(vectors, index=spec).vectors, vectors)
    for spec in ("sq8", "pca", "PCA8,Flat", "HNSW16,SQ8"):
        with pytest.raises(AnomalyError, match="compressed patches, not the vectors"):
            _ = MemoryBank(vectors, index=spec).vectors


@pytest.mark.parametrize("part", ["bank.json", "index", "images"])
@pytest.mark.parametrize("harm", ["cut", "flip", "missing"])
@pytest.mark.parametrize("spec", ["exact", "ivf"])
def test_a_damaged_file_gives_one_clear_error(tmp_path: Path, spec: str, part: str, harm: str) -> None:
    folder = tmp_path / "bank"
    MemoryBank(_blobs(500), index=spec).save(folder)
    file = next(folder.glob(f"{part}*"))
    content = bytearray(file.read_bytes())
    if harm == "missing":
        file.unlink()
    else:
        content[len(content) // 2] ^= 0xFF
        file.write_bytes(content if harm == "flip" else content[: len(content) // 2])
    with pytest.raises(AnomalyError, match=r"damaged|holds no memory bank"):
        MemoryBank.load(folder)


def test_a_bank_of_another_version_says_so(tmp_path: Path) -> None:
    MemoryBank(_blobs(50)).save(tmp_path)
    header = json.loads((tmp_path / "bank.json").read_text())
    (tmp_path / "bank.json").write_text(json.dumps({**header, "format": "prunecore-bank/9"}))
    with pytest.raises(AnomalyError, match=r"prunecore-bank/9.*fit it anew"):
        MemoryBank.load(tmp_path)


FULL_DISK = """
import resource, signal, sys, torch
from anomaly import AnomalyError
from anomaly.memory_bank import MemoryBank
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
bank = MemoryBank(torch.randn(4000, 64), index=sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    bank.save(sys.argv[1])
except AnomalyError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process are POSIX")
@pytest.mark.parametrize("spec", ["exact", "ivf"])
def test_a_full_disk_is_told_and_leaves_the_old_bank(tmp_path: Path, spec: str) -> None:
    old = MemoryBank(_blobs(100))
    old.save(tmp_path / "bank")
    told = subprocess.check_output([sys.executable, "-c", FULL_DISK, str(tmp_path / "bank"), spec], text=True)
    assert "cannot write the memory bank" in told
    assert torch.equal(MemoryBank.load(tmp_path / "bank").vectors, old.vectors)
    assert not list((tmp_path / "bank").glob(".*"))


READ = """
import sys, torch
from anomaly.memory_bank import MemoryBank
torch.set_num_threads(1)
queries = torch.load(sys.argv[2], weights_only=True)
for _ in range(5):
    bank = MemoryBank.load(sys.argv[1])
    print(len(bank), float(bank.nearest(queries).double().sum()))
"""


@pytest.mark.parametrize("spec", ["exact", "IVF16,SQ8"])
def test_processes_read_one_bank_while_another_replaces_it(tmp_path: Path, spec: str) -> None:
    folder, queries = tmp_path / "bank", _blobs(64, seed=1)
    torch.save(queries, tmp_path / "queries.pt")
    small, large = MemoryBank(_blobs(2000), index=spec), MemoryBank(_blobs(4000), index=spec)
    small.save(folder)
    command = [sys.executable, "-c", READ, str(folder), str(tmp_path / "queries.pt")]
    readers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    while any(reader.poll() is None for reader in readers):
        for bank in (large, small):
            bank.save(folder)
    expected = {len(bank): float(bank.nearest(queries).double().sum()) for bank in (small, large)}
    for reader in readers:
        assert reader.returncode == 0
        lines = [line.split() for line in reader.communicate()[0].splitlines()]
        assert len(lines) == 5
        for size, total in lines:
            assert float(total) == pytest.approx(expected[int(size)], rel=1e-6)


def test_faiss_takes_torchs_threads_and_gives_them_back(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    bank = MemoryBank(_blobs(500), index="Flat")
    monkeypatch.setattr(bank._index, "_search", lambda *a, **k: seen.append(faiss.omp_get_max_threads()) or (1, 1))
    before = faiss.omp_get_max_threads()
    bank.nearest(_blobs(3))
    assert seen[0] == torch.get_num_threads()
    assert faiss.omp_get_max_threads() == before


def test_a_graphics_card_takes_larger_blocks() -> None:
    on_cpu = exact._block(torch.empty(0), None)
    assert on_cpu[0] * on_cpu[1] * 4 == 8 << 20


@pytest.mark.parametrize("part", ["bank.json", "index", "images"])
def test_a_pipe_in_a_bank_is_refused_and_nobody_waits_for_it(tmp_path: Path, part: str) -> None:
    MemoryBank(_blobs(50)).save(tmp_path / "bank")
    file = next((tmp_path / "bank").glob(f"{part}*"))
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(AnomalyError, match="is a pipe: name a file"):
        MemoryBank.load(tmp_path / "bank")
