/* What the page Try it calls of a ticket's C file */
#include "net.c"

#define PAGE(name) __attribute__((export_name(#name)))

static uint8_t image[MPLT_PIXELS];
static float logits[MPLT_CLASSES];

/* Where things lie */
PAGE(image) uint8_t *image_at(void) { return image; }
PAGE(logits) float *logits_at(void) { return logits; }
PAGE(reals) float *reals_at(void) { return memory.reals; }
PAGE(signs) uint8_t *signs_at(void) { return memory.signs; }

PAGE(classify) int classify(void) { return mplt_classify(image, logits); }

/* The same step by step, to look at what is in between */
PAGE(begin) void begin(void) { take(image); }
PAGE(step) void step(int i) { mplt_run(steps + i, 1, memory); }

/* A layer's weights, a bit each: which are kept, and which are negative */
PAGE(kept) const uint8_t *kept_at(int i) { return steps[i].kept; }
PAGE(negative) const uint8_t *negative_at(int i, int n)
{
    draw_signs(steps[i].key, n);
    return negative;
}
