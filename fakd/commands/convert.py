"""Converts a checkpoint of mmsegmentation (0.x, 1.x) or of CIRKD to this project's names, key by key.

OUT.pth gets the weights and the names of the classes, OUT.yaml the config to use them with: the given one and
what the checkpoint decides (number of classes, align_corners, for CIRKD the normalisation). OUT.json gets the
mIoU of a published file, for the teacher's check.
"""

import argparse
import os
from pathlib import Path

import torch
import yaml

from fakd.checkpoint import load_tensors
from fakd.checkpoint.convert import check_fit, convert, nested
from fakd.checkpoint.zoo import check_digest, find
from fakd.config import load_config
from fakd.engine.teacher_check import record_miou
from fakd.files import atomic_write, shipped
from fakd.modeling import Segmentor


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("input", metavar="IN.pth")
    parser.add_argument("output", metavar="OUT.pth", type=Path)
    parser.add_argument(
        "--config-file", required=True, metavar="FILE", help="config in configs/_base_/models, or your own"
    )
    parser.add_argument("--opts", nargs="*", default=[], metavar="KEY VALUE", help="config keys")
    args = parser.parse_args()

    check_digest(args.input)
    config_file = shipped(args.config_file)
    cfg = load_config(config_file, args.opts)
    found = convert(load_tensors(args.input, cfg.CHECKPOINT.ALLOW_PICKLE))
    for key, value in found.config.items():
        cfg.merge_from_list([key, value])
    cfg.MODEL.BACKBONE.PRETRAINED = "none"
    with torch.device("meta"):
        check_fit(Segmentor(cfg), found.weights)

    with atomic_write(args.output) as file:
        torch.save({"model": found.weights, "classes": list(found.classes), "source": found.source}, file)
    base = os.path.relpath(config_file, args.output.parent)
    with atomic_write(args.output.with_suffix(".yaml"), "w") as file:
        yaml.safe_dump({"_BASE_": base, **nested(found.config)}, file, sort_keys=False)
    if entry := find(args.input):
        record_miou(args.output, entry["mIoU"], entry["dataset"])
    print(f"{len(found.weights)} weights of {found.source} in {args.output}, to be used with its .yaml.")
