"""What varies between the images of the embedded benchmark: every cause as one number."""

from __future__ import annotations

from dataclasses import dataclass, fields

from reidlib.errors import InputError

# The largest value that still renders something recognisable; the smallest is 0 except where named below.
_LARGEST = {
    "pattern": 1.0,
    "turned_share": 1.0,
    "standing_share": 1.0,
    "bag_share": 1.0,
    "box_jitter": 0.5,
    "box_scale_error": 0.5,
    "occlusion_share": 1.0,
    "other_people_share": 1.0,
    "clutter": 4.0,
    "shadow": 1.0,
    "yaw_spread": 3.2,
}


def largest_value(factor: str) -> float:
    """The upper end of a factor's range."""
    return _LARGEST.get(factor, 3.0)


@dataclass(frozen=True)
class Factors:
    """Strength of each cause of variation; 0 switches a cause off, and no cause moves another's draws.

    Raises InputError for a value out of range, so that an experiment with a slip of the keyboard stops
    before it renders.
    """

    num_cameras: int = 6
    """Market-1501 has six; with fewer the cross-camera question becomes easier."""
    yaw_spread: float = 0.7
    """Radians around the street's direction: how differently a camera sees people turned."""
    turned_share: float = 0.25
    """Share of people who walk the street the other way: front seen by one camera, back by another."""
    gait: float = 1.0
    """Length of the steps and swing of the arms; 0 is everybody standing with arms hanging."""
    standing_share: float = 0.2
    """Share of images in which the person stands: cities hold people who wait."""
    palette_spread: float = 1.0
    """Spread of garment colours around the ten common ones: small makes people harder to tell apart."""
    pattern: float = 1.0
    """Contrast of stripes, checks, prints: the details that a histogram of the whole cannot use."""
    bag_share: float = 0.5
    """Share of people with a bag, which changes the outline and hides the back or a side."""
    body_variety: float = 1.0
    """Spread of height, girth and proportions between people."""
    camera_colour: float = 1.0
    """White balance and colour matrix of each camera: why colours alone do not carry across cameras."""
    camera_gain: float = 1.0
    """Exposure differences between cameras."""
    camera_gamma: float = 1.0
    """Differences of the tone curve between cameras."""
    camera_blur: float = 1.0
    """Softness of each camera's lens and motion."""
    camera_noise: float = 1.0
    """Sensor noise."""
    camera_pitch: float = 1.0
    """How high the cameras hang: looks down on people, and near ones more than far ones."""
    light_change: float = 1.0
    """Exposure and colour of the light from image to image in one camera: clouds, time of day."""
    sun: float = 1.0
    """Strength of directed light against light from the whole sky; 0 is an overcast day everywhere."""
    box_jitter: float = 0.06
    """Shift of the detector's box, in box heights (one deviation): what alignment has to cope with."""
    box_scale_error: float = 0.06
    """Error of the detector's box size, relative (one deviation)."""
    occlusion_share: float = 0.15
    """Share of images with something standing in front of the person."""
    other_people_share: float = 0.2
    """Share of images with another person partly in the box."""
    clutter: float = 1.0
    """Number of things in the background: parked bicycles, bins, signs, bushes."""
    shadow: float = 0.6
    """Darkness of shadows, on the ground and of limbs on the body."""
    texture: float = 1.0
    """Folds and weave of cloth, leaves of bushes."""

    def __post_init__(self) -> None:
        if not isinstance(self.num_cameras, int) or not 2 <= self.num_cameras <= 16:
            raise InputError(
                "num_cameras is a whole number from 2 to 16: a query needs a match from another camera",
                repr(self.num_cameras),
                "choose for example 6",
            )
        for field in fields(self):
            if field.name == "num_cameras":
                continue
            value, largest = getattr(self, field.name), largest_value(field.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= largest:
                raise InputError(
                    f"the factor {field.name} is a number from 0 to {largest:g}",
                    repr(value),
                    f"the default is {field.default:g}",
                )
