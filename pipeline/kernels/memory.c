/* Reordering a volume [z][y][x] to [x][y][z]: columns of voxels lie together afterwards.

   Slabs of 64 bytes along z and all of x are turned in the first-level cache, and leave it as whole cache lines that go
   past the cache where the machine can do that: the result is larger than any cache. */
#include "common.h"

#define LINE 64 /* bytes */
#define WIDTH 128

/* to [x][z] = from [z][x] for a small square whose rows are `step` and `to_step` elements apart */
INLINE void turn_float(const float *from, int64_t step, float *to, int64_t to_step) {
    for (int z = 0; z < 4; z++)
        for (int x = 0; x < 4; x++) to[x * to_step + z] = from[z * step + x];
}

INLINE void turn_int16(const int16_t *from, int64_t step, int16_t *to, int64_t to_step) {
#ifdef X86
    __m128i r[8], s[8];
    for (int z = 0; z < 8; z++) r[z] = _mm_loadu_si128((const __m128i *)(from + z * step));
    for (int n = 0; n < 4; n++) {
        s[n] = _mm_unpacklo_epi16(r[n], r[n + 4]);
        s[n + 4] = _mm_unpackhi_epi16(r[n], r[n + 4]);
    }
    for (int half = 0; half < 8; half += 4) {
        __m128i a = _mm_unpacklo_epi16(s[half], s[half + 2]), b = _mm_unpackhi_epi16(s[half], s[half + 2]);
        __m128i c = _mm_unpacklo_epi16(s[half + 1], s[half + 3]), d = _mm_unpackhi_epi16(s[half + 1], s[half + 3]);
        __m128i *rows[4] = {(__m128i *)(to + half * to_step), (__m128i *)(to + (half + 1) * to_step),
                            (__m128i *)(to + (half + 2) * to_step), (__m128i *)(to + (half + 3) * to_step)};
        _mm_storeu_si128(rows[0], _mm_unpacklo_epi16(a, c));
        _mm_storeu_si128(rows[1], _mm_unpackhi_epi16(a, c));
        _mm_storeu_si128(rows[2], _mm_unpacklo_epi16(b, d));
        _mm_storeu_si128(rows[3], _mm_unpackhi_epi16(b, d));
    }
#else
    for (int z = 0; z < 8; z++)
        for (int x = 0; x < 8; x++) to[x * to_step + z] = from[z * step + x];
#endif
}

INLINE void write_line(void *to, const void *from) {
#ifdef X86
    if (((uintptr_t)to & (LINE - 1)) == 0) {
        for (int n = 0; n < LINE / 16; n++) _mm_stream_si128((__m128i *)to + n, _mm_loadu_si128((const __m128i *)from + n));
        return;
    }
#endif
    memcpy(to, from, LINE);
}

/* Columns of the result are `to_nz` voxels long; those beyond nz stay as they are. */
#define REORDER(name, type, square)                                                                                     \
    INLINE int name##_any(const type *from, int64_t nz, int64_t ny, int64_t nx, int64_t to_nz, type *to, int avx512) {  \
        enum { DEEP = LINE / sizeof(type) };                                                                            \
        type block[WIDTH * DEEP];                                                                                       \
        (void)avx512;                                                                                                   \
        for (int64_t y = 0; y < ny; y++)                                                                                \
            for (int64_t z0 = 0; z0 < nz; z0 += DEEP)                                                                   \
                for (int64_t x0 = 0; x0 < nx; x0 += WIDTH) {                                                            \
                    int64_t zs = MIN(DEEP, nz - z0), xs = MIN(WIDTH, nx - x0), step = ny * nx;                          \
                    const type *corner = from + z0 * step + y * nx + x0;                                                \
                    int64_t z_squares = zs / square * square, x_squares = xs / square * square;                         \
                    for (int64_t z = 0; z < z_squares; z += square)                                                     \
                        for (int64_t x = 0; x < x_squares; x += square)                                                 \
                            turn_##type(corner + z * step + x, step, block + x * DEEP + z, DEEP);                       \
                    for (int64_t z = 0; z < zs; z++)                                                                    \
                        for (int64_t x = z < z_squares ? x_squares : 0; x < xs; x++)                                    \
                            block[x * DEEP + z] = corner[z * step + x];                                                 \
                    for (int64_t x = 0; x < xs; x++) {                                                                  \
                        type *line = to + ((x0 + x) * ny + y) * to_nz + z0;                                             \
                        if (zs == DEEP)                                                                                 \
                            write_line(line, block + x * DEEP);                                                         \
                        else                                                                                            \
                            memcpy(line, block + x * DEEP, sizeof(type) * (size_t)zs);                                  \
                    }                                                                                                   \
                }                                                                                                       \
        FENCE;                                                                                                          \
        return 0;                                                                                                       \
    }                                                                                                                   \
    DISPATCH(name, (const type *from, int64_t nz, int64_t ny, int64_t nx, int64_t to_nz, type *to), from, nz, ny, nx, to_nz, to)

#ifdef X86
#define FENCE _mm_sfence()
#else
#define FENCE (void)0
#endif

#define turn_int16_t turn_int16
REORDER(reorder_float, float, 4)
REORDER(reorder_int16, int16_t, 8)
