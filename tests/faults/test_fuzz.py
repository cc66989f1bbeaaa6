"""Whatever stands in a file or on the command line: one clear line or a right result, and no sound part lost.

The same cases come in every run. FAKD_FUZZ=20 takes twenty times as many, drawn anew.
"""

import copy
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

from fakd.checkpoint import load_teacher
from fakd.config import add_fakd_config, load_config
from fakd.config.checks import ranges
from fakd.config.setup import _fitted, _merge, flat_keys
from fakd.data.datasets.custom import register_custom
from fakd.data.images import read_image
from fakd.data.labels import read_label
from fakd.engine.check import check_config
from fakd.engine.run_folder import RunFolder
from fakd.engine.teacher_check import recorded_miou
from fakd.errors import message_of
from fakd.files import read_lines
from fakd.report.records import read_runs
from fakd.sweep.events import append
from fakd.sweep.spec import parse_spec, read_spec

USER_ERRORS = (ValueError, KeyError, OSError)
TIMES = int(os.environ.get("FAKD_FUZZ", "1"))


def cases(number):
    """Settings for a test of so many cases."""
    return settings(
        max_examples=number * TIMES,
        derandomize=TIMES == 1,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],  # looking for the smallest case may take minutes
        suppress_health_check=list(HealthCheck),
    )


def tried(call, name=""):
    """What a call returns; None where it refuses, which it must say in one line that holds ``name``."""
    try:
        return call()
    except USER_ERRORS as error:
        text = message_of(error)
        assert text.strip() and "\n" not in text and name in text, repr(error)
        return None


plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-3, 300),
    st.floats(),
    st.floats(-3, 3),
    st.text(max_size=8),
    st.sampled_from(["", "x.yaml", "../x", "None", "nan", "1e999", "(1,", "[1, 2]", "{'a': 1}", "\0", "~"]),
)
value = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def changed(draw, content):
    """Plain content of a file, in which a part or two are others, gone or more."""
    content = copy.deepcopy(content)
    for _ in range(draw(st.integers(1, 2))):
        node = content
        while True:
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(node[key], dict | list) and draw(st.booleans()):
                node = node[key]
                continue
            action = draw(st.sampled_from(["change", "change", "remove", "add"]))
            if action == "change":
                node[key] = draw(value)
            elif action == "remove":
                del node[key]
            elif isinstance(node, dict):
                node[draw(st.text(max_size=6))] = draw(value)
            else:
                node.append(draw(value))
            break
    return content


@st.composite
def damaged(draw, content):
    """Bytes of a file, of which some are others, gone, or more."""
    content = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, max(len(content) - 1, 0)))
        action = draw(st.sampled_from(["flip", "cut", "remove", "insert", "zero"]))
        if action == "flip" and content:
            content[place] ^= 1 << draw(st.integers(0, 7))
        elif action == "cut":
            del content[place:]
        elif action == "remove":
            del content[place : place + draw(st.integers(1, 40))]
        elif action == "insert":
            content[place:place] = draw(st.binary(min_size=1, max_size=8))
        else:
            content[place : place + 16] = bytes(len(content[place : place + 16]))
    return bytes(content)


# The config.

EMPTY = get_cfg()
add_fakd_config(EMPTY)
ALL_KEYS, RANGES = sorted(flat_keys(EMPTY)), ranges()


@cases(2000)
@given(key=st.sampled_from(sorted(RANGES)), given=value)
def test_a_value_is_taken_or_refused_by_its_key(key, given):
    allowed = RANGES[key]
    fitted = tried(lambda: (_fitted(key, given, allowed),), key)
    if fitted is not None:
        allowed.check(key, fitted[0])
        assert json.loads(json.dumps(fitted[0], allow_nan=False)) == json.loads(json.dumps(fitted[0]))


@cases(150)
@given(key=st.sampled_from(ALL_KEYS), given=value)
def test_a_config_with_a_value_can_be_written_down_and_read_again(key, given):
    cfg = EMPTY.clone()
    if tried(lambda: _merge(cfg, {key: given}, "here") or cfg, key):
        again = EMPTY.clone()
        again.merge_from_other_cfg(type(cfg)(yaml.safe_load(cfg.dump())))
        assert json.dumps(again, sort_keys=True) == json.dumps(cfg, sort_keys=True)  # dump() sorts


@cases(60)
@given(data=st.data())
def test_a_config_that_loads_can_be_checked_and_written_down(data):
    keys = [key for key in ALL_KEYS if key not in ("PLUGINS", "MODEL.DEVICE")]  # what is imported runs
    opts = ["MODEL.DEVICE", "cpu"]
    for key in data.draw(st.lists(st.sampled_from(keys), min_size=1, max_size=3, unique=True)):
        opts += [key, data.draw(value)]
    cfg = tried(lambda: load_config(opts=opts))
    if cfg is not None:
        tried(lambda: check_config(cfg))
        assert yaml.safe_load(cfg.dump())


@cases(80)
@given(data=st.data())
def test_a_damaged_config_file_loads_or_is_refused_by_its_name(data, tmp_path_factory):
    text = Path(__file__).parents[2].joinpath("configs/camvid/_base.yaml").read_bytes()
    file = tmp_path_factory.mktemp("config") / "mine.yaml"
    if data.draw(st.booleans()):
        file.write_bytes(data.draw(damaged(text)))
    else:
        file.write_text(yaml.safe_dump(data.draw(changed(yaml.safe_load(text)))))
    if b"PLUGINS" not in file.read_bytes():
        tried(lambda: load_config(str(file), ["MODEL.DEVICE", "cpu"]))


# A sweep and a dataset.

SPEC = {
    "title": "All",
    "base": "configs/toyscenes/student.yaml",
    "teacher": {"config": "configs/toyscenes/teacher.yaml", "opts": {"SOLVER.MAX_ITER": 2}},
    "pairs": {"a": "configs/toyscenes/student.yaml", "b": {"student": "s.yaml", "opts": {"SEED": 1}}},
    "methods": ["student", "cwd", "fakd"],
    "keys": {"KD.CWD.WEIGHT": [1.0, 2.0], "SOLVER.BASE_LR": {"loguniform": [0.1, 1.0]}},
    "seeds": [0, 1],
    "opts": {"TEST.EVAL_PERIOD": 2},
    "search": "random",
    "samples": 2,
    "stop": {"iterations": 4},
    "resources": {"cpus": 1, "gpus": 0.5},
    "retries": 1,
}


@cases(500)
@given(content=changed(SPEC))
def test_a_sweep_is_read_or_refused(content):
    spec = tried(lambda: parse_spec(content, "sweep.yaml"), "sweep.yaml")
    if spec is not None:
        assert parse_spec(json.loads(json.dumps(content)), "again") == spec
        json.dumps(spec.content())


@cases(150)
@given(data=st.data())
def test_a_damaged_sweep_file_is_read_or_refused(data, tmp_path_factory):
    file = tmp_path_factory.mktemp("sweep") / "sweep.yaml"
    file.write_bytes(data.draw(damaged(yaml.safe_dump(SPEC).encode())))
    tried(lambda: read_spec(file), "sweep.yaml")


DATASET = {
    "name": "fuzzed",
    "root": "there",
    "classes": {"road": [1, 2, 3], "sky": [4, 5, 6]},
    "ignore_label": 255,
    "id_map": {0: 0, 7: 1, 9: 255},
    "splits": {
        "train": {"images": "a", "labels": "b", "image_suffix": ".png"},
        "val": {"images": ["a/0.png"], "labels": ["b/0.png"]},
    },
}


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    """A folder with the pictures of ``DATASET``, which loads; each case writes a description there."""
    folder = tmp_path_factory.mktemp("described")
    for name in ("a", "b"):
        (folder / "there" / name).mkdir(parents=True)
        Image.fromarray(np.zeros((4, 6), np.uint8)).save(folder / "there" / name / "0.png")
    return folder


@pytest.fixture
def forgotten():
    """Datasets registered in a test are gone after it."""
    before = set(DatasetCatalog.list())
    yield
    for name in set(DatasetCatalog.list()) - before:
        DatasetCatalog.remove(name)
        MetadataCatalog.pop(name, None)


@cases(300)
@given(data=st.data())
def test_a_dataset_is_registered_or_refused_by_its_file(data, described, forgotten):
    file = described / "fuzzed.yaml"
    if data.draw(st.booleans()):
        file.write_bytes(data.draw(damaged(yaml.safe_dump(DATASET).encode())))
    else:
        file.write_text(yaml.safe_dump(data.draw(changed(DATASET))))
    known = set(DatasetCatalog.list())
    names = tried(lambda: register_custom([str(file)]), "fuzzed.yaml")
    for name in names or ():
        assert re.fullmatch(r"[\w .-]+", name)  # it becomes part of a path
        tried(lambda name=name: DatasetCatalog.get(name), "fuzzed.yaml")
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    assert set(DatasetCatalog.list()) == known


# Images, labels and weights.


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """The bytes of an image and of a label, by format."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    image, label = random.integers(0, 256, (24, 32, 3), np.uint8), random.integers(0, 12, (24, 32), np.uint8)
    found = {}
    for name, array in (
        ("image.png", image),
        ("image.jpg", image),
        ("image.webp", image),
        ("label.png", label),
    ):
        Image.fromarray(array).save(folder / name)
        found[name] = (folder / name).read_bytes()
    return found


@cases(300)
@given(data=st.data())
@pytest.mark.parametrize("name", ["image.png", "image.jpg", "image.webp", "label.png"])
def test_a_damaged_picture_is_refused_or_the_same(name, pictures, data, tmp_path_factory):
    read = read_label if name == "label.png" else read_image
    folder = tmp_path_factory.mktemp("picture")
    good, bad = folder / name, folder / f"bad_{name}"
    good.write_bytes(pictures[name])
    bad.write_bytes(data.draw(damaged(pictures[name])))
    found = tried(lambda: read(str(bad)), str(bad))
    if found is not None and name.endswith(".png"):  # the others hold no checksums
        np.testing.assert_array_equal(found, read(str(good)))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A small network, and the bytes of its weights by the ending of the file."""
    folder, network = tmp_path_factory.mktemp("weights"), torch.nn.Conv2d(2, 3, 1)
    torch.save({"model": network.state_dict()}, folder / "a.pth")
    save_file(network.state_dict(), folder / "a.safetensors")
    return network, {ending: (folder / f"a.{ending}").read_bytes() for ending in ("pth", "safetensors")}


@cases(120)
@given(data=st.data())
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_damaged_weights_are_refused_or_the_same(ending, weights, data, tmp_path_factory):
    network, files = weights
    file = tmp_path_factory.mktemp("damaged") / f"model.{ending}"
    file.write_bytes(data.draw(damaged(files[ending])))
    other = copy.deepcopy(network)
    if tried(lambda: load_teacher(other, str(file)) or other, file.name) and ending == "pth":
        assert all(torch.equal(a, b) for a, b in zip(other.parameters(), network.parameters(), strict=True))


@cases(100)
@given(content=st.one_of(value, st.dictionaries(st.sampled_from(["model", "weight", "bias"]), value)))
def test_a_checkpoint_of_anything_else_is_refused(content, weights, tmp_path_factory):
    file = tmp_path_factory.mktemp("other") / "model.pth"
    torch.save(content, file)
    assert tried(lambda: load_teacher(copy.deepcopy(weights[0]), str(file)) or True, file.name) is None


# What runs and sweeps leave.

METRICS = {"mIoU": 40.0, "mAcc": 50.0, "aAcc": 60.0, "IoU": {"sky": 40.0}, "Acc": {"sky": 50.0}}


def finish(folder, seed):
    """The folder of a finished run, as training leaves it."""
    folder.mkdir(parents=True)
    cfg = load_config(opts=["MODEL.DEVICE", "cpu", "SEED", str(seed)])
    (folder / "config.yaml").write_text(cfg.dump())
    result = {
        "method": "student",
        "seed": seed,
        "dataset": "toyscenes_val",
        "train_dataset": "toyscenes_train",
        "iterations": 2,
        "batch_size": 16,
        "crop": [512, 512],
        "metrics": METRICS,
        "metrics_by_dataset": {"toyscenes_val": METRICS},
        "best": {"mIoU": 40.0, "iteration": 1},
        "params": 10,
        "gflops": 1.0,
        "wall_clock": 1.0,
        "finished": "2026-01-01T00:00:00",
    }
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "confusion.json").write_text('{"toyscenes_val": [[1, 2], [3, 4]]}')
    lines = [{"iteration": i, "sem_seg/mIoU": 30.0 + i, "total_loss": 1.0} for i in (0, 1)]
    (folder / "metrics.json").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with two finished runs; each test damages the first."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        finish(folder / f"seed{seed}", seed)
    return folder


@cases(10)
@given(data=st.data())
@pytest.mark.parametrize("name", ["result.json", "config.yaml", "metrics.json", "confusion.json"])
def test_a_damaged_file_of_a_run_costs_no_other_run(name, runs, data):
    file = runs / "seed0" / name
    good = file.read_bytes()
    load = {"result.json": json.loads, "confusion.json": json.loads}.get(name)
    if load and data.draw(st.booleans()):
        bad = json.dumps(data.draw(changed(load(good)))).encode()
    else:
        bad = data.draw(damaged(good))
    try:
        file.write_bytes(bad)
        found, problems = read_runs([runs])
        assert 1 in {run.seed for run in found if run.folder == runs / "seed1"}
        assert len(found) == 2 or problems
        assert not any("\n" in text for text in problems)
        folder = RunFolder(runs / "seed0")
        tried(folder.metrics, "result.json")
        tried(folder.config, "config.yaml")
    finally:
        file.write_bytes(good)


@cases(200)
@given(
    content=st.one_of(value.map(lambda x: json.dumps(x).encode()), damaged(b'{"mIoU": 40.0, "dataset": "a"}'))
)
def test_what_is_recorded_beside_weights_is_a_number_or_refused(content, tmp_path_factory):
    folder = tmp_path_factory.mktemp("beside")
    cfg = load_config(opts=["MODEL.DEVICE", "cpu", "KD.TEACHER.WEIGHTS", str(folder / "t.pth")])
    (folder / "t.json").write_bytes(content)
    found = tried(lambda: recorded_miou(cfg), "t.json")
    assert found is None or (isinstance(found, int | float) and np.isfinite(found))


@cases(300)
@given(data=st.data())
def test_a_torn_or_damaged_line_costs_no_other_line(data, tmp_path_factory):
    file = tmp_path_factory.mktemp("lines") / "run.jsonl"
    for i in range(4):
        append(file, "progress", iteration=i)
    lines = file.read_bytes().splitlines(keepends=True)
    place = data.draw(st.integers(0, 3))
    bad = data.draw(damaged(lines[place]))
    file.write_bytes(b"".join([*lines[:place], bad, *lines[place + 1 :]]))
    append(file, "result", result={})
    found = [line for line in read_lines(file) if isinstance(line, dict)]
    sound = {i for i in range(4) if i != place and not (i == place + 1 and not bad.endswith(b"\n"))}
    assert sound <= {line.get("iteration") for line in found}
    assert found[-1]["event"] == "result"
