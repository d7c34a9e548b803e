/* A polychromatic beam behind three materials: sums over the energy bins of weight x exp(-attenuation). */
#include "common.h"

/* exp(x) for x <= 0 to 2e-7 relative, 0 below -87: 2^n times a polynomial on [-ln2/2, ln2/2]. */
INLINE float exp_negative(float x) {
    int gone = x < -87.0f; /* smaller than any normal float32 */
    x = gone ? -87.0f : x;
    float n = fmaf(x, 1.44269504f, 12582912.0f) - 12582912.0f; /* rounds to the nearest integer */
    float r = fmaf(n, 2.12194440e-4f, fmaf(n, -0.693359375f, x));
    float p = fmaf(r, fmaf(r, fmaf(r, fmaf(r, fmaf(r, fmaf(r, 1.3888889e-3f, 8.3333333e-3f), 4.16666667e-2f), 1.66666667e-1f), 0.5f), 1.0f),
                   1.0f);
    union { int32_t bits; float value; } scale = {((int32_t)n + 127) << 23};
    return gone ? 0.0f : p * scale.value;
}

/* areal [material][pixel] g/cm2, mu [material][bin] cm2/g; signal = sum first[bin] exp(..), moment = sum second[bin] exp(..). */
INLINE int detect_any(const float *areal, int64_t pixels, const float *mu, int64_t bins, int64_t materials, const float *first,
                      const float *second, float *signal, float *moment, int avx512) {
    (void)avx512;
    for (int64_t begin = 0; begin < pixels; begin += LANES) {
        float path[4][LANES] = {{0}}, one[LANES] = {0}, two[LANES] = {0};
        int64_t lanes = MIN(LANES, pixels - begin);
        for (int m = 0; m < materials; m++)
            for (int64_t lane = 0; lane < lanes; lane++) path[m][lane] = areal[m * pixels + begin + lane];
        for (int64_t bin = 0; bin < bins; bin++) {
            float m0 = mu[bin], m1 = materials > 1 ? mu[bins + bin] : 0, m2 = materials > 2 ? mu[2 * bins + bin] : 0;
            float w1 = first[bin], w2 = second[bin];
            for (int lane = 0; lane < LANES; lane++) {
                float left = exp_negative(-fmaf(path[2][lane], m2, fmaf(path[1][lane], m1, path[0][lane] * m0)));
                one[lane] = fmaf(w1, left, one[lane]);
                two[lane] = fmaf(w2, left, two[lane]);
            }
        }
        memcpy(signal + begin, one, sizeof(float) * (size_t)lanes);
        memcpy(moment + begin, two, sizeof(float) * (size_t)lanes);
    }
    return 0;
}

DISPATCH(detect,
         (const float *areal, int64_t pixels, const float *mu, int64_t bins, int64_t materials, const float *first, const float *second,
          float *signal, float *moment),
         areal, pixels, mu, bins, materials, first, second, signal, moment)
