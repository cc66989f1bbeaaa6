"""Every key this project adds to detectron2's config, with its default and meaning."""

from __future__ import annotations

import torch
from detectron2.config import CfgNode as CN

from ..losses.base import options_of
from ..registry import DISTILL_LOSS_REGISTRY


def add_fakd_config(cfg: CN) -> None:
    """Add this project's keys to ``get_cfg()``, and a node ``KD.<Name>`` per registered loss.

    Losses registered later (by a plugin) get their node from another call, which keeps the rest.
    """
    if "KD" not in cfg:
        _add_training(cfg)
        _add_model(cfg)
        _add_distillation(cfg)
    for name, loss in DISTILL_LOSS_REGISTRY:
        if name not in cfg.KD:
            cfg.KD[name] = CN(options_of(loss))


def _add_training(cfg: CN) -> None:
    cfg.SEED = 0  # of initial weights, data order, augmentation and dropout; negative draws one
    # Modules, by name or path, imported before a config is read, so that it can name what they register.
    cfg.PLUGINS = ()

    # One word for how a paper trains and tests: a file of fakd/config/protocols, or the path of one's own.
    # Recipe, config file and command line win over it.
    cfg.PROTOCOL = ""

    cfg.INPUT.FORMAT = "RGB"
    cfg.INPUT.RANDOM_FLIP = "horizontal"
    # Factor drawn uniformly, of the image's own size or, if BASE_SIZE (long, short) is given, of the
    # largest size with the same aspect ratio inside that box, which is also the test scale.
    cfg.INPUT.SCALE_RANGE = (0.5, 2.0)
    cfg.INPUT.BASE_SIZE = (0, 0)
    cfg.INPUT.SCALE_STEP = 0.0  # draw factors in steps of this; 0: any
    cfg.INPUT.CROP.SIZE = (512, 512)  # height, width; smaller images are padded
    # A crop is drawn anew, up to ten times, if one class fills this share of its labelled pixels.
    cfg.INPUT.CROP.MAX_SHARE = 1.0
    cfg.INPUT.PHOTOMETRIC = False  # random brightness, contrast, saturation and hue, as mmsegmentation has it

    cfg.DATASETS.TRAIN = ("toyscenes_train",)
    cfg.DATASETS.TEST = ("toyscenes_val",)
    # Your own data: a yaml, or several, that describe datasets (docs/add_a_dataset.md).
    cfg.DATASETS.CUSTOM = None
    cfg.DATALOADER.NUM_WORKERS = 2

    cfg.SOLVER.OPTIMIZER = "SGD"  # or AdamW
    cfg.SOLVER.IMS_PER_BATCH = 16  # of all processes together
    cfg.SOLVER.ACCUMULATE = 1  # parts a batch is computed in, to save memory
    cfg.SOLVER.BASE_LR = 0.01
    cfg.SOLVER.HEAD_LR_FACTOR = 1.0  # of the decode and the auxiliary head, times BASE_LR
    cfg.SOLVER.MOMENTUM = 0.9
    cfg.SOLVER.WEIGHT_DECAY = 5e-4
    cfg.SOLVER.WEIGHT_DECAY_NORM = None  # as everything else
    cfg.SOLVER.POLY_POWER = 0.9
    cfg.SOLVER.MIN_LR = 0.0
    cfg.SOLVER.MAX_ITER = 40000
    cfg.SOLVER.WARMUP_ITERS = 0
    cfg.SOLVER.CHECKPOINT_PERIOD = 1000
    cfg.SOLVER.CHECKPOINT_KEEP = 2  # full states kept; the final and best weights always are
    cfg.TEST.EVAL_PERIOD = 4000
    # Test in overlapping windows (height, width) at every STRIDE (down, right); (0, 0) takes whole images.
    cfg.TEST.WINDOW = (0, 0)
    cfg.TEST.STRIDE = (0, 0)
    cfg.TEST.SCALES = (1.0,)  # factors of the test size; more than one averages the probabilities
    cfg.TEST.FLIP = False  # average with the mirrored image
    # Predictions to write into OUTPUT_DIR/inference/<dataset>: "png" (labels), "json" (COCO run lengths).
    cfg.TEST.SAVE = ()

    cfg.CHECKPOINT = CN()
    # Weights files that are more than tensors can run code when they are read.
    cfg.CHECKPOINT.ALLOW_PICKLE = False


def _add_model(cfg: CN) -> None:
    cfg.MODEL.META_ARCHITECTURE = "Segmentor"
    cfg.MODEL.DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
    cfg.MODEL.WEIGHTS = ""
    cfg.MODEL.PIXEL_MEAN = (123.675, 116.28, 103.53)  # ImageNet's, in INPUT.FORMAT
    cfg.MODEL.PIXEL_STD = (58.395, 57.12, 57.375)
    cfg.MODEL.CHANNELS_LAST = False  # memory format; True is faster on CPUs with depthwise convolutions
    cfg.MODEL.SYNC_BN = True  # batch norm over all processes

    backbone = cfg.MODEL.BACKBONE
    backbone.NAME = "TimmBackbone"
    backbone.TIMM_NAME = "resnet18"  # any network of timm that gives feature maps
    backbone.OUTPUT_STRIDE = 8  # 8 and 16 dilate where timm can; 32 keeps the network's own strides
    # "mmseg": what mmsegmentation computes with the same weights (dilation; HRNet's fusion), or "timm".
    backbone.DILATION_STYLE = "mmseg"
    backbone.TIMM_OPTIONS = ()  # name, value, ...: further arguments of timm.create_model
    backbone.STEM = "7x7"  # of a ResNet; "c" and "s" are mmsegmentation's and CIRKD's deep stems
    backbone.WIDTH = 1.0  # of a ResNet: factor of all channels
    # "timm": timm's hub; "registry": inside a package of Python's registry, and PIXEL_MEAN and PIXEL_STD go
    # with it if nothing else sets them; or the path of a file.
    backbone.PRETRAINED = "none"

    head = cfg.MODEL.SEM_SEG_HEAD
    head.NAME = "PSPHead"
    head.NUM_CLASSES = 12
    head.IGNORE_VALUE = 255
    head.CHANNELS = 128  # A, in front of the classifier
    head.DROPOUT = 0.1
    head.ALIGN_CORNERS = False
    head.DILATIONS = (1, 12, 24, 36)  # of the ASPP heads' branches
    head.C1_CHANNELS = 48  # of DepthwiseSeparableASPPHead: what the finest map is reduced to
    head.ISA_CHANNELS = 256  # of ISAHead: queries and keys
    head.LOSS_MEAN = "valid"  # divide the cross-entropy by the labelled pixels, or by "all"

    cfg.MODEL.AUXILIARY_HEAD = CN()
    cfg.MODEL.AUXILIARY_HEAD.WEIGHT = 0.4  # of its loss; 0 builds none
    cfg.MODEL.AUXILIARY_HEAD.IN_FEATURE = "res4"
    cfg.MODEL.AUXILIARY_HEAD.CHANNELS = 64


def _add_distillation(cfg: CN) -> None:
    cfg.KD = CN()
    # One word for a method with its losses, weights and temperatures: a file of fakd/config/recipes,
    # or the path of one's own. Keys of the config file and the command line win over it.
    cfg.KD.RECIPE = ""
    cfg.KD.LOSSES = ()  # registered names; each has its options in a node KD.<Name>
    cfg.KD.TEACHER = CN()
    cfg.KD.TEACHER.CONFIG_FILE = ""
    cfg.KD.TEACHER.WEIGHTS = ""
    # Before the first step the teacher is evaluated on so many images (0: not at all), and training stops
    # if its mIoU is below CHECK_RATIO times MIOU, or what is recorded beside its weights.
    cfg.KD.TEACHER.CHECK_IMAGES = 100
    cfg.KD.TEACHER.CHECK_RATIO = 0.5
    cfg.KD.TEACHER.MIOU = 0.0
