"""In which form the teacher computes: chosen once at the start of a run, and kept with it."""

import json
import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from fakd.data import build_train_loader
from fakd.files import atomic_write
from fakd.functional.precision import HALVES, half_of_device
from fakd.modeling import Distiller
from fakd.modeling.batch import stack_images
from fakd.modeling.fast_teacher import agreement
from fakd.modeling.teacher import FrozenTeacher
from fakd.structures import SegOutput
from fakd.validation import parse, read_json

logger = logging.getLogger(__name__)

# What `auto` asks of a form, on the first batch: the same arg-max on this share of the pixels, and no logit
# further from float32's than this share of the largest.
LEAST_SAME = 0.999
# What a form that is named has to keep for no warning: half precision turns near ties over.
LEAST_SAME_NAMED = 0.99
MOST_ERROR = 0.01
_SECONDS = 1.0  # of measuring
_ROUNDS = 5
FILE = "teacher_form.json"


class _Kept(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    form: list[str]


def quicken(model: Distiller, cfg: CfgNode, resumed: bool, keep: bool = True) -> None:
    """Gives a distiller's teacher the form that KD.TEACHER.FAST asks for; called by every rank.

    The choice depends on the device, the network and the first batch, never on a stopwatch: two runs of one
    config and seed compute the same on one machine, alone and in a pack. It is kept in the run's folder, so
    that a run that is resumed elsewhere goes on with it. What the form gains is measured and logged.

    Args:
        model: as it was built.
        cfg: of the run.
        resumed: take the form that the run began with; one from before there were forms has none.
        keep: write the form of a new run into its folder.
    """
    teacher = model.get_submodule("teacher")
    if not isinstance(teacher, FrozenTeacher):
        return
    kept = Path(cfg.OUTPUT_DIR, FILE)
    form: tuple[str, ...] = ()
    measured = teacher
    if resumed:
        form = tuple(parse(_Kept, read_json(kept), kept).form) if kept.is_file() else ()
    elif tuple(cfg.KD.TEACHER.FAST) != ("off",):
        measured = _measured(model, teacher, cfg)
        form = measured.form
    form = comm.all_gather(form)[0]  # each rank has seen its own part of the batch
    if form and form == measured.form:
        teacher.network, teacher.form = measured.network, form
    elif form:
        teacher.take_form(form)
    if comm.is_main_process() and keep and not resumed:
        with atomic_write(kept, "w") as file:
            json.dump({"form": form}, file)


def candidates(device: torch.device, asked: Sequence[str], mixed_precision: bool) -> list[tuple[str, ...]]:
    """The forms to try, the fastest first.

    A half precision that is asked for is left out on a CPU without instructions for it, which would take
    several times as long.

    Args:
        device: the teacher's.
        asked: KD.TEACHER.FAST, not `off`.
        mixed_precision: autocast gives half precision already.
    """
    fast = half_of_device(device)
    if tuple(asked) != ("auto",):
        slow = HALVES if device.type == "cpu" and not fast else ()
        return [tuple(word for word in asked if word not in slow)]
    exact = ("fold", "channels_last")
    half = "" if mixed_precision else fast
    return [*([(*exact, half)] if half else []), exact]


def _measured(model: Distiller, teacher: FrozenTeacher, cfg: CfgNode) -> FrozenTeacher:
    """The teacher in the form that is chosen; itself if no form agrees with it."""
    images, asked = _first_images(model, cfg), tuple(cfg.KD.TEACHER.FAST)
    auto = asked == ("auto",)
    plain = _compared(teacher.encode(images))
    for form in candidates(images.device, asked, cfg.SOLVER.AMP.ENABLED):
        other = FrozenTeacher(teacher.network, teacher.input_format, teacher.scale)
        other.take_form(form)
        same, error = agreement(_compared(other.encode(images)), plain)
        agrees = same >= (LEAST_SAME if auto else LEAST_SAME_NAMED) and error <= MOST_ERROR
        found = (
            f"{', '.join(form) or 'float32'}: the arg-max of {100 * same:.2f} % of a batch's pixels is "
            f"float32's, and no logit differs by more than {error:.1e} of the largest"
        )
        if agrees or not auto:
            before, after = _milliseconds(teacher, other, images)
            logger.log(
                logging.INFO if agrees and after <= 1.05 * before else logging.WARNING,
                f"The teacher computes in the form {found}. A batch of {len(images)} takes it {after:.1f} ms "
                f"instead of {before:.1f} (KD.TEACHER.FAST).",
            )
            return other
        logger.info(f"The teacher does not compute in the form {found}: too far for KD.TEACHER.FAST auto.")
    logger.warning("The teacher computes as it is, because no form agrees with it (KD.TEACHER.FAST auto).")
    return teacher


def _compared(output: SegOutput) -> Tensor:
    """The logits, or the feature of a teacher without classes."""
    return (output.logits if output.logits.shape[1] else output.feature).float()


def _first_images(model: Distiller, cfg: CfgNode) -> Tensor:
    """What the first part of the first batch shows: (N, C, H, W) on the device."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.DATALOADER.NUM_WORKERS = 0
    batch = next(iter(build_train_loader(cfg)))
    return stack_images(batch[: len(batch) // cfg.SOLVER.ACCUMULATE], model.student.pixel_mean).tensor


def _milliseconds(first: FrozenTeacher, second: FrozenTeacher, images: Tensor) -> tuple[float, float]:
    """The shortest forward pass of each; they take turns for about a second, or a few rounds."""
    best, end = {first: math.inf, second: math.inf}, time.perf_counter() + _SECONDS
    for _ in range(_ROUNDS):
        for teacher in best:
            start = time.perf_counter()
            teacher.encode(images)
            if images.is_cuda:
                torch.cuda.synchronize()
            best[teacher] = min(best[teacher], 1e3 * (time.perf_counter() - start))
        if time.perf_counter() > end:
            break
    return best[first], best[second]
