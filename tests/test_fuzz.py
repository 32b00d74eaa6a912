"""Damaged inputs before every reader: a few hundred here, hundreds of thousands in docs/reliability.md."""

from __future__ import annotations

import json
import os
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from anomaly import AnomalyError
from anomaly.images import load_image
from anomaly.memory_bank import MemoryBank
from benchmarks.fuzz.damage import damaged, generator
from benchmarks.fuzz.limits import watched
from benchmarks.fuzz.reader import MIB, clear, lay_odd
from benchmarks.fuzz.records import evidence, row
from benchmarks.fuzz.worker import READERS, outcomes
from compress import CompressError, load_backbone, load_onnx
from pipelines.detector_file import load_detector
from pipelines.evidence import read_evidence
from pipelines.results import read_rows
from pipelines.sweep_plan import SweepPlan
from prunecore_runtime import Detector, DetectorError
from prunecore_runtime.one_line import one_line

PASS_OVER = ("results", "records", "image-set", "command-line")  # what is damaged, and read the rest; or exit
FEWER = {"results": 10, "command-line": 60, "artifact": 120, "detector": 120, "exported": 120, "onnx": 120}


@pytest.fixture
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "workshop").mkdir()
    (tmp_path / "inputs").mkdir()
    monkeypatch.chdir(tmp_path / "inputs")
    yield
    for place in (tmp_path / "inputs").iterdir():  # links to themselves, pipes
        clear(place)


@pytest.mark.usefixtures("_own_folder")
@pytest.mark.parametrize("name", READERS)
def test_damaged_inputs_are_read_or_refused_in_one_line(name: str, tmp_path: Path) -> None:
    reader = READERS[name](tmp_path / "workshop")
    complaints, refused = [], 0
    for index, outcome in outcomes(reader, name, 7, range(FEWER.get(name, 250)), tmp_path / "inputs"):
        refused += outcome.refused
        if outcome.complaint:
            complaints.append(f"{index}: {outcome.complaint}")
    assert not complaints, "\n".join(complaints[:3])
    assert refused or name in PASS_OVER, "no input was damaged enough to be refused"


@given(st.binary(max_size=300), st.integers(0, 2**32))
def test_a_damage_follows_from_its_seed(content: bytes, seed: int) -> None:
    assert damaged(generator(seed), content) == damaged(generator(seed), content)


def test_what_no_reader_may_do_is_noticed(tmp_path: Path) -> None:
    def complaint(read: object) -> str:
        outcome = watched(read, tmp_path, (CompressError,), MIB, alarm=False)  # type: ignore[arg-type]
        return outcome.complaint or ""

    def tell(message: str) -> None:
        error = CompressError("")
        error.args = (message,)  # past the class, which would mend it
        raise error

    def blow_up(_: Path) -> None:
        # Far more than what libraries of earlier tests may hand back to the system in the same moment.
        assert len(bytes(512 * MIB).replace(b"\0", b"x"))

    def run_out(_: Path) -> None:
        try:
            raise MemoryError
        except MemoryError as error:
            raise CompressError("too large") from error

    assert "ZeroDivisionError" in complaint(lambda place: 1 // 0)
    assert "limit is 1" in complaint(blow_up)
    assert "memory ran out" in complaint(run_out)
    assert "without a message" in complaint(lambda place: tell(" "))
    assert "of 9000 characters" in complaint(lambda place: tell("x" * 9000))
    assert "the character '\\n'" in complaint(lambda place: tell("two\nlines"))
    assert complaint(lambda place: tell("one line")) == ""


def test_odd_nodes_are_of_every_kind(tmp_path: Path) -> None:
    kinds = set()
    for seed in range(60):
        place = tmp_path / "node"
        lay_odd(generator(seed), place)
        there = os.path.lexists(place)
        kinds.add((there, place.is_symlink(), place.is_dir(), place.is_fifo() if there else False))
        clear(place)
    assert len(kinds) >= 5


def _sweep_plan(file: Path) -> object:
    return SweepPlan.from_toml(file)


def _rows(file: Path) -> object:
    _, ((_, reason),) = read_rows(file)
    raise CompressError(reason)


def _bank(file: Path) -> object:
    return MemoryBank.load(file.parent)


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("plan.toml", _sweep_plan),
        ("rows.json", _rows),
        ("bank.json", _bank),
        ("backbone.onnx", load_onnx),
        ("detector.onnx", Detector),
        ("image.jpg", load_image),
    ],
)
def test_a_file_larger_than_the_memory_is_refused_unread(
    name: str, read: Callable[[Path], object], tmp_path: Path
) -> None:
    file = tmp_path / name
    with file.open("wb") as stream:
        stream.truncate(20 << 30)  # which takes no room on the disk
    outcome = watched(read, file, (CompressError, AnomalyError, DetectorError), 16 * MIB, alarm=False)
    assert outcome.refused
    assert outcome.complaint is None
    with pytest.raises((CompressError, AnomalyError, DetectorError), match="has 21,474,836,480 bytes, the limit is"):
        read(file)


def test_rows_with_texts_without_end_are_left_out_and_strangers_counted_once(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text(json.dumps([row(), row(machine="x" * 10_001), *([[]] * 1000)]))
    runs, failures = read_rows(tmp_path / "rows.json")
    assert len(runs) == 1
    reasons = ["left out: machine of more than 10,000 characters", "left out: not a row of results"]
    assert failures == [("rows.json", reason) for reason in reasons]


def test_an_entry_that_is_no_array_is_told(tmp_path: Path) -> None:
    evidence(tmp_path / "whole.npz")
    with zipfile.ZipFile(tmp_path / "whole.npz") as whole, zipfile.ZipFile(tmp_path / "odd.npz", "w") as odd:
        for name in whole.namelist():
            odd.writestr(name, b"no header" if name == "maps.npy" else whole.read(name))
    assert read_evidence(tmp_path / "whole.npz")[1] is None
    found, complaint = read_evidence(tmp_path / "odd.npz")
    assert (found.examples, found.scores) == (None, None)
    assert complaint == "images and scores left out: damaged (maps is no array)"


def test_a_number_that_python_cannot_write_down_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(f"seeds = [0x{'f' * 20_000}]")
    with pytest.raises(CompressError, match="seeds holds a number of thousands of digits"):
        SweepPlan.from_toml(tmp_path / "plan.toml")


_LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
_JSON = st.recursive(
    _LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=8), inner), max_leaves=20
)


@settings(max_examples=60, deadline=None)
@given(_JSON, st.integers(-8, 8), st.binary(max_size=40))
def test_any_header_of_tensors_is_a_refusal(header: object, off: int, tensors: bytes) -> None:
    text = json.dumps(header).encode()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "any.safetensors")
        file.write_bytes(max(0, len(text) + off).to_bytes(8, "little") + text + tensors)
        with pytest.raises(CompressError, match=r"any\.safetensors (is truncated|is no prunecore artifact)"):
            load_backbone(file)


@settings(max_examples=60, deadline=None)
@example(["\0"])
@given(st.lists(st.text(min_size=1, max_size=40) | st.sampled_from(["../evil", "/etc/passwd", "bank.safetensors"])))
def test_any_names_in_an_archive_are_a_refusal_and_leave_no_file(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are there twice
        file = Path(folder, "inside", "any.detector")
        file.parent.mkdir()
        with zipfile.ZipFile(file, "w") as archive:
            for name in ("detector.json", *names):
                entry = zipfile.ZipInfo()
                entry.filename = name  # ZipInfo(name) would cut it at a NUL
                archive.writestr(entry, b"{}")
        with pytest.raises(CompressError, match="is no detector of ours"):
            load_detector(file)
        assert [place.name for place in Path(folder).rglob("*")] == ["inside", "any.detector"]


@given(st.text(max_size=5000))
def test_any_message_becomes_one_printable_line(message: str) -> None:
    line = one_line(message)
    assert line.isprintable()
    assert one_line(line) == line
    if message.isprintable() and len(message) <= 2000:
        assert line == message
