/* Siddon for detectors whose columns run along a grid axis (columns.h): the exact path of every ray in every voxel. */
#include "columns.h"

#define PAD 64 /* zeros around a column: the reach of two vectors beyond either end */

/* Where a segment's end lies in cells of the column, for all pixels: from a0 + a1 v to b0 + b1 v, `part` of a slab long.
   A ray shorter than one cell crosses at most one border, (border - a) / slope into the segment. */
INLINE void siddon_plain(const float *column, float a0, float a1, float b0, float b1, float part, const float *inverse,
                         int begin, int end, float *line) {
    for (int v = begin; v < end; v++) {
        float a = fmaf((float)v, a1, a0), b = fmaf((float)v, b1, b0);
        float in = floorf(a), out = floorf(b);
        float border = in > out ? in : out;
        float before = (border - a) * inverse[v];
        before = before > 0 ? before : 0;
        before = before < part ? before : part;
        float first = column[(int)in], second = column[(int)out];
        line[v] = fmaf(before, first - second, fmaf(part, second, line[v]));
    }
}

#ifdef X86
/* `count` columns with the same positions at once. */
AVX512 static void siddon_avx512(const float *const *columns, float *const *lines, int count, float a0, float a1, float b0, float b1,
                                 float part, const float *inverse, int begin, int end) {
    __m512 lanes = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), parts = _mm512_set1_ps(part);
    __m512 starts_a = _mm512_set1_ps(a0), starts_b = _mm512_set1_ps(b0), zero = _mm512_setzero_ps();
    __m512 steps_a = _mm512_set1_ps(a1), steps_b = _mm512_set1_ps(b1);
    for (int v = begin; v < end; v += 16) {
        __mmask16 mask = end - v >= 16 ? 0xffff : (__mmask16)((1u << (end - v)) - 1);
        __m512 pixel = _mm512_add_ps(_mm512_set1_ps((float)v), lanes);
        __m512 a = _mm512_fmadd_ps(pixel, steps_a, starts_a), b = _mm512_fmadd_ps(pixel, steps_b, starts_b);
        __m512 in = _mm512_roundscale_ps(a, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
        __m512 out = _mm512_roundscale_ps(b, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
        float edge_a = fmaf((float)(a1 >= 0 ? v : v + 15), a1, a0), edge_b = fmaf((float)(b1 >= 0 ? v : v + 15), b1, b0);
        int lowest = (int)floorf(MIN(edge_a, edge_b));
        __m512i base = _mm512_set1_epi32(lowest);
        __m512i entry_a = _mm512_sub_epi32(_mm512_cvttps_epi32(in), base), entry_b = _mm512_sub_epi32(_mm512_cvttps_epi32(out), base);
        __m512 before = _mm512_mul_ps(_mm512_sub_ps(_mm512_max_ps(in, out), a), _mm512_maskz_loadu_ps(mask, inverse + v));
        before = _mm512_min_ps(_mm512_max_ps(before, zero), parts);
        for (int n = 0; n < count; n++) {
            __m512 r0 = _mm512_loadu_ps(columns[n] + lowest), r1 = _mm512_loadu_ps(columns[n] + lowest + 16);
            __m512 first = _mm512_permutex2var_ps(r0, entry_a, r1), second = _mm512_permutex2var_ps(r0, entry_b, r1);
            __m512 sum = _mm512_fmadd_ps(parts, second, _mm512_maskz_loadu_ps(mask, lines[n] + v));
            _mm512_mask_storeu_ps(lines[n] + v, mask, _mm512_fmadd_ps(before, _mm512_sub_ps(first, second), sum));
        }
    }
}
#endif

/* Adds the path from plane `in` to plane `out` of the driving axis, less than a slab, to the lines of `count` columns. */
INLINE void siddon_segment(const Path *path, double in, double out, double rise, const float *const *columns, float *const *lines,
                           int count, const float *inverse, int begin, int end, int avx512) {
    int pieces = 1 + (int)((out - in) * rise); /* each crosses at most one border along the column */
    for (int piece = 0; piece < pieces; piece++) {
        double from = in + (out - in) * piece / pieces, to = in + (out - in) * (piece + 1) / pieces;
        float a0 = (float)(path->c00 + path->c01 * from + 0.5), a1 = (float)(path->c10 + path->c11 * from);
        float b0 = (float)(path->c00 + path->c01 * to + 0.5), b1 = (float)(path->c10 + path->c11 * to);
#ifdef X86
        if (avx512 && fabsf(a1) <= 0.95f && fabsf(b1) <= 0.95f) {
            siddon_avx512(columns, lines, count, a0, a1, b0, b1, (float)(to - from), inverse, begin, end);
            continue;
        }
#endif
        for (int n = 0; n < count; n++)
            siddon_plain(columns[n], a0, a1, b0, b1, (float)(to - from), inverse, begin, end, lines[n]);
    }
}

/* image [v][u] = sum of the exact path in each voxel, in mm, times its value. float32 volumes only. */
INLINE int siddon_columns_any(const Volume *volume, const Path *paths, int64_t columns_u, int64_t rows_v, float *image,
                              int avx512) {
    int n_u = (int)columns_u, n_v = (int)rows_v;
    int64_t sides[2] = {volume->a, volume->b}, strides[2] = {volume->stride_a, volume->stride_b};
    const float *start = volume->data, *stop = start + (volume->a - 1) * volume->stride_a + (volume->b - 1) * volume->stride_b + volume->c;
    size_t lines_size = sizeof(float) * TILE * (size_t)n_v;
    int64_t length = volume->c + 2 * PAD;
    float *padded = calloc((size_t)(TILE * length), sizeof(float)), *inverse = malloc(lines_size), *lines = malloc(lines_size);
    int failed = !padded || !inverse || !lines;
    for (int first_u = 0; first_u < n_u && !failed; first_u += TILE) {
        int last_u = MIN(first_u + TILE, n_u);
        memset(lines, 0, lines_size);
        for (int u = first_u; u < last_u; u++)
            for (int v = 0; v < n_v; v++) {
                double slope = paths[u].c01 + paths[u].c11 * v;
                inverse[(u - first_u) * n_v + v] = fabs(slope) > 1e-9 ? (float)(1 / slope) : 0;
            }
        for (int driving = 0; driving < 2; driving++) {
            int64_t across = sides[1 - driving], next = strides[1 - driving];
            for (int64_t k = 0; k < sides[driving]; k++) {
                const float *data = start + k * strides[driving];
                int64_t ahead = k + 1 < sides[driving] ? strides[driving] : 0, fetched = -1;
                double low = (double)k - 0.5, high = (double)k + 0.5;
                const Path *known = NULL; /* whose pixels [begin, end) meet voxels [from, to) here */
                int begin = 0, end = 0;
                int64_t from = 0, to = 0;
                double rise = 0;
                const float *inverses = NULL, *whole[TILE]; /* columns that rays cross from front to back: all in one go */
                float *whole_lines[TILE];
                int waiting = 0;
                for (int u = first_u; u < last_u; u++) {
                    const Path *path = paths + u;
                    if (path->driving != driving) continue;
                    int64_t cells[2] = {floor_int(path->o0 + path->o1 * low + 0.5), floor_int(path->o0 + path->o1 * high + 0.5)};
                    if (MAX(cells[0], cells[1]) < 0 || MIN(cells[0], cells[1]) >= across) continue;
                    if (!known || !same_heights(known, path)) {
                        if (waiting) siddon_segment(known, low, high, rise, whole, whole_lines, waiting, inverses, begin, end, avx512);
                        waiting = 0;
                        double c_low = path->c00 + path->c01 * low + 0.5, step_low = path->c10 + path->c11 * low;
                        double c_high = path->c00 + path->c01 * high + 0.5, step_high = path->c10 + path->c11 * high;
                        int begin_high, end_high;
                        inside(c_low, step_low, volume->c, n_v, &begin, &end);
                        inside(c_high, step_high, volume->c, n_v, &begin_high, &end_high);
                        begin = MIN(begin, begin_high), end = MAX(end, end_high);
                        double ends[4] = {c_low + begin * step_low, c_low + (end - 1) * step_low, c_high + begin * step_high,
                                          c_high + (end - 1) * step_high};
                        from = floor_int(MIN(MIN(ends[0], ends[1]), MIN(ends[2], ends[3]))) - 1;
                        to = floor_int(MAX(MAX(ends[0], ends[1]), MAX(ends[2], ends[3]))) + 2;
                        known = path, inverses = inverse + (u - first_u) * n_v;
                        rise = MAX(fabs(path->c01), fabs(path->c01 + path->c11 * (n_v - 1)));
                    }
                    if (begin >= end) continue;
                    double ends[3] = {low, high, high};
                    int segments = 1;
                    if (cells[0] != cells[1]) {
                        double border = ((double)MAX(cells[0], cells[1]) - 0.5 - path->o0) / path->o1;
                        ends[1] = MIN(MAX(border, low), high);
                        segments = 2;
                    }
                    float *line = lines + (u - first_u) * n_v;
                    for (int segment = 0; segment < segments; segment++) {
                        if (cells[segment] < 0 || cells[segment] >= across) continue;
                        const float *column = data + cells[segment] * next;
                        if (cells[segment] != fetched) prefetch(column + ahead, volume->c * (int64_t)sizeof(float));
                        fetched = cells[segment];
                        /* Only at its ends does a column need zeros around it. */
                        if (from < 0 || to > volume->c || column + from - 2 * LANES < start || column + to + 2 * LANES > stop) {
                            float *copy = padded + (u - first_u) * length + PAD;
                            memcpy(copy, column, sizeof(float) * (size_t)volume->c);
                            column = copy;
                        }
                        if (segments == 1) {
                            whole[waiting] = column;
                            whole_lines[waiting++] = line;
                        } else {
                            siddon_segment(path, ends[segment], ends[segment + 1], rise, &column, &line, 1, inverses, begin, end, avx512);
                        }
                    }
                }
                if (waiting) siddon_segment(known, low, high, rise, whole, whole_lines, waiting, inverses, begin, end, avx512);
            }
        }
        publish(lines, n_v, paths, first_u, last_u, 1, n_u, n_v, image);
    }
    free(padded), free(inverse), free(lines);
    return failed;
}

DISPATCH(siddon_columns, (const Volume *volume, const Path *paths, int64_t n_u, int64_t n_v, float *image), volume, paths, n_u, n_v,
         image)
