"""The benchmark of a whole prediction: its sums and its table."""

from __future__ import annotations

from benchmarks.predict_latency import STAGES, _by_stage, table


def test_stages_are_sums_of_the_last_run() -> None:
    def node(name: str, start: int, duration: int) -> dict[str, object]:
        return {"cat": "Node", "name": f"{name}_kernel_time", "ts": start, "dur": duration}

    events = [
        {"cat": "Session", "name": "model_run", "ts": 0, "dur": 100},
        node("features/conv1", 10, 90_000),
        {"cat": "Session", "name": "model_run", "ts": 200, "dur": 100},
        node("preprocess/crop/Slice_0", 201, 1000),
        node("preprocess/If_7", 201, 2000),
        node("features/conv1", 210, 3000),
        node("ReorderOutput", 220, 500),
        node("search/Gemm_1", 230, 4000),
    ]
    found = _by_stage(events)
    assert found == {"preprocess": 2.0, "features": 3.5, "embedding": 0.0, "search": 4.0, "scoring": 0.0}


def test_the_table_tells_medians_and_their_ratio() -> None:
    slow, fast = ({**dict.fromkeys(STAGES, value), "total": 5 * value} for value in (2.0, 0.5))
    measured = {
        "threads": 2,
        "milliseconds": {"python": [slow] * 3, "exported": [{"total": 2.5}] * 3, "stages": [fast] * 3},
        "peak_rss_bytes": {"python": 9e8, "exported": 8e7, "stages": 8e7},
    }
    text = table(measured)
    assert "| search | 2.00 (2.00) | 0.50 (0.50) |" in text
    assert "| peak memory, MB | 900 | 80 |" in text
    assert text.endswith("4.0 times as fast, on 2 threads.")
