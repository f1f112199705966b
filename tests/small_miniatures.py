"""Miniatures of the small benchmarks, in the exact layout of their archives."""

import numpy as np
from miniature import write_image
from scipy.io import savemat

# Four persons, one of them without one of the images; the numbers have a gap.
CUHK01_PERSONS = (1, 2, 5, 970)
CUHK01_NAMES = tuple(
    f"{person:04}{index:03}.png"
    for person in CUHK01_PERSONS
    for index in (1, 2, 3, 4)
    if (person, index) != (5, 3)
)
# Numbers begin with 0 and have gaps; the angles of a person's two images differ.
VIPER_NAMES = {
    "cam_a": ("000_45.bmp", "003_0.bmp", "004_180.bmp", "873_90.bmp"),
    "cam_b": ("000_90.bmp", "003_135.bmp", "004_0.bmp", "873_45.bmp"),
}
# The first distractor is seen by the camera of the first probe.
GRID_NAMES = {
    "probe": (
        "0001_1_25004_107_32_106_221.jpeg",
        "0002_5_25005_12_30_100_220.jpeg",
        "0003_2_25006_13_31_101_210.jpeg",
        "0004_8_25007_14_30_102_215.jpeg",
    ),
    "gallery": (
        "0000_1_25023_116_134_128_330.jpeg",
        "0000_3_25024_101_20_90_200.jpeg",
        "0001_2_25008_15_30_100_222.jpeg",
        "0002_4_25009_16_30_100_223.jpeg",
        "0003_6_25010_17_30_100_224.jpeg",
        "0004_7_25011_18_30_100_225.jpeg",
    ),
}
GRID_TRAINING = ((1, 3), (2, 4), (3, 4))


def write_cuhk01(root):
    _write(root / "campus", CUHK01_NAMES, size=(16, 6))
    return root


def write_viper(root):
    for number, (folder, names) in enumerate(VIPER_NAMES.items()):
        _write(root / folder, names, size=(16, 6), seed=200 * number)
    return root


def write_grid(root):
    for number, (folder, names) in enumerate(GRID_NAMES.items()):
        _write(root / folder, names, size=(16, 6), seed=200 * number)
    (root / "correspondence.txt").write_text("The list of gallery images\n")
    write_grid_mat(root / "features_and_partitions.mat", GRID_TRAINING)
    return root


def write_grid_mat(path, training, fields=("probeImIdx", "galleryImIdx", "personIdx"), **options):
    """Write the file of the partitions and features in the structure of MATLAB's file."""
    persons = range(1, 5)
    savemat(
        path,
        {
            "ftrset": np.arange(600.0).reshape(10, 60),
            "testIdxAll": _cells([[p for p in persons if p not in trained] for trained in training], fields),
            "trainIdxAll": _cells(training, fields),
        },
        **options,
    )


def _cells(persons_of, fields):
    cells = np.empty((1, len(persons_of)), dtype=object)
    for trial, persons in enumerate(persons_of):
        # Gallery images are the odd rows of the features, probes the even ones.
        persons = np.array([persons], dtype=np.float64)
        cells[0, trial] = dict(zip(fields, (2 * persons, 2 * persons - 1, persons), strict=True))
    return cells


def _write(folder, names, size, seed=0):
    folder.mkdir(parents=True)
    (folder / "Thumbs.db").write_bytes(b"not an image")
    (folder / f"._{names[0]}").write_bytes(b"not an image either")
    for index, name in enumerate(names):
        write_image(folder / name, size=size, seed=seed + index)
