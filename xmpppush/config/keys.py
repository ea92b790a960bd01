"""One section of ``server.ini``, read key by key; what nobody asked for is a mistake."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from attrs import field, frozen

from xmpppush.config.values import BadValue, nearest, printable, shown

T = TypeVar("T")

MAX_SECRET = 64 * 1024
_VARIABLE = re.compile(r"\$(\$\{|\{([^{}]*)\})")
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@frozen
class Entry:
    """
    A raw value.

    Attributes:
        text: As written; may be a secret.
        variable: The ``PUSH_*`` environment variable it came from, or ``""``: the file.
    """

    text: str = field(repr=False)
    variable: str = ""


@frozen
class Source:
    """
    Where values come from and problems go to.

    Attributes:
        label: The file's name as the operator gave it.
        folder: Where relative paths begin.
        problems: Grows while the file is read.
    """

    label: str
    folder: Path
    environ: Mapping[str, str] = field(repr=False)
    problems: list[str] = field(factory=list)

    def problem(self, place: str, text: str) -> None:
        """Note one line: file, place, what is wrong."""
        self.problems.append(printable(f"{self.label}: {place}: {text}"))

    def expand(self, raw: str) -> str:
        """
        The value that ``raw`` stands for: ``file:PATH`` is the file's content without its last line break,
        ``${NAME}`` is from the environment, ``$${`` is ``${`` itself.

        A ``file:`` that comes out of the environment is no reference: what is substituted is only text.

        Raises:
            BadValue: No such variable or file; the text repeats no content.
        """
        if raw.startswith("file:"):
            return self._content(self._substitute(raw.removeprefix("file:").strip()))
        return self._substitute(raw)

    def _substitute(self, text: str) -> str:
        def value(match: re.Match[str]) -> str:
            if match[1] == "${":
                return "${"
            if not _VARIABLE_NAME.fullmatch(match[2]):
                raise BadValue("has a ${...} without the name of an environment variable in it")
            if match[2] not in self.environ:
                raise BadValue(f"needs the environment variable {match[2]}, which is not set")
            return self.environ[match[2]]

        return _VARIABLE.sub(value, text)

    def _content(self, name: str) -> str:
        try:
            with self._secret_path(name).open("rb") as file:
                content = file.read(MAX_SECRET + 1)
            if len(content) > MAX_SECRET:
                raise BadValue(f"names a file of more than {MAX_SECRET} bytes, which is no secret")
            text = content.decode()
        except OSError as error:
            raise BadValue(f"names a file that cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise BadValue("names a file that is not UTF-8") from None
        return text.removesuffix("\n").removesuffix("\r")

    def _secret_path(self, name: str) -> Path:
        """systemd's credentials come first: they are given by name, for this service alone."""
        if not name or "\0" in name:
            raise BadValue("names no file behind 'file:'")
        credentials = self.environ.get("CREDENTIALS_DIRECTORY", "")
        if credentials and not Path(name).is_absolute() and (path := Path(credentials) / name).is_file():
            return path
        return self.folder / name


class Keys:
    """
    A section's keys, each taken once by whoever knows what it means.

    A value that cannot be used becomes a problem of the source, and the default takes its place, so that
    the reading goes on and finds all problems of a file.
    """

    def __init__(self, source: Source, section: str, entries: Mapping[str, Entry]) -> None:
        self._source = source
        self._entries = dict(entries)
        self._known: list[str] = []
        self._prefixes: list[str] = []
        self.section = section

    def take(self, key: str, parse: Callable[[str], T], default: T, secret: bool = False) -> T:
        """
        The value of ``key``, ``default`` where it is absent or unusable.

        Args:
            secret: Not to be shown in a problem. What comes from the environment or a file never is.
        """
        self._known.append(key)
        entry = self._entries.get(key)
        return default if entry is None else self._parse(key, entry, parse, default, secret)

    def demand(self, key: str, parse: Callable[[str], T], hint: str, secret: bool = False) -> T | None:
        """A key that has no default; ``None`` with a problem noted. ``hint`` says what it could be."""
        if key not in self._entries:
            self._known.append(key)
            self.problem(key, f"missing; {hint}")
            return None
        return self.take(key, parse, None, secret)

    def take_all(
        self, prefix: str, parse_rest: Callable[[str], str], parse: Callable[[str], T]
    ) -> dict[str, T]:
        """The keys that begin with ``prefix``, by what follows it; their values are secrets."""
        self._prefixes.append(prefix)
        values: dict[str, T] = {}
        for key in [key for key in self._entries if key.startswith(prefix)]:
            self._known.append(key)
            try:
                rest = parse_rest(key.removeprefix(prefix))
            except BadValue as error:
                self.problem(key, f"what follows '{prefix}' {error}")
                continue
            value = self._parse(key, self._entries[key], parse, None, secret=True)
            if value is not None:
                values[rest] = value
        return values

    def given(self, key: str) -> bool:
        """Whether the key is there, in the file or the environment."""
        return key in self._entries

    def problem(self, key: str, text: str) -> None:
        entry = self._entries.get(key)
        if entry is not None and entry.variable:
            self._source.problem(f"environment variable {entry.variable}", text)
        else:
            self._source.problem(f"[{self.section}] {key}" if key else f"[{self.section}]", text)

    def finish(self, hints: Mapping[str, str] | None = None) -> None:
        """
        Note the keys that nobody took.

        Args:
            hints: For keys that are known elsewhere: what to say in place of a suggestion.
        """
        known = list(dict.fromkeys(self._known))
        for key in self._entries:
            if key in known:
                continue
            if hints and key in hints:
                self.problem(key, hints[key])
            elif match := self._nearest(key, known):
                self.problem(key, f"no such key; did you mean '{match}'?")
            else:
                allowed = [*known, *(f"{prefix}DOMAIN" for prefix in self._prefixes)]
                self.problem(key, f"no such key; known here: {', '.join(allowed)}")

    def _nearest(self, key: str, known: list[str]) -> str | None:
        for prefix in self._prefixes:
            head, dot, rest = key.partition(".")
            if dot and nearest(head, [prefix.rstrip(".")]):
                return prefix + rest
        return nearest(key, known)

    def _parse(self, key: str, entry: Entry, parse: Callable[[str], T], default: T, secret: bool) -> T:
        visible = not (secret or entry.variable or "${" in entry.text or entry.text.startswith("file:"))
        try:
            return parse(entry.text if entry.variable else self._source.expand(entry.text))
        except BadValue as error:
            what = shown(error.part or entry.text) if visible else "the value"
            self.problem(key, f"{what} {error}")
            return default
