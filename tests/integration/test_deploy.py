"""A trained student on its way out: exported, asked for predictions, shown and measured."""

import re
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from detectron2.data import DatasetCatalog
from PIL import Image

from fakd.deploy.benchmark import Cost, Job, _cells, benchmark, default_runtimes, measure, write_graph
from fakd.deploy.exported import load_exported
from fakd.deploy.formats import FORMATS
from fakd.deploy.formats.torchscript import TorchScript
from fakd.deploy.side_by_side import export_all
from fakd.deploy.source import read_source
from fakd.deploy.student import export_student
from fakd.engine.run_folder import RunFolder
from fakd.modeling import Segmentor
from fakd.predict import Predictor

from .conftest import CONFIG, HERE, tiny_config

SIZE = (96, 128)  # of the scenes


@pytest.fixture(scope="module")
def trained(plugin, tmp_path_factory):
    """A folder as a run leaves it, of a network that sees many classes, as one of few steps does not."""
    folder = tmp_path_factory.mktemp("trained")
    cfg = tiny_config(folder)
    torch.manual_seed(0)
    network = Segmentor(cfg)
    torch.nn.init.normal_(network.decode_head.conv_seg.weight)
    torch.save({"model": network.state_dict()}, folder / "model_final.pth")
    cfg.defrost()
    cfg.PLUGINS = ()  # what a run's folder names is imported on demand alone; here it is imported already
    RunFolder(folder).write_config(cfg)
    return folder


@pytest.fixture(scope="module")
def scene(trained):
    """One of the test images."""
    return DatasetCatalog.get("tiny_val")[0]["file_name"]


def test_the_exported_student_reaches_what_pytorch_reaches(tool, tiny, trained, tmp_path):
    output = tmp_path / "new" / "student.onnx"
    given = ("--run", trained, "--size", *SIZE, "--evaluate", "--output", output)
    code, text = tool("export_student", *given)
    assert code == 0
    name, before, after, difference = next(x for x in text.splitlines() if x.startswith("tiny_val")).split()
    assert float(before) == pytest.approx(tiny(trained, eval_only=True)["mIoU"], abs=0.006)
    assert abs(float(difference)) <= 0.05 and float(after) == pytest.approx(float(before), abs=0.05)
    assert "100.000 % of pixels have the same class" in text
    metadata = load_exported(output).metadata
    assert metadata.size == SIZE and metadata.classes[0] == "sky" and metadata.normalize


@pytest.mark.parametrize("name", ["onnx", pytest.param("openvino", marks=pytest.mark.slow)])
def test_int8_is_smaller_and_says_what_it_costs(trained, tmp_path, name):
    FORMATS[name].require()
    cfg, weights = read_source(trained)
    options = {"file_format": name, "size": SIZE, "precision": "int8", "calibration": 4}
    done = export_student(cfg, weights, tmp_path / f"x{FORMATS[name].ending}", **options)
    assert done.size == sum(path.stat().st_size for path in tmp_path.iterdir())
    assert done.size < 0.7 * Path(weights).stat().st_size
    before, after = done.miou["tiny_val"]
    assert abs(before - after) < 20 and done.comparison.agreement > 0.5 and done.comparison.difference > 1e-3
    assert load_exported(done.path).metadata.precision == "int8"


def test_half_precision_is_measured(trained, tmp_path):
    cfg, weights = read_source(trained)
    options = {"size": SIZE, "precision": "float16", "file_format": "torchscript", "normalize": False}
    done = export_student(cfg, weights, tmp_path / "x.ts", **options)
    before, after = done.miou["tiny_val"]
    assert after == pytest.approx(before, abs=2) and done.comparison.difference > 0


def test_weights_of_another_config_are_refused_by_name(tool, trained, tmp_path):
    given = ("--run", trained, "--output", tmp_path / "x.onnx", "--opts", "MODEL.SEM_SEG_HEAD.CHANNELS", 6)
    code, text = tool("export_student", *given)
    assert code == 1 and "decode_head.conv_seg.weight: (12, 8, 1, 1) in the file, (12, 6, 1, 1)" in text
    assert not list(tmp_path.iterdir())


def test_the_student_must_be_named_in_one_way(tool, trained, tmp_path):
    code, text = tool("export_student", "--run", tmp_path)
    assert code == 1 and "holds no run: there is no config.yaml" in text
    code, text = tool("export_student", "--run", trained, "--config-file", CONFIG)
    assert code == 1 and "by --run DIR, or by --config-file FILE and --weights FILE" in text
    code, text = tool("export_student", "--config-file", CONFIG)
    assert code == 1 and "needs --weights FILE" in text


def test_a_predictor_takes_files_pictures_and_arrays_of_any_size(trained, scene):
    predictor = Predictor(trained, device="cpu", batch_size=2)
    labels = predictor(scene)
    array = np.asarray(Image.open(scene).convert("RGB"))
    assert labels.shape == array.shape[:2] and labels.dtype == np.uint8 and len(np.unique(labels)) > 3
    for same in (Path(scene), Image.open(scene), array):
        np.testing.assert_array_equal(predictor(same), labels)
    several = predictor.predict_batch([array, array[:50, :70], array[::-1], array[:50, 3:73]])
    for one, picture in zip(several, (array, array[:50, :70], array[::-1], array[:50, 3:73]), strict=True):
        np.testing.assert_array_equal(one, predictor(picture))
        assert one.shape == picture.shape[:2]
    bgr = Predictor(trained, device="cpu", opts=["INPUT.FORMAT", "BGR"])
    np.testing.assert_array_equal(bgr(np.ascontiguousarray(array[..., ::-1])), labels)
    with pytest.raises(ValueError, match=r"uint8 in RGB; this one is \(3, 4\) of float64"):
        predictor(np.zeros((3, 4)))


def test_a_predictor_keeps_the_test_size_of_the_config_and_of_the_file(trained, scene, tmp_path):
    opts = ["INPUT.BASE_SIZE", "(64, 48)"]
    small = Predictor(trained, device="cpu", opts=opts)
    labels = small(scene)
    assert labels.shape == SIZE and (labels != Predictor(trained, device="cpu")(scene)).any()
    cfg, weights = read_source(trained, opts=opts)
    export_student(cfg, weights, tmp_path / "x.ts", file_format="torchscript", size=(48, 64))
    exported = Predictor(tmp_path / "x.ts")
    assert (exported(scene) == labels).mean() > 0.999
    assert exported.classes == small.classes and (exported.colours == small.colours).all()


def test_pictures_that_cannot_be_read_are_skipped_by_name(tool, trained, scene, tmp_path):
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    picture = Image.open(scene).convert("RGB")
    picture.save(folder / "a.png")
    picture.crop((0, 0, 51, 33)).save(folder / "sub" / "b.bmp")
    (folder / "broken.jpg").write_bytes(b"no picture")
    given = ("--run", trained, folder, "--output", tmp_path / "out", "--kind", "both", "--device", "cpu")
    code, text = tool("demo", *given, "--batch-size", 2)
    assert code == 1 and "4 files in" in text and "1 of 3 pictures could not be read" in text
    assert "broken.jpg" in text
    predictor = Predictor(trained, device="cpu")
    with Image.open(tmp_path / "out" / "a_labels.png") as written:
        np.testing.assert_array_equal(np.array(written), predictor(scene))
    with Image.open(tmp_path / "out" / "sub" / "b_labels.png") as written:
        assert written.size == (51, 33)
    with Image.open(tmp_path / "out" / "a_overlay.jpg") as drawn:
        assert drawn.width == 3 * SIZE[1] and drawn.height > 3 * SIZE[0]  # enlarged, and the legend below
    picture.save(tmp_path / "a.jpg")
    code, text = tool("demo", "--run", trained, folder / "a.png", tmp_path / "a.jpg")
    assert code == 1 and "would be written as one" in text


def test_videos(tool, trained, scene, tmp_path):
    frame = cv2.resize(cv2.imread(scene), (64, 48))
    writer = cv2.VideoWriter(str(tmp_path / "x.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for _ in range(3):
        writer.write(frame)
    writer.release()
    given = ("--run", trained, "--output", tmp_path / "out", "--device", "cpu", "--batch-size", 2)
    code, text = tool("demo", *given, tmp_path / "x.avi", "--kind", "both")
    assert code == 0, text
    assert len(list((tmp_path / "out" / "x").glob("*_labels.png"))) == 3
    capture = cv2.VideoCapture(str(tmp_path / "out" / "x_overlay.mp4"))
    shapes = []
    while (read := capture.read())[0]:
        shapes.append(read[1].shape)
    assert len(shapes) == 3 and shapes[0][1] == 320
    (tmp_path / "empty.mp4").write_bytes(b"")
    code, text = tool("demo", *given, tmp_path / "empty.mp4")
    assert code == 1 and "empty.mp4' cannot be opened" in text
    assert not list((tmp_path / "out").glob("*partial*"))
    code, text = tool("demo", *given, "--webcam", 99)
    assert code == 1 and "camera 99 cannot be opened" in text


def test_every_measurement_has_a_time_and_a_memory():
    for runtime in ("eager", "training"):
        cost = measure(Job(CONFIG, (), runtime, 2, (48, 64), 3, 1))
        assert 0 < cost.median <= cost.late < 60 and cost.memory >= 0 and not cost.reason


def test_a_table_of_costs_is_printed_and_written(tool, tmp_path):
    given = (
        "--config-file",
        CONFIG,
        "--runtimes",
        "eager",
        "--batch-sizes",
        1,
        "--repeats",
        3,
        "--threads",
        1,
    )
    code, text = tool("benchmark", *given, "--size", 48, 64, "--output", tmp_path / "new" / "x.csv")
    assert code == 0
    rows = {x.split("|")[1].strip(): x.split("|")[2].strip() for x in text.splitlines() if x.startswith("| ")}
    assert (
        float(rows["eager, batch 1: median (ms)"]) > 0
        and float(rows["eager, batch 1: peak memory (MB)"]) >= 0
    )
    assert float(rows["parameters (M)"]) > 0
    assert (tmp_path / "new" / "x.csv").read_text().startswith("quantity,tiny\nparameters (M),")
    assert text.startswith("On ") and "1 threads; PyTorch" in text
    assert "1 of 1, about 0 s left: tiny, eager, batch 1: median (ms) " in text


def test_what_was_measured_before_ctrl_c_is_kept(monkeypatch):
    made = []

    def interrupted(job):
        if made:
            raise KeyboardInterrupt
        made.append(job)
        return Cost(0.5, 0.6, 7.0)

    monkeypatch.setattr("fakd.deploy.benchmark.measure_apart", interrupted)
    told = []
    table, whole = benchmark([CONFIG], runtimes=["eager"], batches=[1, 2], size=(48, 64), tell=told.append)
    assert not whole and table["tiny"]["eager, batch 1: median (ms)"] == "500"
    assert "eager, batch 2: median (ms)" not in table.index
    assert "Interrupted after 1 of 2" in told[-1]


def test_a_cpu_is_not_made_to_compile_unasked():
    assert default_runtimes("cpu") == ("eager", "onnxruntime", "training")
    assert "compiled" in default_runtimes("cuda")


def test_an_exported_file_is_measured_by_what_opens_it(tmp_path):
    job = Job(CONFIG, (), "torchscript", 2, (48, 64), 3, 1, str(tmp_path / "x.ts"))
    write_graph(job)
    cost = measure(job)
    assert 0 < cost.median <= cost.late and load_exported(tmp_path / "x.ts").metadata.size == (48, 64)


def test_what_could_not_be_measured_says_why():
    job = Job(CONFIG, (), "compiled", 1, (48, 64), 3)
    assert _cells(job, Cost(reason="no compiler")) == {"compiled, batch 1: median (ms)": "no: no compiler"}
    assert _cells(job, Cost(1.0, 2.0, None, "unknown"))["compiled, batch 1: peak memory (MB)"] == "unknown"
    with pytest.raises(ValueError, match="repeats 0 must be positive"):
        benchmark([CONFIG], repeats=0)
    with pytest.raises(FileNotFoundError, match="no.yaml does not exist"):
        benchmark(["no.yaml"])


def test_an_option_without_its_value_is_named(tool):
    code, text = tool("benchmark", "--config-file", CONFIG, "--opts", "MODEL.DEVICE")
    assert code == 1 and "options come in pairs, KEY VALUE; got 1 words: MODEL.DEVICE" in text


def page_script():
    """The script of docs/own_data.md as a module's names; it needs nothing of this project."""
    page = (HERE.parents[1] / "docs" / "own_data.md").read_text()
    script = next(
        text for text in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "onnxruntime" in text
    )
    imported = re.findall(r"^(?:import|from) (\w+)", script, re.MULTILINE)
    assert set(imported) == {"json", "pathlib", "sys", "numpy", "onnxruntime", "PIL"}
    names: dict = {"__name__": "predict"}
    exec(compile(script, "predict.py", "exec"), names)
    return names


@pytest.mark.parametrize(
    ("opts", "normalize"),
    [
        (["INPUT.BASE_SIZE", "(64,48)"], True),
        (["INPUT.BASE_SIZE", "(301,200)", "INPUT.FORMAT", "BGR"], False),
    ],
)
def test_the_page_s_script_gives_the_classes_of_the_predictor(trained, tmp_path, opts, normalize):
    cfg, weights = read_source(trained, opts=opts)
    path = tmp_path / "student.onnx"
    export_student(cfg, weights, path, normalize=normalize)
    script, predictor = page_script(), Predictor(path, device="cpu")
    session = script["onnxruntime"].InferenceSession(path)
    for record in DatasetCatalog.get("tiny_val")[:3]:
        labels = script["predict"](session, record["file_name"])
        np.testing.assert_array_equal(labels, predictor(record["file_name"]))
    assert len(np.unique(labels)) > 2
    assert (labels == Predictor(trained, device="cpu", opts=opts)(record["file_name"])).mean() > 0.999


def test_a_table_of_the_formats_is_one_command(tool, trained, tmp_path, monkeypatch):
    """Of two formats and one whose package is missing, whose row says so."""
    missing = type(
        "Missing", (TorchScript,), {"modules": ("no_such_package",), "extra": "x", "name": "torch-export"}
    )()
    for name in [name for name in FORMATS if name not in ("torchscript", "torch-export")]:
        monkeypatch.delitem(FORMATS, name)
    monkeypatch.setitem(FORMATS, "torch-export", missing)
    cfg, weights = read_source(trained)
    told = []
    table = export_all(cfg, weights, tmp_path / "x", SIZE, repeats=2, tell=told.append)
    assert list(table["format"]) == ["PyTorch", "torchscript", "torchscript"] + ["torch-export"] * 2
    assert len(told) == 4
    reached = table["mIoU on tiny_val"]
    assert reached[1] == pytest.approx(reached[0], abs=0.05) and (table["time / PyTorch"][:3] > 0).all()
    assert (table["memory (MB)"][:3] > 0).all()
    assert table["remark"][3].endswith("pip install 'fakd[x]'.")
    assert {path.name for path in tmp_path.iterdir()} == {"x.ts", "x_float16.ts"}
    code, text = tool("export_student", "--run", trained, "--format", "all")
    assert code == 2 and "give --size H W" in text


@pytest.mark.slow  # minutes: each format is written, opened in a process of its own, and evaluated
def test_a_student_goes_through_every_format_installed(trained, tmp_path):
    cfg, weights = read_source(trained)
    table = export_all(cfg, weights, tmp_path / "x", SIZE, repeats=1).set_index(["format", "precision"])
    reached = table["mIoU on tiny_val"]
    for name, made in FORMATS.items():
        for precision in made.precisions:
            row = table.loc[(name, precision)]
            if pd.isna(row["mIoU on tiny_val"]):  # its package is missing, or it runs elsewhere
                assert f"pip install 'fakd[{made.extra}]'" in row["remark"] or not made.runs_here
            else:
                lost = reached["PyTorch", "float32"] - row["mIoU on tiny_val"]
                assert abs(lost) < (3 if precision == "int8" else 0.05), (name, precision)
