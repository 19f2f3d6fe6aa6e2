/* A network of signs, zeros and additions: a list of steps over planes of pixels, one plane a channel.
   The chapter `infer` of mplt derives every function. C99, its headers stdint.h and string.h, nothing else. */
#include <stdint.h>
#include <string.h>

/* step */
enum { CONV_SIGNS, CONV_REALS, LINEAR_SIGNS, LINEAR_REALS, EACH, ADD, SIGN, UNPACK, POOL, MEAN };

typedef struct {
    int kind;
    int channels, height, width;  /* of what goes in */
    int outputs, rows, columns;   /* of what comes out, before `pool` */
    int kernel, stride, top, left; /* of a convolution or pool; zeros above and left of the image */
    int pool;                     /* 2: the largest of 2 x 2 pixels follows; 1: it does not */
    int signs;                    /* 1: of what comes out, only the signs */
    int relu;                     /* 1: negative numbers become 0 at the end */
    int chunk;                    /* so many lookups fit into 8 bits; so many rows into the nearest memory */
    int from, other, to;          /* where planes lie in memory */
    const uint8_t *tables;        /* of four weights each: which are kept | which of them are negative << 4 */
    const uint32_t *counts;       /* how many gaps an output has: to add, to subtract; or how many tables */
    const uint16_t *gaps;         /* from one kept weight to the next */
    const float *values;          /* of kept weights that are no signs */
    const uint64_t *planes;       /* of sixteen times four weights: kept, negative */
    const float *scale, *shift;   /* of an output: gain, bias and batch normalisation in one */
    const int32_t *threshold;     /* of an output: its sign is + from this sum on */
    const uint8_t *flip;          /* 1: below it */
    const uint32_t *key;          /* of the stream from which signs are drawn, if they are, */
    const uint8_t *kept;          /* and which of the weights are kept, a bit each */
} Step;

typedef struct {
    float *reals;         /* planes of numbers */
    uint8_t *signs;       /* planes of signs, four channels a byte */
    float *spread_reals;  /* for a convolution: what `spread_reals` makes of planes of numbers, */
    uint8_t *spread_signs; /* what `spread_signs` makes of planes of signs, */
    int *where;           /* how far each row of it is from the first, */
    float *totals;        /* and one plane an output, of numbers */
    int16_t *sums;        /* or of whole numbers */
    uint64_t *words;      /* sixteen bytes of `signs`, packed */
} Memory;
/* end */

/* vectors */
#if defined __GNUC__ && defined __AVX__
enum { REALS = 8 };
#elif defined __GNUC__
enum { REALS = 4 };
#else
enum { REALS = 1 };
#endif

#ifdef __GNUC__
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 12")
typedef float Reals __attribute__((vector_size(4 * REALS)));
typedef uint64_t Words __attribute__((vector_size(16)));
#else
#define INLINE static inline
#define UNROLL
typedef float Reals;
typedef uint64_t Words;
#endif

#if defined MPLT_PORTABLE || !defined __GNUC__
#define LANES 0
#elif defined __AVX2__
#include <immintrin.h>
#define LANES 32
typedef int8_t Bytes __attribute__((vector_size(32)));
#define REPEAT(table) (Bytes)_mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(table)))
#define LOOK_UP(table, x) (Bytes)_mm256_shuffle_epi8((__m256i)(table), (__m256i)(x))
#elif defined __SSSE3__
#include <tmmintrin.h>
#define LANES 16
typedef int8_t Bytes __attribute__((vector_size(16)));
#define REPEAT(table) (Bytes)_mm_loadu_si128((const __m128i *)(table))
#define LOOK_UP(table, x) (Bytes)_mm_shuffle_epi8((__m128i)(table), (__m128i)(x))
#elif defined __aarch64__
#include <arm_neon.h>
#define LANES 16
typedef int8x16_t Bytes;
#define REPEAT(table) vld1q_s8(table)
#define LOOK_UP(table, x) vqtbl1q_s8(table, (uint8x16_t)(x))
#elif defined __wasm_simd128__
#include <wasm_simd128.h>
#define LANES 16
typedef int8_t Bytes __attribute__((vector_size(16)));
#define REPEAT(table) (Bytes)wasm_v128_load(table)
#define LOOK_UP(table, x) (Bytes)wasm_i8x16_swizzle((v128_t)(table), (v128_t)(x))
#else
#define LANES 0
#endif

#if defined __GNUC__ && defined __x86_64__
#define KEEP(vector) __asm__("" : "+x"(vector)) /* as a sum of its own: GCC would reorder, and spill */
#else
#define KEEP(vector)
#endif
/* end */

/* popcount */
INLINE int ones(uint64_t x)
{
#if defined __POPCNT__ || defined __aarch64__ || defined __wasm__
    return __builtin_popcountll(x);
#else
    x -= x >> 1 & 0x5555555555555555;
    x = (x & 0x3333333333333333) + (x >> 2 & 0x3333333333333333);
    x = (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0f;
    return (int)(x * 0x0101010101010101 >> 56);
#endif
}
/* end */

/* spread */
enum { OUTSIDE = 0x80, ROOM = 64 }; /* a pixel beyond the border; planes are as long as whole vectors */

static int whole(int pixels) { return (pixels + ROOM - 1) / ROOM * ROOM; }

/* Of `n` outputs in a row, those whose column `dx` of the kernel is inside of the image */
static void inside(const Step *s, int dx, int n, int *first, int *end)
{
    int before = s->left - dx, after = s->width + before;
    *first = before > 0 ? (before + s->stride - 1) / s->stride : 0;
    *end = after > 0 ? (after - 1) / s->stride + 1 : 0;
    *first = *first < n ? *first : n;
    *end = *end > n ? n : *end < *first ? *first : *end;
}

/* Copies of the planes of signs, one for each column of the kernel (and each phase of its stride), in
   which the pixels that outputs see follow each other; `where` a row of each copy begins. */
static void spread_signs(const Step *s, const uint8_t *signs, uint8_t *copy, int *where)
{
    int k = s->kernel, phases = s->stride < k ? s->stride : k, groups = (s->channels + 3) / 4;
    int lines = s->rows + (k - 1) / s->stride, size = lines * s->columns;
    for (int g = 0; g < groups; g++)
        for (int dy = 0; dy < k; dy++) {
            int first = (g * phases + dy % s->stride) * k * size + dy / s->stride * s->columns;
            for (int dx = 0; dx < k; dx++)
                *where++ = first + dx * size;
        }
    for (int g = 0; g < groups; g++)
        for (int phase = 0; phase < phases; phase++)
            for (int dx = 0; dx < k; dx++) {
                int first, end;
                inside(s, dx, s->columns, &first, &end);
                memset(copy, OUTSIDE, size);
                for (int line = 0; line < lines; line++, copy += s->columns) {
                    int y = line * s->stride + phase - s->top;
                    if (y < 0 || y >= s->height)
                        continue;
                    const uint8_t *row = signs + (g * s->height + y) * s->width;
                    if (s->stride == 1)
                        memcpy(copy + first, row + first + dx - s->left, end - first);
                    else
                        for (int i = first; i < end; i++)
                            copy[i] = row[i * s->stride + dx - s->left];
                }
            }
    memset(copy, OUTSIDE, ROOM);
}
/* end */

/* table */
/* What four weights make of four signs: for each of the 256 ways to keep and negate, and the 16 signs */
#define ONE(t, x, i) (((t) >> i & 1) * (((t) >> (i + 4) ^ (x) >> i) & 1 ? 1 : -1))
#define SUM(t, x) ONE(t, x, 0) + ONE(t, x, 1) + ONE(t, x, 2) + ONE(t, x, 3)
#define SUMS4(t, x) SUM(t, x), SUM(t, (x) + 1), SUM(t, (x) + 2), SUM(t, (x) + 3)
#define TABLE(t) {SUMS4(t, 0), SUMS4(t, 4), SUMS4(t, 8), SUMS4(t, 12)}
#define TABLES4(t) TABLE(t), TABLE((t) + 1), TABLE((t) + 2), TABLE((t) + 3)
#define TABLES16(t) TABLES4(t), TABLES4((t) + 4), TABLES4((t) + 8), TABLES4((t) + 12)
#define TABLES64(t) TABLES16(t), TABLES16((t) + 16), TABLES16((t) + 32), TABLES16((t) + 48)
static const int8_t table[256][16] = {TABLES64(0), TABLES64(64), TABLES64(128), TABLES64(192)};
/* end */


/* lookup */
#if LANES
/* Add to the sums of some outputs, for some vectors of pixels, what tables make of `n` rows. The tables of
   the next output are `rows` further; in a list each stands behind its distance in rows from the last one. */
INLINE void look_up(const int outputs, const int vectors, const int is_list, const uint8_t *tables, int n,
                    int rows, int chunk, const uint8_t *x, const int *where, int16_t *sums, int span)
{
    for (; n > 0; n -= chunk) {
        Bytes a[8] = {{0}};
        for (int i = 0; i < n && i < chunk; i++) {
            where += is_list ? *tables++ : 0;
            UNROLL
            for (int o = 0; o < outputs; o++) {
                Bytes t = REPEAT(table[tables[o * rows]]);
                UNROLL
                for (int v = 0; v < vectors; v++) {
                    Bytes b;
                    memcpy(&b, x + *where + v * LANES, LANES);
                    a[o * vectors + v] += LOOK_UP(t, b);
                    KEEP(a[o * vectors + v]);
                }
            }
            tables++;
            where += !is_list;
        }
        UNROLL
        for (int v = 0; v < outputs * vectors; v++) {
            int8_t bytes[LANES];
            memcpy(bytes, &a[v], LANES);
            for (int i = 0; i < LANES; i++)
                sums[v / vectors * span + v % vectors * LANES + i] += bytes[i];
        }
    }
}

/* All outputs at some vectors of pixels, eight sums at a time */
INLINE void look_up_block(const int vectors, const Step *s, int rows, const uint8_t *x, const int *where,
                          int16_t *sums, int span)
{
    const int together = 8 / vectors;
    const uint8_t *tables = s->tables;
    int o = 0;
    for (; !s->counts && o + together <= s->outputs; o += together, tables += together * rows)
        look_up(together, vectors, 0, tables, rows, rows, s->chunk, x, where, sums + o * span, span);
    for (; !s->counts && o < s->outputs; o++, tables += rows)
        look_up(1, vectors, 0, tables, rows, rows, s->chunk, x, where, sums + o * span, span);
    for (; o < s->outputs; tables += 2 * s->counts[o++])
        look_up(1, vectors, 1, tables, s->counts[o], 0, s->chunk, x, where, sums + o * span, span);
}

static void sum_signs(const Step *s, const uint8_t *x, const int *where, int rows, Memory m)
{
    int span = whole(s->rows * s->columns), p = 0;
    memset(m.sums, 0, sizeof *m.sums * s->outputs * span);
    for (; s->counts && p + 8 * LANES <= span; p += 8 * LANES)
        look_up_block(8, s, rows, x + p, where, m.sums + p, span);
    for (; p + 4 * LANES <= span; p += 4 * LANES)
        look_up_block(4, s, rows, x + p, where, m.sums + p, span);
    for (; p < span; p += ROOM)
        look_up_block(ROOM / LANES, s, rows, x + p, where, m.sums + p, span);
}
#else
/* end */

/* words */
/* Without byte shuffles: sixteen rows are a word, and of its bits only ones are counted. The words of BLOCK
   pixels lie side by side, so that vectors run along pixels. */
enum { BLOCK = 256, TOGETHER = 8, WORDS = sizeof(Words) / 8 };

/* The ones of each byte of some words */
INLINE Words ones_of_bytes(Words x)
{
    x -= x >> 1 & 0x5555555555555555;
    x = (x & 0x3333333333333333) + (x >> 2 & 0x3333333333333333);
    return (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0f;
}

/* How many products are +1, of TOGETHER pixels. A byte holds the ones of 31 words. */
INLINE void count(const uint64_t *signs, const uint64_t *kept, const uint64_t *negative, int n, int *counts)
{
    for (int j = 0; j < n;) {
        Words bytes[TOGETHER / WORDS] = {{0}};
        for (int end = n - j < 31 ? n : j + 31; j < end; j++) {
            UNROLL
            for (int i = 0; i < TOGETHER / WORDS; i++) {
                Words x;
                memcpy(&x, signs + j * BLOCK + i * WORDS, sizeof x);
                bytes[i] += ones_of_bytes((x ^ negative[j]) & kept[j]);
            }
        }
        uint64_t each[TOGETHER];
        memcpy(each, bytes, sizeof each);
        for (int i = 0; i < TOGETHER; i++) {
            uint64_t pairs = (each[i] & 0x00ff00ff00ff00ff) + (each[i] >> 8 & 0x00ff00ff00ff00ff);
            counts[i] += (int)(pairs * 0x0001000100010001 >> 48);
        }
    }
}

/* The tables of an output as words; how many weights are kept */
static int pack(const uint8_t *tables, int rows, uint64_t *kept, uint64_t *negative)
{
    int all = 0;
    for (int j = 0; j * 16 < rows; j++, tables += 16) {
        uint64_t k = 0, g = 0;
        for (int i = 0; i < 16 && j * 16 + i < rows; i++) {
            k |= (uint64_t)(tables[i] & 15) << 4 * i;
            g |= (uint64_t)(tables[i] >> 4) << 4 * i;
        }
        kept[j] = k;
        negative[j] = g;
        all += ones(k);
    }
    return all;
}

/* All outputs at some pixels. Outside of the image each sign counts as - at first; then its weight is added,
   and the sum is as if there were nothing. */
static void sum_block(const Step *s, const uint8_t *x, const int *where, int rows, int block, uint64_t *signs,
                      int16_t *sums, int span)
{
    int n = (rows + 15) / 16, places = s->kernel * s->kernel;
    uint64_t *kept = signs + BLOCK * n, *negative = kept + n, *weight = negative + n;
    uint8_t *unlisted = (uint8_t *)(weight + places);
    const uint8_t *tables = s->tables;
    for (int o = 0; o < s->outputs; o++, sums += span) {
        const uint8_t *t = s->counts ? unlisted : tables;
        memset(unlisted, 0, rows);
        for (int i = 0, r = 0; s->counts && i < (int)s->counts[o]; i++, tables += 2)
            unlisted[r += tables[0]] = tables[1];
        tables += s->counts ? 0 : rows;
        int all = pack(t, rows, kept, negative);
        for (int i = 0; i < block; i += TOGETHER) {
            int counts[TOGETHER] = {0};
            count(signs + i, kept, negative, n, counts);
            for (int k = 0; k < TOGETHER; k++)
                sums[i + k] = (int16_t)(2 * counts[k] - all);
        }
        memset(weight, 0, sizeof *weight * places);
        for (int r = 0; r < rows; r += places)
            for (int place = 0; place < places; place++)
                weight[place] += table[t[r + place]][15];
        for (int place = 0; place < places; place++)
            for (int i = 0; i < block; i++)
                sums[i] += (int16_t)(x[where[place] + i] / OUTSIDE * (int)weight[place]);
    }
}

static void sum_signs(const Step *s, const uint8_t *x, const int *where, int rows, Memory m)
{
    int span = whole(s->rows * s->columns), n = (rows + 15) / 16;
    for (int p = 0; p < span; p += BLOCK) {
        int block = span - p < BLOCK ? span - p : BLOCK;
        memset(m.words, 0, sizeof *m.words * BLOCK * n);
        for (int r = 0; r < rows; r++)
            for (int i = 0; i < block; i++)
                m.words[r / 16 * BLOCK + i] |= (uint64_t)(x[where[r] + p + i] & 15) << r % 16 * 4;
        sum_block(s, x + p, where, rows, block, m.words, m.sums + p, span);
    }
}
#endif
/* end */

/* after */
/* Of planes of numbers: the largest of 2 x 2, scaled and shifted, without what is negative */
static void finish(const Step *s, int o, const float *plane, int stride, float *to)
{
    int rows = s->rows / s->pool, columns = s->columns / s->pool;
    float scale = s->scale ? s->scale[o] : 1, shift = s->scale ? s->shift[o] : 0;
    for (int y = 0; y < rows; y++, plane += stride * s->pool, to += columns)
        for (int x = 0; x < columns; x++) {
            const float *a = plane + x * s->pool, *b = a + stride;
            float most = a[0];
            if (s->pool == 2) {
                float c = a[0] > a[1] ? a[0] : a[1], d = b[0] > b[1] ? b[0] : b[1];
                most = c > d ? c : d;
            }
            float number = most * scale + shift;
            to[x] = s->relu && number < 0 ? 0 : number;
        }
}

/* The signs of a plane of numbers, as a bit of four channels */
static void sign(const float *from, int c, int size, uint8_t *to)
{
    to += c / 4 * size;
    if (c % 4 == 0)
        memset(to, 0, size);
    for (int p = 0; p < size; p++)
        to[p] |= (from[p] >= 0) << c % 4;
}

/* Of four outputs' sums: the sign after BN is one comparison, a bit; then the largest of 2 x 2 is an OR */
static void to_signs(const Step *s, int o, const int16_t *sums, int span, uint8_t *plane, uint8_t *to)
{
    int pixels = s->rows * s->columns, rows = s->rows / s->pool, columns = s->columns / s->pool;
    uint8_t flip = 0; /* below its threshold: flipped at the end */
    memset(plane, 0, pixels);
    for (int i = 0; i < 4 && o + i < s->outputs; i++, sums += span) {
        int32_t t = s->threshold[o + i];
        int16_t threshold = (int16_t)(t > INT16_MAX ? INT16_MAX : t < INT16_MIN ? INT16_MIN : t);
        uint8_t bit = 1 << i;
        for (int p = 0; p < pixels; p++)
            plane[p] |= sums[p] >= threshold ? bit : 0;
        flip |= s->flip[o + i] ? bit : 0;
    }
    if (s->pool == 2) {
        for (int y = 0; y < rows; y++)
            for (int x = 0; x < columns; x++) {
                const uint8_t *a = plane + 2 * (y * s->columns + x), *b = a + s->columns;
                plane[y * columns + x] = a[0] | a[1] | b[0] | b[1];
            }
    }
    for (int p = 0; p < rows * columns; p++)
        to[p] = plane[p] ^ flip;
}

static void conv_signs(const Step *s, Memory m)
{
    int k = s->kernel, pixels = s->rows * s->columns, span = whole(pixels);
    int size = s->rows / s->pool * (s->columns / s->pool);
    spread_signs(s, m.signs + s->from, m.spread_signs, m.where);
    sum_signs(s, m.spread_signs, m.where, (s->channels + 3) / 4 * k * k, m);
    for (int o = 0; s->threshold && o < s->outputs; o += 4)
        to_signs(s, o, m.sums + o * span, span, m.spread_signs, m.signs + s->to + o / 4 * size);
    for (int o = 0; !s->threshold && o < s->outputs; o++) {
        for (int p = 0; p < pixels; p++)
            m.totals[p] = m.sums[o * span + p];
        finish(s, o, m.totals, s->columns, m.reals + s->to + o * size);
    }
}
/* end */

/* additions */
/* The image with its zeros around it, its rows and columns sorted by their place in the stride */
static void spread_reals(const Step *s, const float *reals, float *copy, int lines, int width, int *where)
{
    int k = s->kernel, phases = s->stride < k ? s->stride : k, size = lines * width;
    for (int c = 0; c < s->channels; c++)
        for (int dy = 0; dy < k; dy++)
            for (int dx = 0; dx < k; dx++)
                *where++ = ((c * phases + dy % s->stride) * phases + dx % s->stride) * size +
                           dy / s->stride * width + dx / s->stride;
    for (int c = 0; c < s->channels; c++)
        for (int down = 0; down < phases; down++)
            for (int right = 0; right < phases; right++) {
                int first, end;
                inside(s, right, width, &first, &end);
                memset(copy, 0, sizeof *copy * size);
                for (int line = 0; line < lines; line++, copy += width) {
                    int y = line * s->stride + down - s->top;
                    if (y < 0 || y >= s->height)
                        continue;
                    const float *row = reals + (c * s->height + y) * s->width;
                    if (s->stride == 1)
                        memcpy(copy + first, row + first + right - s->left, sizeof *copy * (end - first));
                    else
                        for (int i = first; i < end; i++)
                            copy[i] = row[i * s->stride + right - s->left];
                }
            }
    memset(copy, 0, sizeof *copy * ROOM);
}

/* Add to the sums of an output, for some vectors of pixels, the rows of one list, then subtract another's */
INLINE void add_up(const int vectors, const uint32_t *counts, const uint16_t *gaps, const float *values,
                   const float *x, const int *where, int first, float *sums)
{
    Reals a[12] = {{0}};
    const int *row = where;
    for (int i = 0; i < (int)counts[0]; i++) {
        row += *gaps++;
        UNROLL
        for (int v = 0; v < vectors; v++) {
            Reals b;
            memcpy(&b, x + *row + v * REALS, sizeof b);
            a[v] += values ? b * values[i] : b;
        }
    }
    row = where;
    for (int i = 0; i < (int)counts[1]; i++) {
        row += *gaps++;
        UNROLL
        for (int v = 0; v < vectors; v++) {
            Reals b;
            memcpy(&b, x + *row + v * REALS, sizeof b);
            a[v] -= b;
        }
    }
    UNROLL
    for (int v = 0; v < vectors; v++) {
        Reals b;
        memcpy(&b, sums + v * REALS, sizeof b);
        if (!first)
            a[v] += b;
        memcpy(sums + v * REALS, &a[v], sizeof b);
    }
}

/* The lists of a layer, from some output on */
typedef struct {
    const uint32_t *counts;
    const uint16_t *gaps;
    const float *values;
} Lists;

/* Some outputs at some vectors of pixels, a chunk of rows at a time; the lists that follow theirs */
INLINE Lists add_block(const int vectors, const Step *s, Lists l, int outputs, int rows, const float *x,
                       const int *where, int span, float *sums)
{
    for (int row = 0; row < rows; row += s->chunk)
        for (int o = 0; o < outputs; o++, l.counts += 2) {
            if (l.values)
                add_up(vectors, l.counts, l.gaps, l.values, x, where + row, row == 0, sums + o * span);
            else
                add_up(vectors, l.counts, l.gaps, 0, x, where + row, row == 0, sums + o * span);
            l.gaps += l.counts[0] + l.counts[1];
            l.values += l.values ? l.counts[0] : 0;
        }
    return l;
}

static void conv_reals(const Step *s, Memory m)
{
    int lines = s->rows + (s->kernel - 1) / s->stride, width = s->columns + (s->kernel - 1) / s->stride;
    int rows = s->channels * s->kernel * s->kernel, four = 4 * REALS;
    int span = (s->rows * width + four - 1) / four * four, together = rows > s->chunk ? s->outputs : 1;
    int size = s->rows / s->pool * (s->columns / s->pool);
    Lists l = {s->counts, s->gaps, s->values}, next = l;
    spread_reals(s, m.reals + s->from, m.spread_reals, lines, width, m.where);
    for (int o = 0; o < s->outputs; o += together, l = next) {
        int p = 0;
        for (; p + 12 * REALS <= span; p += 12 * REALS)
            next = add_block(12, s, l, together, rows, m.spread_reals + p, m.where, span, m.totals + p);
        for (; p + 8 * REALS <= span; p += 8 * REALS)
            next = add_block(8, s, l, together, rows, m.spread_reals + p, m.where, span, m.totals + p);
        for (; p < span; p += four)
            next = add_block(4, s, l, together, rows, m.spread_reals + p, m.where, span, m.totals + p);
        for (int i = 0; i < together; i++) {
            float *plane = s->signs ? m.totals + together * span : m.reals + s->to + (o + i) * size;
            finish(s, o + i, m.totals + i * span, width, plane);
            if (s->signs)
                sign(plane, o + i, size, m.signs + s->to);
        }
    }
}
/* end */

/* linear */
static void linear_signs(const Step *s, Memory m)
{
    int size = (s->channels + 3) / 4 * s->height * s->width, n = (size + 15) / 16;
    const uint8_t *from = m.signs + s->from;
    const uint64_t *planes = s->planes;
    memset(m.words, 0, sizeof *m.words * n);
    for (int i = 0; i < size; i++)
        m.words[i / 16] |= (uint64_t)from[i] << i % 16 * 4;
    for (int o = 0; o < s->outputs; o++) {
        int sum = 0;
        for (int i = 0; i < n; i++, planes += 2)
            sum += 2 * ones((m.words[i] ^ planes[1]) & planes[0]) - ones(planes[0]);
        if (s->threshold) {
            uint8_t *to = m.signs + s->to + o / 4, bit = (sum >= s->threshold[o]) != s->flip[o];
            *to = (o % 4 ? *to : 0) | bit << o % 4;
        } else {
            float real = (float)sum;
            finish(s, o, &real, 1, m.reals + s->to + o);
        }
    }
}

static float add_list(const uint16_t *gaps, int n, const float *values, const float *x)
{
    float a[4] = {0};
    for (; n >= 4; n -= 4, gaps += 4) {
        const float *b = x + gaps[0], *c = b + gaps[1], *d = c + gaps[2];
        x = d + gaps[3];
        a[0] += values ? *b * *values++ : *b;
        a[1] += values ? *c * *values++ : *c;
        a[2] += values ? *d * *values++ : *d;
        a[3] += values ? *x * *values++ : *x;
    }
    for (; n > 0; n--) {
        x += *gaps++;
        a[0] += values ? *x * *values++ : *x;
    }
    return a[0] + a[1] + (a[2] + a[3]);
}

static void linear_reals(const Step *s, Memory m)
{
    const float *x = m.reals + s->from, *values = s->values;
    const uint16_t *gaps = s->gaps;
    for (int o = 0; o < s->outputs; o++) {
        const uint32_t *counts = s->counts + 2 * o;
        float sum = add_list(gaps, counts[0], values, x) - add_list(gaps + counts[0], counts[1], 0, x);
        finish(s, o, &sum, 1, m.reals + s->to + o);
        gaps += counts[0] + counts[1];
        values += values ? counts[0] : 0;
    }
}
/* end */

/* rest */
/* Planes, and those of `other`, which are repeated if they are fewer */
static void add(const Step *s, const float *from, const float *other, float *to)
{
    int size = s->height * s->width;
    for (int i = 0; i < s->channels * size; i++)
        to[i] = from[i] + other[i % (s->outputs * size)];
}

static void unpack(const Step *s, const uint8_t *from, float *to)
{
    int size = s->height * s->width;
    for (int c = 0; c < s->channels; c++)
        for (int p = 0; p < size; p++)
            to[c * size + p] = from[c / 4 * size + p] >> c % 4 & 1 ? 1 : -1;
}

static void largest(const Step *s, const float *from, float *to)
{
    for (int c = 0; c < s->channels; c++, from += s->height * s->width)
        for (int y = 0; y < s->rows; y++)
            for (int x = 0; x < s->columns; x++, to++) {
                int started = 0;
                for (int v = y * s->stride - s->top; v < y * s->stride - s->top + s->kernel; v++)
                    for (int u = x * s->stride - s->left; u < x * s->stride - s->left + s->kernel; u++)
                        if (v >= 0 && v < s->height && u >= 0 && u < s->width &&
                            (!started++ || from[v * s->width + u] > *to))
                            *to = from[v * s->width + u];
            }
}

static void mean(const Step *s, const float *from, float *to)
{
    int size = s->height * s->width;
    for (int c = 0; c < s->channels; c++) {
        float sum = 0;
        for (int p = 0; p < size; p++)
            sum += *from++;
        to[c] = sum / size;
    }
}
/* end */

/* run */
void mplt_run(const Step *steps, int n, Memory m)
{
    for (const Step *s = steps; s < steps + n; s++) {
        float *from = m.reals + s->from, *to = m.reals + s->to;
        switch (s->kind) {
        case CONV_SIGNS: conv_signs(s, m); break;
        case CONV_REALS: conv_reals(s, m); break;
        case LINEAR_SIGNS: linear_signs(s, m); break;
        case LINEAR_REALS: linear_reals(s, m); break;
        case EACH:
            for (int o = 0; o < s->outputs; o++)
                finish(s, o, from + o * s->height * s->width, s->width, to + o * s->height * s->width);
            break;
        case ADD: add(s, from, m.reals + s->other, to); break;
        case SIGN:
            for (int c = 0; c < s->channels; c++)
                sign(from + c * s->height * s->width, c, s->height * s->width, m.signs + s->to);
            break;
        case UNPACK: unpack(s, m.signs + s->from, to); break;
        case POOL: largest(s, from, to); break;
        case MEAN: mean(s, from, to); break;
        }
    }
}

/* The logits of `n` images of numbers, one after the other; the first planes in memory are the image's */
void mplt_logits(const Step *steps, int n_steps, Memory m, const float *images, int n, int size,
                 float *logits, int classes)
{
    for (; n > 0; n--, images += size, logits += classes) {
        memmove(m.reals, images, sizeof *images * size);
        mplt_run(steps, n_steps, m);
        memcpy(logits, m.reals + steps[n_steps - 1].to, sizeof *logits * classes);
    }
}
/* end */

/* data */

/* seed */
#ifdef MPLT_SEED
static uint32_t twister[624];
static int used;
static uint8_t negative[MPLT_SEED];

/* The Mersenne Twister, as NumPy seeds it with eight words */
static void seed(const uint32_t *key)
{
    uint32_t *t = twister;
    t[0] = 19650218;
    for (uint32_t i = 1; i < 624; i++)
        t[i] = 1812433253 * (t[i - 1] ^ t[i - 1] >> 30) + i;
    for (uint32_t i = 1, k = 0; k < 624 + 623; k++) {
        uint32_t before = t[i - 1] ^ t[i - 1] >> 30;
        t[i] = k < 624 ? (t[i] ^ before * 1664525) + key[k % 8] + k % 8 : (t[i] ^ before * 1566083941) - i;
        if (++i == 624) {
            t[0] = t[623];
            i = 1;
        }
    }
    t[0] = 0x80000000;
    used = 624;
}

static uint32_t draw(void)
{
    uint32_t *t = twister;
    for (int i = 0; used == 624 && i < 624; i++) {
        uint32_t y = (t[i] & 0x80000000) | (t[(i + 1) % 624] & 0x7fffffff);
        t[i] = t[(i + 397) % 624] ^ y >> 1 ^ (y & 1 ? 0x9908b0df : 0);
    }
    used %= 624;
    uint32_t y = t[used++];
    y ^= y >> 11;
    y ^= y << 7 & 0x9d2c5680;
    y ^= y << 15 & 0xefc60000;
    return y ^ y >> 18;
}

/* A number between -1 and 1, of 53 bits */
static double uniform(void)
{
    double high = draw() >> 5, low = draw() >> 6;
    return 2 * ((high * 67108864 + low) / 9007199254740992) - 1;
}

static void draw_signs(const uint32_t *key, int n)
{
    double x = 0, y = 0, square = 0;
    seed(key);
    memset(negative, 0, sizeof negative);
    for (int i = 0; i < n; i++) {
        if (i % 2 == 0)
            do {
                x = uniform();
                y = uniform();
                square = x * x + y * y;
            } while (square >= 1 || square == 0);
        negative[i / 8] |= ((i % 2 ? x : y) < 0) << i % 8;
    }
}

/* The table of a row of four weights */
static int table_of(const Step *s, int o, int row, int places)
{
    int t = 0, first = row / places * 4;
    for (int i = 0; i < 4 && first + i < s->channels; i++) {
        int n = (o * s->channels + first + i) * places + row % places;
        if (s->kept[n / 8] >> n % 8 & 1)
            t |= 1 << i | (negative[n / 8] >> n % 8 & 1) << (i + 4);
    }
    return t;
}

/* What to add, or to subtract, of some rows of an output; how many */
static uint32_t list(const Step *s, int o, int first, int end, int rows, int sign, uint16_t *gaps)
{
    uint32_t count = 0;
    for (int r = first, last = first; r < end; r++) {
        int n = o * rows + r;
        if (s->kept[n / 8] >> n % 8 & 1 && (negative[n / 8] >> n % 8 & 1) == sign) {
            gaps[count++] = (uint16_t)(r - last);
            last = r;
        }
    }
    return count;
}

/* Fill the tables or lists of a layer; they are constant from then on */
static void fill(const Step *s)
{
    int places = s->kernel ? s->kernel * s->kernel : s->height * s->width, all = s->channels * places;
    int rows = (s->channels + 3) / 4 * places;
    uint8_t *tables = (uint8_t *)s->tables;
    uint32_t *counts = (uint32_t *)s->counts;
    uint16_t *gaps = (uint16_t *)s->gaps;
    uint64_t *planes = (uint64_t *)s->planes;
    draw_signs(s->key, s->outputs * all);
    for (int first = 0; gaps && first < all; first += s->chunk)
        for (int o = 0; o < s->outputs; o++)
            for (int sign = 0, end = first + s->chunk; sign < 2; sign++) {
                *counts = list(s, o, first, end < all ? end : all, all, sign, gaps);
                gaps += *counts++;
            }
    for (int o = 0; (tables || planes) && o < s->outputs; o++) {
        uint32_t count = 0;
        for (int r = 0, last = 0; r < rows; r++) {
            int t = table_of(s, o, r, places);
            if (planes) {
                uint64_t *word = planes + 2 * (o * ((rows + 15) / 16) + r / 16);
                word[0] |= (uint64_t)(t & 15) << r % 16 * 4;
                word[1] |= (uint64_t)(t >> 4) << r % 16 * 4;
            } else if (!counts) {
                *tables++ = t;
            } else if (t || r % 255 == 0) {
                *tables++ = r - last;
                *tables++ = t;
                last = r;
                count++;
            }
        }
        if (tables && counts)
            counts[o] = count;
    }
}

static void start(void)
{
    static int started = 0;
    for (const Step *s = steps; !started && s < steps + sizeof steps / sizeof *steps; s++)
        if (s->key)
            fill(s);
    started = 1;
}
#else
#define start()
#endif
/* end */

/* classify */
#ifdef MPLT_CLASSES
/* Put an image (its channels one after the other, a byte a pixel) where the first step finds it */
static void take(const uint8_t *image)
{
    for (int i = 0, size = MPLT_PIXELS / MPLT_CHANNELS; i < MPLT_PIXELS; i++)
        memory.reals[i] = ((float)image[i] - mean_of[i / size]) / std_of[i / size];
}

/* The class of an image; writes MPLT_CLASSES logits */
int mplt_classify(const uint8_t *image, float *logits)
{
    int best = 0;
    start();
    take(image);
    mplt_logits(steps, sizeof steps / sizeof *steps, memory, memory.reals, 1, MPLT_PIXELS, logits,
                MPLT_CLASSES);
    for (int i = 1; i < MPLT_CLASSES; i++)
        best = logits[i] > logits[best] ? i : best;
    return best;
}

#ifdef MPLT_MAIN
#include <stdio.h>

int main(void)
{
    static uint8_t image[MPLT_PIXELS];
    static float logits[MPLT_CLASSES];
    size_t n;
    while ((n = fread(image, 1, sizeof image, stdin)) == sizeof image)
        printf("%d\n", mplt_classify(image, logits));
    return n > 0; /* the last image is not whole */
}
#endif
#endif
/* end */
