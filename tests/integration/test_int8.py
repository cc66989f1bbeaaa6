"""DEPLOY.QAT: a student that is trained in int8's rounding, resumed, exported and run."""

import re

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from ranks import on_ranks

from fakd.deploy import int8_study
from fakd.deploy.exported import load_exported
from fakd.deploy.formats import FORMATS
from fakd.deploy.source import load_student, read_source
from fakd.deploy.student import export_student
from fakd.engine import Trainer, load_trained, run
from fakd.modeling.quantized import ActivationRange, convolutions

from .conftest import CONFIG, assert_same_weights, tiny_config, weights

SIZE = (96, 128)
QAT = ["DEPLOY.QAT.ENABLED", "True"]


class Stops(HookBase):
    def __init__(self, iteration):
        self.iteration = iteration

    def after_step(self):
        if self.trainer.iter == self.iteration:
            raise RuntimeError("stopped")


@pytest.fixture(scope="module")
def finished(plugin, teacher, tmp_path_factory):
    """The user's way: a float run, then a few iterations of int8 beside the teacher."""
    folder = tmp_path_factory.mktemp("int8")
    run(tiny_config(folder / "float", "SOLVER.BASE_LR", 0.1, "SOLVER.MAX_ITER", 30))
    start = ["MODEL.WEIGHTS", folder / "float" / "model_final.pth", "SOLVER.MAX_ITER", 4]
    cfg = tiny_config(folder / "int8", *QAT, *start, *teacher, recipe="pd")
    metrics = run(cfg)
    for name in ("float", "int8"):  # what a run's folder names is imported on demand alone
        file = folder / name / "config.yaml"
        file.write_text(re.sub(r"PLUGINS:\n- .*\n", "PLUGINS: []\n", file.read_text()))
    return folder / "int8", metrics


def test_training_is_evaluated_in_int8(finished, tiny):
    folder, metrics = finished
    state = weights(folder / "model_final.pth")
    scales = [x for name, x in state.items() if name.endswith("_range.scale")]
    assert len(scales) > 20 and all(x > 0 for x in scales)
    assert tiny(folder, *QAT, eval_only=True) == pytest.approx(metrics, nan_ok=True)
    plain = {name: x for name, x in state.items() if "_range." not in name}
    torch.save({"model": plain}, folder / "plain.pth")
    as_float = tiny(folder, "MODEL.WEIGHTS", folder / "plain.pth", eval_only=True)
    assert as_float != pytest.approx(metrics, nan_ok=True)
    with pytest.raises(ValueError, match=r"missing in the file \(backbone.*_range"):
        tiny(folder, *QAT, "MODEL.WEIGHTS", folder / "plain.pth", eval_only=True)


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_the_file_computes_what_was_trained(finished, name, tmp_path):
    FORMATS[name].require()
    cfg, path = read_source(finished[0])
    done = export_student(cfg, path, tmp_path / f"x{FORMATS[name].ending}", file_format=name, size=SIZE)
    assert done.comparison.agreement >= 0.98
    before, after = done.miou["tiny_val"]
    assert before == pytest.approx(finished[1]["mIoU"], abs=0.006) and after == pytest.approx(before, abs=0.3)
    assert load_exported(done.path).metadata.precision == "int8"
    if name == "onnx":
        graph = onnx.load(done.path).graph
        stored = {x.name: x.data_type for x in graph.initializer}
        given = {node.output[0]: node for node in graph.node}
        for conv in (node for node in graph.node if node.op_type == "Conv"):
            x, weight, bias = (given[name] for name in conv.input)
            assert {x.op_type, weight.op_type, bias.op_type} == {"DequantizeLinear"}
            assert stored[weight.input[0]] == onnx.TensorProto.INT8
            assert stored[bias.input[0]] == onnx.TensorProto.INT32
        assert done.size < 0.45 * sum(
            x.numel() * 4 for x in weights(finished[0] / "model_final.pth").values()
        )


def test_a_file_in_float_of_a_network_for_int8_is_refused(finished, tmp_path):
    cfg, path = read_source(finished[0])
    with pytest.raises(ValueError, match=r"trained for int8 \(DEPLOY.QAT\), so it is not written in float16"):
        export_student(cfg, path, tmp_path / "x.onnx", precision="float16")
    with pytest.raises(ValueError, match="torchscript is written in float32 or float16, not in int8"):
        export_student(cfg, path, tmp_path / "x.ts", file_format="torchscript")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("stop", [3, 8])  # before it computes in int8, and after
def test_a_resumed_run_equals_an_undisturbed_one_to_the_bit(tiny, tmp_path, stop):
    options = [*QAT, "DEPLOY.QAT.SHARE", 0.5, "TEST.EVAL_PERIOD", 3]
    whole = tiny(tmp_path / "whole", *options)
    with pytest.raises(RuntimeError, match="stopped"):
        tiny(tmp_path / "stopped", *options, extra_hooks=[Stops(stop)])
    assert tiny(tmp_path / "stopped", *options, resume=True) == pytest.approx(whole, nan_ok=True)
    for name in ("model_final.pth", "model_best.pth"):
        assert_same_weights(weights(tmp_path / "stopped" / name), weights(tmp_path / "whole" / name))
    with pytest.raises(ValueError, match=r"DEPLOY.QAT.SHARE: 0.5 there, 0.25 now"):
        tiny(tmp_path / "whole", *QAT, "DEPLOY.QAT.SHARE", 0.25, "TEST.EVAL_PERIOD", 3, resume=True)


def test_until_the_switch_nothing_differs_and_then_statistics_stay(tiny, tmp_path):
    class Keeps(HookBase):
        def __init__(self):
            self.seen = []

        def after_step(self):
            self.seen.append({k: v.clone() for k, v in self.trainer.model.state_dict().items()})

    plain, int8 = Keeps(), Keeps()
    tiny(tmp_path / "plain", extra_hooks=[plain])
    tiny(tmp_path / "int8", *QAT, "DEPLOY.QAT.SHARE", 0.25, extra_hooks=[int8])
    for a, b in zip(plain.seen[:9], int8.seen[:9], strict=True):
        assert all(torch.equal(a[name], b[name]) for name in a)
    statistics = [name for name in plain.seen[0] if "running_" in name and "auxiliary" not in name]
    assert statistics and all(torch.equal(int8.seen[8][n], int8.seen[-1][n]) for n in statistics)
    changed = [n for n in plain.seen[0] if n.endswith("weight") and not n.startswith("auxiliary")]
    assert all(not torch.equal(int8.seen[8][n], int8.seen[-1][n]) for n in changed)


def test_the_best_weights_are_those_of_int8(tiny, tmp_path):
    options = [*QAT, "DEPLOY.QAT.SHARE", 0.25, "TEST.EVAL_PERIOD", 3, "SOLVER.BASE_LR", 1e-8]
    tiny(tmp_path, *options)
    cfg = tiny_config(tmp_path, *options)
    network = load_trained(cfg, str(tmp_path / "model_best.pth"))
    assert all(x.known for x in network.modules() if isinstance(x, ActivationRange))
    assert torch.load(tmp_path / "model_best.pth")["iteration"] >= 9


def test_what_was_best_in_float_is_forgotten_where_the_first_weights_were_of_int8(finished, tiny, tmp_path):
    start = ["MODEL.WEIGHTS", finished[0] / "model_final.pth", "SOLVER.BASE_LR", 1e-8]
    tiny(tmp_path, *QAT, *start, "DEPLOY.QAT.SHARE", 0.25, "TEST.EVAL_PERIOD", 3)
    assert torch.load(tmp_path / "model_best.pth")["iteration"] >= 9


def test_an_evaluation_that_takes_the_rest_of_the_time_leaves_a_step_of_int8(tiny, tmp_path, monkeypatch):
    """A step takes a second, an evaluation fifteen of the twenty."""
    now = [100.0]
    monkeypatch.setattr("fakd.engine.hooks.perf_counter", lambda: now[0])
    evaluate = Trainer._evaluate

    def slowly(self):
        now[0] += 15
        return evaluate(self)

    monkeypatch.setattr(Trainer, "_evaluate", slowly)

    class Ticks(HookBase):
        def before_step(self):
            now[0] += 1

    limits = {"max_seconds": 20, "extra_hooks": [Ticks()]}
    tiny(tmp_path, *QAT, "DEPLOY.QAT.SHARE", 0.2, "TEST.EVAL_PERIOD", 3, "SOLVER.MAX_ITER", 100, **limits)
    network = load_trained(tiny_config(tmp_path, *QAT))
    assert all(x.known for x in network.modules() if isinstance(x, ActivationRange))


def test_a_run_of_int8_teaches_as_a_float_network(finished, tiny, tmp_path):
    tiny(tmp_path, "KD.TEACHER.RUN", finished[0], "SOLVER.MAX_ITER", 2, recipe="pd")


def train_on_two(folder):
    evaluate = Trainer._evaluate

    def keep(self):  # before the evaluation, which shares what is saved
        state = {k: v for k, v in self.model.module.state_dict().items() if "auxiliary" not in k}
        torch.save(state, folder / f"rank{comm.get_rank()}.pth")
        return evaluate(self)

    Trainer._evaluate = keep
    run(tiny_config(folder, *QAT, "DEPLOY.QAT.SHARE", 0.5, "SOLVER.MAX_ITER", 4))


def test_two_processes_train_the_network_that_is_saved(plugin, tmp_path):
    on_ranks(train_on_two, 2, tmp_path)
    first, second = (torch.load(tmp_path / f"rank{rank}.pth") for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_weights_from_before_the_switch_are_refused(tiny, tmp_path):
    options = [*QAT, "DEPLOY.QAT.SHARE", 0.25]
    with pytest.raises(RuntimeError, match="stopped"):
        tiny(tmp_path, *options, extra_hooks=[Stops(6)])
    with pytest.raises(ValueError, match=r"saved before the network computed in int8 \(DEPLOY.QAT.SHARE\)"):
        tiny(tmp_path, *options, "MODEL.WEIGHTS", tmp_path / "model_0000005.pth", eval_only=True)


def test_layers_that_stay_in_float(finished, tmp_path, teacher):
    cfg, path = read_source(finished[0])
    network = load_student(cfg, path)
    assert all(conv.quantized for conv in convolutions(network).values())
    cfg.defrost()
    cfg.DEPLOY.QAT.FLOAT_LAYERS = ("decode_head",)
    assert not any(name.startswith("decode_head") for name in names_of(cfg))
    cfg.DEPLOY.QAT.FLOAT_LAYERS = ("*.conv_1", "no_such")
    with pytest.raises(ValueError, match=r"FLOAT_LAYERS: the network has no layer '\*.conv_1'"):
        names_of(cfg)


def names_of(cfg):
    from fakd.engine.quantization import prepare_for_int8
    from fakd.modeling import Segmentor

    network = Segmentor(cfg)
    prepare_for_int8(network, cfg)
    return list(convolutions(network))


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["SOLVER.EMA_DECAY", 0.9], "ranges of int8 are moving averages already. Set SOLVER.EMA_DECAY 0.0"),
        (["DEPLOY.QAT.SHARE", 0], "DEPLOY.QAT.SHARE is 0, but must be a number above 0 and of at most 1"),
        (["DEPLOY.QAT.SHAER", 0.5], "DEPLOY.QAT.SHAER"),
    ],
)
def test_what_int8_cannot_be_asked_is_said_before_training(tiny, tmp_path, options, error):
    with pytest.raises((ValueError, KeyError), match=error):
        tiny(tmp_path, *QAT, *options)
    assert not list(tmp_path.glob("*.pth")) and np.all([path.is_file() for path in tmp_path.iterdir()])


def test_the_layer_that_loses_most_is_found_and_left_in_float(tool, finished, tmp_path):
    """One channel that no one reads is made so large that the others fall below a step of int8."""
    run = finished[0].parent / "float"
    state = torch.load(run / "model_final.pth")["model"]
    (norm,) = (name for name in state if name.startswith("decode_head.bottleneck") and name.endswith("bias"))
    torch.nn.init.normal_(state["decode_head.conv_seg.weight"])[:, 0] = 0
    state[norm][0] = 1e5
    torch.save({"model": state}, tmp_path / "spoilt.pth")
    given = ("--run", run, "--weights", tmp_path / "spoilt.pth", "--images", 2)
    code, text = tool("sensitivity", *given, "--calibration", 2, "--in-float", 1, "--output", tmp_path / "x")
    assert code == 0, text
    assert "DEPLOY.QAT.FLOAT_LAYERS \"('decode_head.conv_seg',)\"" in text
    layers = pd.read_csv(tmp_path / "x.csv")
    lost = layers["changed (%)"]
    assert lost.is_monotonic_decreasing and lost[0] > 2 * lost[1] and len(layers) > 20
    changed = [float(cost) for _, cost in re.findall(r"\| +(\d+) \| +([\d.]+) \|", text)]
    assert changed[1] < changed[0] / 2  # one layer in float, and none
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_the_ways_to_int8_are_compared_by_one_command_that_goes_on(tool, finished, tmp_path):
    run, output = finished[0].parent / "float", tmp_path / "int8"
    given = ("--config-file", CONFIG, "--runs", run, "--size", *SIZE, "--iterations", 2, "--output", output)
    code, text = tool("int8", *given)
    assert code == 0, text
    table = pd.read_csv(tmp_path / "int8.csv").fillna("")
    ways = [("float", ""), ("static", "onnx"), ("trained", ""), ("trained", "onnx")]
    assert list(zip(table["way"], table["file"], strict=True)) == ways and set(table["run"]) == {"float"}
    assert "mIoU on tiny_val" in table and "| trained | onnx" in text
    before = (output / "measured.jsonl").read_text()
    assert tool("int8", *given)[0] == 0 and (output / "measured.jsonl").read_text() == before


@pytest.fixture
def study(tmp_path, monkeypatch):
    """``study(**options)``: the table of two runs named alike, and what was measured for it."""
    runs = [tmp_path / name / "seed0" for name in "ab"]
    measured, counts = [], iter(range(100))

    def measure(folder, weights, *_):
        measured.append(str(weights))
        return {"MB": next(counts)}

    def train(config_file, folder, output, *_):
        output.mkdir(parents=True, exist_ok=True)
        (output / "model_final.pth").write_bytes(b"of " + (folder / int8_study.WEIGHTS).read_bytes())
        return {"mIoU on tiny_val": 1.0}

    for name, stand_in in (("_in_float", measure), ("_as_file", measure), ("_train", train)):
        monkeypatch.setattr(int8_study, name, stand_in)
    for each in runs:
        each.mkdir(parents=True)
        (each / int8_study.WEIGHTS).write_text(str(each))

    def make(folders=runs, size=SIZE, opts=()):
        measured.clear()
        given = {"size": size, "opts": opts, "tell": lambda line: None}
        return int8_study.compare_int8(CONFIG, folders, tmp_path / "out", **given), list(measured)

    return make


def test_runs_named_alike_keep_rows_and_folders_of_their_own(study, tmp_path):
    table, measured = study()
    assert list(table["MB"].dropna()) == list(range(6)) and set(table["run"]) == {"seed0"}
    assert len({path for path in measured if "out" in path}) == 2
    first = tmp_path / "a" / "seed0"
    with pytest.raises(ValueError, match=r"a/seed0' has name and weights of a run before it: give each"):
        study([first, first])
    (first / int8_study.WEIGHTS).unlink()
    with pytest.raises(FileNotFoundError, match=r"There is no '.*a/seed0/model_best.pth': the run is not"):
        study()


def test_each_file_of_weights_is_read_once_for_its_digest(study, monkeypatch):
    read, digest = [], int8_study.file_digest
    monkeypatch.setattr(int8_study, "file_digest", lambda path: read.append(path) or digest(path))
    study()
    assert len(read) == len(set(read)) == 4  # of two runs, in float and trained


def test_rows_are_taken_for_the_same_weights_size_and_options_alone(study, tmp_path):
    table = study()[0]
    same, measured = study()
    assert same.equals(table) and not measured
    assert len(study(size=(8, 8))[1]) == len(study(opts=["SEED", 3])[1]) == 6
    (tmp_path / "a" / "seed0" / int8_study.WEIGHTS).write_text("trained anew")
    assert len(study()[1]) == 3
    lines = tmp_path / "out" / "measured.jsonl"
    lines.write_bytes(lines.read_bytes()[:-9])  # a kill tore the last line: it alone is lost
    assert len(study()[1]) == 1 and not study()[1]
