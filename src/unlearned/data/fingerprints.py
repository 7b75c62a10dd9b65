"""Content hashes: what is equal has the same name, on every machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def as_bytes(value: Any) -> bytes:
    """Bytes that identify a value of a sample: type, shape and content."""
    if isinstance(value, torch.Tensor):
        flat = value.detach().cpu().contiguous().flatten()
        return f"{value.dtype}{tuple(value.shape)}".encode() + flat.view(torch.uint8).numpy().tobytes()
    if isinstance(value, np.ndarray | np.generic):
        return f"{value.dtype}{value.shape}".encode() + np.ascontiguousarray(value).tobytes()
    return repr(value).encode()


def of_tensors(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over named tensors, such as a state dict."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode() + b"\0" + as_bytes(tensor))
    return digest.hexdigest()


def of_json(value: Any) -> str:
    """SHA-256 over settings and the like; what JSON lacks is taken as its text."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
