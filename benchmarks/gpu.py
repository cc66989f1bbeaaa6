"""A GPU's first half hour: ``python -m benchmarks.gpu --minutes 40``.

First whether it computes what the CPU computes, then what a step and its losses cost, then experiments for
the minutes that remain. Every result is a line of OUTPUT/results.jsonl as soon as it is there; the same
command goes on with what is missing or failed.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import datetime
import json
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.utils.events import EventStorage
from torch import Tensor

from fakd.config import load_config
from fakd.engine import provenance, run
from fakd.engine.optimizer import build_optimizer
from fakd.engine.step import StepTrainer
from fakd.engine.step_cost import milliseconds, part_costs
from fakd.engine.teacher_form import candidates
from fakd.files import read_lines
from fakd.functional.resize import resize_labels
from fakd.losses import DistillLoss
from fakd.modeling import Distiller
from fakd.modeling.batch import stack_images, stack_labels
from fakd.modeling.build import build_distill_losses, build_segmentor
from fakd.registry import DISTILL_LOSS_REGISTRY
from fakd.structures import LossInputs, SegOutput

from .step import batch_of

MAX_ERROR = 1e-4  # of a loss or gradient against the CPU's, of its largest entry
ROOT = Path(__file__).parents[1]
TOY = "configs/toyscenes/student.yaml", "configs/toyscenes/teacher.yaml"
PSPNET = "configs/cityscapes/pspnet_r18.yaml", "configs/cityscapes/pspnet_r101.yaml"
COPIED = 1 << 26  # numbers, for the bandwidth
FULL_SIZE = {"INPUT.BASE_SIZE": [480, 360], "INPUT.CROP.SIZE": [352, 480], "DATALOADER.NUM_WORKERS": 4}

Result = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """Device, whether shapes are a test's, folder of the results, and the end as of time.monotonic()."""

    device: torch.device
    small: bool
    output: Path
    end: float

    @property
    def seconds_left(self) -> float:
        return max(0.0, self.end - time.monotonic())

    @property
    def rounds(self) -> int:
        return 1 if self.small else 10


def stages(place: Place) -> Iterator[tuple[str, Callable[[Place], Result]]]:
    """Every measurement by name, the one worth most first."""
    yield "losses equal the CPU's", equal_losses
    yield "tests marked cuda", marked_tests
    yield "float16 with GradScaler", scaled_steps
    yield "resume", resumed_run
    yield "two processes", two_processes
    for classes in (19, 150):
        for images in (4, 16):
            for form in ("plain", "FAST", "FAST and AMP"):
                name = f"step, {images} images, {classes} classes, {form}"
                yield name, lambda p, n=images, k=classes, f=form: step_of(p, n, k, f)
            name = f"losses, {images} images, {classes} classes"
            yield name, lambda p, n=images, k=classes: losses_over_floor(p, n, k)
    for sweep in ("camvid_table4", "camvid_methods"):
        yield f"sweep {sweep}", lambda p, s=sweep: swept(p, s)


# Is it right? --------------------------------------------------------------------------------------------


def networks(
    place: Place, classes: int, device: torch.device, toy: bool = False, keys: tuple[Any, ...] = ()
) -> tuple[CfgNode, Distiller]:
    """An untrained pair with FAKD, in the middle of its training."""
    student, teacher = TOY if toy or place.small else PSPNET
    opts = ["MODEL.DEVICE", device.type, "MODEL.BACKBONE.PRETRAINED", "none"]
    opts += ["MODEL.SEM_SEG_HEAD.NUM_CLASSES", str(classes), *keys]
    torch.manual_seed(0)
    cfg = load_config(student, opts, recipe="fakd")
    networks = build_segmentor(cfg), build_segmentor(load_config(teacher, opts))
    losses = build_distill_losses(cfg, networks[0].spec, networks[1].spec)
    model = Distiller(student=networks[0], teacher=networks[1], losses=losses).to(device).train()
    model.set_progress(0.5)
    return cfg, model


def all_losses() -> tuple[str, str]:
    return "KD.LOSSES", str(tuple(sorted(name for name, _ in DISTILL_LOSS_REGISTRY)))


@torch.no_grad()
def maps_of(model: Distiller, batch: list[dict[str, Tensor]]) -> LossInputs:
    """What both networks say of a batch."""
    student = model.student
    images = stack_images(batch, student.pixel_mean).tensor
    labels = stack_labels(batch, student.ignore_value, student.device)
    own = student.encode(images)
    small = resize_labels(labels, own.feature.shape[-2:])
    return LossInputs(own, model.teacher(images, batch), small, small != student.ignore_value, 0.5)


def on_device(inputs: LossInputs, device: torch.device) -> tuple[LossInputs, list[tuple[Tensor, Tensor]]]:
    """The inputs with new leaves, and (student, teacher) pairs of all maps."""
    student = every_map(inputs.student, lambda x: x.detach().to(device).requires_grad_())
    teacher = every_map(inputs.teacher, lambda x: x.detach().to(device))
    moved = LossInputs(student, teacher, inputs.labels.to(device), inputs.valid.to(device), inputs.progress)
    pairs = [(student.logits, teacher.logits), (student.feature, teacher.feature)]
    return moved, [*pairs, *((x, teacher.stages[name]) for name, x in student.stages.items())]


def every_map(output: SegOutput, change: Callable[[Tensor], Tensor]) -> SegOutput:
    mapped = output._map(change)
    stages = {name: mapped.stages[name] for name in output.stages}
    return SegOutput(mapped.logits, mapped.feature, mapped.weight, mapped.bias, mapped.aux_logits, stages)


def value_and_gradients(
    loss: DistillLoss, inputs: LossInputs, device: torch.device, seed: int
) -> list[Tensor]:
    torch.manual_seed(seed)
    loss = copy.deepcopy(loss).to(device)
    moved, pairs = on_device(inputs, device)
    value = loss(moved)
    value.backward()
    return [value.detach().cpu(), *(own.grad.cpu() for own, _ in pairs if own.grad is not None)]


def error_of(got: list[Tensor], wanted: list[Tensor]) -> float:
    """The largest error of a tensor, of its largest entry."""
    return max(
        ((a - b).abs().max() / b.abs().max().clamp_min(1e-30)).item()
        for a, b in zip(got, wanted, strict=True)
    )


def equal_losses(place: Place) -> Result:
    """Of losses that draw random numbers only that they are finite: the devices draw differently."""
    torch.backends.cudnn.allow_tf32 = False
    cpu = torch.device("cpu")
    _, model = networks(place, 12, cpu, toy=True, keys=all_losses())
    inputs = maps_of(model, batch_of(2, (64, 64), 12))
    errors, drawn, bad = {}, [], []
    for name, loss in model.losses.items():
        wanted = value_and_gradients(loss, inputs, cpu, 0)
        got = value_and_gradients(loss, inputs, place.device, 0)
        if error_of(value_and_gradients(loss, inputs, cpu, 1), wanted):
            drawn.append(name)
        else:
            errors[name] = error_of(got, wanted)
        if not all(x.isfinite().all() for x in got) or errors.get(name, 0) > MAX_ERROR:
            bad.append(name)
    torch.backends.cudnn.allow_tf32 = True
    return {"ok": not bad, "errors": errors, "only finite, because they draw": drawn, "wrong": bad}


def command(place: Place, *words: Any) -> tuple[int, str]:
    """Exit code and the end of what a command of this Python printed, within the minutes that are left."""
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=place.seconds_left,
    )
    return done.returncode, done.stdout[-2000:]


def marked_tests(place: Place) -> Result:
    code, told = command(place, "-m", "pytest", "-q", "-p", "no:warnings", "-m", "cuda", "tests/contracts")
    return {"ok": code == 0, "said": told.strip().splitlines()[-1]}


def scaled_steps(place: Place) -> Result:
    """Steps in float16, whose gradients are scaled, also where bfloat16 would be taken."""
    cfg, model = networks(place, 12, place.device, toy=True)
    optimizer = build_optimizer(cfg, model)
    trainer = StepTrainer(model, [batch_of(4, (64, 64), 12)] * 10, optimizer, amp_dtype=torch.float16)
    before = copy.deepcopy(model.student.state_dict())
    with EventStorage() as storage:
        for _ in range(2 if place.small else 10):
            trainer.run_step()
        loss = storage.latest()["total_loss"][0]
    moved = any(not torch.equal(x, before[name]) for name, x in model.student.state_dict().items())
    good = all(x.isfinite().all() for x in model.student.state_dict().values())
    return {"ok": moved and good, "loss": loss, "scale": trainer.grad_scaler.get_scale()}


class _Break(HookBase):
    def after_step(self) -> None:
        if self.trainer.iter == 2:
            signal.raise_signal(signal.SIGTERM)


def resumed_run(place: Place) -> Result:
    """A run that breaks off and is resumed ends with the weights of one that does not."""
    weights = []
    for name, breaks in (("whole", False), ("resumed", True)):
        folder = new_folder(place.output / "resume" / name)
        keys = ["MODEL.DEVICE", place.device.type, "SOLVER.MAX_ITER", 4, "SOLVER.CHECKPOINT_PERIOD", 2]
        cfg = load_config(TOY[0], [*keys, "DATASETS.TEST", "()", "OUTPUT_DIR", str(folder)], "student")
        cfg.freeze()
        if breaks:
            with contextlib.suppress(SystemExit):  # it is saved
                run(cfg, quiet=True, extra_hooks=[_Break()])
        run(cfg, resume=breaks, quiet=True)
        state = torch.load(folder / "model_final.pth", map_location="cpu", weights_only=True)["model"]
        weights.append([x.float() for x in state.values()])
    error = error_of(weights[1], weights[0])
    # A GPU adds in an order of its own.
    return {"ok": error <= (1e-3 if place.device.type == "cuda" else 0), "error": error}


def new_folder(path: Path) -> Path:
    """A folder beside those of earlier tries."""
    numbers = (path.with_name(f"{path.name}{i}") for i in range(1000))
    return next(each for each in numbers if not each.exists())


def two_processes(place: Place) -> Result:
    """NCCL wants a GPU for each."""
    if place.device.type == "cuda" and torch.cuda.device_count() < 2:
        return {"ok": True, "said": "not run: there is one GPU"}
    words = ["tools/train_net.py", "--config-file", TOY[0], "--recipe", "student", "--num-gpus", 2]
    keys = ["MODEL.DEVICE", place.device.type, "SOLVER.MAX_ITER", 4, "DATASETS.TEST", "()"]
    folder = new_folder(place.output / "two")
    code, told = command(place, *words, *keys, "OUTPUT_DIR", folder)
    return {"ok": code == 0 and (folder / "model_final.pth").is_file(), "said": "" if code == 0 else told}


# What does it cost? ----------------------------------------------------------------------------------------


def sized_batch(place: Place, images: int, classes: int) -> list[dict[str, Tensor]]:
    side, images = (64, 2) if place.small else (512, images)
    return batch_of(images, (side, side), classes)


def step_of(place: Place, images: int, classes: int, form: str) -> Result:
    """Milliseconds and memory per part; the batch is there already."""
    mixed = form == "FAST and AMP"
    keys = ("SOLVER.AMP.ENABLED", mixed, "MODEL.CHANNELS_LAST", mixed)
    cfg, model = networks(place, classes, place.device, keys=keys)
    if form != "plain":
        model.teacher.take_form(candidates(place.device, ("auto",), mixed)[0])
    batch = sized_batch(place, images, classes)
    costs = part_costs(model, cfg, iter(lambda: batch, None), place.rounds)
    parts = {name: [cost.ms, cost.peak_mb] for name, cost in costs.items() if name != "data"}
    return {"ok": True, "ms": sum(ms for ms, _ in parts.values()), "ms and peak MB": parts}


def losses_over_floor(place: Place, images: int, classes: int) -> Result:
    """Forward and backward of every loss over the time to read its maps and write the student's gradients."""
    _, model = networks(place, classes, place.device, keys=all_losses())
    inputs = maps_of(model, sized_batch(place, images, classes))
    source = torch.rand(COPIED >> (6 if place.small else 0), device=place.device)
    target = torch.empty_like(source)
    copying = timed(lambda: target.copy_(source), place)
    bandwidth = 2 * source.nbytes / copying  # bytes per millisecond
    costs = {}
    for name, loss in model.losses.items():
        moved, pairs = on_device(inputs, place.device)

        def step(loss: DistillLoss = loss, moved: LossInputs = moved, pairs: Any = pairs) -> None:
            for own, _ in pairs:
                own.grad = None
            loss(moved).backward()

        ms = timed(step, place)
        read = sum(2 * own.nbytes + taught.nbytes for own, taught in pairs if own.grad is not None)
        costs[name] = {"ms": ms, "floor": read / bandwidth, "ratio": ms * bandwidth / max(read, 1)}
    return {"ok": True, "GB/s": bandwidth / 1e6, "losses": costs}


def timed(step: Callable[[], object], place: Place) -> float:
    """The median; the first call allocates."""
    return statistics.median([milliseconds(step, place.device) for _ in range(place.rounds + 1)][1:])


def swept(place: Place, name: str) -> Result:
    """A sweep of CamVid at its full size, for the minutes that are left; "ok" once it is whole."""
    spec = yaml.safe_load((ROOT / f"projects/FAKD/sweeps/{name}.yaml").read_text())
    opts = {**spec.get("opts", {}), **FULL_SIZE, "MODEL.DEVICE": place.device.type}
    spec |= {"resources": {"cpus": 1, "gpus": 0}, "opts": opts}
    if place.small:
        small = {"MODEL.DEVICE": "cpu", "SOLVER.MAX_ITER": 2}
        spec = {"teacher": {"config": TOY[1]}, "base": TOY[0], "methods": ["fakd"], "opts": small}
    file, folder = place.output / f"{name}.yaml", place.output / name
    file.write_text(yaml.safe_dump(spec))
    words = ["tools/tune.py", "--spec", str(file), "--output", str(folder), "--local"]
    words += ["--resume"] if (folder / "sweep.json").exists() else []
    process = subprocess.Popen([sys.executable, *words], cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        code = process.wait(place.seconds_left)
    except subprocess.TimeoutExpired:
        process.terminate()  # it saves and can be resumed
        code = process.wait()
    results = (json.loads(path.read_text()) for path in sorted(folder.glob("**/result.json")))
    return {"ok": code == 0, "mIoU": [[r["method"], r["seed"], r["metrics"]["mIoU"]] for r in results]}


# In order --------------------------------------------------------------------------------------------------


def work_through(place: Place, only: str = "") -> bool:
    """Everything that is missing, until the time is over; whether all is there and right."""
    file = place.output / "results.jsonl"
    machine = provenance.machine(place.device.type)
    lines = read_lines(file) if file.exists() else []
    done = {line["name"] for line in lines if line["ok"] and line["machine"] == machine}
    right = True
    for name, stage in stages(place):
        if name in done or only not in name:
            continue
        if not place.seconds_left:
            print("The time is over; the same command goes on.")
            return False
        print(f"{name} ...", flush=True)
        start = time.monotonic()
        try:
            result = stage(place)
        except Exception as error:  # the others are worth their time all the same
            result = {"ok": False, "error": f"{type(error).__name__}: {error}"[:2000]}
        right &= result["ok"]
        line = {"name": name, **result, "seconds": round(time.monotonic() - start, 1), "machine": machine}
        line |= {"torch": torch.__version__, "date": datetime.date.today().isoformat()}
        with file.open("a") as out:
            print(json.dumps(line), file=out, flush=True)
        print(json.dumps(line), flush=True)
        if place.device.type == "cuda":
            torch.cuda.empty_cache()
    return right


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--minutes", type=float, default=40, help="when to stop (default: %(default)s)")
    add("--device", choices=["cuda", "cpu"], default="cuda", help="cpu is for trying the command")
    add("--small", action="store_true", help="shapes of a test, which say nothing of time")
    add("--only", default="", metavar="TEXT", help="the measurements whose name has this text")
    add("--output", type=Path, default=Path("output/gpu"), help="folder (default: %(default)s)")
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("PyTorch sees no GPU here; --device cpu --small tries the command without one")
    given.output.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * given.minutes
    place = Place(torch.device(given.device), given.small, given.output.resolve(), end)
    return 0 if work_through(place, given.only) else 1


if __name__ == "__main__":
    sys.exit(main())
