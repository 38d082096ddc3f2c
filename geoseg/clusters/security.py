"""Certificates: those of the recipe, else those that Dask is configured with."""

from __future__ import annotations

import ssl
from typing import Any

from distributed.security import Security

from geoseg.clusters.config import TlsConfig
from geoseg.errors import ClusterError, ConfigError

_ENCRYPTED = ("tls://", "wss://")
_ROLES = ("client", "scheduler", "worker")


def security_of(tls: TlsConfig) -> Security | None:
    """Return what servers and clients prove themselves with; None: no TLS.

    Raises:
        ConfigError: A file is not there, or holds no certificate and key; or Dask
            requires encryption, and none is named.
    """
    try:
        security = Security(**_settings(tls))
        # Reads the files.
        arguments = security.get_connection_args("client")
    except (OSError, ValueError, TypeError) as error:  # ssl.SSLError among the first
        raise ConfigError(
            f"the certificates cannot be read ({error}); cluster.tls.ca, cert and key, "
            "or Dask's distributed.comm.tls, name files in PEM format"
        ) from error
    if arguments["ssl_context"] is not None:
        return security
    if security.require_encryption:
        raise ConfigError(
            "Dask is configured to require encryption, and no certificate is named; "
            "name files in cluster.tls.ca, cert and key, or in Dask's "
            "distributed.comm.tls"
        )
    return None


def server_settings(security: Security | None) -> dict[str, Any]:
    """Options of a server of distributed, as JSON carries them."""
    if security is None:
        return {}
    names = [f"tls_{role}_{part}" for role in _ROLES for part in ("cert", "key")]
    files = {name: getattr(security, name) for name in ("tls_ca_file", *names)}
    given = {name: file for name, file in files.items() if file is not None}
    return {"protocol": "tls://", "security": {"require_encryption": True, **given}}


def check_address(address: str, security: Security | None) -> None:
    """Refuse to knock where no answer can come.

    Raises:
        ClusterError: One side has certificates, and the other has none.
    """
    encrypted = address.startswith(_ENCRYPTED)
    if encrypted and security is None:
        raise ClusterError(
            f"scheduler {address} asks for a certificate; name yours with "
            "--set cluster.tls.ca=FILE --set cluster.tls.cert=FILE "
            "--set cluster.tls.key=FILE, or in Dask's distributed.comm.tls"
        )
    if not encrypted and security is not None and security.require_encryption:
        raise ClusterError(
            f"certificates are configured, and scheduler {address} has no TLS; its "
            "address must start with tls://"
        )


def advice(address: str, error: BaseException) -> str:
    """Say what to look at when a scheduler did not let us in."""
    if not address.startswith(_ENCRYPTED):
        return "check the address, and that `dask scheduler` runs there"
    refused = _refusal(error)
    if refused is not None:
        return f"TLS was refused ({refused}); check that one authority signed both"
    # A server that refuses may just close the connection.
    return (
        "check the address, that `dask scheduler` runs there, and that one authority "
        "signed both certificates"
    )


def _refusal(error: BaseException) -> str | None:
    """Say what TLS has against a connection that failed; None: it is not to blame."""
    cause: BaseException | None = error
    while cause is not None:
        # tornado's StreamClosedError carries what closed the stream.
        blamed = getattr(cause, "real_error", None) or cause
        if isinstance(blamed, ssl.SSLError):
            return (blamed.reason or str(blamed)).lower().replace("_", " ")
        cause = cause.__cause__ or cause.__context__
    return None


def _settings(tls: TlsConfig) -> dict[str, Any]:
    if tls.ca is None:
        return {}
    settings: dict[str, Any] = {"require_encryption": True, "tls_ca_file": str(tls.ca)}
    for role in _ROLES:
        settings[f"tls_{role}_cert"] = str(tls.cert)
        # Not None: dask-jobqueue would write that into its command line.
        settings[f"tls_{role}_key"] = str(tls.key or tls.cert)
    return settings
