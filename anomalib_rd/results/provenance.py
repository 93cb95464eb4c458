"""Provenance of a run: software, hardware, git and the command line, with secrets masked."""

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
# On a command line, values of names that match `_SECRET` are masked. In configs, and in overrides
# of the groups `_SETTINGS` (where "mask_token" is a setting), the name must match `_CREDENTIAL`.
_SECRET = re.compile(r"key|token|password|secret", re.IGNORECASE)
_SETTINGS = re.compile(
    r"[+~]*(model|loss|optimizer|scheduler|validation|trainer|speed|callbacks|threshold)[./@=]"
)
_CREDENTIAL = re.compile(
    r"(api|access|private|secret)_?key|(api|access|auth)_?token|passw|secret", re.IGNORECASE
)
# "name: value" or "name=value" inside a text.
_SECRET_PAIR = re.compile(
    r"""([\w.\-/]*(?:key|token|password|secret)[\w.\-]*["']?\s*[=:]\s*)("[^"]*"|'[^']*'|[^\s,{}\[\]]+)""",
    re.IGNORECASE,
)
_CREDENTIAL_PAIR = re.compile(
    rf"""([\w.\-/]*(?:{_CREDENTIAL.pattern})[\w.\-]*["']?\s*[=:]\s*)("[^"]*"|'[^']*'|[^\s,{{}}\[\]"']+)""",
    re.IGNORECASE,
)
_URL_LOGIN = re.compile(r"(\w+://)[^/@\s]+@")
MIN_CREDENTIAL = 8  # characters; a shorter text may occur in ordinary words


def collect_provenance(
    accelerator: str | None = None, folder: Path | None = None
) -> dict[str, Any]:
    """A record's ``provenance``.

    ``accelerator`` is the name of the device, such as "NVIDIA A100", None on a CPU; ``folder`` is
    in the git repository, by default the current folder.
    """
    return {
        "software": software_versions(),
        "hardware": describe_hardware(accelerator),
        "git": git_state(folder),
        "command": command_line(),
    }


def software_versions() -> dict[str, str]:
    """Versions of Python, the system and the installed `PACKAGES`, without importing them."""
    versions = {"python": platform.python_version(), "system": platform.platform()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def describe_hardware(accelerator: str | None = None) -> dict[str, Any]:
    """CPU model, usable cores, memory in GiB, and name of the accelerator, if any."""
    return {
        "cpu": _cpu_model(),
        "cores": usable_cores(),
        "memory_gib": _memory_gib(),
        "accelerator": accelerator,
    }


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


def git_state(folder: Path | None = None) -> dict[str, Any] | None:
    """``{"commit": 40 hex digits, "dirty": bool}``; None without git, repository or commit.

    ``dirty``: whether tracked files differ from the commit.
    """
    commit = _git(folder, "rev-parse", "--verify", "HEAD")
    status = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": bool(status)} if commit and status is not None else None


def _git(folder: Path | None, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=10,
            # Otherwise jobs would compete for the lock of the index, which status refreshes.
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def command_line(argv: Sequence[str] | None = None) -> str:
    """The command line as typed, with secrets masked (see `mask_arguments`)."""
    program, *arguments = list(sys.argv if argv is None else argv) or [""]
    path = Path(program)
    # With "python -m package" Python puts the path of the package's __main__.py here.
    name = f"python -m {path.parent.name}" if path.name == "__main__.py" else shlex.quote(path.name)
    return " ".join([name, *(shlex.quote(argument) for argument in mask_arguments(arguments))])


def mask_arguments(arguments: Sequence[str]) -> list[str]:
    """The arguments of a command with secrets masked.

    Masked are logins in URLs, and the value of every ``key=value`` and ``--key value``, also inside
    ``{...}``, whose key contains key, token, password or secret. In config groups without
    credentials, only names of credentials are masked: ``model.masking.token`` is a setting.
    """
    masked: list[str] = []
    hide_next = False
    for argument in arguments:
        key, equals, value = argument.partition("=")
        setting = bool(_SETTINGS.match(argument))
        secret = _CREDENTIAL if setting else _SECRET
        # A path may contain "token=" too: only the names in {...} are keys.
        plain_value = equals and value[:1] not in ("{", "[", "")
        pair = _CREDENTIAL_PAIR if setting or plain_value else _SECRET_PAIR
        if hide_next and not argument.startswith("--"):
            masked.append(MASK)
        elif equals and secret.search(key) and not set(key) & set("{[:'\" "):
            # The complete value: all parts of a sweep's "token=a,b".
            masked.append(f"{key}={MASK}")
        else:
            argument = _mask_environment(pair.sub(rf"\g<1>{MASK}", argument))
            masked.append(_URL_LOGIN.sub(rf"\g<1>{MASK}@", argument))
        hide_next = argument.startswith("-") and not equals and bool(_SECRET.search(argument))
    return masked


def mask_config(value: Any, key: str = "") -> Any:
    """The config with masked credentials: by key, and the values of the environment's."""
    if isinstance(value, Mapping):
        return {name: mask_config(item, str(name)) for name, item in value.items()}
    if isinstance(value, list):
        return [mask_config(item, key) for item in value]
    if not isinstance(value, str):
        return value
    return MASK if value and _CREDENTIAL.search(key) else _mask_environment(value)


def mask_text(text: str) -> str:
    """A text, such as a traceback or YAML, with credentials masked."""
    text = _mask_environment(_CREDENTIAL_PAIR.sub(rf"\g<1>{MASK}", text))
    return _URL_LOGIN.sub(rf"\g<1>{MASK}@", text)


def _mask_environment(text: str) -> str:
    """Mask the values of credentials such as ``WANDB_API_KEY``, but not paths of key files."""
    for name, value in os.environ.items():
        secret = _CREDENTIAL.search(name)
        if secret and len(value) >= MIN_CREDENTIAL and not value.startswith("/"):
            text = text.replace(value, MASK)
    return text
