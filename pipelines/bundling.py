"""From a trained artifact to a file of weights that ships with the package.

    python -m pipelines.bundling resnet18.safetensors --teacher "..." --recipe "COMMAND" --settings recipe.toml

writes compress/bundled/ARCH.safetensors: what the artifact holds in float16, and a card in the header.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from compress import load_backbone
from compress.errors import CompressError
from compress.files import sha256_of_file
from compress.weights.bundled import FOLDER, Card, write_bundled


def bundle(artifact: Path, *, teacher: str, recipe: str, settings: Path, folder: Path = FOLDER) -> Path:
    """Write the weights of the dense backbone in `artifact` to `folder`; returns the file.

    Args:
        teacher: what it was distilled from, in words.
        recipe: the command that repeats the training.
        settings: the file with the training's settings; its SHA-256 goes into the card.

    Raises:
        CompressError: `artifact` is pruned or unreadable, or a value does not fit into float16.
    """
    backbone = load_backbone(artifact)
    if backbone.spec.pruning is not None:
        raise CompressError(f"{artifact} is pruned, and bundled weights are those of a dense network: give its parent")
    arch = backbone.spec.arch
    file = folder / f"{arch}.safetensors"
    write_bundled(file, backbone.trunk.state_dict(), Card(arch, teacher, recipe, sha256_of_file(settings)))
    return file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--teacher", required=True, help="what it was distilled from, in words")
    parser.add_argument("--recipe", required=True, help="the command that repeats the training")
    parser.add_argument("--settings", required=True, type=Path, help="the file with the settings of the training")
    given = parser.parse_args()
    file = bundle(given.artifact, teacher=given.teacher, recipe=given.recipe, settings=given.settings)
    print(f"wrote {file}, {file.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
