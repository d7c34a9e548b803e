/* Parallel beams that never leave their slice: sums along the axes, and Joseph for many angles at once. */
#include "common.h"

/* One pass over a volume [z][y][x]: along_y [z][x] and along_x [z][y]. */
INLINE int axis_sums_any(const float *volume, int64_t nz, int64_t ny, int64_t nx, float *along_y, float *along_x, int avx512) {
    (void)avx512;
    for (int64_t z = 0; z < nz; z++) {
        float *sums = along_y + z * nx;
        for (int64_t y = 0; y < ny; y++) {
            const float *row = volume + (z * ny + y) * nx;
            float total = 0;
            vec lanes = {0};
            int64_t x = 0;
            for (; x + LANES <= nx; x += LANES) {
                vec values = *(const vec *)(row + x);
                *(vec *)(sums + x) += values;
                lanes += values;
            }
            for (; x < nx; x++) {
                sums[x] += row[x];
                total += row[x];
            }
            for (int lane = 0; lane < LANES; lane++) total += lanes[lane];
            along_x[z * ny + y] += total;
        }
    }
    return 0;
}

DISPATCH(axis_sums, (const float *volume, int64_t nz, int64_t ny, int64_t nx, float *along_y, float *along_x), volume, nz, ny, nx,
         along_y, along_x)

#define BLOCK 64 /* voxels along c that travel together: four vectors in registers */
#define SIDE 32  /* columns per side of a tile: 32 x 32 x 64 x 4 bytes stay in the second-level cache */

/* line [BLOCK] += the samples of planes [first, last): every one a mixture of two columns. Rounding may put a sample that
   `reaches` counted inside just beyond the border: there is nothing there. */
INLINE void along_ray(const float *data, int64_t stride, int64_t plane, int64_t across, double o0, double o1, int64_t first,
                      int64_t last, float *line) {
    static const float none[BLOCK];
    for (int64_t k = first; k < last; k++) {
        double o = o0 + o1 * (double)k;
        int64_t i = floor_int(o);
        float f = (float)(o - (double)i), rest = 1 - f;
        const float *slab = data + k * plane + i * stride;
        const float *here = i >= 0 && i < across ? slab : none, *there = i + 1 >= 0 && i + 1 < across ? slab + stride : none;
        for (int c = 0; c < BLOCK; c++) line[c] = fmaf(rest, here[c], fmaf(f, there[c], line[c]));
    }
}

#ifdef X86
AVX512 static void along_ray_avx512(const float *data, int64_t stride, int64_t plane, int64_t across, double o0, double o1,
                                    int64_t first, int64_t last, float *line) {
    static const float none[BLOCK];
    __m512 sum[BLOCK / LANES];
    for (int n = 0; n < BLOCK / LANES; n++) sum[n] = _mm512_loadu_ps(line + n * LANES);
    for (int64_t k = first; k < last; k++) {
        double o = o0 + o1 * (double)k;
        int64_t i = floor_int(o);
        float f = (float)(o - (double)i);
        __m512 part = _mm512_set1_ps(f), rest = _mm512_set1_ps(1 - f);
        const float *slab = data + k * plane + i * stride;
        const float *here = i >= 0 && i < across ? slab : none, *there = i + 1 >= 0 && i + 1 < across ? slab + stride : none;
        for (int n = 0; n < BLOCK / LANES; n++)
            sum[n] = _mm512_fmadd_ps(rest, _mm512_loadu_ps(here + n * LANES),
                                     _mm512_fmadd_ps(part, _mm512_loadu_ps(there + n * LANES), sum[n]));
    }
    for (int n = 0; n < BLOCK / LANES; n++) _mm512_storeu_ps(line + n * LANES, sum[n]);
}
#endif

/* First plane k at which o0 + o1 k has reached `border`; the same formula for both sides of a border, so that each sample
   belongs to one tile. */
INLINE int64_t reaches(double o0, double o1, double border, int64_t planes) {
    double k = ceil((border - o0) / o1);
    return k < 0 ? 0 : k > (double)planes ? planes : (int64_t)k;
}

/* Volume [a][b][c] with c padded to a multiple of BLOCK; rays n = (angle, u) run in the (a, b) plane: driving axis
   driving[n], o(k) = o0[n] + o1[n] k. out [n][c] += sums. */
INLINE int joseph_sheets_any(const float *volume, int64_t na, int64_t nb, int64_t nc, const int8_t *driving, const double *o0,
                             const double *o1, int64_t rays, float *out, int avx512) {
    (void)avx512; /* unused where there is no such path */
    int64_t size[2] = {na, nb}, stride[2] = {nb * nc, nc};
    for (int64_t c = 0; c < nc; c += BLOCK)
        for (int64_t a = 0; a < na; a += SIDE)
            for (int64_t b = 0; b < nb; b += SIDE) {
                int64_t begin[2] = {a, b}, end[2] = {MIN(a + SIDE, na), MIN(b + SIDE, nb)};
                for (int64_t n = 0; n < rays; n++) {
                    int d = driving[n], other = 1 - d;
                    /* o in [low, high): the first tile also owns the border voxel before it */
                    double low = begin[other] ? (double)begin[other] : -1, high = (double)end[other];
                    int64_t first = begin[d], last = end[d];
                    if (fabs(o1[n]) < 1e-12) {
                        if (o0[n] < low || o0[n] >= high) continue;
                    } else if (o1[n] > 0) {
                        first = MAX(first, reaches(o0[n], o1[n], low, size[d]));
                        last = MIN(last, reaches(o0[n], o1[n], high, size[d]));
                    } else {
                        first = MAX(first, reaches(o0[n], o1[n], high, size[d]));
                        last = MIN(last, reaches(o0[n], o1[n], low, size[d]));
                    }
                    if (first >= last) continue;
#ifdef X86
                    if (avx512)
                        along_ray_avx512(volume + c, stride[other], stride[d], size[other], o0[n], o1[n], first, last, out + n * nc + c);
                    else
#endif
                        along_ray(volume + c, stride[other], stride[d], size[other], o0[n], o1[n], first, last, out + n * nc + c);
                }
            }
    return 0;
}

DISPATCH(joseph_sheets,
         (const float *volume, int64_t na, int64_t nb, int64_t nc, const int8_t *driving, const double *o0, const double *o1, int64_t rays,
          float *out),
         volume, na, nb, nc, driving, o0, o1, rays, out)
