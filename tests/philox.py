"""The noise of the GPU engine once more, in NumPy: Philox-4x32 as its authors define it, and Box–Muller in float32."""

import numpy as np

M0, M1, W0, W1 = 0xD2511F53, 0xCD9E8D57, 0x9E3779B9, 0xBB67AE85
LOW = np.uint64(0xFFFFFFFF)


def philox(counter: list, key: tuple[int, int], rounds: int = 10) -> list[np.ndarray]:
    """Four random words of four words of a counter, arrays that broadcast; all uint32."""
    c0, c1, c2, c3 = (np.asarray(word).astype(np.uint64) for word in counter)
    for index in range(rounds):
        k0, k1 = (np.uint64((key[i] + index * (W0, W1)[i]) % 2**32) for i in range(2))
        left, right = c0 * np.uint64(M0), c2 * np.uint64(M1)
        c0, c1 = (right >> np.uint64(32)) ^ c1 ^ k0, right & LOW
        c2, c3 = (left >> np.uint64(32)) ^ c3 ^ k1, left & LOW
    return [np.asarray(word, dtype=np.uint32) for word in (c0, c1, c2, c3)]


def box_muller(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two normals (float64) of two words: radius and angle rounded to float32, the rest exact."""
    u = ((a.astype(np.float32).astype(float) + 0.5) * 2.0**-32).astype(np.float32).astype(float)
    angle = 2 * np.pi * 2.0**-32 * b.view(np.int32).astype(np.float32).astype(float)
    radius = np.sqrt(-2 * np.log(u))
    return radius * np.cos(angle), radius * np.sin(angle)


def noise(key: int, first: int, shape: tuple[int, int, int, int, int]) -> np.ndarray:
    """Standard normals `[R, N, M, K, D]` of the replicates from `first` on."""
    replicates, rows, groups, particles, dim = shape
    unit = np.arange(first * rows * groups, (first + replicates) * rows * groups, dtype=np.uint64)
    quads = -(-dim // 4)
    counter = [
        np.arange(particles)[None, :, None],
        np.arange(quads)[None, None, :],
        (unit & LOW)[:, None, None],
        (unit >> np.uint64(32))[:, None, None],
    ]
    words = [
        np.broadcast_to(w, (len(unit), particles, quads))
        for w in philox(counter, (key & 0xFFFFFFFF, key >> 32))
    ]
    four = [*box_muller(words[0], words[1]), *box_muller(words[2], words[3])]
    return np.stack(four, axis=-1).reshape(len(unit), particles, 4 * quads)[..., :dim].reshape(shape)
