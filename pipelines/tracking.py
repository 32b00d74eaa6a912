"""Runs told to an MLflow tracking store. MLflow is imported when one is asked for."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from compress.errors import CompressError
from pipelines.console import note
from pipelines.results import failure_file

EXPERIMENT = "prunecore"
_KEY = "prunecore.key"  # the tag that says what a run was made from
_REASON = "prunecore.failed"
_MAX_TEXT = 5000  # characters that MLflow takes in a parameter or a tag
# Numbers in a row that were asked for; all others are results.
_SETTINGS = ("ratio", "seed", "sparse_steps", "recover_steps", "threads")


class Tracker:
    """The MLflow store at `uri`: one MLflow run for each row, its numbers as metrics, the row itself as an artifact.

    A row that is there already (by its key) is not told twice. A store that fails is noted once and then left alone:
    the rows in the folder of results are what counts, and the same sweep tells them to the store later.

    Raises:
        CompressError: MLflow is not installed.
    """

    def __init__(self, uri: str) -> None:
        # What is measured here is told to nobody else, and a dead server is not waited for.
        for name, value in {
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
            "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        }.items():
            os.environ.setdefault(name, value)
        try:
            import mlflow
        except ImportError as error:
            raise CompressError("--mlflow needs MLflow: pip install 'prunecore[mlflow]'") from error
        self._mlflow: Any = mlflow
        self._uri = uri
        self._client: Any = None
        self._experiment = ""
        self._works = True

    def done(self, folder: Path, names: Iterable[str]) -> None:
        """Tell of the rows with these names in a folder of results."""
        for name in sorted(names):
            self._safely(self._tell_row, folder, folder / f"{name}.json", name)

    def failed(self, folder: Path, name: str) -> None:
        """Tell of a run that failed."""
        self._safely(self._tell_failure, folder, failure_file(folder, name), name)

    def _safely(self, tell: Callable[[Path, str], None], folder: Path, file: Path, name: str) -> None:
        if not self._works:
            return
        try:
            self._open()
            tell(file, name)
        except Exception as error:  # whatever a client, a database driver or a network raises
            self._works = False
            reason = str(error).strip().partition("\n")[0]
            note(f"MLflow fails and is told no more ({reason}); the results are in {folder}")

    def _tell_row(self, file: Path, name: str) -> None:
        row = json.loads(file.read_text())
        key = row.pop("key")
        told = f"tags.`{_KEY}` = '{key}' and attributes.status = 'FINISHED'"  # not one that the store failed in
        if self._client.search_runs([self._experiment], told):
            return
        entities, now = self._mlflow.entities, round(time.time() * 1000)
        settings = {name: value for name, value in row.items() if name in _SETTINGS or isinstance(value, (str, dict))}
        run = self._client.create_run(self._experiment, tags={_KEY: key}, run_name=name).info.run_id
        self._client.log_batch(
            run,
            params=[entities.Param(name, str(value)[:_MAX_TEXT]) for name, value in settings.items()],
            metrics=[
                entities.Metric(name, float(value), now, 0)
                for name, value in row.items()
                if name not in settings and value is not None
            ],
        )
        self._client.log_artifact(run, str(file))
        self._client.set_terminated(run)

    def _tell_failure(self, file: Path, name: str) -> None:
        reason = str(json.loads(file.read_text())["failed"])
        run = self._client.create_run(self._experiment, tags={_REASON: reason[:_MAX_TEXT]}, run_name=name).info.run_id
        self._client.log_artifact(run, str(file))
        self._client.set_terminated(run, "FAILED")

    def _open(self) -> None:
        if self._client is None:
            client = self._mlflow.MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)
            found = client.get_experiment_by_name(EXPERIMENT)
            self._experiment = found.experiment_id if found else client.create_experiment(EXPERIMENT)
            self._client = client
