"""Pictures without labels in a Distiller's batch: who skips them, who uses them, and the teacher's
classes."""

import pickle
from dataclasses import replace

import pytest
import torch
from material import VOID, build_loss, draw_labels, small_segmentor
from torch import nn

from fakd.functional.resize import resize_like
from fakd.modeling import Distiller
from fakd.modeling.pseudo_labels import PseudoLabels
from fakd.structures import LossInputs

LABEL_READERS = ("BPKD", "DKD", "FAKDChannel", "FAKDPixel", "IFVD", "JML")
BETWEEN_MAPS = (
    ("PD", {"MASK_IGNORED": True}),
    ("CWD", {"MASK_IGNORED": True}),
    ("DIST", {}),
    ("AT", {"MASK_IGNORED": True}),
    ("MGD", {"MASK_IGNORED": True}),
    ("NormalizedFeature", {"MASK_IGNORED": True, "NORM": "channel"}),
    ("FAKDPixel", {"MASK_IGNORED": True}),
)


def batch(padded=0):
    """A labelled picture and one without labels, the last columns of which are padding."""
    g = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 3, 64, 80), generator=g).to(torch.uint8)
    labels = draw_labels(2, (64, 80))
    unlabelled = torch.ones(64, 80, dtype=torch.bool)
    unlabelled[:, 80 - padded :] = False
    return [
        {"image": images[0], "sem_seg": labels[0]},
        {"image": images[1], "sem_seg": torch.full_like(labels[1], VOID), "unlabelled": unlabelled},
    ]


class Recorder(nn.Module):
    class config:
        weight = 1.0

    def forward(self, inputs):
        self.inputs = inputs
        return inputs.student.logits.square().mean()

    def pop_scalars(self):
        return {}


def distiller(*names, confidence=1.0, **options):
    student, teacher = small_segmentor(), small_segmentor(width=0.125, channels=12, seed=1)
    losses = {name: build_loss(name, student.spec, teacher.spec, **options) for name in names}
    model = Distiller(student=student, teacher=teacher, losses=losses, pseudo_confidence=confidence)
    model.losses["Recorder"] = Recorder()
    return model


def inputs_of(confidence, padded=0) -> tuple[LossInputs, dict]:
    model = distiller(confidence=confidence)
    losses = model(batch(padded))
    return model.losses["Recorder"].inputs, losses | model.pop_scalars()


def test_without_a_confidence_no_unlabelled_pixel_is_valid_and_all_are_kept():
    inputs, _ = inputs_of(1.0, padded=16)
    assert not inputs.valid[1].any() and not inputs.unlabelled[0].any()
    assert inputs.unlabelled[1, :, :8].all() and not inputs.unlabelled[1, :, 8:].any()
    assert torch.equal(inputs.kept, inputs.valid | inputs.unlabelled)


def test_a_batch_of_labelled_pictures_has_no_unlabelled_pixels():
    model = distiller(confidence=0.5)
    model(batch()[:1] * 2)
    inputs = model.losses["Recorder"].inputs
    assert inputs.unlabelled is None and inputs.kept is inputs.valid


@pytest.mark.parametrize("quantile", [0.0, 0.5, 0.9])
def test_sure_pixels_take_the_teacher_s_class(quantile):
    plain, _ = inputs_of(1.0)
    probability, label = resize_like(plain.teacher.logits, plain.student.feature).softmax(1).max(1)
    confidence = probability[1].flatten().sort().values[int(quantile * probability[1].numel())].item()
    inputs, logged = inputs_of(confidence, padded=16)
    sure = (probability >= confidence) & inputs.unlabelled
    assert torch.equal(inputs.valid[1], sure[1]) and 0 < sure[1].sum()
    assert torch.equal(inputs.labels[1][sure[1]], label[1][sure[1]])
    assert (inputs.labels[1][~sure[1]] == VOID).all()
    assert torch.equal(inputs.labels[0], plain.labels[0])  # where somebody labelled, nothing changes
    share = logged["pseudo_labels/share"].item()
    assert share == pytest.approx((sure.sum() / inputs.unlabelled.sum()).item())


def test_the_share_is_the_mean_of_the_steps_and_what_is_kept_for_it_does_not_grow():
    pseudo, sizes = PseudoLabels(0.9, VOID), []
    logits = torch.zeros(1, 2, 1, 4)
    unlabelled = torch.ones(1, 1, 4, dtype=torch.bool)
    for step in range(100):
        logits[0, 0, 0, step % 4] = 9.0  # one more pixel is sure, until all are
        pseudo(torch.full((1, 1, 4), VOID), unlabelled, logits)
        sizes.append(len(pickle.dumps(vars(pseudo))))
    assert sizes[1] == sizes[99]
    assert pseudo.pop_scalars()["pseudo_labels/share"].item() == pytest.approx((0.25 + 0.5 + 0.75 + 97) / 100)
    assert pseudo.pop_scalars() == {}


def test_a_confidence_that_no_pixel_passes_is_warned_of(caplog):
    _, logged = inputs_of(0.999)
    assert logged["pseudo_labels/share"] == 0
    assert "No pixel of the unlabelled images passes KD.PSEUDO_CONFIDENCE 0.999" in caplog.text


def test_the_teacher_is_shown_its_own_image_and_the_student_the_other():
    weak, strong = batch(), batch()
    for i, (x, y) in enumerate(zip(weak, strong, strict=True)):
        y["teacher_image"], y["image"] = x["image"], (x["image"] // 2 + 20 * i)
    found = {}
    for name, shown in (("weak", weak), ("strong", strong), ("changed", [{**x} for x in strong])):
        for each in shown if name == "changed" else ():
            del each["teacher_image"]
        model = distiller()
        model(shown)
        found[name] = model.losses["Recorder"].inputs
    assert torch.equal(found["strong"].teacher.logits, found["weak"].teacher.logits)
    assert torch.equal(found["strong"].student.logits, found["changed"].student.logits)
    assert not torch.equal(found["strong"].student.logits, found["weak"].student.logits)
    assert not torch.equal(found["changed"].teacher.logits, found["weak"].teacher.logits)
    assert torch.equal(found["strong"].labels, found["weak"].labels)


def test_cross_entropy_reads_the_labelled_picture_alone():
    model, mixed = distiller(confidence=0.01), batch()
    value = model(mixed)["loss_seg"].item()
    logits, labels = model.losses["Recorder"].inputs.student.logits[:1], mixed[0]["sem_seg"]
    large = torch.nn.functional.interpolate(logits, size=(64, 80), mode="bilinear", align_corners=False)
    alone = torch.nn.functional.cross_entropy(large, labels[None], ignore_index=VOID)
    assert value == pytest.approx(alone.item(), rel=1e-5)


def random_inputs(unlabelled, change=0.0) -> LossInputs:
    """Inputs of two pictures, the second void; ``change`` is of the teacher's maps of the second."""
    model = distiller()
    model(batch())
    inputs = model.losses["Recorder"].inputs
    maps = {}
    for name in ("logits", "feature"):
        noise = torch.randn(getattr(inputs.teacher, name).shape, generator=torch.Generator().manual_seed(1))
        noise[0] = 0
        maps[name] = getattr(inputs.teacher, name) + change * noise
    teacher = replace(inputs.teacher, **maps)
    return LossInputs(
        inputs.student, teacher, inputs.labels, inputs.valid, 0.5, inputs.unlabelled if unlabelled else None
    )


@pytest.mark.parametrize(("name", "options"), BETWEEN_MAPS)
def test_losses_between_maps_use_unlabelled_pixels_and_leave_void_out(name, options):
    values = {}
    for unlabelled in (False, True):
        for change in (0.0, 3.0):
            inputs = random_inputs(unlabelled, change)
            student, teacher = small_segmentor().spec, small_segmentor(width=0.125, channels=12).spec
            torch.manual_seed(0)
            loss = build_loss(name, student, teacher, **options).eval()
            torch.manual_seed(0)
            values[unlabelled, change] = loss(inputs).item()
    assert values[False, 0.0] == pytest.approx(values[False, 3.0], rel=1e-5)  # void is void
    assert values[True, 0.0] != pytest.approx(values[True, 3.0], rel=1e-4)


@pytest.mark.parametrize("name", LABEL_READERS)
def test_losses_that_read_labels_say_so_and_take_the_teacher_s(name):
    assert type(distiller(name).losses[name]).needs_labels
    plain, sure = (distiller(name, confidence=c) for c in (1.0, 0.01))
    for model in (plain, sure):
        model.set_progress(0.9)
    for _ in range(2):  # FAKD's first step has no covariance yet
        values = [model(batch())[f"loss_{name}"].item() for model in (plain, sure)]
    assert values[0] != pytest.approx(values[1], rel=1e-6)


def test_all_of_a_batch_may_be_unlabelled():
    model = distiller("PD", "DKD")
    losses = model(batch()[1:] * 2)
    sum(losses.values()).backward()
    assert losses["loss_seg"] == 0 and losses["loss_DKD"] == 0 and losses["loss_PD"] > 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.student.parameters())
