"""Runs with invented numbers, written as the engine writes them."""

import functools
import json

import numpy as np
import yaml

from fakd.config import load_config

CLASSES = ["sky", "road", "car", "pole", "tram"]
BASE = {"sky": 85.0, "road": 80.0, "car": 45.0, "pole": 22.0}  # "tram" is not in the labels


def write_run(study, run, seed, miou, datasets=("toyscenes_val",), **changes):
    """A finished run that reaches ``miou`` on the first set and 3 points less on every further one."""
    folder = study / run / f"seed{seed}"
    folder.mkdir(parents=True)
    rng = np.random.default_rng([seed, len(run)])
    iou = {c: round(v + miou - 55.5 + rng.normal(0, 1), 3) for c, v in BASE.items()} | {"tram": None}
    by_set = {
        name: {"mIoU": miou - 3 * i, "mAcc": miou + 9 - 3 * i, "aAcc": miou + 30, "IoU": iou, "Acc": iou}
        for i, name in enumerate(datasets)
    }
    teacher = run == "teacher"
    result = {
        "name": run,
        "method": run,
        "seed": seed,
        "dataset": datasets[0],
        "train_dataset": "toyscenes_train",
        "config_file": f"configs/toyscenes/{'teacher' if teacher else 'student'}.yaml",
        "output_dir": str(folder),
        "iterations": 600,
        "batch_size": 8,
        "crop": [96, 96],
        "metrics": by_set[datasets[0]],
        "metrics_by_dataset": by_set,
        "best": None,
        "params": 48_000_000 if teacher else 11_700_000,
        "gflops": 6.78 if teacher else 1.234,
        "flops_size": [96, 96],
        "seconds_per_iteration": 0.21,
        "wall_clock": 130.2,
        "peak_memory_mb": 812.4,
        "commit": "abc1234",
        "machine": "2 x Some Processor, CPU",
        "versions": {"torch": "2.15.0", "detectron2": "0.6", "python": "3.11.7"},
        "weights": "model_final.pth",
        "finished": "2026-11-21T05:00:00+00:00",
    } | changes
    (folder / "result.json").write_text(json.dumps(result))
    lines = [
        {"iteration": i, f"{prefix}sem_seg/mIoU": miou * (1 - 0.5 ** (i / 150))}
        for i in range(100, 601, 100)
        for prefix in ([""] if len(datasets) == 1 else [f"{d}/" for d in datasets])
    ]
    (folder / "metrics.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@functools.cache
def config(recipe, *opts):
    """Content of a config.yaml, as JSON."""
    return json.dumps(yaml.safe_load(load_config("", list(opts), recipe).dump()))


def finished(folder, run, seed, miou, *opts, recipe=None, name=None, **changes):
    """A run as the engine leaves it, but for the weights."""
    path = write_run(folder, name or run, seed, miou, method=run, **changes)
    values = dict(zip(opts[::2], opts[1::2], strict=True))
    weights = values.pop("KD.TEACHER.WEIGHTS", "")  # the only one that is another in every test
    cfg = json.loads(config(recipe or run, *(word for pair in values.items() for word in pair)))
    cfg |= {"SEED": seed, "OUTPUT_DIR": str(path)}
    cfg["KD"]["TEACHER"]["WEIGHTS"] = weights
    (path / "config.yaml").write_text(yaml.dump(cfg, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper)))
    counts = np.diag(np.arange(len(CLASSES))[::-1] * 100) + len(run)
    counts[-1] = 0  # no label
    (path / "confusion.json").write_text(json.dumps({"toyscenes_val": counts.tolist()}))
    with open(path / "metrics.json", "a") as file:
        for i in (19, 39):
            line = {"iteration": i, "total_loss": 3.0 - i / 100, "loss_seg": 1.0, "lr": 0.1}
            if cfg["KD"]["LOSSES"] == ["FAKDChannel"]:
                line |= {f"FAKDChannel/{kind}/{c}": 2.0 for kind in ("trace", "eigenvalue") for c in CLASSES}
                line["FAKDChannel/lambda"] = i / 40
            file.write(json.dumps(line) + "\n")
    return path
