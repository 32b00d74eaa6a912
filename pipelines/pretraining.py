"""The recipes of the weights that ship with the package: from a TOML file to a trained network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from anomaly.progress import Track, quiet
from compress import Backbone, Recipe, create_backbone
from compress.architectures import find_architecture
from compress.errors import CompressError
from compress.files import sha256_of_file
from compress.pretraining import RECIPE, pretrain
from compress.training import Report, Run
from pipelines.image_sets import open_images
from pipelines.places import find_weights
from pipelines.toml_fields import read_fields

FOLDER = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class PretrainingRecipe:
    """How a network is trained from random weights.

    Attributes:
        name: of the file.
        sha256: of the file.
        arch, teacher: architectures; `teacher_weights` as `compress.create_backbone` takes them. Only a recipe that
            says `bundled` learns from bundled weights: a copy of a copy is not what `auto` is meant to make.
        images: as `open_images` takes them, such as folders of photographs, here or in `PRUNECORE_DATA`.
        steps, batch, crop, lr, frozen_norms, seed: see `compress.training.Recipe` and `Run`.
    """

    name: str
    sha256: str
    arch: str
    teacher: str
    images: tuple[str, ...]
    steps: int
    teacher_weights: str = "auto"
    batch: int = RECIPE.batch
    crop: int = RECIPE.crop
    lr: float = RECIPE.lr
    frozen_norms: float = RECIPE.frozen_norms
    seed: int = 0

    def __post_init__(self) -> None:
        for arch in (self.arch, self.teacher):
            find_architecture(arch)  # refuses what there is not, as the next line does
        Run(self.steps, self.training, self.seed)
        if not self.images:
            raise CompressError(f"the recipe {self.name} names no images: give folders of photographs")

    @classmethod
    def read(cls, name: str) -> PretrainingRecipe:
        """The recipe in a TOML file, or the one of that name that ships with the package.

        Raises:
            CompressError: there is none, or a key or value in it means nothing.
        """
        if name not in shipped_recipes() and not Path(name).is_file():
            raise CompressError(f"there is no recipe {name}: give a TOML file or {', '.join(shipped_recipes())}")
        file = FOLDER / f"{name}.toml" if name in shipped_recipes() else Path(name)
        own = ("name", "sha256")
        fields = read_fields(file, cls, besides=own)  # first: it refuses a file that is too large to be a recipe
        return cls(file.stem, sha256_of_file(file), **fields)

    @property
    def training(self) -> Recipe:
        """How each step is made."""
        # Held-out checks end no training: while the teacher forces, they say little about its end.
        settings = {name: getattr(self, name) for name in ("lr", "batch", "crop", "frozen_norms")}
        return replace(RECIPE, patience=max(self.steps, 1), **settings)


def open_teacher(recipe: PretrainingRecipe) -> Backbone:
    """The teacher that `recipe` names.

    Raises:
        CompressError: its weights are not to be had, or are the bundled ones and the recipe does not say so.
    """
    teacher = create_backbone(recipe.teacher, weights=find_weights(recipe.teacher, recipe.teacher_weights))
    if teacher.spec.weights.source == "bundled" != recipe.teacher_weights:
        raise CompressError(
            f"the teacher's own weights are not here, only the bundled {recipe.teacher}, which was itself taught: set "
            'PRUNECORE_DATA or let them be downloaded, or write teacher_weights = "bundled" into a recipe'
        )
    return teacher


def follow(
    recipe: PretrainingRecipe,
    teacher: Backbone,
    *,
    device: str = "auto",
    checkpoint: Path | None = None,
    track: Track = quiet,
    report: Report | None = None,
) -> Backbone:
    """The backbone that `recipe` makes with its teacher.

    Raises:
        CompressError: the images are not to be had; see `compress.pretraining.pretrain`.
    """
    images = open_images(recipe.images, track=track)
    run = Run(recipe.steps, recipe.training, recipe.seed, device, checkpoint, track, report)
    return pretrain(recipe.arch, teacher, images, run)


def shipped_recipes() -> list[str]:
    """Names of the recipes that ship with the package."""
    return sorted(file.stem for file in FOLDER.glob("*.toml"))
