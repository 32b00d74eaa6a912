"""From what a user asks for to a slim backbone: the cut with what its method wants before it, and the recovery."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from glob import escape
from pathlib import Path
from typing import Any

import torch

from anomaly.progress import Track, quiet
from compress import RECOVERIES, Backbone, RecoveryError, prune, reinitialise, save
from compress.errors import CompressError, unknown
from compress.pruning import (
    SPARSE_STEPS,
    Ranking,
    Rule,
    Target,
    check_ratio,
    check_request,
    find_method,
    method_name,
    rank,
)
from compress.pruning.sparse_training import RECIPE as SPARSE_RECIPE
from compress.training import Report, Run, TrainingSet, find_device
from pipelines.console import note
from pipelines.image_sets import LabelledImages, UnlabelledImages
from pipelines.models import parent_of

NO_RECOVERY = "none"
REINIT = "reinit+"  # before the name of a recovery that starts from fresh weights


@dataclass(frozen=True)
class Images:
    """What there is to train and calibrate on: photographs, photographs with classes, both, or nothing."""

    unlabelled: UnlabelledImages | None = None
    labelled: LabelledImages | None = None

    @property
    def plain(self) -> UnlabelledImages | None:
        """Images without their classes."""
        return self.unlabelled or (self.labelled.images if self.labelled else None)

    @property
    def fingerprints(self) -> list[str | None]:
        return [each.fingerprint if each else None for each in (self.unlabelled, self.labelled)]


@dataclass(frozen=True)
class Recovering:
    """How a pruned backbone is recovered: a key of `RECOVERIES`, its steps (None: its own default), and where."""

    name: str
    steps: int | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.name not in RECOVERIES:
            raise unknown("recovery", self.name, [NO_RECOVERY, *RECOVERIES], "compress methods lists them")
        if self.steps is not None and not RECOVERIES[self.name].steps:
            raise CompressError(f"recovery {self.name} trains nothing: leave --steps out")
        if self.steps is not None and self.steps < 1:
            raise CompressError(f"{self.steps} steps of recovery: give at least 1")

    def check(self, images: Images) -> None:
        """Refuse, before any work, images or classes that are missing or too few, and a device that is not here.

        Raises:
            CompressError: see above.
        """
        find_device(self.device)
        if self.labelled and images.labelled is None:
            raise CompressError(f"recovery {self.name} learns from classes: give --labelled DIR, a folder for each")
        if not self.labelled and images.plain is None:
            raise CompressError(f"recovery {self.name} needs images: give --images DIR, any photographs will do")
        TrainingSet.of(self._given(images), RECOVERIES[self.name].recipe, labelled=self.labelled)

    def teacher(self, slim: Backbone, weights: str) -> Backbone:
        """The dense parent with `weights`, see `parent_of`; `slim` itself where the recovery needs no teacher."""
        return parent_of(slim, weights=weights) if self.taught else slim

    def run(self, seed: int, checkpoint: Path | None, track: Track, report: Report | None) -> Run:
        """The training that `recover` does."""
        own = RECOVERIES[self.name]
        return Run(self.steps or own.steps, own.recipe, seed, self.device, checkpoint, track, report)

    def recover(self, slim: Backbone, teacher: Backbone, images: Images, run: Run) -> Backbone:
        """`slim`, recovered with what `teacher`, its dense parent, or the images' classes teach; tells if in vain."""
        self.check(images)
        better = RECOVERIES[self.name].recover(slim, teacher, self._given(images), run)
        before, cut = slim.state_dict(), slim.spec.pruning
        if run.steps and cut and cut.kept and all(map(torch.equal, better.state_dict().values(), before.values())):
            note(
                f"{self.name} gained nothing at ratio {cut.ratio:.3g}: no state was better on the held-out images than "
                "the first; take more --steps or images"
            )
        return better

    def _given(self, images: Images) -> Sequence[Any]:
        return (images.labelled if self.labelled else images.plain) or ()

    @property
    def labelled(self) -> bool:
        """Whether it learns from classes."""
        return RECOVERIES[self.name].labelled

    @property
    def taught(self) -> bool:
        """Whether it learns from the dense parent."""
        return RECOVERIES[self.name].taught


@dataclass(frozen=True)
class Slimming:
    """How a backbone is slimmed.

    Attributes:
        method, ratio, target, rule, one_shot, sparse_steps, cuts: see `compress.prune`.
        recovering: what follows the cut or, with several, each of them.
        reinit: draw fresh weights after the last cut, as a control.
        device: where the sparse phase runs, see `compress.training.Run`.
    """

    method: str = "magnitude"
    ratio: float | None = None
    target: Target | None = None
    rule: Rule | None = None
    one_shot: bool = False
    sparse_steps: int = SPARSE_STEPS
    cuts: int = 1
    recovering: Recovering | None = None
    reinit: bool = False
    device: str = "auto"

    def __post_init__(self) -> None:
        object.__setattr__(self, "method", method_name(self.method))  # one name, one result
        if self.ratio is not None:
            check_ratio(self.ratio)

    def check(self, images: Images) -> None:
        """Refuse, before any work, what contradicts itself, images that are missing, and images that are not needed.

        Raises:
            CompressError: see above.
        """
        check_request(
            ratio=self.ratio,
            target=self.target,
            method=self.method,
            rule=self.rule,
            images=images.plain,
            one_shot=self.one_shot,
            sparse_steps=self.sparse_steps,
            cuts=self.cuts,
        )
        if self.recovering is None and self.cuts > 1:
            raise CompressError(f"{self.cuts} cuts are for recovering in between: give --images, or make one cut")
        if self.reinit and not (self.recovering and RECOVERIES[self.recovering.name].steps):
            raise CompressError(
                "fresh weights that are not trained are of no use: recover them by distill (with --images) or finetune "
                "(with --labelled), or drop reinit"
            )
        if self.recovering:
            self.recovering.check(images)
        find_device(self.device)
        used = self.used(images)
        if images.labelled and not used.labelled:
            raise CompressError(f"nothing in this request learns from classes ({self._told}): give --images instead")
        if images.unlabelled and not used.unlabelled:
            what = "images without classes" if images.labelled else "images"
            raise CompressError(f"nothing in this request reads {what} ({self._told}): leave --images out")

    @property
    def name(self) -> str:
        """A short name that tells the slimmings of a sweep apart, fit for a file."""
        ratio = f"{self.ratio:.12g}" if self.ratio is not None else "target"
        return "-".join([self.method, ratio, *self._after])

    @property
    def kind(self) -> str:
        """What takes about as long: the name without the ratio, and the steps of the trainings."""
        steps = [str(self.sparse_steps)] if self._sparse_phase else []
        trained = self.recovering.run(0, None, quiet, None).steps if self.recovering else 0
        return "-".join([self.method, *steps, *self._after, *([str(trained)] if trained else [])])

    @property
    def _after(self) -> list[str]:
        """The word for what follows the cut, if anything does."""
        return [f"{REINIT if self.reinit else ''}{self.recovering.name}"] if self.recovering else []

    def asked(self, seed: int) -> dict[str, Any]:
        """All that the result depends on besides the backbone and the images, as JSON values."""
        request = dataclasses.asdict(replace(self, recovering=None, device="auto"))
        recovery = self.recovering and [self.recovering.name, self.recovering.run(seed, None, quiet, None).asked()]
        phase = Run(self.sparse_steps, SPARSE_RECIPE, seed, self.device).asked() if self._sparse_phase else None
        return {**request, "recovering": recovery, "sparse_phase": phase}

    @property
    def shares_phase(self) -> bool:
        """Whether one sparse phase serves this cut and those at other ratios."""
        return not self.one_shot and find_method(self.method).shares_phase(self.cuts)

    @property
    def shares_ranking(self) -> bool:
        """Whether channels that are scored once serve this cut and those at other ratios.

        Methods with a sparse phase score after it, if they are not asked for one shot, and record it in any case.
        """
        return find_method(self.method).penalty is None and self.cuts == 1 and self.target is None

    def used(self, images: Images) -> Images:
        """Those of `images` that have a use here, so that those others need are neither refused nor recorded."""
        labels = self._learns_classes and images.labelled is not None
        reads = find_method(self.method).reads != "weights" or (self.recovering and not self.recovering.labelled)
        plain = reads or (self._sparse_phase and images.labelled is None)
        return Images(images.plain if plain else None, images.labelled if labels else None)

    @property
    def _learns_classes(self) -> bool:
        return self._sparse_phase or (self.recovering is not None and self.recovering.labelled)

    @property
    def _sparse_phase(self) -> bool:
        return find_method(self.method).penalty is not None and not self.one_shot

    @property
    def _told(self) -> str:
        return f"method {self.method}, recovery {self.recovering.name if self.recovering else NO_RECOVERY}"

    def ranking(self, backbone: Backbone, images: Images, *, seed: int = 0, track: Track = quiet) -> Ranking | None:
        """The channels of `backbone`, scored for `slim` at this ratio and any other, if this `shares_ranking`.

        Raises:
            CompressError: see `check` and `compress.pruning.rank`.
        """
        self.check(images)
        if not self.shares_ranking:
            return None
        return rank(
            backbone,
            method=self.method,
            rule=self.rule,
            seed=seed,
            images=images.plain,
            ratio=self.ratio,
            track=track,
        )

    def slim(
        self,
        backbone: Backbone,
        teacher: Backbone,
        images: Images,
        *,
        ranking: Ranking | None = None,
        seed: int = 0,
        keep: Path | None = None,
        phase: Path | None = None,
        track: Track = quiet,
        report: Report | None = None,
    ) -> Backbone:
        """`backbone`, slimmed and recovered.

        Args:
            teacher: its dense parent, or itself if it is dense.
            ranking: what `ranking` gave for `backbone`, perhaps at another ratio: its channels are not scored again.
            keep: where training keeps its states, see `state_file`; the same call goes on from them.
            phase: where the sparse phase keeps its own, if not there.

        Raises:
            CompressError: see `check`, `compress.prune` and the recoveries.
        """
        self.check(images)
        if ranking is not None and not self.shares_ranking:
            raise CompressError(f"method {self.method} scores channels anew for this cut: leave the ranking out")
        cut = 0

        def recovered(pruned: Backbone) -> Backbone:
            nonlocal cut
            cut += 1
            if self.recovering is None:
                return pruned
            run = self.recovering.run(seed, state_file(keep, f"recovery{cut}"), track, report)
            return self.recovering.recover(pruned, teacher, images, run)

        if ranking is not None and self.ratio is not None:
            pruned = ranking.cut(self.ratio)
        else:
            by_classes = images.labelled is not None and self._sparse_phase
            pruned = prune(
                backbone,
                ratio=self.ratio,
                target=self.target,
                method=self.method,
                rule=self.rule,
                images=images.labelled if by_classes else images.plain,
                labelled=by_classes,
                one_shot=self.one_shot,
                sparse_steps=self.sparse_steps,
                cuts=self.cuts,
                recover=recovered,
                seed=seed,
                device=self.device,
                checkpoint=phase or state_file(keep, "sparse"),
                track=track,
                report=report,
            )
        return recovered(reinitialise(pruned, seed) if self.reinit else pruned)


def state_file(keep: Path | None, phase: str) -> Path | None:
    """Where the training of a phase keeps its state, beside the file `keep` that is to be made."""
    return None if keep is None else keep.with_name(f"{keep.name}.{phase}.state")


def forget(keep: Path) -> None:
    """Delete the states of training beside `keep`, which is made."""
    for file in _states(keep):
        file.unlink(missing_ok=True)


def kept_for_later(keep: Path | None) -> str:
    """What to tell of states that a search which found nothing leaves beside `keep`; empty if there are none."""
    if keep is None or not _states(keep):
        return ""
    file = shlex.quote(str(keep))
    return f"; its trainings are kept for a larger drop with -o {file}; before any other search, rm {file}.*.state*"


def _states(keep: Path) -> list[Path]:
    return list(keep.parent.glob(f"{escape(keep.name)}.*.state*"))


@contextlib.contextmanager
def keeping_last_good(file: Path) -> Iterator[None]:
    """Save the last good state of a recovery that diverges, beside the `file` that will not be made."""
    try:
        yield
    except RecoveryError as error:
        good = file.with_name(f"{file.stem}.last-good.safetensors")
        save(error.backbone, good)
        raise CompressError(f"{error}; it is in {good}") from error
