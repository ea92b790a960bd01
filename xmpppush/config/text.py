"""INI text to sections of raw values, with every mistake in its form; what the values mean comes later."""

import re
from configparser import (
    DuplicateOptionError,
    DuplicateSectionError,
    MissingSectionHeaderError,
    ParsingError,
    RawConfigParser,
)

MAX_DUPLICATES = 20
_REPEATED = "repeated in line "

Sections = dict[str, dict[str, str]]


class _Parser(RawConfigParser):
    """The usual dialect without interpolation, defaults section and text behind a section's name."""

    SECTCRE = re.compile(r"\[(?P<header>[^\]]+)\]\s*$")

    def __init__(self) -> None:
        super().__init__(inline_comment_prefixes=(";",), empty_lines_in_values=False, default_section="")


def parse_ini(text: str) -> tuple[Sections, list[tuple[str, str]]]:
    """
    Sections in the order of the file, keys in lower case.

    Returns:
        What could be read, and each problem's place and description. They name line numbers and never quote
        a line: `configparser`'s own messages do, and what they quote may be a password.
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    problems: list[tuple[str, str]] = []
    while len(problems) < MAX_DUPLICATES:
        parser = _Parser()
        try:
            parser.read_string("\n".join(lines))
        except DuplicateSectionError as error:
            number = error.lineno or 1
            problems.append((f"[{error.section}]", f"this section is there twice, again in line {number}"))
            # Kept apart under a name of its own, so that its keys neither count nor add to another section.
            lines[number - 1] = f"[{_REPEATED}{number}]"
            continue
        except DuplicateOptionError as error:
            number = error.lineno or 1
            problems.append(
                (f"[{error.section}] {error.option}", f"this key is there twice, again in line {number}")
            )
            lines[number - 1] = ""
            continue
        except MissingSectionHeaderError as error:
            return {}, [*problems, (f"line {error.lineno}", "there is text before the first [section]")]
        except ParsingError as error:
            for number, _ in error.errors:
                problems.append((f"line {number}", "neither a [section] nor a 'key = value' line"))
        names = [name for name in parser.sections() if not name.startswith(_REPEATED)]
        return {name: dict(parser.items(name)) for name in names}, problems
    return {}, problems
