"""One run from config to result, and the errors a user can cause."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from detectron2.data import MetadataCatalog
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fakd.data.datasets.colours import palette
from fakd.data.datasets.toyscenes import CLASSES, draw_scene
from fakd.engine import run
from fakd.engine.teacher_check import check_teacher
from fakd.files import read_lines
from fakd.functional.confusion import metrics_from_confusion
from fakd.modeling import Segmentor
from fakd.modeling.build import build_teacher

from .conftest import CONFIG, TRAIN_NET, assert_same_weights, tiny_config, weights

FAILING = ["KD.LOSSES", "('FailsAt',)"]


def test_the_result_says_what_was_reached_and_how(tiny, tmp_path):
    metrics = tiny(tmp_path, "TEST.EVAL_PERIOD", 5, "SEED", 3, config_file="tiny.yaml")
    result = json.loads((tmp_path / "result.json").read_text())
    assert 0 <= metrics["mIoU"] <= 100 and len([m for m in metrics if m.startswith("IoU-")]) == 12
    assert result["metrics"]["mIoU"] == metrics["mIoU"]
    assert result["metrics"]["IoU"]["sky"] == pytest.approx(metrics["IoU-sky"])
    expected = {"name": "student", "method": "student", "seed": 3, "dataset": "tiny_val", "iterations": 12}
    expected |= {"train_dataset": "tiny_train", "batch_size": 4, "crop": [48, 64], "config_file": "tiny.yaml"}
    assert {key: result[key] for key in expected} == expected
    final = weights(tmp_path / "model_final.pth")
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    used = [v for k, v in final.items() if not k.startswith("auxiliary_head") and not k.endswith(buffers)]
    assert result["params"] == sum(v.numel() for v in used)
    assert result["gflops"] > 0 and result["seconds_per_iteration"] > 0 and result["wall_clock"] > 0
    assert result["best"]["mIoU"] >= metrics["mIoU"]
    recorded = json.loads((tmp_path / "model_final.json").read_text())
    assert recorded == {"mIoU": metrics["mIoU"], "dataset": "tiny_val"}
    assert result["best"]["mIoU"] == json.loads((tmp_path / "model_best.json").read_text())["mIoU"]


def test_a_distilled_student_is_a_plain_student(tiny, teacher, tmp_path):
    metrics = tiny(tmp_path, *teacher, recipe="fakd", method="mine")
    resolved = yaml.safe_load((tmp_path / "teacher.yaml").read_text())
    assert resolved["MODEL"]["BACKBONE"]["WIDTH"] == 0.125 and resolved["KD"]["LOSSES"] == []
    assert json.loads((tmp_path / "result.json").read_text())["method"] == "mine"
    evaluated = tiny(tmp_path, "MODEL.WEIGHTS", tmp_path / "model_final.pth", eval_only=True)
    assert evaluated == pytest.approx(metrics, nan_ok=True)
    state = torch.load(tmp_path / "model_0000011.pth")
    assert state["model"].keys() == weights(tmp_path / "model_final.pth").keys()
    assert any("covariance" in key for key in state["distillation"])
    assert not any("teacher" in key for part in ("model", "distillation") for key in state[part])


def test_what_pictures_need_is_kept_beside_the_metrics(tiny, teacher, tmp_path):
    tiny(tmp_path, *teacher, "TEST.EVAL_PERIOD", 6, recipe="fakd")
    state = torch.load(tmp_path / "model_0000011.pth")["distillation"]
    covariance = state["FAKDChannel.statistics.covariance"].double()
    last = {}
    for line in read_lines(tmp_path / "metrics.json"):
        last |= line
    traces = [last[f"FAKDChannel/trace/{name}"] for name, _ in CLASSES]
    largest = [last[f"FAKDChannel/eigenvalue/{name}"] for name, _ in CLASSES]
    assert traces == pytest.approx([c.trace().item() for c in covariance], rel=1e-4)
    norms = [torch.linalg.matrix_norm(c, 2).item() for c in covariance]
    assert largest == pytest.approx(norms, rel=1e-4, abs=1e-6) and max(largest) > 0
    counts = torch.tensor(json.loads((tmp_path / "confusion.json").read_text())["tiny_val"])
    assert 100 * metrics_from_confusion(counts)["mIoU"].item() == pytest.approx(last["sem_seg/mIoU"])

    events = EventAccumulator(str(tmp_path))
    events.Reload()
    scalars = {"total_loss", "loss_seg", "loss_FAKDChannel", "lr", "sem_seg/IoU-sky"}
    assert scalars | {"FAKDChannel/lambda", "FAKDChannel/trace/sky"} <= set(events.Tags()["scalars"])
    shown = {tag: events.Images(tag) for tag in events.Tags()["images"]}
    assert set(shown) == {f"tiny_val/{i}" for i in (100, 102, 103, 105)}
    assert all([e.step for e in steps] == [5, 12] for steps in shown.values())
    strip = np.asarray(Image.open(io.BytesIO(shown["tiny_val/102"][1].encoded_image_string)))
    image, label = draw_scene(102)
    assert np.array_equal(strip[:, : image.shape[1]], image)
    colours = palette(MetadataCatalog.get("tiny_val"))
    assert np.array_equal(strip[:, image.shape[1] : 2 * image.shape[1]], colours[label])


def test_evaluating_a_distillation_needs_no_teacher(tiny, teacher, tmp_path):
    metrics = tiny(tmp_path, *teacher, recipe="cwd")
    assert tiny(tmp_path, recipe="cwd", eval_only=True) == pytest.approx(metrics, nan_ok=True)


def test_two_test_sets_are_both_reported_and_the_first_decides(tiny, tmp_path):
    metrics = tiny(tmp_path, "DATASETS.TEST", "('tiny_val', 'tiny_train')")
    result = json.loads((tmp_path / "result.json").read_text())
    assert metrics["tiny_train/mIoU"] == result["metrics_by_dataset"]["tiny_train"]["mIoU"]
    assert metrics["mIoU"] == result["metrics"]["mIoU"] == result["best"]["mIoU"]
    assert metrics["mIoU"] != metrics["tiny_train/mIoU"]
    assert tiny(tmp_path, "DATASETS.TEST", "('tiny_val', 'tiny_train')", resume=True) == pytest.approx(
        metrics, nan_ok=True
    )


def test_the_console_shows_neither_config_nor_build_settings(tiny, tmp_path, capsys):
    tiny(tmp_path)
    console, log = "".join(capsys.readouterr()), (tmp_path / "log.txt").read_text()
    assert "fakd." in console and len(console.splitlines()) < len(log.splitlines()) / 3
    for long in ("Environment:", "detectron2._C", "PyTorch built with", "MAX_ITER:"):
        assert long in log and long not in console


def test_two_runs_in_one_process_keep_their_logs_apart(tiny, tmp_path):
    tiny(tmp_path / "a")
    size = (tmp_path / "a" / "log.txt").stat().st_size
    tiny(tmp_path / "b")
    assert (tmp_path / "a" / "log.txt").stat().st_size == size
    assert_same_weights(
        weights(tmp_path / "a" / "model_final.pth"), weights(tmp_path / "b" / "model_final.pth")
    )


def test_a_run_that_misses_what_is_expected_of_it_ends_with_an_error_and_its_result(tiny, tmp_path):
    both, expected = (
        "('tiny_val', 'tiny_train')",
        [["sem_seg", "mIoU", 100.0, 0.5], ["sem_seg", "mAcc", 50, 50]],
    )
    with pytest.raises(ValueError, match=r"TEST.EXPECTED_RESULTS .*: mIoU is \d+\.\d\d, not 100.0 ± 0.5\.$"):
        tiny(tmp_path, "DATASETS.TEST", both, "TEST.EXPECTED_RESULTS", expected)
    assert (tmp_path / "result.json").exists()


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_what_is_not_finite_is_named_and_the_last_checkpoint_is_good(tiny, teacher, tmp_path, where):
    with pytest.raises(FloatingPointError) as error:
        tiny(tmp_path, *teacher, *FAILING, "KD.FailsAt.WHERE", where, "TEST.EVAL_PERIOD", 1)
    if where == "loss":
        assert "loss_FailsAt became NaN or infinite at iteration 6" in str(error.value)
        batch = torch.load(tmp_path / "nonfinite_batch.pth")["batch"]
        assert len(batch) == 4 and batch[0]["sem_seg"].shape == (48, 64)
    newest = sorted(tmp_path.glob("model_0*.pth"))[-1]
    assert newest.name == "model_0000005.pth"
    for written in (newest, tmp_path / "model_best.pth"):
        assert all(torch.isfinite(v).all() for v in weights(written).values())
    assert not (tmp_path / "model_final.pth").exists()


def test_a_teacher_is_checked_in_the_windows_in_which_students_are_tested(teacher, monkeypatch):
    shown = set()
    encode = Segmentor.encode
    monkeypatch.setattr(
        Segmentor, "encode", lambda self, images: shown.add(tuple(images.shape[-2:])) or encode(self, images)
    )
    windows = ["TEST.WINDOW", "(48,64)", "TEST.STRIDE", "(48,64)", "KD.TEACHER.MIOU", 0.0]
    cfg = tiny_config("", *teacher, *windows, recipe="cwd")
    check_teacher(build_teacher(cfg).eval(), cfg)
    assert shown == {(48, 64)}


def test_a_bad_teacher_stops_the_run_before_the_first_step(tiny, teacher, tmp_path):
    with pytest.raises(ValueError, match=r"reaches mIoU .* but 95.00 is recorded.*CHECK_IMAGES 0"):
        tiny(tmp_path / "a", *teacher, "KD.TEACHER.MIOU", 95.0, recipe="cwd")
    assert not list((tmp_path / "a").glob("*.pth"))
    tiny(tmp_path / "b", *teacher, "KD.TEACHER.MIOU", 95.0, "KD.TEACHER.CHECK_IMAGES", 0, recipe="cwd")


def test_weights_of_another_network_are_no_teacher(tiny, teacher, tmp_path):
    torch.save({"model": {"a": torch.zeros(1)}}, tmp_path / "w.pth")
    opts = [*teacher[:3], str(tmp_path / "w.pth")]
    with pytest.raises(ValueError, match=r"w.pth' do not fit.*tiny.yaml.*unknown to the model \(a\)"):
        tiny(tmp_path / "run", *opts, recipe="cwd")


def test_a_batch_that_cannot_be_split_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"SOLVER.IMS_PER_BATCH \(4\).*SOLVER.ACCUMULATE \(1 x 3\)"):
        run(tiny_config(tmp_path, "SOLVER.ACCUMULATE", 3))


def test_mixed_precision_trains_and_is_resumed(tiny, teacher, tmp_path):
    opts = [*teacher, "SOLVER.AMP.ENABLED", True, "SOLVER.ACCUMULATE", 2]
    tiny(tmp_path / "a", *opts, recipe="fakd")
    final = weights(tmp_path / "a" / "model_final.pth")
    assert all(v.dtype == torch.float32 for v in final.values() if v.is_floating_point())
    (tmp_path / "a" / "result.json").unlink()
    (tmp_path / "a" / "model_0000011.pth").unlink()
    tiny(tmp_path / "a", *opts, recipe="fakd", resume=True)
    assert_same_weights(weights(tmp_path / "a" / "model_final.pth"), final)


def test_a_processor_without_bfloat16_stays_in_float32(tiny, tmp_path, monkeypatch, caplog):
    tiny(tmp_path / "plain")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    tiny(tmp_path / "mixed", "SOLVER.AMP.ENABLED", True)
    assert "SOLVER.AMP.ENABLED changes nothing" in caplog.text
    assert_same_weights(*(weights(tmp_path / each / "model_final.pth") for each in ("plain", "mixed")))


def test_a_user_s_error_is_one_line_and_exit_code_one(tmp_path):
    """In a process of its own, where imports may warn."""
    wrong = ["SOLVER.BASE_LRR", "1", "OUTPUT_DIR", tmp_path]
    command = [sys.executable, TRAIN_NET, "--config-file", CONFIG, *wrong]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if "Warning" not in line and "warn" not in line]
    assert len(lines) == 1 and lines[0].startswith("error: ") and "SOLVER.BASE_LR" in lines[0]


def test_help_tells_all(tool):
    code, text = tool("train_net", "--help")
    assert code == 0
    for word in ("--config-file", "--recipe", "--resume", "--eval-only", "--num-gpus", "KD.TEACHER.RUN"):
        assert word in text


def test_windows_mirrors_and_written_predictions(tiny, tmp_path):
    final = ["MODEL.WEIGHTS", tmp_path / "model_final.pth"]
    metrics = tiny(tmp_path)
    whole = tiny(tmp_path, *final, "TEST.WINDOW", (96, 128), "TEST.STRIDE", (96, 128), eval_only=True)
    assert whole == pytest.approx(metrics, nan_ok=True)
    opts = ["TEST.WINDOW", (64, 64), "TEST.STRIDE", (32, 32), "TEST.FLIP", True, "TEST.SAVE", ("png", "json")]
    assert 0 <= tiny(tmp_path, *final, *opts, eval_only=True)["mIoU"] <= 100
    written = tmp_path / "inference" / "tiny_val"
    entries = json.loads((written / "sem_seg_predictions.json").read_text())
    assert len(entries) >= len(list(written.glob("*.png"))) > 0
