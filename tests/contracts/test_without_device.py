"""What must hold on an accelerator, tested without one.

Tensors on ``meta`` have no values: reading one on the host raises, and the code takes its branches for
devices other than the CPU. So a host synchronisation in a step cannot come back. PyTorch has no autocast on
``meta``; mixed precision is tested on the CPU (tests/contracts/test_losses.py) and on a GPU if there is one.
"""

import contextlib

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.events import EventStorage
from material import (
    SMALL_MAPS,
    build_loss,
    draw_labels,
    image_batch,
    loss_inputs,
    registered_losses,
    seg_output,
    seg_spec,
    small_segmentor,
    two_networks,
)
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call

from fakd.engine import step as step_module
from fakd.engine.step import StepTrainer
from fakd.evaluation import SegEvaluator
from fakd.functional.label_losses import hardest_labels, upsampled_cross_entropy, upsampled_jaccard
from fakd.layers import Critic, build_adapter
from fakd.losses.skds_holistic import gradient_penalty
from fakd.modeling import Distiller
from fakd.registry import DECODE_HEAD_REGISTRY
from fakd.statistics import ClassCovariance
from fakd.statistics.class_queue import ClassQueue, SharedRandom, class_means, gather_images, pick_pixels

LOSSES = registered_losses()
STUDENT, TEACHER = seg_spec(5, 8, width=6), seg_spec(5, 12, width=10)
SIZES = {"common": (9, 11), "one row": (17, 8), "large": (64, 64)}

# Losses that PyTorch cannot trace into one graph, with the reason.
NO_GRAPH = {"SKDSHolistic": "it trains its critic in the forward pass, with an optimizer of its own"}
# Between them they call every autograd function of the losses; tracing all of them takes long.
TRACED = ("PD", "FAKDPixel bound", "CIRKDBatch", "CIRKDMemory", "IFVD", "SKDSPair")
# Losses whose gradients are computed in the forward pass, for which tensors that claim to be CUDA's need a
# driver.
TRAINED_APART = {"SKDSHolistic"}

every_loss = pytest.mark.parametrize("name", LOSSES)


def build(name, student=STUDENT, teacher=TEACHER):
    return build_loss(name, student, teacher, **SMALL_MAPS.get(name, {}))


def meta_inputs(size=(9, 11), teacher_size=None, device="meta"):
    student = seg_output(STUDENT, size=size, device=device)
    teacher = seg_output(TEACHER, size=teacher_size or size, device=device)
    return loss_inputs(student, teacher, draw_labels(size=size, device=device))


# Losses ------------------------------------------------------------------------------------------------


@every_loss
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("device", ["cuda", "meta"])
def test_a_loss_reads_no_value(name, size, device):
    """Twice, so that statistics are relied on; ``cuda`` also checks that no two devices are mixed."""
    if device == "cuda" and name in TRAINED_APART:
        pytest.skip("it computes gradients in its forward pass")
    loss = build(name)
    with FakeTensorMode() if device == "cuda" else contextlib.nullcontext():
        state = {
            key: torch.empty(x.shape, dtype=x.dtype, device=device, requires_grad=x.requires_grad)
            for key, x in (*loss.named_parameters(), *loss.named_buffers())
        }
        for _ in range(2):
            inputs = meta_inputs(SIZES[size], device=device)
            value = functional_call(loss, state, (inputs,))
            assert value.device.type == device and value.shape == ()
            if device == "meta":
                value.backward()
        loss.pop_scalars()


@every_loss
def test_a_finer_teacher_is_resized_without_a_value(name):
    build(name).to("meta")(meta_inputs(teacher_size=(18, 21))).backward()


@pytest.mark.parametrize(
    "name", [*TRACED, *(pytest.param(name, marks=pytest.mark.slow) for name in LOSSES if name not in TRACED)]
)
def test_a_loss_is_one_graph(name):
    """torch.compile follows the loss of an accelerator to its end, forward and backward."""
    if name in NO_GRAPH:
        pytest.skip(NO_GRAPH[name])
    torch.compiler.reset()
    name, *form = name.split()
    options = {"FORM": form[0]} if form else SMALL_MAPS.get(name, {})
    built = build_loss(name, STUDENT, TEACHER, **options)
    loss = torch.compile(built.to("meta"), fullgraph=True, backend="eager")
    loss(meta_inputs()).backward()


@pytest.mark.parametrize("loss", [upsampled_cross_entropy, upsampled_jaccard])
@pytest.mark.parametrize("align_corners", [False, True])
def test_the_losses_of_labels_read_no_value(loss, align_corners):
    logits = torch.empty(2, 5, 9, 11, device="meta", requires_grad=True)
    labels = hardest_labels(logits, draw_labels(size=(65, 88), device="meta"), 0.5, 255, align_corners)
    loss(logits, labels, 255, align_corners).backward()
    assert logits.grad.device.type == "meta"


# Statistics and parts of losses -------------------------------------------------------------------------


@pytest.mark.parametrize("diagonal", [False, True])
def test_covariances_are_updated_without_a_value(diagonal):
    statistics = ClassCovariance(5, 8, diagonal).to("meta")
    inputs = meta_inputs()
    for _ in range(2):
        statistics.update(inputs.student.feature, inputs.labels, inputs.valid)
    assert all(x.device.type == "meta" for x in statistics.spread())


@pytest.mark.parametrize("storage", ["float16", "float32"])
@pytest.mark.parametrize("only_filled", [False, True])
def test_queues_are_filled_and_sampled_without_a_value(storage, only_filled):
    random = SharedRandom().to("meta")
    queue = ClassQueue(5, 7, 8, storage).to("meta")
    rows = torch.empty(2, 99, 8, device="meta")
    classes = draw_labels(device="meta").flatten(1)
    picked, ordinal = pick_pixels(classes, 5, 3, random)
    assert picked.shape == ordinal.shape == (2, 99)
    queue.push(gather_images(rows).flatten(0, 1), picked.flatten(), most=6)
    queue.push(*class_means(rows, classes, 5), 2)
    keys, weight = queue.sample(4, random, only_filled)
    assert keys.shape == (20, 8) and keys.device.type == "meta" and (weight is None) == (not only_filled)


def test_adapter_and_critic_read_no_value():
    feature = torch.empty(2, 8, 9, 11, device="meta", requires_grad=True)
    build_adapter("a test", 8, 12, norm=True).to("meta")(feature).sum().backward()
    critic = Critic(5, (4, 8)).to("meta")
    real, fake = (torch.empty(2, 5, 32, 32, device="meta") for _ in range(2))
    (critic(fake).mean() + gradient_penalty(critic, real, fake)).backward()
    assert all(p.grad is not None for p in critic.parameters())


# Networks and the step -----------------------------------------------------------------------------------


@pytest.mark.parametrize("head", dict(DECODE_HEAD_REGISTRY))
def test_a_network_reads_no_value(head):
    network = small_segmentor(head=head).to("meta")
    sum(network(image_batch(device="meta")).values()).backward()
    different = image_batch(1, (65, 89), "meta") + image_batch(1, (48, 64), "meta")
    with torch.no_grad():
        scores = network.eval()([{**item, "height": 40, "width": 50} for item in different])
    assert all(x["sem_seg"].shape == (5, 40, 50) for x in scores)


def with_every_loss():
    student, teacher = two_networks()
    losses = {name: build(name, student.spec, teacher.spec) for name in LOSSES}
    return Distiller(student=student, teacher=teacher, losses=losses).train()


def test_a_whole_step_reads_its_losses_once(monkeypatch):
    """Teacher, student, all losses, backward and update in micro-batches; the one read is that of the log."""
    reads = []

    class Readout:
        """In place of the copy of the losses to the host, which ``meta`` cannot give."""

        def __init__(self, device):
            assert device.type == "meta"

        def push(self, losses):
            reads.append(set(losses))

        def wait(self):
            return torch.zeros(len(reads), len(reads[0]))

    monkeypatch.setattr(step_module, "_Readout", Readout)
    model = with_every_loss().to("meta")
    model.set_progress(0.5)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, 0.1, momentum=0.9, weight_decay=1e-4)
    trainer = StepTrainer(model, [image_batch(4, device="meta")], optimizer, accumulate=2)
    with EventStorage():
        trainer.run_step()
    assert reads == [{"loss_seg", "loss_aux", *(f"loss_{name}" for name in LOSSES)}] * 2
    assert all(p.grad is not None for p in trained)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=str)
def test_a_gpu_is_not_waited_for(dtype):
    model = with_every_loss().cuda()
    batch = image_batch(device="cuda")
    for step in range(2):  # the first allocates, and caches tables of the interpolation
        torch.cuda.set_sync_debug_mode("error" if step else "default")
        try:
            with torch.autocast("cuda", dtype, enabled=dtype is not None):
                losses = model(batch)
            sum(losses.values()).backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert all(value.isfinite() for value in losses.values())


# Evaluation ----------------------------------------------------------------------------------------------


@pytest.fixture
def dataset():
    name = "without_device_test"
    DatasetCatalog.register(name, lambda: [{"file_name": "a.jpg", "sem_seg_file_name": "a.png"}])
    MetadataCatalog.get(name).set(stuff_classes=list("abcde"), ignore_label=255)
    yield name
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def test_pixels_are_counted_without_a_value(dataset):
    evaluator = SegEvaluator(dataset, lambda path: draw_labels(1)[0].numpy())
    for _ in range(2):
        evaluator.process([{"file_name": "a.jpg"}], [{"sem_seg": torch.empty(5, 9, 11, device="meta")}])
    assert evaluator.confusion.shape == (5, 5) and evaluator.confusion.device.type == "meta"
