"""A layer for every part of the body, all parts as one batched product."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PartLinear(nn.Module):
    """A linear layer for each part, all at once: ``(B, P, C) -> (B, P, D)``.

    ``weight`` is ``(P, D, C)``, ``bias`` ``(P, D)`` or None. Whoever builds it sets both: they come
    uninitialised, since the two papers start them differently.
    """

    def __init__(self, parts: int, inputs: int, outputs: int, *, bias: bool):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(parts, outputs, inputs))
        self.bias = nn.Parameter(torch.empty(parts, outputs)) if bias else None

    def forward(self, inputs_bpc: Tensor) -> Tensor:
        # The weight comes first, so that its gradient has its own layout and is not copied once more.
        inputs_pcb = inputs_bpc.permute(1, 2, 0)
        if self.bias is None:
            outputs_pdb = torch.bmm(self.weight, inputs_pcb)
        else:
            outputs_pdb = torch.baddbmm(self.bias.unsqueeze(2), self.weight, inputs_pcb)
        return outputs_pdb.permute(2, 0, 1)
