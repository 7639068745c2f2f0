"""What a U-Net of several levels needs of its sizes, said by the names of the options."""

from collections.abc import Sequence

#: Channels that diffusers' group normalization shares a mean over, in all of our U-Nets.
GROUPS = 16
#: Channels of an attention head.
HEAD = 32


def check_levels(
    name: str, size: int, patch: int, channels: Sequence[int], attention: Sequence[bool] | None, heads: bool = True
) -> None:
    """Raises ValueError unless a U-Net on cells of ``patch`` x ``patch`` pixels fits images of side ``size``, an option
    called ``name``.

    channels: its widths, finest level first. attention: whether each level attends; None: as the U-Net itself decides.
        heads: whether
    attention has heads of HEAD channels, which a level must then have at least.
    """
    if not channels:
        raise ValueError("channels is empty; give the width of at least one level")
    if attention is not None and len(attention) != len(channels):
        raise ValueError(f"attention has {len(attention)} entries, channels {len(channels)}; give one per level")
    if odd := [width for width in channels if width % GROUPS]:
        raise ValueError(f"channels must be multiples of {GROUPS}; {odd[0]} is none")
    if thin := [
        width for width, attends in zip(channels, attention or (), strict=False) if heads and attends and width < HEAD
    ]:
        raise ValueError(
            f"a level with attention needs at least {HEAD} channels, not {thin[0]}; widen it, or set its attention to"
            " false"
        )
    if patch < 1:
        raise ValueError(f"patch must be at least 1, not {patch}")
    cells = patch * 2 ** (len(channels) - 1)
    if size % cells:
        below, above = size - size % cells, size - size % cells + cells
        nearest = f"{below} and {above} are" if below else f"{above} is"
        raise ValueError(
            f"{name} {size} is no multiple of {cells}, which {len(channels)} levels and patch {patch} need; {nearest}"
        )
