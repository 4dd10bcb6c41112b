"""ML-KEM-768 as FIPS 203 has it (August 2024), in plain Python.

Names follow the standard's algorithms. Nothing here runs in constant time: this is a test instrument, and its keys
live for one handshake of a test.
"""

import hashlib
import hmac
import os

N = 256
Q = 3329
K = 3
ETA1 = 2
ETA2 = 2
DU = 10
DV = 4

EK_SIZE = 384 * K + 32
DK_SIZE = 768 * K + 96
CT_SIZE = 32 * (DU * K + DV)
SS_SIZE = 32


def _bitrev7(i):
    return int(format(i, "07b")[::-1], 2)


ZETAS = [pow(17, _bitrev7(i), Q) for i in range(128)]
GAMMAS = [pow(17, 2 * _bitrev7(i) + 1, Q) for i in range(128)]


def _G(data):
    d = hashlib.sha3_512(data).digest()
    return d[:32], d[32:]


def _H(data):
    return hashlib.sha3_256(data).digest()


def _J(data):
    return hashlib.shake_256(data).digest(32)


def _PRF(eta, s, b):
    return hashlib.shake_256(s + bytes([b])).digest(64 * eta)


def byte_encode(d, f):
    """Algorithm 5: 256 integers of d bits to 32*d bytes, little-endian bit order."""
    acc = 0
    for i in range(N - 1, -1, -1):
        acc = (acc << d) | f[i]
    return acc.to_bytes(32 * d, "little")


def byte_decode(d, data):
    """Algorithm 6. For d = 12 the integers are reduced modulo q."""
    acc = int.from_bytes(data, "little")
    mask = (1 << d) - 1
    out = []
    for _ in range(N):
        out.append(acc & mask)
        acc >>= d
    if d == 12:
        out = [x % Q for x in out]
    return out


def compress(d, f):
    return [(((x << d) + Q // 2) // Q) & ((1 << d) - 1) for x in f]


def decompress(d, f):
    return [(x * Q + (1 << (d - 1))) >> d for x in f]


def sample_ntt(seed):
    """Algorithm 7: rejection sampling from SHAKE128(seed); reads on where the first draw is not enough."""
    length = 168 * 4
    while True:
        stream = hashlib.shake_128(seed).digest(length)
        out = []
        for i in range(0, length - 2, 3):
            b0, b1, b2 = stream[i], stream[i + 1], stream[i + 2]
            d1 = b0 | (b1 & 15) << 8
            d2 = b1 >> 4 | b2 << 4
            if d1 < Q:
                out.append(d1)
            if d2 < Q:
                out.append(d2)
            if len(out) >= N:
                return out[:N]
        length += 168 * 3


def sample_poly_cbd(eta, data):
    """Algorithm 8: the centred binomial distribution."""
    bits = int.from_bytes(data, "little")
    mask = (1 << eta) - 1
    out = []
    for _ in range(N):
        x = bin(bits & mask).count("1")
        bits >>= eta
        y = bin(bits & mask).count("1")
        bits >>= eta
        out.append((x - y) % Q)
    return out


def ntt(f):
    """Algorithm 9."""
    f = list(f)
    i = 1
    length = 128
    while length >= 2:
        for start in range(0, N, 2 * length):
            zeta = ZETAS[i]
            i += 1
            for j in range(start, start + length):
                t = zeta * f[j + length] % Q
                f[j + length] = (f[j] - t) % Q
                f[j] = (f[j] + t) % Q
        length //= 2
    return f


def ntt_inverse(f):
    """Algorithm 10."""
    f = list(f)
    i = 127
    length = 2
    while length <= 128:
        for start in range(0, N, 2 * length):
            zeta = ZETAS[i]
            i -= 1
            for j in range(start, start + length):
                t = f[j]
                f[j] = (t + f[j + length]) % Q
                f[j + length] = zeta * (f[j + length] - t) % Q
        length *= 2
    return [x * 3303 % Q for x in f]


def multiply_ntts(f, g):
    """Algorithms 11 and 12."""
    out = []
    for i in range(128):
        a0, a1, b0, b1 = f[2 * i], f[2 * i + 1], g[2 * i], g[2 * i + 1]
        out.append((a0 * b0 + a1 * b1 % Q * GAMMAS[i]) % Q)
        out.append((a0 * b1 + a1 * b0) % Q)
    return out


def _add(f, g):
    return [(a + b) % Q for a, b in zip(f, g)]


def _sub(f, g):
    return [(a - b) % Q for a, b in zip(f, g)]


def _dot(row, vector):
    total = [0] * N
    for f, g in zip(row, vector):
        total = _add(total, multiply_ntts(f, g))
    return total


def _matrix(rho):
    """A[i][j] = SampleNTT(rho || j || i)."""
    return [[sample_ntt(rho + bytes([j, i])) for j in range(K)] for i in range(K)]


def _pke_keygen(d):
    """Algorithm 13."""
    rho, sigma = _G(d + bytes([K]))
    a = _matrix(rho)
    s = [ntt(sample_poly_cbd(ETA1, _PRF(ETA1, sigma, i))) for i in range(K)]
    e = [ntt(sample_poly_cbd(ETA1, _PRF(ETA1, sigma, K + i))) for i in range(K)]
    t = [_add(_dot(a[i], s), e[i]) for i in range(K)]
    ek = b"".join(byte_encode(12, x) for x in t) + rho
    dk = b"".join(byte_encode(12, x) for x in s)
    return ek, dk


def _pke_encrypt(ek, m, r):
    """Algorithm 14."""
    t = [byte_decode(12, ek[384 * i:384 * (i + 1)]) for i in range(K)]
    a = _matrix(ek[384 * K:])
    y = [ntt(sample_poly_cbd(ETA1, _PRF(ETA1, r, i))) for i in range(K)]
    e1 = [sample_poly_cbd(ETA2, _PRF(ETA2, r, K + i)) for i in range(K)]
    e2 = sample_poly_cbd(ETA2, _PRF(ETA2, r, 2 * K))
    u = [_add(ntt_inverse(_dot([a[j][i] for j in range(K)], y)), e1[i]) for i in range(K)]
    mu = decompress(1, byte_decode(1, m))
    v = _add(_add(ntt_inverse(_dot(t, y)), e2), mu)
    c1 = b"".join(byte_encode(DU, compress(DU, x)) for x in u)
    return c1 + byte_encode(DV, compress(DV, v))


def _pke_decrypt(dk, c):
    """Algorithm 15."""
    size = 32 * DU
    u = [decompress(DU, byte_decode(DU, c[size * i:size * (i + 1)])) for i in range(K)]
    v = decompress(DV, byte_decode(DV, c[size * K:]))
    s = [byte_decode(12, dk[384 * i:384 * (i + 1)]) for i in range(K)]
    w = _sub(v, ntt_inverse(_dot(s, [ntt(x) for x in u])))
    return byte_encode(1, compress(1, w))


def keygen_internal(d, z):
    """Algorithm 16: (encapsulation key, decapsulation key) from two 32-byte seeds."""
    ek, dk = _pke_keygen(d)
    return ek, dk + ek + _H(ek) + z


def encaps_internal(ek, m):
    """Algorithm 17: (shared secret, ciphertext) from the 32 random bytes m."""
    key, r = _G(m + _H(ek))
    return key, _pke_encrypt(ek, m, r)


def decaps_internal(dk, c):
    """Algorithm 18, with implicit rejection."""
    dk_pke, ek = dk[:384 * K], dk[384 * K:768 * K + 32]
    h, z = dk[768 * K + 32:768 * K + 64], dk[768 * K + 64:]
    m = _pke_decrypt(dk_pke, c)
    key, r = _G(m + h)
    rejected = _J(z + c)
    return key if hmac.compare_digest(c, _pke_encrypt(ek, m, r)) else rejected


def check_encapsulation_key(ek):
    """Section 7.2: the type check (length) and the modulus check."""
    if len(ek) != EK_SIZE:
        return False
    return all(ek[384 * i:384 * (i + 1)] == byte_encode(12, byte_decode(12, ek[384 * i:384 * (i + 1)]))
               for i in range(K))


def check_decapsulation_key(dk):
    """Section 7.3: length and hash of the encapsulation key inside."""
    return len(dk) == DK_SIZE and _H(dk[384 * K:768 * K + 32]) == dk[768 * K + 32:768 * K + 64]


def keygen(random=os.urandom):
    """Algorithm 19. random is called for d and then for z."""
    d = random(32)
    return keygen_internal(d, random(32))


def encaps(ek, random=os.urandom):
    """Algorithm 20; ValueError where the key fails its check."""
    if not check_encapsulation_key(ek):
        raise ValueError("the encapsulation key is not valid")
    return encaps_internal(ek, random(32))


def decaps(dk, c):
    """Algorithm 21."""
    if len(c) != CT_SIZE or not check_decapsulation_key(dk):
        raise ValueError("the ciphertext or the decapsulation key is not valid")
    return decaps_internal(dk, c)
