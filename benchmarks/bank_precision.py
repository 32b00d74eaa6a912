"""What a coarser memory bank costs: the table of docs/detector.md.

    python -m benchmarks.bank_precision BOTTLE.detector DATASET [--category NAME] [--threads 2]

Exports the detector with each precision of its bank, runs every file on the test images, and prints a row for each.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

from anomaly import Category, evaluate_scores
from anomaly.export import BankPrecision
from anomaly.images import load_masks
from pipelines.data import open_categories
from pipelines.detector_file import FittedDetector, load_detector
from pipelines.export import export_detector
from prunecore_runtime import Detector
from prunecore_runtime.images import read_image

HEADER = "| bank | image AUROC | pixel AUROC | scores off, of their range | file, MB | ms an image |"


def row(detector: FittedDetector, category: Category, precision: BankPrecision, threads: int) -> str:
    """One line of the Markdown table."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "detector.onnx")
        parity = export_detector(detector, file, precision)
        exported = Detector(file, threads=threads)
        size = file.stat().st_size
    predictions, times = [], []
    for sample in category.test:
        image = read_image(sample.image)
        start = time.perf_counter()
        predictions.append(exported.predict(image))
        times.append((time.perf_counter() - start) * 1000)
    labels = np.array([sample.is_defective for sample in category.test])
    masks = load_masks(category)
    scores = np.concatenate([each.scores for each in predictions])
    metrics = evaluate_scores(labels, scores, masks, np.concatenate([each.maps for each in predictions]))
    pixel = "n/a" if metrics.pixel_auroc is None else f"{metrics.pixel_auroc:.4f}"
    return (
        f"| {precision.value} | {metrics.image_auroc:.4f} | {pixel} | {parity.score:.1e} | {size / 1e6:.2f} "
        f"| {median(times):.2f} |"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("detector")
    parser.add_argument("dataset")
    parser.add_argument("--category")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    only = (arguments.category,) if arguments.category else ()
    (judged,) = open_categories((arguments.dataset,), only, track=lambda steps, description, total: iter(steps))
    fitted = load_detector(arguments.detector)
    print(f"{HEADER}\n|---|---:|---:|---:|---:|---:|")
    for each in BankPrecision:
        print(row(fitted, judged, each, arguments.threads), flush=True)
