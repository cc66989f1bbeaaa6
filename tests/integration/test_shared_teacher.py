"""Several students on one forward pass of their teacher."""

import json

import pytest

from fakd.engine import SharedTeacherRun, run, run_side_by_side, shared_teacher, sharing_key
from fakd.modeling.teacher import FrozenTeacher

from .conftest import assert_same_weights, tiny_config, weights

METHODS = ("cwd", "fakd", "pd")
SHORT = ("SOLVER.MAX_ITER", "6", "TEST.EVAL_PERIOD", "3", "SOLVER.CHECKPOINT_PERIOD", "2")


def config(folder, method, teacher, *opts):
    return tiny_config(folder / method, *SHORT, *teacher, *opts, recipe=method)


@pytest.fixture(scope="module")
def alone(tmp_path_factory, teacher):
    """The folder with every run trained by itself."""
    folder = tmp_path_factory.mktemp("alone")
    for method in METHODS:
        run(config(folder, method, teacher))
    return folder


def assert_as_alone(folder, alone, methods=METHODS):
    for method in methods:
        assert_same_weights(*(weights(f / method / "model_final.pth") for f in (folder, alone)))
        results = [json.loads((f / method / "result.json").read_text()) for f in (folder, alone)]
        assert results[0]["metrics"] == results[1]["metrics"]


def test_packed_students_end_as_they_would_alone(tmp_path, alone, teacher):
    runs = [SharedTeacherRun(config(tmp_path, method, teacher)) for method in METHODS]
    run_side_by_side(runs)
    assert [each.error for each in runs] == [None] * 3
    assert_as_alone(tmp_path, alone)
    assert json.loads((tmp_path / "cwd" / "result.json").read_text())["packed"] == 3


def test_the_teacher_looks_at_a_batch_once(tmp_path, teacher, monkeypatch):
    seen = []
    teach = FrozenTeacher.forward
    monkeypatch.setattr(FrozenTeacher, "forward", lambda self, *args: seen.append(1) or teach(self, *args))
    run_side_by_side(
        [SharedTeacherRun(config(tmp_path, m, teacher, "TEST.EVAL_PERIOD", "0")) for m in METHODS]
    )
    assert len(seen) == 6


def test_a_pack_resumes_from_unequal_checkpoints(tmp_path, alone, teacher):
    configs = [config(tmp_path, method, teacher) for method in METHODS]
    run_side_by_side([SharedTeacherRun(cfg) for cfg in configs])
    for method, kept in zip(METHODS, (3, 5, 3), strict=True):
        (tmp_path / method / "result.json").unlink()
        for path in (tmp_path / method).glob("model_0*.pth"):
            if path.name != f"model_{kept:07d}.pth":
                path.unlink()
    run_side_by_side([SharedTeacherRun(cfg, resume=True) for cfg in configs])
    assert_as_alone(tmp_path, alone)


def test_one_that_fails_leaves_the_others_alone(tmp_path, alone, teacher):
    recipe = tmp_path / "fails.yaml"
    recipe.write_text("KD: {LOSSES: [FailsAt], FailsAt: {AT: 0.5}}\n")
    fails = SharedTeacherRun(tiny_config(tmp_path / "fails", *SHORT, *teacher, recipe=str(recipe)))
    others = [SharedTeacherRun(config(tmp_path, method, teacher)) for method in METHODS[:2]]
    run_side_by_side([fails, *others])
    assert isinstance(fails.error, FloatingPointError)
    assert_as_alone(tmp_path, alone, METHODS[:2])
    assert not (tmp_path / "fails" / "result.json").exists()


def test_each_log_of_a_pack_holds_its_own_run_and_the_console_a_warning_once(tmp_path, teacher, capsys):
    recipe = tmp_path / "fails.yaml"
    recipe.write_text("KD: {LOSSES: [FailsAt], FailsAt: {AT: 0.5}}\n")
    fails = tiny_config(tmp_path / "fails", *SHORT, *teacher, recipe=str(recipe))
    run_side_by_side([SharedTeacherRun(fails), SharedTeacherRun(config(tmp_path, "cwd", teacher))])
    logs = [(tmp_path / name / "log.txt").read_text() for name in ("fails", "cwd")]
    assert [log.count("Training begins") for log in logs] == [1, 1]
    assert [log.count("became NaN or infinite") > 0 for log in logs] == [True, False]
    assert capsys.readouterr().err.count("the others of its pack go on") == 1


def test_a_pack_whose_students_have_all_failed_reads_no_more_batches(tmp_path, teacher, monkeypatch):
    read = []
    load = shared_teacher.build_train_loader
    monkeypatch.setattr(
        shared_teacher,
        "build_train_loader",
        lambda *arguments: (read.append(1) or batch for batch in load(*arguments)),
    )
    runs = []
    for number, at in enumerate((0.0, 0.3)):
        recipe = tmp_path / f"{number}.yaml"
        recipe.write_text(f"KD: {{LOSSES: [FailsAt], FailsAt: {{AT: {at}}}}}\n")
        cfg = tiny_config(tmp_path / str(number), *SHORT, *teacher, recipe=str(recipe))
        runs.append(SharedTeacherRun(cfg))
    run_side_by_side(runs)
    assert all(isinstance(each.error, FloatingPointError) for each in runs)
    assert len(read) == 3  # of 6: 0.3 of the training is over at the third


def test_what_cannot_be_packed_is_refused(tmp_path, teacher):
    one, other = config(tmp_path, "cwd", teacher), config(tmp_path, "pd", teacher, "SEED", "1")
    with pytest.raises(ValueError, match="cannot be packed"):
        run_side_by_side([SharedTeacherRun(one), SharedTeacherRun(other)])
    assert sharing_key(tiny_config(tmp_path, recipe="student")) is None


def test_a_run_ends_when_its_time_is_up(tmp_path):
    metrics = run(tiny_config(tmp_path, "SOLVER.MAX_ITER", "1000"), max_seconds=1.0)
    result = json.loads((tmp_path / "result.json").read_text())
    assert 0 < result["iterations"] < 1000 and metrics["mIoU"] == result["metrics"]["mIoU"]
    assert (tmp_path / "model_final.pth").exists()
