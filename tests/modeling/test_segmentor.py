"""detectron2's contract around one path of computation."""

import pytest
import torch
import torch.nn.functional as F
from detectron2.modeling import META_ARCH_REGISTRY, build_model
from material import VOID, draw_labels, small_segmentor

from fakd.config import load_config
from fakd.functional.label_losses import upsampled_jaccard
from fakd.modeling import Segmentor
from fakd.modeling.batch import stack_images, stack_labels

SMALL = ["MODEL.DEVICE", "cpu", "MODEL.BACKBONE.WIDTH", "0.0625", "MODEL.SEM_SEG_HEAD.CHANNELS", "8"]
SMALL += ["MODEL.SEM_SEG_HEAD.NUM_CLASSES", "5", "MODEL.AUXILIARY_HEAD.CHANNELS", "8"]


def items(*sizes, seed=0, labels=True):
    """A batch of uint8 images of the given (H, W), with labels."""
    g = torch.Generator().manual_seed(seed)
    batch = []
    for i, (h, w) in enumerate(sizes):
        item = {"image": torch.randint(0, 256, (3, h, w), generator=g).to(torch.uint8)}
        if labels:
            item["sem_seg"] = draw_labels(1, (h, w), seed=seed + i)[0]
        batch.append(item)
    return batch


def test_in_training_it_gives_losses_that_are_the_plain_cross_entropies():
    model = small_segmentor()
    model.decode_head.dropout.p = model.auxiliary_head.dropout.p = 0.0
    batch = items((64, 80), (64, 80))
    losses = model(batch)
    assert set(losses) == {"loss_seg", "loss_aux"}
    images = torch.stack([x["image"] for x in batch]).float()
    mean, std = torch.tensor([120.0, 110.0, 100.0]), torch.tensor([60.0, 50.0, 40.0])
    output = model.encode_normalized((images - mean[:, None, None]) / std[:, None, None])
    labels = torch.stack([x["sem_seg"] for x in batch])
    for name, logits, factor in (("loss_seg", output.logits, 1), ("loss_aux", output.aux_logits, 0.4)):
        scores = F.interpolate(logits, size=(64, 80), mode="bilinear", align_corners=False)
        expected = factor * F.cross_entropy(scores, labels, ignore_index=VOID)
        torch.testing.assert_close(losses[name], expected)
    sum(losses.values()).backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all(), name


def test_in_evaluation_it_gives_scores_at_the_size_asked_for():
    model = small_segmentor().eval()
    batch = items((64, 80), (64, 80), labels=False)
    batch[1].update(height=100, width=90)
    with torch.no_grad():
        first, second = model(batch)
        logits = model.encode(stack_images(batch, model.pixel_mean).tensor).logits
    full = F.interpolate(logits, size=(64, 80), mode="bilinear", align_corners=False)
    assert first["sem_seg"].shape == (5, 64, 80) and second["sem_seg"].shape == (5, 100, 90)
    torch.testing.assert_close(first["sem_seg"], full[0])
    again = F.interpolate(full[1:], size=(100, 90), mode="bilinear", align_corners=False)
    torch.testing.assert_close(second["sem_seg"], again[0])


def test_images_of_different_sizes_are_padded_with_the_mean_and_cropped_back():
    """What is outside an image is zero to the network, as if the convolutions had padded it."""
    model = small_segmentor().eval()
    small, large = items((48, 64), (64, 80), labels=False)
    images = stack_images([small, large], model.pixel_mean)
    assert images.tensor.shape == (2, 3, 64, 80)
    normal = model.normalize(images.tensor)
    assert normal[0, :, 48:].abs().max() < 1e-5 and normal[0, :, :, 64:].abs().max() < 1e-5
    torch.testing.assert_close(images.tensor[0, :, :48, :64], small["image"].float())
    # The same as an image that was padded with the mean before.
    mean = torch.tensor([120.0, 110.0, 100.0])[:, None, None].expand(3, 64, 80).clone()
    mean[:, :48, :64] = small["image"].float()
    with torch.no_grad():
        result = model([small, large])
        padded = model([{"image": mean}, large])
    assert result[0]["sem_seg"].shape == (5, 48, 64)
    torch.testing.assert_close(result[0]["sem_seg"], padded[0]["sem_seg"][:, :48, :64], rtol=1e-4, atol=1e-5)


def test_labels_are_padded_with_void():
    model = small_segmentor()
    labels = stack_labels(items((48, 64), (64, 80)), model.ignore_value, model.device)
    assert labels.shape == (2, 64, 80) and labels.dtype == torch.int64
    assert (labels[0, 48:] == VOID).all() and (labels[0, :, 64:] == VOID).all()


@pytest.mark.parametrize("mean", ["valid", "all"])
def test_nothing_but_void_costs_nothing(mean):
    model = small_segmentor(loss_mean=mean)
    batch = items((64, 64), (64, 64))
    for item in batch:
        item["sem_seg"].fill_(VOID)
    losses = model(batch)
    assert all(value.item() == 0 for value in losses.values())
    sum(losses.values()).backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and not p.grad.any(), name


def test_the_mean_is_over_the_labelled_pixels_or_all():
    batch = items((64, 64), (64, 64))
    labels = torch.stack([x["sem_seg"] for x in batch])
    share = (labels != VOID).double().mean().item()
    values = {}
    for mean in ("valid", "all"):
        model = small_segmentor(loss_mean=mean).eval()  # the same weights, and no dropout
        output = model.encode(stack_images(batch, model.pixel_mean).tensor)
        values[mean] = model.losses(output, labels)["loss_seg"].item()
    assert values["all"] == pytest.approx(share * values["valid"], rel=1e-5)
    assert share < 0.9


def test_task_losses_by_their_keys():
    options = ["MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS", [1.0, 2.0, 0.5, 1.0, 4.0]]
    options += ["MODEL.SEM_SEG_HEAD.HARDEST", 0.3, "MODEL.SEM_SEG_HEAD.JACCARD_WEIGHT", 2.0]
    model = build_model(load_config(opts=[*map(str, SMALL), *map(str, options)]))
    batch = items((64, 80), (64, 80))
    labels = torch.stack([x["sem_seg"] for x in batch])
    output = model.encode(torch.stack([x["image"] for x in batch]).float())
    losses = model.losses(output, labels)
    assert set(losses) == {"loss_seg", "loss_aux", "loss_jaccard"}
    scores = F.interpolate(output.logits, size=(64, 80), mode="bilinear", align_corners=False)
    plain = F.cross_entropy(scores, labels, ignore_index=VOID, reduction="none").flatten()
    hardest = plain.topk(int(0.3 * plain.numel())).indices
    weights = torch.tensor(options[1])[labels.flatten()[hardest]]
    torch.testing.assert_close(losses["loss_seg"], (weights * plain[hardest]).sum() / weights.sum())
    torch.testing.assert_close(losses["loss_jaccard"], 2 * upsampled_jaccard(output.logits, labels))


def test_class_weights_of_another_number_are_refused():
    with pytest.raises(ValueError, match="CLASS_WEIGHTS has 2 numbers for 5 classes"):
        build_model(load_config(opts=[*SMALL, "MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS", "[1.0, 2.0]"]))


def test_another_void_label():
    batch = items((64, 64), (64, 64))
    losses = []
    for void in (VOID, 11):
        model = small_segmentor(ignore_value=void).eval()
        labels = torch.stack([x["sem_seg"] for x in batch])
        labels = labels.where(labels != VOID, void)
        output = model.encode(stack_images(batch, model.pixel_mean).tensor)
        losses.append(model.losses(output, labels)["loss_seg"].item())
    assert losses[0] == losses[1] > 0


def test_scores_have_the_alignment_of_the_head():
    model = small_segmentor().eval()
    model.decode_head.align_corners = True
    batch = items((64, 80), (64, 80), labels=False)
    with torch.no_grad():
        scores = model(batch)[0]["sem_seg"]
        logits = model.encode(stack_images(batch, model.pixel_mean).tensor).logits
    corners = scores[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    torch.testing.assert_close(corners, logits[0][:, [0, 0, -1, -1], [0, -1, 0, -1]])


@pytest.mark.parametrize("key, value", [("input_format", "HSV"), ("loss_mean", "some")])
def test_an_unknown_choice_is_refused(key, value):
    with pytest.raises(ValueError, match=value):
        small_segmentor(**{key: value})


def test_it_is_built_from_a_config_through_detectron2():
    assert "Segmentor" in META_ARCH_REGISTRY
    cfg = load_config(opts=[*SMALL, "INPUT.FORMAT", "BGR", "MODEL.PIXEL_MEAN", "(1.0, 2.0, 3.0)"])
    model = build_model(cfg)
    assert isinstance(model, Segmentor)
    assert model.spec.num_classes == 5 and model.spec.feature_channels == 8
    assert list(model.spec.stage_channels) == ["res2", "res3", "res4", "res5"]
    assert model.input_format == "BGR" and model.pixel_mean.flatten().tolist() == [1, 2, 3]
    # Normalisation is part of the config, not of a checkpoint.
    assert not any("pixel" in key for key in model.state_dict())
    without = build_model(load_config(opts=[*SMALL, "MODEL.AUXILIARY_HEAD.WEIGHT", "0.0"]))
    assert without.auxiliary_head is None and set(without(items((64, 64), (64, 64)))) == {"loss_seg"}


def test_an_unknown_head_lists_the_known():
    with pytest.raises(KeyError, match="MODEL.SEM_SEG_HEAD.NAME.*'PPSHead'.*FCNHead.*PSPHead"):
        build_model(load_config(opts=[*SMALL, "MODEL.SEM_SEG_HEAD.NAME", "PPSHead"]))


def test_a_head_on_a_map_that_is_not_there_names_those_that_are():
    with pytest.raises(KeyError, match=r"'res7'.*res2, res3, res4, res5.*MODEL\.AUXILIARY_HEAD\.IN_FEATURE"):
        build_model(load_config(opts=["MODEL.AUXILIARY_HEAD.IN_FEATURE", "res7", "MODEL.DEVICE", "cpu"]))
