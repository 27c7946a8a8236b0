"""A certificate authority of one's own, for a broker on TLS."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import trustme


@dataclass(frozen=True, slots=True)
class Certificates:
    """Files of a self-made authority and of what it has signed for ``localhost`` and 127.0.0.1."""

    authority: Path
    """Whom a client must trust."""
    certificate: Path
    key: Path

    @classmethod
    def make(cls, directory: Path) -> Self:
        """Write new ones into a directory."""
        authority = trustme.CA()
        server = authority.issue_cert("localhost", "127.0.0.1")
        made = cls(directory / "authority.pem", directory / "server.pem", directory / "server.key")
        authority.cert_pem.write_to_path(str(made.authority))
        server.private_key_pem.write_to_path(str(made.key))
        made.certificate.write_bytes(b"".join(blob.bytes() for blob in server.cert_chain_pems))
        return made
