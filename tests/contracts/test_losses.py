"""What every registered distillation loss keeps, whoever wrote it. A new loss is covered without an edit.

Inputs are those of a segmentor: see ``material.seg_output``. What depends on the kind of loss:

* A loss without parameters is zero for equal networks at progress 0, if its target is the teacher alone. With
  a projector or a critic there is nothing of the kind to ask.
* Without a labelled pixel every loss is finite, with a gradient for every trainable parameter. A loss with
  the option ``mask_ignored`` is then exactly zero if it is set, and the teacher is never asked about void
  pixels. The others may be defined over all pixels, as public code has most of them.
"""

import ast
import copy
import inspect
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from detectron2.config import get_cfg
from material import (
    SMALL_MAPS,
    VOID,
    build_loss,
    draw_labels,
    image_batch,
    loss_inputs,
    registered_losses,
    seg_output,
    seg_spec,
    two_networks,
)

import fakd
from fakd import add_fakd_config
from fakd.losses import DistillLoss
from fakd.modeling import Distiller

ROOT = Path(fakd.__file__).parent
LOSSES = registered_losses()

STUDENT, TEACHER = seg_spec(5, 8, width=6), seg_spec(5, 12, width=10)
# Cases where a loss has nothing to say: a pixel alone is the mean of its class.
SILENT = {"IFVD": {"one labelled pixel"}, "BPKD": {"one labelled pixel"}}


def case_inputs(case, student=STUDENT, teacher=TEACHER, seed=0):
    """Inputs of a kind that has broken a loss somewhere."""
    size = {"n": 2, "size": (9, 11)}
    if case == "one image":
        size["n"] = 1
    if case == "odd sizes":
        size["size"] = (17, 13)
    labels = draw_labels(**size, seed=seed)
    teacher_size = dict(size)
    if case == "finer teacher":
        teacher_size["size"] = (18, 21)
    if case == "coarser teacher":
        teacher_size["size"] = (5, 6)
    if case == "one class":
        labels = torch.where(labels == VOID, VOID, 3)
    if case == "a class of one pixel":
        labels = torch.where(labels == VOID, VOID, labels % 2)
        labels[0, 0, 0] = 4
    if case == "one labelled pixel":
        labels = torch.full_like(labels, VOID)
        labels[0, 2, 3] = 1
    if case == "an image of void":
        labels[0] = VOID
    if case == "all void":
        labels = torch.full_like(labels, VOID)
    if case == "no void":
        labels = draw_labels(**size, void=0)
    return loss_inputs(
        seg_output(student, **size, seed=seed), seg_output(teacher, **teacher_size, seed=seed + 100), labels
    )


CASES = [
    "common",
    "one image",
    "odd sizes",
    "finer teacher",
    "coarser teacher",
    "one class",
    "a class of one pixel",
    "one labelled pixel",
    "an image of void",
    "all void",
    "no void",
]


# Options with which a loss that mixes the label into its target has none but the teacher.
TEACHER_ALONE = {"JML": {"LABEL_SHARE": 0.0}}


def leaves(output):
    maps = [output.feature, output.weight, output.bias, output.aux_logits, *output.stages.values()]
    return [x for x in maps if x.requires_grad]


def every_loss(function):
    return pytest.mark.parametrize("name", LOSSES)(function)


def has_mask(name):
    return "mask_ignored" in LOSSES[name].Config.__dataclass_fields__


def build(name, student, teacher, **options):
    return build_loss(name, student, teacher, **SMALL_MAPS.get(name, {}), **options)


def trainable(loss):
    return [p for p in loss.parameters() if p.requires_grad]


@every_loss
def test_it_says_what_it_is(name):
    loss = LOSSES[name]
    assert issubclass(loss, DistillLoss)
    assert inspect.getdoc(loss) != inspect.getdoc(DistillLoss), "describe the formula in the docstring"
    assert loss.paper, "name the paper in the class attribute `paper`"
    for option in fields(loss.Config):
        assert option.metadata.get("help"), f"say what {option.name} is: option(default, help)"
        assert isinstance(option.default, (bool, int, float, str, tuple)), f"{option.name} is no config value"
    assert "weight" in {option.name for option in fields(loss.Config)}


@every_loss
@pytest.mark.parametrize("case", CASES)
def test_finite_scalar_with_a_gradient(name, case):
    torch.manual_seed(0)
    loss = build(name, STUDENT, TEACHER)
    for step in range(2):  # the second has statistics to rely on
        inputs = case_inputs(case, seed=step)
        value = loss(inputs)
        assert value.shape == () and value.dtype == torch.float32 and value.isfinite()
        loss.zero_grad()
        value.backward()
        gradients = [x.grad for x in leaves(inputs.student) if x.grad is not None]
        assert gradients, "nothing of the student gets a gradient"
        assert all(g.isfinite().all() for g in gradients)
        if case != "all void" and case not in SILENT.get(name, ()):
            assert any(g.any() for g in gradients)
        for p in trainable(loss):
            assert p.grad is not None and p.grad.isfinite().all()
    if case == "common":
        assert all(p.grad.any() for p in trainable(loss)), "a parameter that is never trained"


@every_loss
@pytest.mark.parametrize("of_student, of_teacher", [(2, 1), (1, 2), (2, 3)])
def test_networks_that_saw_different_numbers_of_images_are_refused(name, of_student, of_teacher):
    """Batches of one would otherwise be broadcast to any number."""
    inputs = loss_inputs(
        seg_output(STUDENT, n=of_student), seg_output(TEACHER, n=of_teacher), draw_labels(n=of_student)
    )
    with pytest.raises(ValueError, match="images"):
        build(name, STUDENT, TEACHER)(inputs)


def largest_gradient(name, zeroed):
    """The largest of the student's gradients where what the index selects of its maps is zero."""
    torch.manual_seed(0)
    inputs = case_inputs("no void")
    maps = inputs.student
    with torch.no_grad():
        feature, stages = maps.feature.clone(), {tap: x.clone() for tap, x in maps.stages.items()}
        for x in (feature, *stages.values()):
            x[zeroed] = 0
    maps = replace(
        maps, feature=feature.requires_grad_(), stages={k: x.requires_grad_() for k, x in stages.items()}
    )
    logits = torch.einsum("ka,nahw->nkhw", maps.weight, feature) + maps.bias[:, None, None]
    build(name, STUDENT, TEACHER)(replace(inputs, student=replace(maps, logits=logits))).backward()
    gradients = [x.grad for x in leaves(maps) if x.grad is not None]
    assert all(g.isfinite().all() for g in gradients)
    return max(g.abs().max().item() for g in gradients)


@every_loss
@pytest.mark.parametrize("zeroed", ["a pixel", "an image"])
def test_zeros_get_no_larger_gradients_than_others(name, zeroed):
    """A vector of no length has no direction; 1 / length would be a gradient of 1e8 and more."""
    index = (0, slice(None), 2, 3) if zeroed == "a pixel" else (0,)
    ordinary = largest_gradient(name, ([],))
    assert largest_gradient(name, index) <= 100 * ordinary


@every_loss
def test_zero_for_equal_networks(name):
    loss = build(name, STUDENT, STUDENT, **TEACHER_ALONE.get(name, {}))
    if list(loss.parameters()):
        pytest.skip("it has parameters")
    for step in range(2):
        output = seg_output(STUDENT, seed=step)
        value = loss(loss_inputs(output, output, draw_labels(seed=step), progress=0.0))
        assert abs(value.item()) < 1e-6


@every_loss
def test_without_labelled_pixels_a_masked_loss_is_zero(name):
    if not has_mask(name):
        pytest.skip("it has no option mask_ignored")
    loss = build(name, STUDENT, TEACHER, MASK_IGNORED=True)
    inputs = case_inputs("all void")
    value = loss(inputs)
    value.backward()
    assert value.item() == 0
    assert all(x.grad is None or not x.grad.any() for x in leaves(inputs.student))


@every_loss
def test_a_masked_loss_does_not_ask_the_teacher_about_void(name):
    if not has_mask(name):
        pytest.skip("it has no option mask_ignored")
    values = []
    for change in (0.0, 5.0):
        torch.manual_seed(0)
        inputs = case_inputs("common")
        teacher, void = inputs.teacher, ~inputs.valid[:, None]
        logits = teacher.logits + change * void * torch.arange(5.0)[:, None, None]
        feature = teacher.feature + change * void * torch.arange(12.0)[:, None, None]
        teacher = replace(teacher, logits=logits, feature=feature)
        labels = inputs.labels.where(inputs.valid, 254 if change else VOID)
        inputs = replace(inputs, teacher=teacher, labels=labels)
        values.append(build(name, STUDENT, TEACHER, MASK_IGNORED=True)(inputs).item())
    assert values[0] == pytest.approx(values[1], rel=1e-5)


@every_loss
def test_inputs_are_left_as_they_are(name):
    inputs = case_inputs("common")
    before = copy.deepcopy(
        [
            x.detach()
            for o in (inputs.student, inputs.teacher)
            for x in (o.logits, o.feature, *o.stages.values())
        ]
    )
    labels = inputs.labels.clone()
    build(name, STUDENT, TEACHER)(inputs).backward()
    after = [x for o in (inputs.student, inputs.teacher) for x in (o.logits, o.feature, *o.stages.values())]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert torch.equal(labels, inputs.labels)


@every_loss
def test_state_survives_a_save_and_load(name, tmp_path):
    torch.manual_seed(0)
    first = build(name, STUDENT, TEACHER)
    for step in range(2):
        first(case_inputs("common", seed=step))
    torch.save(first.state_dict(), tmp_path / "state.pth")
    second = build(name, STUDENT, TEACHER)
    second.load_state_dict(torch.load(tmp_path / "state.pth"))
    values = []
    for loss in (first, second):
        torch.manual_seed(1)
        values.append(loss(case_inputs("common", seed=2)).item())
    assert values[0] == values[1]


@every_loss
def test_evaluation_needs_no_gradient_and_changes_no_state(name):
    loss = build(name, STUDENT, TEACHER)
    loss(case_inputs("common"))
    loss.eval()
    before = copy.deepcopy(loss.state_dict())
    with torch.no_grad():
        assert loss(case_inputs("common", seed=1)).isfinite()
    torch.testing.assert_close(dict(loss.state_dict()), dict(before), rtol=0, atol=0)


@every_loss
def test_logged_numbers_are_scalar_tensors(name):
    loss = build(name, STUDENT, TEACHER)
    loss(case_inputs("common"))
    for key, value in loss.pop_scalars().items():
        assert isinstance(value, torch.Tensor) and value.shape == () and not value.requires_grad, key
    assert loss.pop_scalars() == {}


# Precision ---------------------------------------------------------------------------------------------


@every_loss
def test_half_precision_maps_are_computed_in_float32(name):
    """Under autocast the loss of bfloat16 maps is the loss of the same numbers in float32 outside it."""
    student, teacher = two_networks()
    loss = build(name, student.spec, teacher.spec)
    distiller = Distiller(student=student, teacher=teacher, losses={name: loss})
    state = copy.deepcopy(loss.state_dict())
    half = [
        seg_output(net.spec, size=(9, 12), dtype=torch.bfloat16, seed=i)
        for i, net in enumerate((student, teacher))
    ]
    # The classifier itself is kept in float32 by autocast.
    values = []
    for enabled in (True, False):
        loss.load_state_dict(state)
        maps = half if enabled else [x.float() for x in half]
        for net, output in zip((student, teacher), maps, strict=True):
            # The teacher is normalised and encoded in two steps.
            net.encode = net.encode_normalized = lambda images, output=output: output
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            values.append(distiller(image_batch())[f"loss_{name}"])
    assert values[0].dtype == torch.float32 and values[0].isfinite()
    assert values[0].item() == pytest.approx(values[1].item(), rel=1e-6)


@every_loss
def test_two_networks_train_under_autocast(name):
    """Every parameter of student and loss gets a finite gradient, the teacher none."""
    student, teacher = two_networks()
    loss = build(name, student.spec, teacher.spec)
    distiller = Distiller(student=student, teacher=teacher, losses={name: loss}).train()
    distiller.set_progress(0.5)
    with torch.autocast("cpu", torch.bfloat16):
        losses = distiller(image_batch())
    assert all(value.isfinite() and value.dtype == torch.float32 for value in losses.values())
    sum(losses.values()).backward()
    for key, p in distiller.named_parameters():
        if key.startswith("teacher."):
            assert p.grad is None and not p.requires_grad, key
        elif p.requires_grad:
            assert p.grad is not None and p.grad.isfinite().all(), key


# Source ------------------------------------------------------------------------------------------------

# Calls that make the host wait for the device, or tie the code to one.
WAITS = {
    "item",
    "cpu",
    "cuda",
    "nonzero",
    "tolist",
    "numpy",
    "argwhere",
    "masked_select",
    "bincount",
    "unique",
}
REASONS = {
    "_covariance_by_sorting": "chosen on the CPU only, where nothing is waited for",
    "_interpolation": "of a matrix made on the CPU, once per size",
}


def sources():
    return [
        file
        for folder in ("losses", "functional", "statistics", "layers")
        for file in sorted((ROOT / folder).rglob("*.py"))
        if file.name != "confusion.py"  # of evaluation, once per image and not per step
    ]


def calls_that_wait(tree):
    """(function they are in, name) of every call in ``WAITS``."""
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            for node in ast.walk(function):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    if node.func.attr in WAITS:
                        yield function.name, node.func.attr


@pytest.mark.parametrize("file", sources(), ids=lambda f: str(f.relative_to(ROOT)))
def test_no_call_waits_for_the_device(file):
    found = list(calls_that_wait(ast.parse(file.read_text())))
    assert [call for call in found if call[0] not in REASONS] == []


def test_the_search_for_waiting_calls_finds_them():
    source = "class Loss:\n    def forward(self, x):\n        return [x.sum().item(), torch.nonzero(x)]"
    assert list(calls_that_wait(ast.parse(source))) == [("forward", "item"), ("forward", "nonzero")]


def test_defaults_are_in_the_config():
    cfg = get_cfg()
    add_fakd_config(cfg)
    for name, loss in LOSSES.items():
        node = cfg.KD[name]
        assert len(node) == len(fields(loss.Config))
        for option in fields(loss.Config):
            assert node[option.name.rstrip("_").upper()] == option.default
