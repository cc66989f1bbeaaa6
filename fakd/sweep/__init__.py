"""Sweeps: many runs from one file, in this process, or with Ray on this machine or a cluster.

Only ``ray_tune`` and ``ray_cluster`` import ray.
"""

import os

# Ray reads these when it is imported.
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # paths in configs start from where the user is
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_worker_niceness", "0")  # else anything else on the machine comes first
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # the runs write their own
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # a sweep has more than one experiment of Ray's
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
