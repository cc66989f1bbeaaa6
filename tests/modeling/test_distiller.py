"""A frozen teacher beside a student, whose checkpoints and evaluation are the plain student's."""

import copy

import pytest
import torch
from detectron2.modeling import META_ARCH_REGISTRY, build_model
from material import VOID, build_loss, draw_labels, small_segmentor
from torch import nn

from fakd.config import load_config
from fakd.modeling import Distiller
from fakd.modeling.build import build_distill_losses, build_segmentor, share_batch_norm
from fakd.structures import LossInputs

SMALL = """
MODEL:
  DEVICE: cpu
  BACKBONE: {{WIDTH: {width}}}
  SEM_SEG_HEAD: {{NUM_CLASSES: {classes}, CHANNELS: {channels}}}
  AUXILIARY_HEAD: {{CHANNELS: 8}}
"""


def batch(size=(64, 80), n=2):
    g = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, 3, *size), generator=g).to(torch.uint8)
    return [{"image": x, "sem_seg": y} for x, y in zip(images, draw_labels(n, size), strict=True)]


def distiller(names=("FAKDChannel",), student=None, teacher=None, **options):
    student = student or small_segmentor()
    teacher = teacher or small_segmentor(width=0.125, channels=12, seed=1)
    losses = {name: build_loss(name, student.spec, teacher.spec, **options) for name in names}
    return Distiller(student=student, teacher=teacher, losses=losses)


class Recorder(torch.nn.Module):
    """A loss that keeps what it is given."""

    class config:
        weight = 2.0

    def forward(self, inputs):
        self.inputs = inputs
        return inputs.student.logits.square().mean()

    def pop_scalars(self):
        return {}


@pytest.fixture
def recorded():
    """``recorded(items, **networks)``: the LossInputs of a step, and its losses."""

    def recorded(items, student=None, teacher=None, progress=0.0):
        model = distiller((), student, teacher)
        model.losses["Recorder"] = Recorder()
        model.set_progress(progress)
        losses = model(items)
        return model.losses["Recorder"].inputs, losses

    return recorded


# The teacher ------------------------------------------------------------------------------------------


def test_the_teacher_stays_in_eval_mode_whatever_is_called():
    model = distiller()
    for call in (model.train, lambda: model.train(True), lambda: model.eval().train(), model.student.train):
        call()
        assert model.student.training
        assert not any(module.training for module in model.teacher.modules())
    assert model.train() is model and model.losses["FAKDChannel"].training
    model.eval()
    assert not any(module.training for module in model.modules())


def test_a_step_leaves_the_teacher_as_it_was_and_changes_the_student():
    model = distiller(("PD", "CWD", "FAKDPixel", "FAKDChannel"))
    before = copy.deepcopy(model.teacher.state_dict())
    statistics = model.student.backbone.net.bn1.running_mean.clone()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for progress in (0.3, 0.6):
        model.set_progress(progress)
        losses = model(batch())
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    assert all(torch.equal(value, before[key]) for key, value in model.teacher.state_dict().items())
    assert all(not p.requires_grad and p.grad is None for p in model.teacher.parameters())
    assert not torch.equal(statistics, model.student.backbone.net.bn1.running_mean)


def test_the_optimizer_s_parameters_are_the_student_s_and_the_losses():
    model = distiller(("CWD", "FAKDChannel"))
    trained = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"student"}  # neither loss has an adapter
    assert any(name.startswith("teacher.") for name, _ in model.named_parameters())


@pytest.mark.parametrize("formats", [("RGB", "RGB"), ("RGB", "BGR"), ("BGR", "RGB")])
def test_each_network_sees_its_own_channel_order_mean_and_deviation(formats):
    student = small_segmentor(input_format=formats[0])
    teacher = small_segmentor(
        input_format=formats[1], pixel_mean=(1.0, 2.0, 3.0), pixel_std=(10.0, 20.0, 30.0), seed=1
    )
    model, seen = distiller(student=student, teacher=teacher), {}
    for name, network in (("student", student), ("teacher", teacher)):
        network.backbone.register_forward_pre_hook(lambda _, x, name=name: seen.update({name: x[0]}))
    items = batch()
    model(items)
    images = torch.stack([x["image"] for x in items]).float()

    def normal(x, mean, std):
        return (x - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]

    torch.testing.assert_close(seen["student"], normal(images, [120.0, 110, 100], [60.0, 50, 40]))
    images = images if formats[0] == formats[1] else images.flip(1)
    torch.testing.assert_close(seen["teacher"], normal(images, [1.0, 2, 3], [10.0, 20, 30]))


def test_other_class_counts_are_refused():
    with pytest.raises(ValueError, match="5 classes, the teacher 6.*NUM_CLASSES"):
        distiller((), teacher=small_segmentor(num_classes=6))


def test_other_channel_counts_are_refused():
    teacher = small_segmentor(pixel_mean=(0.0,) * 4, pixel_std=(1.0,) * 4)
    with pytest.raises(ValueError, match="have 3 channels, the teacher's 4.*INPUT.CHANNELS"):
        distiller((), teacher=teacher)


# What the losses get ----------------------------------------------------------------------------------


def test_losses_get_labels_and_mask_on_the_feature_s_grid(recorded):
    items = batch((64, 80))
    inputs, losses = recorded(items, progress=0.25)
    assert isinstance(inputs, LossInputs) and inputs.progress == 0.25
    labels = torch.stack([x["sem_seg"] for x in items])
    assert torch.equal(inputs.labels, labels[:, ::8, ::8])
    assert torch.equal(inputs.valid, inputs.labels != VOID)
    assert inputs.student.feature.shape[-2:] == inputs.labels.shape[-2:] == (8, 10)
    # The factor is applied by the distiller, and each loss has its own name in the log.
    expected = 2 * inputs.student.logits.square().mean()
    torch.testing.assert_close(losses["loss_Recorder"], expected)
    assert set(losses) == {"loss_seg", "loss_aux", "loss_Recorder"}


def test_padding_is_void_to_the_losses(recorded):
    inputs, _ = recorded([*batch((64, 80), 1), *batch((48, 48), 1)])
    assert not inputs.valid[1, 6:].any() and not inputs.valid[1, :, 6:].any()
    assert inputs.valid[0].any() and inputs.valid[1, :6, :6].any()


def test_teacher_maps_come_without_a_graph_and_student_maps_with_one(recorded):
    inputs, _ = recorded(batch())
    teacher, student = inputs.teacher, inputs.student
    for x in (teacher.logits, teacher.feature, teacher.weight, teacher.bias, *teacher.stages.values()):
        assert not x.requires_grad
    for x in (student.logits, student.feature, student.weight, student.bias, student.aux_logits):
        assert x.requires_grad
    assert teacher.aux_logits is None  # the auxiliary head is for training


def test_a_loss_that_is_no_scalar_is_named():
    model = distiller(["PD"])
    model.losses["PD"].forward = lambda inputs: inputs.student.logits
    with pytest.raises(ValueError, match=r"KD\.LOSSES: PD returned a tensor of shape \(2, 5, 8, 10\)"):
        model(batch())


def test_progress_reaches_the_schedule():
    model = distiller()
    for progress, lambda_ in ((0.0, 0.0), (0.5, 0.5)):
        model.set_progress(progress)
        model(batch())
        scalars = model.pop_scalars()
        assert scalars["FAKDChannel/lambda"].item() == pytest.approx(lambda_)
    assert model.pop_scalars() == {}


# Checkpoints ------------------------------------------------------------------------------------------


def test_batch_norm_is_shared_by_processes_except_where_it_cannot_be():
    model = distiller(("CIRKDMemory", "SKDSHolistic"))
    share_batch_norm(model)
    shared = {n for n, m in model.named_modules() if isinstance(m, nn.SyncBatchNorm)}
    local = {n for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert shared and all(n.startswith(("student.", "losses.CIRKDMemory.projector.")) for n in shared)
    assert any("projector" in n for n in shared)
    assert local and all(n.startswith(("teacher.", "losses.SKDSHolistic.critic.")) for n in local)


@pytest.mark.parametrize(("key", "value", "kept"), [("FREEZE", True, 21), ("FROZEN_STAGES", 2, 11)])
def test_a_network_alone_shares_batch_norm_and_keeps_what_is_frozen(key, value, kept):
    given = ["MODEL.DEVICE", "cpu", "MODEL.BACKBONE.WIDTH", 0.0625, f"MODEL.BACKBONE.{key}", value]
    model = build_segmentor(load_config(opts=given))
    share_batch_norm(model)
    norms = [m for m in model.train().backbone.modules() if isinstance(m, nn.SyncBatchNorm)]
    assert len(norms) == 21 and sum(not norm.training for norm in norms) == kept
    assert any(isinstance(m, nn.SyncBatchNorm) and m.training for m in model.decode_head.modules())


def test_its_state_is_the_plain_student_s_alone():
    model = distiller()
    plain = small_segmentor(seed=5)
    assert list(model.state_dict()) == list(plain.state_dict())
    model.load_state_dict(plain.state_dict())
    assert all(torch.equal(v, plain.state_dict()[k]) for k, v in model.student.state_dict().items())
    teacher = small_segmentor(width=0.125, channels=12, seed=1).state_dict()
    assert all(torch.equal(v, teacher[k]) for k, v in model.teacher.network.state_dict().items())
    plain.load_state_dict(model.state_dict())
    with pytest.raises(RuntimeError, match="unknown_weight"):
        model.load_state_dict({**plain.state_dict(), "unknown_weight": torch.zeros(1)})


def test_in_evaluation_it_is_the_student():
    model = distiller().eval()
    with torch.no_grad():
        result, expected = model(batch()), model.student(batch())
    assert all(torch.equal(a["sem_seg"], b["sem_seg"]) for a, b in zip(result, expected, strict=True))


def test_the_rest_of_the_state_survives_a_save_and_load(tmp_path):
    model = distiller(("FAKDChannel", "CWD"))
    model.set_progress(0.5)
    model(batch())
    torch.save(model.distillation_state.state_dict(), tmp_path / "rest.pth")
    other = distiller(("FAKDChannel", "CWD"))
    other.load_state_dict(model.state_dict())
    other.distillation_state.load_state_dict(torch.load(tmp_path / "rest.pth"))
    other.set_progress(0.5)
    values = []
    for m in (model, other):
        torch.manual_seed(3)
        values.append(m(batch())["loss_FAKDChannel"].item())
    assert values[0] == values[1] > 0
    assert other.losses["FAKDChannel"].statistics.count.sum() > 0
    assert not any("teacher" in key or "student" in key for key in model.distillation_state.state_dict())


# From a config ----------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path):
    """Config files of student and teacher, and the teacher's weights with its network."""

    def write(width, channels, classes, name):
        path = tmp_path / f"{name}.yaml"
        path.write_text(SMALL.format(width=width, channels=channels, classes=classes))
        return str(path)

    student, teacher = write(0.0625, 8, 5, "student"), write(0.125, 12, 5, "teacher")
    torch.manual_seed(1)
    network = build_model(load_config(teacher))
    torch.save({"model": network.state_dict()}, tmp_path / "teacher.pth")
    return student, teacher, str(tmp_path / "teacher.pth"), network, write


def load(files, *opts, recipe="fakd", teacher=None):
    student, teacher_file, weights, _, _ = files
    names = ["KD.TEACHER.CONFIG_FILE", teacher or teacher_file, "KD.TEACHER.WEIGHTS", weights]
    return load_config(student, [*names, *opts], recipe=recipe)


def test_it_is_built_from_a_config_through_detectron2(files):
    assert "Distiller" in META_ARCH_REGISTRY
    model = build_model(load(files, "KD.FAKDChannel.LAMBDA", "0.7"))
    assert isinstance(model, Distiller)
    assert all(
        torch.equal(v, files[3].state_dict()[k]) for k, v in model.teacher.network.state_dict().items()
    )
    assert list(model.losses) == ["FAKDChannel"]
    assert model.losses["FAKDChannel"].config.lambda_ == 0.7
    student = build_model(load(files, recipe="student"))
    assert list(model.state_dict()) == list(student.state_dict())
    assert set(model(batch())) == {"loss_seg", "loss_aux", "loss_FAKDChannel"}


def test_an_unknown_loss_lists_the_known(files):
    with pytest.raises(KeyError, match="KD.LOSSES.*'CDW'.*CWD, .*FAKDChannel.*PD"):
        build_model(load(files, "KD.LOSSES", "('CDW',)"))


def test_a_loss_of_weight_zero_is_not_built(files):
    cfg = load(files, "KD.LOSSES", "('FAKDChannel', 'CWD')", "KD.FAKDChannel.WEIGHT", "0.0")
    model = build_model(cfg)
    assert list(model.losses) == ["CWD"]
    assert not any("FAKDChannel" in key for key in model.distillation_state.state_dict())
    assert (
        build_distill_losses(load(files, recipe="student"), model.student.spec, model.teacher.network.spec)
        == {}
    )


def test_a_teacher_of_other_classes_or_another_config_is_refused(files):
    *_, network, write = files
    with pytest.raises(ValueError, match="do not fit.*other.yaml"):
        build_model(load(files, teacher=write(0.25, 12, 5, "other")))
    cfg = load(files, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "6")
    with pytest.raises(ValueError, match="6 classes, the teacher 5"):
        build_model(cfg)


@pytest.mark.parametrize("key", ["CONFIG_FILE", "WEIGHTS"])
def test_a_missing_teacher_is_named(files, key):
    with pytest.raises(ValueError, match=f"KD.TEACHER.{key} is empty"):
        build_model(load(files, f"KD.TEACHER.{key}", ""))


def test_a_teacher_that_was_distilled_itself_needs_no_teacher_of_its_own(files, tmp_path):
    text = open(files[1]).read() + "  META_ARCHITECTURE: Distiller\nKD: {RECIPE: cwd}\n"
    (tmp_path / "distilled.yaml").write_text(text)
    model = build_model(load(files, teacher=str(tmp_path / "distilled.yaml")))
    assert type(model.teacher.network).__name__ == "Segmentor"
