"""The names of classes, whose places are their ids."""

from collections.abc import Sequence


def check_order(expected: Sequence[str], found: Sequence[str], source: str) -> None:
    """Refuses the same classes in another order, where an id would mean something else.

    Args:
        expected: names of the training's classes.
        found: of another source's.
        source: named in the error.

    Raises:
        ValueError: they are the same and in another order.
    """
    if sorted(expected) != sorted(found) or list(expected) == list(found):
        return
    place = next(i for i, (own, other) in enumerate(zip(expected, found, strict=True)) if own != other)
    raise ValueError(
        f"{source} has the classes of DATASETS.TRAIN in another order: class {place} is '{found[place]}' "
        f"there and '{expected[place]}' in the training. Give both one order."
    )
