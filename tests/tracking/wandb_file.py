"""Reads an offline run's own transaction log back: LevelDB's log format, protobuf records.

Written against LevelDB's doc/log_format.md, because wandb removed its own Python reader.
"""

import json
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import wandb
from wandb.proto.wandb_internal_pb2 import Record

_BLOCK = 32768
_HEADER = 7  # of the file (":W&B", magic, version) and of each chunk (crc, length, type)
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def read_records(path: Path) -> list[Record]:
    data = path.read_bytes()
    assert data[:4] == b":W&B"
    records, parts, position = [], [], _HEADER
    while position + _HEADER <= len(data):
        if _BLOCK - position % _BLOCK < _HEADER:  # a block's tail too short for a chunk
            position += _BLOCK - position % _BLOCK
            continue
        _crc, length, kind = struct.unpack_from("<IHB", data, position)
        position += _HEADER
        assert kind in (_FULL, _FIRST, _MIDDLE, _LAST)
        parts.append(data[position : position + length])
        position += length
        if kind in (_FULL, _LAST):
            records.append(Record.FromString(b"".join(parts)))
            parts = []
    return records


@dataclass
class StoredRun:
    """What one run's file says, in plain Python."""

    folder: Path
    id: str = ""
    name: str = ""
    project: str = ""
    group: str = ""
    job_type: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)  # name or glob -> MetricRecord
    artifacts: list[Any] = field(default_factory=list)
    exit_code: int | None = None

    @property
    def files(self) -> Path:
        return self.folder / "files"


def read_run(folder: Path) -> StoredRun:
    (path,) = folder.glob("run-*.wandb")
    stored = StoredRun(folder)
    for record in read_records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = record.run
            stored.id, stored.name, stored.project = run.run_id, run.display_name, run.project
            stored.group, stored.job_type = run.run_group, run.job_type
            stored.tags = list(run.tags)
            _apply(stored.config, run.config.update)
        elif kind == "config":
            _apply(stored.config, record.config.update)
        elif kind == "summary":
            _apply(stored.summary, record.summary.update)
        elif kind == "history":
            row: dict[str, Any] = {}
            _apply(row, record.history.item)
            stored.history.append(row)
        elif kind == "metric":
            stored.metrics[record.metric.name or record.metric.glob_name] = record.metric
        elif kind == "artifact":
            stored.artifacts.append(record.artifact)
        elif kind == "exit":
            stored.exit_code = record.exit.exit_code
    return stored


def read_runs(save_dir: Path) -> list[StoredRun]:
    """Every offline run under a save_dir, oldest first."""
    wandb.teardown()  # `finish` returns a moment before wandb's service has closed the file
    found = sorted(save_dir.glob("wandb/offline-run-*"), key=lambda p: p.stat().st_ctime)
    return [read_run(folder) for folder in found]


def _apply(target: dict[str, Any], items: Any) -> None:
    for item in items:
        *parents, last = [item.key] if item.key else item.nested_key
        inner = target
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = json.loads(item.value_json)
