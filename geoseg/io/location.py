"""Names of files, here and elsewhere: as users write them, as GDAL opens them."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qsl, quote, unquote, urljoin, urlsplit

from geoseg.errors import UsageError

_STORES = {
    "s3": "/vsis3/",
    "gs": "/vsigs/",
    "az": "/vsiaz/",
    "oss": "/vsioss/",
    "swift": "/vsiswift/",
}
"""Object stores by the scheme of their URLs: GDAL lists them as it does folders."""

_WEB = "/vsicurl/"
"""What GDAL reads from a web server by."""

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.I)

_UNQUOTED = "/%:?=&;,+@!$'()*~[]#-._"
"""What a URL may hold besides letters and digits."""

REMOTE = re.compile(r"/vsi(curl|s3|gs|az|adls|oss|swift|hdfs|webhdfs)", re.I)
"""What names of files on other machines start with, or hold: /vsizip//vsicurl/..."""

_SECRETS = re.compile(
    r"(^x-(amz|goog|oss)-|signature|token|secret|password|credential|apikey|api_key"
    r"|^(sig|se|sp|sv|sr|st|key|expires|awsaccesskeyid|googleaccessid)$)",
    re.I,
)
"""Keys of a query that sign a request: they come and go while the file stays."""

_URL = re.compile(r"([a-z][a-z0-9+.-]*)://([^\s'\"<>{}]+)", re.I)
"""An address in a longer text."""

_PAIR = re.compile(r"(?<=[?&])([^=&]+)=[^&/]*")
"""A key and its value in the query of one."""


def name_for_gdal(text: str) -> str:
    """Return what GDAL opens a file by.

    Args:
        text: A path, a URL (https://, s3://, gs://, az://, oss://, swift://, file://),
            or a name of GDAL's own (/vsi...).

    Returns:
        A name that begins with /vsi, or the path as it was.

    Raises:
        UsageError: It is empty, no URL, or GDAL has no such scheme.
    """
    if not text.strip():
        raise UsageError("an empty name is no scene; name a file, a folder or a URL")
    match = _SCHEME.match(text)
    if match is None or text.startswith("/vsi"):
        return text
    scheme, rest = match[1].lower(), text[match.end() :]
    if scheme == "file":
        return unquote(rest.removeprefix("localhost"))
    if scheme in _STORES:
        return _STORES[scheme] + rest
    if scheme in ("http", "https"):
        # Spaces and accents are no part of a URL; what is quoted already stays.
        url = f"{scheme}://{quote(rest, safe=_UNQUOTED)}"
        if not _has_host(f"{scheme}://{rest}"):
            what = "a URL with a password" if "@" in rest else text
            raise UsageError(
                f"{what} has no valid host or port; check how it is written"
            )
        return _WEB + url
    known = ", ".join(f"{name}://" for name in ("https", *_STORES))
    raise UsageError(
        f"{without_secrets(text)}: {scheme}:// cannot be read; use {known} or a /vsi "
        "name"
    )


def is_virtual(name: str) -> bool:
    """Tell a name of GDAL's own (/vsi...) from the path of a file."""
    return name.startswith("/vsi")


def is_remote(name: str) -> bool:
    """Tell whether GDAL asks another machine for a file."""
    return is_virtual(name) and REMOTE.search(name) is not None


def is_listed(name: str) -> bool:
    """Tell whether a name lies in an object store, which can be listed as a folder."""
    return name.startswith(tuple(_STORES.values()))


def shown(name: str) -> str:
    """Return the name as users write it, without what signs a request."""
    if name.startswith(_WEB):
        # Not by urlsplit: it refuses some of what users write.
        scheme, _, rest = name.removeprefix(_WEB).partition("#")[0].partition("://")
        address, _, query = rest.partition("?")
        host, slash, path = address.partition("/")
        query = f"?{query}" if query and not _is_signed(query) else ""
        return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}{query}"
    for scheme, prefix in _STORES.items():
        if name.startswith(prefix):
            return f"{scheme}://{name.removeprefix(prefix)}"
    # /vsizip//vsicurl/https://..., and /vsicurl?url=https%3A%2F%2F...
    return without_secrets(unquote(name) if name.startswith("/vsicurl?") else name)


def without_secrets(text: str) -> str:
    """Return a text without passwords and signatures of the URLs in it."""
    return _URL.sub(_redacted, text) if "://" in text else text


def tree_parts(name: str) -> tuple[str, ...]:
    """Return the way to a file: what one root and many scenes have in common.

    `/data/a.tif` is "/", "data", "a.tif"; `https://host/x/a.tif?v=2` is "/",
    "https://host", "x", "a.tif".
    """
    if not is_virtual(name):
        return PurePosixPath(name).parts
    text = shown(name)
    match = _SCHEME.match(text)
    if match is None:
        return ("/", *_nonempty(unquote(text).split("/")))
    host, _, path = text[match.end() :].partition("/")
    if match[1] in ("http", "https"):
        path = unquote(path.partition("?")[0])
    return ("/", match[0] + host, *_nonempty(path.split("/")))


def beside(folder: str, text: str) -> str:
    """Return what a name means that was written in a file of some folder.

    Args:
        folder: Where that file lies, a path or a name of GDAL's own.
        text: A URL, a path, or one relative to the folder. What another machine sent
            names no file of this one: a path there is one on that machine.

    Raises:
        UsageError: A file of this machine is named by another one, or one elsewhere by
            an archive.
    """
    scheme = _SCHEME.match(text)
    if not is_virtual(folder):
        return text if scheme or is_virtual(text) else str(Path(folder) / text)
    if scheme:
        if is_remote(folder) and scheme[1].lower() == "file":
            raise UsageError(f"{text} is named by {shown(folder)}, another machine")
        return text
    if folder.startswith(_WEB):
        base = folder.removeprefix(_WEB).partition("?")[0]
        return urljoin(f"{base}/", text)
    if not is_listed(folder):
        below = posixpath.normpath(text)
        if below.startswith(("/", "..")):
            raise UsageError(
                f"{text} leads out of {shown(folder)}; name what lies there"
            )
        return f"{folder}/{below}"
    prefix, top, path = _split(folder)
    return prefix + top + posixpath.normpath(posixpath.join(f"/{path}", text))


def folder_of(name: str) -> str:
    """Return the folder that a file lies in, of a name that GDAL opens."""
    return posixpath.dirname(name.partition("?")[0] if name.startswith(_WEB) else name)


def suffix_of(name: str) -> str:
    """Return the extension, lower case; a URL's query has none."""
    return PurePosixPath(tree_parts(name)[-1]).suffix.lower()


def _split(name: str) -> tuple[str, str, str]:
    """Cut /vsis3/bucket/key into /vsis3/, bucket, key."""
    kind, top, path = (*name[1:].split("/", 2), "", "")[:3]
    return f"/{kind}/", top, path


def _has_host(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _redacted(url: re.Match[str]) -> str:
    host, slash, path = url[2].partition("/")
    bare = host.rpartition("@")[2] + slash + path

    def value(pair: re.Match[str]) -> str:
        return f"{pair[1]}=..." if _SECRETS.search(pair[1]) else pair[0]

    return f"{url[1]}://{_PAIR.sub(value, bare)}"


def _is_signed(query: str) -> bool:
    keys = [key for key, _ in parse_qsl(query, keep_blank_values=True)]
    return any(_SECRETS.search(key) for key in keys)


def _nonempty(parts: list[str]) -> list[str]:
    return [part for part in parts if part]
