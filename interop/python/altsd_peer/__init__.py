"""A second implementation of the shared-altsd inter-daemon protocol, written from docs/spec/protocol.md alone.

It shares no code and no cryptographic library with the daemon: OpenSSL by way of Debian's python3-cryptography, and
ML-KEM-768 from FIPS 203 in mlkem.py. It is an instrument for tests, not for production: it keeps no key secret from
somebody who can measure it.
"""
