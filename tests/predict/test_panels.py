"""Pictures of predictions side by side."""

import numpy as np
import pytest
from PIL import Image

from fakd.predict.panels import draw_panels, error_map, image_miou, most_different

CLASSES, VOID = ["sky", "road"], 2
COLOURS = np.array([[0, 0, 255], [255, 0, 0], [0, 0, 0]], np.uint8)


def test_image_miou_by_hand():
    truth = np.array([[0, 0, 1, 1], [VOID, VOID, 1, 1]])
    prediction = np.array([[0, 0, 0, 1], [1, 0, 1, 1]])
    assert image_miou(prediction, truth, 2, VOID) == pytest.approx(100 * (2 / 3 + 3 / 4) / 2)
    assert np.isnan(image_miou(prediction, np.full((2, 4), VOID), 2, VOID))


def test_images_on_which_runs_differ_most_come_first():
    scores = np.array([[10, 50, 90, np.nan], [20, 10, 91, np.nan]])
    assert most_different(scores, 2) == [1, 0]
    assert most_different(scores, 9) == [1, 0, 2, 3]


@pytest.fixture
def scene():
    truths = [np.zeros((12, 16), dtype=np.int64) for _ in range(3)]
    truths[1][:, :8] = 1
    truths[2][:] = VOID
    images = [np.full((12, 16, 3), 40 * i, np.uint8) for i in range(3)]
    return images, truths


def draw(path, scene, predictions, **changes):
    images, truths = scene
    options = {"classes": CLASSES, "palette": COLOURS, "ignore_value": VOID} | changes
    png, chosen = draw_panels(images, truths, predictions, **options)
    path.write_bytes(png)
    return chosen


def test_picture_holds_the_palette_and_chooses_by_difference(tmp_path, scene):
    good, bad = [np.where(t == VOID, 0, t) for t in scene[1]], [np.zeros_like(t) for t in scene[1]]
    chosen = draw(tmp_path / "panels.png", scene, {"student": bad, "teacher": good}, count=2)
    assert chosen == [1, 0]  # both are right about image 0, nothing can be said of image 2
    picture = np.asarray(Image.open(tmp_path / "panels.png").convert("RGB"))
    counts = [int((picture == colour).all(-1).sum()) for colour in COLOURS[:2]]
    assert counts[0] > counts[1] > 1000  # blue: 3 + 0.5 + 1 + 0.5 tiles, red: 2 halves


def test_compare_limits_what_chooses(tmp_path, scene):
    truths = scene[1]
    perfect, wrong = [np.where(t == VOID, 0, t) for t in truths], [np.ones_like(t) for t in truths]
    predictions = {"student": perfect, "cwd": [wrong[0], perfect[1], perfect[2]], "teacher": wrong}
    chosen = draw(tmp_path / "a.png", scene, predictions, count=1, compare=["student", "cwd"])
    assert chosen == [0]


def test_error_map_tells_fixed_from_broken(tmp_path, scene):
    truth, other = np.array([[0, 0, 0, 0, VOID]]), np.array([[0, 1, 0, 1, 0]])
    right, fixed, broken, both, void = error_map(np.array([[0, 0, 1, 1, 0]]), other, truth, VOID)[0].tolist()
    assert len({*map(tuple, (right, fixed, broken, both, void))}) == 5 and void == [0, 0, 0]
    good, bad = [np.where(t == VOID, 0, t) for t in scene[1]], [np.zeros_like(t) for t in scene[1]]
    predictions = {"student": bad, "cwd": good}
    draw(tmp_path / "a.png", scene, predictions, count=1, baseline="student")
    picture = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    half = [int((picture == colour).all(-1).sum()) for colour in (fixed, broken, both)]
    assert half[0] > 10_000 and half[1] < half[0] / 20 and half[2] > 10_000  # legend patches are small


def test_missing_prediction_names_the_run(tmp_path, scene):
    with pytest.raises(ValueError, match="cwd has 1 predictions for 3 images"):
        draw(tmp_path / "a.png", scene, {"cwd": [scene[1][0]]})
