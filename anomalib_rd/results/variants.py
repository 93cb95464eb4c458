"""Readable names for what tells the runs of a table apart."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from anomalib_rd.results.identity import significant_part

# Of what makes another run (see `results.identity`), what makes no other variant: seed and
# category, and what is evaluated or asked for once it is trained,
SAME_VARIANT_GROUPS = {
    "seed",
    "test_during_training",
    "metrics.pro_rd4ad",
    "optimized_metric",
    "optimize_on_test",
}
# and at any depth the kind of device. Their number does: each sees a batch of its own.
SAME_VARIANT_KEYS = {"category", "accelerator"}
PATHS = {"root", "dir", "path", "dirpath", "folder"}
ABSENT = object()
_NUMBER = re.compile(r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)")
_OFF = re.compile(r"=(?:none|null|false|No[A-Z]\w*)(?= |$)")


def variant_labels(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """One label for each record: equal labels mean equal configs.

    The label is ``model teacher``, plus ``key=value`` for every config key in which the
    records with the same data, model and teacher differ (a key is shortened to the part
    that is unique in the config). Keys that differ because another choice of their config group
    was made are replaced by that choice, as it was typed: ``masking=none``.
    Seed, category, paths, logger, kind of device, sweep and name do not count; the set of
    categories that one model is trained on does, and so do other images of the same category.
    """
    alike: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for index, record in enumerate(records):
        model = record["model"]
        alike[record["data"]["name"], str(model["name"]), str(model["teacher"])].append(index)
    labels = [""] * len(records)
    for (_, model_name, teacher), indices in alike.items():
        configs = [dict(variant_settings(records[index]["config"])) for index in indices]
        configs = _with_choices(configs, [records[i].get("choices") or {} for i in indices])
        _add_data([records[index] for index in indices], configs)
        for index, suffix in zip(indices, _differences(configs), strict=True):
            labels[index] = " ".join([model_name, teacher, *suffix])
    return labels


def label_order(label: str) -> tuple[str | float, ...]:
    """A key that sorts labels as a reader would: what is switched off first, numbers by value."""
    parts = _NUMBER.split(_OFF.sub("=", label))
    return tuple(float(part) if index % 2 else part for index, part in enumerate(parts))


def variant_settings(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The config's dotted keys that make a variant, each with its value."""
    yield from _leaves(significant_part(config))


def _leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if f"{prefix}{key}" in SAME_VARIANT_GROUPS or _is_ignored(key, value):
            continue
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _add_data(records: Sequence[Mapping[str, Any]], configs: Sequence[dict[str, Any]]) -> None:
    """Tell apart runs of one variant and category whose images are not the same.

    By ``data.root``, or where that does not tell them apart, by the start of the fingerprint of
    those that have other images than most runs of their category.
    """
    prints = [record["data"].get("fingerprint") for record in records]
    roots = [record["config"].get("data", {}).get("root") for record in records]
    same = [
        (json.dumps(record["data"].get("category")), json.dumps(config, sort_keys=True))
        for record, config in zip(records, configs, strict=True)
    ]
    if _all_alike(same, prints):
        return
    by_root = _all_alike(list(zip(same, roots, strict=True)), prints)
    if by_root:
        for config, root in zip(configs, roots, strict=True):
            config["data.root"] = root
        return
    counts = Counter(zip((category for category, _ in same), prints, strict=True))
    usual: dict[str, Any] = {}
    for category, fingerprint in sorted(counts, key=counts.__getitem__, reverse=True):
        usual.setdefault(category, fingerprint)
    for config, (category, _), fingerprint in zip(configs, same, prints, strict=True):
        if fingerprint != usual[category]:
            config["data.fingerprint"] = str(fingerprint)[:8]


def _all_alike(keys: Sequence[Any], values: Sequence[Any]) -> bool:
    """Whether equal keys have equal values."""
    return len(set(keys)) == len(set(zip(keys, values, strict=True)))


def _is_ignored(key: str, value: Any) -> bool:
    if key == "category" and isinstance(value, Sequence) and not isinstance(value, str):
        return False  # what one model was trained on, see `results.record`
    # A number is no path: timm's "drop_path" is a rate.
    is_path = key.rpartition("_")[2] in PATHS and (value is None or isinstance(value, str))
    return is_path or key in SAME_VARIANT_KEYS


def short_labels(labels: Sequence[str]) -> dict[str, str]:
    """Label -> its words that not all labels have; the model where there is no other.

    A single label, and labels that would no longer be told apart, stay as they are.
    """
    common = set(shared_words(labels))
    short = {
        label: " ".join(word for word in label.split() if word not in common) or label.split()[0]
        for label in labels
    }
    return short if len(set(short.values())) == len(short) else {label: label for label in labels}


def shared_words(labels: Sequence[str]) -> list[str]:
    """The words that all of several labels have, in their order."""
    words = [label.split() for label in dict.fromkeys(labels)]
    if len(words) < 2:
        return []
    return [word for word in words[0] if all(word in others for others in words)]


def matching_labels(labels: Sequence[str], name: str) -> list[str]:
    """The labels that a user may mean by a name.

    A label as it is; else those that hold every word of the name: as it stands in the label, as
    it was typed (``model/masking=none`` for ``masking=none``, ``model=rd4ad`` for ``rd4ad``), or
    the value alone (``none``).
    """
    if name in labels:
        return [name]
    wanted = name.split()
    for fits in (_equals, _means):
        found = [
            label
            for label in labels
            if wanted and all(any(fits(word, part) for part in label.split()) for word in wanted)
        ]
        if found:
            return found
    return []


def _equals(typed: str, part: str) -> bool:
    return typed == part


def _means(typed: str, part: str) -> bool:
    """Whether a typed word says the same as a word of a label."""
    key, _, value = typed.rpartition("=")
    own_key, _, own_value = part.rpartition("=")
    if not own_key:
        return value in (own_value, own_value.partition(".")[0])
    path = key.lstrip("+").replace("/", ".")
    return value == own_value and (not path or f".{path}".endswith(f".{own_key}"))


def _with_choices(
    configs: Sequence[Mapping[str, Any]], choices: Sequence[Mapping[str, str]]
) -> list[dict[str, Any]]:
    """The configs with a choice in the place of the keys that differ because of it.

    Args:
        configs: dotted key -> value.
        choices: config group -> choice, of the same runs. A group that some run lacks, as the
            records of older versions do, is left as it is.
    """
    found = [dict(config) for config in configs]
    groups = [group for group in choices[0] if all(group in own for own in choices)]
    # A choice brings those of the groups below it: the outer one says it all.
    for group in sorted(groups, key=lambda group: group.count("/")):
        names = [own[group] for own in choices]
        path = group.partition("@")[0].replace("/", ".")
        inside = [k for k in dict.fromkeys(k for c in found for k in c) if _below(k, path)]
        explained = [k for k in inside if _is_explained(k, found, names)]
        if not explained:
            continue
        called: dict[tuple[str, ...], str] = {}
        for index, config in enumerate(found):
            values = tuple(_exact(config.get(key, ABSENT)) for key in explained)
            # Two choices with the same content make one variant.
            name = called.setdefault(values, names[index])
            rest = {k: v for k, v in config.items() if k not in explained and _stem(k) != path}
            found[index] = {path: name, **rest}
    return found


def _below(key: str, path: str) -> bool:
    return key.startswith(f"{path}.") or key == path


def _is_explained(key: str, configs: Sequence[Mapping[str, Any]], names: Sequence[str]) -> bool:
    """Whether a key differs, and only where the choices do."""
    values = [_exact(config.get(key, ABSENT)) for config in configs]
    return len(set(values)) > 1 and len(set(zip(names, values, strict=True))) == len(set(names))


def _differences(configs: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """For each config its ``key=value`` in which it differs from some other."""
    keys = list(dict.fromkeys(key for config in configs for key in config))
    differing = _telling(keys, configs)
    names = _short_names(differing, keys)
    shown = []
    for key in differing:
        exact = {_exact(config[key]): config[key] for config in configs if key in config}
        brief = {text: _brief(key, value) for text, value in exact.items()}
        # Two files of the same name, or two classes, in different places: say it in full.
        shown.append(brief if len(set(brief.values())) == len(brief) else {t: t for t in brief})
    return [
        [
            f"{names[key]}={values[_exact(config[key])]}"
            for key, values in zip(differing, shown, strict=True)
            if key in config
        ]
        for config in configs
    ]


def _telling(keys: Sequence[str], configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys that tell the configs apart.

    Of several keys that always have the same values (one is interpolated from the other)
    the first. A key that some configs lack and that is the same in all others (a setting of
    an alternative) only where no other key tells those configs apart.
    """
    by_values: dict[tuple[str, ...], str] = {}
    for key in keys:
        values = tuple(_exact(config.get(key, ABSENT)) for config in configs)
        if len(set(values)) > 1:
            by_values.setdefault(values, key)
    variants = len(set(zip(*by_values, strict=True)))
    chosen = [values for values in by_values if len({*values} - {_exact(ABSENT)}) > 1]
    for values in by_values:
        if values not in chosen and len(set(zip(*chosen, strict=True))) < variants:
            chosen.append(values)
    return [by_values[values] for values in by_values if values in chosen]


def _exact(value: Any) -> str:
    return "absent" if value is ABSENT else json.dumps(value, sort_keys=True)


def _brief(key: str, value: Any) -> str:
    if not isinstance(value, str):
        return json.dumps(value, separators=(",", ":"))
    return value.rpartition(".")[2] if key.endswith("_target_") else PurePath(value).name or value


def _short_names(differing: Sequence[str], keys: Sequence[str]) -> dict[str, str]:
    """Each key's shortest ending that no other key of the config has."""
    endings: dict[str, int] = defaultdict(int)
    for key in keys:
        for ending in _endings(key):
            endings[ending] += 1
    return {
        key: next((e for e in _endings(key) if endings[e] == 1), _endings(key)[-1])
        for key in differing
    }


def _stem(key: str) -> str:
    """The key of the group that a key stands for, if it says which class the group is."""
    return key.removesuffix("._target_")


def _endings(key: str) -> list[str]:
    # The class stands for its group: "loss=PixelCosine".
    parts = _stem(key).split(".")
    return [".".join(parts[-count:]) for count in range(1, len(parts) + 1)]
