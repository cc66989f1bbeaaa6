"""Tiny networks with the heads of the published ones."""

import torch
from torch import nn

from fakd.config import load_config
from fakd.deploy.export import format_named, keep
from fakd.deploy.metadata import build_metadata
from fakd.deploy.network import DeployedNetwork
from fakd.modeling import Segmentor

SIZE = (40, 56)
TINY = {
    "MODEL.DEVICE": "cpu",
    "MODEL.BACKBONE.TIMM_NAME": "test_resnet",  # of ten convolutions: an export costs by their number
    "MODEL.BACKBONE.OUTPUT_STRIDE": "32",
    "MODEL.BACKBONE.STEM": "7x7",
    "MODEL.SEM_SEG_HEAD.CHANNELS": "8",
    "MODEL.SEM_SEG_HEAD.ISA_CHANNELS": "8",
}


def config(model, **options):
    """Of the head of one of the published networks on a tiny backbone."""
    words = [word for pair in {**TINY, **options}.items() for word in pair]
    return load_config(f"configs/_base_/models/{model}.yaml", words)


def network(model, size=SIZE, **options):
    """The network of :func:`config`, and its metadata."""
    cfg = config(model, **options)
    torch.manual_seed(0)
    segmentor = Segmentor(cfg)
    nn.init.normal_(segmentor.decode_head.conv_seg.weight)  # classes that differ by more than rounding
    return DeployedNetwork(segmentor), build_metadata(cfg, segmentor, size, True, "float32")


def export(deployed, metadata, path, file_format="onnx", reference=None):
    """Writes what :func:`network` gives as ``export_student`` does; the comparison with ``reference``."""
    made = format_named(file_format)
    made.check(metadata.size, metadata.precision)
    return keep(made, made.write(deployed, metadata), reference or deployed, metadata, path)
