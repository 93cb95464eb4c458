"""Command-line words, rewritten so that Hydra reads names and paths as they were typed.

In Hydra's grammar ``1.10`` is a number, ``a,b`` a sweep, and ``größe`` an error. Where the value is
a name or a path it is none of these, so it is quoted here. Quotes, escapes, interpolations and
sweep functions that the user typed keep their meaning.
"""

import re
from collections.abc import Iterator

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import GrammarParseError
from omegaconf.grammar_parser import parse as parse_interpolation

from anomalib_rd.cli.config import conf_dir
from anomalib_rd.cli.trainer_arguments import TRAINER_ARGUMENTS
from anomalib_rd.errors import UserError

CATEGORY = "data.category"
# Keys, or last parts of keys, whose value is a name or a path. Of these, null is
# the text "null" for the first, and nothing for the others.
NEVER_NULL = {
    "sweep",
    "name",
    "run_dir",
    "data.name",
    CATEGORY,
    "model.name",
    "model.teacher.name",
    "model.teacher.weights",
    "hydra.run.dir",
    "hydra.sweep.dir",
    "hydra.sweep.subdir",
    "hydra.job.name",
}
LAST_PARTS = {
    "root",
    "name",
    "weights",
    "folder",
    "file",
    "filename",
    "path",
    "dir",
    "dirpath",
    "subdir",
    "save_dir",
    "default_root_dir",
    "submitit_folder",
    "normal",
    "defect",
    "masks",
    "normal_test",
    "project",
    "entity",
    "group",
    "job_type",
    "id",
    "partition",
    "account",
    "qos",
}
LISTS = {"category", "textures", "tags", "searchpath"}
"""Last parts of keys that take one name or ``[a,b]``."""
ONE_VALUE = {"sweep", "run_dir"}
"""Settings of the whole multirun: a comma in them is part of the name."""
FLAGS_WITH_VALUE = {
    "-cd", "--config-dir", "-cp", "--config-path", "-cn", "--config-name",
    "-c", "--cfg", "-p", "--package", "-i", "--info", "--experimental-rerun",
}  # fmt: skip
WORD = re.compile(
    r"(?P<prefix>\+{0,2})(?P<key>[^\s=@'\"+~-][^\s=@]*)(?P<at>@[^\s=]*)?=(?P<value>.*)", re.DOTALL
)
PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*")
RESERVED = {"null", "true", "false", "nan", "inf"}
QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)
OF_ELEMENTS = re.compile(r"(choice|shuffle|sort)\((.*)\)", re.DOTALL)
OF_VALUES = re.compile(r"(range|glob|interval|tag|str|int|float|bool)\(.*\)", re.DOTALL)
ESCAPE = re.compile(r"\\[\\()\[\]{}:=, \t]")


def literal(text: str) -> str:
    """The text in Hydra's grammar: parsed and resolved, it is the same text again."""
    if PLAIN.fullmatch(text) and text.lower() not in RESERVED:
        return text
    # OmegaConf resolves "${" in quotes too; a backslash prevents it, and is itself to be doubled.
    escaped = re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + r"\${", text)
    return quoted(escaped)


def quoted(text: str) -> str:
    """The text in single quotes, as Hydra's grammar escapes it."""
    return QuotedString(text, Quote.single).with_quotes()


def as_typed(words: list[str], many: bool | None = None) -> list[str]:
    """Quote the values of names and paths, and add what Hydra needs to accept the other words.

    ``trainer.X`` of an argument that only Lightning knows becomes ``++trainer.X``, and
    ``~logger`` and ``logger=null``, like any group with a choice ``none``, become ``logger=none``.

    Args:
        words: as typed.
        many: whether a comma separates the values of a sweep; None: if the words ask for one.
    """
    if many is None:
        many = is_multirun(words)
    values = {i + 1 for i, word in enumerate(words) if word in FLAGS_WITH_VALUE}
    return [word if i in values else rewritten(word, many) for i, word in enumerate(words)]


def is_multirun(words: list[str]) -> bool:
    """Whether the words ask Hydra for several jobs."""
    # argparse takes any unambiguous beginning of a flag.
    flags = any(word == "-m" or re.fullmatch(r"--mu\w*", word) for word in words)
    modes = [word.rpartition("=")[2] for word in words if "hydra.mode=" in word]
    return flags or modes[-1:] == ["MULTIRUN"]


def rewritten(word: str, many: bool) -> str:
    """One word, see `as_typed`."""
    group, _, choice = word.removeprefix("~").partition("=")
    removed = word.startswith("~")
    if (removed or choice == "null") and (conf_dir() / group / "none.yaml").is_file():
        return f"{group}=none"
    if removed:
        return word
    found = WORD.fullmatch(word)
    if not found:
        return word
    prefix, key, at, value = found["prefix"], found["key"], found["at"] or "", found["value"]
    if is_text(key) and not at:
        swept = many and key not in ONE_VALUE and not key.startswith("hydra.")
        value = choices(key, value) if swept else without_sweep(key, value)
    if not prefix and is_only_lightnings(key):
        prefix = "++"
    return f"{prefix}{key}{at}={value}"


def is_text(key: str) -> bool:
    """Whether the key's value is a name or a path."""
    last = key.rpartition(".")[2]
    return key in NEVER_NULL or last in LISTS or ("." in key and last in LAST_PARTS)


def is_only_lightnings(key: str) -> bool:
    """Whether the key is an argument of Lightning's Trainer that conf/trainer does not set."""
    part, _, name = key.partition(".")
    if part != "trainer" or name not in TRAINER_ARGUMENTS:
        return False
    return name not in OmegaConf.load(conf_dir() / "trainer/auto.yaml")


def choices(key: str, value: str) -> str:
    """The values of a sweep, each as `one_value`."""
    if call := OF_ELEMENTS.fullmatch(value):
        arguments = [
            part if re.match(r"(reverse|shuffle)\s*=", part) else choices(key, part)
            for part in split(call[2])
        ]
        return f"{call[1]}({','.join(arguments)})"
    if OF_VALUES.fullmatch(value):
        return value
    return ",".join(one_value(key, part) for part in split(value))


def without_sweep(key: str, value: str) -> str:
    """The value where a comma makes no sweep, but a list of categories; see `one_value`."""
    if key == CATEGORY and not value.startswith("[") and len(parts := [*split(value)]) > 1:
        value = f"[{','.join(parts)}]"
    return one_value(key, value)


def one_value(key: str, value: str) -> str:
    """The value of a name or path in Hydra's grammar."""
    if not value or QUOTED.fullmatch(value):
        return value
    if value.lower() == "null" and key not in NEVER_NULL:
        return value
    if key.rpartition(".")[2] in LISTS and value.startswith("[") and value.endswith("]"):
        return f"[{','.join(one_value(key, part) for part in split(value[1:-1]))}]"
    if "${" in value and is_interpolation(value):
        return quoted(value)
    if ESCAPE.search(value) and (read := hydras_text(value)) is not None:
        return literal(read)
    return literal(value)


def is_interpolation(value: str) -> bool:
    """Whether OmegaConf can read the ``${...}`` in the text."""
    try:
        parse_interpolation(value)
    except GrammarParseError:
        return False
    return True


def hydras_text(value: str) -> str | None:
    """What Hydra makes of a value; None if that is no text."""
    try:
        read = OverridesParser.create().parse_override(f"key={value}").value()
    except HydraException:
        return None
    return read if isinstance(read, str) else None


def split(text: str) -> Iterator[str]:
    """The parts between commas that are in no quotes or brackets, without blanks around them."""
    part, quote, depth, escaped = "", "", 0, False
    for character in text:
        if character == "," and not (quote or depth or escaped):
            yield part.strip()
            part = ""
            continue
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = True
        elif quote:
            quote = "" if character == quote else quote
        elif character in "'\"" and not part.strip():
            quote = character
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            depth = max(0, depth - 1)
        part += character
    yield part.strip()


def require_text(key: str, value: object) -> None:
    """Refuse a number that a config file has where a name belongs.

    Raises:
        UserError: such as ``category: 1.10``, which YAML reads as 1.1.
    """
    if isinstance(value, bool | int | float):
        raise UserError(
            f"{key}: a config file has the number or switch {value} where a name belongs; put it "
            "in quotes there"
        )


def typed_key(word: str) -> str | None:
    """The key that an override sets, without prefix and package; None if it sets none."""
    found = WORD.fullmatch(word)
    return found["key"] if found else None
