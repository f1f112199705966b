"""A model and images to the features that ranking compares."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reidlib.data.augmentation import normalise
from reidlib.data.images import ImageStore
from reidlib.data.splits import Split
from reidlib.ranking.distances import full_float32
from reidlib.ranking.metrics import Embeddings


@torch.inference_mode()
def embed(model: nn.Module, images: ImageStore, *, batch_size: int = 128) -> Tensor:
    """Features of all images of a store: ``(N, D)`` float32 on the CPU.

    The model's ``embed`` is run in evaluation mode, in float32 whatever it was trained in, so that the
    scores of a run do not depend on what the machine that evaluates it is good at. Its mode is restored.
    """
    training = model.training
    model.eval()
    try:
        order = torch.arange(len(images)).split(batch_size)
        features = None
        with full_float32(images.device):
            for indices_b, images_bchw in zip(order, images.batches(order), strict=True):
                features_bd = model.embed(normalise(images_bchw))
                if features is None:
                    features = torch.empty(len(images), features_bd.shape[1])
                features[indices_b] = features_bd.float().cpu()
        return features
    finally:
        model.train(training)


def embed_split(model: nn.Module, split: Split, images: ImageStore) -> Embeddings:
    """The features of a split with its identities and cameras; ``images`` holds the split's images."""
    return Embeddings(embed(model, images), split.person_ids, split.camera_ids)
