"""Attention across channels: its cost grows with the pixels, not with their square.

Zamir et al., 'Restormer: Efficient Transformer for High-Resolution Image Restoration', 2022
(arXiv:2111.09881), section 3.1, there called transposed attention. Written from the paper; the
names of parameters are those of the published weights of Restormer and KBNet-L.

What differs: norms, temperature and softmax are always taken in fp32 (or fp64), because the sum of
a page's squares is beyond fp16's largest number.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kbdenoise.models.layers import widened


class ChannelAttention(nn.Module):
    """Mix the channels of every head by the similarity of its queries and keys.

    queries, keys and values [B, C, H, W], temperature [heads, 1, 1] -> [B, C, H, W] in the type of
    the values. For channels i and j of one head, seen as vectors of H * W numbers,

        out_i = sum_j softmax_j(temperature * cos(query_i, key_j)) * value_j

    It has no parameters of its own, to be hooked or swapped.
    """

    def forward(self, query: Tensor, key: Tensor, value: Tensor, temperature: Tensor) -> Tensor:
        """Mix the values."""
        heads = temperature.shape[0]
        q, k, v = (_split(x, heads) for x in (query, key, value))
        q, k = (F.normalize(widened(x), dim=-1) for x in (q, k))
        similarity = q @ k.transpose(-2, -1)  # [B, heads, C/heads, C/heads]
        shares = (widened(similarity) * temperature).softmax(-1)
        shares = shares if shares.dtype == v.dtype else shares.to(v.dtype)
        mixed = shares @ v  # [B, heads, C/heads, H*W]
        return mixed.reshape(value.shape)


class TransposedAttention(nn.Module):
    """Channel attention between two 1x1 convolutions, with a depthwise 3x3 for the surroundings.

    [B, c, H, W] -> [B, c, H, W]; `heads` divides `c`.
    """

    def __init__(self, c: int, *, heads: int, bias: bool) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(c, 3 * c, 1, bias=bias)
        self.qkv_dwconv = nn.Conv2d(3 * c, 3 * c, 3, padding=1, groups=3 * c, bias=bias)
        self.attention = ChannelAttention()
        self.project_out = nn.Conv2d(c, c, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Attend."""
        query, key, value = self.qkv_dwconv(self.qkv(x)).chunk(3, dim=1)  # [B, c, H, W] each
        return self.project_out(self.attention(query, key, value, self.temperature))


def _split(x: Tensor, heads: int) -> Tensor:
    """[B, C, H, W] -> [B, heads, C/heads, H*W]."""
    batch, channels, height, width = x.shape
    return x.reshape(batch, heads, channels // heads, height * width)
