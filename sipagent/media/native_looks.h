// The twin of looks.py: how late packets have been lately and whether something is wrong, slot by slot.
//
// Slots are handed back of which something is to be told, or whose jitter buffer is far too full.

enum { TROUBLES = 4, NO_MEDIA = 0, SILENT = 1, NOT_HEARD = 2, ONE_WAY = 3 };  // watch.Trouble
enum { LOST = 2, JITTER_US = 10, PLAYOUT_DELAY_US = 15, TARGET_DELAY_US = 16 };  // rings.Counter
enum { SEEN_BLOCKS = 32, HEARD_FRAMES = 11, NO_AUDIO = 3 };  // reception._BLOCKS, watch._FRAMES, FLAG_CONCEALED | FLAG_SILENCE

typedef struct {
    // reception
    int64_t *stream, *first, *lost_before, *measured, *transit, *came_last;
    double *jitter;
    // jitter buffer
    uint8_t *known, *live;
    int64_t *due, *wanted, *stretch, *patience, *next_try;
    uint8_t *barren;
    // lateness
    float *histogram;
    int64_t *entered, *floor, *lowest, *window_to, *learned_to, *phase, *lag, *target;
    // lines
    uint8_t *receiving, *pausing, *told_silent;
    // watch: arrays over troubles and slots, then over slots
    uint8_t *active;
    int64_t *right, *wrong;
    uint8_t *sounded, *unheard;
    int64_t *packets, *came, *hears;
    // when the next look is, and at which part of the slots the last one was
    int64_t *state;
    int64_t *rest;
    // limits, in ns but for the first ones
    double keeps, quantile;
    int64_t capacity, bins, silent_level, urgent;
    int64_t bin, least, most, window, slack, ease, tick, patience_ns, most_patience, largest_change, far;
    int64_t after, heard_after, ends, hears_for, pause, quiet_for, every;
    // all slots, and in how many parts they are looked at
    int64_t *slots;
    int64_t count, parts;
    int64_t cpu;  // column of rings.Header
    // left to the engine
    int64_t rest_count;
} Looks;

static const int64_t BLOCK_NS = 10000000, SAMPLE_NS = 125000;

static int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b < 0); }
static int64_t floor_mod(int64_t a, int64_t b) { return (a % b + b) % b; }

// Reception.measure: RFC 3550 A.8.
static void measure(const Hot *h, Looks *l, int64_t slot) {
    if (l->stream[slot] < 0) return;
    int64_t stop = h->end[slot] / BLOCK, from = stop - SEEN_BLOCKS;
    for (int64_t number = from > l->measured[slot] ? from : l->measured[slot]; number < stop; number++) {
        int64_t arrived = h->arrived[slot * h->blocks + floor_mod(number, h->blocks)], before = l->came_last[slot];
        if (arrived <= 0 || arrived == before) continue;
        int64_t transit = arrived - number * BLOCK_NS, change = llabs(transit - l->transit[slot]);
        if (before > 0 && change < l->largest_change) l->jitter[slot] += ((double)change - l->jitter[slot]) / 16;
        l->transit[slot] = transit;
        l->came_last[slot] = arrived;
    }
    l->measured[slot] = stop;
}

// Reception.publish
static void publish(Hot *h, const Looks *l, int64_t slot) {
    int64_t missing = h->highest[slot] - l->first[slot] + 1 - h->received[slot];
    int64_t *counters = h->counters + slot * h->counter_columns;
    counters[LOST] = l->lost_before[slot] + (l->stream[slot] >= 0 && missing > 0 ? missing : 0);
    counters[JITTER_US] = (int64_t)(l->jitter[slot] / 1000);
}

// Lateness.learn
static void learn(const Hot *h, Looks *l, int64_t slot) {
    if (l->window_to[slot] < 0) return;
    int64_t newest = h->solid[slot] / BLOCK * BLOCK, most = h->blocks / 2 - 4;
    int64_t frames = floor_div(newest - l->learned_to[slot], FRAME);
    if (frames > most) frames = most;
    if (frames <= 0) return;
    int64_t least = l->far, got = 0, transits[MOST];
    for (int64_t back = frames - 1; back >= 0; back--) {
        int64_t stop = newest - back * FRAME;
        int64_t came = h->arrived[slot * h->blocks + floor_mod(stop / BLOCK - 1, h->blocks)];
        if (came <= 0) continue;
        transits[got] = came - stop * SAMPLE_NS;
        if (transits[got] < least) least = transits[got];
        got++;
    }
    l->learned_to[slot] = newest;
    float *histogram = l->histogram + slot * l->bins;
    if (got) {
        int64_t *lowest = l->lowest + slot * 2;
        if (newest > l->window_to[slot]) {
            lowest[1] = lowest[0];
            lowest[0] = least;
            l->window_to[slot] = newest + l->window;
        }
        if (least < lowest[0]) lowest[0] = least;
        l->floor[slot] = lowest[0] < lowest[1] ? lowest[0] : lowest[1];

        double fading[MOST], kept[MOST], faded = 1;
        for (int64_t i = got - 1; i >= 0; i--) {
            double number = (double)(l->entered[slot] + i + 1);
            kept[i] = number / (number + 2) < l->keeps ? number / (number + 2) : l->keeps;
            faded *= kept[i];
            fading[i] = faded;
        }
        for (int64_t bin = 0; bin < l->bins; bin++) histogram[bin] *= (float)faded;
        for (int64_t i = 0; i < got; i++) {
            int64_t bin = floor_div(transits[i] - l->floor[slot], l->bin);
            bin = bin < 0 ? 0 : bin >= l->bins ? l->bins - 1 : bin;
            histogram[bin] += (float)(fading[i] * (1 / kept[i] - 1));
        }
        l->entered[slot] += got;
    }
    float sum = 0, summed = 0;
    for (int64_t bin = 0; bin < l->bins; bin++) sum += histogram[bin];
    int64_t reached = 0;
    for (; reached < l->bins; reached++)
        if ((summed += histogram[reached]) >= (float)l->quantile * sum) break;
    int64_t lag = (reached < l->bins ? reached : 0) * l->bin;
    l->lag[slot] = lag < l->least ? l->least : lag > l->most ? l->most : lag;
    l->target[slot] = l->lag[slot] + l->tick;
}

static int64_t since(const Looks *l, int64_t slot, int64_t now) {
    int64_t ago = floor_mod(now - l->phase[slot], l->tick);
    return ago > l->tick - 2000000 ? ago - l->tick : ago;
}

// Lateness.change
static int64_t change(const Hot *h, const Looks *l, int64_t slot, int64_t spare, int64_t now) {
    if (l->window_to[slot] < 0) return 0;
    int64_t frame_ns = FRAME * SAMPLE_NS, part = spare > 0 ? spare % FRAME : 0, wanted = l->lag[slot];
    int64_t lag = now - since(l, slot, now) - l->floor[slot] - h->position[slot] * SAMPLE_NS;
    int64_t safe = lag - part * SAMPLE_NS, lacking = wanted - safe - l->slack;
    int64_t ease = l->slack + wanted / 4, other = l->ease + wanted / 19;
    int64_t beyond = safe - wanted - (other < ease ? other : ease);
    int64_t result = lacking > 0 ? (lacking + frame_ns - 1) / frame_ns * FRAME - part
                                 : -(beyond > 0 ? beyond / frame_ns * FRAME : 0) - part;
    return llabs(result) < BLOCK / 2 ? 0 : result;
}

typedef struct {
    int possible, right, wrong;
    int64_t after, right_ns, wrong_ns;
} Finding;

// Watch.look; 0, and nothing noted, when a trouble begins or ends.
static int is_untroubled(const Hot *h, Looks *l, int64_t slot, int64_t now) {
    int64_t packets = h->counters[slot * h->counter_columns + PACKETS_IN], head = h->rx_head[slot];
    int came = packets != l->packets[slot], receiving = l->receiving[slot], sending = h->sending[slot];
    int64_t came_ns = came ? now : l->came[slot];
    int expecting = receiving && !(l->pausing[slot] && now - came_ns < l->pause);
    int loud = 0, quiet = 0;
    for (int64_t at = head - 1; at >= 0 && at >= head - HEARD_FRAMES; at--) {
        int64_t place = slot * h->rx_frames + at % h->rx_frames;
        if (h->rx_flags[place] & NO_AUDIO) continue;
        if (h->rx_level[place] >= l->silent_level)
            quiet = 1;
        else
            loud = 1;
    }
    int unheard = l->unheard[slot] && sending, sounded = l->sounded[slot] || loud;
    int missing = l->active[NO_MEDIA * l->capacity + slot], not_heard = l->active[NOT_HEARD * l->capacity + slot];
    int one_way = (missing && sending && now - l->hears[slot] < l->hears_for) ||
                  (not_heard && receiving && now - came_ns < l->ends);
    Finding findings[TROUBLES] = {
        [NO_MEDIA] = {.possible = expecting, .right = came, .wrong = !came, .after = l->after},
        [SILENT] = {.possible = expecting, .right = loud || !came, .wrong = quiet && came && !loud,
                    .after = sounded ? l->heard_after : l->after},
        [NOT_HEARD] = {.possible = sending, .right = !unheard, .wrong = unheard},
        [ONE_WAY] = {.possible = receiving && sending, .right = !one_way, .wrong = one_way},
    };
    for (int trouble = 0; trouble < TROUBLES; trouble++) {
        Finding *found = &findings[trouble];
        int64_t place = trouble * l->capacity + slot;
        found->right_ns = found->right || !found->possible ? now : l->right[place];
        found->wrong_ns = found->wrong && found->possible ? now : l->wrong[place];
        int over = found->right && now - found->wrong_ns >= l->ends;
        if (l->active[place] ? over || !found->possible
                             : found->possible && found->wrong && now - found->right_ns >= found->after)
            return 0;
    }
    for (int trouble = 0; trouble < TROUBLES; trouble++) {
        l->right[trouble * l->capacity + slot] = findings[trouble].right_ns;
        l->wrong[trouble * l->capacity + slot] = findings[trouble].wrong_ns;
    }
    l->packets[slot] = packets;
    l->came[slot] = came_ns;
    l->sounded[slot] = (uint8_t)sounded;
    l->unheard[slot] = (uint8_t)unheard;
    return 1;
}

// JitterBuffer.decide, of one that has not far too much in it
static void decide(Hot *h, Looks *l, int64_t slot, int64_t spare, int64_t now) {
    int64_t samples = change(h, l, slot, spare, now);
    if (samples != l->wanted[slot]) {
        l->patience[slot] = l->patience_ns;
        l->next_try[slot] = 0;
    }
    l->wanted[slot] = l->stretch[slot] = samples;
    if (!samples) {
        l->patience[slot] = l->patience_ns;
    } else if (llabs(samples) >= l->urgent || now >= l->next_try[slot]) {
        h->hot_out[slot] = l->barren[slot] = 0;
        l->next_try[slot] = now + l->patience[slot];
        l->patience[slot] = 2 * l->patience[slot] < l->most_patience ? 2 * l->patience[slot] : l->most_patience;
    }
    int64_t newest = h->arrived[slot * h->blocks + floor_mod(floor_div(h->position[slot] - 1, BLOCK), h->blocks)];
    int64_t delay = now - since(l, slot, now) - newest, *counters = h->counters + slot * h->counter_columns;
    if (delay >= 0 && delay < 2 * (int64_t)SECOND) counters[PLAYOUT_DELAY_US] = delay / 1000;
    counters[TARGET_DELAY_US] = l->target[slot] / 1000;
}

// Looks at every `step`th of these slots, all of 8 kHz; `rest` are those of which something follows.
void hot_look(Hot *h, Looks *l, const int64_t *ticked, const int64_t *slots, int64_t count, int64_t step, int64_t now) {
    l->rest_count = 0;
    for (int64_t i = 0; i < count; i += step) {
        int64_t slot = slots[i];
        measure(h, l, slot);
        publish(h, l, slot);
        int running = 0;
        if (l->known[slot]) {
            if (ticked[slot] > 0) l->phase[slot] = ticked[slot] % l->tick;
            learn(h, l, slot);
            running = l->live[slot] && l->due[slot] == 0;
        }
        int quiet = l->quiet_for && l->receiving[slot] && now - h->heard_ns[slot] > l->quiet_for;
        int64_t spare = h->end[slot] - h->position[slot];
        int overfull = running && spare > h->ahead / 2;
        if (overfull || quiet != l->told_silent[slot] || !is_untroubled(h, l, slot, now))
            l->rest[l->rest_count++] = slot;
        else if (running)
            decide(h, l, slot, spare, now);
    }
}

// A look at the next part of the slots when it is time for one; whether something follows from it.
static int look(Hot *h, Looks *l, int64_t *header, const int64_t *ticked, int64_t now) {
    l->rest_count = 0;
    if (now < l->state[0]) return 0;
    l->state[0] = now + l->every / l->parts;
    l->state[1] = (l->state[1] + 1) % l->parts;
    header[l->cpu] = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    hot_look(h, l, ticked, l->slots + l->state[1], l->count - l->state[1], l->parts, now);
    return l->rest_count > 0;
}
