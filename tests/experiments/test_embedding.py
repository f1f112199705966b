"""Embedding keeps the order of the images and the state of the model."""

import numpy as np
import torch

from reidlib.data.images import ImageStore
from reidlib.experiments.embedding import embed
from reidlib.models.jlml import JLML


def store(count=7) -> ImageStore:
    pixels = np.random.default_rng(0).integers(0, 255, (count, 32, 16, 3), dtype=np.uint8)
    return ImageStore(pixels, torch.device("cpu"))


def test_features_come_in_the_order_of_the_images_whatever_the_batch():
    model = JLML(3, width=0.125, parts=2)
    whole = embed(model, store())
    torch.testing.assert_close(embed(model, store(), batch_size=2), whole)
    assert whole.shape == (7, 1024)
    assert whole.dtype == torch.float32
    assert whole.norm(dim=1).sub(2**0.5).abs().max() < 1e-5  # two branches of unit length


def test_the_model_is_left_as_it_was():
    model = JLML(3, width=0.125, parts=2).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    embed(model, store())
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_autocast_and_training_mode_around_it_change_nothing():
    model = JLML(3, width=0.125, parts=2).eval()
    expected = embed(model, store())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(embed(model.train(), store()), expected)
