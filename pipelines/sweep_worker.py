"""What does the runs of a sweep: in this process, or in others that open the same plan."""

from __future__ import annotations

import contextlib
import io
import os
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from anomaly.decoded_images import DecodedImages
from anomaly.progress import Track, quiet
from compress.errors import CompressError
from compress.training import Report
from pipelines.backbone_store import BackboneStore
from pipelines.engines.interface import BUSY, DONE, FAILED, KEPT, Ended, is_refusal, reason
from pipelines.evaluate import evaluate
from pipelines.evidence import Evidence
from pipelines.locks import trying
from pipelines.results import Row, is_finished, write_failure, write_result
from pipelines.run_records import RUNNING, Record, now, read_records, run_lock, write_record
from pipelines.sweep_plan import SweepPlan
from pipelines.sweep_runs import SweepRun, open_runs


@dataclass(frozen=True)
class SweepTask:
    """What another process begins with (`pipelines.engines.Task`): paths in it are relative to `place`.

    `keys` are (name, key) of the runs: a worker that would make one from something else refuses it.
    """

    plan: SweepPlan
    folder: Path
    command: str
    place: Path
    keys: tuple[tuple[str, str], ...]

    def open(self) -> SweepWorker:
        """A worker of the process that calls this."""
        try:
            os.chdir(self.place)
        except OSError as error:
            raise CompressError(f"no folder {self.place} on this machine: all workers need the same folders") from error
        with contextlib.redirect_stderr(io.StringIO()):  # who began the sweep has told of weights and datasets
            runs = open_runs(self.plan)
        return SweepWorker(runs, self.folder, self.command, keys=dict(self.keys))


class SweepWorker:
    """Does `runs` into `folder`, each under its lock, so that no other sweep is at it at the same time.

    `keys` are those that were asked for, under the names of the runs; by default what `runs` say.
    """

    def __init__(
        self,
        runs: Sequence[SweepRun],
        folder: Path,
        command: str,
        *,
        keys: Mapping[str, str] | None = None,
        track: Track = quiet,
        report: Report | None = None,
    ) -> None:
        self._keys = keys or {run.name: run.key for run in runs}
        self._runs = {run.name: run for run in runs}
        self._folder, self._command, self._track = folder, command, track
        self._decoded = DecodedImages()
        self._store = BackboneStore(folder / "backbones", track=track, report=report)

    def __call__(self, name: str, wait: bool) -> Ended:
        """Do the run `name`, unless it is finished; see `pipelines.engines.Do`.

        Raises:
            CompressError: its results cannot be written.
        """
        run, key = self._runs.get(name), self._keys[name]
        with trying(run_lock(self._folder, name), wait=wait) as free:
            if not free:
                return Ended(name, BUSY)
            if is_finished(self._folder, name, key):
                return Ended(name, KEPT)
            if run is None or run.key != key:
                return self._fail(name, self._begun(name), _other_inputs(run))
            return self._do(run)

    def give_up(self, lost: Ended) -> Ended:
        """Record that a run was lost too often, unless another sweep has finished it; waits for one that is at it."""
        with trying(run_lock(self._folder, lost.name), wait=True):
            if is_finished(self._folder, lost.name, self._keys[lost.name]):
                return Ended(lost.name, KEPT)
            recorded = read_records(self._folder).get(lost.name)
            mine = recorded if recorded and recorded.key == self._keys[lost.name] else self._begun(lost.name)
            return self._fail(lost.name, mine, lost.text, lost.trace)

    def _do(self, run: SweepRun) -> Ended:
        record = self._begun(run.name)
        write_record(self._folder, run.name, record)
        start = time.perf_counter()
        try:
            row, evidence, seconds = self._evaluated(run)
        except Exception as error:
            # A night of runs is not to end with one of them, whatever it died of.
            trace = "" if is_refusal(error) else traceback.format_exc()
            record = replace(record, seconds=time.perf_counter() - start, made=self._store.take_made())
            return self._fail(run.name, record, reason(error), trace)
        write_result(self._folder, run.name, row, evidence, run.key)
        ended = replace(
            record,
            state=DONE,
            seconds=time.perf_counter() - start,
            evaluate_seconds=seconds,
            made=self._store.take_made(),
        )
        write_record(self._folder, run.name, ended)
        return Ended(run.name, DONE, "" if row.image_auroc is None else f"image AUROC {row.image_auroc:.3f}")

    def _begun(self, name: str) -> Record:
        run = self._runs.get(name)
        return Record(RUNNING, self._keys[name], run.kind if run else "", now(), os.getpid())

    def _fail(self, name: str, record: Record, why: str, trace: str = "") -> Ended:
        write_failure(self._folder, name, why, record.key, trace)
        write_record(self._folder, name, replace(record, state=FAILED))
        return Ended(name, FAILED, why, trace)

    def _evaluated(self, run: SweepRun) -> tuple[Row, Evidence, float]:
        """The results, and the seconds that the detector took."""
        backbone = self._store.get(run.request)
        start = time.perf_counter()
        row, evidence = evaluate(
            backbone,
            run.category,
            run.settings,
            command=self._command,
            data_fingerprint=run.data_fingerprint,
            decoded=self._decoded,
            track=self._track,
        )
        return row, evidence, time.perf_counter() - start


def _other_inputs(run: SweepRun | None) -> str:
    own = f" (weights {run.request.parent.spec.weights.source})" if run else ""
    return (
        f"a worker finds other weights, images or data{own} than the process that began the sweep: "
        "give both the same files and variables, and name a file in place of --weights auto"
    )
