"""Training on what a teacher has said before: the same losses, no teacher, and nothing stale."""

import json

import numpy as np
import pytest
import torch
from material import registered_losses, seg_spec

from fakd.data import build_train_loader
from fakd.data.loader import build_view_loader, training_records
from fakd.engine import SharedTeacherRun, run, run_side_by_side
from fakd.engine.cache_teacher import cache_teacher
from fakd.losses._usage import teacher_maps
from fakd.modeling import Distiller
from fakd.modeling.cached_teacher import CachedTeacher
from fakd.view_cache import CacheInfo, ViewCache

from .conftest import assert_same_weights, tiny_config, weights

VIEWS = 3


@pytest.fixture(scope="module")
def cache(tmp_path_factory, teacher):
    """A folder with the logits and the feature of every view."""
    folder = tmp_path_factory.mktemp("cache")
    cfg = tiny_config("", *teacher, "KD.TEACHER.FAST", "off", "KD.LOSSES", "('CWD','NormalizedFeature')")
    cache_teacher(cfg, str(folder), VIEWS, seed=5)
    return str(folder)


def info(maps, top=0, classes=5):
    shapes = {name: [classes if name == "logits" else 8, 4, 6] for name in maps}
    spec = {"num_classes": classes, "feature_channels": 8, "stage_channels": {"res5": 8}}
    digests = {"teacher": "a", "scale": 1.0, "data": "b", "look": "c", "seed": 0}
    return CacheInfo(**digests, **spec, images=3, views=2, top=top, maps=shapes)


def test_the_maps_of_a_batch_are_the_teacher_s_in_half_precision(cache, teacher):
    cfg = tiny_config("", *teacher, "KD.TEACHER.CACHE", cache, recipe="cwd")
    batch = next(iter(build_train_loader(cfg)))
    live = Distiller(tiny_config("", *teacher, recipe="cwd"))
    images = torch.stack([x["image"] for x in batch]).float()
    wanted, found = live.teacher(images, batch), CachedTeacher(ViewCache(cache))(images, batch)
    for name in ("logits", "feature"):
        torch.testing.assert_close(getattr(found, name), getattr(wanted, name), rtol=2e-3, atol=1e-3)


def test_a_run_needs_no_teacher_and_repeats_and_resumes_to_the_bit(cache, tmp_path):
    opts = ["KD.TEACHER.CACHE", cache, "SOLVER.MAX_ITER", "8"]  # neither its config nor its weights
    for name in ("stopped", "undisturbed"):
        run(tiny_config(tmp_path / name, *opts, recipe="cwd"))
    (tmp_path / "stopped" / "result.json").unlink()
    (tmp_path / "stopped" / "model_0000007.pth").unlink()
    run(tiny_config(tmp_path / "stopped", *opts, recipe="cwd"), resume=True)
    run_side_by_side([SharedTeacherRun(tiny_config(tmp_path / "packed", *opts, recipe="cwd"))])
    expected = weights(tmp_path / "undisturbed" / "model_final.pth")
    for name in ("stopped", "packed"):
        assert_same_weights(weights(tmp_path / name / "model_final.pth"), expected)


def test_every_view_of_every_image_comes_up_and_is_what_the_tool_saw(cache):
    cfg = tiny_config("", "KD.TEACHER.CACHE", cache, "INPUT.PHOTOMETRIC", "False", recipe="cwd")
    records = training_records(cfg)
    batches, seen = iter(build_train_loader(cfg)), {}
    for _ in range(12 * len(records) * VIEWS // cfg.SOLVER.IMS_PER_BATCH):
        seen |= {x["view"]: x["image"] for x in next(batches)}
    assert set(seen) == set(range(len(records) * VIEWS))
    (wanted,) = next(iter(build_view_loader(cfg, records, VIEWS, 5, [7] * cfg.SOLVER.IMS_PER_BATCH)))[:1]
    assert torch.equal(seen[7], wanted["image"])


@pytest.mark.parametrize(
    ("opts", "what"),
    [
        (["INPUT.SCALE_RANGE", "(0.5,1.0)"], "other INPUT keys"),
        (["KD.TEACHER.SCALE", "0.5"], "other KD.TEACHER.SCALE"),
        (["DATASETS.TRAIN", "tiny_val"], "other images or labels"),
    ],
)
def test_a_stale_cache_is_refused(cache, tmp_path, opts, what):
    with pytest.raises(ValueError, match=f"KD.TEACHER.CACHE .*was made with {what}"):
        run(tiny_config(tmp_path, "KD.TEACHER.CACHE", cache, *opts, recipe="cwd"))


def test_one_of_another_teacher_is_refused(cache, tmp_path):
    other = tmp_path / "other.pth"
    torch.save({"model": {}}, other)
    with pytest.raises(ValueError, match="other KD.TEACHER.WEIGHTS"):
        run(tiny_config(tmp_path, "KD.TEACHER.CACHE", cache, "KD.TEACHER.WEIGHTS", other, recipe="cwd"))


def test_a_loss_that_reads_a_map_that_is_not_there_is_refused(cache, tmp_path):
    with pytest.raises(ValueError, match="holds feature, logits, but KD.LOSSES read res4"):
        run(tiny_config(tmp_path, "KD.TEACHER.CACHE", cache, "KD.LOSSES", "DSD"))


def test_a_folder_without_one_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no cache in"):
        run(tiny_config(tmp_path / "run", "KD.TEACHER.CACHE", tmp_path, recipe="cwd"))


def test_a_stopped_tool_goes_on_and_until_then_training_refuses(cache, teacher, tmp_path, monkeypatch):
    cfg = tiny_config("", *teacher, "KD.TEACHER.FAST", "off", "KD.LOSSES", "('CWD','NormalizedFeature')")
    write, calls = ViewCache.write, []

    def failing(self, rows, maps):
        calls.append(rows)
        if len(calls) == 3:
            raise KeyboardInterrupt
        write(self, rows, maps)

    monkeypatch.setattr(ViewCache, "write", failing)
    with pytest.raises(KeyboardInterrupt):
        cache_teacher(cfg, str(tmp_path), VIEWS, seed=5)
    with pytest.raises(ValueError, match=r"lacks \d+ of .*goes on with it"):
        run(tiny_config(tmp_path / "run", "KD.TEACHER.CACHE", tmp_path, recipe="cwd"))
    again = cache_teacher(cfg, str(tmp_path), VIEWS, seed=5)
    assert again.missing() == [] and sorted(sum(calls[:2] + calls[3:], [])) == list(
        range(again.info.images * VIEWS)
    )
    for name in ("logits", "feature"):
        assert np.array_equal(*(np.load(f"{folder}/{name}.npy") for folder in (cache, tmp_path)))
    with pytest.raises(ValueError, match="a cache of another views, seed"):
        cache_teacher(cfg, str(tmp_path), VIEWS + 1, seed=6)


def test_the_largest_logits_come_back_and_the_others_share_their_mass(tmp_path):
    cache = ViewCache.create(tmp_path, info(["logits"], top=2))
    logits = 3 * torch.randn(2, 5, 4, 6, generator=torch.Generator().manual_seed(0))
    cache.write([4, 1], {"logits": logits.numpy()})
    assert cache.missing() == [0, 2, 3, 5]
    found = torch.from_numpy(ViewCache(tmp_path).read([4, 1])["logits"])
    kept = logits.topk(2, 1).indices
    torch.testing.assert_close(found.gather(1, kept), logits.gather(1, kept), rtol=1e-3, atol=1e-3)
    p, q = logits.softmax(1), found.softmax(1)
    torch.testing.assert_close(q.gather(1, kept), p.gather(1, kept), rtol=5e-3, atol=1e-3)
    rest = torch.ones_like(p, dtype=torch.bool).scatter(1, kept, False)
    shared = q.masked_fill(~rest, 0)
    torch.testing.assert_close(shared.sum(1), p.masked_fill(~rest, 0).sum(1), rtol=5e-3, atol=1e-3)
    assert (shared.amax(1) - q.masked_fill(~rest, 1).amin(1)).abs().max() < 1e-6


def test_a_description_that_says_too_much_is_refused(tmp_path):
    ViewCache.create(tmp_path, info(["logits"]))
    content = json.loads((tmp_path / "cache.json").read_text())
    (tmp_path / "cache.json").write_text(json.dumps(content | {"more": 1}))
    with pytest.raises(ValueError, match="cache.json"):
        ViewCache(tmp_path)


@pytest.mark.parametrize(
    ("name", "maps"),
    [("PD", {"logits"}), ("CIRKDBatch", {"feature"}), ("DSD", {"logits", "feature", "res4"})],
)
def test_what_losses_read_of_the_teacher(name, maps):
    loss_class = registered_losses()[name]
    student, teacher = seg_spec(5, 8, width=6), seg_spec(5, 12, width=10)
    state = torch.random.get_rng_state()
    assert teacher_maps([loss_class(loss_class.Config(), student, teacher)], student, teacher) == maps
    assert torch.equal(torch.random.get_rng_state(), state)
