"""Features of made-up persons, the same numbers on every machine and in Octave."""

import numpy as np

PERSONS, TEST_PERSONS = 24, 6


def numbers(first: int, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers from 0 to 1 that look random: squares of whole numbers, modulo a prime."""
    index = np.arange(first, first + int(np.prod(shape)), dtype=np.int64)
    return ((index * index * 7919 + index * 104729) % 10007 / 10007).reshape(shape)


def images(persons: int, length: int, *, first: int = 1, cameras: int = 2, shots: int = 1):
    """Return features, persons and cameras; ``first`` is the first person's number."""
    person_ids = np.repeat(np.arange(first, first + persons), cameras * shots)
    camera_ids = np.tile(np.repeat(np.arange(1, cameras + 1), shots), persons)
    own = numbers(17, (100, length))[person_ids]
    noise = numbers(500_000 + 1000 * first * length, (len(person_ids), length))
    camera = numbers(900_000, (10, length))[camera_ids]
    return own + 0.7 * noise + 0.3 * camera, person_ids, camera_ids
