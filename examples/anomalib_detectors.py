"""A slim backbone inside anomalib's Patchcore, Padim and STFPM, each trained and tested on one surface.

pip install 'prunecore[anomalib]'
compress prune --arch resnet18 --weights bundled --ratio 0.3 -o slim.safetensors
compress generate --train 16 --good 8 --per-defect 2 -o surfaces/
python examples/anomalib_detectors.py slim.safetensors surfaces/ woven_fabric
"""

import sys

from anomalib.data import MVTecAD
from anomalib.engine import Engine
from anomalib.models import Padim, Patchcore, Stfpm
from anomalib.models.components import AnomalibModule, TimmFeatureExtractor
from anomalib.pre_processing import PreProcessor
from lightning.pytorch import seed_everything
from torchvision.transforms.v2 import Compose, Normalize, Resize

import compress


def layers(slim: compress.Backbone) -> list[str]:
    """The tapped stages under the names that anomalib finds them by in the module that it is handed."""
    return [f"trunk.{stage}" for stage in slim.feature_info.module_name()]


def patchcore(slim: compress.Backbone, images: PreProcessor) -> AnomalibModule:
    return Patchcore(slim, layers(slim), coreset_sampling_ratio=0.01, pre_processor=images, visualizer=False)


def padim(slim: compress.Backbone, images: PreProcessor) -> AnomalibModule:
    features = min(100, sum(slim.feature_info.channels()))  # anomalib has a default for two networks only
    return Padim(slim, layers(slim), n_features=features, pre_processor=images, visualizer=False)


def stfpm(slim: compress.Backbone, images: PreProcessor) -> AnomalibModule:
    detector = Stfpm(slim, layers(slim), pre_processor=images, visualizer=False)
    # anomalib traces the one module that it was handed twice: teacher and student would share their parameters.
    student = compress.reinitialise(slim).train()
    detector.model.student_model = TimmFeatureExtractor(student, layers(slim), requires_grad=True)
    return detector


DETECTORS = {"Patchcore": (patchcore, 1), "Padim": (padim, 1), "STFPM": (stfpm, 20)}  # and their epochs


def main(file: str, dataset: str, category: str) -> None:
    for name, (build, epochs) in DETECTORS.items():
        seed_everything(0)
        slim = compress.load_backbone(file)
        images = PreProcessor(Compose([Resize((256, 256), antialias=True), Normalize(slim.mean, slim.std)]))
        data = MVTecAD(dataset, category, train_batch_size=4, eval_batch_size=8, num_workers=0)
        engine = Engine(max_epochs=epochs, logger=False)
        detector = build(slim, images)
        engine.fit(detector, datamodule=data)
        (found,) = engine.test(detector, datamodule=data, verbose=False)
        print(f"{name}: image AUROC {found['image_AUROC']:.3f}, pixel AUROC {found['pixel_AUROC']:.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
