"""The choice of the norms that are adapted."""

from __future__ import annotations

import re

from ..errors import BundleError
from ..model import ModelInfo

# Of a block, whether transformer (`blocks.3.norm1`) or bottleneck (`layer2.0.bn1`): its first two norms.
_NORM = re.compile(r"(blocks\.\d+)\.norm[12]|(layer\d+\.\d+)\.bn[12]")


def select_norms(info: ModelInfo, first: int, frozen_last: int, user: str) -> tuple[str, ...]:
    """Return the names of the first two norms of each block, from `first` to before the last `frozen_last`.

    Of ViT-B these are blocks 1 to 8, of ResNet-50 all but the first block of layer1 and the three of layer4.
    In a shallow network fewer last blocks are left out, so that one block at least is adapted.

    >>> from fozo.testing import StandInNetwork
    >>> select_norms(StandInNetwork().info, first=1, frozen_last=3, user="example")
    ('blocks.1.norm1', 'blocks.1.norm2')

    Raises:
        BundleError: there are none.
    """
    blocks = {name: match[1] or match[2] for name in info.norms if (match := _NORM.fullmatch(name))}
    order = list(dict.fromkeys(blocks.values()))
    if order and order[0].startswith("blocks."):  # those without tunable norms count as well
        order = [f"blocks.{index}" for index in range(info.blocks)]
    adapted = order[first : max(first + 1, len(order) - frozen_last)]
    names = tuple(name for name, block in blocks.items() if block in adapted)
    if not names:
        raise BundleError(
            f"{user} adapts the first two norms of blocks from block {first} on, and finds none among the "
            f"tunable norms of {info.name}: {', '.join(info.norms) or 'none'}; lower first_block, or export "
            "the model again"
        )
    return names
