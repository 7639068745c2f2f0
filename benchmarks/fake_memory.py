"""The memory that tensors take, fake ones and true ones alike."""

import math
import weakref

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

#: PyTorch's allocator hands out multiples of this, bytes.
BLOCK = 512


class Allocated(TorchDispatchMode):
    """The most bytes that the tensors of a device take at a time, of those that are made inside."""

    def __init__(self, device: str):
        super().__init__()
        self.device, self.now, self.peak, self.known = device, 0, 0, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.device.type == self.device:
                self.add(tensor.untyped_storage())
        return result

    def add(self, storage: torch.UntypedStorage) -> None:
        """Count a storage from now on until nothing refers to it."""
        key, size = storage._cdata, math.ceil(storage.nbytes() / BLOCK) * BLOCK
        if key in self.known:
            return
        self.known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self.remove, key, size).atexit = False

    def remove(self, key: int, size: int) -> None:
        """Its memory is free again."""
        self.known.discard(key)
        self.now -= size


class Released:
    """Lets go of what the forward pass saved for an operation's gradient once that was computed, as autograd's engine
    does. A context for the forward and the backward pass.
    """

    def __enter__(self) -> "Released":
        self.opened: list[list[Tensor]] = []
        self.hooks = torch.autograd.graph.saved_tensors_hooks(lambda tensor: [tensor], self.open)
        self.hooks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.hooks.__exit__(*error)

    def open(self, saved: list[Tensor]) -> Tensor:
        """What was saved; noted to be let go of."""
        self.opened.append(saved)
        return saved[0]

    def release(self) -> None:
        """After an operation's gradient."""
        for saved in self.opened:
            saved.clear()
        self.opened.clear()
