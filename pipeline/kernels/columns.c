/* Joseph and Siddon for detectors whose columns run along a grid axis, the usual case of a gantry.

   The volume is seen as [a][b][c] with c contiguous and parallel to the detector's columns (v). All rays of one detector
   column u then share their path in the (a, b) plane, so the work separates: per slab of the driving axis interpolate two
   neighbouring columns into one, then resample that column along v. A ray of column u crosses the slab k of its driving
   axis at

       o(k) = o0 + o1 k          the other one of a and b
       c(k, v) = (c00 + c01 k) + (c10 + c11 k) v

   and runs sqrt(s0 + s1 v + s2 v^2) mm from one slab to the next.

   Outside the volume the attenuation is 0; between the outermost voxel centre and one voxel further it falls linearly. */
#include "common.h"

#define PAD 64  /* zeros around a column: the reach of two vectors beyond either end */
#define MATERIALS 3
#define TILE 16 /* detector columns that are worked on together: their lines stay in the first-level cache */

typedef struct {
    int64_t driving; /* 0: a, 1: b */
    double o0, o1, c00, c01, c10, c11, s0, s1, s2;
} Path;

typedef struct {
    const void *data;
    int64_t a, b, c;           /* voxels */
    int64_t stride_a, stride_b; /* in voxels */
    int kind, channels; /* FLOATS, HALVES (float16) or HU (int16, decoded as they are read) */
    float code[8]; /* slope_low, offset_low, slope_high, offset_high, air_until, 1/air_width, bone_from, 1/bone_width */
} Volume;

enum { FLOATS, HALVES, HU };

/* HU -> density, or density x (air, soft tissue, bone): the piecewise-linear decomposition of physics/materials.py. */
INLINE void decode_density(const int16_t *restrict hu, int64_t n, const float *restrict code, float *restrict out) {
    float slope_low = code[0], offset_low = code[1], slope_high = code[2], offset_high = code[3];
    for (int64_t i = 0; i < n; i++) {
        float h = hu[i], low = slope_low * h + offset_low, high = slope_high * h + offset_high;
        out[i] = larger(smaller(low, high), 0.0f);
    }
}

/* Which of air, soft tissue and bone (bits 0, 1, 2) a column may hold: most hold one or two, and the others cost nothing. */
INLINE int materials_in(const int16_t *restrict hu, int64_t n, const float *restrict code) {
    int16_t lowest = hu[0], highest = hu[0];
    for (int64_t i = 0; i < n; i++) {
        lowest = lowest < hu[i] ? lowest : hu[i];
        highest = highest > hu[i] ? highest : hu[i];
    }
    float air_until = code[4], air_from = code[4] - 1 / code[5], bone_from = code[6], bone_until = code[6] + 1 / code[7];
    int only_air = highest <= air_from, only_bone = lowest >= bone_until;
    return (lowest < air_until ? 1 : 0) | (only_air || only_bone ? 0 : 2) | (highest > bone_from ? 4 : 0);
}

INLINE void decode_materials(const int16_t *restrict hu, int64_t n, const float *restrict code, int held, float *restrict air,
                             float *restrict soft, float *restrict bone) {
    float slope_low = code[0], offset_low = code[1], slope_high = code[2], offset_high = code[3];
    float air_until = code[4], air_scale = code[5], bone_from = code[6], bone_scale = code[7];
    if (held == 2) {
        decode_density(hu, n, code, soft);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        float h = hu[i], low = slope_low * h + offset_low, high = slope_high * h + offset_high;
        float density = larger(smaller(low, high), 0.0f);
        float in_air = smaller(larger((air_until - h) * air_scale, 0.0f), 1.0f);
        float in_bone = smaller(larger((h - bone_from) * bone_scale, 0.0f), 1.0f);
        air[i] = density * in_air;
        bone[i] = density * in_bone;
        soft[i] = density * (1.0f - in_air - in_bone);
    }
}

#ifdef X86
AVX512 static int64_t mix_halves_avx512(const uint16_t *first, const uint16_t *second, float f, int64_t begin, int64_t end, float *out) {
    __m512 part = _mm512_set1_ps(f);
    int64_t i = begin;
    for (; i + LANES <= end; i += LANES) {
        __m512 a = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(first + i)));
        __m512 b = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(second + i)));
        _mm512_storeu_ps(out + i, _mm512_fmadd_ps(part, _mm512_sub_ps(b, a), a));
    }
    return i;
}
#endif

INLINE void mix(const float *restrict first, const float *restrict second, float f, int64_t begin, int64_t end,
                float *restrict out) {
    for (int64_t i = begin; i < end; i++) out[i] = LERP(first[i], second[i], f);
}

INLINE void mix_halves(const uint16_t *restrict first, const uint16_t *restrict second, float f, int64_t begin, int64_t end,
                       float *restrict out, int avx512) {
    int64_t i = begin;
#ifdef X86
    if (avx512) i = mix_halves_avx512(first, second, f, begin, end, out);
#endif
    (void)avx512;
    for (; i < end; i++) {
        float a = from_half(first[i]), b = from_half(second[i]);
        out[i] = LERP(a, b, f);
    }
}

/* line[v] += column(c0 + step v) for v in [begin, end); `column` may be read PAD before and behind its n entries. */
INLINE void resample_plain(const float *column, float c0, float step, int begin, int end, float *line) {
    for (int v = begin; v < end; v++) {
        float c = fmaf((float)v, step, c0);
        float whole = floorf(c);
        int j = (int)whole;
        float g = c - whole;
        line[v] += LERP(column[j], column[j + 1], g);
    }
}

#ifdef X86
/* The same for |step| <= 1: sixteen pixels reach at most 18 entries of the column, so two registers and a permutation.
   `count` columns and their lines at once: where they share c0 and step (a detector square to the axis, or several
   materials), they share their positions. */
AVX512 static void resample_avx512(const float *const *columns, float *const *lines, int count, float c0, float step, int begin,
                                   int end) {
    __m512 lanes = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m512 steps = _mm512_set1_ps(step), start = _mm512_set1_ps(c0);
    __m512i one = _mm512_set1_epi32(1);
    for (int v = begin; v < end; v += 16) {
        __mmask16 mask = end - v >= 16 ? 0xffff : (__mmask16)((1u << (end - v)) - 1);
        __m512 c = _mm512_fmadd_ps(_mm512_add_ps(_mm512_set1_ps((float)v), lanes), steps, start);
        __m512 whole = _mm512_roundscale_ps(c, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
        __m512 g = _mm512_sub_ps(c, whole);
        float edge = fmaf((float)(step >= 0 ? v : v + 15), step, c0);
        int lowest = (int)floorf(edge);
        __m512i entry = _mm512_sub_epi32(_mm512_cvttps_epi32(whole), _mm512_set1_epi32(lowest));
        __m512i next = _mm512_add_epi32(entry, one);
        for (int n = 0; n < count; n++) {
            const float *from = columns[n] + lowest;
            float *to = lines[n] + v;
            __m512 r0 = _mm512_loadu_ps(from), r1 = _mm512_loadu_ps(from + 16);
            __m512 here = _mm512_permutex2var_ps(r0, entry, r1), there = _mm512_permutex2var_ps(r0, next, r1);
            __m512 value = _mm512_fmadd_ps(g, _mm512_sub_ps(there, here), here);
            if (mask == 0xffff)
                _mm512_storeu_ps(to, _mm512_add_ps(_mm512_loadu_ps(to), value));
            else
                _mm512_mask_storeu_ps(to, mask, _mm512_add_ps(_mm512_maskz_loadu_ps(mask, to), value));
        }
    }
}
#endif

/* The pixels v (begin, one past the end) whose sample lies in (-1, n): elsewhere it is 0. */
INLINE void inside(double c0, double step, int64_t n, int n_v, int *begin, int *end) {
    double low = 0, high = n_v;
    if (fabs(step) > 1e-12) {
        double enter = (-1.0 - c0) / step, leave = ((double)n - c0) / step;
        enter = MIN(MAX(enter, -1e9), 1e9), leave = MIN(MAX(leave, -1e9), 1e9);
        low = (double)-floor_int(-MIN(enter, leave));
        high = (double)floor_int(MAX(enter, leave)) + 1;
    } else if (c0 <= -1 || c0 >= (double)n) {
        high = 0;
    }
    *begin = low < 0 ? 0 : low > n_v ? n_v : (int)low;
    *end = high < *begin ? *begin : high > n_v ? n_v : (int)high;
}

INLINE void prefetch(const void *from, int64_t bytes) {
    for (int64_t at = 0; at < bytes; at += 64) __builtin_prefetch((const char *)from + at);
}

/* image [channel][v][u] = line [u][channel][v] x mm per slab. */
INLINE void publish(const float *lines, const Path *paths, int first_u, int last_u, int channels, int n_u, int n_v, float *image) {
    for (int u = first_u; u < last_u; u++) {
        double s0 = paths[u].s0, s1 = paths[u].s1, s2 = paths[u].s2;
        for (int m = 0; m < channels; m++) {
            const float *line = lines + ((u - first_u) * channels + m) * n_v;
            for (int v = 0; v < n_v; v++)
                image[((int64_t)m * n_v + v) * n_u + u] = line[v] * (float)sqrt(s0 + (s1 + s2 * (double)v) * (double)v);
        }
    }
}

INLINE int same_heights(const Path *a, const Path *b) {
    return a->c00 == b->c00 && a->c01 == b->c01 && a->c10 == b->c10 && a->c11 == b->c11;
}

/* What the rays of one detector column do in one slab. */
typedef struct {
    float c0, step;
    int begin, end, from, to; /* pixels [begin, end) see voxels [from, to) */
} Span;

INLINE Span span_of(const Path *path, double k, int64_t c, int n_v) {
    double c0 = path->c00 + path->c01 * k, step = path->c10 + path->c11 * k;
    Span span = {.c0 = (float)c0, .step = (float)step};
    inside(c0, step, c, n_v, &span.begin, &span.end);
    double at_begin = c0 + (double)span.begin * step, at_end = c0 + (double)(span.end - 1) * step;
    span.from = (int)MAX(floor_int(MIN(at_begin, at_end)) - 1, 0);
    span.to = (int)MIN(floor_int(MAX(at_begin, at_end)) + 3, c);
    return span;
}

/* image [channel][v][u] = line integrals through the interpolated volume. */
INLINE int joseph_columns_any(const Volume *volume, const Path *paths, int64_t columns_u, int64_t rows_v, float *image,
                              int avx512) {
    int channels = volume->channels, coded = volume->kind == HU, halves = volume->kind == HALVES, n_u = (int)columns_u, n_v = (int)rows_v;
    int64_t length = volume->c + 2 * PAD, sides[2] = {volume->a, volume->b};
    int64_t strides[2] = {volume->stride_a, volume->stride_b};
    int64_t widest = MAX(sides[0], sides[1]), size = volume->kind == FLOATS ? sizeof(float) : sizeof(int16_t);
    size_t lines_size = sizeof(float) * (size_t)(TILE * channels * n_v);
    float *mixed = calloc((size_t)(TILE * channels * length), sizeof(float)), *none = calloc((size_t)volume->c, sizeof(float));
    float *slab = coded ? malloc(sizeof(float) * (size_t)(channels * widest * volume->c)) : NULL, *lines = malloc(lines_size);
    uint8_t *held = malloc((size_t)widest); /* materials per column of the slab, as bits */
    int failed = !mixed || !none || !lines || !held || (coded && !slab);
    for (int first_u = 0; first_u < n_u && !failed; first_u += TILE) {
        memset(lines, 0, lines_size);
        for (int driving = 0; driving < 2; driving++) {
            const Path *path[TILE];
            double o0[TILE] = {0}, o1[TILE] = {0};
            float *line[TILE];
            int rays = 0, level = 1; /* level: all rays of the tile pass a slab at the same heights */
            for (int u = first_u; u < MIN(first_u + TILE, n_u); u++) {
                if (paths[u].driving != driving) continue;
                path[rays] = paths + u, o0[rays] = paths[u].o0, o1[rays] = paths[u].o1;
                line[rays] = lines + (u - first_u) * channels * n_v;
                level &= same_heights(path[0], paths + u);
                rays++;
            }
            int64_t across = sides[1 - driving], plane = across * volume->c, next = strides[1 - driving];
            for (int64_t k = 0; k < sides[driving] && rays; k++) {
                int left[TILE];
                float share[TILE];
                for (int n = 0; n < TILE; n++) { /* one instruction for eight of them */
                    double o = smaller_double(larger_double(o0[n] + o1[n] * (double)k, -2.0), (double)across), whole = floor(o);
                    left[n] = (int)whole, share[n] = (float)(o - whole);
                }
                int lowest = (int)across, highest = -1; /* voxel columns of this slab that the tile touches */
                for (int n = 0; n < rays; n++) {
                    lowest = MIN(lowest, left[n]), highest = MAX(highest, left[n]);
                }
                lowest = MAX(lowest, 0), highest = MIN(highest + 1, (int)across - 1);
                if (highest < lowest) continue;
                Span span = span_of(path[0], (double)k, volume->c, n_v);
                if (level && span.begin >= span.end) continue;
                const char *data = (const char *)volume->data + k * strides[driving] * size;
                int64_t ahead = k + 1 < sides[driving] ? strides[driving] * size : 0; /* fetch the next slab while working */
                int64_t seen_from = level ? span.from : 0, seen = (level ? span.to : volume->c) - seen_from;
                for (int64_t i = lowest; i <= highest && coded; i++) {
                    const int16_t *hu = (const int16_t *)data + i * next + seen_from;
                    float *to = slab + i * volume->c + seen_from;
                    prefetch((const char *)hu + ahead, seen * size);
                    if (channels == 1) {
                        decode_density(hu, seen, volume->code, to);
                    } else {
                        held[i] = (uint8_t)materials_in(hu, seen, volume->code);
                        decode_materials(hu, seen, volume->code, held[i], to, to + plane, to + 2 * plane);
                    }
                }
                const float *columns[TILE * MATERIALS];
                float *to[TILE * MATERIALS];
                int filled = 0;
                int64_t fetched = lowest - 1;
                for (int n = 0; n < rays; n++) {
                    int i = left[n], first = i >= 0 && i < across, second = i + 1 >= 0 && i + 1 < across;
                    if (!level) span = span_of(path[n], (double)k, volume->c, n_v);
                    if ((first || second) && span.begin < span.end) {
                        if (!coded)
                            for (int64_t j = MAX(i, fetched + 1); j <= MIN(i + 1, highest); j++, fetched = j - 1)
                                prefetch(data + ahead + (j * next + span.from) * size, (span.to - span.from) * size);
                        int held_first = first ? (channels == 1 ? 1 : held[i]) : 0;
                        int held_second = second ? (channels == 1 ? 1 : held[i + 1]) : 0;
                        for (int m = 0; m < channels; m++) {
                            if (!((held_first | held_second) >> m & 1)) continue;
                            const float *base = coded ? slab + m * plane : (const float *)data;
                            int64_t stride = coded ? volume->c : next;
                            float *column = mixed + (n * channels + m) * length + PAD;
                            if (halves)
                                mix_halves(first ? (const uint16_t *)data + i * next : (const uint16_t *)none,
                                           second ? (const uint16_t *)data + (i + 1) * next : (const uint16_t *)none, share[n],
                                           span.from, span.to, column, avx512);
                            else
                                mix(held_first >> m & 1 ? base + i * stride : none,
                                    held_second >> m & 1 ? base + (i + 1) * stride : none, share[n], span.from, span.to, column);
                            columns[filled] = column, to[filled++] = line[n] + m * n_v;
                        }
                    }
                    if (level && n + 1 < rays) continue; /* what shares its heights is resampled in one go */
#ifdef X86
                    if (avx512 && fabsf(span.step) <= 1.0f)
                        resample_avx512(columns, to, filled, span.c0, span.step, span.begin, span.end);
                    else
#endif
                        for (int m = 0; m < filled; m++) resample_plain(columns[m], span.c0, span.step, span.begin, span.end, to[m]);
                    filled = 0;
                }
            }
        }
        publish(lines, paths, first_u, MIN(first_u + TILE, n_u), channels, n_u, n_v, image);
    }
    free(mixed), free(none), free(slab), free(lines), free(held);
    return failed;
}

DISPATCH(joseph_columns, (const Volume *volume, const Path *paths, int64_t n_u, int64_t n_v, float *image), volume, paths, n_u, n_v,
         image)

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
        publish(lines, paths, first_u, last_u, 1, n_u, n_v, image);
    }
    free(padded), free(inverse), free(lines);
    return failed;
}

DISPATCH(siddon_columns, (const Volume *volume, const Path *paths, int64_t n_u, int64_t n_v, float *image), volume, paths, n_u, n_v,
         image)
