"""The contestants of ``bench train``: a plain loop, then each switch added to those before it."""

from dataclasses import dataclass
from typing import Literal

# plain: RD4AD's loop; plain_loss: the same loop with the config's loss; lightning: ours.
Loop = Literal["plain", "plain_loss", "lightning"]


@dataclass(frozen=True)
class Variant:
    """A contestant.

    Attributes:
        name: as the command line takes it.
        label: as tables and plots show it.
        loop: who trains.
        overrides: of the config, after the user's own.
        needs_cuda: whether it is left out on a CPU unless asked for.
    """

    name: str
    label: str
    loop: Loop
    overrides: tuple[str, ...]
    needs_cuda: bool = False


OFF = "speed=off"
LAST = ("speed=exact", "speed.channels_last=true")
VARIANTS = (
    Variant("plain", "plain PyTorch loop", "plain", (OFF,)),
    Variant("plain-loss", "plain loop, our loss", "plain_loss", (OFF,)),
    Variant("lightning", "Lightning, no switches", "lightning", (OFF,)),
    Variant("image-cache", "+ image cache", "lightning", (OFF, "speed.image_cache=true")),
    Variant("feature-cache", "+ feature cache (default)", "lightning", ("speed=exact",)),
    Variant("channels-last", "+ channels last", "lightning", LAST),
    Variant("fused-adam", "+ fused Adam", "lightning", (*LAST, "speed.fused=true")),
    Variant("bf16", "+ bf16 (speed=fast)", "lightning", ("speed=fast",)),
    Variant("compile", "+ compile", "lightning", ("speed=fast", "speed.compile=true"), True),
)


def chosen(names: list[str] | None, cuda: bool) -> list[Variant]:
    """The variants named, in their own order; without names all that suit the device."""
    if names:
        return [variant for variant in VARIANTS if variant.name in names]
    return [variant for variant in VARIANTS if cuda or not variant.needs_cuda]
