"""Which errors are the user's to mend, and how to say them in one line."""

import difflib
import re
from typing import Any

from anomalib_rd.cli.disk import of_disk
from anomalib_rd.errors import UserError


def explain(error: BaseException) -> str | None:
    """One line for a mistake that the user can mend; None for a defect of the program."""
    for link in chain(error):
        if isinstance(link, UserError):
            return original(str(link))
        if isinstance(link, OSError) and (line := of_disk(link)):
            return line
    from hydra.errors import HydraException, OverrideParseException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, (HydraException, OmegaConfBaseException)):
        cause = error.__cause__
        detail = f"; {cause}" if isinstance(cause, OmegaConfBaseException) else ""
        if isinstance(error, OverrideParseException):
            return f"{error.override}: not an override that Hydra can read; key=value is"
        unknown = re.match(r"Could not override '([^'@]+)", str(error))
        if unknown:
            return f"no key '{unknown[1]}' in the config{nearest_key(unknown[1])}"
        return one_line(f"{error}{detail}")
    return None


def nearest_key(key: str) -> str:
    """What may have been meant, and how a new key is added."""
    from omegaconf import OmegaConf

    from anomalib_rd.cli.categories import composed

    with_hydra = OmegaConf.to_container(composed([], None), resolve=False)
    assert isinstance(with_hydra, dict)
    nearest = difflib.get_close_matches(key, dotted(with_hydra), n=1)
    meant = f", did you mean '{nearest[0]}'?" if nearest else ""
    return f"{meant}; `anomalib-rd train --cfg job` shows all, +{key}=... adds a new one"


def dotted(config: dict[Any, Any], prefix: str = "") -> list[str]:
    """All keys of a nested config, as one types them."""
    keys = []
    for name, value in config.items():
        keys.append(f"{prefix}{name}")
        if isinstance(value, dict):
            keys += dotted(value, f"{prefix}{name}.")
    return keys


def chain(error: BaseException) -> list[BaseException]:
    """The error and its causes, outermost first."""
    links = [error]
    while (cause := links[-1].__cause__) is not None and cause not in links:
        links.append(cause)
    return links


def original(message: str) -> str:
    """The message as raised, where a data loader's worker wrapped it into its traceback."""
    if message.startswith("Caught UserError in"):
        message = re.split(r"errors\.UserError: ", message)[-1]
    return one_line(message)


def one_line(text: str) -> str:
    """The text without line breaks and runs of blanks."""
    lines = [" ".join(line.split()) for line in text.splitlines()]
    return "; ".join(line.rstrip(";") for line in lines if line)
