"""The objects of toyscenes, each as layers of (mask, colour) in its own coordinates.

Every function takes ``dice`` and four (h, w) arrays: ``u`` sideways from the middle and ``v`` upwards from
the foot, both in units of the object's height (so v = 1 is its top), ``grain``, noise from pixel to pixel,
and ``blobs``, noise that changes over a few pixels, both in [0, 1). It yields (h, w) masks, from back to
front, with the colour to paint there, or None where the object is see-through but the label is its own.
"""

from collections.abc import Callable, Iterator

import numpy as np

from .random import Colour, Dice

Layers = Iterator[tuple[np.ndarray, Colour | None]]
Draw = Callable[[Dice, np.ndarray, np.ndarray, np.ndarray, np.ndarray], Layers]  # such as tree()

LEAVES = ((38, 84, 34), (58, 110, 45), (80, 128, 50), (110, 120, 40), (176, 110, 40), (150, 62, 40))
TRUNKS = ((82, 62, 44), (60, 50, 44), (150, 140, 125))
WALLS = ((160, 82, 66), (190, 170, 135), (140, 140, 142), (212, 208, 198), (118, 128, 146), (128, 98, 70))
ROOFS = ((140, 64, 50), (84, 80, 84), (70, 84, 100), (112, 88, 66))
PANES = ((40, 48, 60), (120, 160, 200), (230, 205, 120), (90, 100, 110))
FENCES = ((128, 96, 64), (226, 224, 216), (92, 94, 96), (70, 88, 60))
PAINTS = (
    (186, 36, 34),
    (40, 70, 150),
    (222, 222, 220),
    (62, 64, 68),
    (214, 176, 40),
    (70, 120, 80),
    (150, 152, 156),
)
STONES = ((128, 126, 122), (146, 130, 108), (96, 100, 92), (160, 158, 152), (108, 116, 84))
WOOL = ((238, 234, 222), (226, 220, 200), (208, 196, 172), (84, 72, 64))
FACES = ((40, 36, 36), (226, 220, 206))
SKIN = ((232, 190, 160), (190, 140, 104), (110, 76, 54))
CLOTHES = PAINTS + LEAVES[:3] + WOOL[:2]
PLATES = ((196, 30, 36), (30, 70, 160), (236, 234, 228), (236, 190, 30), (30, 120, 80))
DARK = np.array((26.0, 26.0, 30.0))


def _shaded(colour: Colour, amount: np.ndarray) -> Colour:
    return colour * amount[..., None]


def _disc(
    u: np.ndarray, v: np.ndarray, cu: float, cv: float, ru: float | np.ndarray, rv: float
) -> np.ndarray:
    a, b = (u - cu) / ru, (v - cv) / rv
    return a * a + b * b < 1


def _box(u: np.ndarray, v: np.ndarray, left: float, right: float, low: float, high: float) -> np.ndarray:
    return (u >= left) & (u < right) & (v >= low) & (v < high)


def _stripes(x: np.ndarray, period: float, share: float) -> np.ndarray:
    phase = x / period
    return phase - np.floor(phase) < share


def tree(dice: Dice, u: np.ndarray, v: np.ndarray, grain: np.ndarray, blobs: np.ndarray) -> Layers:
    """A conifer or a tree with a crown of discs."""
    trunk = dice.real(0.03, 0.07)
    yield _box(u, v, -trunk, trunk, 0.0, 0.6), _shaded(dice.colour(TRUNKS), 0.75 + 0.5 * grain)
    if dice.chance(0.35):  # a conifer: ragged tiers
        low, slim = dice.real(0.05, 0.2), dice.real(0.25, 0.45)
        tiers = v * dice.real(3, 6)
        half = slim * (1 - v) * (1.15 - 0.45 * (tiers - np.floor(tiers)))
        crown = (abs(u) < half) & (v > low)
    else:
        width, low = dice.real(0.3, 0.6), dice.real(0.2, 0.5)
        crown = np.zeros(u.shape, bool)
        for _ in range(int(dice.real(3, 7))):
            radius = dice.real(0.4, 0.75) * width
            crown |= _disc(
                u,
                v + 0.15 * (blobs - 0.5),
                dice.real(radius - width, width - radius),
                dice.real(low + radius * 0.6, 1 - radius * 0.6),
                radius,
                radius * 0.8,
            )
    light = 0.6 + 0.45 * blobs + np.where(grain > 0.6, 0.3, 0.0) - 0.15 * u
    yield crown, _shaded(dice.colour(LEAVES), light)


def building(dice: Dice, u: np.ndarray, v: np.ndarray, grain: np.ndarray, blobs: np.ndarray) -> Layers:
    """A house with a gable, windows in rows and a door, its side in shade."""
    half, eaves = dice.real(0.35, 1.2), dice.real(0.65, 1.0)
    wall, kind = dice.colour(WALLS), dice.pick(("bricks", "planks", "plaster"))
    amount = 0.88 + 0.16 * blobs + 0.06 * grain
    if kind == "bricks":
        row = np.floor(v / 0.05)
        amount = amount - 0.22 * (_stripes(v, 0.05, 0.3) | _stripes(u + 0.05 * row, 0.12, 0.2))
    elif kind == "planks":
        amount = amount - 0.25 * _stripes(u, 0.07, 0.3)
    corner = dice.real(0.3, 1.0) * half * dice.sign()  # from here on the side wall, in shade
    amount = np.where((u - corner) * corner > 0, 0.65, 1.0) * amount
    yield _box(u, v, -half, half, -0.05, eaves), _shaded(wall, amount)
    if eaves < 0.92:
        slope = (1 - v) / (1 - eaves)
        gable = (abs(u) < (half + 0.05) * np.minimum(slope, 1)) if dice.chance(0.6) else abs(u) < half + 0.04
        yield gable & (v >= eaves) & (v < 1), _shaded(dice.colour(ROOFS), 0.8 + 0.3 * grain)
    storey, bay = dice.real(0.18, 0.34), dice.real(0.16, 0.34)
    panes = _stripes(v - 0.3 * storey, storey, dice.real(0.4, 0.6)) & _stripes(u, bay, dice.real(0.35, 0.6))
    lit = 0.7 + 0.5 * blobs
    yield panes & _box(u, v, 0.07 - half, half - 0.07, 0.04, eaves - 0.06), _shaded(dice.colour(PANES), lit)
    door = dice.real(-half, half) * 0.7
    yield _box(u, v, door - 0.06, door + 0.06, 0.0, 0.2), dice.colour(PAINTS)


def fence(dice: Dice, u: np.ndarray, v: np.ndarray, grain: np.ndarray, blobs: np.ndarray) -> Layers:
    """Rails or bars on a slope; what is seen between them is labelled fence too."""
    half, lean = dice.real(1.5, 5.0), dice.real(-0.12, 0.12)
    v = v + lean * u
    whole = _box(u, v, -half, half, 0.0, 1.0)
    yield whole, None
    if dice.chance(0.6):
        bars = _stripes(u, dice.real(0.22, 0.45), dice.real(0.35, 0.6)) | _stripes(v - 0.2, 0.5, 0.25)
    else:
        bars = _stripes(v, dice.real(0.3, 0.45), 0.5) | _stripes(u, 1.2, 0.15)
    yield whole & bars, _shaded(dice.colour(FENCES), 0.8 + 0.35 * grain)


def car(dice: Dice, u: np.ndarray, v: np.ndarray, grain: np.ndarray, blobs: np.ndarray) -> Layers:
    """A car from its end or its side."""
    u = u * dice.sign()
    paint = _shaded(dice.colour(PAINTS), 0.8 + 0.25 * v + 0.1 * grain)
    half = dice.real(0.65, 0.85) if dice.chance(0.3) else dice.real(1.1, 1.5)  # seen from its end or its side
    front, back = dice.real(0.35, 0.7) * half, dice.real(0.7, 1.0) * half
    slant = dice.real(0.1, 0.5)
    cabin = (v >= 0.5) & (v < 1) & (u > -back + slant * (v - 0.5) * 0.5) & (u < front - slant * (v - 0.5))
    yield cabin | _box(u, v, -half, half, 0.15, 0.58), paint
    glass = cabin & (v > 0.6) & (v < 0.92) & (u > 0.08 - back) & (u < front - 0.1 - slant * (v - 0.5))
    yield glass & ~_stripes(u, dice.real(0.6, 1.1), 0.12), _shaded(dice.colour(PANES), 0.8 + 0.5 * blobs)
    for place in (-0.6, 0.62):
        yield _disc(u, v, place * half, 0.18, 0.2, 0.2), DARK
    yield _box(u, v, half - 0.12, half, 0.36, 0.5), dice.colour(((240, 230, 170), (200, 40, 40)))


def rock(dice: Dice, u: np.ndarray, v: np.ndarray, grain: np.ndarray, blobs: np.ndarray) -> Layers:
    """A boulder with a lit face and one in shade."""
    cosine, sine = dice.rotation(0.25)
    a, b = (u * cosine + (v - 0.4) * sine) / dice.real(0.5, 1.0), ((v - 0.4) * cosine - u * sine) / 0.6
    facet = np.where(a * dice.real(-1, 1) + b * 1.5 > dice.real(-0.4, 0.4), 1.1, 0.72)
    body = (a * a + b * b < 0.55 + 0.8 * blobs) & (v > 0)
    yield body, _shaded(dice.colour(STONES), facet * (0.85 + 0.3 * grain))


def sheep(dice: Dice, u: np.ndarray, v: np.ndarray, grain: np.ndarray, blobs: np.ndarray) -> Layers:
    """A sheep, grazing or looking up."""
    u = u * dice.sign()
    face = dice.colour(FACES)
    length = dice.real(0.5, 0.8)
    for place in (-0.7, -0.45, 0.4, 0.65):
        step = dice.real(-0.06, 0.06)
        yield _box(u, v, place * length + step - 0.05, place * length + step + 0.05, 0.0, 0.4), face
    curls = 0.85 + 0.3 * (blobs - 0.5) + 0.25 * grain
    yield _disc(u, v, 0.0, 0.6, length * (0.85 + 0.3 * grain), 0.34), _shaded(dice.colour(WOOL), curls)
    nod = dice.real(0.3, 0.9)  # grazing or looking up
    yield _disc(u, v, length + 0.05, nod, 0.18, 0.15), face


def person(dice: Dice, u: np.ndarray, v: np.ndarray, grain: np.ndarray, blobs: np.ndarray) -> Layers:
    """A person who stands or strides."""
    stride, lean = dice.real(0.0, 0.12), dice.real(-0.08, 0.08)
    u = u - lean * v
    skin, trousers, shirt = dice.colour(SKIN), dice.colour(CLOTHES), dice.colour(CLOTHES)
    spread = stride * (0.5 - v) * 2
    for side in (-1, 1):
        yield (abs(u - side * (0.06 + spread)) < 0.065) & (v >= 0) & (v < 0.5), trousers * 0.8
    for side in (-1, 1):
        reach = dice.real(0.0, 0.2)
        yield (abs(u - side * (0.15 + reach * (0.8 - v))) < 0.045) & (v > 0.45) & (v < 0.8), skin
    yield _box(u, v, -0.15, 0.15, 0.44, 0.82), _shaded(shirt, 0.85 + 0.3 * grain)
    yield _disc(u, v, 0.0, 0.9, 0.12, 0.12), skin
    yield _disc(u, v, 0.0, 0.97, 0.11, 0.06), dice.colour(TRUNKS)


def sign(dice: Dice, u: np.ndarray, v: np.ndarray, grain: np.ndarray, blobs: np.ndarray) -> Layers:
    """A round, square or triangular plate on a pole."""
    yield _box(u, v, -0.03, 0.03, 0.0, 0.8), dice.colour(FENCES)
    cosine, sine = dice.rotation(0.12)
    radius = dice.real(0.18, 0.28)
    a, b = (u * cosine + (v - 0.74) * sine) / radius, ((v - 0.74) * cosine - u * sine) / radius
    shape = dice.pick(("round", "square", "triangle"))
    rim, plate = dice.colour(PLATES), dice.colour(PLATES)
    for size, colour in ((1.0, rim), (dice.real(0.5, 0.8), plate)):
        if shape == "round":
            mask = a * a + b * b < size * size
        elif shape == "square":
            mask = (abs(a) < 0.9 * size) & (abs(b) < 0.9 * size)
        else:
            mask = (b > -0.7 * size) & (abs(a) * 1.7 + b < size)
        yield mask, _shaded(colour, 0.92 + 0.12 * grain)


def thing(dice: Dice, u: np.ndarray, v: np.ndarray, grain: np.ndarray, blobs: np.ndarray) -> Layers:
    """Something without a name: it is labelled void."""
    half, period = dice.real(0.2, 0.9), dice.real(0.2, 0.5)
    body = _disc(u, v, 0.0, 0.45, half, 0.5) if dice.chance(0.5) else _box(u, v, -half, half, 0.0, 0.9)
    yield body, _shaded(dice.colour(CLOTHES, 40), 0.8 + 0.4 * blobs)
    yield body & _stripes(u + dice.real(-1, 1) * v, period, 0.4), dice.colour(CLOTHES, 40)
