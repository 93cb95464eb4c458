"""What a run ran on: software, hardware, git and the command line, without secrets."""

import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from anomalib_rd.cores import usable_cores

PACKAGES = (
    "anomalib-rd",
    "torch",
    "torchvision",
    "lightning",
    "torchmetrics",
    "timm",
    "hydra-core",
    "omegaconf",
    "wandb",
    "numpy",
    "scipy",
    "scikit-image",
    "pandas",
    "pillow",
)
MASK = "***"
# On a command line anything that might be a secret is masked, but for these parts of a config,
# where a "mask_token" is a setting.
_SECRET = re.compile(r"key|token|password|secret", re.IGNORECASE)
_SETTINGS = re.compile(
    r"[+~]*(model|loss|optimizer|scheduler|validation|trainer|speed|callbacks|threshold)[./@=]"
)
# In a config a "mask_token" is a setting, so only names that mean a credential are masked.
_CREDENTIAL = re.compile(
    r"(api|access|private|secret)_?key|(api|access|auth)_?token|passw|secret", re.IGNORECASE
)
_NESTED = re.compile(
    r"""([\w.\-/]*(?:key|token|password|secret)[\w.\-]*["']?\s*[=:]\s*)("[^"]*"|'[^']*'|[^\s,{}\[\]]+)""",
    re.IGNORECASE,
)
# As `_NESTED`, of credentials alone.
_NAMED = re.compile(
    rf"""([\w.\-/]*(?:{_CREDENTIAL.pattern})[\w.\-]*["']?\s*[=:]\s*)("[^"]*"|'[^']*'|[^\s,{{}}\[\]"']+)""",
    re.IGNORECASE,
)
# Shorter text is no credential, and would be found in other words.
LEAST = 8
_URL_LOGIN = re.compile(r"(\w+://)[^/@\s]+@")


def collect_provenance(
    accelerator: str | None = None, folder: Path | None = None
) -> dict[str, Any]:
    """All of it, as a record's ``provenance`` takes it.

    Args:
        accelerator: the device's name, such as "NVIDIA A100"; None on a CPU.
        folder: where to look for git; the current folder if None.
    """
    return {
        "software": software_versions(),
        "hardware": describe_hardware(accelerator),
        "git": git_state(folder),
        "command": command_line(),
    }


def software_versions() -> dict[str, str]:
    """Versions of Python, the system and the installed packages of ``PACKAGES``.

    Read from the packages' metadata: nothing is imported.
    """
    versions = {"python": platform.python_version(), "system": platform.platform()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def describe_hardware(accelerator: str | None = None) -> dict[str, Any]:
    """CPU model, cores this process may use, memory in GiB, accelerator's name or None."""
    return {
        "cpu": _cpu_model(),
        "cores": usable_cores(),
        "memory_gib": _memory_gib(),
        "accelerator": accelerator,
    }


def git_state(folder: Path | None = None) -> dict[str, Any] | None:
    """``{"commit": 40 hex digits, "dirty": bool}`` of the folder's repository.

    ``dirty`` means that tracked files differ from the commit. None where there is no
    repository, no commit or no git; never raises.
    """
    commit = _git(folder, "rev-parse", "--verify", "HEAD")
    status = _git(folder, "status", "--porcelain", "--untracked-files=no")
    if not commit or status is None:
        return None
    return {"commit": commit, "dirty": bool(status)}


def command_line(argv: Sequence[str] | None = None) -> str:
    """The command line as one would type it, with secrets masked.

    Masked are: the value of every ``key=value`` or ``--key value`` whose key's name holds
    key, token, password or secret, the same inside ``{...}``, and logins in URLs. In the parts
    of a config that cannot hold a credential, only names that mean one are: a model's
    ``masking.token`` is a setting.
    """
    program, *arguments = list(sys.argv if argv is None else argv) or [""]
    path = Path(program)
    # With "python -m package" Python puts the path of the package's __main__.py here.
    name = f"python -m {path.parent.name}" if path.name == "__main__.py" else shlex.quote(path.name)
    return " ".join([name, *(shlex.quote(argument) for argument in mask_arguments(arguments))])


def mask_config(value: Any, key: str = "") -> Any:
    """The config with the text under every key that means a credential masked.

    So are credentials of the environment, such as ``WANDB_API_KEY``, wherever they stand.
    """
    if isinstance(value, Mapping):
        return {name: mask_config(item, str(name)) for name, item in value.items()}
    if isinstance(value, list):
        return [mask_config(item, key) for item in value]
    if not isinstance(value, str):
        return value
    return MASK if value and _CREDENTIAL.search(key) else _mask_known(value)


def mask_text(text: str) -> str:
    """A text, such as a traceback or YAML, with credentials masked."""
    return _URL_LOGIN.sub(rf"\g<1>{MASK}@", _mask_known(_NAMED.sub(rf"\g<1>{MASK}", text)))


def _mask_known(text: str) -> str:
    """The text without the environment's credentials; the path of a key file is none."""
    for name, value in os.environ.items():
        if len(value) >= LEAST and not value.startswith("/") and _CREDENTIAL.search(name):
            text = text.replace(value, MASK)
    return text


def mask_arguments(arguments: Sequence[str]) -> list[str]:
    """The words of a command with all that might be a secret masked."""
    masked: list[str] = []
    hide_next = False
    for argument in arguments:
        key, equals, value = argument.partition("=")
        setting = bool(_SETTINGS.match(argument))
        secret = _CREDENTIAL if setting else _SECRET
        # A path may hold "token=" too: only the names in {...} are keys.
        nested = _NAMED if setting or (equals and value[:1] not in ("{", "[", "")) else _NESTED
        if hide_next and not argument.startswith("--"):
            masked.append(MASK)
        elif equals and secret.search(key) and not set(key) & set("{[:'\" "):
            # Whole, so that a sweep's "token=a,b" leaves nothing behind.
            masked.append(f"{key}={MASK}")
        else:
            argument = _mask_known(nested.sub(rf"\g<1>{MASK}", argument))
            masked.append(_URL_LOGIN.sub(rf"\g<1>{MASK}@", argument))
        hide_next = argument.startswith("-") and not equals and bool(_SECRET.search(argument))
    return masked


def _git(folder: Path | None, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=10,
            # A status that refreshed the index would fight over its lock with other jobs.
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None
    return round(size / 2**30, 1)
