"""The recipes of the weights that ship with the package: from a TOML file to a trained network."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from torch import Tensor

from anomaly.progress import Track, quiet
from compress import Backbone, Recipe, create_backbone
from compress.errors import CompressError, unknown
from compress.files import sha256_of_file
from compress.pretraining import pretrain
from compress.textures import Textures
from compress.training import Report, Run
from pipelines.image_sets import ImageSet, open_images
from pipelines.places import find_weights

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class PretrainingRecipe:
    """How a network is trained from random weights.

    Attributes:
        name: of the file.
        sha256: of the file.
        arch, teacher: architectures; `teacher_weights` as `compress.create_backbone` takes them.
        images: folders of photographs, here or in `PRUNECORE_DATA`.
        textures: how many random textures are added to them, see `compress.textures`; 0 for none.
        steps, batch, crop, lr, seed: see `compress.training.Recipe` and `Run`.
    """

    name: str
    sha256: str
    arch: str
    teacher: str
    images: tuple[str, ...]
    steps: int
    teacher_weights: str = "auto"
    textures: int = 0
    batch: int = 32
    crop: int = 112
    lr: float = 6e-3
    seed: int = 0

    @classmethod
    def read(cls, name: str) -> PretrainingRecipe:
        """The recipe in a TOML file, or the one of that name that ships with the package.

        Raises:
            CompressError: there is none, it is no TOML, or a key is unknown, missing or of another type.
        """
        file = FOLDER / f"{name}.toml" if name in shipped_recipes() else Path(name)
        try:
            given = tomllib.loads(file.read_text())
        except OSError as error:
            known = ", ".join(shipped_recipes())
            raise CompressError(
                f"cannot read the recipe {name} ({error.strerror}): give a TOML file or {known}"
            ) from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise CompressError(f"{file} is no TOML: {error}") from error
        fields = {field.name: field for field in dataclasses.fields(cls) if field.name not in ("name", "sha256")}
        for key in given:
            if key not in fields:
                raise unknown("key", key, fields, f"in {file}")
        missing = [key for key, field in fields.items() if field.default is dataclasses.MISSING and key not in given]
        if missing:
            raise CompressError(f"{file} lacks {', '.join(missing)}: add them")
        values = {key: _value(file, key, value) for key, value in given.items()}
        return cls(name=file.stem, sha256=sha256_of_file(file), **values)

    @property
    def training(self) -> Recipe:
        """How each step is made."""
        # Held-out checks end no training: while the teacher forces, they say little about its end.
        return Recipe(lr=self.lr, batch=self.batch, crop=self.crop, check_every=250, patience=max(self.steps, 1))


class WithTextures(Sequence[Tensor]):
    """Photographs and, after them, random textures."""

    def __init__(self, photographs: ImageSet, textures: Textures) -> None:
        self.fingerprint = f"{photographs.fingerprint} {textures.fingerprint}"
        self._photographs, self._textures = photographs, textures

    def __len__(self) -> int:
        return len(self._photographs) + len(self._textures)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> list[Tensor]: ...
    def __getitem__(self, index: int | slice) -> Tensor | list[Tensor]:
        places = range(len(self))[index]
        return self._at(places) if isinstance(places, int) else [self._at(place) for place in places]

    def _at(self, place: int) -> Tensor:
        here = len(self._photographs)
        return self._photographs[place] if place < here else self._textures[place - here]


def follow(
    recipe: PretrainingRecipe,
    *,
    device: str = "auto",
    checkpoint: Path | None = None,
    track: Track = quiet,
    report: Report | None = None,
) -> Backbone:
    """The backbone that `recipe` makes.

    Raises:
        CompressError: the teacher's weights or the images are not to be had; see `compress.pretraining.pretrain`.
    """
    teacher = create_backbone(recipe.teacher, weights=find_weights(recipe.teacher, recipe.teacher_weights))
    photographs = open_images(recipe.images, track=track)
    images = WithTextures(photographs, Textures(recipe.textures, seed=recipe.seed)) if recipe.textures else photographs
    run = Run(recipe.steps, recipe.training, recipe.seed, device, checkpoint, track, report)
    return pretrain(recipe.arch, teacher, images, run)


def shipped_recipes() -> list[str]:
    """Names of the recipes that ship with the package."""
    return sorted(file.stem for file in FOLDER.glob("*.toml"))


def _value(file: Path, key: str, value: Any) -> Any:
    """The value of a key, checked for its type."""
    if key == "images":
        if not (isinstance(value, list) and value and all(isinstance(each, str) for each in value)):
            raise CompressError(f"{file}: images = {value!r}: a list of folders is needed")
        return tuple(value)
    wanted = {"lr": (float, int)}.get(key, (str,) if key in ("arch", "teacher", "teacher_weights") else (int,))
    if type(value) not in wanted:
        raise CompressError(f"{file}: {key} = {value!r}: {wanted[0].__name__} is needed")
    return value
