"""A miniature of CUHK03's public files, in the layout of MATLAB and of the new protocol's authors."""

import h5py
import numpy as np
from scipy.io import savemat

PERSONS_OF_PAIRS = (3, 2, 1, 1, 1)
# (pair, person) of each test set, as rows of MATLAB's list.
TEST_SETS = (((1, 1), (2, 2), (4, 1)), ((1, 3), (3, 1), (1, 1)), ((5, 1), (2, 1), (1, 2)))
# Empty cells by kind and (pair, person): also between images, and one person in one view only.
EMPTY = {
    "labeled": {(1, 1): (2, 5, 6), (1, 2): (4, 5, 9, 10), (3, 1): (1, 2, 3, 4, 5)},
    "detected": {(1, 1): (1, 10), (2, 2): (3, 4, 5, 7, 8, 9, 10)},
}


def picture(kind, pair, person, slot):
    """Return an image (H, W, 3) with unique content and size, higher than wide."""
    seed = ("labeled", "detected").index(kind) * 10_000 + pair * 1000 + person * 100 + slot
    height, width = 12 + slot, 5 + person
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def filled(kind):
    """Return (pair, person, slot) of every image of a kind, in order."""
    return [
        (pair, person, slot)
        for pair, persons in enumerate(PERSONS_OF_PAIRS, 1)
        for person in range(1, persons + 1)
        for slot in range(1, 11)
        if slot not in EMPTY[kind].get((pair, person), ())
    ]


def official_name(pair, person, slot):
    """Return an image's name in the lists of the new protocol."""
    return f"{pair}_{person:03d}_{1 if slot <= 5 else 2}_{slot:02d}.png"


def write_archive(path, *, test_sets=TEST_SETS, persons=PERSONS_OF_PAIRS, show=picture, empty=EMPTY):
    """Write ``cuhk-03.mat`` in version 7.3: cells of references, reversed axes, marked empty cells."""
    with h5py.File(path, "w", userblock_size=512) as file:
        refs = file.create_group("#refs#")

        def cell(content, matlab_class, **storage):
            data = refs.create_dataset(f"r{len(refs)}", data=content, **storage)
            data.attrs["MATLAB_class"] = np.bytes_(matlab_class)
            return data.ref

        def cells(references_nm):
            return np.array(references_nm, dtype=h5py.ref_dtype).T

        def image(kind, pair, person, slot):
            if slot in empty[kind].get((pair, person), ()):
                reference = cell(np.zeros(2, np.uint64), "double")
                refs[refs[reference].name].attrs["MATLAB_empty"] = np.uint8(1)
                return reference
            return cell(show(kind, pair, person, slot).T, "uint8", compression="gzip", chunks=True)

        for kind in ("detected", "labeled"):
            pairs = [
                cell(
                    cells(
                        [[image(kind, pair, one, slot) for slot in range(1, 11)] for one in range(1, n + 1)]
                    ),
                    "cell",
                )
                for pair, n in enumerate(persons, 1)
            ]
            file.create_dataset(kind, data=cells([[one] for one in pairs]))
            file[kind].attrs["MATLAB_class"] = np.bytes_("cell")
        sets = [cell(np.array(rows, dtype=np.float64).T, "double") for rows in test_sets]
        file.create_dataset("testsets", data=cells([[one] for one in sets]))
        file["testsets"].attrs["MATLAB_class"] = np.bytes_("cell")
    with path.open("r+b") as stream:
        header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Tue Mar 25 2014 HDF5 schema 1.00 ."
        stream.write(header.ljust(124) + b"\x00\x02IM")


# Ids of the new protocol's test persons; all others are for training.
NEW_TEST = (1, 4, 7)


def new_lists(kind):
    """Return the content of the authors' file of one kind: a query of each view for each test person."""
    images = filled(kind)
    before = np.cumsum([0, *PERSONS_OF_PAIRS])
    labels = np.array([before[pair - 1] + person for pair, person, _ in images])
    cameras = np.array([1 if slot <= 5 else 2 for _, _, slot in images])
    tested = np.isin(labels, NEW_TEST)
    first = [
        np.flatnonzero((labels == person_id) & (cameras == view))[0]
        for person_id in NEW_TEST
        for view in (1, 2)
    ]
    query = np.isin(np.arange(len(images)), first)
    names = np.empty((len(images), 1), dtype=object)
    names[:, 0] = [official_name(*image_id) for image_id in images]
    return {
        "filelist": names,
        "labels": labels[:, None].astype(np.uint16),
        "camId": cameras[:, None].astype(np.uint8),
        "train_idx": np.flatnonzero(~tested)[:, None].astype(np.uint16) + 1,
        "query_idx": np.flatnonzero(query)[:, None].astype(np.uint16) + 1,
        "gallery_idx": np.flatnonzero(tested & ~query)[:, None].astype(np.uint16) + 1,
    }


def write_lists(folder, kind, **changed):
    """Write ``cuhk03_new_protocol_config_….mat`` of one kind in version 5."""
    savemat(folder / f"cuhk03_new_protocol_config_{kind}.mat", {**new_lists(kind), **changed})
