/* Joseph for detectors whose columns run along a grid axis (columns.h): per slab of the driving axis one bilinear sample.

   A tile of rays takes one slab after the other. Where all of its rays pass a slab at the same heights (a detector square to
   the axis), every voxel column of the slab is resampled once along v, into a row, and each ray mixes two rows. Where they do
   not, each ray mixes its two voxel columns first and resamples the mixture. */
#include "columns.h"

#define PAD 64          /* zeros around a column */
#define AHEAD 4         /* slabs between the one that is read and the one that is fetched from memory */
#define ROWS (2 * TILE) /* voxel columns up to which resampling each of them pays, rather than a mixture per ray */
#define WIDE 1.9f       /* voxels from pixel to pixel up to which sixteen pixels see less than 32 voxels */

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

/* Where the rays of a tile pass a slab: between the voxel columns left[n] and left[n] + 1. */
typedef struct {
    int left[TILE], lowest, highest; /* columns of the volume among them: none if highest < lowest */
    float share[TILE];               /* of the second one */
} Crossing;

INLINE Crossing crossing_of(const double *o0, const double *o1, int rays, double k, int64_t across) {
    Crossing crossing = {.lowest = (int)across, .highest = -1};
    for (int n = 0; n < TILE; n++) { /* one instruction for eight of them */
        double o = smaller_double(larger_double(o0[n] + o1[n] * k, -2.0), (double)across), whole = floor(o);
        crossing.left[n] = (int)whole, crossing.share[n] = (float)(o - whole);
    }
    for (int n = 0; n < rays; n++) {
        crossing.lowest = MIN(crossing.lowest, crossing.left[n]);
        crossing.highest = MAX(crossing.highest, crossing.left[n]);
    }
    crossing.lowest = MAX(crossing.lowest, 0), crossing.highest = MIN(crossing.highest + 1, (int)across - 1);
    return crossing;
}

/* How the rays of one detector column sample the columns of a slab: pixel v at c0 + step v. */
typedef struct {
    float c0, step;
    int begin, end, from, to; /* pixels [begin, end), whole sixteens of them, see voxels [from, to) */
} Span;

INLINE Span span_of(const Path *path, double k, int64_t c, int n_v) {
    double c0 = path->c00 + path->c01 * k, step = path->c10 + path->c11 * k;
    Span span = {.c0 = (float)c0, .step = (float)step};
    inside(c0, step, c, n_v, &span.begin, &span.end);
    double at_begin = c0 + (double)span.begin * step, at_end = c0 + (double)(span.end - 1) * step;
    span.from = (int)MAX(floor_int(MIN(at_begin, at_end)) - 1, 0);
    span.to = (int)MIN(floor_int(MAX(at_begin, at_end)) + 3, c);
    if (span.begin < span.end) span.begin = span.begin / LANES * LANES, span.end = (span.end + LANES - 1) / LANES * LANES;
    return span;
}

/* The voxel columns of one slab; bit m of held[i] says whether column i has any of material m. */
typedef struct {
    const char *data;
    int64_t next, ahead; /* bytes from one column to the next, and to the one of a later slab that is fetched meanwhile */
    int n, halves;
    const uint8_t *held;
} Slab;

INLINE float voxel(const void *column, int64_t j, int halves) {
    return halves ? from_half(((const uint16_t *)column)[j]) : ((const float *)column)[j];
}

/* Ask for the same voxels of a later slab. */
INLINE void fetch(const char *column, const Slab *slab, const Span *span) {
    int64_t size = slab->halves ? sizeof(uint16_t) : sizeof(float);
    prefetch(column + slab->ahead + span->from * size, (span->to - span->from) * size);
}

INLINE void mix_columns(const void *restrict first, const void *restrict second, int halves, float share, const Span *span,
                        float *restrict out) {
    for (int j = span->from; j < span->to; j++) {
        float a = voxel(first, j, halves), b = voxel(second, j, halves);
        out[j] = LERP(a, b, share);
    }
}

/* row[v] = column(c0 + step v), or += ; there are PAD zeros before and behind the n entries of `column`. */
INLINE void resample_any(const float *restrict column, int n, const Span *span, float *restrict row, int add, int far) {
    for (int v = span->begin; v < span->end; v++) {
        float c = fmaf((float)v, span->step, span->c0);
        float whole = floorf(c), g = c - whole;
        int j = (int)(far ? smaller(larger(whole, -2.0f), (float)n) : whole);
        float sample = LERP(column[j], column[j + 1], g);
        row[v] = add ? row[v] + sample : sample;
    }
}

INLINE void resample(const float *column, int n, const Span *span, float *row, int add) {
    if (fabsf(span->step) <= WIDE) /* the sixteen pixels that see the column's end reach less than PAD beyond */
        resample_any(column, n, span, row, add, 0);
    else
        resample_any(column, n, span, row, add, 1);
}

#ifdef X86
#define AVX512_INLINE AVX512 static inline __attribute__((always_inline))
/* Sixteen pixels at steps of up to WIDE see the voxels of two registers, from which permutations pick. At steps of up to
   NARROW they see 16 voxels, and one register is enough. */
#define NARROW 0.93f
#define GROUP 4 /* voxel columns side by side, which share their positions */

typedef struct {
    __m512 part;             /* of the upper of two voxels */
    __m512i entry;           /* the lower one, counted from the lowest of all */
    __m128i lowest;          /* which voxel of the column that is */
    __mmask16 first, second; /* which of the 16 voxels from there on, and of the next 16, are in the column: the others are 0 */
} Sixteen;

AVX512_INLINE Sixteen sixteen_at(int v, const Span *span, int n) {
    __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), size = _mm512_set1_epi32(n);
    __m512 pixels = _mm512_cvtepi32_ps(_mm512_add_epi32(lanes, _mm512_set1_epi32(v)));
    __m512 c = _mm512_fmadd_ps(pixels, _mm512_set1_ps(span->step), _mm512_set1_ps(span->c0));
    __m512 whole = _mm512_roundscale_ps(c, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    __m512i entry = _mm512_cvttps_epi32(whole);
    __m512i lowest = _mm512_permutexvar_epi32(_mm512_set1_epi32(span->step >= 0 ? 0 : 15), entry);
    __m512i near = _mm512_add_epi32(lowest, lanes), far = _mm512_add_epi32(near, _mm512_set1_epi32(LANES));
    return (Sixteen){_mm512_sub_ps(c, whole), _mm512_sub_epi32(entry, lowest), _mm512_castsi512_si128(lowest),
                     _mm512_cmplt_epu32_mask(near, size), _mm512_cmplt_epu32_mask(far, size)};
}

/* A load without a mask takes half as long. */
AVX512_INLINE __m512 sixteen_voxels(const char *column, int64_t from, __mmask16 mask, int halves, int whole) {
    const uint16_t *half = (const uint16_t *)column + from;
    const float *single = (const float *)column + from;
    if (halves) return _mm512_cvtph_ps(whole ? _mm256_loadu_si256((const __m256i *)half) : _mm256_maskz_loadu_epi16(mask, half));
    return whole ? _mm512_loadu_ps(single) : _mm512_maskz_loadu_ps(mask, single);
}

AVX512_INLINE __m512 pick(__m512 low, __m512 high, const Sixteen *at, int narrow) {
    __m512i next = _mm512_add_epi32(at->entry, _mm512_set1_epi32(1));
    __m512 here = narrow ? _mm512_permutexvar_ps(at->entry, low) : _mm512_permutex2var_ps(low, at->entry, high);
    __m512 there = narrow ? _mm512_permutexvar_ps(next, low) : _mm512_permutex2var_ps(low, next, high);
    return _mm512_fmadd_ps(at->part, _mm512_sub_ps(there, here), here);
}

/* mix_columns and resample in one, added to a line. */
AVX512_INLINE void add_ray(const char *first, const char *second, int64_t ahead, int n, float share, const Span *span, float *line,
                           int narrow, int halves) {
    int64_t size = halves ? sizeof(uint16_t) : sizeof(float);
    __m512 f = _mm512_set1_ps(share);
    for (int v = span->begin; v < span->end; v += LANES) {
        Sixteen at = sixteen_at(v, span, n);
        int64_t lowest = _mm_cvtsi128_si32(at.lowest);
        __builtin_prefetch(second + lowest * size + ahead, 0, 2);
        __m512 a = sixteen_voxels(first, lowest, at.first, halves, 0);
        __m512 b = sixteen_voxels(second, lowest, at.first, halves, 0);
        __m512 low = _mm512_fmadd_ps(f, _mm512_sub_ps(b, a), a), high = low;
        if (!narrow) {
            a = sixteen_voxels(first, lowest + LANES, at.second, halves, 0);
            b = sixteen_voxels(second, lowest + LANES, at.second, halves, 0);
            high = _mm512_fmadd_ps(f, _mm512_sub_ps(b, a), a);
        }
        _mm512_storeu_ps(line + v, _mm512_add_ps(_mm512_loadu_ps(line + v), pick(low, high, &at, narrow)));
    }
}

AVX512 static void add_ray_avx512(const char *first, const char *second, int64_t ahead, int n, float share, const Span *span, float *line,
                                  int halves) {
    int narrow = fabsf(span->step) <= NARROW;
    if (halves)
        narrow ? add_ray(first, second, ahead, n, share, span, line, 1, 1) : add_ray(first, second, ahead, n, share, span, line, 0, 1);
    else
        narrow ? add_ray(first, second, ahead, n, share, span, line, 1, 0) : add_ray(first, second, ahead, n, share, span, line, 0, 0);
}

/* rows [i][v] = sixteen pixels of the resampled columns [i], `count` of them side by side. */
AVX512_INLINE void resample_sixteen(const Slab *slab, const char *column, int count, const Sixteen *at, int64_t row, float *rows,
                                    int narrow, int halves, int whole) {
    int64_t size = halves ? sizeof(uint16_t) : sizeof(float), lowest = _mm_cvtsi128_si32(at->lowest);
#pragma GCC unroll 4
    for (int i = 0; i < count; i++) {
        const char *from = column + i * slab->next;
        __builtin_prefetch(from + lowest * size + slab->ahead, 0, 2);
        __m512 low = sixteen_voxels(from, lowest, at->first, halves, whole), high = low;
        if (!narrow) high = sixteen_voxels(from, lowest + LANES, at->second, halves, whole);
        _mm512_storeu_ps(rows + i * row, pick(low, high, at, narrow));
    }
}

AVX512_INLINE void resample_group(const Slab *slab, const char *column, int count, const Span *span, const Sixteen *places, int64_t row,
                                  float *rows, int narrow, int halves) {
    int64_t size = halves ? sizeof(uint16_t) : sizeof(float);
    for (int v = span->begin; v < span->end; v += LANES) {
        Sixteen at = places[v / LANES];
        if (at.first == 0xffff && (narrow || at.second == 0xffff))
            resample_sixteen(slab, column, count, &at, row, rows + v, narrow, halves, 1);
        else
            resample_sixteen(slab, column, count, &at, row, rows + v, narrow, halves, 0);
    }
    int first = _mm_cvtsi128_si32(places[span->begin / LANES].lowest), last = _mm_cvtsi128_si32(places[span->end / LANES - 1].lowest);
    for (int i = 0; i < count; i++) /* the line behind the last one */
        __builtin_prefetch(column + i * slab->next + (MAX(first, last) + LANES) * size + slab->ahead, 0, 2);
}

AVX512_INLINE void resample_groups(const Slab *slab, int first, int last, const Span *span, const Sixteen *places, int64_t row,
                                   float *rows, int narrow, int halves) {
    for (; first + GROUP - 1 <= last; first += GROUP, rows += GROUP * row)
        resample_group(slab, slab->data + first * slab->next, GROUP, span, places, row, rows, narrow, halves);
    for (; first < last; first += 2, rows += 2 * row)
        resample_group(slab, slab->data + first * slab->next, 2, span, places, row, rows, narrow, halves);
    for (; first <= last; first++, rows += row)
        resample_group(slab, slab->data + first * slab->next, 1, span, places, row, rows, narrow, halves);
}

AVX512 static void resample_avx512(const Slab *slab, int first, int last, const Span *span, const Sixteen *places, int64_t row,
                                   float *rows) {
    int narrow = fabsf(span->step) <= NARROW;
    if (slab->halves)
        narrow ? resample_groups(slab, first, last, span, places, row, rows, 1, 1)
               : resample_groups(slab, first, last, span, places, row, rows, 0, 1);
    else
        narrow ? resample_groups(slab, first, last, span, places, row, rows, 1, 0)
               : resample_groups(slab, first, last, span, places, row, rows, 0, 0);
}

AVX512 static void find_places(const Span *span, int n, Sixteen *places) {
    for (int v = span->begin; v < span->end; v += LANES) places[v / LANES] = sixteen_at(v, span, n);
}
#else
typedef char Sixteen;
#endif

/* Zeros, at the start of a cache line. */
INLINE void *room(int64_t bytes) {
    size_t size = (size_t)(bytes + 63) / 64 * 64;
    void *start = aligned_alloc(64, size);
    return start ? memset(start, 0, size) : NULL;
}

/* Where a tile works. */
typedef struct {
    float *column, *rows; /* voxels as floats; [ROWS + 2][row] */
    const void *none;     /* a column of zeros */
    Sixteen *places;      /* of all pixels of a row */
    int64_t row;
} Bench;

/* Every voxel column that holds material m becomes a row, the others zeros; rows[0] and the one behind the last stay zeros. */
INLINE void resample_columns(const Slab *slab, const Crossing *crossing, int m, const Span *span, const Bench *bench, int avx512) {
    size_t bytes = sizeof(float) * (size_t)(span->end - span->begin);
    for (int i = crossing->lowest; i <= crossing->highest + 1;) {
        float *row = bench->rows + (i - crossing->lowest + 1) * bench->row;
        int first = i;
        while (i <= crossing->highest && slab->held[i] >> m & 1) i++;
        if (i == first) {
            memset(row + span->begin, 0, bytes), i++;
            continue;
        }
#ifdef X86
        if (avx512 && fabsf(span->step) <= WIDE) {
            resample_avx512(slab, first, i - 1, span, bench->places, bench->row, row);
            continue;
        }
#endif
        (void)avx512;
        for (; first < i; first++, row += bench->row) {
            const char *from = slab->data + first * slab->next;
            fetch(from, slab, span);
            for (int j = span->from; j < span->to; j++) bench->column[j] = voxel(from, j, slab->halves);
            resample(bench->column, slab->n, span, row, 0);
        }
    }
}

/* line += the ray `share` of the way from one row to the next. */
INLINE void mix_rows(const float *restrict near, const float *restrict far, float share, const Span *span, float *restrict line) {
    float rest = 1 - share;
#pragma GCC unroll 4
    for (int v = span->begin; v < span->end; v += LANES)
        for (int lane = v; lane < v + LANES; lane++) line[lane] = fmaf(share, far[lane], fmaf(rest, near[lane], line[lane]));
}

/* The ray between the voxel columns i and i + 1 on its own. */
INLINE void add_ray_any(const Slab *slab, int i, float share, int m, const Span *span, const Bench *bench, float *line, int avx512) {
    const void *first = slab->held[i] >> m & 1 ? slab->data + i * slab->next : bench->none;
    const void *second = slab->held[i + 1] >> m & 1 ? slab->data + (i + 1) * slab->next : bench->none;
#ifdef X86
    if (avx512 && fabsf(span->step) <= WIDE) {
        add_ray_avx512(first, second, slab->ahead, slab->n, share, span, line, slab->halves);
        return;
    }
#endif
    (void)avx512;
    fetch(second, slab, span);
    mix_columns(first, second, slab->halves, share, span, bench->column);
    resample(bench->column, slab->n, span, line, 1);
}

/* image [channel][v][u] = line integrals through the interpolated volume. */
INLINE int joseph_columns_any(const Volume *volume, const Path *paths, int64_t columns_u, int64_t rows_v, float *image,
                              int avx512) {
    int channels = volume->channels, coded = volume->kind == HU, n_u = (int)columns_u, n_v = (int)rows_v, n = (int)volume->c;
    int64_t sides[2] = {volume->a, volume->b}, strides[2] = {volume->stride_a, volume->stride_b};
    int64_t widest = MAX(sides[0], sides[1]), size = volume->kind == FLOATS ? sizeof(float) : sizeof(int16_t);
    int64_t sixteens = (n_v + LANES - 1) / LANES, row = (sixteens | 1) * LANES; /* odd: rows spread over all of the cache */
    int64_t lines_size = (int64_t)sizeof(float) * TILE * channels * row;
    float *lines = room(lines_size), *rows = room((int64_t)sizeof(float) * (ROWS + 2) * row);
    float *column = room((int64_t)sizeof(float) * (n + 2 * PAD)), *none = room((int64_t)sizeof(float) * n);
    float *decoded = coded ? room((int64_t)sizeof(float) * channels * widest * n) : NULL;
    uint8_t *held = room(widest + 4); /* materials per column of the slab, as bits; none beyond either side */
    Sixteen *places = room((int64_t)sizeof(Sixteen) * sixteens);
    Span *spans = room((int64_t)sizeof(Span) * (sides[0] + sides[1])); /* of every slab along a and along b, */
    const Path *spanned[2] = {NULL, NULL};                             /* for rays with the heights of these */
    int failed = !lines || !rows || !none || !column || !held || !places || !spans || (coded && !decoded);
    Bench bench = {column + PAD, rows, none, places, row};
    for (int first_u = 0; first_u < n_u && !failed; first_u += TILE) {
        memset(lines, 0, (size_t)lines_size);
        for (int driving = 0; driving < 2; driving++) {
            const Path *path[TILE];
            double o0[TILE] = {0}, o1[TILE] = {0};
            float *line[TILE];
            int rays = 0, level = 1; /* level: all rays of the tile pass a slab at the same heights */
            for (int u = first_u; u < MIN(first_u + TILE, n_u); u++) {
                if (paths[u].driving != driving) continue;
                path[rays] = paths + u, o0[rays] = paths[u].o0, o1[rays] = paths[u].o1;
                line[rays] = lines + (u - first_u) * channels * row;
                level &= same_heights(path[0], paths + u);
                rays++;
            }
            int64_t across = sides[1 - driving], plane = across * n, next = strides[1 - driving];
            Span *known = spans + (driving ? sides[0] : 0);
            if (rays && !(spanned[driving] && same_heights(spanned[driving], path[0]))) {
                for (int64_t k = 0; k < sides[driving]; k++) known[k] = span_of(path[0], (double)k, n, n_v);
                spanned[driving] = path[0];
            }
            memset(held, 0, (size_t)widest + 4), memset(held + 2, 1, (size_t)across);
            for (int64_t k = 0; k < sides[driving] && rays; k++) {
                Crossing crossing = crossing_of(o0, o1, rays, (double)k, across);
                if (crossing.highest < crossing.lowest) continue;
                Span span = known[k];
                if (level && span.begin >= span.end) continue;
                int shared = level && crossing.highest - crossing.lowest < ROWS; /* resampled columns, by several rays */
                const char *data = (const char *)volume->data + k * strides[driving] * size;
                int64_t slabs = MIN(AHEAD, sides[driving] - 1 - k);
                int64_t ahead = (slabs * strides[driving] + floor_int(o1[rays / 2] * (double)slabs + 0.5) * next) * size;
                int64_t seen_from = level ? span.from : 0, seen = (level ? span.to : n) - seen_from;
                for (int64_t i = crossing.lowest; i <= crossing.highest && coded; i++) {
                    const int16_t *hu = (const int16_t *)data + i * next + seen_from;
                    float *to = decoded + i * n + seen_from;
                    prefetch((const char *)hu + ahead, seen * size);
                    if (channels == 1) {
                        decode_density(hu, seen, volume->code, to);
                    } else {
                        held[i + 2] = (uint8_t)materials_in(hu, seen, volume->code);
                        decode_materials(hu, seen, volume->code, held[i + 2], to, to + plane, to + 2 * plane);
                    }
                }
#ifdef X86
                if (avx512 && shared) find_places(&span, n, places);
#endif
                for (int m = 0; m < channels; m++) {
                    Slab slab = {data, next * size, ahead, n, volume->kind == HALVES, held + 2};
                    if (coded) slab = (Slab){(const char *)(decoded + m * plane), n * (int64_t)sizeof(float), 0, n, 0, held + 2};
                    if (shared) resample_columns(&slab, &crossing, m, &span, &bench, avx512);
                    for (int ray = 0; ray < rays; ray++) {
                        int i = crossing.left[ray];
                        if (!((slab.held[i] | slab.held[i + 1]) >> m & 1)) continue;
                        if (shared) {
                            const float *near = rows + (i - crossing.lowest + 1) * row;
                            mix_rows(near, near + row, crossing.share[ray], &span, line[ray] + m * row);
                            continue;
                        }
                        if (!level) span = span_of(path[ray], (double)k, n, n_v);
                        add_ray_any(&slab, i, crossing.share[ray], m, &span, &bench, line[ray] + m * row, avx512);
                    }
                }
            }
        }
        publish(lines, row, paths, first_u, MIN(first_u + TILE, n_u), channels, n_u, n_v, image);
    }
    free(lines), free(rows), free(none), free(column), free(decoded), free(held), free(places), free(spans);
    return failed;
}

DISPATCH(joseph_columns, (const Volume *volume, const Path *paths, int64_t n_u, int64_t n_v, float *image), volume, paths, n_u, n_v,
         image)
