"""Other kernels, each booted in a virtual machine that runs tests of this checkout.

The processor is emulated, so neither hardware support nor the same architecture is needed. Nothing
is mounted and no root is needed; what a guest writes is thrown away with it.

`kernels`  which there are, and in which package of Debian each is.
`debian`   takes packages from a Debian mirror without installing them.
`guest`    makes the archives that a guest's file system is unpacked from.
`machine`  boots a guest and passes on what it prints.
`command`  the command `flowverdict-kernels`.
"""
