"""What ``twistd xmpppush`` takes on its command line."""

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

from twisted.python import usage

from xmpppush import logs
from xmpppush.config.reader import load
from xmpppush.config.sections import Config
from xmpppush.errors import ConfigError

DEFAULT_CONFIG = "etc/server.ini"


def refuse(problems: Iterable[str]) -> NoReturn:
    """Say on standard error, a line each, why the server does not start; ends the process with 1."""
    for problem in problems:
        print(problem, file=sys.stderr)
    raise SystemExit(1)


class Options(usage.Options):
    """
    The options of ``twistd xmpppush``.

    The file is read here, before twistd makes a service, forks or opens a port, and relative to
    the folder the operator is in (twistd moves to its ``--rundir`` later).

    Attributes:
        configuration: The whole configuration, once the options are parsed.
    """

    longdesc = "Run the XMPP push server. 'xmpppush check-config' checks a configuration without running it."
    optParameters = [["config", "c", DEFAULT_CONFIG, "The configuration, an INI file."]]
    optFlags = [["take-over", None, "Take the place of the server that runs with this configuration."]]

    configuration: Config

    def postOptions(self) -> None:
        try:
            self.configuration = load(Path(self["config"]), os.environ)
        except ConfigError as error:
            refuse(error.problems)
        self._choose_log()

    def _choose_log(self) -> None:
        """Our log format and level, unless twistd was told of another way to log."""
        twistd = self.parent
        if twistd is None or twistd.get("logger") or twistd.get("syslog"):
            return
        server = self.configuration.server
        foreground, rundir = bool(twistd.get("nodaemon")), twistd.get("rundir") or "."
        logs.choose(
            server.log_format,
            server.log_level,
            logs.twistd_stream(twistd.get("logfile"), foreground, rundir),
        )
        twistd["logger"] = "xmpppush.logs.chosen"  # twistd takes a name here, and looks it up
