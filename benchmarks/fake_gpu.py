"""Training and rendering as if on a CUDA device, on a machine that has none, by PyTorch's fake tensors: they know
devices, shapes and types, and no values.

  with FakeGpu() as gpu:
      system, example = build().to("cuda"), make_example().to("cuda")
      gpu.waits.clear()
      backward(sum(system.losses(example, torch.Generator("cuda")).values()))
  print(gpu.waits)

Operations that mix devices raise. Places where the CPU waits for the GPU are counted. Kernels are not run, so nothing
is said about speed, nor about what a kernel itself refuses.
"""

import contextlib
import heapq
import itertools
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from lightning.fabric.utilities.device_dtype_mixin import _DeviceDtypeModuleMixin
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.function import BackwardCFunction
from torch.utils._python_dispatch import TorchDispatchMode

from vcgen import __file__ as package

aten = torch.ops.aten
#: They ask a GPU for one number.
SCALARS = (aten._local_scalar_dense.default, aten.is_nonzero.default, aten.equal.default)
#: The shape of what they return is known to the GPU alone.
COUNTED = (aten.nonzero.default, aten.masked_select.default)
#: PyTorch's draws that take a generator.
DRAWS = ("rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial")


class FakeGenerator:
    """Stands for ``torch.Generator``, which is not to be had for "cuda" without a driver."""

    def __init__(self, device: torch.device | str = "cpu"):
        self.device = torch.device("cuda", 0) if torch.device(device).type == "cuda" else torch.device("cpu")

    def manual_seed(self, seed: int) -> "FakeGenerator":
        """Nothing: no value is drawn."""
        return self


class Waits(TorchDispatchMode):
    """Counts the calls that make the CPU wait until a GPU has done all that was asked of it, by the line of vcgen that
    makes them.

    A copy between the two that is not ``non_blocking`` is one, in either direction. Numbers that are asked for are
    answered by ``answer``, conditions by False, so that the run goes on; of what is chosen by values the
    fraction ``kept`` is.
    """

    def __init__(self, answer: float, kept: float):
        super().__init__()
        self.answer, self.kept, self.places = answer, kept, Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in SCALARS or func in COUNTED:
            if args[0].device.type == "cuda":
                self.note(func)
            return self.counted(func, args[0]) if func in COUNTED else self.scalar(func, args[0])
        if func in (aten._to_copy.default, aten.copy_.default):
            self.note_copy(func, args, kwargs)
        return func(*args, **kwargs)

    def scalar(self, func: object, asked: Tensor) -> bool | int | float:
        """The answer to a question for one number."""
        if func is not aten._local_scalar_dense.default or asked.dtype == torch.bool:
            return False
        return float(self.answer) if asked.is_floating_point() else int(self.answer)

    def counted(self, func: object, asked: Tensor) -> Tensor:
        """Places, or values, of a tensor."""
        count = int(self.kept * asked.numel())
        if func is aten.nonzero.default:
            return asked.new_empty((count, asked.ndim), dtype=torch.int64)
        return asked.new_empty((count,))

    def note_copy(self, func: object, args: tuple, kwargs: dict) -> None:
        """A copy between devices."""
        source = args[0] if func is aten._to_copy.default else args[1]
        into = kwargs.get("device") or source.device if func is aten._to_copy.default else args[0].device
        waits = not (kwargs.get("non_blocking") or (args[2:] and args[2]))
        if waits and source.device.type != torch.device(into).type:
            self.note(func)

    def note(self, func: object) -> None:
        """One more wait at the innermost line of vcgen, or of a library below ``elsewhere``."""
        self.places[place() + " " + str(func).removeprefix("aten.").split(".")[0]] += 1


def place() -> str:
    """File and name, as "rendering/volume.py render_image", of the innermost function of vcgen that runs."""
    root = str(Path(package).parent) + "/"
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename.startswith(root):
            return f"{frame.f_code.co_filename.removeprefix(root)} {frame.f_code.co_qualname}"
        frame = frame.f_back
    return "elsewhere"


class FakeGpu:
    """A context in which tensors are fake and a device "cuda:0" exists.

    waits: calls by "file function operation", counted as :class:`Waits` does.
    """

    def __init__(self, answer: float = 1, kept: float = 1.0):
        self.mode, self.counter = FakeTensorMode(allow_non_fake_inputs=True), Waits(answer, kept)

    @property
    def waits(self) -> Counter:
        """How often each place has waited."""
        return self.counter.places

    def __enter__(self) -> "FakeGpu":
        self.stack = contextlib.ExitStack()
        for name in DRAWS:
            self.replace(torch, name, without_generator(getattr(torch, name)))
        self.replace(torch, "Generator", FakeGenerator)
        # autocast is left out where there is no driver
        self.replace(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
        self.replace(torch.cuda, "is_bf16_supported", lambda: True)
        self.replace(torch.cuda, "current_device", lambda: 0)
        self.stack.enter_context(self.mode)
        self.stack.enter_context(self.counter)
        return self

    def __exit__(self, *error: object) -> None:
        self.stack.__exit__(*error)

    def replace(self, module: object, name: str, by: object) -> None:
        """Something else in a module's place until the context ends."""
        self.stack.callback(setattr, module, name, getattr(module, name))
        setattr(module, name, by)


def to_gpu(module: nn.Module, dtype: torch.dtype | None = None, device: str = "cuda") -> nn.Module:
    """``module.to(device, dtype)``, which of fake weights is refused: weights are replaced, those that are shared by
    the same.
    """
    moved: dict[int, nn.Parameter] = {}
    for part in module.modules():
        for name, weight in part._parameters.items():
            if weight is not None and id(weight) not in moved:
                new = nn.Parameter(weight.detach().to(device, dtype, copy=True), weight.requires_grad)
                moved |= {id(weight): new, id(new): new}
            part._parameters[name] = weight if weight is None else moved[id(weight)]
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = buffer.to(device, dtype if buffer.is_floating_point() else None, copy=True)
        if isinstance(part, _DeviceDtypeModuleMixin):
            part._device = torch.device(device, 0) if device == "cuda" else torch.device(device)
    return module


def without_generator(draw: Callable) -> Callable:
    """A function of PyTorch that draws, and does not pass a stand-in on."""

    def call(*args, generator: object = None, **kwargs):
        if isinstance(generator, FakeGenerator) or generator is None:
            return draw(*args, **kwargs)
        return draw(*args, generator=generator, **kwargs)

    return call


@torch.no_grad()
def backward(loss: Tensor, after: Callable[[], None] = lambda: None) -> None:
    """``loss.backward()`` without autograd's engine, which asks for a driver: gradients are added to leaves.

    Like the engine, the last operation of the forward pass goes first. Hooks of tensors are not called. after: called
    after each operation.
    """
    start = loss.grad_fn
    missing = Counter(following for node in nodes(start) for following, _ in node.next_functions)
    given: dict[object, dict[int, Tensor]] = {start: {loss.output_nr: torch.ones_like(loss)}}
    ticket = itertools.count()
    ready = [(0, next(ticket), start)]
    while ready:
        node = heapq.heappop(ready)[-1]
        found = outputs(node, given.pop(node, {}))
        after()
        for (following, number), gradient in zip(node.next_functions, found, strict=True):
            if following is None:
                continue
            if gradient is not None:
                sums, gradient = given.setdefault(following, {}), fitted(gradient, following._input_metadata[number])
                sums[number] = gradient if number not in sums else sums[number] + gradient
            missing[following] -= 1
            if not missing[following]:
                last = -following._sequence_nr()
                heapq.heappush(ready, (last, next(ticket), following))
        found = gradient = sums = None  # what nobody waits for takes no memory while the next one works


def nodes(start: object) -> Iterator[object]:
    """Every node of a graph, once."""
    seen, waiting = {start}, [start]
    while waiting:
        node = waiting.pop()
        yield node
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                waiting.append(following)


def outputs(node: object, given: dict[int, Tensor]) -> tuple[Tensor | None, ...]:
    """A node's gradients of its inputs; where it ends in a leaf, the gradient is added to the leaf's."""
    if not given:
        return (None,) * len(node.next_functions)
    if hasattr(node, "variable"):
        leaf, gradient = node.variable, given[0]
        leaf.grad = gradient if leaf.grad is None else leaf.grad + gradient
        return ()
    inputs = [
        given[number] if number in given else torch.zeros(tuple(like.shape), dtype=like.dtype, device=like.device)
        for number, like in enumerate(node._input_metadata)
    ]
    found = node.apply(*inputs) if isinstance(node, BackwardCFunction) else node(*inputs)
    # a function written in Python has gradients of numbers, too: None, after those of the tensors
    return found[: len(node.next_functions)] if isinstance(found, tuple) else (found,)


def fitted(gradient: Tensor, like: object) -> Tensor:
    """A gradient as the operation expects it and the engine hands it over: summed over what was broadcast."""
    return gradient.sum_to_size(tuple(like.shape)).to(like.dtype)
