"""How a scene of toyscenes is drawn: ground, objects from far to near, light.

For the rules that make the bytes the same everywhere see :mod:`.random`.
"""

import numpy as np

from . import objects
from .random import Colour, Dice, smooth_noise

WIDTH, HEIGHT = 128, 96
VOID = 255
#: (name, colour of the label pictures), in the order of the label ids.
CLASSES = (
    ("sky", (135, 180, 235)),
    ("building", (150, 75, 65)),
    ("road", (120, 110, 125)),
    ("grass", (150, 210, 110)),
    ("water", (30, 80, 200)),
    ("tree", (20, 110, 40)),
    ("fence", (190, 150, 90)),
    ("car", (110, 20, 170)),
    ("rock", (70, 70, 60)),
    ("sheep", (250, 250, 210)),
    ("person", (230, 20, 60)),
    ("sign", (255, 210, 0)),
)
SKY, BUILDING, ROAD, GRASS, WATER, TREE, FENCE, CAR, ROCK, SHEEP, PERSON, SIGN = range(len(CLASSES))

#: class, drawing, height in metres (low, high), half width in heights, chance of one more in each theme.
OBJECTS = (
    (TREE, objects.tree, (2.2, 4.8), 0.7, (0.4, 0.5, 0.45)),
    (FENCE, objects.fence, (0.8, 1.4), 5.2, (0.3, 0.4, 0.25)),
    (CAR, objects.car, (1.1, 1.6), 1.6, (0.6, 0.3, 0.25)),
    (ROCK, objects.rock, (0.7, 1.5), 1.3, (0.3, 0.55, 0.6)),
    (SHEEP, objects.sheep, (1.0, 1.4), 1.1, (0.35, 0.65, 0.5)),
    (PERSON, objects.person, (1.6, 2.0), 0.5, (0.7, 0.45, 0.55)),
    (SIGN, objects.sign, (1.8, 2.6), 0.4, (0.55, 0.45, 0.4)),
    (VOID, objects.thing, (0.6, 1.8), 1.0, (0.25, 0.25, 0.25)),
)
SKIES = ((110, 160, 220), (150, 185, 225), (176, 180, 186), (206, 206, 204), (224, 176, 136), (90, 104, 130))
GRASSES = ((88, 128, 58), (110, 142, 70), (64, 100, 52), (160, 150, 84), (134, 112, 78), (206, 208, 206))
ROADS = ((104, 104, 108), (132, 130, 128), (76, 78, 84), (150, 126, 98), (124, 92, 80))
WATERS = ((62, 110, 160), (70, 126, 150), (84, 92, 72))

_Y, _X = np.meshgrid(np.arange(HEIGHT) + 0.5, np.arange(WIDTH) + 0.5, indexing="ij")


def draw_scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws one scene.

    Args:
        seed: in [0, 2**32).

    Returns:
        image, (96, 128, 3) uint8 RGB, and label, (96, 128) uint8, class ids and 255 for void.
    """
    scene = _Scene(Dice(seed))
    scene.paint_sky()
    scene.paint_ground()
    scene.paint_objects()
    scene.shine()
    return np.rint(np.clip(scene.image, 0, 255)).astype(np.uint8), scene.label


class _Scene:
    """A picture in the making: ``image`` (H, W, 3) float64, ``label`` (H, W) uint8, and what rules them."""

    def __init__(self, dice: Dice) -> None:
        self.dice = dice
        self.image = np.zeros((HEIGHT, WIDTH, 3))
        self.label = np.zeros((HEIGHT, WIDTH), np.uint8)
        self.theme = dice.pick((0, 1, 2))  # town, country, shore: the columns of chances
        self.horizon = dice.real(22, 44)
        tilt = dice.real(-0.08, 0.08) * (_X - WIDTH / 2)
        # 0 at the horizon, 1 at the lower border, negative in the sky
        self.ground = (_Y - self.horizon - tilt) / (HEIGHT - self.horizon)
        self.eye = dice.real(1.3, 2.2)  # height of the camera in metres
        self.sky = dice.colour(SKIES)
        self.fog = dice.real(0.2, 0.65) if dice.chance(0.25) else 0.0
        self.sun = dice.sign() * dice.real(0.2, 1.2) if dice.chance(0.6) else 0.0
        self.grain = dice.grid(HEIGHT, WIDTH)
        self.blobs = smooth_noise(dice, HEIGHT, WIDTH, dice.real(2.5, 6))
        self.hills = smooth_noise(dice, HEIGHT, WIDTH, dice.real(14, 34))

    def _lay(self, mask: np.ndarray, colour: Colour, label: int) -> None:
        np.copyto(self.image, colour, where=mask[..., None])
        self.label[mask] = label

    def paint_sky(self) -> None:
        dice = self.dice
        fade = np.clip(_Y / self.horizon, 0, 1)[..., None]
        sky = self.sky * (1 - fade) + (0.5 * self.sky + 0.5 * dice.colour(SKIES)) * fade
        if dice.chance(0.65):
            clouds = np.clip(2.1 * self.hills + 0.9 * self.blobs - 3 * dice.real(0.4, 0.6), 0, 0.85)
            sky = sky * (1 - clouds[..., None]) + dice.real(170, 250) * clouds[..., None]
        self._lay(np.ones_like(self.ground, bool), sky + 5 * self.grain[..., None], SKY)

    def paint_ground(self) -> None:
        dice, depth = self.dice, self.ground
        ridge = dice.real(0.05, 0.4) * (self.hills[0] + 0.15 * self.blobs[0])
        if dice.chance(0.45):  # woods or hills along the horizon
            colour = dice.colour(objects.LEAVES) * (0.6 + 0.5 * self.blobs + 0.2 * self.grain)[..., None]
            self._lay(depth > -ridge[None, :], self._faded(colour, 0.0), TREE)
        streaks = self._streaks(axis=0)
        grass = dice.colour(GRASSES) * (0.72 + 0.5 * streaks + 0.25 * (self.hills - 0.5))[..., None]
        self._lay(depth > 0, self._faded(grass, depth), GRASS)
        if dice.chance((0.15, 0.3, 1.0)[self.theme]):
            self._paint_water()
        for _ in range((2, 1, 1)[self.theme]):
            if dice.chance((0.85, 0.55, 0.35)[self.theme]):
                self._paint_road()

    def _streaks(self, axis: int) -> np.ndarray:
        return sum(np.roll(self.grain, shift, axis) for shift in range(1, 4)) / 4 + self.grain / 4

    def _faded(self, colour: Colour, depth: np.ndarray | float) -> Colour:
        """Colour seen through the fog; depth is 0 at the horizon and 1 at the lower border."""
        haze = self.fog * np.clip(1 - np.asarray(depth), 0.1, 1)[..., None]
        return colour * (1 - haze) + self.sky * haze

    def _paint_water(self) -> None:
        dice, depth = self.dice, self.ground
        colour = dice.colour(WATERS) if dice.chance(0.6) else self.sky * dice.real(0.6, 0.95)
        ripples = 0.68 + 0.6 * self._streaks(axis=1) + 0.15 * self.blobs
        wave = 0.12 * (self.hills - 0.5)
        kind = dice.pick(("sea", "lake", "river"))
        if kind == "sea":
            shore = dice.real(0.1, 0.6) + wave + dice.real(-0.3, 0.3) * (_X / WIDTH - 0.5)
            mask = depth < shore
        elif kind == "lake":
            a = (_X - dice.real(0, WIDTH)) / dice.real(20, 70)
            b = (depth - dice.real(0.2, 0.9)) / dice.real(0.1, 0.3)
            mask = a * a + b * b < 1 + 4 * wave
        else:
            middle = dice.real(0, WIDTH) + dice.real(-60, 60) * depth + 200 * wave
            mask = abs(_X - middle) < 3 + dice.real(15, 45) * depth
        self._lay(mask & (depth > 0), self._faded(colour * ripples[..., None], depth), WATER)

    def _paint_road(self) -> None:
        dice, depth = self.dice, self.ground
        if dice.chance(0.7):  # away from the viewer
            bend = dice.real(-50, 50) * depth * (1 - depth)
            middle = dice.real(0.2, 0.8) * WIDTH * (1 - depth) + dice.real(-0.1, 1.1) * WIDTH * depth + bend
            half = 1 + dice.real(14, 50) * depth
            across, along = (_X - middle) / half, 1.5 / (depth + 0.15)
        else:  # across the picture
            middle = dice.real(0.15, 0.8) + dice.real(-0.25, 0.25) * (_X / WIDTH - 0.5)
            across, along = (depth - middle) / dice.real(0.06, 0.22), _X / 12
        road = (abs(across) < 1) & (depth > 0)
        colour = dice.colour(ROADS) * (0.85 + 0.2 * self.grain + 0.15 * self.blobs)[..., None]
        if dice.chance(0.6):
            dashes = (abs(across) < 0.05) & (along * 2 - np.floor(along * 2) < 0.5)
            lines = dashes | (abs(abs(across) - 0.9) < 0.03)
            colour = np.where(lines[..., None], dice.real(190, 240), colour)
        self._lay(road, self._faded(colour, depth), ROAD)

    def paint_objects(self) -> None:
        """Draws the buildings and the other objects, from far to near."""
        dice, plan = self.dice, []
        for _ in range(4):
            if dice.chance((0.8, 0.3, 0.3)[self.theme]):
                depth = dice.real(0.03, 0.3)
                plan.append((depth, BUILDING, objects.building, dice.real(3, 7), 1.3))
        for label, draw, (low, high), half, chances in OBJECTS:
            for _ in range(5):
                if not dice.chance(chances[self.theme]):
                    break
                # the product puts more of them far away, where they are small
                depth = 0.12 + 0.9 * dice.real() * dice.real(0.3, 1.0)
                plan.append((depth, label, draw, dice.real(low, high), half))
        for depth, label, draw, metres, half in sorted(plan, key=lambda entry: entry[0]):
            self._paint_object(depth, label, draw, metres, half)

    def _paint_object(self, depth: float, label: int, draw: objects.Draw, metres: float, half: float) -> None:
        dice = self.dice
        middle = dice.real(-8, WIDTH + 8)
        foot = self.horizon + depth * (HEIGHT - self.horizon)
        size = max(metres * (depth * (HEIGHT - self.horizon) + 2) / self.eye, 8.0)
        rows = slice(max(int(foot - size - 2), 0), max(min(int(foot + 0.15 * size) + 3, HEIGHT), 0))
        reach = size * (half + 0.5)
        columns = slice(max(int(middle - reach), 0), max(min(int(middle + reach) + 2, WIDTH), 0))
        here = rows, columns
        u, v = (_X[here] - middle) / size, (foot - _Y[here]) / size
        if u.size == 0:
            return
        image, labels = self.image[here], self.label[here]
        if self.sun:
            a, b = (u - 0.3 * self.sun) / (0.4 * half + 0.2), v / 0.09
            image[a * a + b * b < 1] *= 0.6
        whole = np.zeros(u.shape, bool)
        for mask, colour in draw(dice, u, v, self.grain[here], self.blobs[here]):
            whole |= mask
            if colour is not None:
                np.copyto(image, self._faded(colour * np.ones(3), depth), where=mask[..., None])
        if dice.chance(0.35):  # an annotator who leaves the border open
            labels[_grown(whole) & ~whole] = VOID
        labels[whole] = label

    def shine(self) -> None:
        """Light over the whole picture: brightness, tint, gradient, shadows of clouds, blur, noise."""
        dice = self.dice
        light = dice.real(0.65, 1.15) * (
            1 + dice.real(-0.35, 0.35) * (_X / WIDTH - 0.5) + dice.real(-0.3, 0.3) * (_Y / HEIGHT - 0.5)
        )
        if dice.chance(0.5):
            shade = np.roll(self.hills, int(dice.real(20, 100)), 1) > dice.real(0.5, 0.75)
            light = light * np.where(shade & (self.ground > -0.3), dice.real(0.6, 0.85), 1.0)
        tint = np.array([dice.real(0.86, 1.14) for _ in range(3)])
        image = self.image * light[..., None] * tint
        if dice.chance(0.3):
            image = _blurred(_blurred(image, 0), 1)
        noise = dice.grid(HEIGHT, WIDTH * 3).reshape(HEIGHT, WIDTH, 3) - 0.5
        self.image = image + dice.real(4, 22) * noise


def _grown(mask: np.ndarray) -> np.ndarray:
    padded = np.pad(mask, 1)
    return padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]


def _blurred(image: np.ndarray, axis: int) -> np.ndarray:
    """Mean with weights 1 2 1 along an axis; the picture wraps, which one pixel at the border shows."""
    return (np.roll(image, 1, axis) + 2 * image + np.roll(image, -1, axis)) / 4
