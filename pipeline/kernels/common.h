/* What the kernels share. Sums are float32; multiply-adds are fused where the source says so and nowhere else
   (-ffp-contract=off), and every pixel adds up its own samples in one order, so every machine gives the same bits. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* floor() without a call to the mathematics library, for arguments that fit an int64. */
static inline int64_t floor_int(double x) {
    int64_t whole = (int64_t)x;
    return whole - (x < (double)whole);
}

#define EXPORT __attribute__((visibility("default")))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

/* Sixteen floats as one value: registers of whatever width the machine has. */
#define LANES 16
typedef float vec __attribute__((vector_size(64), aligned(4), may_alias));

/* Unlike the macros these look at each argument once: loops of them become vector instructions. */
static inline float smaller(float a, float b) { return a < b ? a : b; }
static inline float larger(float a, float b) { return a > b ? a : b; }
static inline double smaller_double(double a, double b) { return a < b ? a : b; }
static inline double larger_double(double a, double b) { return a > b ? a : b; }

/* from a (part = 0) to b (part = 1) */
#define LERP(a, b, part) fmaf(part, (b) - (a), a)

/* A finite IEEE half. */
static inline float from_half(uint16_t half) {
    union { uint32_t bits; float value; } magnitude = {(uint32_t)(half & 0x7fff) << 13}, rescale = {0x77800000}; /* 2^112 */
    float value = magnitude.value * rescale.value;
    return half & 0x8000 ? -value : value;
}

/* One body, one machine code per instruction set, chosen when the kernel is called:

       INLINE int name_any(..., int avx512) { ... }
       DISPATCH(name, (parameters), arguments) */
#define INLINE static inline __attribute__((always_inline))

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#include <immintrin.h>
#define X86 1
#define AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")))
#define AVX2 __attribute__((target("avx2,fma")))
#define DISPATCH(name, parameters, ...)                                                                  \
    AVX512 EXPORT int name##_avx512 parameters { return name##_any(__VA_ARGS__, 1); }                    \
    AVX2 EXPORT int name##_avx2 parameters { return name##_any(__VA_ARGS__, 0); }                        \
    EXPORT int name##_plain parameters { return name##_any(__VA_ARGS__, 0); }                            \
    EXPORT int name parameters {                                                                         \
        if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")) return name##_avx512(__VA_ARGS__); \
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? name##_avx2(__VA_ARGS__) : name##_plain(__VA_ARGS__);     \
    }
#else
#define DISPATCH(name, parameters, ...) \
    EXPORT int name##_plain parameters { return name##_any(__VA_ARGS__, 0); } \
    EXPORT int name parameters { return name##_any(__VA_ARGS__, 0); }
#endif
