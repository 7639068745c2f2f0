"""``--trainer.strategy sharded``: FSDP2, by Lightning's ModelParallelStrategy. Every GPU keeps a part of each U-Net's
weights, averages and optimizer state, and has the weights of one block whole while it computes with them. Checkpoints
are single files, as without it."""

from pathlib import Path
from typing import Any

import torch
from diffusers import ModelMixin
from lightning.pytorch.strategies import ModelParallelStrategy, StrategyRegistry
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict, set_optimizer_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FullyShardedDataParallel, MixedPrecisionPolicy, OptimStateKeyType, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from vcgen.errors import UserError

NAME = "sharded"
WHOLE = StateDictOptions(full_state_dict=True)
OTHER_OPTIMIZER = (
    "optimizer is of another trainer.strategy or model.optimizer; go on with the same, "
    "or `vcgen export` it and give --model.pretrained FOLDER"
)


class Sharded(ModelParallelStrategy):
    """Shards over all processes of all nodes; one checkpoint file, written by the first process."""

    def __init__(self, **arguments: Any):
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False, **arguments)

    def setup_environment(self) -> None:
        """All processes share the data's work, none a layer's."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Every process reads the whole file and keeps its part."""
        assert self.model is not None, "Lightning gives it before it loads"
        checkpoint: dict[str, Any] = self.checkpoint_io.load_checkpoint(checkpoint_path)
        set_model_state_dict(self.model, checkpoint["state_dict"], options=WHOLE)
        for optimizer, stored in zip(self.optimizers, checkpoint.get("optimizer_states", []), strict=False):
            if len(stored["param_groups"]) != len(optimizer.param_groups):
                raise UserError(f"{checkpoint_path}: its {OTHER_OPTIMIZER}")
            named = FullyShardedDataParallel.rekey_optim_state_dict(stored, OptimStateKeyType.PARAM_NAME, self.model)
            set_optimizer_state_dict(self.model, optimizer, named, options=WHOLE)
        return checkpoint


StrategyRegistry.register(
    NAME, Sharded, description="FSDP2: each process keeps a part of the U-Nets' weights and optimizer state"
)


def shard(system: nn.Module, mesh: DeviceMesh, reduced: bool) -> None:
    """Shard all U-Nets of a system, block by block. Its small networks stay whole in every process.

    reduced: gather weights in bfloat16; gradients are averaged in float32 either way. Raises UserError where there is
        no U-Net.
    """
    policy = MixedPrecisionPolicy(torch.bfloat16 if reduced else None, torch.float32, cast_forward_inputs=False)
    networks = [
        module for module in system.modules() if isinstance(module, ModelMixin) and hasattr(module, "down_blocks")
    ]
    if not networks:
        raise UserError("trainer.strategy sharded: this model has no U-Net to shard; use ddp")
    for network in networks:
        for block in [*network.down_blocks, network.mid_block, *network.up_blocks]:
            fully_shard(block, mesh=mesh, mp_policy=policy)
        # Also after the last layer: between forward passes all weights are parts, as averages and checkpoints expect
        # them.
        fully_shard(network, mesh=mesh, mp_policy=policy, reshard_after_forward=True)


def whole(value: Tensor) -> Tensor:
    """The tensor put together, on the CPU where it was sharded. Every process must call it."""
    return value.full_tensor().cpu() if isinstance(value, DTensor) else value


def placed_like(value: Tensor, model: Tensor) -> Tensor:
    """``value`` on the device, and sharded as, ``model`` is. Every process must have it whole."""
    if not isinstance(model, DTensor) or isinstance(value, DTensor):
        return value.to(model.device)
    return distribute_tensor(value.to(model.device), model.device_mesh, model.placements, src_data_rank=None)
