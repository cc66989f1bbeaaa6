"""A run's numbers in MLflow; its own variables (MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_ID) say where."""

import os
import posixpath
import re
import time

import yaml
from detectron2.config import CfgNode

from fakd.config.setup import flat_keys

from .writers import ScalarWriter, keep_id, known_id

_AT_ONCE = 100  # parameters that a server takes in one request; of metrics it would take more
_LONGEST = 500  # letters of a parameter that every server takes


class Writer(ScalarWriter):
    """Sends the config once, and scalars by iteration; a resumed run goes on in the same record.

    Args:
        cfg: of the run.
        first_iter: see :class:`fakd.engine.writers.ScalarWriter`.
    """

    def __init__(self, cfg: CfgNode, first_iter: int) -> None:
        import mlflow

        super().__init__(first_iter)
        self._client, self._entities = mlflow.MlflowClient(), mlflow.entities
        known = known_id(cfg, "mlflow", first_iter)
        self._id = known or self._begin(cfg)
        if known:
            self._client.update_run(known, status="RUNNING")
        keep_id(cfg, "mlflow", self._id)

    def _begin(self, cfg: CfgNode) -> str:
        experiment = os.environ.get("MLFLOW_EXPERIMENT_ID", "0")
        identity = self._client.create_run(experiment, run_name=cfg.OUTPUT_DIR).info.run_id
        keys = flat_keys(yaml.safe_load(cfg.dump()))
        params = [self._entities.Param(key, str(value)[:_LONGEST]) for key, value in keys.items()]
        for start in range(0, len(params), _AT_ONCE):
            self._client.log_batch(identity, params=params[start : start + _AT_ONCE])
        return identity

    def send(self, scalars: dict[str, float], iteration: int) -> None:
        now = int(1000 * time.time())
        metrics = [
            self._entities.Metric(_accepted(name), value, now, iteration) for name, value in scalars.items()
        ]
        for start in range(0, len(metrics), _AT_ONCE):
            self._client.log_batch(self._id, metrics=metrics[start : start + _AT_ONCE])

    def close(self) -> None:
        """Ends the record; that of a run that failed or was stopped as killed, until a resume."""
        self._client.set_terminated(self._id, "FINISHED" if self.complete else "KILLED")


def _accepted(name: str) -> str:
    """A name that every server takes: those of classes may hold a comma, or a slash at the end."""
    return posixpath.normpath(re.sub(r"[^\w/. :-]", "_", name))
