"""Every row, every field, unrounded: as a data frame for notebooks, as CSV and as Parquet."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence

import pandas as pd

from reports.errors import ReportError
from reports.runs import Run

FIELDS = (
    *("arch", "method", "ratio", "scope", "recover", "precision", "dataset", "category", "seed"),
    *("params_full", "params_used", "macs_full", "macs_used", "file_bytes", "bank_size"),
    *("image_auroc", "image_f1", "pixel_auroc", "pixel_f1", "aupro"),
    *("ms_features", "ms_embedding", "ms_search", "ms_scoring", "ms_total", "peak_rss_bytes"),
    *("command", "versions", "machine", "threads", "data_fingerprint", "weights_source", "weights_fingerprint"),
)


def frame(runs: Sequence[Run]) -> pd.DataFrame:
    """One line per run; columns are `FIELDS`, then any other fields in alphabetical order.

    Columns of numbers get a number type, and NaN where a value is not available.
    """
    return _raw(runs).infer_objects()


def results_csv(runs: Sequence[Run]) -> str:
    """The frame as CSV: what is not available is an empty field, nested values are JSON."""
    return _raw(runs, _field).to_csv(index=False, lineterminator="\n")


def results_parquet(runs: Sequence[Run]) -> bytes:
    """The frame as Parquet: numbers keep their type, nested values are JSON, as is a column of mixed types.

    Raises:
        ReportError: pyarrow is not installed.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ReportError(
            "Parquet needs pyarrow: pip install 'prunecore[parquet]', or leave that format out"
        ) from error
    raw = _raw(runs, _field)
    columns = {}
    for name in raw.columns:
        values = [None if value != value else value for value in raw[name]]  # NaN is not available either
        legal = name.encode("utf-8", "backslashreplace").decode("utf-8")  # Arrow refuses lone surrogates
        try:
            columns[legal] = pyarrow.array(values)
        except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError, OverflowError, UnicodeEncodeError):
            columns[legal] = pyarrow.array([None if value is None else json.dumps(value) for value in values])
    out = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), out)
    return out.getvalue()


def _raw(runs: Sequence[Run], told: Callable[[object], object] = lambda value: value) -> pd.DataFrame:
    extra = sorted({str(name) for run in runs for name in run.row} - set(FIELDS))
    names = [*FIELDS, *extra]
    # Objects, not columns of one type: an integer beside a missing value stays an integer.
    # So do the names: pandas would make Arrow strings of them where pyarrow is, which refuse lone surrogates.
    rows = [[told(run.row.get(name)) for name in names] for run in runs]
    return pd.DataFrame(rows, columns=pd.Index(names, dtype=object), dtype=object)


def _field(value: object) -> object:
    return json.dumps(value, sort_keys=True, default=str) if isinstance(value, (dict, list, tuple)) else value
