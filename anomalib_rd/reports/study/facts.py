"""Where a study's numbers come from: budget, data, teacher, machine, commit, command."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from anomalib_rd.results.record import parent_run, read_record
from anomalib_rd.results.sweeps import read_commands

HASH = 8  # digits
_FOLDER = re.compile(r"(?<==)('?)/[^\s,]*/")


def facts(sweep: Path, runs: pd.DataFrame) -> list[str]:
    """Lines of a Markdown list; what differs between runs is said with all its values.

    Args:
        sweep: its folder.
        runs: of `load_runs`.

    Raises:
        UserError: a file that cannot be read.
    """
    records = [read_record(run) for run in runs["run"]]
    whole = runs.loc[~runs["run"].map(parent_run).duplicated()]
    prints = runs[["category", "fingerprint"]].drop_duplicates().sort_values("category")
    images = {r["data"]["category"]: r["data"].get("train_images") for r in records}
    data = ", ".join(
        f"{category} ({images[category]} training images, {str(fingerprint)[:HASH]})"
        for category, fingerprint in prints.itertuples(index=False)
    )
    lines = {
        "Runs": f"{len(whole)}; {whole['total_s'].sum() / 3600:.1f} hours in all, "
        f"{whole['total_s'].median() / 60:.1f} minutes each (median)",
        "Budget": f"{_values(runs['epochs'])} epochs, {_values(runs['image_size'])} pixels, "
        f"seeds {_values(runs['seed'])}",
        "Teacher": _values(runs["teacher"]),
        "Data": f"{_values(runs['data'])}: {data}",
        "Validation": _values(_validation(record) for record in records),
        "Machine": _values(_machine(record) for record in records),
        "Software": _values(_software(record) for record in records),
        "Commit": _values(_commit(record) for record in records),
    }
    # A path is of one machine; what it ends in says enough.
    commands = [_FOLDER.sub(r"\1.../", c["command"]) for c in read_commands(sweep)]
    lines |= {"Command": " and ".join(f"`{c}`" for c in commands)} if commands else {}
    return [f"- {name}: {text}" for name, text in lines.items()]


def _values(values: Iterable[Any]) -> str:
    return "; ".join(str(value) for value in dict.fromkeys(values))


def _validation(record: dict[str, Any]) -> str:
    held_out = record["protocol"].get("validation")
    if not held_out:
        return "none, all normal images train"
    return f"{held_out['kind']}, {held_out['share']:.0%} of the normal training images held out"


def _machine(record: dict[str, Any]) -> str:
    hardware = record.get("provenance", {}).get("hardware") or {}
    cpu = f"{hardware.get('cores', '?')} cores of {hardware.get('cpu') or 'an unknown CPU'}"
    return f"{hardware['accelerator']}, {cpu}" if hardware.get("accelerator") else cpu


def _software(record: dict[str, Any]) -> str:
    software = record.get("provenance", {}).get("software") or {}
    return ", ".join(f"{name} {software.get(name, '?')}" for name in ("python", "torch", "timm"))


def _commit(record: dict[str, Any]) -> str:
    git = record.get("provenance", {}).get("git")
    if not git:
        return "unknown"
    return git["commit"][:HASH] + (" with changes not committed" if git["dirty"] else "")
