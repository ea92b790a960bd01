"""
MongoosePush's ``PUSH_*`` environment variables, laid over ``[mongoosepush]`` and its pools.

They count only where there is a ``[mongoosepush]`` section: a bridge to another machine's MongoosePush may
well run in an environment made for that one. An empty variable is as good as none (compose files have them).
"""

from collections.abc import Mapping

from xmpppush.config.keys import Entry, Source
from xmpppush.config.values import BadValue, boolean

Entries = dict[str, dict[str, Entry]]

_SERVICE = {
    "PUSH_HTTPS_CERTFILE": ("mongoosepush", "certfile"),
    "PUSH_HTTPS_KEYFILE": ("mongoosepush", "keyfile"),
    "PUSH_LOGLEVEL": ("server", "log_level"),
}
_FCM = {
    "PUSH_FCM_APP_FILE": ("mongoosepush:fcm:default", "appfile"),
    "PUSH_FCM_ENDPOINT": ("mongoosepush:fcm:default", "endpoint"),
}
_CERTIFICATE = {"CERT": "certfile", "KEY": "keyfile"}
_TOKEN = {"KEY_ID": "key_id", "TEAM_ID": "team_id", "P8_TOKEN": "p8_file"}
_OTHER = {"ENDPOINT": "endpoint", "USE_2197": "use_2197", "DEFAULT_TOPIC": "default_topic"}

LEGACY_KEY = (
    "Google has switched the legacy FCM server keys off; make a service account key in the Firebase console "
    "and name its JSON file in PUSH_FCM_APP_FILE or as 'appfile' of [mongoosepush:fcm:default]"
)


def lay_over(sections: Entries, source: Source) -> frozenset[str]:
    """
    Put what the environment says into ``sections``, over what the file says.

    Returns:
        The services, of ``fcm`` and ``apns``, that are switched off. Their pools are gone from ``sections``.
    """
    if "mongoosepush" not in sections:
        return frozenset()
    environ = {name: value for name, value in source.environ.items() if name.startswith("PUSH_") and value}
    if "PUSH_FCM_APP_KEY" in environ:
        source.problem("environment variable PUSH_FCM_APP_KEY", LEGACY_KEY)
    off = frozenset(
        service
        for service in ("fcm", "apns")
        if not _enabled(f"PUSH_{service.upper()}_ENABLED", environ, source)
    )
    _put(sections, _SERVICE, environ)
    if "fcm" not in off:
        _put(sections, _FCM, environ)
    if "apns" not in off:
        for mode in ("prod", "dev"):
            _put_apns(sections, mode, environ)
    for name in [name for name in sections if name.startswith(tuple(f"mongoosepush:{s}:" for s in off))]:
        del sections[name]
    return off


def _enabled(variable: str, environ: Mapping[str, str], source: Source) -> bool:
    try:
        return boolean(environ.get(variable, "yes"))
    except BadValue as error:
        source.problem(f"environment variable {variable}", f"the value {error}")
        return True


def _put(sections: Entries, table: Mapping[str, tuple[str, str]], environ: Mapping[str, str]) -> None:
    for variable, (section, key) in table.items():
        if variable in environ:
            sections.setdefault(section, {})[key] = Entry(environ[variable], variable)


def _put_apns(sections: Entries, mode: str, environ: Mapping[str, str]) -> None:
    """Pool ``prod`` or ``dev``; credentials of one kind replace the file's of the other."""
    name, prefix = f"mongoosepush:apns:{mode}", f"PUSH_APNS_{mode.upper()}_"
    is_new = name not in sections
    for kind, other in ((_CERTIFICATE, _TOKEN), (_TOKEN, _CERTIFICATE)):
        if any(prefix + word in environ for word in kind):
            for key in other.values():
                sections.get(name, {}).pop(key, None)
    keys = {**_CERTIFICATE, **_TOKEN, **_OTHER}
    _put(sections, {prefix + word: (name, key) for word, key in keys.items()}, environ)
    if is_new and name in sections:
        sections[name]["mode"] = Entry(mode, f"{prefix}*")
