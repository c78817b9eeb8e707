"""The only code that touches a host: kernel, nftables, daemons."""
