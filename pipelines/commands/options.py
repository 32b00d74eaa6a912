"""Options that several commands share, and what their texts mean."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from anomaly.progress import Track
    from pipelines.slimming import Images

BANK = "Memory bank: which patches of the training images it keeps"
DETECTOR = "Detector: how patches are made, searched and scored"
CALIBRATION = "Calibration: how the ranges of int8 activations are found"
MIXED = "Mixed precision: which layers stay float"
TRAINING = "Training: the sparse phase before the cut, the recovery after it"

Weights = Annotated[
    str,
    typer.Option(
        help="auto (the first of: $PRUNECORE_DATA/weights, the cache of ImageNet weights, the offline package, a "
        "download, unless PRUNECORE_OFFLINE=1, the bundled ones), local (the same without a download), imagenet "
        "(downloads), bundled (in this package), offline (efficientnet_lite0 out of a Python package), none (random) "
        "or a FILE."
    ),
]
Taps = Annotated[
    str | None, typer.Option(help="Stages whose feature maps are used, e.g. layer2,layer3. Default: strides 8 and 16.")
]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of every random choice.")]
OwnSeed = Annotated[
    int | None,
    typer.Option(min=0, max=2**63 - 1, help="Seed of every random choice. Default: the artifact's own."),
]
Dataset = Annotated[
    str,
    typer.Option(help="generated, elpv, a folder (layouts: compress datasets) or one in $PRUNECORE_DATA/data."),
]
Coreset = Annotated[
    float,
    typer.Option(help="Share of the training patches that the memory bank keeps, in (0, 1].", rich_help_panel=BANK),
]
BankSize = Annotated[
    int | None,
    typer.Option(
        help="Number of patches that the memory bank keeps, instead of --coreset: the same for every category, so that "
        "times compare.",
        rich_help_panel=BANK,
    ),
]
Sampler = Annotated[
    str,
    typer.Option(
        help="How they are chosen: greedy (k-centre, as in the paper), two_level (the same part by part, for more "
        "patches than memory holds; radius at most 4 times the best, where greedy has 2), random or full (all).",
        rich_help_panel=BANK,
    ),
]
Coverage = Annotated[
    float | None,
    typer.Option(
        help="Stop early, once every training patch lies within this distance of the bank. The line 'bank:' of a run "
        "without it says which distances there are.",
        rich_help_panel=BANK,
    ),
]
Memory = Annotated[
    str | None,
    typer.Option(
        help="What the patches of the training images may take while the bank is chosen, e.g. 4G (more of them: "
        "--features with --sampler two_level), and later the prediction of a batch.",
        rich_help_panel=BANK,
    ),
]
Features = Annotated[
    Path | None,
    typer.Option(
        help="Folder to keep the training patches in, 1.2 MB an image for ResNet-18: a killed run goes on with them, a "
        "later one with another bank starts from them. Yours to delete.",
        rich_help_panel=BANK,
    ),
]
FeaturesDtype = Annotated[
    str, typer.Option(help="float32, or float16 for half the space in --features.", rich_help_panel=BANK)
]
Index = Annotated[
    str,
    typer.Option(
        help="How the bank is searched. auto: exact, and small and fast (pca_ivf) beyond 1 GB; exact; ivf, hnsw; sq8, "
        "fp16, ivf_pq, pca, pca_ivf, which compress; or a FAISS factory string such as PCA64,IVF256,SQ8. compress "
        "index-report shows what each costs.",
        rich_help_panel=DETECTOR,
    ),
]
Latency = Annotated[
    float | None,
    typer.Option(
        help="For --index auto: milliseconds that the search of one image should take. Exact where this machine "
        "manages, else ivf.",
        rich_help_panel=DETECTOR,
    ),
]
Score = Annotated[
    str,
    typer.Option(
        help="The image's score: max, its largest patch distance; reweighted, that times a weight by the neighbours in "
        "the bank (Roth et al. 2022, eq. 7); top_mean, steadier, the mean of the --top largest.",
        rich_help_panel=DETECTOR,
    ),
]
Neighbours = Annotated[int, typer.Option(help="b, for --score reweighted.", rich_help_panel=DETECTOR)]
Top = Annotated[int, typer.Option(help="Patches that --score top_mean averages.", rich_help_panel=DETECTOR)]
MapNeighbours = Annotated[
    int,
    typer.Option(help="A patch's distance is the mean to so many nearest neighbours.", rich_help_panel=DETECTOR),
]
Pooling = Annotated[
    str,
    typer.Option(
        help="What a patch knows of its neighbourhood: its average, its max, or both (twice the length).",
        rich_help_panel=DETECTOR,
    ),
]
Kernel = Annotated[
    int, typer.Option(help="Side of that neighbourhood in map positions; 1: none.", rich_help_panel=DETECTOR)
]
Stride = Annotated[
    int, typer.Option(help="Step between neighbourhoods; 2: a quarter of the patches.", rich_help_panel=DETECTOR)
]
Padding = Annotated[
    int | None,
    typer.Option(
        help="Zeros around the maps. Default: half the kernel; an odd one keeps the size.", rich_help_panel=DETECTOR
    ),
]
Width = Annotated[
    int | None,
    typer.Option(help="Use so many of the maps' channels; every later stage is cheaper.", rich_help_panel=DETECTOR),
]
Draw = Annotated[str, typer.Option(help="Which channels: random (from the seed) or first.", rich_help_panel=DETECTOR)]
ImageFolders = Annotated[
    str | None,
    typer.Option(
        "--images",
        help="Folders of photographs to train and calibrate on, comma-separated; no labels needed. A dataset's good "
        "training images may be among them (the name generated or elpv stands for them), its test images never. "
        "The names scenes and textures stand for images drawn at random, where photographs are few or none.",
        rich_help_panel=TRAINING,
    ),
]
LabelledFolder = Annotated[
    str | None,
    typer.Option(
        "--labelled",
        help="A folder with a folder of photographs for each class (ImageNet's layout), to train on the classes.",
        rich_help_panel=TRAINING,
    ),
]
Steps = Annotated[
    int | None, typer.Option(min=1, help="Steps of the recovery. Default: its own.", rich_help_panel=TRAINING)
]
Device = Annotated[
    str, typer.Option(help="Where training runs: auto (CUDA if there is one), cpu or cuda.", rich_help_panel=TRAINING)
]
Calibrate = Annotated[
    str,
    typer.Option(
        "--calibration",
        help="minmax (all that was seen), percentile (outliers clipped), entropy (Kullback-Leibler, as TensorRT) or "
        "mse (least squared error).",
        rich_help_panel=CALIBRATION,
    ),
]
Percentile = Annotated[float, typer.Option(help="What percentile keeps, in per cent.", rich_help_panel=CALIBRATION)]
CalibrationCount = Annotated[
    int, typer.Option(help="Images to calibrate on at most, spread evenly.", rich_help_panel=CALIBRATION)
]
KeepFloat = Annotated[
    list[str] | None,
    typer.Option(
        help="Layers to leave in float: a name or a pattern like 'layer1.*'; may be repeated.",
        rich_help_panel=MIXED,
    ),
]
Backend = Annotated[
    str,
    typer.Option(
        help="What int8 is made for: onnxruntime, or openvino (pip install 'prunecore\\[openvino]').",
        rich_help_panel=CALIBRATION,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def open_training_images(images: str | None, labelled: str | None, *, track: Track) -> Images:
    """What `--images` and `--labelled` name."""
    from pipelines.image_sets import open_images, open_labelled_images
    from pipelines.slimming import Images

    return Images(
        open_images(listed(images) or (), track=track) if images is not None else None,
        open_labelled_images(labelled, track=track) if labelled is not None else None,
    )


def listed(text: str | None) -> tuple[str, ...] | None:
    """The parts of a comma-separated list; None where the option was not given."""
    return None if text is None else tuple(part.strip() for part in text.split(",") if part.strip())


def numbers(option: str, text: str, kind: type[Any]) -> tuple[Any, ...]:
    """The numbers of a comma-separated list, each made by `kind`.

    Raises:
        CompressError: a part is no number; the message names `option`.
    """
    from compress.errors import CompressError

    try:
        return tuple(kind(part) for part in listed(text) or ())
    except ValueError:
        raise CompressError(f"{option} {text!r} is no comma-separated list of numbers, like 0,0.3,0.5") from None
