"""Colours for classes that bring none."""


def colour_map(number: int) -> list[tuple[int, int, int]]:
    """The first colours of Pascal VOC's map, up to 256 and all different.

    Bits 0, 1 and 2 of the class id become the highest bit of red, green and blue, bits 3 to 5 the next, and
    so on, so that neighbouring ids look different.
    """
    colours = []
    for index in range(number):
        channels = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                channels[channel] |= (index >> (3 * bit + channel) & 1) << (7 - bit)
        colours.append((channels[0], channels[1], channels[2]))
    return colours
