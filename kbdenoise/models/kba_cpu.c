/* Kernel-basis attention on a CPU, with every mixed kernel kept in vector registers.

   What is computed, and in which words, stands in kba.py. A pixel's kernel for one tap is a matrix
   product of its attention; here its values are multiplied with the image the moment they are
   known and never reach memory. So the work runs at the speed of a matrix product, and the memory
   it wants is that of its images.

   Images are float32 planes of one padded picture: the rows, with the zeros on either side, follow
   each other without gaps, so that a tap is one constant distance in memory (`offsets`) and rows
   need no ends. Pixels between `first` and `last` are computed, those of the margin too: they are
   nobody's, and the attention is zero there. Each plane has kba_block_pixels() - 1 floats of slack
   behind its last row, because the last block overshoots.

   Basis rows are numbered r = (G*gc + o)*gc + i: output channel r / gc of the group G, and its
   input channel i. Matrices come packed by kba_native.py, four rows side by side for each basis,
   zeros filling up the last four. */

#include <string.h>

#if defined(__AVX512F__)
enum { LANES = 16, VECTORS = 6, NSET_VECTORS = 2, GRADIENT_ROWS = 6 };
#elif defined(__AVX__)
enum { LANES = 8, VECTORS = 3, NSET_VECTORS = 4, GRADIENT_ROWS = 3 };
#elif defined(__aarch64__)
enum { LANES = 4, VECTORS = 6, NSET_VECTORS = 8, GRADIENT_ROWS = 3 };
#else
enum { LANES = 4, VECTORS = 3, NSET_VECTORS = 4, GRADIENT_ROWS = 3 };
#endif

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4)));

/* Keeps a vector in a register, where the compiler would load it anew for every use: on x86 the
   loads, not the sums, would then set the pace. */
#if defined(__x86_64__)
#define KEEP(vector) __asm__("" : "+x"(vector))
#elif defined(__aarch64__)
#define KEEP(vector) __asm__("" : "+w"(vector))
#else
#define KEEP(vector)
#endif

enum {
    ROWS = 4,                                /* of the basis at once: ROWS * VECTORS sums */
    PIXELS = VECTORS * LANES,                /* of a block: one set of registers */
    BLOCKS = PIXELS >= 96 ? 2 : 3,           /* of a strip, which stays in the nearest cache */
    STRIP = BLOCKS * PIXELS,
    TURNED = 16,                             /* pixels at once where channels lie side by side */
    PRODUCTS = 32,                           /* rows of the basis in one step of a gradient */
    NSET_BLOCK = NSET_VECTORS * LANES,       /* bases that a row of the weight gradient holds */
    MOST_NSET = 256
};

typedef struct {
    long channels, group_channels, nset, taps;
    long plane;          /* floats from one channel to the next */
    const long *offsets; /* of the taps, in floats */
} Shape;

long kba_block_pixels(void) { return PIXELS; }
long kba_nset_block(void) { return NSET_BLOCK; }
long kba_most_nset(void) { return MOST_NSET; }

static long row_count(const Shape *s) { return s->channels * s->group_channels; }
static long output_channel(const Shape *s, long row) { return row / s->group_channels; }

static long input_channel(const Shape *s, long row) {
    long channel = output_channel(s, row);
    return channel - channel % s->group_channels + row % s->group_channels;
}

static long least(long a, long b) { return a < b ? a : b; }

/* Steps in memory, in floats, from one channel, row or pixel of an image to the next. */
typedef struct {
    long channel, row, pixel;
} Steps;

static void copy_row(float *to, long to_channel, long to_pixel, const float *from,
                     long from_channel, long from_pixel, long channels, long width) {
    if (to_pixel == 1 && from_pixel == 1) {
        for (long c = 0; c < channels; c++)
            memcpy(to + c * to_channel, from + c * from_channel, width * sizeof(float));
        return;
    }
    for (long x = 0; x < width; x += TURNED) /* so few that their cache lines stay */
        for (long c = 0; c < channels; c++)
            for (long i = x; i < least(width, x + TURNED); i++)
                to[c * to_channel + i * to_pixel] = from[c * from_channel + i * from_pixel];
}

/* Rows `begin` to `end` of the padded picture, margins counted, from an image of any strides. */
void kba_pad(const float *image, const Steps *steps, float *planes, long plane, long channels,
             long height, long width, long margin, long begin, long end) {
    long stride = width + 2 * margin;
    for (long y = begin; y < end; y++) {
        float *to = planes + y * stride;
        int inside = y >= margin && y < height + margin;
        for (long c = 0; c < channels; c++) {
            memset(to + c * plane, 0, (inside ? margin : stride) * sizeof(float));
            memset(to + c * plane + stride - margin, 0, margin * sizeof(float));
        }
        if (inside)
            copy_row(to + margin, plane, 1, image + (y - margin) * steps->row, steps->channel,
                     steps->pixel, channels, width);
    }
}

/* The way back, without margins: rows `begin` to `end` of the image. */
void kba_unpad(const float *planes, long plane, float *image, const Steps *steps, long channels,
               long width, long margin, long begin, long end) {
    long stride = width + 2 * margin;
    for (long y = begin; y < end; y++)
        copy_row(image + y * steps->row, steps->channel, steps->pixel,
                 planes + (y + margin) * stride + margin, plane, 1, channels, width);
}

/* sums[j][v] += values[k][j] * planes[k][v], over k: the one hot loop of this file. */
static inline __attribute__((always_inline)) void multiply(
    vec sums[ROWS][VECTORS], const float *values, const float *planes, long count) {
    for (long k = 0; k < count; k++, values += ROWS, planes += PIXELS) {
        vec plane[VECTORS];
        for (int v = 0; v < VECTORS; v++) {
            plane[v] = *(const vec *)(planes + v * LANES);
            KEEP(plane[v]);
        }
        for (int j = 0; j < ROWS; j++)
            for (int v = 0; v < VECTORS; v++) sums[j][v] += values[j] * plane[v];
    }
}

/* A strip of planes, one block after the other: [BLOCKS][planes][PIXELS]. */
static void pack(float *packed, const float *planes, long count, long stride, long blocks) {
    for (long b = 0; b < blocks; b++)
        for (long n = 0; n < count; n++)
            memcpy(packed + (b * count + n) * PIXELS, planes + n * stride + b * PIXELS,
                   PIXELS * sizeof(float));
}

/* out(p) = sum_t kernel_t(p) x(p + offset_t), plus the bias where there is one.

   matrices: [taps][rows/4][nset][4], bias: [channels/4][nset][4] or NULL. With `moving` the
   attention is taken at p + offset_t too: that is the gradient of x, with the transposed basis. */
void kba_mix(const Shape *s, const float *x, const float *attention, const float *matrices,
             const float *bias, float *out, long first, long last, int moving) {
    float packed[BLOCKS * MOST_NSET * PIXELS];
    long rows = row_count(s), quads = (rows + ROWS - 1) / ROWS;
    for (long p = first; p < last; p += STRIP) {
        long blocks = least(BLOCKS, (last - p + PIXELS - 1) / PIXELS);
        if (!moving) pack(packed, attention + p, s->nset, s->plane, blocks);
        for (long c = 0; c < s->channels; c += ROWS)
            for (long b = 0; b < blocks; b++) {
                vec sums[ROWS][VECTORS] = {0};
                if (bias)
                    multiply(sums, bias + c * s->nset, packed + b * s->nset * PIXELS, s->nset);
                for (int j = 0; j < ROWS && c + j < s->channels; j++)
                    memcpy(out + (c + j) * s->plane + p + b * PIXELS, sums[j], sizeof sums[j]);
            }
        for (long t = 0; t < s->taps; t++) {
            long seen = p + s->offsets[t];
            if (moving) pack(packed, attention + seen, s->nset, s->plane, blocks);
            for (long q = 0; q < quads; q++) {
                const float *matrix = matrices + (t * quads + q) * s->nset * ROWS;
                long count = least(ROWS, rows - q * ROWS);
                const float *from[ROWS];
                float *to[ROWS];
                for (int j = 0; j < count; j++) {
                    to[j] = out + output_channel(s, q * ROWS + j) * s->plane + p;
                    from[j] = x + input_channel(s, q * ROWS + j) * s->plane + seen;
                }
                for (long b = 0; b < blocks; b++) {
                    vec sums[ROWS][VECTORS] = {0};
                    multiply(sums, matrix, packed + b * s->nset * PIXELS, s->nset);
                    for (int j = 0; j < count; j++)
                        for (int v = 0; v < VECTORS; v++)
                            *(vec *)(to[j] + b * PIXELS + v * LANES) +=
                                sums[j][v] * *(const vec *)(from[j] + b * PIXELS + v * LANES);
                }
            }
        }
    }
}

/* products[b][r - begin][pixel] = grad(output channel of r) * x(input channel of r, at the tap) */
static void pack_products(const Shape *s, float *packed, const float *grad, const float *x,
                          long begin, long end, long blocks) {
    for (long b = 0; b < blocks; b++)
        for (long row = begin; row < end; row++) {
            const float *d = grad + output_channel(s, row) * s->plane + b * PIXELS;
            const float *seen = x + input_channel(s, row) * s->plane + b * PIXELS;
            float *to = packed + (b * (end - begin) + row - begin) * PIXELS;
            for (int v = 0; v < PIXELS; v += LANES)
                *(vec *)(to + v) = *(const vec *)(d + v) * *(const vec *)(seen + v);
        }
}

/* out[n](p) += sum over `count` rows of values[n/4][row][n % 4] * products[row](p) */
static void add_to_attention(const Shape *s, float *out, const float *values, long stride,
                             const float *products, long count, long blocks) {
    for (long n = 0; n < s->nset; n += ROWS)
        for (long b = 0; b < blocks; b++) {
            vec sums[ROWS][VECTORS] = {0};
            multiply(sums, values + n * stride, products + b * count * PIXELS, count);
            for (int j = 0; j < ROWS && n + j < s->nset; j++)
                for (int v = 0; v < VECTORS; v++)
                    *(vec *)(out + (n + j) * s->plane + b * PIXELS + v * LANES) += sums[j][v];
        }
}

/* The gradient of the attention, added to `out`.

   matrices: [taps][nset/4][rows][4], bias: [nset/4][channels][4]. */
void kba_attention_gradient(const Shape *s, const float *x, const float *grad,
                            const float *matrices, const float *bias, float *out, long first,
                            long last) {
    float products[BLOCKS * PRODUCTS * PIXELS];
    long rows = row_count(s), quads = (s->nset + ROWS - 1) / ROWS;
    for (long p = first; p < last; p += STRIP) {
        long blocks = least(BLOCKS, (last - p + PIXELS - 1) / PIXELS);
        for (long c = 0; c < s->channels; c += PRODUCTS) {
            long count = least(PRODUCTS, s->channels - c);
            pack(products, grad + c * s->plane + p, count, s->plane, blocks);
            add_to_attention(s, out + p, bias + c * ROWS, s->channels, products, count, blocks);
        }
        for (long t = 0; t < s->taps; t++)
            for (long row = 0; row < rows; row += PRODUCTS) {
                long count = least(PRODUCTS, rows - row);
                const float *matrix = matrices + (t * quads * rows + row) * ROWS;
                pack_products(s, products, grad + p, x + p + s->offsets[t], row, row + count, blocks);
                add_to_attention(s, out + p, matrix, rows, products, count, blocks);
            }
    }
}

/* The gradient of the basis, added to out[taps * rows][nset, rounded up to NSET_BLOCK].

   Only the rows between `begin` and `end` of them are computed, over all pixels in one order: the
   sum does not depend on how rows are shared among threads. */
void kba_weight_gradient(const Shape *s, const float *x, const float *grad, const float *attention,
                         float *out, long begin, long end, long first, long last) {
    float turned[STRIP * MOST_NSET]; /* the attention, [nset blocks][pixels][NSET_BLOCK] */
    float products[GRADIENT_ROWS][STRIP];
    long rows = row_count(s), nset_blocks = (s->nset + NSET_BLOCK - 1) / NSET_BLOCK;
    for (long p = first; p < last; p += STRIP) {
        long pixels = least(STRIP, last - p);
        memset(turned, 0, nset_blocks * STRIP * NSET_BLOCK * sizeof(float));
        for (long n = 0; n < s->nset; n++)
            for (long i = 0; i < pixels; i++)
                turned[(n / NSET_BLOCK * STRIP + i) * NSET_BLOCK + n % NSET_BLOCK] =
                    attention[n * s->plane + p + i];
        for (long row = begin; row < end; row += GRADIENT_ROWS) {
            long count = least(GRADIENT_ROWS, end - row);
            for (long j = 0; j < GRADIENT_ROWS; j++) {
                long own = least(row + j, end - 1); /* the last one again, to be thrown away */
                const float *d = grad + output_channel(s, own % rows) * s->plane + p;
                const float *seen = x + input_channel(s, own % rows) * s->plane + p +
                                    s->offsets[own / rows];
                for (long i = 0; i < pixels; i++) products[j][i] = d[i] * seen[i];
            }
            for (long block = 0; block < nset_blocks; block++) {
                vec sums[GRADIENT_ROWS][NSET_VECTORS] = {0};
                const float *a = turned + block * STRIP * NSET_BLOCK;
                for (long i = 0; i < pixels; i++)
                    for (int j = 0; j < GRADIENT_ROWS; j++)
                        for (int v = 0; v < NSET_VECTORS; v++)
                            sums[j][v] += products[j][i] *
                                          *(const vec *)(a + i * NSET_BLOCK + v * LANES);
                for (long j = 0; j < count; j++)
                    for (int v = 0; v < NSET_VECTORS; v++)
                        *(vec *)(out + ((row + j) * nset_blocks + block) * NSET_BLOCK +
                                 v * LANES) += sums[j][v];
            }
        }
    }
}
