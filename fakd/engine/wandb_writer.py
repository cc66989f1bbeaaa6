"""A run's numbers in Weights & Biases; its own variables (WANDB_MODE, WANDB_PROJECT) say where and how."""

import yaml
from detectron2.config import CfgNode

from .writers import ScalarWriter, keep_id, known_id


class Writer(ScalarWriter):
    """Sends the config once, and scalars by iteration; a resumed run goes on in the same record.

    Args:
        cfg: of the run.
        first_iter: see :class:`fakd.engine.writers.ScalarWriter`.
    """

    def __init__(self, cfg: CfgNode, first_iter: int) -> None:
        import wandb

        super().__init__(first_iter)
        self._run = wandb.init(
            dir=cfg.OUTPUT_DIR,
            name=cfg.OUTPUT_DIR,
            id=known_id(cfg, "wandb", first_iter),
            resume="allow",
            reinit="create_new",  # a pack's other students have runs in this process too
            config=yaml.safe_load(cfg.dump()),
        )
        keep_id(cfg, "wandb", self._run.id)

    def send(self, scalars: dict[str, float], iteration: int) -> None:
        self._run.log(scalars, step=iteration)

    def close(self) -> None:
        """Ends the record; that of a run that failed or was stopped as failed, until a resume."""
        self._run.finish(exit_code=0 if self.complete else 1)
