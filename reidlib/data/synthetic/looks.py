"""The constant looks of a person: proportions, skin, hair, garments, bag; head and bag as capsules."""

from __future__ import annotations

import numpy as np

from reidlib.data.synthetic.bodies import CapsuleGroup, Surface, point
from reidlib.data.synthetic.factors import Factors
from reidlib.data.synthetic.repeatable import RandomStreams

PLAIN, HOOPS, LINES, CHECKS, PRINT, OPEN, YOKE = range(7)
BUZZ, SHORT, MEDIUM, LONG, BUN, CAP, BEANIE = range(7)
TROUSERS, SHORTS, SKIRT = range(3)
NO_BAG, BACKPACK, SHOULDER_BAG, HANDBAG = range(4)


def _colour(draws: RandomStreams, name: str, palette: str, spread: float) -> np.ndarray:
    base = draws.colour(name, palette)
    tone = draws.bell(f"{name}/tone")[:, None]
    tint = np.stack([draws.bell(f"{name}/{channel}") for channel in ("red", "green", "blue")], -1)
    return np.clip(base * (1 + 0.16 * spread * tone) + 0.03 * spread * tint, 0.03, 0.96)


class Look:
    """Constant looks of N identities, which are the keys of ``draws``; all fields are (N,) or (N, 3)."""

    def __init__(self, draws: RandomStreams, factors: Factors) -> None:
        variety, spread = factors.body_variety, factors.palette_spread
        womanly = draws.uniform("figure")
        dressed = womanly > 0.5
        skirt_odds = np.where(dressed, 0.30, 0.0)
        kind_draw = draws.uniform("bottom kind")
        legged = np.where(kind_draw > 0.84, SHORTS, TROUSERS)
        self.bottom_kind = np.where(kind_draw < skirt_odds, SKIRT, legged)
        women = draws.pick("style of women", (1, 10, 24, 34, 20, 5, 6))
        men = draws.pick("style of men", (20, 48, 10, 3, 2, 11, 6))
        self.style = np.where(dressed, women, men)
        top = _colour(draws, "top", "tops", spread)
        trim = _colour(draws, "trim", "tops", spread)
        # The pattern would be invisible if its colour were close to the garment's.
        close = np.abs(trim - top).max(-1) < 0.18
        luminous = top.max(-1) > 0.45
        trim = np.where(close[:, None], np.where(luminous[:, None], top * 0.35, top * 0.6 + 0.4), trim)
        self.top, self.trim = top, top + (trim - top) * factors.pattern
        bag = draws.pick("bag kind", (45, 30, 25)) + 1
        self.height = 1.72 + variety * (0.075 * draws.bell("height") + 0.05 * (0.5 - womanly))
        self.girth = np.clip(1 + variety * 0.13 * (draws.bell("girth") + 0.2), 0.78, 1.5)
        self.shoulders = 1 + variety * (0.05 * draws.bell("shoulders") + 0.10 * (0.5 - womanly))
        self.hips = 1 + variety * (0.05 * draws.bell("hips") - 0.10 * (0.5 - womanly))
        self.leg_share = 0.50 + variety * 0.012 * draws.bell("legs")
        self.skin = _colour(draws, "skin", "skins", 0.6)
        self.hair = _colour(draws, "hair", "hairs", 0.8)
        self.pattern = draws.pick("pattern", (36, 15, 7, 9, 16, 10, 7))
        self.frequency = 1.0 / draws.uniform("stripe period", 0.07, 0.17)
        self.stripe_share = draws.uniform("stripe share", 0.3, 0.6)
        self.print_side = draws.uniform("print width", 0.05, 0.11)
        self.print_half = draws.uniform("print height", 0.04, 0.10)
        self.sleeve = draws.pick("sleeve", (52, 8, 30, 10))
        self.hem = draws.uniform("hem", 0.02, 0.15)
        self.coat = draws.chance("coat", 0.14)
        self.hood = draws.chance("hood", 0.14)
        self.bottom = _colour(draws, "bottom", "bottoms", spread)
        self.bottom_length = draws.uniform("bottom length")
        self.tights = draws.chance("tights", 0.4)
        self.shoes = _colour(draws, "shoes", "shoes", spread)
        self.bag = np.where(draws.chance("bag", factors.bag_share), bag, NO_BAG)
        self.bag_colour = _colour(draws, "bag colour", "bags", spread)
        self.bag_size = draws.uniform("bag size", 0.85, 1.2)
        self.bag_side = np.where(draws.chance("bag side", 0.5), 1.0, -1.0)
        self.offset = np.floor(draws.uniform("cloth", 0.0, 64.0))


def top_surface(
    look: Look, cloth, *, down: np.ndarray | float = 0.0, printed: bool = False, **options
) -> Surface:
    """Return the garment's pattern on a capsule that begins ``down`` metres below the chest."""
    hoops = (look.pattern == HOOPS) | (look.pattern == CHECKS)
    lines = (look.pattern == LINES) | (look.pattern == CHECKS)
    yoke = look.pattern == YOKE
    open_front = look.pattern == OPEN
    if printed:
        options["print_side"] = np.where(
            look.pattern == PRINT, look.print_side, np.where(open_front, 0.055, -1.0)
        )
        options["print_half"] = np.where(open_front, 9.0, look.print_half)
    return Surface(
        look.top,
        second=look.trim,
        along_frequency=np.where(yoke, 0.0, look.frequency),
        along_phase=np.where(yoke, 0.5, look.frequency * down),
        along_share=np.where(hoops, look.stripe_share, -1.0),
        side_frequency=look.frequency,
        side_phase=0.5 * look.stripe_share,
        side_share=np.where(lines, look.stripe_share, -1.0),
        mixing=np.where(look.pattern == CHECKS, 0.5, 1.0),
        print_centre=0.03 - down,
        offset=look.offset + 13,
        **cloth,
        **options,
    )


def add_head(group: CapsuleGroup, look: Look) -> None:
    """Add neck, head, and hair or headgear."""
    tall = look.height
    crown = tall - 0.082

    def add(start, end, radius, surface: Surface, **options) -> None:
        group.add(point(0.0, *start), point(0.0, *end), radius, surface, **options)

    add((0.815 * tall, -0.012), (0.885 * tall, 0.0), (0.058, 0.052), Surface(look.skin * 0.92))
    add((crown - 0.078, 0.018), (crown, 0.004), (0.066, 0.080), Surface(look.skin), shades=True)
    hair = Surface(look.hair, fold=0.22, weave=0.16, offset=look.offset)
    styles = (BUZZ, SHORT, MEDIUM, LONG, BUN, CAP, BEANIE)
    buzz, short, medium, long, bun, cap, beanie = (look.style == style for style in styles)
    size = np.where(buzz, 0.080, np.where(short, 0.087, 0.091))
    add((crown + 0.010, -0.014), (crown - 0.035, -0.026), (size, size * 0.90), hair, present=~(cap | beanie))
    add((crown - 0.03, -0.032), (crown - 0.105, -0.030), (0.080, 0.066), hair, present=medium | long)
    end = 0.80 * tall - 0.10 * look.bottom_length
    add((crown - 0.02, -0.034), (end, -0.098), (0.086, 0.070), hair, flatness=0.75, present=long)
    add((crown + 0.005, -0.105), (crown - 0.02, -0.110), (0.045, 0.045), hair, present=bun)
    hat = Surface(np.where(cap[:, None], look.trim, look.bag_colour), weave=0.06)
    add((crown + 0.018, -0.004), (crown - 0.004, -0.010), (0.084, 0.090), hat, present=cap | beanie)
    peak = {"flatness": 0.22, "front": (0.0, 1.0, 0.0)}
    add((crown + 0.004, 0.05), (crown - 0.010, 0.125), (0.065, 0.050), hat, present=cap, **peak)


def add_bags(group: CapsuleGroup, look: Look, hands, chest, hip_y, cloth) -> None:
    """Add a backpack, shoulder bag or handbag with its straps."""
    tall, size = look.height, look.bag_size
    chest_y, depth = chest
    leather = {"fold": cloth["fold"] * 0.6, "weave": cloth["weave"], "offset": look.offset}
    bag = Surface(
        look.bag_colour, second=look.bag_colour * 0.6, along_frequency=4.0, along_share=0.12, **leather
    )
    strap = Surface(look.bag_colour * 0.8)
    pack, slung, carried = (look.bag == kind for kind in (BACKPACK, SHOULDER_BAG, HANDBAG))
    behind = -(depth + 0.075 * size)
    start, end = point(0.0, chest_y + 0.01, behind), point(0.0, chest_y - 0.20 * size, behind - 0.015)
    group.add(start, end, (0.125 * size, 0.145 * size), bag, flatness=0.66, present=pack)
    for side in (-1.0, 1.0):
        over = point(side * 0.098, 0.822 * tall, 0.020)
        under = point(side * 0.110, chest_y - 0.10, depth + 0.002)
        group.add(over, under, (0.022, 0.019), strap, present=pack)
    side = look.bag_side
    sideways = (1.0, 0.0, 0.0)
    hip_side = side * (0.175 + 0.05 * (look.girth - 1))
    start, end = point(hip_side, hip_y + 0.06, -0.06 * size), point(hip_side, hip_y + 0.04, 0.08 * size)
    radii = (0.105 * size, 0.105 * size)
    group.add(start, end, radii, bag, flatness=0.42, front=sideways, present=slung)
    for face in (-1.0, 1.0):
        neck = point(-side * 0.07, 0.835 * tall, face * 0.035)
        middle = point(side * 0.0, chest_y - 0.06, face * depth)
        hip = point(side * 0.165, hip_y + 0.12, face * 0.05)
        for start, end in ((neck, middle), (middle, hip)):
            group.add(start, end, (0.017, 0.017), strap, present=slung)
    hand = np.where((side > 0)[:, None], hands[:, 1], hands[:, 0])
    group.add(hand, hand + point(0.0, -0.10, 0.0), (0.010, 0.010), strap, present=carried)
    start, end = (hand + point(0.0, -0.17 * size, 0.0) + point(0.0, 0.0, z) for z in (-0.05, 0.05))
    radii = (0.098 * size, 0.098 * size)
    group.add(start, end, radii, bag, flatness=0.40, front=sideways, present=carried)
