/* Joseph and Siddon for rays of any pose, one ray after the other (Joseph: sixteen of them side by side).

   A ray of driving axis d passes the plane k of that axis at o(k) = o0 + o1 k and c(k) = c0 + c1 k along the two others,
   taken in cyclic order: axes (d + 1) % 3 and (d + 2) % 3. */
#include "common.h"

typedef struct {
    const float *data;
    int64_t size[3], stride[3]; /* axes x, y, z; strides in voxels */
} Grid;

/* The planes [first, last] for which start + slope k lies in [low, high]. */
static void clip(double start, double slope, double low, double high, int64_t *first, int64_t *last) {
    int level = fabs(slope) < 1e-12;
    if (low > high || (level && (start < low || start > high))) *last = *first - 1;
    if (low > high || level) return;
    double enter = (low - start) / slope, leave = (high - start) / slope;
    double from = ceil(MIN(enter, leave)), to = floor(MAX(enter, leave));
    if (from > (double)*first) *first = from > (double)*last ? *last + 1 : (int64_t)from;
    if (to < (double)*last) *last = to < (double)*first ? *first - 1 : (int64_t)to;
}

/* All four neighbours of every sample are voxels: no question asked. */
INLINE void joseph_inner(const float *restrict data, int64_t plane, int32_t stride_o, int32_t stride_c, int64_t first, int64_t last,
                         const float *restrict o0, const float *restrict o1, const float *restrict c0, const float *restrict c1,
                         float *restrict sum) {
    float total[LANES] = {0};
    for (int64_t k = first; k <= last; k++) {
        const float *slab = data + k * plane;
        float at = (float)k;
        for (int lane = 0; lane < LANES; lane++) {
            float o = fmaf(o1[lane], at, o0[lane]), c = fmaf(c1[lane], at, c0[lane]);
            int32_t i = (int32_t)o, j = (int32_t)c;
            float f = o - (float)i, g = c - (float)j;
            int32_t here = i * stride_o + j * stride_c;
            float p00 = slab[here], p10 = slab[here + stride_o], p01 = slab[here + stride_c], p11 = slab[here + stride_o + stride_c];
            float low = LERP(p00, p10, f), high = LERP(p01, p11, f);
            total[lane] += LERP(low, high, g);
        }
    }
    for (int lane = 0; lane < LANES; lane++) sum[lane] += total[lane];
}

#ifdef X86
AVX512 static void joseph_inner_avx512(const float *data, int64_t plane, int32_t stride_o, int32_t stride_c, int64_t first,
                                       int64_t last, const float *o0, const float *o1, const float *c0, const float *c1,
                                       float *sum) {
    __m512 from_o = _mm512_loadu_ps(o0), slope_o = _mm512_loadu_ps(o1), from_c = _mm512_loadu_ps(c0), slope_c = _mm512_loadu_ps(c1);
    __m512i jump_o = _mm512_set1_epi32(stride_o), jump_c = _mm512_set1_epi32(stride_c);
    __m512 total = _mm512_setzero_ps();
    for (int64_t k = first; k <= last; k++) {
        const float *slab = data + k * plane;
        __m512 at = _mm512_set1_ps((float)k);
        __m512 o = _mm512_fmadd_ps(slope_o, at, from_o), c = _mm512_fmadd_ps(slope_c, at, from_c);
        __m512i i = _mm512_cvttps_epi32(o), j = _mm512_cvttps_epi32(c);
        __m512 f = _mm512_sub_ps(o, _mm512_cvtepi32_ps(i)), g = _mm512_sub_ps(c, _mm512_cvtepi32_ps(j));
        __m512i here = _mm512_add_epi32(_mm512_mullo_epi32(i, jump_o), _mm512_mullo_epi32(j, jump_c));
        __m512 p00 = _mm512_i32gather_ps(here, slab, 4), p10 = _mm512_i32gather_ps(here, slab + stride_o, 4);
        __m512 p01 = _mm512_i32gather_ps(here, slab + stride_c, 4), p11 = _mm512_i32gather_ps(here, slab + stride_o + stride_c, 4);
        __m512 low = _mm512_fmadd_ps(f, _mm512_sub_ps(p10, p00), p00), high = _mm512_fmadd_ps(f, _mm512_sub_ps(p11, p01), p01);
        total = _mm512_add_ps(total, _mm512_fmadd_ps(g, _mm512_sub_ps(high, low), low));
    }
    _mm512_storeu_ps(sum, _mm512_add_ps(_mm512_loadu_ps(sum), total));
}
#endif

static float joseph_edge(const Grid *grid, int d, int axis_o, int axis_c, int64_t k, float o, float c) {
    float whole_o = floorf(o), whole_c = floorf(c), f = o - whole_o, g = c - whole_c, corner[2][2];
    for (int second_o = 0; second_o < 2; second_o++)
        for (int second_c = 0; second_c < 2; second_c++) {
            int64_t i = (int64_t)whole_o + second_o, j = (int64_t)whole_c + second_c;
            int in = i >= 0 && i < grid->size[axis_o] && j >= 0 && j < grid->size[axis_c];
            corner[second_o][second_c] =
                in ? grid->data[k * grid->stride[d] + i * grid->stride[axis_o] + j * grid->stride[axis_c]] : 0;
        }
    float low = LERP(corner[0][0], corner[1][0], f), high = LERP(corner[0][1], corner[1][1], f);
    return LERP(low, high, g);
}

/* out [ray] = sum over the planes of the bilinear samples; every 16 rays in a row should lie close together. */
INLINE int joseph_rays_any(const Grid *grid, const int8_t *driving, const double *o0, const double *o1, const double *c0,
                           const double *c1, int64_t rays, float *out, int avx512) {
    (void)avx512; /* unused where there is no such path */
    for (int64_t begin = 0; begin < rays;) {
        int d = driving[begin], axis_o = (d + 1) % 3, axis_c = (d + 2) % 3, lanes = 1;
        while (lanes < LANES && begin + lanes < rays && driving[begin + lanes] == d) lanes++;
        float from_o[LANES], slope_o[LANES], from_c[LANES], slope_c[LANES], sum[LANES] = {0};
        int64_t outer[LANES][2], inner[2] = {0, grid->size[d] - 1};
        double high_o = (double)grid->size[axis_o], high_c = (double)grid->size[axis_c];
        for (int lane = 0; lane < LANES; lane++) { /* spare lanes repeat the first ray and are thrown away */
            int64_t ray = begin + (lane < lanes ? lane : 0);
            from_o[lane] = (float)o0[ray], slope_o[lane] = (float)o1[ray];
            from_c[lane] = (float)c0[ray], slope_c[lane] = (float)c1[ray];
            outer[lane][0] = 0, outer[lane][1] = grid->size[d] - 1;
            clip(o0[ray], o1[ray], -1, high_o, outer[lane], outer[lane] + 1);
            clip(c0[ray], c1[ray], -1, high_c, outer[lane], outer[lane] + 1);
            clip(o0[ray], o1[ray], 1e-3, high_o - 1.001, inner, inner + 1);
            clip(c0[ray], c1[ray], 1e-3, high_c - 1.001, inner, inner + 1);
        }
        int32_t stride_o = (int32_t)grid->stride[axis_o], stride_c = (int32_t)grid->stride[axis_c];
#ifdef X86
        if (avx512 && inner[0] <= inner[1])
            joseph_inner_avx512(grid->data, grid->stride[d], stride_o, stride_c, inner[0], inner[1], from_o, slope_o, from_c, slope_c,
                                sum);
        else
#endif
            joseph_inner(grid->data, grid->stride[d], stride_o, stride_c, inner[0], inner[1], from_o, slope_o, from_c, slope_c, sum);
        for (int lane = 0; lane < lanes; lane++) {
            for (int64_t k = outer[lane][0]; k <= outer[lane][1]; k++) {
                if (k == inner[0] && inner[0] <= inner[1]) k = inner[1] + 1;
                if (k > outer[lane][1]) break;
                float at = (float)k;
                sum[lane] += joseph_edge(grid, d, axis_o, axis_c, k, fmaf(slope_o[lane], at, from_o[lane]),
                                         fmaf(slope_c[lane], at, from_c[lane]));
            }
            out[begin + lane] = sum[lane];
        }
        begin += lanes;
    }
    return 0;
}

DISPATCH(joseph_rays,
         (const Grid *grid, const int8_t *driving, const double *o0, const double *o1, const double *c0, const double *c1, int64_t rays,
          float *out),
         grid, driving, o0, o1, c0, c1, rays, out)

/* out [ray] = sum of voxel values times the exact length, in units of the driving axis, that the ray runs in each. */
INLINE int siddon_rays_any(const Grid *grid, const int8_t *driving, const double *o0, const double *o1, const double *c0,
                           const double *c1, int64_t rays, float *out, int avx512) {
    (void)avx512;
    for (int64_t ray = 0; ray < rays; ray++) {
        int d = driving[ray], axes[3] = {d, (d + 1) % 3, (d + 2) % 3};
        double start[3] = {0, o0[ray], c0[ray]}, slope[3] = {1, o1[ray], c1[ray]};
        double from = -0.5, to = (double)grid->size[d] - 0.5, sum = 0;
        for (int n = 1; n < 3; n++) {
            double low = -0.5 - start[n], high = (double)grid->size[axes[n]] - 0.5 - start[n];
            if (fabs(slope[n]) < 1e-12) {
                if (low > 0 || high <= 0) to = from - 1;
                continue;
            }
            from = MAX(from, MIN(low / slope[n], high / slope[n]));
            to = MIN(to, MAX(low / slope[n], high / slope[n]));
        }
        if (from < to) {
            double next[3], pace[3];
            int64_t cell[3], stride[3], step[3];
            const float *voxel = grid->data;
            double middle = from + 1e-9 * (to - from);
            for (int n = 0; n < 3; n++) {
                int64_t size = grid->size[axes[n]];
                cell[n] = (int64_t)floor(start[n] + slope[n] * middle + 0.5);
                cell[n] = MIN(MAX(cell[n], 0), size - 1);
                step[n] = slope[n] >= 0 ? 1 : -1;
                stride[n] = step[n] * grid->stride[axes[n]];
                pace[n] = fabs(slope[n]) < 1e-12 ? INFINITY : fabs(1 / slope[n]);
                next[n] = fabs(slope[n]) < 1e-12 ? INFINITY : ((double)cell[n] + 0.5 * (double)step[n] - start[n]) / slope[n];
                voxel += cell[n] * grid->stride[axes[n]];
            }
            double at = from;
            for (;;) {
                int n = next[0] <= next[1] ? (next[0] <= next[2] ? 0 : 2) : (next[1] <= next[2] ? 1 : 2);
                double leave = MIN(next[n], to);
                sum += (leave - at) * (double)*voxel;
                at = leave;
                cell[n] += step[n];
                if (next[n] >= to || cell[n] < 0 || cell[n] >= grid->size[axes[n]]) break;
                voxel += stride[n];
                next[n] += pace[n];
            }
        }
        out[ray] = (float)sum;
    }
    return 0;
}

DISPATCH(siddon_rays,
         (const Grid *grid, const int8_t *driving, const double *o0, const double *o1, const double *c0, const double *c1, int64_t rays,
          float *out),
         grid, driving, o0, o1, c0, c1, rays, out)
