"""Settings: precedence, sources, and an error for everything that is not one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tensorgrad import config
from tensorgrad.errors import ConfigError


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    """Each test starts in an empty folder, with no variable set and nothing read, and leaves no call behind."""
    for variable in list(os.environ):
        if variable.startswith(config.PREFIX):
            monkeypatch.delenv(variable)
    before = {row.name: row.value for row in config.table() if row.source == "call"}
    for name in before:
        config.unset(name)
    monkeypatch.chdir(tmp_path)
    config.reload()
    yield
    monkeypatch.undo()  # first: what a test left in environment or file may not even be readable
    config.reload()
    for row in config.table():
        config.unset(row.name)
    for name, value in before.items():
        config.set(name, value)


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    config.reload()
    return path


def setenv(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    config.reload()


def test_default():
    assert config.get("num_threads") == 0
    assert config.source("num_threads") == "default"


def test_precedence_call_over_environment_over_file_over_default(monkeypatch, tmp_path):
    path = write(tmp_path / "tensorgrad.toml", "num_threads = 2")
    assert (config.get("num_threads"), config.source("num_threads")) == (2, f"file {path}")
    setenv(monkeypatch, "TENSORGRAD_NUM_THREADS", "3")
    assert config.get("num_threads") == 3
    assert config.source("num_threads") == "environment TENSORGRAD_NUM_THREADS"
    config.set("num_threads", 4)
    assert (config.get("num_threads"), config.source("num_threads")) == (4, "call")
    config.unset("num_threads")
    assert config.get("num_threads") == 3
    monkeypatch.delenv("TENSORGRAD_NUM_THREADS")
    config.reload()
    assert config.get("num_threads") == 2
    path.unlink()
    config.reload()
    assert config.source("num_threads") == "default"
    config.set("num_threads", 1)
    config.unset("num_threads")  # tells the backend to take as many threads as it began with


def test_pyproject_table(tmp_path):
    path = write(
        tmp_path / "pyproject.toml", '[project]\nname = "mine"\n[tool.tensorgrad]\ndefault_dtype = "float64"\n'
    )
    assert config.get("default_dtype") == "float64"
    assert config.source("default_dtype") == f"file {path}"


def test_file_is_found_upward_and_the_nearest_wins(monkeypatch, tmp_path):
    far = write(tmp_path / "tensorgrad.toml", "num_threads = 5")
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    write(tmp_path / "a" / "pyproject.toml", '[project]\nname = "no settings here"\n')
    assert config.source("num_threads") == f"file {far}"
    near = write(tmp_path / "a" / "pyproject.toml", "[tool.tensorgrad]\nnum_threads = 6\n")
    assert (config.get("num_threads"), config.source("num_threads")) == (6, f"file {near}")


def test_own_file_wins_over_pyproject_in_one_folder(tmp_path):
    write(tmp_path / "pyproject.toml", "[tool.tensorgrad]\nnum_threads = 6\n")
    write(tmp_path / "tensorgrad.toml", "num_threads = 5")
    assert config.get("num_threads") == 5


@pytest.mark.parametrize("word, value", [("1", True), ("true", True), ("Off", False), ("no", False)])
def test_yes_or_no_from_the_environment(monkeypatch, word, value):
    setenv(monkeypatch, "TENSORGRAD_ANOMALY", word)
    assert config.get("anomaly") is value


@pytest.mark.parametrize(
    "name, value",
    [
        ("num_threads", -1),
        ("num_threads", 5000),
        ("num_threads", 2.0),
        ("num_threads", True),
        ("num_threads", "two"),
        ("num_threads", None),
        ("cpu", "sse"),
        ("default_dtype", "int32"),
        ("anomaly", "maybe"),
        ("anomaly", 1),
        ("backend", "nonsense"),
        ("backend", 3),
    ],
)
def test_invalid_value_raises_lists_valid_ones_and_keeps_the_old(name, value):
    old = config.get(name)
    with pytest.raises(ConfigError, match=r"can't be .*It takes: ") as raised:
        config.set(name, value)
    assert repr(value) in str(raised.value)
    assert (config.get(name), config.source(name)) == (old, "default")


def test_unknown_backend_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"auto.*numpy"):
        config.set("backend", "nonsense")


def test_unknown_name_suggests():
    for ask in (config.get, config.source, config.unset, lambda name: config.set(name, 1)):
        with pytest.raises(ConfigError, match=r"'num_thread'.*Did you mean num_threads\?.*There are: backend, "):
            ask("num_thread")


def test_unknown_key_in_file(tmp_path):
    path = write(tmp_path / "tensorgrad.toml", 'bakend = "numpy"')
    with pytest.raises(ConfigError, match=r"bakend.*Did you mean backend\?") as raised:
        config.get("num_threads")
    assert str(path) in str(raised.value)
    config.set("num_threads", 1)  # a call needs neither file nor environment
    assert config.get("num_threads") == 1


def test_unknown_variable(monkeypatch):
    setenv(monkeypatch, "TENSORGRAD_BAKEND", "numpy")
    with pytest.raises(ConfigError, match=r"TENSORGRAD_BAKEND.*Did you mean TENSORGRAD_BACKEND\?"):
        config.get("num_threads")


def test_invalid_value_in_environment_or_file_names_its_origin(monkeypatch, tmp_path):
    path = write(tmp_path / "tensorgrad.toml", 'num_threads = "many"')
    with pytest.raises(ConfigError, match=r"from file .*tensorgrad\.toml") as raised:
        config.get("num_threads")
    assert str(path) in str(raised.value)
    setenv(monkeypatch, "TENSORGRAD_NUM_THREADS", "lots")
    with pytest.raises(ConfigError, match="from environment TENSORGRAD_NUM_THREADS"):
        config.get("num_threads")


@pytest.mark.parametrize("content", [b"num_threads = ", b"\xff\xfe", b"[a"])
def test_broken_file(tmp_path, content):
    (tmp_path / "tensorgrad.toml").write_bytes(content)
    config.reload()
    with pytest.raises(ConfigError, match=r"tensorgrad\.toml is not valid TOML"):
        config.get("backend")


def test_table_of_settings_must_be_a_table(tmp_path):
    write(tmp_path / "pyproject.toml", "[tool]\ntensorgrad = 3\n")
    with pytest.raises(ConfigError, match="must be a table"):
        config.get("backend")


def test_watchers_hear_of_calls_only_and_after_validation():
    heard = []
    config.watch("num_threads", heard.append)
    try:
        config.set("num_threads", 7)
        with pytest.raises(ConfigError):
            config.set("num_threads", -7)
        config.unset("num_threads")
        config.unset("num_threads")
        assert heard == [7, 0]
    finally:
        config._watchers["num_threads"].remove(heard.append)


def test_table_has_every_setting_with_its_source():
    config.set("anomaly", True)
    rows = {row.name: row for row in config.table()}
    assert {"backend", "num_threads", "cpu", "default_dtype", "anomaly"} <= rows.keys()
    assert rows["anomaly"].value is True
    assert rows["anomaly"].source == "call"
    assert rows["cpu"].env == "TENSORGRAD_CPU"
    assert all(row.valid and row.doc for row in rows.values())


def test_declaring_twice_or_without_values_raises():
    with pytest.raises(ConfigError, match="declared twice"):
        config.setting("cpu", default="auto", choices=("auto",), doc="again")
    with pytest.raises(ConfigError, match="either choices or parse"):
        config.setting("nothing", default=0, doc="says nothing of its values")


def test_a_working_directory_that_is_gone_is_no_error(monkeypatch, tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    config.reload()
    assert config.source("num_threads") == "default"


def test_toml_parser_is_not_imported_without_a_file(tmp_path):
    code = "import sys, tensorgrad; tensorgrad.config.get('backend'); sys.exit('tomllib' in sys.modules)"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(config.PREFIX)}
    environment["PYTHONPATH"] = os.path.dirname(os.path.dirname(config.__file__))  # installed or not
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True, timeout=60)
