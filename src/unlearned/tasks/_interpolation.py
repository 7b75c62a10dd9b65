"""Between two tensors, along the sphere: what lies between two draws of noise is again such a draw, and so are other vectors whose length means something."""

from __future__ import annotations

import torch
from torch import Tensor

_STRAIGHT = 1e-4
"""Below this sine of the angle the arc is straight, to rounding, or there is none: opposite vectors have no shortest arc."""


def slerp(a: Tensor, b: Tensor, u: float | Tensor) -> Tensor:
    """Spherical interpolation sin((1−u)Ω)/sin Ω · a + sin(uΩ)/sin Ω · b, where Ω is the angle between a and b (Shoemake 1985).

    Each sample is one vector, whatever its shape. Lengths are not re-scaled; of equal lengths every point has the same. u = 0 gives a, u = 1 gives b. Where
    sin Ω is below 10⁻⁴, or a vector is 0, the result is (1−u) a + u b. Ω is 2 atan2(‖â − b̂‖, ‖â + b̂‖), which cannot leave [0, π] by rounding as the arc
    cosine's argument can leave [−1, 1], and keeps its digits at small angles.

    Args:
        a: (B, ...).
        b: the same shape.
        u: in [0, 1], one for all or (B,).
    """
    flat = [x.flatten(1) for x in (a, b)]
    units = [x / x.norm(dim=1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny) for x in flat]
    angle = 2 * torch.atan2((units[0] - units[1]).norm(dim=1), (units[0] + units[1]).norm(dim=1))
    share = torch.as_tensor(u, dtype=a.dtype, device=a.device).expand(len(a))
    straight = (angle.sin() < _STRAIGHT) | torch.stack([x.norm(dim=1) == 0 for x in flat]).any(dim=0)
    sine = torch.where(straight, 1.0, angle.sin())
    weights = [torch.where(straight, part, (part * angle).sin() / sine) for part in (1 - share, share)]
    mixed: Tensor = weights[0][:, None] * flat[0] + weights[1][:, None] * flat[1]
    return mixed.reshape(a.shape)
