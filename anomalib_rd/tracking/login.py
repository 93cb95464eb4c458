"""Whether W&B has a login, asked of nobody: no prompt, no network."""

import netrc
import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import wandb

# Since 0.31 wandb reaches the same service by another default address, and still takes
# the login that earlier versions wrote under this one.
_CLOUD_HOST = "api.wandb.ai"


def login_known(settings: "wandb.Settings") -> bool:
    """True if wandb would find an API key or identity token by itself.

    The places are wandb's own: its environment variables, its settings files and the netrc
    file. `wandb.login` cannot answer this: it prompts, prints and may ask the server.
    """
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    return bool(settings.api_key) or _in_netrc(_hosts(settings))


def _hosts(settings: "wandb.Settings") -> list[str]:
    url = str(settings.base_url)
    default = type(settings).model_fields["base_url"].default
    return [urlsplit(url).netloc, *([_CLOUD_HOST] if url == default else [])]


def _in_netrc(hosts: list[str]) -> bool:
    named = os.environ.get("NETRC")
    candidates = [Path(named)] if named else [Path("~/.netrc"), Path("~/_netrc")]
    for path in (candidate.expanduser() for candidate in candidates):
        if not path.exists():
            continue
        try:
            entries = netrc.netrc(path)
        except (netrc.NetrcParseError, OSError):
            return False
        return any((entries.authenticators(host) or ("", "", ""))[2] for host in hosts)
    return False
