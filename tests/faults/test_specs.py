"""Sweep files that say something wrong: refused in one line before anything starts, Ray included."""

import pytest
import yaml
from sweep.conftest import content

from fakd.sweep.plan import make_plan
from fakd.sweep.spec import parse_spec

LAMBDA = "KD.FAKDChannel.LAMBDA"
WEIGHT = {"KD.CWD.WEIGHT": [1.0, 2.0]}


@pytest.fixture
def refused(tmp_path, tool, monkeypatch):
    """``refused(text)``: what ``tools/tune.py`` says of a sweep file, in one line."""
    pytest.importorskip("ray", reason="sweeps need ray: pip install 'ray[tune]'")
    monkeypatch.setattr("fakd.sweep.ray_cluster.start", lambda options: pytest.fail("Ray was started"))

    def told(text):
        spec = tmp_path / "spec.yaml"
        spec.write_bytes(text if isinstance(text, bytes) else text.encode())
        code, output = tool("tune", "--spec", spec, "--output", tmp_path / "out")
        *_, last = output.strip().splitlines()
        assert code == 1 and last.startswith("error: ") and "Traceback" not in output
        assert not (tmp_path / "out").exists()
        return last.removeprefix("error: ").replace(str(spec), "FILE")

    return told


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("methods: [", "FILE: cannot be read as yaml: "),
        (b"\xff\xfe", "FILE: cannot be read as yaml: "),
        ("!!python/object/apply:os.getcwd []", "FILE: cannot be read as yaml: "),
        ("", "FILE: the content is None, but must be keys with values"),
        ("- 1", "FILE: the content is [1], but must be keys with values"),
        ("1: 2", "FILE: there is no key 1."),
        ("&a {keys: *a}", "FILE: "),
    ],
)
def test_what_is_no_sweep(refused, text, message):
    assert refused(text).startswith(message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": [5]}, "methods[0] is 5, but must be a text"),
        ({"methods": "fakd"}, "methods is 'fakd', but must be a list"),
        (
            {"methods": ["my/teacher.yaml"]},
            "methods: 'my/teacher.yaml' has the name that teachers have in a report",
        ),
        ({"methods": None}, "methods is None, but must be a list"),
        ({"stop": 5}, "stop is 5, but must be keys with values"),
        ({"stop": {"iterations": 0}}, "stop.iterations is 0, but must be greater than 0"),
        ({"stop": {"seconds": "1h"}}, "stop.seconds is '1h', but must be a number"),
        ({"resources": {"cpus": "x"}}, "resources.cpus is 'x', but must be a number"),
        ({"resources": {"cpus": -1}}, "resources.cpus is -1, but must be greater than or equal to 0"),
        ({"resources": {"cpus": float("inf")}}, "resources.cpus is inf, but must be a finite number"),
        ({"resources": {"gpus": 1.5}}, "resources.gpus: is 1.5; above one only whole GPUs can be had"),
        ({"concurrency": -1}, "concurrency is -1, but must be greater than or equal to 0"),
        ({"retries": -1}, "retries is -1, but must be greater than or equal to 0"),
        ({"samples": 2.5}, "samples is 2.5, but must be a whole number"),
        ({"pack": True}, "pack: is True; choose off, auto or a number of students"),
        ({"title": ["x"]}, "title is ['x'], but must be a text"),
        ({"opts": ["SOLVER.MAX_ITER", 1]}, "opts is ['SOLVER.MAX_ITER', 1], but must be keys with values"),
        ({"opts": {1: 2}}, "opts"),
        ({"opts": {"OUTPUT_DIR": "/x"}}, "OUTPUT_DIR is set by the sweep itself"),
        ({"keys": {"SEED": [1, 2]}}, "SEED is set by the sweep itself"),
        ({"keys": {LAMBDA: {"uniform": [0, "x"]}}}, f"keys: {LAMBDA} needs a list, or one of uniform"),
        ({"keys": {LAMBDA: {"loguniform": [0, 1]}}}, f"keys: {LAMBDA} needs a list, or one of uniform"),
        ({"keys": {LAMBDA: []}}, f"keys: {LAMBDA} needs a list, or one of uniform"),
        ({"keys": {LAMBDA: {"uniform": [0, 1]}}}, f"keys: {LAMBDA} needs a list of values in a grid"),
        ({"teacher": {"weights": 1}}, "teacher.weights is 1, but must be a text"),
        ({"teacher": "x.yaml"}, "teacher is 'x.yaml', but must be keys with values"),
        ({"pairs": {"x": {"teacher": {"weights": 1}}}}, "pairs.x.teacher.weights is 1, but must be a text"),
        ({"pairs": {"x": None}}, "pairs.x is None, but must be keys with values"),
        ({"pairs": {"x": {"studnt": "y"}}}, "pairs.x: there is no key 'studnt'. Did you mean 'student'?"),
        ({"pairs": ["x"]}, "pairs is ['x'], but must be keys with values"),
        ({"pairs": {"../../x": {}}}, "pairs: '../../x' cannot name a folder"),
        ({"pairs": {"/x": {}}}, "pairs: '/x' cannot name a folder"),
        ({"pairs": {"..": {}}}, "pairs: '..' cannot name a folder"),
        ({"pairs": {"x" * 300: {}}}, "pairs: 'xxx"),
        ({"pairs": {"teachers": {}}}, "pairs: 'teachers' cannot name a folder"),
        ({"base": ""}, "pairs: no student; name its config file"),
    ],
)
def test_what_a_sweep_cannot_say(changes, message):
    with pytest.raises(ValueError) as told:
        parse_spec(content(**changes), "FILE")
    text = str(told.value)
    assert text.startswith("FILE: ") and message in text and "\n" not in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keys": {"KD.AT.WEIGHT": [1.0]}}, "no method of the sweep has the loss of KD.AT.WEIGHT"),
        ({"keys": {"KD.NoLoss.WEIGHT": [1.0]}}, "no config key KD.NoLoss.WEIGHT"),
        ({"base": "nowhere.yaml"}, "config file nowhere.yaml does not exist"),
        ({"teacher": {"config": "nowhere.yaml"}}, "nowhere.yaml does not exist"),
        ({"methods": ["nowhere.yaml"]}, "no recipe 'nowhere.yaml'"),
        ({"methods": ["cwd", "{folder}/cwd.yaml"]}, "rename a recipe's file"),
        ({"opts": {"SOLVER.BASE_LR": -1.0}}, "SOLVER.BASE_LR"),
        ({"opts": {"MODEL.BACKBONE.OUTPUT_STRIDE": 7}}, "OUTPUT_STRIDE"),
        ({"base": "{folder}/loop.yaml"}, "_BASE_"),
        ({"base": "{folder}/empty.yaml"}, "empty.yaml"),
        ({"base": "{folder}"}, "does not exist"),
    ],
)
def test_what_a_sweep_cannot_run(tmp_path, changes, message):
    (tmp_path / "loop.yaml").write_text("_BASE_: loop.yaml\n")
    (tmp_path / "empty.yaml").write_text("")
    (tmp_path / "cwd.yaml").write_text("KD: {LOSSES: [CWD], CWD: {TAU: 2.0}}\n")
    text = yaml.safe_dump(content(**changes)).replace("{folder}", str(tmp_path))
    with pytest.raises((ValueError, KeyError, OSError), match=message) as told:
        make_plan(parse_spec(yaml.safe_load(text)), tmp_path / "out")
    assert "\n" not in str(told.value) and not (tmp_path / "out").exists()


def test_local_refuses_what_needs_ray(tmp_path, tool):
    spec = tmp_path / "spec.yaml"
    spec.write_text(yaml.safe_dump(content(scheduler="asha")))
    code, told = tool("tune", "--spec", spec, "--output", tmp_path / "out", "--local")
    assert code == 1 and "scheduler asha compares runs that train at a time, which needs Ray" in told
    code, told = tool("tune", "--spec", spec, "--local", "--address", "auto")
    assert code == 2 and "--local does without" in told
