"""Secrets stay out of all that vcgen writes: passwords and signatures of addresses, and values of environment
variables.

A process remembers the secrets that it has been given; :func:`hide` takes them, and whatever looks like one in an
address, out of a text. Messages of errors pass through it by themselves."""

import contextlib
import logging
import re
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import unquote

MARK = "***"
#: Shorter texts stand in too many others: they are not looked for in the midst of a text.
LEAST = 4
#: As a path an address has lost a stroke.
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{1,40}://?)([^\s'\"<>`]*)")
#: Of the parameters of an address those that change with every signature, so that data is the same without them.
_SIGNING = re.compile(
    r"(?i)(x-(amz|goog|oss|cos|ms)-.*|.*(sig|token|secret|password|passwd|auth|credential|key|policy|jwt).*|s[eptvkr]|sr|spr|expires)"
)
_SECRET_WORD = (
    r"(?:pass(?:word|wd|phrase)?|pwd|secret|token|bearer|api[_-]?key|key|credentials?|auth(?:orization)?|cookie)"
)
#: What follows such words in a command: ``--password=X``, ``--header 'Authorization: X'``, ``-u NAME:X``, ``TOKEN=X
#: curl``.
_IN_COMMAND = re.compile(
    rf"(?i)(?:^|[\s'\":_-])[\w-]*{_SECRET_WORD}[\w-]*(?:\s*[:=]\s*|\s+)(?:basic\s+|bearer\s+)?(\"[^\"]*\"|'[^']*'|[^\s'\"]+)"
)
_LOGIN = re.compile(r"(?:\bsshpass\s+-p|\s(?:-[uU]|--user|--proxy-user)[\s=])\s*['\"]?([^\s'\"]+)")

_known: dict[str, str] = {}
_make: Callable[..., logging.LogRecord] = logging.LogRecord


def begin(words: Iterable[str] = ()) -> None:
    """Forget all secrets but those in the words of a command, and keep them out of what is logged from now on."""
    _known.clear()
    for word in words:
        remember_address(word)
    made = logging.getLogRecordFactory()
    if made is not _discreet:
        global _make
        _make = made
        logging.setLogRecordFactory(_discreet)


def remember(secret: str, shown: str = MARK) -> None:
    """Hide this text from now on. shown: what stands in its place."""
    if secret and secret != shown:
        _known[secret] = shown


def remember_address(source: str) -> None:
    """Remember the secrets in an address, or a ``pipe:`` command, of data."""
    for secret in _secrets(source):
        if len(secret) >= LEAST:
            remember(secret)
            remember(unquote(secret))


def hide(text: str) -> str:
    """The text without known secrets, and without names, passwords and parameters in addresses."""
    if text in _known:
        return _known[text]
    for secret in sorted(_known, key=len, reverse=True):
        if len(secret) >= LEAST:
            text = text.replace(secret, _known[secret])
    return _hide_in_addresses(text)


def hide_word(word: str) -> str:
    """:func:`hide` for a whole value or word of a command line; of a ``pipe:`` command that holds a secret only the
    program is left.
    """
    return _known[word] if word in _known else hide(hide_address(word))


def hide_address(word: str) -> str:
    """:func:`hide_word` as far as it goes by what the word itself says: a known secret may stand in other words by
    chance.
    """
    before, pipe, command = word.partition("pipe:")
    if pipe and _secrets(pipe + command):
        words = [found for found in command.split() if "=" not in found]
        return f"{_hide_in_addresses(before)}pipe:{words[0] if words else ''} {MARK}"
    return _hide_in_addresses(word)


def is_hidden(source: str) -> bool:
    """Whether an address of data has come out of :func:`hide_word` with something left out."""
    return MARK in source


def identity(source: str) -> str:
    """An address without what may change while the data stays: passwords, signatures, tokens."""
    found = _URL.sub(lambda match: match[1] + _same_data(match[2]), source)
    for secret in _secrets(source) if source.startswith("pipe:") else ():  # in URLs outside of commands they are gone
        found = found.replace(secret, MARK)
    return found


def _discreet(*arguments: Any, **options: Any) -> logging.LogRecord:
    record = _make(*arguments, **options)
    with contextlib.suppress(TypeError, ValueError):  # a message that does not fit its arguments, which logging reports
        record.msg, record.args = hide(record.getMessage()), ()
    return record


def _hide_in_addresses(text: str) -> str:
    return _URL.sub(lambda found: found[1] + _without_secrets(found[2]), text)


def _without_secrets(rest: str) -> str:
    rest = f"{MARK}@{rest.rpartition('@')[2]}" if "@" in rest else rest
    path, mark, _ = rest.partition("?")
    return f"{path}?{MARK}" if mark else path


def _same_data(rest: str) -> str:
    login, at, place = rest.rpartition("@")
    path, mark, query = place.partition("?")
    kept = [part for part in query.split("&") if not _SIGNING.fullmatch(part.partition("=")[0])]
    user = login.partition(":")[0] if ":" in login else ""
    return f"{user}{at}{path}{mark}{'&'.join(kept)}"


def _secrets(source: str) -> list[str]:
    """The passwords, tokens and the like in an address or a ``pipe:`` command."""
    found = []
    for _, rest in _URL.findall(source):
        login, _, place = rest.rpartition("@")
        found += [login, login.partition(":")[2]]
        found += [value for _, _, value in (part.partition("=") for part in place.partition("?")[2].split("&"))]
    _, pipe, command = source.partition("pipe:")
    if pipe:
        found += [value.strip("'\"") for value in [*_IN_COMMAND.findall(command), *_LOGIN.findall(command)]]
        found += [part for value in found for part in value.split(":")[1:]]  # -u NAME:PASSWORD
    return [secret for secret in found if secret and "{}" not in secret]
