"""Embedding and scoring options by hand, budgets of memory, and the commands that compare them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from networks import Pixels
from typer.testing import CliRunner

from anomaly import AnomalyError, Embedding, PatchCore, Sample, Scoring
from anomaly.images import load_image
from anomaly.memory_bank import MemoryBank
from anomaly.memory_budget import images_within
from anomaly.patch_embedding import embed_patches
from anomaly.scoring import reweighted, score_images, top_mean
from pipelines.cli import app
from pipelines.evaluate import DetectorSettings
from reports.choices import INDEX_COLUMNS, Choice, choices_csv, choices_figure, choices_markdown, choices_table
from reports.errors import ReportError


def test_pooling_by_hand() -> None:
    shallow = torch.zeros(1, 1, 4, 4)
    shallow[0, 0, 1, 1] = 9.0
    assert embed_patches([shallow], Embedding(kernel=1))[0, 1, 1, 0] == 9
    assert embed_patches([shallow], Embedding("max"))[0, :3, :3, 0].eq(9).all()
    both = embed_patches([shallow], Embedding("both"))
    assert both.shape == (1, 4, 4, 2)
    assert both[0, 0, 0].tolist() == [1.0, 9.0]
    strided = embed_patches([shallow, torch.ones(1, 2, 2, 2)], Embedding(stride=2))
    assert strided.shape == (1, 2, 2, 3)
    assert embed_patches([shallow], Embedding(padding=0)).shape == (1, 2, 2, 1)


def test_width_keeps_some_channels_in_their_order_by_the_seed() -> None:
    maps = [torch.arange(6.0).view(1, 6, 1, 1).expand(1, 6, 4, 4), 6 + torch.zeros(1, 2, 2, 2)]
    first = embed_patches(maps, Embedding(kernel=1, width=3, draw="first"))
    assert first[0, 0, 0].tolist() == [0, 1, 2]
    drawn = [embed_patches(maps, Embedding(kernel=1, width=5, seed=seed))[0, 0, 0].tolist() for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] == sorted(drawn[0])
    assert drawn[0] != drawn[2]
    whole = embed_patches(maps, Embedding(width=8))
    assert torch.equal(whole, embed_patches(maps))
    with pytest.raises(AnomalyError, match="width 9 is more than the 8 channels"):
        embed_patches(maps, Embedding(width=9))


def test_a_width_that_leaves_a_map_empty_still_has_the_size_of_the_first() -> None:
    maps = [torch.rand(1, 4, 8, 8), torch.rand(1, 4, 4, 4)]
    patches = embed_patches(maps, Embedding(width=2, draw="first"))
    assert patches.shape == (1, 8, 8, 2)
    assert torch.allclose(patches, embed_patches(maps)[..., :2])


def test_equation_7_by_hand() -> None:
    # t = 0, m* at distance 1, its other neighbours at 2 and 3 from t
    farthest = torch.zeros(1, 2)
    around = torch.tensor([[[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]]])
    weight = 1 - math.e / (math.e + math.e**2 + math.e**3)
    assert float(reweighted(farthest, around[:, 0], around)) == pytest.approx(weight * 1.0)
    far = 1000 * around  # exp(1000) is no float: the quotient still is
    assert float(reweighted(farthest, far[:, 0], far)) == pytest.approx(1000.0)


def test_reweighting_through_a_bank_equals_a_plain_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors, patches = torch.randn(200, 6, generator=generator), torch.randn(4, 5, 5, 6, generator=generator)
    bank = MemoryBank(vectors)
    distances = bank.nearest(patches.flatten(0, 2)).view(4, 5, 5)
    scores = score_images(distances, patches, bank, Scoring("reweighted", neighbours=4))
    for image in range(4):
        flat = patches[image].flatten(0, 1)
        table = torch.cdist(flat, vectors)
        t = flat[table.amin(dim=1).argmax()]
        star = vectors[(vectors - t).norm(dim=1).argmin()]
        near = vectors[(vectors - star).norm(dim=1).argsort()[:4]]
        d = (star - t).norm()
        expected = (1 - d.exp() / (near - t).norm(dim=1).exp().sum()) * d
        assert float(scores[image]) == pytest.approx(float(expected), rel=1e-4)


def test_an_index_that_misses_m_star_among_its_own_neighbours_changes_no_sign() -> None:
    vectors = torch.randn(600, 16, generator=torch.Generator().manual_seed(0))
    bank = MemoryBank(vectors, index="IVF16,PQ4x4")
    patches = vectors[:9].view(1, 3, 3, 16) + 0.5
    distances = bank.nearest(patches.flatten(0, 2)).view(1, 3, 3)
    assert float(score_images(distances, patches, bank, Scoring("reweighted"))) >= 0


def test_top_mean_by_hand() -> None:
    distances = torch.tensor([[[1.0, 5.0], [3.0, 2.0]]])
    assert top_mean(distances, 2).tolist() == [4.0]
    assert top_mean(distances, 1).tolist() == [5.0]
    assert top_mean(distances, 99).tolist() == [2.75]


def test_k_neighbours_average_a_patchs_distance(good: list[Sample]) -> None:
    def fitted(k: int) -> PatchCore:
        return PatchCore(Pixels(), mean=(0, 0, 0), std=(1, 1, 1), coreset=0.1, scoring=Scoring(map_neighbours=k)).fit(
            good
        )

    patches = torch.rand(1, 2, 2, 4)
    one, three = fitted(1), fitted(3)
    expected = torch.cdist(patches.flatten(0, 2), three.bank.vectors).topk(3, largest=False).values.mean(dim=1)
    assert torch.allclose(three.search(patches).flatten(), expected, atol=1e-3)
    assert (three.search(patches) >= one.search(patches)).all()


def test_the_bank_knows_the_image_of_each_patch(good: list[Sample]) -> None:
    detector = PatchCore(Pixels(), mean=(0, 0, 0), std=(1, 1, 1), coreset=1.0, sampler="full").fit(good)
    assert torch.bincount(detector.bank.images).tolist() == [784] * 4
    batch = load_image(good[1].image)[None]
    kept = float(detector.predict(batch).scores[0])
    detector.bank.remove(torch.tensor([1]))
    assert detector.predict(batch).scores[0] > 2 * kept


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: Embedding("median"), "no pooling 'median': there are average, max, both"),
        (lambda: Embedding(draw="last"), "no way 'last'"),
        (lambda: Embedding(draw="first"), "give a width too"),
        (lambda: embed_patches([torch.zeros(1, 2, 4, 4)], Embedding(kernel=7, padding=0)), "kernel 7 is larger than"),
        (
            lambda: score_images(
                torch.ones(1, 1, 1), torch.ones(1, 1, 1, 2), MemoryBank(torch.zeros(1, 2)), Scoring("reweighted")
            ),
            "it has 1 patch: keep more, or take max",
        ),
        (lambda: Embedding(kernel=0), "kernel 0 of the patch embedding is below 1"),
        (lambda: Embedding(padding=2), "padding 2 is more than half the kernel 3"),
        (lambda: Scoring("mean"), "no image score 'mean': there are max, reweighted, top_mean"),
        (lambda: Scoring(neighbours=1), "neighbours 1 of the scoring is below 2"),
        (lambda: PatchCore(Pixels(), mean=(0,), std=(1,), index="hnws"), "perhaps hnsw"),
    ],
)
def test_options_that_mean_nothing_are_refused(made: object, message: str) -> None:
    with pytest.raises(AnomalyError, match=message):
        made()  # type: ignore[operator]


def test_a_budget_makes_batches_smaller_and_changes_no_score(good: list[Sample]) -> None:
    maps, patches = [torch.empty(1, 128, 28, 28), torch.empty(1, 256, 14, 14)], torch.empty(1, 28, 28, 384)
    assert images_within(None, maps, patches) == 16
    assert images_within(4 * 10**9, maps, patches) == 16
    assert 1 <= images_within(64 * 10**6, maps, patches) < 8
    assert images_within(1, maps, patches) == 1
    batch = torch.stack([load_image(sample.image) for sample in good])
    free, tight = (
        PatchCore(Pixels(), mean=(0, 0, 0), std=(1, 1, 1), coreset=1.0, sampler="full", memory=memory)
        for memory in (None, 10**6)
    )
    free.fit(good[:2])
    tight._bank = free.bank
    assert tight.batch_size(batch[0]) < 16
    assert torch.equal(free.predict(batch).scores, tight.predict(batch).scores)


def test_settings_that_nobody_changed_leave_the_key_of_a_run_alone() -> None:
    assert set(DetectorSettings().key()) == {"coreset", "bank_size", "seed", "timing"}
    changed = DetectorSettings(index="ivf", scoring=Scoring("top_mean")).key()
    assert changed["index"] == "ivf"
    assert json.dumps(changed["scoring"]) == '{"image": "top_mean", "neighbours": 9, "top": 10, "map_neighbours": 1}'


def _run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.output


def test_evaluate_takes_the_options_and_times_every_stage(tiny_dataset: Path, tmp_path: Path) -> None:
    file = tmp_path / "row.json"
    _run(
        *("evaluate", "mobilenet_v3_small", "--weights", "none", "--dataset", str(tiny_dataset), "--timing"),
        *("--category", "printed_grid", "--index", "IVF8,SQ8", "--score", "reweighted", "--pooling", "max"),
        *("--width", "16", "--memory", "200M", "-o", str(file)),
    )
    row = json.loads(file.read_text())
    assert (row["index"], row["dimension"]) == ("IVF8,SQ8", 16)
    for stage in ("decode", "features", "embedding", "search", "scoring", "total"):
        assert 0 < row[f"ms_{stage}"] <= row[f"ms_{stage}_p95"]
    assert row["predict_rss_bytes"] > 0


def test_index_report_compares_the_indexes(tiny_dataset: Path, tmp_path: Path) -> None:
    output = _run(
        *("index-report", "mobilenet_v3_small", "--weights", "none", "--dataset", str(tiny_dataset), "--timed", "2"),
        *("--category", "printed_grid", "--indexes", "exact Flat SQ8 PCA999,SQ8", "-o", str(tmp_path / "out")),
    )
    assert "PCA999,SQ8 left out" in output
    report = json.loads((tmp_path / "out" / "choices.json").read_text())
    exact, flat, sq8 = report["choices"]
    assert exact["recall"] == 1
    assert flat["recall"] > 0.99
    assert flat["image_auroc"] == exact["image_auroc"]
    assert sq8["bank_bytes"] < flat["bank_bytes"] / 3
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "choices.md", "choices.csv", "choices.json", "figure.png", "figure.svg",
    }  # fmt: skip


def test_study_of_taps(tiny_dataset: Path, tmp_path: Path) -> None:
    _run(
        *("study", "taps", "mobilenet_v3_small", "--weights", "none", "--dataset", str(tiny_dataset)),
        *("--category", "printed_grid", "--bank-size", "50", "-o", str(tmp_path)),
    )
    ways = json.loads((tmp_path / "choices.json").read_text())["choices"]
    assert [way["taps"] for way in ways] == ["features.3", "features.8", "features.3,features.8"]
    assert ways[0]["dimension"] + ways[1]["dimension"] == ways[2]["dimension"]
    assert all(way["ms_search"] > 0 for way in ways)


def test_an_unknown_study_is_refused() -> None:
    result = CliRunner().invoke(app, ["study", "taxes", "resnet18"])
    assert result.exit_code == 2
    assert "taps" in result.output


def test_choices_as_table_markdown_csv_and_figure() -> None:
    choices = [
        Choice("exact", {"recall": 1.0, "image_auroc": 0.957, "bank_bytes": 9e7, "ms_search": 60.0}),
        Choice("pca|ivf", {"recall": 0.9, "image_auroc": 0.955, "bank_bytes": 6e6, "ms_search": 12.0}),
    ]
    table = choices_table(choices, INDEX_COLUMNS, head="index")
    assert table.rows[0][:5] == ["exact", "1.000", "0.957", "n/a", "90.0 MB"]
    told = choices_markdown(choices, INDEX_COLUMNS, head="index", title="What", notes="threads: 2")
    assert r"| pca\|ivf | 0.900 | 0.955 | n/a | 6.0 MB |" in told
    assert choices_csv(choices, INDEX_COLUMNS, head="index").splitlines()[1].startswith("exact,1.0,0.957")
    costs = [column for column in INDEX_COLUMNS if column.name in ("ms_search", "bank_bytes")]
    drawn = choices_figure(choices, costs, title="What an index costs")
    assert drawn["figure.png"].startswith(b"\x89PNG")
    assert b"<svg" in drawn["figure.svg"]
    with pytest.raises(ReportError, match="0 ways"):
        choices_table([], INDEX_COLUMNS, head="index")
    with pytest.raises(ReportError, match="no way has an image AUROC"):
        choices_figure([Choice("exact", {"ms_search": 1.0})], costs, title="")
