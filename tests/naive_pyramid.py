"""Pyramid as a loop over branches with the names of its public code, to write checkpoints as that code does.

Written from the description of the layers; the trunk is torchvision's.
"""

import torch
import torchvision
from torch import nn
from torch.nn import functional as F

STRIPES = 6


class NaivePyramid(nn.Module):
    """All parts of six stripes, fine to coarse, and a second set of branches without use.

    The trunk is ``base`` in its authors' code and ``resnet`` in YouReID.
    """

    def __init__(self, trunk="base", layers="resnet50", classes=5, size=8):
        super().__init__()
        network = getattr(torchvision.models, layers)(weights=None)
        network.layer4[0].conv2.stride = network.layer4[0].downsample[0].stride = (1, 1)
        del network.fc, network.avgpool
        self.trunk = trunk
        setattr(self, trunk, network)
        self.parts = [
            (first, first + level) for level in range(1, STRIPES + 1) for first in range(STRIPES - level + 1)
        ]
        for index, channels in enumerate((2048, 1024)):
            convolutions = [
                nn.Sequential(nn.Conv2d(channels, size, 1), nn.BatchNorm2d(size), nn.ReLU())
                for _ in self.parts
            ]
            setattr(self, f"pyramid_conv_list{index}", nn.ModuleList(convolutions))
            classifiers = [nn.Linear(size, classes) for _ in self.parts]
            setattr(self, f"pyramid_fc_list{index}", nn.ModuleList(classifiers))

    def forward(self, images):
        trunk = getattr(self, self.trunk)
        maps = trunk.maxpool(trunk.relu(trunk.bn1(trunk.conv1(images))))
        maps = trunk.layer4(trunk.layer3(trunk.layer2(trunk.layer1(maps))))
        rows = maps.shape[2] // STRIPES
        features, logits = [], []
        for (first, stop), convolution, classifier in zip(
            self.parts, self.pyramid_conv_list0, self.pyramid_fc_list0, strict=True
        ):
            part = maps[:, :, first * rows : stop * rows]
            pooled = part.mean((2, 3), keepdim=True) + part.amax((2, 3), keepdim=True)
            features.append(convolution(pooled).flatten(1))
            logits.append(classifier(features[-1]))
        return features, logits

    def test_feature(self, images):
        """The feature that the code compares at test."""
        features = self(images)[0]
        if self.trunk == "base":  # Euclidean distance of the plain concatenation
            return torch.cat(features, 1)
        # YouReID: cosine distance of the concatenation of unit vectors.
        return F.normalize(torch.cat([F.normalize(feature) for feature in features], 1))


def random_pyramid(**arguments):
    """A network whose layers, running statistics and counters all have random values."""
    generator = torch.Generator().manual_seed(0)
    model = NaivePyramid(**arguments).eval()
    for name, tensor in model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            tensor.fill_(7)
        elif tensor.dim() > 1:  # convolutions, as He et al.
            tensor.normal_(std=(2 / tensor[0].numel()) ** 0.5, generator=generator)
        elif name.endswith("bn3.weight"):  # small, so that a deep trunk's maps are of the order of one
            tensor.uniform_(0.1, 0.2, generator=generator)
        elif name.endswith(("running_var", ".weight")):
            tensor.uniform_(0.5, 1.0, generator=generator)
        else:
            tensor.uniform_(-0.2, 0.2, generator=generator)
    return model


def empty_state(trunk="base", layers="resnet50", classes=5, size=8):
    """A state of the right names and shapes whose file is small: each tensor is one number, repeated."""
    with torch.device("meta"):
        state = NaivePyramid(trunk, layers, classes, size).state_dict()
    return {
        name: torch.zeros(1, dtype=tensor.dtype).expand(tensor.shape) if tensor.dim() else torch.tensor(7)
        for name, tensor in state.items()
    }
