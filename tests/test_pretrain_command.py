"""compress pretrain: recipes, what they make, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

import compress
from compress import CompressError
from compress.files import sha256_of_file
from compress.weights import bundled
from pipelines import pretraining
from pipelines.cli import app
from pipelines.pretraining import PretrainingRecipe, open_teacher, shipped_recipes

SMALL = """
arch = "{arch}"
teacher = "resnet18"
teacher_weights = "none"
images = ["photos"]
steps = 3
batch = 4
crop = 32
"""


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photographs: Path) -> None:
    """Each test in a folder of its own, with photographs and nothing of the machine's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PRUNECORE_DATA", raising=False)
    Path("photos").symlink_to(photographs)


def recipe(text: str = SMALL, arch: str = "mobilenet_v3_small") -> Path:
    file = Path("small.toml")
    file.write_text(text.format(arch=arch))
    return file


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["pretrain", *(str(argument) for argument in arguments)])


def test_the_command_writes_weights_that_any_network_of_the_architecture_takes() -> None:
    result = run(recipe(), "-o", "own.safetensors")
    assert result.exit_code == 0, result.output
    assert "wrote own.safetensors" in result.stdout
    assert not list(Path().glob("*.state*"))
    backbone = compress.create_backbone("mobilenet_v3_small", weights="own.safetensors")
    fresh = compress.create_backbone("mobilenet_v3_small", weights="none")
    changed = backbone.trunk.state_dict()["features.8.block.0.0.weight"]
    assert not changed.equal(fresh.trunk.state_dict()["features.8.block.0.0.weight"])


def test_the_same_recipe_gives_the_same_weights() -> None:
    for name in ("one", "two"):
        assert run(recipe(arch="resnet18"), "-o", f"{name}.safetensors").exit_code == 0
    one, two = (load_file(f"{name}.safetensors") for name in ("one", "two"))
    assert all(tensor.equal(two[name]) for name, tensor in one.items())


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_the_recipes_of_the_bundled_weights_ship_with_the_package(name: str) -> None:
    assert name in shipped_recipes()
    shipped = PretrainingRecipe.read(name)
    assert (shipped.name, shipped.arch, shipped.images[0]) == (name, name, "natural1k")
    assert shipped.steps >= 1000


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("steps = 3", "step = 3"), "unknown key 'step'"),
        (("steps = 3", ""), "lacks steps"),
        (("steps = 3", 'steps = "3"'), "steps = '3': int is needed"),
        (('images = ["photos"]', "images = [3]"), "a list of str is needed"),
        (("batch = 4", "batch = 1"), "batch 1 of a training recipe must be at least 2"),
        (("steps = 3", "steps = ["), "is no TOML"),
        (('images = ["photos"]', 'images = ["nowhere"]'), "nowhere does not exist"),
        (('teacher = "resnet18"', 'teacher = "resnet"'), "unknown architecture 'resnet'"),
        (("steps = 3", "steps = 0"), "0 steps of training"),
    ],
)
def test_a_recipe_that_means_nothing_is_refused_in_one_line(change: tuple[str, str], complaint: str) -> None:
    result = run(recipe(SMALL.replace(*change)), "-o", "own.safetensors")
    assert result.exit_code == 2, result.output
    assert complaint in result.stderr
    assert "Traceback" not in result.stderr
    assert not Path("own.safetensors").exists()


def test_a_recipe_that_is_not_there_is_refused_with_those_that_are() -> None:
    result = run("vgg", "-o", "own.safetensors")
    assert result.exit_code == 2
    assert "there is no recipe vgg: give a TOML file or mobilenet_v3_small, resnet18" in result.stderr


def test_weights_that_do_not_fit_are_refused() -> None:
    assert run(recipe(), "-o", "own.safetensors").exit_code == 0
    tensors = load_file("own.safetensors")
    tensors.pop("features.0.0.weight")
    save_file(tensors, "part.safetensors")
    with pytest.raises(CompressError, match=r"lack 1 of \d+ tensors"):
        compress.create_backbone("mobilenet_v3_small", weights="part.safetensors")


def test_the_card_of_a_file_tells_how_it_was_made(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(recipe(), "-o", "mobilenet_v3_small.safetensors").exit_code == 0
    monkeypatch.setattr(bundled, "FOLDER", Path())
    card = bundled.card_of("mobilenet_v3_small")
    assert card.teacher == "pretrained on resnet18 (none (seed 0))"
    assert card.recipe == "compress pretrain small.toml -o mobilenet_v3_small.safetensors"
    assert card.recipe_sha256 == sha256_of_file("small.toml")
    assert card.teacher_sha256 == ""  # random weights


def test_the_card_has_the_teachers_checksum_and_a_command_for_a_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = Path("a teacher.safetensors")
    save_file(compress.create_backbone("resnet18", weights="none", seed=3).trunk.state_dict(), teacher)
    file = recipe(SMALL.replace('"none"', f'"{teacher}"')).rename("a recipe.toml")
    output = Path("mobilenet_v3_small.safetensors").absolute()
    assert run(file, "-o", output, "--device", "cpu").exit_code == 0
    monkeypatch.setattr(bundled, "FOLDER", Path())
    card = bundled.card_of("mobilenet_v3_small")
    assert card.recipe == "compress pretrain 'a recipe.toml' -o mobilenet_v3_small.safetensors --device cpu"
    assert card.teacher_sha256 == sha256_of_file(teacher)


def test_a_bundled_teacher_must_be_asked_for(bundled_stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else our own copy would teach itself wherever the official weights are not to be had."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: "no cache")
    text = SMALL.replace('teacher = "resnet18"', 'teacher = "mobilenet_v3_small"')
    refused = run(recipe(text.replace('"none"', '"local"')), "-o", "own.safetensors")
    assert refused.exit_code == 2, refused.output
    assert "only the bundled mobilenet_v3_small, which was itself taught" in refused.stderr
    assert not Path("own.safetensors").exists()
    assert open_teacher(PretrainingRecipe.read(str(recipe(text.replace('"none"', '"bundled"')))))


def test_what_a_recipe_says_is_checked_before_teacher_and_images_are_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretraining, "create_backbone", lambda *given, **options: pytest.fail("opened"))
    for change, complaint in (
        (('arch = "{arch}"', 'arch = "resnet"'), "unknown architecture 'resnet'"),
        (("batch = 4", "batch = 1"), "batch 1 of"),
        (("steps = 3", "steps = -1"), "-1 steps"),
        (('images = ["photos"]', "images = []"), "names no images"),
    ):
        result = run(recipe(SMALL.replace(*change)), "-o", "own.safetensors")
        assert result.exit_code == 2, result.output
        assert complaint in result.stderr
