"""How long a whole prediction takes, from decoded image to score and map: PyTorch with FAISS against the exported file.

    python -m benchmarks.predict_latency DENSE.detector SLIM.onnx IMAGE [--threads 2] [--rounds 60] [-o times.json]

DENSE.detector (compress fit) is run as Python runs it, SLIM.onnx (compress export) as prunecore_runtime does. Each has
a process of its own, whose peak of resident memory is its own; they predict in turns, so that a slow second slows both,
on as many threads each as told. `preprocess` begins with the decoded image: Pillow's resize, the crop, the
normalisation. The stages of the exported file are sums over its nodes by ONNX Runtime's profiler, in a third process,
because profiling costs time too; what runs between the nodes is in the total alone.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from PIL import Image

STAGES = ("preprocess", "features", "embedding", "search", "scoring")
PAUSE = 0.03  # seconds
UNTIMED = 5  # predictions before each that is timed
PROFILED = 6  # predictions in a profile, of which the last counts
Times = dict[str, float]


def python_detector(file: str, image: Image.Image, threads: int) -> Callable[[], Times]:
    """One prediction of the fitted detector, stage by stage."""
    import torch

    from anomaly.images import normalise
    from anomaly.scoring import anomaly_maps, image_scores
    from pipelines.detector_file import load_detector
    from prunecore_runtime.images import CROP, cropped, resized

    torch.set_num_threads(threads)
    import faiss
    import numpy as np

    faiss.omp_set_num_threads(threads)
    fitted = load_detector(file)
    detector = fitted.patchcore()
    del fitted

    def predict() -> Times:
        with torch.inference_mode():
            marks = [time.perf_counter()]
            pixels = torch.from_numpy(np.array(cropped(resized(image)))).permute(2, 0, 1).contiguous()
            batch = normalise(pixels[None], detector.mean, detector.std)
            marks.append(time.perf_counter())
            maps = detector.backbone(batch)
            marks.append(time.perf_counter())
            patches = detector.embed(maps)
            marks.append(time.perf_counter())
            distances = detector.search(patches)
            marks.append(time.perf_counter())
            image_scores(distances), anomaly_maps(distances, CROP)
            marks.append(time.perf_counter())
        return _between(marks)

    return predict


def exported_detector(file: str, image: Image.Image, threads: int) -> Callable[[], Times]:
    """One prediction of the exported file; only the whole is timed."""
    from prunecore_runtime import Detector

    detector = Detector(file, threads=threads)

    def predict() -> Times:
        start = time.perf_counter()
        detector.predict(image)
        return {"total": (time.perf_counter() - start) * 1000}

    return predict


def exported_stages(file: str, image: Image.Image, threads: int) -> Callable[[], Times]:
    """One profiled prediction of the file, stage by stage."""
    import numpy as np
    import onnxruntime

    from prunecore_runtime.images import resized

    def predict() -> Times:  # a profile is written when it ends, so each prediction has a session of its own
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        options.enable_profiling = True
        with tempfile.TemporaryDirectory() as folder:
            options.profile_file_prefix = str(Path(folder, "profile"))
            session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
            start = time.perf_counter()
            batch = np.asarray(resized(image))[None]
            outside = (time.perf_counter() - start) * 1000
            for _ in range(PROFILED):
                session.run(None, {"images": batch})
            events = json.loads(Path(session.end_profiling()).read_text())
        found = _by_stage(events)
        return {**found, "preprocess": found["preprocess"] + outside}

    return predict


def _by_stage(events: list[dict[str, Any]]) -> Times:
    """Milliseconds of each stage in the last run: nodes bear their stage in front of their names.

    What ONNX Runtime puts in between has no such name, and changes layouts around convolutions: `features`.
    """
    last = max(event["ts"] for event in events if event["name"] == "model_run")
    sums = dict.fromkeys(STAGES, 0.0)
    for event in events:
        stage, *within = event["name"].split("/")
        nested = stage == "preprocess" and len(within) > 1  # is in the time of its `If` already
        if event["cat"] == "Node" and event["name"].endswith("_kernel_time") and event["ts"] >= last and not nested:
            sums[stage if stage in sums else "features"] += event["dur"] / 1000
    return sums


def _between(marks: list[float]) -> Times:
    spans = [(later - before) * 1000 for before, later in itertools.pairwise(marks)]
    return {**dict(zip(STAGES, spans, strict=True)), "total": (marks[-1] - marks[0]) * 1000}


def _serve(make: Callable[[str, Image.Image, int], Callable[[], Times]], given: Any, link: Connection) -> None:
    """Answers each request with one prediction's times, and at the end with the peak of memory."""
    import resource

    file, picture, threads = given
    with Image.open(picture) as opened:
        predict = make(file, opened.convert("RGB"), threads)
    for _ in range(5):
        predict()
    link.send("ready")
    while link.recv():
        time.sleep(PAUSE)  # the threads of the process before wait for more work on busy cores
        for _ in range(UNTIMED):  # weights and threads come back
            predict()
        link.send(predict())
    link.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def measure(dense: str, slim: str, picture: str, threads: int, rounds: int) -> dict[str, Any]:
    """Times in milliseconds of each prediction, and peaks of memory in bytes."""
    fresh = multiprocessing.get_context("spawn")
    runs = {
        "python": (python_detector, dense),
        "exported": (exported_detector, slim),
        "stages": (exported_stages, slim),
    }
    links, processes = {}, []
    for name, (make, file) in runs.items():
        ours, theirs = fresh.Pipe()
        process = fresh.Process(target=_serve, args=(make, (file, picture, threads), theirs))
        process.start()
        links[name] = ours
        processes.append(process)
        theirs.close()
        ours.recv()
    times: dict[str, list[Times]] = {name: [] for name in links}
    for _ in range(rounds):
        for name, link in links.items():
            link.send(True)
            times[name].append(link.recv())
    peaks = {}
    for name, link in links.items():
        link.send(False)
        peaks[name] = link.recv()
    for process in processes:
        process.join()
    return {"threads": threads, "rounds": rounds, "milliseconds": times, "peak_rss_bytes": peaks}


def table(measured: dict[str, Any]) -> str:
    """Median and 95th percentile of every stage, as Markdown."""
    times = measured["milliseconds"]
    lines = ["| stage | PyTorch + FAISS, ms (p95) | exported, ms (p95) |", "|---|---:|---:|"]
    for stage in (*STAGES, "total"):
        exported = times["exported"] if stage == "total" else times["stages"]
        cells = [[each[stage] for each in own] for own in (times["python"], exported)]
        lines.append(f"| {stage} | {' | '.join(f'{median(own):.2f} ({_p95(own):.2f})' for own in cells)} |")
    peaks = measured["peak_rss_bytes"]
    lines.append(f"| peak memory, MB | {peaks['python'] / 1e6:.0f} | {peaks['exported'] / 1e6:.0f} |")
    ratio = median(each["total"] for each in times["python"]) / median(each["total"] for each in times["exported"])
    return "\n".join([*lines, "", f"{ratio:.1f} times as fast, on {measured['threads']} threads."])


def _p95(values: list[float]) -> float:
    return quantiles(values, n=20)[-1]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dense")
    parser.add_argument("slim")
    parser.add_argument("image")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    found = measure(arguments.dense, arguments.slim, arguments.image, arguments.threads, arguments.rounds)
    if arguments.output:
        arguments.output.write_text(json.dumps(found))
    print(table(found))
