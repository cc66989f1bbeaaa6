"""The teachers and students of the papers' tables, at full width, take a step with every loss on toyscenes.

Every pair of networks is tested once, with the fewest classes it is trained for: the first with every recipe,
the others with every loss, with the options of each recipe that has others. ``EVERY_PAIR=1 pytest
tests/integration/test_pairs.py`` tests every pair of every table, with its own classes, in some minutes.
"""

import os

import pytest
import torch
from torch import nn

from fakd.config import NO_RECIPE, RECIPES, load_config, read_experiments
from fakd.modeling import Distiller
from fakd.modeling.batch import stack_images, stack_labels
from fakd.modeling.build import build_distill_losses, build_segmentor

from .conftest import scenes

METHODS = sorted(path.stem for path in RECIPES.glob("*.yaml") if path.stem != NO_RECIPE)
# The maps of 65 pixels are too small for a critic that halves them four times; filling the published queues
# of 20 000 pixels per class with random numbers would take longer than all else.
OPTIONS = ["MODEL.DEVICE", "cpu", "MODEL.BACKBONE.PRETRAINED", "none", "KD.SKDSHolistic.WIDTHS", "(64,)"]
OPTIONS += ["KD.CIRKDMemory.PIXEL_QUEUE", "500", "KD.CIRKDMemory.REGION_QUEUE", "200"]
SIDE = 65


def students():
    """{name of a pair: config of its student}, from the experiments of both papers."""
    configs = {}
    for project in ("FAKD", "CIRKD"):
        for name, experiment in read_experiments(project).items():
            if name.endswith("/student"):
                configs[f"{project}/{name.removesuffix('/student')}"] = experiment.config_file
    if os.environ.get("EVERY_PAIR"):
        return configs
    loaded = {name: load_config(file) for name, file in configs.items()}
    by_classes = sorted(loaded, key=lambda name: loaded[name].MODEL.SEM_SEG_HEAD.NUM_CLASSES)
    distinct = {}
    for name in by_classes:
        networks = (configs[name].split("/")[-1], loaded[name].KD.TEACHER.CONFIG_FILE.split("/")[-1])
        distinct.setdefault(networks, name)
    return {name: configs[name] for name in distinct.values()}


STUDENTS = students()
WITH_EVERY_RECIPE = next(iter(STUDENTS))


def test_there_are_all_pairs():
    assert len(STUDENTS) == (27 if os.environ.get("EVERY_PAIR") else 8)
    assert len(METHODS) == 29


@pytest.mark.parametrize("pair", STUDENTS)
def test_a_pair_takes_a_step_with_every_loss(pair):
    cfg = load_config(STUDENTS[pair], OPTIONS, NO_RECIPE)
    options = [*OPTIONS, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", str(cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES)]
    teacher = build_segmentor(load_config(cfg.KD.TEACHER.CONFIG_FILE, options, NO_RECIPE))
    nn.init.normal_(teacher.decode_head.conv_seg.weight)  # a teacher that knows something
    distiller = Distiller(student=build_segmentor(cfg), teacher=teacher, losses={}).train()
    distiller.set_progress(0.5)
    student = distiller.student

    # Both networks run once, forwards and backwards; every recipe sees the same maps, as if it were alone.
    batch = scenes(2, SIDE)
    raw = stack_images(batch, student.pixel_mean).tensor
    labels = stack_labels(batch, student.ignore_value, student.device)
    taught = distiller.teacher(raw, batch)
    output = student.encode(raw)
    assert output.logits.shape[-2:] == taught.logits.shape[-2:]
    maps = [output.logits, output.feature, *output.stages.values()]
    shown = output._map(lambda x: x.detach().requires_grad_())
    leaves = [shown.logits, shown.feature, *shown.stages.values()]
    seen = set()
    for recipe in METHODS:
        config = load_config(STUDENTS[pair], OPTIONS, recipe)
        losses = {(name, str(config.KD[name])) for name in config.KD.LOSSES}
        if pair != WITH_EVERY_RECIPE:
            config.KD.LOSSES = tuple(name for name, _ in sorted(losses - seen))
        seen |= losses
        if not config.KD.LOSSES:
            continue
        distiller.losses = nn.ModuleDict(build_distill_losses(config, student.spec, teacher.spec))
        losses = distiller.distillation_losses(shown, taught, labels)
        assert set(losses) == {f"loss_{name}" for name in config.KD.LOSSES}
        assert all(value.isfinite() for value in losses.values()), (recipe, losses)
        gradients = torch.autograd.grad(sum(losses.values()), leaves, allow_unused=True)
        assert any(g is not None and g.any() for g in gradients), recipe
        assert all(g is None or g.isfinite().all() for g in gradients), recipe
        for leaf, gradient in zip(leaves, gradients, strict=True):
            if gradient is not None:
                leaf.grad = gradient if leaf.grad is None else leaf.grad + gradient
    used = [(x, leaf.grad) for x, leaf in zip(maps, leaves, strict=True) if leaf.grad is not None]
    own = sum(student.losses(output, labels).values())
    torch.autograd.backward([own, *(x for x, _ in used)], [None, *(grad for _, grad in used)])
    assert all(p.grad is None for p in teacher.parameters())
    gradients = [p.grad for p in student.backbone.parameters() if p.grad is not None]
    assert all(g.isfinite().all() for g in gradients) and any(g.any() for g in gradients)
