"""Settings: each declared once, each value with its source.

Precedence: a call (``config.set``) > the environment > a file > the default. The file is the nearest
``tensorgrad.toml``, or ``pyproject.toml`` with a table ``[tool.tensorgrad]``, from the working directory upward::

    # tensorgrad.toml                      # pyproject.toml
    backend = "numpy"                      [tool.tensorgrad]
    num_threads = 2                        backend = "numpy"

Environment and file are read once, at the first question; ``reload()`` reads them again. An unknown key, value or
``TENSORGRAD_*`` variable raises ConfigError and lists the valid ones: a typo must not be a setting silently left out.

Example:
    >>> from tensorgrad import config
    >>> config.set("num_threads", 2)
    >>> config.get("num_threads"), config.source("num_threads")
    (2, 'call')
    >>> config.unset("num_threads")
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from tensorgrad.errors import ConfigError

PREFIX = "TENSORGRAD_"
# Read by setup.py while the extension is built; harmless, and often still set, at run time.
BUILD_VARIABLES = ("TENSORGRAD_NO_EXTENSION", "TENSORGRAD_BUILD_DIR")


class Row(NamedTuple):
    """One line of ``table()``."""

    name: str
    value: Any
    source: str
    env: str
    valid: str
    doc: str


class Setting:
    """The declaration of one setting: ``parse`` turns a given value into the kept one or raises ValueError."""

    # Not a dataclass: writing the methods of one costs more than the rest of this module's import.
    def __init__(
        self, name: str, default: Any, parse: Callable[[Any], Any], valid: Callable[[], str], env: str, doc: str
    ) -> None:
        self.name, self.default, self.parse, self.valid, self.env, self.doc = name, default, parse, valid, env, doc


_settings: dict[str, Setting] = {}
_calls: dict[str, Any] = {}
_resolved: dict[str, tuple[Any, str]] = {}  # value, source
_file: tuple[str, dict[str, Any]] | None = None
_file_was_read = False
_watchers: dict[str, list[Callable[[Any], None]]] = {}
_lock = threading.RLock()


def setting(
    name: str,
    *,
    default: Any,
    doc: str,
    choices: Iterable[str] | Callable[[], Iterable[str]] | None = None,
    parse: Callable[[Any], Any] | None = None,
    valid: str | None = None,
    env: str | None = None,
) -> Setting:
    """Declare a setting, given by its ``choices`` or by a ``parse`` function with ``valid`` saying what that takes.

    Args:
        choices: the values allowed, or a function giving them when they are first needed.
        parse: turns what was given (a string from the environment, a TOML value, anything from a call) into the value;
            raises ValueError if it can't.
        valid: the values ``parse`` takes, in words.
        env: the environment variable, ``TENSORGRAD_<NAME>`` unless told.
    Raises: ConfigError if the name is taken.
    """
    if name in _settings:
        raise ConfigError(f"the setting {name!r} is declared twice")
    if (choices is None) == (parse is None):
        raise ConfigError(f"the setting {name!r} needs either choices or parse")
    if choices is not None:
        names: Callable[[], Iterable[str]] = choices if callable(choices) else lambda: choices

        def one_of(value: Any) -> str:
            if isinstance(value, str) and value in names():
                return value
            raise ValueError

        declared = Setting(name, default, one_of, lambda: ", ".join(names()), env or PREFIX + name.upper(), doc)
    else:
        assert parse is not None
        declared = Setting(name, default, parse, lambda: valid or "", env or PREFIX + name.upper(), doc)
    _settings[name] = declared
    return declared


def get(name: str) -> Any:
    """The value of a setting. Raises ConfigError for an unknown name or an invalid value in environment or file."""
    return (_resolved.get(name) or _resolve(name))[0]


def source(name: str) -> str:
    """Where the value comes from: ``call``, ``environment TENSORGRAD_X``, ``file /path/x.toml`` or ``default``."""
    return (_resolved.get(name) or _resolve(name))[1]


def set(name: str, value: Any) -> None:
    """Give a setting a value for this process; it wins over environment and file, and whoever watches it is told.

    Raises: ConfigError for an unknown name, or a value the setting does not take; the old value then stays.
    """
    declared = _declared(name, "config.set")
    parsed = _parse(declared, value, "call")
    with _lock:
        _calls[name] = parsed
        _resolved.pop(name, None)
    _tell(name, parsed)


def unset(name: str) -> None:
    """Take back ``set``: the value comes from environment, file or default again, and watchers are told."""
    _declared(name, "config.unset")
    with _lock:
        was_set = name in _calls
        _calls.pop(name, None)
        _resolved.pop(name, None)
    if was_set:
        _tell(name, get(name))


def watch(name: str, tell: Callable[[Any], None]) -> None:
    """Call ``tell(value)`` whenever a call changes the setting, for code that keeps the value somewhere of its own."""
    _declared(name, "config.watch")
    _watchers.setdefault(name, []).append(tell)


def reload() -> None:
    """Forget what was read from environment and file; what calls have set stays."""
    global _file, _file_was_read
    with _lock:
        _file, _file_was_read = None, False
        _resolved.clear()


def table() -> list[Row]:
    """Every setting with its value, source, environment variable, valid values and meaning, in order of declaration."""
    return [Row(s.name, get(s.name), source(s.name), s.env, s.valid(), s.doc) for s in _settings.values()]


def _resolve(name: str) -> tuple[Any, str]:
    declared = _declared(name, "config.get")
    with _lock:
        if name in _calls:
            found = _calls[name], "call"
        else:
            _check_environment()
            path, values = _file_values()
            if declared.env in os.environ:
                origin = f"environment {declared.env}"
                found = _parse(declared, os.environ[declared.env], origin), origin
            elif name in values:
                origin = f"file {path}"
                found = _parse(declared, values[name], origin), origin
            else:
                found = declared.default, "default"
        _resolved[name] = found
        return found


def _declared(name: str, asked_by: str) -> Setting:
    try:
        return _settings[name]
    except KeyError:
        raise ConfigError(_unknown(f"{asked_by}: no setting is called", name, _settings)) from None


def _unknown(what: str, name: str, valid: Iterable[str]) -> str:
    import difflib  # late: only an error needs it

    names = list(valid)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"{what} {name!r}.{hint} There are: {', '.join(names)}."


def _parse(declared: Setting, value: Any, origin: str) -> Any:
    try:
        return declared.parse(value)
    except ValueError:
        where = "" if origin == "call" else f" (from {origin})"
        raise ConfigError(
            f"{declared.name} can't be {value!r}{where}. It takes: {declared.valid()}. It says {declared.doc}."
        ) from None


def _tell(name: str, value: Any) -> None:
    for tell in _watchers.get(name, ()):
        tell(value)


def _check_environment() -> None:
    known = [s.env for s in _settings.values()]
    for variable in os.environ:
        if variable.startswith(PREFIX) and variable not in known and variable not in BUILD_VARIABLES:
            raise ConfigError(_unknown("no setting reads the environment variable", variable, known))


def _file_values() -> tuple[str, dict[str, Any]]:
    global _file, _file_was_read
    if not _file_was_read:
        start = _working_directory()
        _file = None if start is None else _find_file(start)
        _file_was_read = True
    return _file if _file is not None else ("", {})


def _working_directory() -> str | None:
    try:
        return os.getcwd()
    except FileNotFoundError:  # removed under the process: then there is no file to find
        return None


def _find_file(start: str) -> tuple[str, dict[str, Any]] | None:
    """The nearest file with settings from ``start`` upward, its keys checked; in one folder tensorgrad.toml wins."""
    folder = os.path.abspath(start)
    while True:
        path = os.path.join(folder, "tensorgrad.toml")
        if os.path.isfile(path):
            return path, _check_keys(_read_toml(path), path)
        path = os.path.join(folder, "pyproject.toml")
        if os.path.isfile(path):
            tools = _read_toml(path).get("tool", {})
            if "tensorgrad" in tools:
                return path, _check_keys(tools["tensorgrad"], f"{path} [tool.tensorgrad]")
        parent = os.path.dirname(folder)
        if parent == folder:
            return None
        folder = parent


def _read_toml(path: str) -> dict[str, Any]:
    # Imported here, not above: most processes have no file to read and should not pay for the parser.
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}") from None


def _check_keys(values: Any, where: str) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise ConfigError(f"{where} must be a table of settings, not {values!r}")
    for key in values:
        if key not in _settings:
            raise ConfigError(_unknown(f"{where}: no setting is called", key, _settings))
    return values


def _whole_number(value: Any) -> int:
    if isinstance(value, str):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 4096:
        raise ValueError
    return value


def _yes_or_no(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    words = {"1": True, "true": True, "on": True, "yes": True, "0": False, "false": False, "off": False, "no": False}
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    raise ValueError


def _backend_names() -> list[str]:
    from tensorgrad.backends import registry  # late: the registry itself may be asking for a setting

    return ["auto", *registry.names()]


setting("backend", default="auto", choices=_backend_names, doc="who computes on the CPU")
setting(
    "num_threads",
    default=0,
    parse=_whole_number,
    valid="a whole number from 0 to 4096; 0 means as many as the process may run on",
    doc="how many threads share the work of one op on the CPU",
)
setting(
    "cpu",
    default="auto",
    choices=("auto", "baseline", "avx2", "avx512", "amx"),
    doc="which instruction set the C++ kernels use; auto takes the best the processor has; amx is avx512 and tiles",
)
setting(
    "machine_code",
    default=True,
    parse=_yes_or_no,
    valid="true or false",
    doc="whether the C++ kernels compile formulas in memory where they can, or run them loop by loop",
)
setting(
    "tape",
    default="auto",
    choices=("auto", "python"),
    doc="whether the tape's inner loops run in C where they were built, or in Python; read when the package is loaded",
)
setting(
    "default_dtype",
    default="float32",
    choices=("float16", "bfloat16", "float32", "float64"),
    doc="the dtype of new floating-point tensors",
)
setting(
    "cuda_checks",
    default="now",
    choices=("now", "later"),
    doc="when the host looks whether indices on a GPU are in range: at the call, or when it waits for the GPU anyway",
)
setting(
    "anomaly",
    default=False,
    parse=_yes_or_no,
    valid="true or false",
    doc="whether backward names the forward line that made a NaN",
)
