"""Services besides TensorBoard: every number once, under its iteration, in one record over a resume."""

import json
import struct
import sys

import pytest
from detectron2.engine import TrainerBase
from detectron2.utils.events import EventStorage

from fakd.config import load_config
from fakd.engine.logging_hooks import Writers
from fakd.engine.writers import ScalarWriter, build_writers


class Kept(ScalarWriter):
    def __init__(self, first_iter):
        super().__init__(first_iter)
        self.sent = []

    def send(self, scalars, iteration):
        self.sent.append((iteration, scalars))


def test_every_number_is_sent_once_under_its_iteration():
    writer = Kept(3)
    with EventStorage(2) as storage:
        storage.put_scalar("old", 1.0)
        writer.write()
        storage.step()
        storage.put_scalar("loss", 2.0, smoothing_hint=False)
        storage.step()
        storage.put_scalar("lr", 0.5, smoothing_hint=False)
        writer.write()
        writer.write()
    assert writer.sent == [(3, {"loss": 2.0}), (4, {"lr": 0.5})]


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_package_is_named_with_the_remedy(monkeypatch, tmp_path, name):
    monkeypatch.setitem(sys.modules, name, None)  # as Python says that a module is not there
    with pytest.raises(ValueError, match=rf"fakd\[{name}\]"):
        build_writers(config(tmp_path, name), 0)


def config(folder, writer):
    return load_config("", ["OUTPUT_DIR", str(folder), "WRITERS", writer, "SEED", "7"])


def log(cfg, first, values):
    """A process of a run, that logs a loss at each iteration."""
    (writer,) = build_writers(cfg, first)
    with EventStorage(first) as storage:
        for value in values:
            storage.put_scalar("total_loss", value, smoothing_hint=False)
            writer.write()
            storage.step()
    writer.close()


def leveldb_records(content):
    """The records of a .wandb file: after 7 bytes, LevelDB's log format in blocks of 32 KiB."""
    position, whole = 7, b""
    while position + 7 <= len(content):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        length, kind = struct.unpack_from("<HB", content, position + 4)
        whole += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield whole
            whole = b""


def test_wandb_offline(monkeypatch, tmp_path):
    wandb = pytest.importorskip("wandb", reason="needs wandb: pip install 'fakd[wandb]'")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_MODE", "offline")
    cfg = config(tmp_path, "wandb")
    log(cfg, 0, [3.0, 2.0])
    log(cfg, 2, [1.0])
    wandb.teardown()  # ends the process that writes the files; finish() may return earlier
    found, identities, seeds = [], set(), set()
    for file in sorted(
        tmp_path.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns
    ):
        for data in leveldb_records(file.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.HasField("run"):
                identities.add(record.run.run_id)
                seeds |= {item.value_json for item in record.run.config.update if item.key == "SEED"}
            if record.HasField("history"):
                items = record.history.item
                found.append({item.key or item.nested_key[0]: json.loads(item.value_json) for item in items})
    assert [(line["_step"], line["total_loss"]) for line in found] == [(0, 3.0), (1, 2.0), (2, 1.0)]
    assert len(identities) == 1 and seeds == {"7"}


def test_runs_of_one_process_have_records_of_their_own_in_wandb(monkeypatch, tmp_path):
    wandb = pytest.importorskip("wandb", reason="needs wandb: pip install 'fakd[wandb]'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    writers = []
    for name in ("cwd", "fakd"):
        (tmp_path / name).mkdir()
        writers += build_writers(config(tmp_path / name, "wandb"), 0)
    identities = {(tmp_path / name / "wandb_id.txt").read_text() for name in ("cwd", "fakd")}
    for writer in writers:
        writer.close()
    wandb.teardown()
    assert len(identities) == 2


@pytest.fixture
def mlflow_client(monkeypatch, tmp_path):
    """MLflow, which keeps its records in a folder."""
    mlflow = pytest.importorskip("mlflow", reason="needs mlflow: pip install 'fakd[mlflow]'")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # newer versions ask for it
    (tmp_path / "run").mkdir()
    return mlflow.MlflowClient()


def test_mlflow_in_a_folder(mlflow_client, tmp_path):
    cfg = config(tmp_path / "run", "mlflow")
    log(cfg, 0, [3.0, 2.0])
    log(cfg, 2, [1.0])
    (run,) = mlflow_client.search_runs(["0"])
    assert run.data.params["SEED"] == "7" and run.info.status == "FINISHED"
    history = mlflow_client.get_metric_history(run.info.run_id, "total_loss")
    assert sorted((entry.step, entry.value) for entry in history) == [(0, 3.0), (1, 2.0), (2, 1.0)]


def test_mlflow_takes_the_metrics_of_many_classes_whatever_their_names(mlflow_client, tmp_path):
    (writer,) = build_writers(config(tmp_path / "run", "mlflow"), 0)
    classes = ["road, route", "person's (any)", "earth/", *map(str, range(1100))]
    writer.send({f"sem_seg/IoU-{name}": 1.0 for name in classes}, 3)
    (run,) = mlflow_client.search_runs(["0"])
    assert len(run.data.metrics) == len(classes)
    assert {f"sem_seg/IoU-{name}" for name in ("road_ route", "person_s _any_", "earth")} < set(
        run.data.metrics
    )


@pytest.mark.parametrize(("done", "status"), [(2, "KILLED"), (3, "FINISHED")])
def test_the_record_of_a_run_that_did_not_end_is_not_finished(mlflow_client, tmp_path, done, status):
    cfg = config(tmp_path / "run", "mlflow")
    hook = Writers(lambda: build_writers(cfg, 0), str(tmp_path / "metrics.json"), 20)
    hook.trainer = TrainerBase()
    hook.trainer.iter, hook.trainer.max_iter = done, 3
    with EventStorage():
        hook.before_train()
        hook.after_train()
    (run,) = mlflow_client.search_runs(["0"])
    assert run.info.status == status
