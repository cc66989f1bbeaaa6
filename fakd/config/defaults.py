"""Every config key that acts here: its default, its meaning with the unit, and the values it may have.

The names of detectron2 keep their meaning. Its other keys do nothing here and are refused
(:mod:`fakd.config.checks`). The options of the losses stand in :mod:`fakd.losses`, beside each loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from detectron2.config import CfgNode

from ..losses.base import options_of
from ..ranges import Range, range_of
from ..registry import DISTILL_LOSS_REGISTRY


@dataclass(frozen=True)
class Key:
    """A config key.

    Attributes:
        default: its value unless another is set.
        help: what it means, with its unit.
        range: the values it may have; None where no range says it.
    """

    default: Any
    help: str
    range: Range | None


def key(default: Any, help: str, **limits: Any) -> Key:
    """A key whose default shows its kind; ``limits`` as in :class:`fakd.ranges.Range`."""
    return Key(default, help, range_of(default, **limits))


SIZE = {"least": 1, "count": 2}
OPTIONAL_SIZE = {"least": 0, "count": 2}

KEYS: dict[str, Key] = {
    "SEED": key(0, "of initial weights, data order, augmentation and dropout; negative: drawn", below=2**31),
    "OUTPUT_DIR": key(
        "./output", "folder of the run; default of a config file: output/<its name and recipe>"
    ),
    "WRITERS": key((), "services that get a run's numbers too", choices=("wandb", "mlflow")),
    "CUDNN_BENCHMARK": key(False, "let cuDNN try its algorithms, which may differ between runs"),
    "PLUGINS": key(
        (), "modules, by name or path, imported first, so that a config can name what they register"
    ),
    "PROTOCOL": key(
        "", "how a paper trains and tests: a name in fakd/config/protocols, or a path; all else wins"
    ),
    "CHECKPOINT.ALLOW_PICKLE": key(False, "read weights files that are more than tensors and may run code"),
    # Data.
    "INPUT.FORMAT": key("RGB", "order of the channels that the network is given", choices=("RGB", "BGR")),
    "INPUT.CHANNELS": key(
        3, "of an image; default the training set's own. Beyond three, files are npy, tif or png", least=1
    ),
    "INPUT.RANDOM_FLIP": key("horizontal", "mirror half of the images", choices=("horizontal", "none")),
    "INPUT.SCALE_RANGE": key(
        (0.5, 2.0),
        "the factor of an image's size is drawn from it, uniformly",
        above=0,
        count=2,
        ascending=True,
    ),
    "INPUT.SCALE_STEP": key(0.0, "draw the factor in steps of this; 0: any", least=0),
    "INPUT.BASE_SIZE": key(
        (0, 0),
        "box (long, short) in pixels that images are fitted into first, in the test too",
        **OPTIONAL_SIZE,
    ),
    "INPUT.CROP.SIZE": key((512, 512), "(height, width) in pixels; smaller images are padded", **SIZE),
    "INPUT.CROP.MAX_SHARE": key(
        1.0, "a crop is drawn again, up to ten times, if one class fills this share of it", above=0, most=1
    ),
    "INPUT.PHOTOMETRIC": key(False, "mmsegmentation's random brightness, contrast, saturation and hue"),
    "INPUT.STRONG": key(
        (),
        "further changes of what the student is shown, not the teacher",
        choices=("colour", "blur", "cutout"),
    ),
    "DATASETS.TRAIN": key(("toyscenes_train",), "names of the training sets"),
    "DATASETS.TEST": key(
        ("toyscenes_val",), "names of the test sets; the best checkpoint is that of the first"
    ),
    "DATASETS.UNLABELLED": key((), "names of sets whose images are trained on without their labels, if any"),
    "DATASETS.LABEL_SHARE": key(
        1.0, "share of each training set whose labels are used; the others are left out", above=0, most=1
    ),
    "DATASETS.LABEL_BLOCKS": key(
        0, "runs of neighbours that this share is taken in; 1: the first of the set, 0: every n-th", least=0
    ),
    "DATASETS.CUSTOM": key(
        None,
        "yaml files that describe data of your own (docs/add_a_dataset.md)",
        kind=str,
        listed=True,
        optional=True,
    ),
    "DATASETS.CLASSES": key((), "names of the network's classes; default the training set's own"),
    "DATASETS.COLOURS": key((), "of these classes, as #rrggbb; default the training set's own"),
    "DATALOADER.NUM_WORKERS": key(2, "processes that read images, per training process", least=0),
    "DATALOADER.DECODED": key("", "folder of fakd data decode: training images are read from it"),
    "DATALOADER.UNLABELLED_SHARE": key(
        0.5,
        "of each batch, images of DATASETS.UNLABELLED; 1: all, for losses without labels",
        least=0,
        most=1,
    ),
    # Network.
    "MODEL.META_ARCHITECTURE": key("Segmentor", "what is trained; KD.LOSSES make it the Distiller"),
    "MODEL.DEVICE": key("cuda" if torch.cuda.is_available() else "cpu", "as torch names it"),
    "MODEL.WEIGHTS": key("", "file to start from, or to evaluate"),
    "MODEL.PIXEL_MEAN": key((123.675, 116.28, 103.53), "of the channels in INPUT.FORMAT; ImageNet's"),
    "MODEL.PIXEL_STD": key((58.395, 57.12, 57.375), "of the channels in INPUT.FORMAT", above=0),
    "MODEL.CHANNELS_LAST": key(False, "memory format; True is faster on CPUs with depthwise convolutions"),
    "MODEL.ACTIVATION_CHECKPOINTING": key(
        False, "compute the backbone's blocks again in the backward pass: less memory, a third more time"
    ),
    "MODEL.SYNC_BN": key(True, "batch norm over the images of all processes, on GPUs"),
    "MODEL.BACKBONE.NAME": key("TimmBackbone", "a registered backbone"),
    "MODEL.BACKBONE.TIMM_NAME": key("resnet18", "any network of timm that gives feature maps"),
    "MODEL.BACKBONE.OUTPUT_STRIDE": key(
        8, "8 and 16 dilate where timm can; 32 keeps the network's own strides", choices=(8, 16, 32)
    ),
    "MODEL.BACKBONE.DILATION_STYLE": key(
        "mmseg", "compute as mmsegmentation does with these weights, or as timm", choices=("mmseg", "timm")
    ),
    "MODEL.BACKBONE.TIMM_OPTIONS": Key((), "name, value, ...: further arguments of timm.create_model", None),
    "MODEL.BACKBONE.ANY_SIZE": key(
        False, "resize images to what the network takes: a multiple of its patch, or its one size"
    ),
    "MODEL.BACKBONE.FREEZE": key(False, "keep its weights as they are; only the heads are trained"),
    "MODEL.BACKBONE.FROZEN_STAGES": key(
        0, "keep weights and statistics up to its first map (res2), its second, ...; 0: none", least=0, most=3
    ),
    "MODEL.BACKBONE.STEM": key(
        "7x7", "of a ResNet; c and s are mmsegmentation's and CIRKD's deep stems", choices=("7x7", "c", "s")
    ),
    "MODEL.BACKBONE.WIDTH": key(1.0, "of a ResNet: factor of all channels", above=0),
    "MODEL.BACKBONE.PRETRAINED": key("none", "timm, registry, or the path of a file"),
    "MODEL.SEM_SEG_HEAD.NAME": key("PSPHead", "a registered decode head"),
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": key(12, "that are predicted", least=1),
    "MODEL.SEM_SEG_HEAD.IGNORE_VALUE": key(255, "of void pixels in training; no class", least=1, below=2**31),
    "MODEL.SEM_SEG_HEAD.CHANNELS": key(128, "in front of the classifier", least=1),
    "MODEL.SEM_SEG_HEAD.DROPOUT": key(0.1, "share of channels set to zero in training", least=0, below=1),
    "MODEL.SEM_SEG_HEAD.ALIGN_CORNERS": key(False, "how maps are resized, as torch names it"),
    "MODEL.SEM_SEG_HEAD.DILATIONS": key(
        (1, 12, 24, 36), "of the branches of the ASPP heads", least=1, filled=True
    ),
    "MODEL.SEM_SEG_HEAD.C1_CHANNELS": key(
        48, "of DepthwiseSeparableASPPHead: what the finest map is reduced to", least=1
    ),
    "MODEL.SEM_SEG_HEAD.ISA_CHANNELS": key(256, "of ISAHead: of queries and keys", least=1),
    "MODEL.SEM_SEG_HEAD.LOSS_MEAN": key(
        "valid", "divide the cross-entropy by the labelled pixels or by all", choices=("valid", "all")
    ),
    "MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS": key(
        (), "factor of the cross-entropy of each class; [] for 1", kind=float, least=0
    ),
    "MODEL.SEM_SEG_HEAD.HARDEST": key(
        1.0, "share of pixels, those of the largest cross-entropy, that it counts", above=0, most=1
    ),
    "MODEL.SEM_SEG_HEAD.JACCARD_WEIGHT": key(
        0.0, "factor of the soft Jaccard loss, which favours rare classes", least=0
    ),
    "MODEL.AUXILIARY_HEAD.WEIGHT": key(0.4, "factor of its loss; 0 builds none", least=0),
    "MODEL.AUXILIARY_HEAD.IN_FEATURE": key("res4", "the map it sees"),
    "MODEL.AUXILIARY_HEAD.CHANNELS": key(64, "in front of its classifier", least=1),
    # Training.
    "SOLVER.OPTIMIZER": key("SGD", "", choices=("SGD", "AdamW")),
    "SOLVER.IMS_PER_BATCH": key(16, "images of one step, of all processes together", least=1),
    "SOLVER.ACCUMULATE": key(1, "parts that a batch is computed in, to save memory", least=1),
    "SOLVER.REFERENCE_WORLD_SIZE": key(
        0,
        "processes the settings are meant for: batch, rate and length follow their number; 0: none",
        least=0,
    ),
    "SOLVER.BASE_LR": key(0.01, "learning rate after the warm-up", above=0),
    "SOLVER.HEAD_LR_FACTOR": key(1.0, "of the decode and the auxiliary head, times BASE_LR", least=0),
    "SOLVER.BIAS_LR_FACTOR": key(1.0, "of biases, times BASE_LR", least=0),
    "SOLVER.MOMENTUM": key(0.9, "of SGD", least=0, below=1),
    "SOLVER.NESTEROV": key(False, "of SGD"),
    "SOLVER.WEIGHT_DECAY": key(5e-4, "", least=0),
    "SOLVER.WEIGHT_DECAY_NORM": key(None, "of norms; None: as all else", kind=float, least=0, optional=True),
    "SOLVER.WEIGHT_DECAY_BIAS": key(None, "of biases; None: as all else", kind=float, least=0, optional=True),
    "SOLVER.EMA_DECAY": key(
        0.0, "of the moving average of the weights, which is tested and kept; 0: no average", least=0, below=1
    ),
    "SOLVER.POLY_POWER": key(
        0.9, "the rate falls as (1 - progress)^power to MIN_LR; 0 takes LR_SCHEDULER_NAME instead", least=0
    ),
    "SOLVER.MIN_LR": key(0.0, "learning rate at the end", least=0),
    "SOLVER.MAX_ITER": key(40000, "steps", least=1),
    "SOLVER.WARMUP_ITERS": key(0, "steps in which the learning rate grows to its schedule", least=0),
    "SOLVER.WARMUP_FACTOR": key(0.001, "of the rate in the first step", least=0, most=1),
    "SOLVER.WARMUP_METHOD": key("linear", "", choices=("linear", "constant")),
    "SOLVER.RESCALE_INTERVAL": key(False, "start the schedule after the warm-up, not beside it"),
    "SOLVER.LR_SCHEDULER_NAME": key(
        "WarmupMultiStepLR",
        "detectron2's schedules, for POLY_POWER 0",
        choices=("WarmupMultiStepLR", "WarmupCosineLR", "WarmupStepWithFixedGammaLR"),
    ),
    "SOLVER.STEPS": key((30000,), "WarmupMultiStepLR: where the rate falls", least=1, ascending=True),
    "SOLVER.GAMMA": key(0.1, "WarmupMultiStepLR, WarmupStepWithFixedGammaLR: factor of each fall", above=0),
    "SOLVER.NUM_DECAYS": key(3, "WarmupStepWithFixedGammaLR: number of falls", least=1),
    "SOLVER.BASE_LR_END": key(0.0, "WarmupCosineLR: learning rate at the end", least=0),
    "SOLVER.AMP.ENABLED": key(
        False, "mixed precision, in bfloat16 where the device has it; a CPU that has not stays in float32"
    ),
    "SOLVER.COMPILE": key(False, "torch.compile of the student, in the first step, which takes minutes"),
    "SOLVER.CLIP_GRADIENTS.ENABLED": key(False, "limit the gradient"),
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": key(
        "value", "each entry, or the norm of each parameter", choices=("value", "norm")
    ),
    "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": key(1.0, "the limit", above=0),
    "SOLVER.CLIP_GRADIENTS.NORM_TYPE": key(2.0, "p of the norm", above=0),
    "SOLVER.CHECKPOINT_PERIOD": key(
        1000, "steps from one full state to the next; 0: at the end only", least=0
    ),
    "SOLVER.CHECKPOINT_KEEP": key(
        2, "full states kept; 0: all. The final and the best weights always are", least=0
    ),
    # Evaluation.
    "TEST.EVAL_PERIOD": key(4000, "steps from one evaluation to the next; 0: at the end only", least=0),
    "TEST.WINDOW": key(
        (0, 0), "(height, width) of overlapping windows, in pixels; (0, 0): whole", **OPTIONAL_SIZE
    ),
    "TEST.STRIDE": key((0, 0), "(down, right) from window to window, in pixels", **OPTIONAL_SIZE),
    "TEST.SCALES": key(
        (1.0,), "factors of the test size, over which probabilities are averaged", above=0, filled=True
    ),
    "TEST.FLIP": key(False, "average with the mirrored image"),
    "TEST.SAVE": key(
        (), "predictions kept in OUTPUT_DIR/inference: labels, COCO run lengths", choices=("png", "json")
    ),
    "TEST.EXPECTED_RESULTS": Key(
        [], "[task, metric, value, tolerance], ...: the end is an error otherwise", None
    ),
    # Distillation.
    "KD.RECIPE": key("", "a method with its settings: a name in fakd/config/recipes, or a path"),
    "KD.LOSSES": key((), "registered names; each has its options in a node KD.<Name>"),
    "KD.PSEUDO_CONFIDENCE": key(
        1.0,
        "losses with the teacher that read labels take its class, in images without labels, where its "
        "probability is at least this; 1: nowhere",
        least=0,
        most=1,
    ),
    "KD.TEACHER.RUN": key("", "folder of a finished run: its config and its final weights are the teacher's"),
    "KD.TEACHER.CONFIG_FILE": key("", "config of the teacher"),
    "KD.TEACHER.BACKBONE": key(
        "", "any network of timm, in place of CONFIG_FILE: a teacher of features, without classes"
    ),
    "KD.TEACHER.WEIGHTS": key("", "file of its weights; of a BACKBONE also timm or registry"),
    "KD.TEACHER.FAST": key(
        ("auto",),
        "off, or a form that costs less: fold batch norms, channels_last, bf16 or fp16, compile; auto: the "
        "fastest that computes the same up to rounding",
        choices=("auto", "off", "fold", "channels_last", "bf16", "fp16", "compile"),
        filled=True,
    ),
    "KD.TEACHER.SCALE": key(
        1.0,
        "factor of the size of the images that the teacher sees; below 1 costs less and teaches less",
        above=0,
        most=2,
    ),
    "KD.TEACHER.CACHE": key(
        "", "folder of fakd cache: its views of the images are shown, and no teacher is built"
    ),
    "KD.TEACHER.CHECK_IMAGES": key(
        100, "the teacher is tried on so many before the first step; 0: not", least=0
    ),
    "KD.TEACHER.CHECK_RATIO": key(
        0.5, "training stops if its mIoU is below this part of the known", least=0, most=1
    ),
    "KD.TEACHER.MIOU": key(
        0.0, "the known, in percent; 0: as recorded beside its weights", least=0, most=100
    ),
    # Deployment.
    "DEPLOY.QAT.ENABLED": key(
        False, "train in the rounding of int8, which fakd export then writes (docs/deploy.md)"
    ),
    "DEPLOY.QAT.SHARE": key(1.0, "share of the training, at its end, in that rounding", above=0, most=1),
    "DEPLOY.QAT.FLOAT_LAYERS": key(
        (), "layers of the student that stay in float, * for any part of a name; see fakd sensitivity"
    ),
    "DEPLOY.QAT.WEIGHT_BITS": key(
        7, "of int8's weights; with 8, sums overflow on x86 processors without VNNI", choices=(7, 8)
    ),
}


def add_fakd_config(cfg: CfgNode) -> None:
    """Add :data:`KEYS` to ``get_cfg()``, and a node ``KD.<Name>`` per registered loss.

    Losses registered later (by a plugin) get their node from another call, which keeps the rest.
    """
    if "KD" not in cfg:
        for name, each in KEYS.items():
            *parents, leaf = name.split(".")
            node = cfg
            for parent in parents:
                node = node.setdefault(parent, CfgNode())
            node[leaf] = each.default
    for name, loss in DISTILL_LOSS_REGISTRY:
        if name not in cfg.KD:
            cfg.KD[name] = CfgNode(options_of(loss))
