"""The kernels that can be booted."""

from dataclasses import dataclass

__all__ = ["KERNELS", "Kernel"]


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel of Debian.

    Attributes:
        name: as script/kernels takes it.
        release: the Debian release that has it.
        package: the package that depends on the newest build of it.
        architecture: as Debian names it.
    """

    name: str
    release: str
    package: str
    architecture: str = "amd64"


KERNELS = {
    each.name: each
    for each in (
        Kernel("5.10", "bullseye", "linux-image-cloud-amd64"),
        Kernel("6.1", "bookworm", "linux-image-cloud-amd64"),
        Kernel("6.1-rt", "bookworm", "linux-image-rt-amd64"),
        Kernel("6.1-arm64", "bookworm", "linux-image-cloud-arm64", "arm64"),
        Kernel("6.12", "trixie", "linux-image-cloud-amd64"),
        Kernel("6.12-arm64", "trixie", "linux-image-cloud-arm64", "arm64"),
        Kernel("newest", "sid", "linux-image-cloud-amd64"),
    )
}
"""By name, the oldest first."""
