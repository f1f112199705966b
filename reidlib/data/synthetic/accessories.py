"""Head, hair and headgear, and bags, as capsules on a body."""

from __future__ import annotations

import numpy as np

from reidlib.data.synthetic.bodies import Parts, Surface, point
from reidlib.data.synthetic.looks import (
    BACKPACK,
    BEANIE,
    BUN,
    BUZZ,
    CAP,
    HANDBAG,
    LONG,
    MEDIUM,
    SHORT,
    SHOULDER_BAG,
    Look,
)


def head(parts: Parts, who: Look, there) -> None:
    """Neck, head, hair or headgear."""
    tall = who.height
    crown = tall - 0.082
    zero = np.zeros_like(tall)

    def at(y, z, x=zero):
        return point(x, y, z)

    neck = Surface(who.skin * 0.92)
    parts.add(at(0.815 * tall, -0.012), at(0.885 * tall, 0.0), (0.058, 0.052), neck, present=there)
    parts.add(
        at(crown - 0.078, 0.018),
        at(crown, 0.004),
        (0.066, 0.080),
        Surface(who.skin),
        present=there,
        shades=True,
    )
    hair = Surface(who.hair, fold=0.22, weave=0.16, offset=who.offset)
    style = who.style
    hatted = (style == CAP) | (style == BEANIE)
    size = np.where(style == BUZZ, 0.080, np.where(style == SHORT, 0.087, 0.091))
    parts.add(
        at(crown + 0.010, -0.014),
        at(crown - 0.035, -0.026),
        (size, size * 0.90),
        hair,
        present=there & ~hatted,
    )
    parts.add(
        at(crown - 0.03, -0.032),
        at(crown - 0.105, -0.030),
        (0.080, 0.066),
        hair,
        present=there & ((style == MEDIUM) | (style == LONG)),
    )
    end = 0.80 * tall - 0.10 * who.bottom_length
    parts.add(
        at(crown - 0.02, -0.034),
        at(end, -0.098),
        (0.086, 0.070),
        hair,
        flatness=0.75,
        present=there & (style == LONG),
    )
    parts.add(
        at(crown + 0.005, -0.105),
        at(crown - 0.02, -0.110),
        (0.045, 0.045),
        hair,
        present=there & (style == BUN),
    )
    hat = Surface(np.where((style == CAP)[:, None], who.trim, who.bag_colour), weave=0.06)
    parts.add(
        at(crown + 0.018, -0.004), at(crown - 0.004, -0.010), (0.084, 0.090), hat, present=there & hatted
    )
    parts.add(
        at(crown + 0.004, 0.05),
        at(crown - 0.010, 0.125),
        (0.065, 0.050),
        hat,
        flatness=0.22,
        front=(0.0, 1.0, 0.0),
        present=there & (style == CAP),
    )


def bags(parts: Parts, who: Look, hands, chest, hip_y, cloth, there) -> None:
    """Backpack, shoulder bag or handbag with straps."""
    tall, size = who.height, who.bag_size
    chest_y, depth = chest
    zero = np.zeros_like(tall)
    bag = Surface(
        who.bag_colour,
        second=who.bag_colour * 0.6,
        along_frequency=4.0,
        along_share=0.12,
        fold=cloth["fold"] * 0.6,
        weave=cloth["weave"],
        offset=who.offset,
    )
    strap = Surface(who.bag_colour * 0.8)
    pack = there & (who.bag == BACKPACK)
    behind = -(depth + 0.075 * size)
    parts.add(
        point(zero, chest_y + 0.01, behind),
        point(zero, chest_y - 0.20 * size, behind - 0.015),
        (0.125 * size, 0.145 * size),
        bag,
        flatness=0.66,
        present=pack,
    )
    for side in (-1.0, 1.0):
        over = point(side * 0.098, 0.822 * tall, 0.020)
        parts.add(
            over, point(side * 0.110, chest_y - 0.10, depth + 0.002), (0.022, 0.019), strap, present=pack
        )
    side = who.bag_side
    slung = there & (who.bag == SHOULDER_BAG)
    hip_side = side * (0.175 + 0.05 * (who.girth - 1))
    parts.add(
        point(hip_side, hip_y + 0.06, -0.06 * size),
        point(hip_side, hip_y + 0.04, 0.08 * size),
        (0.105 * size, 0.105 * size),
        bag,
        flatness=0.42,
        front=(1.0, 0.0, 0.0),
        present=slung,
    )
    for face in (-1.0, 1.0):
        parts.add(
            point(-side * 0.07, 0.835 * tall, face * 0.035),
            point(side * 0.0, chest_y - 0.06, face * depth),
            (0.017, 0.017),
            strap,
            present=slung,
        )
        parts.add(
            point(side * 0.0, chest_y - 0.06, face * depth),
            point(side * 0.165, hip_y + 0.12, face * 0.05),
            (0.017, 0.017),
            strap,
            present=slung,
        )
    carried = there & (who.bag == HANDBAG)
    hand = np.where((side > 0)[:, None], hands[:, 1], hands[:, 0])
    drop = point(zero, -0.17 * size, zero)
    parts.add(hand, hand + point(zero, -0.10, zero), (0.010, 0.010), strap, present=carried)
    parts.add(
        hand + drop + point(zero, zero, -0.05),
        hand + drop + point(zero, zero, 0.05),
        (0.098 * size, 0.098 * size),
        bag,
        flatness=0.40,
        front=(1.0, 0.0, 0.0),
        present=carried,
    )
