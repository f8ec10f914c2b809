"""The cluster's certificates and kubeconfigs."""

import base64
import json
import subprocess
from pathlib import Path

__all__ = ["Credentials"]


class Credentials:
    """A certificate authority and what it has signed, in one folder.

    Args:
        folder: where they are; created if it does not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not self.path("ca.crt").exists():
            folder.mkdir(parents=True, mode=0o700)
            self._openssl("req", "-x509", *_KEY, "-keyout", "ca.key", "-out", "ca.crt",
                          "-subj", "/CN=flowverdict-lab", "-days", "3650")  # fmt: skip
            self._openssl("genrsa", "-out", "sa.key", "2048")
            self._openssl("rsa", "-in", "sa.key", "-pubout", "-out", "sa.pub")

    def path(self, name: str) -> Path:
        """A file of the folder."""
        return self.folder / name

    def issue(self, name: str, subject: str, names: str = "") -> None:
        """Sign a certificate: NAME.crt and NAME.key.

        Args:
            name: of the files.
            subject: such as /O=system:nodes/CN=system:node:n1, which Kubernetes reads as a user.
            names: the addresses and host names that it is valid for, as subjectAltName has them.
        """
        extensions = "extendedKeyUsage=serverAuth,clientAuth\n"
        if names:
            extensions += f"subjectAltName={names}\n"
        self.path(f"{name}.ext").write_text(extensions)
        self._openssl("req", *_KEY, "-keyout", f"{name}.key", "-out", f"{name}.csr",
                      "-subj", subject)  # fmt: skip
        self._openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key",
                      "-CAcreateserial", "-days", "3650", "-out", f"{name}.crt",
                      "-extfile", f"{name}.ext")  # fmt: skip

    def kubeconfig(self, name: str, server: str, to: Path) -> Path:
        """Write a kubeconfig for the certificate `name`; returns its path."""
        user = {
            "client-certificate-data": self._encoded(f"{name}.crt"),
            "client-key-data": self._encoded(f"{name}.key"),
        }
        cluster = {"server": server, "certificate-authority-data": self._encoded("ca.crt")}
        text = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "lab", "cluster": cluster}],
            "users": [{"name": name, "user": user}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": name}}],
            "current-context": "lab",
        }
        to.touch(mode=0o600)
        to.write_text(json.dumps(text, indent=1))
        return to

    def _encoded(self, name: str) -> str:
        return base64.b64encode(self.path(name).read_bytes()).decode()

    def _openssl(self, *argv: str) -> None:
        subprocess.run(["openssl", *argv], cwd=self.folder, capture_output=True, check=True)


_KEY = ("-newkey", "rsa:2048", "-nodes")
