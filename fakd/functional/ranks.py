"""The processes that train together."""

import torch.distributed as dist


def num_ranks() -> int:
    """Size of the process group; 1 without one."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
