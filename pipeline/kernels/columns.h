/* Joseph and Siddon for detectors whose columns run along a grid axis, the usual case of a gantry.

   The volume is seen as [a][b][c] with c contiguous and parallel to the detector's columns (v). All rays of one detector
   column u then share their path in the (a, b) plane, so the work of a slab of the driving axis separates: between two
   neighbouring voxel columns, and along v. A ray of column u crosses the slab k of its driving
   axis at

       o(k) = o0 + o1 k          the other one of a and b
       c(k, v) = (c00 + c01 k) + (c10 + c11 k) v

   and runs sqrt(s0 + s1 v + s2 v^2) mm from one slab to the next.

   Outside the volume the attenuation is 0; between the outermost voxel centre and one voxel further it falls linearly. */
#ifndef COLUMNS_H
#define COLUMNS_H
#include "common.h"

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

/* image [channel][v][u] = line [u][channel][v] x mm per slab; lines are `stride` floats apart. */
INLINE void publish(const float *lines, int64_t stride, const Path *paths, int first_u, int last_u, int channels, int n_u, int n_v,
                    float *image) {
    double s0[TILE] = {0}, s1[TILE] = {0}, s2[TILE] = {0};
    for (int u = first_u; u < last_u; u++)
        s0[u - first_u] = paths[u].s0, s1[u - first_u] = paths[u].s1, s2[u - first_u] = paths[u].s2;
    for (int v = 0; v < n_v; v++) {
        float mm[TILE];
        for (int n = 0; n < TILE; n++) mm[n] = (float)sqrt(s0[n] + (s1[n] + s2[n] * (double)v) * (double)v);
        for (int m = 0; m < channels; m++)
            for (int u = first_u; u < last_u; u++)
                image[((int64_t)m * n_v + v) * n_u + u] = lines[((u - first_u) * channels + m) * stride + v] * mm[u - first_u];
    }
}

INLINE int same_heights(const Path *a, const Path *b) {
    return a->c00 == b->c00 && a->c01 == b->c01 && a->c10 == b->c10 && a->c11 == b->c11;
}

#endif
