"""Teachers without classes: a network of timm alone, of any patch and any size of image."""

import pytest
import timm
import torch
from detectron2.config import get_cfg
from material import build_loss, draw_labels, seg_output, small_segmentor
from safetensors.torch import save_file

from fakd import add_fakd_config
from fakd.modeling import Distiller, TimmBackbone
from fakd.modeling.backbone_teacher import load_backbone_teacher
from fakd.modeling.build import build_distill_losses, build_teacher
from fakd.registry import DISTILL_LOSS_REGISTRY
from fakd.structures import LossInputs, SegSpec

FEATURES = (
    ("AT", {}),
    ("AfDCD", {}),
    ("CanKD", {}),
    ("CIRKDBatch", {}),
    ("CWD", {"SOURCE": "feature"}),
    ("CIRKDMemory", {"PIXEL_QUEUE": 20, "REGION_QUEUE": 20}),
    ("FitNet", {}),
    ("IFVD", {}),
    ("MGD", {}),
    ("NormalizedFeature", {"NORM": "channel"}),
    ("SKDSPair", {}),
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """``weights(name)``: a file of random weights of a network of timm."""
    folder = tmp_path_factory.mktemp("weights")

    def write(name):
        path = folder / f"{name}.safetensors"
        if not path.exists():
            torch.manual_seed(0)
            net = timm.create_model(name, pretrained=False)
            save_file({key: value.contiguous() for key, value in net.state_dict().items()}, str(path))
        return str(path)

    return write


def batch(size=(64, 80)):
    g = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 3, *size), generator=g).to(torch.uint8)
    return [{"image": x, "sem_seg": y} for x, y in zip(images, draw_labels(2, size), strict=True)]


@pytest.mark.parametrize(
    ("name", "size", "shown"),
    [
        ("vit_tiny_patch16_224", (64, 80), (64, 80)),
        ("vit_tiny_patch16_224", (57, 83), (64, 80)),  # 3.6 and 5.2 patches
        ("vit_tiny_patch16_224", (5, 7), (16, 16)),
        ("vit_small_patch14_dinov2", (64, 80), (70, 84)),  # 4.6 and 5.7 patches
        ("mixer_s16_224", (64, 80), (224, 224)),
        ("levit_128", (64, 80), (224, 224)),
        ("resnet18", (57, 83), (57, 83)),
        ("swin_tiny_patch4_window7_224", (57, 83), (56, 84)),
    ],
)
def test_images_are_resized_to_what_the_network_takes(name, size, shown):
    with torch.device("meta"):
        backbone = TimmBackbone(name=name, output_stride=32, any_size=True).eval()
        seen = []
        backbone.net.register_forward_pre_hook(lambda _, x: seen.append(tuple(x[0].shape[-2:])))
        backbone(torch.empty(1, 3, *size))
    assert seen == [shown]


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_images_in_half_precision_are_resized_on_a_cpu(half):
    backbone = TimmBackbone(name="resnet18", width=0.0625, any_size=True).to(half).eval()
    backbone._fitting = lambda height, width: (32, 64)
    maps = backbone(torch.rand(1, 3, 64, 80, dtype=half))
    assert maps["res2"].shape[-2:] == (8, 16) and maps["res2"].dtype == half


def test_without_the_option_a_patch_that_does_not_fit_is_an_error_that_names_it():
    with torch.device("meta"):
        backbone = TimmBackbone(name="vit_small_patch14_dinov2", output_stride=32).eval()
        with pytest.raises(ValueError, match=r"64x80 \(.*patch size \(14\).*MODEL.BACKBONE.ANY_SIZE"):
            backbone(torch.empty(1, 3, 64, 80))


@pytest.mark.parametrize(("name", "options"), FEATURES)
def test_it_teaches_by_every_loss_of_features(weights, name, options):
    student = small_segmentor()
    teacher = load_backbone_teacher("vit_tiny_patch16_224", weights("vit_tiny_patch16_224"))
    assert teacher.spec.num_classes == 0 and teacher.spec.feature_channels == 192
    loss = build_loss(name, student.spec, teacher.spec, **options)
    model = Distiller(student=student, teacher=teacher, losses={name: loss})
    losses = model(batch((57, 83)))
    losses[f"loss_{name}"].backward()
    assert losses[f"loss_{name}"].isfinite() and losses[f"loss_{name}"] > 0
    assert any(p.grad is not None and p.grad.any() for p in student.backbone.parameters())


def test_the_teacher_s_maps_are_timm_s_own(weights):
    name = "vit_tiny_patch16_224"
    teacher = load_backbone_teacher(name, weights(name)).eval()
    net = timm.create_model(name, checkpoint_path=weights(name)).eval()
    images = torch.randint(0, 256, (1, 3, 224, 224)).float()
    with torch.no_grad():
        expected = net.forward_intermediates((images / 255 - 0.5) / 0.5, indices=1, intermediates_only=True)
        torch.testing.assert_close(teacher.encode(images).feature, expected[-1], rtol=1e-3, atol=1e-3)


def test_every_loss_that_says_it_reads_no_logits_reads_none():
    """A teacher without classes has logits of no channel; asked for anything of them, torch raises."""
    silent = [n for n, loss in DISTILL_LOSS_REGISTRY if not loss.reads_teacher_logits(loss.Config())]
    assert set(silent) == {name for name, options in FEATURES if "SOURCE" not in options}
    student, teacher = SegSpec(5, 8, {}), SegSpec(0, 12, {})
    for name, options in FEATURES:
        loss = build_loss(name, student, teacher, **options)
        labels = draw_labels()
        spec = SegSpec(5, 8, {f"res{i}": 4 for i in range(2, 6)})
        own = seg_output(spec)
        other = seg_output(SegSpec(1, 12, spec.stage_channels))
        object.__setattr__(other, "logits", other.logits[:, :0])
        assert loss(LossInputs(own, other.detach(), labels, labels != 255)).isfinite()


@pytest.mark.parametrize("name", ["PD", "CWD", "DIST", "DKD", "FAKDPixel", "JML", "DSD", "SKDSHolistic"])
def test_a_loss_of_logits_is_refused_and_others_are_named(name):
    cfg = get_cfg()
    add_fakd_config(cfg)
    cfg.KD.LOSSES = (name,)
    with pytest.raises(ValueError, match=rf"{name} reads the teacher.s logits.*AT, .*SKDSPair.*CWD with"):
        build_distill_losses(cfg, SegSpec(5, 8), SegSpec(0, 12))


def test_the_teacher_s_classes_are_refused_for_labels_where_it_has_none(weights):
    student = small_segmentor()
    teacher = load_backbone_teacher("vit_tiny_patch16_224", weights("vit_tiny_patch16_224"))
    model = Distiller(student=student, teacher=teacher, losses={}, pseudo_confidence=0.9)
    items = [{**item, "unlabelled": torch.ones(64, 80, dtype=torch.bool)} for item in batch()]
    with pytest.raises(ValueError, match="KD.PSEUDO_CONFIDENCE asks for the teacher's classes"):
        model(items)


@pytest.mark.parametrize(
    ("name", "weights_word", "told"),
    [
        ("vit_tiny_patch16_224", "", "KD.TEACHER.WEIGHTS is empty: set it to 'timm'"),
        ("vit_tiny_patch16_244", "timm", "KD.TEACHER.BACKBONE 'vit_tiny_patch16_244'.*timm has no"),
        ("resnet18", "registry", "KD.TEACHER.BACKBONE 'resnet18'.*no package of the registry"),
        ("resnet18", "nowhere.pth", "KD.TEACHER.WEIGHTS 'nowhere.pth': .*no file"),
    ],
)
def test_what_cannot_be_had_is_told_by_its_keys(name, weights_word, told):
    cfg = get_cfg()
    add_fakd_config(cfg)
    cfg.KD.TEACHER.BACKBONE, cfg.KD.TEACHER.WEIGHTS = name, weights_word
    with pytest.raises((ValueError, FileNotFoundError), match=told):
        build_teacher(cfg)


# A frozen backbone with a head of its own ---------------------------------------------------------------


def test_a_frozen_backbone_stays_and_its_head_learns():
    model = small_segmentor(head="LinearHead", freeze_backbone=True).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        sum(model(batch()).values()).backward()
        optimizer.step()
    after = model.state_dict()
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"decode_head", "auxiliary_head"}
    assert not model.backbone.training and model.decode_head.training


def test_the_linear_head_is_linear():
    head = small_segmentor(head="LinearHead").decode_head.eval()
    x, y = torch.randn(2, 1, 32, 4, 4)
    stages = [{head.in_feature: each} for each in (x, y, x + y, torch.zeros_like(x))]
    a, b, both, zero = (head(each)[1] for each in stages)
    torch.testing.assert_close(a + b - zero, both, rtol=1e-4, atol=1e-5)
