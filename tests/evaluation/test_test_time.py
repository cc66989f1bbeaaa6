"""Windows, scales and mirrors over networks whose answer is known."""

import pytest
import torch
from torch import nn

from fakd.evaluation import TestTimeModel


class Shown(nn.Module):
    """Scores that are the pixels themselves, so that each tells what it was shown; remembers the sizes."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def forward(self, batched_inputs):
        self.sizes += [tuple(item["image"].shape[1:]) for item in batched_inputs]
        return [{"sem_seg": item["image"].float()} for item in batched_inputs]


class Convolved(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 5, padding=2)

    def forward(self, batched_inputs):
        return [{"sem_seg": self.convolution(item["image"].float()[None])[0]} for item in batched_inputs]


IMAGE = torch.randint(0, 256, (3, 37, 50), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


@torch.no_grad()
def ask(model, image=IMAGE, size=None, **options):
    item = {"image": image} | ({"height": size[0], "width": size[1]} if size else {})
    return TestTimeModel(model, **options)([item])[0]["sem_seg"]


@pytest.mark.parametrize("window", [(0, 0), (37, 50), (64, 64)])
def test_one_view_that_shows_all_is_the_network_s_own_answer(window):
    model = Convolved()
    expected = model([{"image": IMAGE}])[0]["sem_seg"]
    assert torch.equal(ask(model, window=window, stride=window), expected)


@pytest.mark.parametrize(
    ("window", "stride"), [((16, 16), (11, 11)), ((37, 20), (37, 7)), ((5, 64), (5, 64)), ((36, 49), (1, 1))]
)
def test_windows_cover_every_pixel_and_average_where_they_overlap(window, stride):
    model = Shown()
    torch.testing.assert_close(ask(model, window=window, stride=stride), IMAGE.float())
    assert set(model.sizes) == {(min(window[0], 37), min(window[1], 50))}


def test_windows_start_at_multiples_of_the_stride_and_the_last_ends_at_the_border():
    windows = TestTimeModel(Shown(), window=(480, 480), stride=(320, 320)).windows(520, 900)
    assert [(r.start, r.stop) for r, _ in windows[::3]] == [(0, 480), (40, 520)]
    assert [(c.start, c.stop) for _, c in windows[:3]] == [(0, 480), (320, 800), (420, 900)]


def test_overlapping_windows_count_alike():
    class First(nn.Module):
        """Scores 1 in the first window it sees, 0 in all others."""

        seen = 0

        def forward(self, batched_inputs):
            self.seen += 1
            return [
                {"sem_seg": torch.full((2, *batched_inputs[0]["image"].shape[1:]), float(self.seen == 1))}
            ]

    scores = ask(First(), torch.zeros(3, 4, 6), window=(4, 4), stride=(4, 2))
    assert scores[0, 0].tolist() == [1, 1, 0.5, 0.5, 0, 0]


def test_a_mirrored_view_is_mirrored_back():
    probabilities = IMAGE.float().softmax(0)
    torch.testing.assert_close(ask(Shown(), flip=True), probabilities)
    model = Convolved()
    both = [model([{"image": x}])[0]["sem_seg"].softmax(0) for x in (IMAGE, IMAGE.flip(-1))]
    torch.testing.assert_close(ask(model, flip=True), (both[0] + both[1].flip(-1)) / 2)


def test_scales_show_other_sizes_and_answer_at_the_one_asked_for():
    model = Shown()
    scores = ask(model, size=(74, 100), scales=(0.5, 1.0, 2.0))
    assert model.sizes == [(19, 25), (37, 50), (74, 100)]
    assert scores.shape == (3, 74, 100)
    torch.testing.assert_close(scores.sum(0), torch.ones(74, 100))


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"window": (8, 8), "stride": (0, 8)}, "TEST.STRIDE"),
        ({"window": (8, 8), "stride": (8, 9)}, "TEST.STRIDE"),
        ({"scales": (1.0, 0.0)}, "TEST.SCALES"),
        ({"scales": ()}, "TEST.SCALES"),
    ],
)
def test_impossible_options_are_refused(options, error):
    with pytest.raises(ValueError, match=error):
        TestTimeModel(Shown(), **options)
