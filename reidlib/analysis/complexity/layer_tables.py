"""Layer tables that JLML-ResNet39 may have had, and which of them fit its printed size.

The slides print 39 layers, 5 streams, 7.2 M parameters and 1.54e9 FLOPs, but no layer table. The depths
3, 4, 2 and 3, widths that double from stage to stage, and images of 224×224 are recalled, not confirmed. They
are fixed here, and so are four stripes and features of 512; ``CHOICES`` has what varies. Run as

    python -m reidlib.analysis.complexity.layer_tables
"""

from __future__ import annotations

from itertools import product

import pandas as pd

from reidlib.analysis.benchmark_tables import published_row

DEPTHS = (3, 4, 2, 3)
CHOICES = {
    "stem kernel": (3, 7),  # its convolution has stride 2: a map of 112×112
    "stem channels": (16, 32, 64),
    "shared stages": (0, 1),  # of the four, before the streams divide
    # Rows and columns of a local map, relative to a quarter of the global map. For (1, 1), a max-pool ends
    # the stem. For the others there is none, the first stage has stride 2, and the local streams keep a
    # resolution that the global stream halves.
    "local map": ((1, 1), (2, 1), (2, 2)),
    "width": (16, 24, 32, 40, 48, 56, 64),  # of the 3×3 convolutions in the global stream's first stage
    "local width": (0.25, 0.5, 1.0),  # relative to the global stream's
    "expansion": (2, 4),
    "stride on": ("1×1", "3×3"),
    "local feature": ("stripe", "joined"),  # 512/4 values from each stripe, or 512 from all stripes together
}
# The operations printed for known networks differ by up to 7 % from torchvision's (notebook 41), so that an
# exact match is not to be expected.
PARAMETER_TOLERANCE, OPERATION_TOLERANCE = 0.02, 0.05
_STEM_SIZE, _FEATURE, _STREAMS = 112, 512, 4


Size = tuple[int, int]  # rows and columns


def _stages(
    depths: tuple[int, ...], width: int, inputs: int, size: Size, stride: Size, table: dict
) -> tuple[int, int, int, Size]:
    """Return parameters, multiply-adds, output channels and map size of one stream's stages."""
    parameters = multiply_adds = 0
    for depth in depths:
        outputs = width * table["expansion"]
        for block_stride in (stride, *[(1, 1)] * (depth - 1)):
            before = size[0] * size[1]
            size = -(-size[0] // block_stride[0]), -(-size[1] // block_stride[1])
            after = size[0] * size[1]
            first, others = inputs * width, 9 * width * width + width * outputs
            parameters += first + others + 2 * (2 * width + outputs)  # batch norm has two for each channel
            multiply_adds += first * (after if table["stride on"] == "1×1" else before) + others * after
            if block_stride != (1, 1) or inputs != outputs:  # the shortcut is a convolution
                parameters += inputs * outputs + 2 * outputs
                multiply_adds += inputs * outputs * after
            inputs = outputs
        width, stride = 2 * width, (2, 2)
    return parameters, multiply_adds, inputs, size


def count(table: dict) -> tuple[int, int]:
    """Return parameters and multiply-adds, without the classifiers, of a choice for each of ``CHOICES``."""
    channels, shared, finer = table["stem channels"], table["shared stages"], table["local map"]
    kernel = 3 * table["stem kernel"] ** 2 * channels
    parameters, multiply_adds = kernel + 2 * channels, kernel * _STEM_SIZE**2
    pooled = finer == (1, 1)
    size, stride = (_STEM_SIZE // (1 + pooled), _STEM_SIZE // (1 + pooled)), (2 - pooled, 2 - pooled)
    width, local_width = table["width"], round(table["width"] * table["local width"])
    if shared:
        stage = _stages(DEPTHS[:1], width, channels, size, stride, table)
        parameters, multiply_adds = parameters + stage[0], multiply_adds + stage[1]
        (channels, size), stride = stage[2:], (2, 2)
        width, local_width = 2 * width, 2 * local_width
    local_stride = max(1, stride[0] // finer[0]), max(1, stride[1] // finer[1])
    stripe = size[0] // _STREAMS, size[1]
    whole = _stages(DEPTHS[shared:], width, channels, size, stride, table)
    local = _stages(DEPTHS[shared:], local_width, channels, stripe, local_stride, table)
    inputs = local[2] if table["local feature"] == "stripe" else _STREAMS * local[2]
    features = _FEATURE * (whole[2] + inputs)
    parameters += whole[0] + _STREAMS * local[0] + features + 2 * 2 * _FEATURE  # with their batch norms
    return parameters, multiply_adds + whole[1] + _STREAMS * local[1] + features


def enumerate_tables() -> pd.DataFrame:
    """Return all layer tables, a row each: the choices, ``parameters`` and ``multiply-adds``."""
    tables = [dict(zip(CHOICES, choice, strict=True)) for choice in product(*CHOICES.values())]
    counts = pd.DataFrame(map(count, tables), columns=["parameters", "multiply-adds"])
    return pd.DataFrame(tables).join(counts)


def fitting_tables() -> tuple[pd.DataFrame, str]:
    """Return the tables that fit the printed row with two operations each, and all counts in a sentence."""
    printed = published_row("complexity", model="JLML-ResNet39")
    tables = enumerate_tables()
    near = tables.query(f"abs(parameters / {printed['params_million']}e6 - 1) <= {PARAMETER_TOLERANCE}")
    as_one, as_two = (
        near.query(f"abs({each} * `multiply-adds` / {printed['FLOPs']} - 1) <= {OPERATION_TOLERANCE}")
        for each in (1, 2)
    )
    size, operations = printed["params_million"], printed["FLOPs"]
    sentence = (
        f"Of {len(tables):,} layer tables, {len(near)} have {size} M parameters within "
        f"{100 * PARAMETER_TOLERANCE:.0f} %. {len(as_one) or 'None'} of these has {operations} multiply-adds "
        f"within {100 * OPERATION_TOLERANCE:.0f} %: the most are {near['multiply-adds'].max() / 1e9:.2f}e9. "
        f"{len(as_two)} have {operations} operations if a multiplication and an addition count as two."
    )
    return as_two, sentence


if __name__ == "__main__":
    fitting, summary = fitting_tables()
    print(summary, fitting.to_string(index=False), sep="\n")
