/* The hash grid on scattered points, float32, each way one sum per table row in a fixed order: threads share out chunks of
   points (encoding) or whole levels (adjoint), so neither races and the number of threads does not change a bit. Multiply-adds
   are never fused (-ffp-contract=off): encoding gives the bits of the plain PyTorch formula. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define CLONES __attribute__((target_clones("avx2", "default")))
#else
#define CLONES
#endif
#define EXPORT __attribute__((visibility("default")))
#define INLINE static inline __attribute__((always_inline))

#define CORNERS 8
#define BLOCK 32        /* points whose rows are fetched while those before them are summed */
#define CHUNK 8192      /* points of one level that a thread takes at once */
#define MOST_FEATURES 32
#define MOST_THREADS 64

typedef float eight __attribute__((vector_size(32), aligned(4), may_alias));

struct level {
    int64_t resolution, entries, offset; /* rows */
    double scale;
};

struct job {
    const struct level *levels;
    int64_t n_levels, features, n_points;
    const float *points;       /* [3][n_points] */
    float *table;              /* [rows][features]: read by encoding, written by the adjoint */
    float *encoded;            /* [n_points][n_levels * features]: written by encoding, read by the adjoint */
    atomic_long next;
};

struct block {
    uint32_t place[CORNERS][BLOCK]; /* row * features */
    float weight[CORNERS][BLOCK];
};

/* Places in the table and trilinear weights of `count` points. */
INLINE void look_up(const struct job *job, const struct level *level, int64_t start, int64_t count, struct block *block) {
    float scale = (float)level->scale, part[3][BLOCK];
    uint32_t vertex[3][BLOCK], entries = (uint32_t)level->entries, features = (uint32_t)job->features;
    int dense = level->resolution * level->resolution * level->resolution <= level->entries;
    uint32_t step_y = dense ? (uint32_t)level->resolution : 2654435761u;
    uint32_t step_z = dense ? (uint32_t)(level->resolution * level->resolution) : 805459861u;
    for (int axis = 0; axis < 3; axis++) {
        const float *coordinate = job->points + axis * job->n_points + start;
        for (int i = 0; i < count; i++) {
            float position = coordinate[i] * scale + 0.5f;
            int32_t whole = (int32_t)position; /* NaN and what is too large: some number, below some row of the table */
            whole -= (int32_t)((float)whole > position);
            part[axis][i] = position - (float)whole;
            vertex[axis][i] = (uint32_t)whole;
        }
    }
    for (int corner = 0; corner < CORNERS; corner++) {
        uint32_t right = corner & 1, up = corner >> 1 & 1, far = corner >> 2, beyond = 0;
        for (int i = 0; i < count; i++) {
            float x = right ? part[0][i] : 1 - part[0][i];
            float y = up ? part[1][i] : 1 - part[1][i];
            float z = far ? part[2][i] : 1 - part[2][i];
            block->weight[corner][i] = x * y * z;
            uint32_t at_x = vertex[0][i] + right, at_y = (vertex[1][i] + up) * step_y, at_z = (vertex[2][i] + far) * step_z;
            uint32_t row = dense ? at_x + at_y + at_z : (at_x ^ at_y ^ at_z) & (entries - 1);
            row = row - entries < row ? row - entries : row; /* a vertex past the end of a dense grid */
            beyond |= row >= entries;
            block->place[corner][i] = row * features;
        }
        if (!beyond) continue;
        for (int i = 0; i < count; i++) { /* points outside the unit cube; the remainder has the sign of the divisor */
            uint32_t row = vertex[0][i] + right + (vertex[1][i] + up) * step_y + (vertex[2][i] + far) * step_z;
            int64_t rest = (int32_t)row % (int64_t)entries;
            block->place[corner][i] = (uint32_t)(rest < 0 ? rest + entries : rest) * features;
        }
    }
}

/* Into the second cache, which waits for more lines at a time than the first. */
INLINE void fetch(const struct block *block, const float *table, int64_t count, int adjoint) {
    for (int i = 0; i < count; i++)
        for (int corner = 0; corner < CORNERS; corner++) {
            if (adjoint) __builtin_prefetch(table + block->place[corner][i], 1, 2);
            else __builtin_prefetch(table + block->place[corner][i], 0, 2);
        }
}

INLINE void sum(const struct block *block, float *table, int64_t features, int64_t count, float *encoded, int64_t stride,
                int adjoint) {
    for (int i = 0; i < count; i++, encoded += stride) {
        if (adjoint) __builtin_prefetch(encoded + 32 * stride, 0);
        else __builtin_prefetch(encoded + 32 * stride, 1);
        if (features == 8) {
            eight total = adjoint ? *(const eight *)encoded : (eight){0};
            for (int corner = 0; corner < CORNERS; corner++) {
                eight *row = (eight *)(table + block->place[corner][i]);
                if (adjoint) *row += block->weight[corner][i] * total;
                else total += block->weight[corner][i] * *row;
            }
            if (!adjoint) *(eight *)encoded = total;
            continue;
        }
        float total[MOST_FEATURES];
        for (int f = 0; f < features; f++) total[f] = adjoint ? encoded[f] : 0;
        for (int corner = 0; corner < CORNERS; corner++) {
            float *row = table + block->place[corner][i], weight = block->weight[corner][i];
            for (int f = 0; f < features; f++)
                if (adjoint) row[f] += weight * total[f];
                else total[f] += weight * row[f];
        }
        for (int f = 0; f < features && !adjoint; f++) encoded[f] = total[f];
    }
}

/* Points [first, last) of one level: the rows of one block are on their way while those of the block before are summed. */
INLINE void run_level(const struct job *job, int64_t number, int64_t first, int64_t last, int adjoint) {
    const struct level *level = job->levels + number;
    int64_t stride = job->n_levels * job->features;
    float *table = job->table + level->offset * job->features;
    struct block blocks[2];
    int64_t before = 0;
    for (int64_t start = first, turn = 0; start < last + BLOCK; start += BLOCK, turn ^= 1) {
        int64_t count = start < last ? (last - start < BLOCK ? last - start : BLOCK) : 0;
        look_up(job, level, start, count, &blocks[turn]);
        fetch(&blocks[turn], table, count, adjoint);
        if (before)
            sum(&blocks[turn ^ 1], table, job->features, before, job->encoded + (start - BLOCK) * stride + number * job->features,
                stride, adjoint);
        before = count;
    }
}

CLONES static void encode_level(const struct job *job, int64_t number, int64_t first, int64_t last) {
    run_level(job, number, first, last, 0);
}

/* A level's rows are still near when they are added to after they were set to zero. */
CLONES static void adjoint_level(const struct job *job, int64_t number) {
    const struct level *level = job->levels + number;
    memset(job->table + level->offset * job->features, 0, (size_t)(level->entries * job->features) * sizeof(float));
    run_level(job, number, 0, job->n_points, 1);
}

/* Finest levels first: they take longest. */
static void *encode_tasks(void *shared) {
    struct job *job = shared;
    int64_t chunks = (job->n_points + CHUNK - 1) / CHUNK;
    for (int64_t task; (task = atomic_fetch_add(&job->next, 1)) < job->n_levels * chunks;) {
        int64_t first = task % chunks * CHUNK, last = first + CHUNK;
        encode_level(job, job->n_levels - 1 - task / chunks, first, last < job->n_points ? last : job->n_points);
    }
    return 0;
}

static void *adjoint_tasks(void *shared) {
    struct job *job = shared;
    for (int64_t task; (task = atomic_fetch_add(&job->next, 1)) < job->n_levels;) adjoint_level(job, job->n_levels - 1 - task);
    return 0;
}

/* A thread that cannot be started leaves its share to the others. */
static int share(struct job *job, void *(*tasks)(void *), int64_t threads) {
    pthread_t others[MOST_THREADS];
    int started = 0;
    while (started < threads - 1 && started < MOST_THREADS && !pthread_create(&others[started], 0, tasks, job)) started++;
    tasks(job);
    for (int i = 0; i < started; i++) pthread_join(others[i], 0);
    return 0;
}

static int possible(const struct level *levels, int64_t n_levels, int64_t features) {
    for (int64_t l = 0; l < n_levels; l++)
        if (levels[l].entries * features > INT32_MAX) return 0;
    return features <= MOST_FEATURES;
}

EXPORT int hash_grid_encode(const struct level *levels, int64_t n_levels, int64_t features, const float *points,
                            int64_t n_points, const float *table, float *encoded, int64_t threads) {
    if (!possible(levels, n_levels, features)) return 1;
    struct job job = {levels, n_levels, features, n_points, points, (float *)table, encoded, 0};
    return share(&job, encode_tasks, threads);
}

/* gradient [rows][features] = what the gradient of the encoded points says. */
EXPORT int hash_grid_adjoint(const struct level *levels, int64_t n_levels, int64_t features, const float *points,
                             int64_t n_points, float *gradient, const float *encoded, int64_t threads) {
    if (!possible(levels, n_levels, features)) return 1;
    struct job job = {levels, n_levels, features, n_points, points, gradient, (float *)encoded, 0};
    return share(&job, adjoint_tasks, threads);
}
