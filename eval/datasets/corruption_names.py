"""Names of the corruptions of ImageNet-C, and checks of names and severities that a caller chose."""

from __future__ import annotations

from collections.abc import Sequence

from ...engine.errors import InputError
from ..corruptions.corruption_registry import SEVERITIES

IMAGENET_C = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
)
# The paper reserves these for validation; they are used only where they are named.
EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
CLEAN = "clean"


def check_names(names: Sequence[str], choices: Sequence[str], where: str) -> None:
    """Check that corruptions exist and are different, and that there is at least one.

    Args:
        names: the chosen names.
        choices: the names that exist.
        where: source of the corruptions, for the message.

    Raises:
        InputError: a name does not exist or occurs twice, or there is none.
    """
    if len(set(names)) != len(names):
        raise InputError(f"a corruption is named twice: {', '.join(names)}")
    unknown = [name for name in names if name not in choices]
    if unknown or not names:
        raise InputError(
            f"{where} has no corruption {', '.join(unknown) or '(none given)'}; it has: {', '.join(choices)}"
        )


def check_severities(severities: Sequence[int]) -> None:
    """Check that severities exist and are different, and that there is at least one.

    Raises:
        InputError: a severity does not exist or occurs twice, or there is none.
    """
    if not severities or len(set(severities)) != len(severities) or not set(severities) <= set(SEVERITIES):
        raise InputError(
            f"expected different severities out of {', '.join(map(str, SEVERITIES))}, found "
            f"{', '.join(map(str, severities)) or 'none'}"
        )
