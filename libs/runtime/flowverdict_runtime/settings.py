"""Settings: environment variables, parsed once into a frozen dataclass.

A service declares a frozen dataclass whose fields are created by `setting`. For example, the field
`window_seconds` is read from `FLOWVERDICT_WINDOW_SECONDS`, or from the file that
`FLOWVERDICT_WINDOW_SECONDS_FILE` names (for container secrets). `describe` lists all settings for
`--help`.
"""

import dataclasses
import difflib
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar
from urllib.parse import urlsplit

__all__ = [
    "Address",
    "Parser",
    "Settings",
    "SettingsError",
    "address",
    "choice",
    "describe",
    "docker_url",
    "http_url",
    "integer",
    "load",
    "nats_url",
    "number",
    "optional_http_url",
    "optional_text",
    "redact",
    "setting",
    "text",
    "unknown_settings",
]

PREFIX = "FLOWVERDICT_"
_LARGEST_FILE = 1 << 16


class Settings(Protocol):
    """A frozen dataclass whose fields are created by `setting`."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]


S = TypeVar("S", bound=Settings)


class SettingsError(ValueError):
    """A variable is missing or invalid; the message gives its name, value and allowed values."""


@dataclasses.dataclass(frozen=True, slots=True)
class Parser:
    """Turns a variable's text into a value; `allowed` describes the accepted values."""

    allowed: str
    parse: Callable[[str], Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def _parse_text(value: str) -> str:
    if not value.strip():
        raise ValueError
    return value.strip()


def _parse_nats_url(value: str) -> str:
    for url in value.split(","):
        parts = urlsplit(url.strip())
        if parts.scheme not in ("nats", "tls", "ws", "wss") or not parts.hostname:
            raise ValueError
        _ = parts.port  # raises ValueError if it is invalid
    return value.strip()


def _parse_http_url(value: str) -> str:
    parts = urlsplit(value.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError
    _ = parts.port  # raises ValueError if it is invalid
    return value.strip().rstrip("/")


def _parse_docker_url(value: str) -> str:
    parts = urlsplit(value.strip())
    if not (parts.scheme == "tcp" and parts.hostname) and not (
        parts.scheme == "unix" and parts.path.startswith("/")
    ):
        raise ValueError
    _ = parts.port  # raises ValueError if it is invalid
    return value.strip()


def _parse_address(value: str) -> Address:
    host, _, port = value.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ValueError
    return Address(host.removeprefix("[").removesuffix("]"), int(port))


text = Parser("any text", _parse_text)
nats_url = Parser("nats://HOST:PORT, or several separated by commas", _parse_nats_url)
http_url = Parser("http://HOST:PORT or https://HOST", _parse_http_url)
optional_http_url = Parser(
    "http://HOST:PORT or https://HOST", lambda value: _parse_http_url(value) if value else ""
)
docker_url = Parser("unix:///PATH or tcp://HOST:PORT", _parse_docker_url)
optional_text = Parser("any text", str.strip)
address = Parser("HOST:PORT, port 0 for any free port", _parse_address)


def number(low: float, high: float) -> Parser:
    """A number from `low` to `high`, inclusive."""

    def parse(value: str) -> float:
        parsed = float(value)
        if not low <= parsed <= high:
            raise ValueError
        return parsed

    return Parser(f"a number from {low:g} to {high:g}", parse)


def integer(low: int, high: int) -> Parser:
    """A whole number from `low` to `high`, inclusive."""

    def parse(value: str) -> int:
        parsed = int(value)
        if not low <= parsed <= high:
            raise ValueError
        return parsed

    return Parser(f"a whole number from {low} to {high}", parse)


def choice(*names: str) -> Parser:
    """One of `names`."""

    def parse(value: str) -> str:
        if value not in names:
            raise ValueError
        return value

    return Parser(" or ".join(names), parse)


def setting(parser: Parser, default: str | None, meaning: str) -> Any:
    """A dataclass field read from the environment; required if `default` is None."""
    return dataclasses.field(
        metadata={"parser": parser, "default": default, "meaning": meaning},
    )


def load(cls: type[S], environ: Mapping[str, str] = os.environ) -> S:
    """The settings in `environ`; an empty variable counts as unset.

    Raises:
        SettingsError: for the first variable or file that is missing or invalid.
    """
    values = {}
    for field in dataclasses.fields(cls):
        name = PREFIX + field.name.upper()
        parser: Parser = field.metadata["parser"]
        value = environ.get(name)
        given = value or _from_file(name, environ) or field.metadata["default"]
        if given is None:
            raise SettingsError(f"{name} is not set; it must be {field.metadata['meaning']}")
        try:
            values[field.name] = parser.parse(given)
        except ValueError:
            # A value read from a file is usually a secret, and so is whatever precedes an @.
            problem = f"is {_without_password(value)!r}" if value else "is invalid in its file"
            raise SettingsError(f"{name} {problem}; it takes {parser.allowed}") from None
    return cls(**values)


def unknown_settings(
    cls: type[Settings], environ: Mapping[str, str] = os.environ, *, only_misspelt: bool = False
) -> list[str]:
    """A sentence about each variable with our prefix that is not one of the settings of `cls`.

    Args:
        cls: the settings.
        environ: the variables.
        only_misspelt: leave out those that are not like any of them: a shell may have those of
            other commands.
    """
    known = {PREFIX + field.name.upper() for field in dataclasses.fields(cls)}
    known |= {f"{name}_FILE" for name in known}
    sentences = []
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in known:
            near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.85)
            if only_misspelt and not near:
                continue
            hint = f"; did you mean {near[0]}?" if near else ""
            sentences.append(f"{name} is not a setting of this service and is ignored{hint}")
    return sentences


_NO_SCHEME = re.compile(r"(?<![^\s'\"])[^\s'\"/]+:\S*@")


def redact(text_with_urls: str) -> str:
    """A text with URLs, without any user name and password in them.

    Whatever precedes the last @ can be part of one, also what would not be by RFC 3986, or if the
    scheme is missing.
    """
    return ",".join(
        _NO_SCHEME.sub("", re.sub(r"//\S*@", "//", each)) for each in text_with_urls.split(",")
    )


def _without_password(value: str) -> str:
    begin = "//" if "//" in value else ""
    return re.sub(rf"{begin}.*@", f"{begin}…@", value, count=1)[:200]


def _from_file(name: str, environ: Mapping[str, str]) -> str:
    path = environ.get(f"{name}_FILE")
    if not path:
        return ""
    try:
        return _one_line(Path(path))
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise SettingsError(f"{name}_FILE is {path!r}: {why}") from None


def _one_line(path: Path) -> str:
    if path.exists() and not path.is_file() and not path.is_dir():
        raise ValueError("it is not a file")
    with path.open("rb") as file:
        content = file.read(_LARGEST_FILE + 1)
    try:
        text = content.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise ValueError("it is not text") from None
    if not text or len(content) > _LARGEST_FILE or not text.isprintable():
        raise ValueError("it is not one line of text")
    return text


def describe(cls: type[Settings]) -> str:
    """The settings of `cls`, formatted for `--help`."""
    lines = ["settings (environment variables; NAME_FILE names a file containing the value):"]
    for field in dataclasses.fields(cls):
        default = field.metadata["default"]
        shown = "required" if default is None else f"default {default}" if default else "not set"
        lines += [
            f"  {PREFIX}{field.name.upper()}",
            f"      {field.metadata['meaning']}",
            f"      {field.metadata['parser'].allowed}; {shown}",
        ]
    return "\n".join(lines)
