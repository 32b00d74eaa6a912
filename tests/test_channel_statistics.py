"""Statistics of channels: by hand, against two passes in float64, and whatever the order; where the regions are."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import compress
from compress import CompressError
from compress.channel_statistics import ChannelStatistics, RunningStatistics
from compress.importance.activations import collect_statistics
from compress.importance.batches import batches
from compress.pruning import channel_groups

Images = list[Tensor]
T = TypeVar("T")


@pytest.fixture(scope="module")
def images() -> Images:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, 256, (3, 60 + i, 90), dtype=torch.uint8, generator=generator) for i in range(9)]


@pytest.fixture(autouse=True)
def _full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same on every processor."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)


def test_statistics_by_hand() -> None:
    running = RunningStatistics()
    running.add(torch.tensor([[1.0, -2.0], [3.0, 0.0]]))
    running.add(torch.tensor([[5.0, 2.0], [7.0, 4.0]]))
    found = running.result()
    assert found.l1.tolist() == [4, 2]
    assert found.variance.tolist() == [5, 5]
    assert found.sparsity.tolist() == [0, 0.5]  # zero is silent


def test_weights_count_a_position_as_often_as_they_say() -> None:
    values = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    weighted, repeated = RunningStatistics(), RunningStatistics()
    weighted.add(values, torch.tensor([0.0, 1, 2, 3, 0, 1]))
    repeated.add(values[[1, 2, 2, 3, 3, 3, 5]])
    _assert_close(weighted.result(), repeated.result())


def test_a_part_of_weight_zero_changes_nothing() -> None:
    running = RunningStatistics()
    running.add(torch.full((4, 2), 1e30), torch.zeros(4))
    assert running.weight == 0
    running.add(torch.ones(4, 2))
    assert running.result().l1.tolist() == [1, 1]


def test_merged_statistics_are_those_of_one_stream() -> None:
    values = torch.randn(90, 3, generator=torch.Generator().manual_seed(0))
    streamed, merged, nothing = RunningStatistics(), RunningStatistics(), RunningStatistics()
    for part in values.split([1, 40, 49]):
        streamed.add(part)
        own = RunningStatistics()
        own.add(part)
        merged.merge(own)
        merged.merge(nothing)
    assert merged.weight == 90
    _assert_same(merged.result(), streamed.result())


@pytest.mark.parametrize("offset", [0.0, 1e4, -1e4])
def test_streamed_statistics_are_those_of_two_passes(offset: float) -> None:
    """Sums of squares in float32 would lose a variance of 1 beside an offset of 10,000 altogether."""
    values = offset + torch.randn(40_000, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.5, 1, 2])
    running = RunningStatistics()
    for part in values.split([1, 999, 19_000, 20_000]):
        running.add(part)
    exact = values.double().numpy()
    found = running.result()
    np.testing.assert_allclose(found.variance, exact.var(axis=0), rtol=1e-5)
    np.testing.assert_allclose(found.l1, np.abs(exact).mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(found.sparsity, (exact <= 0).mean(axis=0), atol=1e-12)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 100.0, 1e4]), st.data())
def test_neither_order_nor_parts_matter(seed: int, offset: float, data: st.DataObject) -> None:
    values = offset + torch.randn(60, 4, generator=torch.Generator().manual_seed(seed))
    whole, streamed = RunningStatistics(), RunningStatistics()
    whole.add(values)
    cuts = sorted(data.draw(st.sets(st.integers(1, 59), max_size=8)))
    parts = list(torch.tensor_split(values, cuts))
    for part in data.draw(st.permutations(parts)):
        streamed.add(part)
    _assert_close(whole.result(), streamed.result(), rtol=1e-4)


def test_every_place_is_read_as_the_next_layer_reads_it(resnet18: compress.Backbone, images: Images) -> None:
    """Against maps kept whole: the input of a convolution is the map after the activation."""
    groups, _ = channel_groups(resnet18)
    found = collect_statistics(resnet18, groups, images, batch=4)
    block = resnet18.trunk.get_submodule("layer2.1")
    kept = []
    hook = block.get_submodule("conv2").register_forward_pre_hook(lambda layer, inputs: kept.append(inputs[0]))
    with torch.no_grad():
        maps = [resnet18(x) for x in batches(images, resnet18, 9)]
    hook.remove()
    _assert_close(found["layer2.1.conv2"], _in_two_passes(torch.cat(kept)), rtol=1e-3)
    _assert_close(found["layer3"], _in_two_passes(maps[0][1]), rtol=1e-3)
    assert 0.1 < found["layer2.1.conv2"].sparsity.mean() < 0.9


def test_a_map_that_several_layers_read_is_reduced_once(resnet18: compress.Backbone, images: Images) -> None:
    groups, _ = channel_groups(resnet18)
    found = collect_statistics(resnet18, groups, images)
    assert found["layer3.0.conv1"] is found["layer3.0.downsample.0"] is found["layer2"]
    assert found["layer3.0.conv1"] is not found["layer3.0.conv2"]


def test_every_group_is_read_somewhere() -> None:
    for name in ("mobilenet_v3_small", "densenet121"):
        backbone = compress.create_backbone(name, weights="none")
        groups, _ = channel_groups(backbone)
        found = collect_statistics(backbone, groups, [torch.zeros(3, 8, 8, dtype=torch.uint8)] * 8)
        for group in groups:
            places = {own.name for own in group.members if not own.outputs} | {own.stage for own in group.maps}
            assert places & set(found), group.root


def test_the_batch_size_does_not_matter_and_the_backbone_is_left_alone(
    resnet18: compress.Backbone, images: Images
) -> None:
    groups, _ = channel_groups(resnet18)
    one, all_at_once = (collect_statistics(resnet18, groups, images, batch=size) for size in (1, 9))
    for name, statistics in one.items():
        _assert_close(statistics, all_at_once[name], rtol=1e-3)
    assert not any(layer._forward_pre_hooks for layer in resnet18.modules())


@pytest.mark.parametrize("threads", [2, 3])
def test_two_or_three_threads_find_what_one_finds(
    resnet18: compress.Backbone, images: Images, on_threads: Callable[[int], None], threads: int
) -> None:
    """Bit for bit, also where each image has a region of its own."""
    groups, _ = channel_groups(resnet18)
    boxes = [torch.tensor([[10 + i, 10, 80, 50 - i]]) for i in range(9)]
    for regions in (None, boxes):
        on_threads(1)
        alone = collect_statistics(resnet18, groups, images, regions=regions)
        on_threads(threads)
        for name, statistics in collect_statistics(resnet18, groups, images, regions=regions).items():
            _assert_same(statistics, alone[name])


def test_threads_tell_their_progress_and_their_errors(
    resnet18: compress.Backbone, images: Images, on_threads: Callable[[int], None]
) -> None:
    on_threads(2)
    groups, _ = channel_groups(resnet18)
    shown = []

    def track(steps: Iterable[T], description: str, total: int) -> Iterator[T]:
        for step in steps:
            yield step
            shown.append((description, total))

    collect_statistics(resnet18, groups, images, track=track)
    assert shown == [("statistics", len(shown))] * len(shown)
    assert len(shown) > 1
    with pytest.raises(CompressError, match=r"image 5 is torch.float32 \(3, 8, 8\)"):
        collect_statistics(resnet18, groups, [*images[:5], torch.rand(3, 8, 8), *images[6:]], track=track)
    assert torch.get_num_threads() == 2
    assert not any(thread.name.startswith("batch") for thread in threading.enumerate())


def test_a_region_gives_the_statistics_of_the_cropped_map(resnet18: compress.Backbone) -> None:
    """On 256 x 256 images the view is the centre; a region aligned to the stride is a crop of the tapped map."""
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 256, (3, 256, 256), dtype=torch.uint8, generator=generator) for _ in range(8)]
    groups, _ = channel_groups(resnet18)
    mask = torch.zeros(256, 256, dtype=torch.bool)
    mask[16 + 32 : 16 + 96, 16 + 64 : 16 + 224] = True
    box = torch.tensor([[16 + 64, 16 + 32, 16 + 224, 16 + 96]])
    by_mask, by_box = (collect_statistics(resnet18, groups, images, regions=[own] * 8) for own in (mask, box))
    with torch.no_grad():
        maps = resnet18(next(batches(images, resnet18, 8)))
    _assert_close(by_mask["layer2"], _in_two_passes(maps[0][:, :, 4:12, 8:28]), rtol=1e-3)
    _assert_close(by_mask["layer3"], _in_two_passes(maps[1][:, :, 2:6, 4:14]), rtol=1e-3)
    _assert_close(by_mask["layer3"], by_box["layer3"])
    everywhere = collect_statistics(resnet18, groups, images, regions=[None] * 8)
    _assert_close(everywhere["layer2"], _in_two_passes(maps[0]), rtol=1e-3)


def test_images_whose_region_is_empty_do_not_count(resnet18: compress.Backbone, images: Images) -> None:
    groups, _ = channel_groups(resnet18)
    none = [torch.zeros(own.shape[1:], dtype=torch.bool) for own in images]
    first = collect_statistics(resnet18, groups, images, regions=[None, *none[1:]], batch=1)
    alone = collect_statistics(resnet18, groups, [images[0]] * 8)
    _assert_close(first["layer2"], alone["layer2"], rtol=1e-3)
    with pytest.raises(CompressError, match="regions are empty"):
        collect_statistics(resnet18, groups, images, regions=none)


@pytest.mark.parametrize(
    ("region", "message"),
    [
        (torch.zeros(5, 5, dtype=torch.bool), r"region 0 is torch.bool \(5, 5\), its image 60 x 90"),
        (torch.zeros(60, 90), "give a bool mask of that size, or boxes"),
        ([[0, 0, 9, 9]], "region 0 is a list: give a tensor"),
        (torch.tensor([[0, 0, 91, 10]]), r"a box of region 0 is \(0, 0, 91, 10\), its image 90 x 60"),
        (torch.tensor([[9, 0, 9, 10]]), "boxes are .left, top, right, bottom. in pixels"),
    ],
)
def test_regions_that_do_not_fit_are_refused(
    resnet18: compress.Backbone, images: Images, region: Tensor, message: str
) -> None:
    groups, _ = channel_groups(resnet18)
    with pytest.raises(CompressError, match=message):
        collect_statistics(resnet18, groups, images, regions=[region] + [None] * 8)


def test_images_of_another_kind_are_refused(resnet18: compress.Backbone, images: Images) -> None:
    groups, _ = channel_groups(resnet18)
    with pytest.raises(CompressError, match=r"image 8 is torch.float32 \(3, 8, 8\)"):
        collect_statistics(resnet18, groups, [*images[:8], torch.rand(3, 8, 8)])


def test_activations_that_are_not_finite_are_refused(images: Images) -> None:
    broken = compress.create_backbone("resnet18", weights="none")
    with torch.no_grad():
        broken.trunk.get_parameter("layer1.0.conv1.weight")[0, 0, 0, 0] = float("nan")
    groups, _ = channel_groups(broken)
    with pytest.raises(CompressError, match=r"activations at .* are not finite"):
        collect_statistics(broken, groups, images)


@pytest.fixture
def on_threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def _in_two_passes(feature_map: Tensor) -> ChannelStatistics:
    """Of (N, C, H, W), in float64."""
    values = feature_map.double().transpose(0, 1).flatten(1)
    return ChannelStatistics(values.abs().mean(1), values.var(1, correction=0), (values <= 0).double().mean(1))


def _assert_same(one: ChannelStatistics, other: ChannelStatistics) -> None:
    for found, expected in zip(dataclasses.astuple(one), dataclasses.astuple(other), strict=True):
        assert torch.equal(found, expected)


def _assert_close(one: ChannelStatistics, other: ChannelStatistics, rtol: float = 1e-5) -> None:
    torch.testing.assert_close(one.l1, other.l1, rtol=rtol, atol=1e-6)
    torch.testing.assert_close(one.variance, other.variance, rtol=rtol, atol=1e-6)
    torch.testing.assert_close(one.sparsity, other.sparsity, rtol=0, atol=1e-3)
