"""What does the runs of a sweep: in this process, or in others that open the same plan."""

from __future__ import annotations

import contextlib
import io
import os
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from anomaly.decoded_images import DecodedImages
from anomaly.errors import AnomalyError
from anomaly.progress import Track, quiet
from compress.errors import CompressError
from compress.training import Report
from pipelines.backbone_store import BackboneStore
from pipelines.console import note
from pipelines.engines.interface import BUSY, DONE, FAILED, KEPT, Ended
from pipelines.evaluate import evaluate
from pipelines.evidence import Evidence
from pipelines.locks import trying
from pipelines.results import Row, is_finished, write_failure, write_result
from pipelines.run_records import RUNNING, Record, now, run_lock, write_record
from pipelines.sweep_plan import SweepPlan
from pipelines.sweep_runs import SweepRun, open_runs


@dataclass(frozen=True)
class SweepTask:
    """What another process begins with (`pipelines.engines.Task`): paths in it are relative to `place`."""

    plan: SweepPlan
    folder: Path
    command: str
    place: Path

    def open(self) -> SweepWorker:
        """A worker of the process that calls this."""
        try:
            os.chdir(self.place)
        except OSError as error:
            raise CompressError(f"no folder {self.place} on this machine: all workers need the same folders") from error
        with contextlib.redirect_stderr(io.StringIO()):  # who began the sweep has told of weights and datasets
            runs = open_runs(self.plan)
        return SweepWorker(runs, self.folder, self.command)


class SweepWorker:
    """Does `runs` into `folder`, each under its lock, so that no other sweep is at it at the same time."""

    def __init__(
        self,
        runs: Sequence[SweepRun],
        folder: Path,
        command: str,
        *,
        track: Track = quiet,
        report: Report | None = None,
    ) -> None:
        self._runs = {run.name: run for run in runs}
        self._folder, self._command, self._track = folder, command, track
        self._decoded = DecodedImages()
        self._store = BackboneStore(folder / "backbones", track=track, report=report)

    def __call__(self, name: str, wait: bool) -> Ended:
        """Do the run `name`, unless it is finished; see `pipelines.engines.Do`.

        Raises:
            CompressError: its results cannot be written.
        """
        run = self._runs[name]
        with trying(run_lock(self._folder, name), wait=wait) as free:
            if not free:
                return Ended(name, BUSY)
            if is_finished(self._folder, name, run.key):
                return Ended(name, KEPT)
            return self._do(run)

    def _do(self, run: SweepRun) -> Ended:
        record = Record(RUNNING, run.key, run.kind, now(), os.getpid())
        write_record(self._folder, run.name, record)
        start = time.perf_counter()
        try:
            row, evidence, seconds = self._evaluated(run)
        except Exception as error:
            # A night of runs is not to end with one of them, whatever it died of.
            if not isinstance(error, (CompressError, AnomalyError)):
                note(traceback.format_exc().rstrip())
            reason = (
                str(error) if isinstance(error, (CompressError, AnomalyError)) else f"{type(error).__name__}: {error}"
            )
            write_failure(self._folder, run.name, reason)
            ended = replace(record, state=FAILED, seconds=time.perf_counter() - start, made=self._store.take_made())
            write_record(self._folder, run.name, ended)
            return Ended(run.name, FAILED, reason)
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
