"""The launcher's sentences in the person's language, read before any YAML reader is installed."""

import json
import os
import sys

from launcher import INSTALLED, ROOT, WINDOWS

LOCALES = os.path.join(ROOT, "core", "locales")


def sentences(language_code):
    """Return the catalogue core/locales/<code>/launch.yaml, or the section launch of core/locales/<code>.yaml.

    Read as lines of `key: "text"`, because no YAML reader is installed yet.
    """
    alone = os.path.join(LOCALES, language_code, "launch.yaml")
    catalogue, within = {}, os.path.exists(alone)
    with open(alone if within else os.path.join(LOCALES, language_code + ".yaml"), encoding="utf-8") as file:
        for line in file:
            if line[0] not in " #\n" and line.rstrip().endswith(":"):
                within = line.rstrip() == "launch:"
            key, colon, value = line.strip().partition(": ")
            if within and colon and not line.startswith("#"):
                catalogue[key] = json.loads(value)
    return catalogue


class Forgiving(dict):
    def __missing__(self, name):
        return "{" + name + "}"


def language():
    """Return the supported language of LORA_GARAGE_LANG, the locale or Windows' display language, else "en"."""
    for name in ("LORA_GARAGE_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        if os.environ.get(name):
            code = os.environ[name][:2].lower()
            return code if any(os.path.exists(os.path.join(LOCALES, code + end)) for end in ("", ".yaml")) else "en"
    if WINDOWS:
        import ctypes

        return {0x04: "zh", 0x07: "de"}.get(ctypes.windll.kernel32.GetUserDefaultUILanguage() & 0x3FF, "en")
    return "en"


def say_text(key, **values):
    return as_typed(sentences(language())[key].format_map(Forgiving(values)))


def as_typed(text):
    """Return text with the command as it is typed where the wheel is installed."""
    return text.replace("python launch.py", "lora-garage") if INSTALLED else text


def say(key, to=None, **values):
    print(say_text(key, **values), file=to or sys.stdout, flush=True)
