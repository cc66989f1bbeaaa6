"""What a sweep costs beside the same runs one after another by hand: ``python -m benchmarks.overhead``.

It takes minutes and starts Ray, so ``make bench`` leaves it out. Processor time of the runs' own processes is
compared, which a busy machine does not change; start-up is that of a process that imports what a run needs.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

CONFIG = "configs/toyscenes/student.yaml"
RUNS = 2  # seeds
GOAL = 0.05  # of what the runs take by hand, start-up aside
# Without workers, whose processor time a trial does not know.
OPTIONS = {
    "SOLVER.MAX_ITER": 150,
    "TEST.EVAL_PERIOD": 50,
    "SOLVER.CHECKPOINT_PERIOD": 50,
    "DATALOADER.NUM_WORKERS": 0,
}


def seconds(*command: str) -> float:
    """Processor time of a command, with all the processes it waits for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, *command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        hand_start = seconds("tools/train_net.py", "--help")
        words = [str(word) for pair in OPTIONS.items() for word in pair]
        by_hand = [
            seconds(
                "tools/train_net.py",
                *("--config-file", CONFIG, *words, "SEED", str(seed), "OUTPUT_DIR", f"{folder}/hand{seed}"),
            )
            for seed in range(RUNS)
        ]
        spec = Path(folder, "spec.json")  # JSON is YAML
        spec.write_text(json.dumps({"base": CONFIG, "seeds": list(range(RUNS)), "opts": OPTIONS}))
        driver = seconds("tools/tune.py", "--spec", str(spec), "--output", f"{folder}/sweep", "--cpus", "1")
        lines = [path.read_text().splitlines() for path in Path(folder, "sweep", "lines").iterdir()]
    events = [
        {line["event"]: line["cpu_seconds"] for line in map(json.loads, each) if "cpu_seconds" in line}
        for each in lines
    ]
    starts = [each["start"] for each in events]
    trials = [each["result"] for each in events]
    run, trial, start = sum(by_hand) / RUNS, sum(trials) / RUNS, sum(starts) / RUNS
    overhead = (trial - start) / (run - hand_start) - 1
    print(f"a run by hand: {run:.1f} s, of which start-up {hand_start:.1f} s")
    print(f"a trial of a sweep: {trial:.1f} s, of which start-up {start:.1f} s")
    print(f"the driver with plan and report: {driver:.1f} s, for {RUNS} trials")
    print(f"overhead of a trial, start-up aside: {overhead:.1%} (goal: at most {GOAL:.0%})")
    return int(overhead > GOAL)


if __name__ == "__main__":
    sys.exit(main())
