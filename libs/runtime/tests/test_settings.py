"""Settings from the environment."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from flowverdict_runtime.service_settings import NatsSettings
from flowverdict_runtime.settings import (
    Address,
    SettingsError,
    address,
    choice,
    describe,
    integer,
    load,
    nats_url,
    number,
    redact,
    setting,
    text,
    unknown_settings,
)


@dataclass(frozen=True)
class Example:
    """Settings of a service that is not there."""

    url: str = setting(text, None, "where it is")
    share: float = setting(number(0, 1), "0.5", "how much")
    count: int = setting(integer(1, 9), "3", "how many")
    mode: str = setting(choice("fast", "slow"), "fast", "how")
    listen: Address = setting(address, "127.0.0.1:1", "where")


def test_defaults_fill_what_is_not_set() -> None:
    assert load(Example, {"FLOWVERDICT_URL": "x"}) == Example(
        "x", 0.5, 3, "fast", Address("127.0.0.1", 1)
    )


def test_an_empty_variable_counts_as_not_set() -> None:
    assert load(Example, {"FLOWVERDICT_URL": "x", "FLOWVERDICT_COUNT": ""}).count == 3


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("SHARE", "1.5", "a number from 0 to 1"),
        ("SHARE", "nan", "a number from 0 to 1"),
        ("SHARE", "much", "a number from 0 to 1"),
        ("COUNT", "0", "a whole number from 1 to 9"),
        ("COUNT", "2.5", "a whole number from 1 to 9"),
        ("MODE", "medium", "fast or slow"),
        ("LISTEN", "9191", "HOST:PORT"),
        ("LISTEN", "host:99999", "HOST:PORT"),
    ],
)
def test_a_wrong_value_is_refused_with_its_name_itself_and_what_is_allowed(
    variable: str, value: str, allowed: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load(Example, {"FLOWVERDICT_URL": "x", f"FLOWVERDICT_{variable}": value})
    assert f"FLOWVERDICT_{variable}" in str(caught.value)
    assert repr(value) in str(caught.value)
    assert allowed in str(caught.value)


def test_a_missing_variable_is_named() -> None:
    with pytest.raises(SettingsError, match="FLOWVERDICT_URL is not set"):
        load(Example, {})


def test_an_ipv6_address_is_taken_with_or_without_brackets() -> None:
    environ = {"FLOWVERDICT_URL": "x", "FLOWVERDICT_LISTEN": "[::1]:80"}
    assert load(Example, environ).listen == Address("::1", 80)
    assert str(Address("::1", 80)) == "[::1]:80"


def test_help_names_every_variable_its_meaning_and_default() -> None:
    described = describe(Example)
    for words in ("FLOWVERDICT_URL", "where it is", "required", "FLOWVERDICT_COUNT", "default 3"):
        assert words in described


@pytest.mark.parametrize("url", ["http://x:1", "nats://", "nats://[", "nats://x:99999", "x:4222"])
def test_what_is_no_nats_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 # any is a refusal
        nats_url.parse(url)


def test_several_nats_servers_may_be_given() -> None:
    assert nats_url.parse("nats://a:4222,tls://b:4222") == "nats://a:4222,tls://b:4222"


def test_a_value_may_stand_in_a_file_and_an_unreadable_one_is_named(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text("nats://elsewhere:4222\n")
    given = {"FLOWVERDICT_NATS_URL_FILE": str(file)}
    assert load(NatsSettings, given).nats_url == "nats://elsewhere:4222"
    both = given | {"FLOWVERDICT_NATS_URL": "nats://here:4222"}
    assert load(NatsSettings, both).nats_url == "nats://here:4222"
    for wrong, why in ((tmp_path / "none", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(SettingsError, match=f"FLOWVERDICT_NATS_URL_FILE is .*{why}"):
            load(NatsSettings, {"FLOWVERDICT_NATS_URL_FILE": str(wrong)})
    file.write_bytes(b"\xef\xbb\xbfnats://elsewhere:4222\r\n")
    assert load(NatsSettings, given).nats_url == "nats://elsewhere:4222"
    for content, why in (
        (b"\xff", "it is not text"),
        (b"\n", "not one line"),
        (b"two\nlines", "not one line"),
        (b"x" * 100_000, "not one line"),
    ):
        file.write_bytes(content)
        with pytest.raises(SettingsError, match=why):
            load(NatsSettings, given)
    with pytest.raises(SettingsError, match="it is not a file"):
        load(NatsSettings, {"FLOWVERDICT_NATS_URL_FILE": "/dev/zero"})


def test_an_error_shows_no_password(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text("secret")
    for given in (
        {"FLOWVERDICT_NATS_URL_FILE": str(file)},
        {"FLOWVERDICT_NATS_URL": "nats://u:sec/secret@host:4222"},
    ):
        with pytest.raises(SettingsError) as error:
            load(NatsSettings, given)
        assert "secret" not in str(error.value)
        assert "nats://HOST:PORT" in str(error.value)


def test_a_variable_that_is_no_setting_is_named_with_the_one_that_was_meant() -> None:
    environ = dict.fromkeys(
        ("FLOWVERDICT_MODES", "FLOWVERDICT_URL_FILE", "FLOWVERDICT_GRAFANA_URL", "OTHER"), "x"
    )
    ignored = "is not a setting of this service and is ignored"
    assert unknown_settings(Example, environ) == [
        f"FLOWVERDICT_GRAFANA_URL {ignored}",
        f"FLOWVERDICT_MODES {ignored}; did you mean FLOWVERDICT_MODE?",
    ]
    (only,) = unknown_settings(Example, environ, only_misspelt=True)
    assert only.startswith("FLOWVERDICT_MODES ")


@pytest.mark.parametrize(
    ("text_", "shown"),
    [
        ("nats://u:p@h:1,nats://v:q@i:2", "nats://h:1,nats://i:2"),
        ("cannot reach http://u:p/q@h/x: no", "cannot reach http://h/x: no"),
        ("http://u:p@q@h", "http://h"),
        ("me@x and http://h/a", "me@x and http://h/a"),
    ],
)
def test_no_password_is_left_in_a_text_with_urls(text_: str, shown: str) -> None:
    assert redact(text_) == shown
