"""Pedestrians as capsules, from a look and a pose.

Body coordinates are in metres: the feet are at y = 0, y is up, z is forward, x points to the person's left.
Proportions are shares of the height by the usual canon of eight heads.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from reidlib.data.synthetic.bodies import CapsuleGroup, Surface, point
from reidlib.data.synthetic.factors import Factors
from reidlib.data.synthetic.looks import SHORTS, SKIRT, TROUSERS, YOKE, Look, add_bags, add_head, top_surface
from reidlib.data.synthetic.repeatable import RandomStreams, cosine, sine


class Pose:
    """Poses of N images, which are the keys of ``draws``: angles in radians, (N, 2) for right and left."""

    def __init__(self, draws: RandomStreams, factors: Factors) -> None:
        phase = draws.uniform("gait phase", 0.0, 6.283185307179586)
        step = draws.uniform("gait step", 0.30, 0.50) * factors.gait
        standing = draws.chance("standing", factors.standing_share)
        step = np.where(standing, 0.12 * step, step)
        legs = np.stack([phase, phase + 3.141592653589793], -1)
        swing, lift = sine(legs), cosine(legs)
        step = step[:, None]
        arm = -swing * step * 0.9
        elbow = 0.15 + 0.35 * np.maximum(-swing, 0.0) * step / 0.4
        # One person in eight bends an arm, for example to hold a telephone or a strap.
        busy = draws.chance("busy arm", 0.12)
        right = draws.chance("busy side", 0.5)
        bent = busy[:, None] & np.stack([right, ~right], -1)
        spread = np.stack([draws.uniform("arm spread right"), draws.uniform("arm spread left")], -1)
        self.thigh = swing * step + 0.03
        self.knee = 0.05 + step * (0.35 + 1.0 * np.maximum(lift, 0.0) * (swing < 0.9))
        self.arm = np.where(bent, 0.35, arm)
        self.elbow = np.where(bent, 1.9, elbow)
        self.spread = 0.07 + 0.10 * spread


def pedestrian(look: Look, pose: Pose, factors: Factors, image: np.ndarray) -> CapsuleGroup:
    """Build N people in body coordinates, the lowest sole on the ground, in the images ``image`` (N,)."""
    group = CapsuleGroup(image)
    cloth = {"fold": 0.16 * factors.texture, "weave": 0.07 * factors.texture}
    tall = look.height
    hip_y, shoulder_y = look.leg_share * tall, 0.805 * tall

    feet = _legs(group, look, pose, hip_y, cloth)
    chest = _torso(group, look, hip_y, cloth)
    hands = _arms(group, look, pose, shoulder_y, cloth)
    add_head(group, look)
    add_bags(group, look, hands, chest, hip_y, cloth)

    lowest = feet.min(-1)
    group.stand(np.zeros_like(tall), np.ones_like(tall), point(0.0, -lowest, 0.0))
    return group


def _legs(group: CapsuleGroup, look: Look, pose: Pose, hip_y, cloth) -> np.ndarray:
    """Add thighs, shins and shoes; return the heights of both soles (N, 2)."""
    # A narrow skirt allows only short steps.
    ease = np.where(look.bottom_kind == SKIRT, 0.62, 1.0)
    length = hip_y - 0.045
    bare = np.where(look.tights[:, None], 0.12, look.skin)
    trousers = look.bottom_kind == TROUSERS
    shorts = look.bottom_kind == SHORTS
    upper = np.where((look.bottom_kind == SKIRT)[:, None], bare, look.bottom)
    lower = np.where(trousers[:, None], look.bottom, np.where(shorts[:, None], look.skin, bare))
    # End of shorts on the thigh and of trousers on the shin.
    upper_cut = np.where(shorts, (0.55 + 0.4 * look.bottom_length) * 0.5 * length, 9.0)
    lower_cut = np.where(trousers, (0.80 + 0.25 * look.bottom_length) * 0.5 * length, 9.0)
    upper_surface = Surface(upper, end=look.skin, end_from=upper_cut, offset=look.offset, **cloth)
    lower_surface = Surface(lower, end=look.skin, end_from=lower_cut, offset=look.offset + 7, **cloth)
    shoe = Surface(look.shoes, weave=0.05)
    wide, flesh = np.where(trousers, 1.0, 0.9), 0.4 + 0.6 * look.girth
    calf = (0.056 * wide * flesh, np.where(trousers, 0.047, 0.036))
    soles = []
    for leg, side in ((0, -1.0), (1, 1.0)):
        thigh = ease * pose.thigh[:, leg]
        shin = thigh - ease * pose.knee[:, leg]
        hip = point(side * 0.083 * look.hips * look.girth, hip_y, 0.0)
        knee = hip + (0.50 * length)[:, None] * point(-0.015 * side, -cosine(thigh), sine(thigh))
        ankle = knee + (0.50 * length)[:, None] * point(-0.02 * side, -cosine(shin), sine(shin))
        group.add(
            hip, knee, (0.083 * look.girth * look.hips, 0.058 * wide * flesh), upper_surface, shades=True
        )
        group.add(knee, ankle, calf, lower_surface, shades=True)
        # The foot is flat while the leg carries weight, and follows the shin while it swings behind.
        tilt = np.minimum(shin + 0.25, 0.0) * 0.9 + np.maximum(shin - 0.15, 0.0) * 0.6
        heel = ankle + point(0.0, -0.012, -0.03)
        toe = heel + point(side * 0.03, sine(tilt) * 0.17, cosine(tilt) * 0.17)
        group.add(heel, toe, (0.047, 0.040), shoe, flatness=0.85, front=(0.0, 1.0, 0.0), shades=True)
        soles.append(np.minimum(heel[:, 1] - 0.040, toe[:, 1] - 0.034))
    return np.stack(soles, -1)


def _torso(group: CapsuleGroup, look: Look, hip_y, cloth) -> tuple[np.ndarray, np.ndarray]:
    """Add chest, belly, hips, shoulders, skirt or coat; return the chest's height and depth, (N,) each."""
    tall = look.height
    chest_y, waist_y, pelvis_y = 0.735 * tall, 0.625 * tall, hip_y + 0.045
    chest_r = 0.162 * look.shoulders * (0.55 + 0.45 * look.girth)
    waist_r = 0.136 * look.girth
    pelvis_r = 0.148 * look.hips * (0.4 + 0.6 * look.girth)
    thin = np.clip(0.56 + 0.22 * (look.girth - 1) + 0.04, 0.5, 0.85)
    chest, waist, pelvis = (point(0.0, y, 0.0) for y in (chest_y, waist_y, pelvis_y))
    down = chest_y - waist_y
    yoke = look.pattern == YOKE
    surface = top_surface(look, cloth, printed=True, end=look.trim, end_from=np.where(yoke, 0.06, 9.0))
    group.add(chest, waist, (chest_r, waist_r), surface, flatness=thin, shades=True)
    lower_top = look.top + (look.trim - look.top) * yoke[:, None]
    surface = top_surface(look, cloth, down=down, printed=True, end=look.bottom, end_from=look.hem)
    group.add(waist, pelvis, (waist_r, pelvis_r), replace(surface, base=lower_top), flatness=thin + 0.02)
    shoulder = 0.100 * look.shoulders * tall
    shoulder_y = 0.805 * tall
    neck, surface = (
        point(0.0, shoulder_y + 0.028, -0.005),
        Surface(look.top, offset=look.offset + 13, **cloth),
    )
    for side in (-1.0, 1.0):
        end = point(side * shoulder, shoulder_y, -0.005)
        group.add(neck, end, (0.055, 0.058 * (0.6 + 0.4 * look.girth)), surface)
    skirt = look.bottom_kind == SKIRT
    skirt_cloth = {**cloth, "fold": cloth["fold"] * 1.5}  # deeper folds than a sleeve's
    surface = Surface(look.bottom, offset=look.offset + 21, **skirt_cloth)
    start, end = point(0.0, waist_y - 0.02, 0.0), point(0.0, hip_y * (0.62 - 0.38 * look.bottom_length), 0.01)
    radii = (waist_r * 1.02, pelvis_r * (1.20 + 0.30 * look.bottom_length))
    group.add(start, end, radii, surface, flatness=thin + 0.24, present=skirt, hollow=True)
    surface = replace(top_surface(look, cloth, down=down, printed=True), base=lower_top)
    radii, coat = (waist_r * 1.06, pelvis_r * 1.18), look.coat & ~skirt
    end = point(0.0, hip_y * 0.78, 0.0)
    group.add(waist, end, radii, surface, flatness=thin + 0.14, present=coat, hollow=True)
    start, end = point(0.0, shoulder_y + 0.050, -0.055), point(0.0, shoulder_y - 0.045, -0.100)
    surface = Surface(look.top * 0.85, offset=look.offset, **cloth)
    group.add(start, end, (0.068, 0.045), surface, present=look.hood)
    return chest_y, chest_r * thin


def _hanging(side: float, away: np.ndarray, forward: np.ndarray) -> np.ndarray:
    """Return the direction (N, 3) of a hanging limb, turned away from the body and forward."""
    return point(side * sine(away), -cosine(away) * cosine(forward), cosine(away) * sine(forward))


def _arms(group: CapsuleGroup, look: Look, pose: Pose, shoulder_y, cloth) -> np.ndarray:
    """Add upper arms, forearms and hands; return the positions of the hands (N, 2, 3)."""
    tall = look.height
    shoulder_x = 0.106 * look.shoulders * tall
    upper, fore = 0.172 * tall, 0.150 * tall
    thick = 0.55 + 0.45 * look.girth
    short, none = look.sleeve == 2, look.sleeve == 3
    upper_from = np.where(none, 0.02, np.where(short, 0.62 * upper, 9.0))
    fore_from = np.where(short | none, -1.0, np.where(look.sleeve == 1, 0.45 * fore, 9.0))
    hands = []
    for arm, side in ((0, -1.0), (1, 1.0)):
        away, swing = pose.spread[:, arm], pose.arm[:, arm]
        bend = swing + pose.elbow[:, arm]
        shoulder = point(side * shoulder_x, shoulder_y - 0.012, -0.005)
        elbow = shoulder + upper[:, None] * _hanging(side, away, swing)
        inward = away * 0.2 - 0.12 * (pose.elbow[:, arm] > 1.0)
        wrist = elbow + fore[:, None] * _hanging(side, inward, bend)
        surface = top_surface(look, cloth, down=-0.07, end=look.skin, end_from=upper_from)
        group.add(shoulder, elbow, (0.056 * thick, 0.044 * thick), surface)
        surface = top_surface(look, cloth, down=upper - 0.07, end=look.skin, end_from=fore_from)
        group.add(elbow, wrist, (0.043 * thick, 0.033 * thick), surface)
        reach = (wrist - elbow) / fore[:, None]
        start, end = wrist + 0.02 * reach, wrist + 0.085 * reach
        group.add(start, end, (0.036, 0.030), Surface(look.skin), flatness=0.7, front=(1.0, 0.0, 0.0))
        hands.append(wrist + 0.055 * reach)
    return np.stack(hands, 1)
