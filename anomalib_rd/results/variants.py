"""Readable labels of variants, from the config keys that differ between runs."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from anomalib_rd.results.identity import significant_items

# Keys that distinguish runs (see `results.identity`), but not variants: seed and category, options
# of the evaluation, and the kind of device. The number of devices distinguishes variants, because
# each device has its own batch.
SAME_VARIANT_KEYS = {
    "seed",
    "test_during_training",
    "metrics.pro_rd4ad",
    "optimized_metric",
    "optimize_on_test",
}
SAME_VARIANT_NAMES = {"category", "accelerator"}
PATHS = {"root", "dir", "path", "dirpath", "folder"}
ABSENT = "absent"  # not valid JSON, so never equal to a value
_NUMBER = re.compile(r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)")
_OFF = re.compile(r"=(?:none|null|false|No[A-Z]\w*)(?= |$)")

Config = Mapping[str, Any]  # dotted key -> value


def variant_labels(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """One label for each record; equal labels mean equal configs.

    The label is ``model teacher``, and ``key=value`` for every config key that differs between the
    records with the same data, model and teacher, with the shortest unambiguous ending of the key.
    Keys that differ because of a config group are replaced by its choice: ``masking=none``. Seed,
    category, paths, logger, kind of device, sweep and name do not distinguish variants. The set of
    categories of one model does, and so do different images of the same category.
    """
    similar: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for index, record in enumerate(records):
        model = record["model"]
        similar[record["data"]["name"], str(model["name"]), str(model["teacher"])].append(index)
    labels = [""] * len(records)
    for (_, model_name, teacher), indices in similar.items():
        group = [records[index] for index in indices]
        configs: Sequence[Config] = [dict(variant_settings(record["config"])) for record in group]
        configs = _replace_by_choices(configs, [record.get("choices") or {} for record in group])
        configs = _add_data(configs, group)
        for index, words in zip(indices, _differing_words(configs), strict=True):
            labels[index] = " ".join([model_name, teacher, *words])
    return labels


def label_order(label: str) -> tuple[str | float, ...]:
    """Sort key of labels: disabled options first, numbers by value."""
    parts = _NUMBER.split(_OFF.sub("=", label))
    return tuple(float(part) if index % 2 else part for index, part in enumerate(parts))


def short_labels(labels: Sequence[str]) -> dict[str, str]:
    """Label -> its words without those that all labels share, or its model if none remain.

    A single label is not shortened; if two short labels would be equal, none is.
    """
    common = set(shared_words(labels))
    short = {
        label: " ".join(word for word in label.split() if word not in common) or label.split()[0]
        for label in labels
    }
    return short if len(set(short.values())) == len(short) else {label: label for label in labels}


def shared_words(labels: Sequence[str]) -> list[str]:
    """The words that all labels share, in order; empty for a single label."""
    words = [label.split() for label in dict.fromkeys(labels)]
    if len(words) < 2:
        return []
    return [word for word in words[0] if all(word in others for others in words)]


def matching_labels(labels: Sequence[str], name: str) -> list[str]:
    """The labels that a name typed by the user matches.

    The label itself, else those that contain every word of the name: as in the label, as typed on
    a command line (``model/masking=none`` for ``masking=none``, ``model=rd4ad`` for ``rd4ad``), or
    as the value alone (``none``).
    """
    if name in labels:
        return [name]
    words = name.split()
    tests: tuple[Callable[[str, str], bool], ...] = (str.__eq__, _matches_override)
    for test in tests:
        matches = [
            label
            for label in labels
            if words and all(any(test(word, part) for part in label.split()) for word in words)
        ]
        if matches:
            return matches
    return []


def _matches_override(typed: str, part: str) -> bool:
    key, _, value = typed.rpartition("=")
    own_key, _, own_value = part.rpartition("=")
    if not own_key:
        return value in (own_value, own_value.partition(".")[0])
    path = key.lstrip("+").replace("/", ".")
    return value == own_value and (not path or f".{path}".endswith(f".{own_key}"))


def variant_settings(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The dotted keys of a config that distinguish variants, with their values."""
    for key, value in significant_items(config):
        name = key.rpartition(".")[2]
        if key in SAME_VARIANT_KEYS:
            continue
        if name == "category" and isinstance(value, Sequence) and not isinstance(value, str):
            yield key, value  # the set of categories of one model
        # A number is not a path: timm's "drop_path" is a rate.
        elif name not in SAME_VARIANT_NAMES and not (
            name.rpartition("_")[2] in PATHS and (value is None or isinstance(value, str))
        ):
            yield key, value


def _replace_by_choices(
    configs: Sequence[Config], choices: Sequence[Mapping[str, str]]
) -> list[Config]:
    """Replace the keys that differ because of a config group's choice by that choice.

    ``choices`` are group -> choice for each run. Groups that are missing in a run, because Hydra
    did not compose its config, are ignored.
    """
    result = list(configs)
    groups = [group for group in choices[0] if all(group in own for own in choices)]
    # The choice in an outer group includes those in the groups below it.
    for group in sorted(groups, key=lambda group: group.count("/")):
        names = [own[group] for own in choices]
        path = group.partition("@")[0].replace("/", ".")
        # Keys in the group that differ, and only where the choices do.
        explained = [
            key
            for key in _all_keys(result)
            if f"{key}.".startswith(f"{path}.")
            and len(set(_values(key, result))) > 1
            and _determines(names, _values(key, result))
        ]
        if not explained:
            continue
        labels: dict[tuple[str, ...], str] = {}
        for index, config in enumerate(result):
            # Two choices with the same content are one variant.
            content = tuple(_exact(config, key) for key in explained)
            name = labels.setdefault(content, names[index])
            rest = {k: v for k, v in config.items() if k not in explained and _stem(k) != path}
            result[index] = {path: name, **rest}
    return result


def _add_data(configs: Sequence[Config], records: Sequence[Mapping[str, Any]]) -> Sequence[Config]:
    """Distinguish runs of the same variant and category with different images.

    By ``data.root`` if that suffices; else runs whose images are not the most frequent ones of
    their category get the start of the fingerprint.
    """
    fingerprints = [record["data"].get("fingerprint") for record in records]
    roots = [record["config"].get("data", {}).get("root") for record in records]
    categories = [json.dumps(record["data"].get("category")) for record in records]
    texts = [json.dumps(config, sort_keys=True) for config in configs]
    if _determines(list(zip(categories, texts, strict=True)), fingerprints):
        return configs
    if _determines(list(zip(categories, texts, roots, strict=True)), fingerprints):
        return [c | {"data.root": root} for c, root in zip(map(dict, configs), roots, strict=True)]
    counts = Counter(zip(categories, fingerprints, strict=True))
    usual: dict[str, Any] = {}
    for category, fingerprint in sorted(counts, key=counts.__getitem__, reverse=True):
        usual.setdefault(category, fingerprint)
    return [
        c if fingerprint == usual[category] else {**c, "data.fingerprint": str(fingerprint)[:8]}
        for c, category, fingerprint in zip(configs, categories, fingerprints, strict=True)
    ]


def _determines(keys: Sequence[Any], values: Sequence[Any]) -> bool:
    """Whether equal keys have equal values."""
    return len(set(keys)) == len(set(zip(keys, values, strict=True)))


def _differing_words(configs: Sequence[Config]) -> list[list[str]]:
    """For each config, ``key=value`` of the keys that differ between the configs."""
    keys = _all_keys(configs)
    differing = _differing_keys(keys, configs)
    names = _short_keys(differing, keys)
    words: list[list[str]] = [[] for _ in configs]
    for key in differing:
        exact = {_exact(config, key): config[key] for config in configs if key in config}
        short = {text: _short_value(key, value) for text, value in exact.items()}
        # Files or classes with the same name in different folders are written in full.
        unique = len(set(short.values())) == len(short)
        for own, config in zip(words, configs, strict=True):
            if key in config:
                text = _exact(config, key)
                own.append(f"{names[key]}={short[text] if unique else text}")
    return words


def _differing_keys(keys: Sequence[str], configs: Sequence[Config]) -> list[str]:
    """The keys that distinguish the configs.

    Of keys that always have equal values (one interpolates the other), only the first. A key that
    is absent in some configs and equal in the rest (an option of an alternative) only if no other
    key distinguishes these configs.
    """
    by_values: dict[tuple[str, ...], str] = {}
    for key in keys:
        values = _values(key, configs)
        if len(set(values)) > 1:
            by_values.setdefault(values, key)
    variants = len(set(zip(*by_values, strict=True)))
    selected = [values for values in by_values if len({*values} - {ABSENT}) > 1]
    for values in by_values:
        if values not in selected and len(set(zip(*selected, strict=True))) < variants:
            selected.append(values)
    return [by_values[values] for values in by_values if values in selected]


def _all_keys(configs: Sequence[Config]) -> list[str]:
    return list(dict.fromkeys(key for config in configs for key in config))


def _values(key: str, configs: Sequence[Config]) -> tuple[str, ...]:
    return tuple(_exact(config, key) for config in configs)


def _exact(config: Config, key: str) -> str:
    return json.dumps(config[key], sort_keys=True) if key in config else ABSENT


def _short_value(key: str, value: Any) -> str:
    if not isinstance(value, str):
        return json.dumps(value, separators=(",", ":"))
    return value.rpartition(".")[2] if key.endswith("_target_") else PurePath(value).name or value


def _short_keys(differing: Sequence[str], keys: Sequence[str]) -> dict[str, str]:
    counts = Counter(ending for key in keys for ending in _endings(key))
    return {
        key: next((e for e in _endings(key) if counts[e] == 1), _endings(key)[-1])
        for key in differing
    }


def _endings(key: str) -> list[str]:
    parts = _stem(key).split(".")
    return [".".join(parts[-count:]) for count in range(1, len(parts) + 1)]


def _stem(key: str) -> str:
    return key.removesuffix("._target_")  # the class represents its group: loss=PixelCosine
