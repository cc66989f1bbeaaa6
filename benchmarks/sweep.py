"""What packing students on one forward pass of their teacher gains, beside what it could gain at most."""

from __future__ import annotations

import sys

from fakd.engine.shared_teacher import SharedTeacher
from fakd.modeling.batch import stack_images

from .report import Report, main
from .step import batch_of, distiller, training_step

GOAL = 0.95  # of K (T + S) / (T + K S), with T a teacher's forward pass and S the rest of a student's step
RECIPES = ("cwd", "fakd", "pd", "fakd_pd")


def fill(report: Report) -> None:
    images, side = (2, 32) if report.tiny else (8, 96)
    batch = batch_of(images, (side, side), 12)
    alone = [training_step(distiller(recipe, []), batch) for recipe in RECIPES]
    shared, packed = SharedTeacher(), []
    for recipe in RECIPES:
        model = distiller(recipe, [])
        shared.serve(model)
        packed.append(training_step(model, batch))
    stacked = stack_images(batch, model.student.pixel_mean).tensor
    teacher = distiller("cwd", [])

    def all_alone() -> None:
        for step in alone:
            step()

    def all_packed() -> None:
        for step in packed:
            step()
        shared.forget()

    count = len(RECIPES)
    case = f"{count} toyscenes students, {images}x3x{side}x{side}"
    steps = {
        "alone": all_alone,
        "packed": all_packed,
        "the teacher's forward": lambda: teacher.teacher(stacked, batch),
    }
    costs = report.measure(case, steps)
    apart, together, forward = (cost.ms for cost in costs.values())
    possible = apart / (apart - (count - 1) * forward)
    gain = apart / together
    report.at_least("pack", f"{case}: gain {gain:.2f} of {possible:.2f} possible", gain / possible, GOAL)


if __name__ == "__main__":
    sys.exit(main(fill))
