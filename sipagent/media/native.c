// The twin of hot.py in C: what every packet and every frame of a plain G.711 call costs, without the interpreter.
//
// Optional: without it the engine does the same in numpy. Only what is exactly as expected is done here; everything else
// is handed back. native.py fills in `Hot` and declares the same fields; tests/media/test_native.py holds the twins
// against each other.

#define _GNU_SOURCE
#include <errno.h>
#include <math.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { LAYOUT = 12, HEADER = 12, FRAME = 160, BLOCK = 80, MOST = 480, PACKET = HEADER + FRAME, SECOND = 1000000000 };
enum { PACKETS_IN = 0, PACKETS_OUT = 1, SEND_ERRORS = 13 };  // columns of rings.Counter
enum { EVENTS = 1024 };
enum { SOON = 2 };  // slots ahead of the one at work
enum { VOICES = 16, MIXED = -2 };
enum { HELD = 2, MODES = 3, UNIT = 15 };  // of ducking.py
enum { AT_ONCE = 64, MOST_A_TICK = 1024 };  // datagrams of a shared port: read or sent by one call, and read in a tick
enum { ROW = 512, STAMP = 32, ADDRESS = 16 };

typedef struct {
    // sizes
    int64_t counter_columns, seen, rx_frames, tx_frames, ring, blocks, ahead, row;
    // expected, reception
    uint16_t *header;
    uint32_t *ssrc;
    int64_t *timestamp, *highest, *received, *seen_at, *heard_ns, *counters;
    // jitter buffer
    int16_t *pcm;
    int64_t *arrived, *position, *solid, *end;
    uint8_t *hot_in, *hot_out;
    // received frames, to main
    int16_t *rx_pcm;
    uint8_t *rx_flags, *rx_level;
    int64_t *rx_beside, *rx_arrival, *rx_head;
    // frames to send, from main
    int16_t *tx_pcm;
    int64_t *tx_sent, *tx_head, *tx_tail, *tx_ssrc;
    uint16_t *tx_sequence;
    uint32_t *tx_timestamp;
    uint8_t *tx_mode;
    int16_t *mix_pcm;
    uint8_t *packets, *sending, *alaw, *talking, *marked, *mode;
    int64_t *left;
    // tables
    int16_t *from_ulaw, *from_alaw;
    uint8_t *to_ulaw, *to_alaw;
    int32_t *ramps;
} Hot;

// The ticks of calls that need nothing but what is done here: see hot_run.
typedef struct {
    // of one phase: all; those whose packets do not depend on others, and of them those that send; those not joined;
    // those joined; of these the ones that hear others, and of them those that send; those joined whose queue is heard
    int64_t *slots, *plain, *sending, *alone, *joined, *listeners, *speakers, *saying;
    int64_t count, plain_count, senders, alone_count, joined_count, listener_count, speaker_count, saying_count;
} Group;

// Who hears whom: see mixing.py. Voices are the slots' callers, nobody, and what is said to each slot.
typedef struct {
    int64_t *others, *taken, *played, *told;
    uint8_t *silent, *pressed, *muting, *voiced, *waiting;
    int16_t *frames;
    int64_t *arrival, *ready, *rest;
    int64_t nobody, ready_count, rest_count;
} Mixing;

typedef struct {
    // what stays as it is while the same calls are up
    Group groups[2];
    int64_t *fds, *fd_slots, *slots, *lengths, *stamps, *ticked, *rx_wake, *flushes, *header, *unsent, *rest;
    uint8_t *rows;
    int64_t epoll, attention, wake, room, tick, late, resync, passes, drain;
    int64_t header_ticks, header_heartbeat, header_late, header_worst;  // columns of rings.Header
    int64_t until;  // ns, when the engine has something to do besides
    // where it stands
    int64_t flushed, deadline, ticks, now, lateness, at;  // `at`: of the frames that leave
    // what is left to the engine
    int64_t kept, unsent_count, rest_count, marked, phase;
} Run;

// The ports that several calls share: see shared.py.
typedef struct {
    int64_t *fds, *starts, *key_slots, *port_of;  // a port's keys are those from `starts` on; a slot's port, -1 for none
    uint64_t *keys;                               // the first 8 bytes of the sources, in order
    uint8_t *aimed, *targets;                     // of each slot: whether it has a target, and its struct sockaddr_in
    uint8_t *rows, *senders;
    int64_t *slots, *lengths, *stamps;
    int64_t ports, room, stray_room;
    // what is left to the engine: rows, those of unknown senders among them, and how many of these there was no room for
    int64_t kept, strays, foreign;
} Shared;

static inline uint32_t big32(const uint8_t *at) {
    return (uint32_t)at[0] << 24 | at[1] << 16 | at[2] << 8 | at[3];
}

static inline int64_t clock_ns(clockid_t which) {
    struct timespec t;
    clock_gettime(which, &t);
    return t.tv_sec * (int64_t)SECOND + t.tv_nsec;
}

#include "native_looks.h"

int64_t hot_layout(void) {
    return LAYOUT * 100000 + (int64_t)(sizeof(Hot) + sizeof(Run) + sizeof(Mixing) + sizeof(Shared) + sizeof(Looks));
}

// What will be needed soon: audio of hundreds of calls lies in no cache, and main's in that of another core.
static inline void fetch(const void *from, int64_t bytes) {
    for (int64_t at = 0; at < bytes; at += 64) __builtin_prefetch((const char *)from + at);
}

// Whether the packet was as expected; then it is in the jitter buffer.
static int take(Hot *h, const uint8_t *packet, int64_t length, int64_t slot, int64_t stamp) {
    int64_t size = length - HEADER;
    if (size <= 0 || size > MOST || size % BLOCK) return 0;
    uint8_t first[2] = {packet[0], packet[1] & 0x7F};
    uint16_t header;
    uint32_t ssrc;
    memcpy(&header, first, 2);
    memcpy(&ssrc, packet + 8, 4);
    if (header != h->header[slot] || ssrc != h->ssrc[slot] || !h->hot_in[slot]) return 0;
    if (big32(packet + 4) != (uint32_t)h->timestamp[slot]) return 0;
    int64_t following = h->highest[slot] + 1, end = h->end[slot], ahead = end - h->position[slot];
    if ((packet[2] << 8 | packet[3]) != (following & 0xFFFF) || ahead < 0 || ahead > h->ahead) return 0;

    const int16_t *table = h->alaw[slot] ? h->from_alaw : h->from_ulaw;
    const uint8_t *code = packet + HEADER;
    int16_t *ring = h->pcm + slot * (h->ring + FRAME);
    int64_t place = end % h->ring;
    for (int64_t done = 0; done < size;) {
        int64_t part = size - done < h->ring - place ? size - done : h->ring - place;
        for (int64_t i = 0; i < part; i++) ring[place + i] = table[code[done + i]];
        if (place < FRAME) {  // the mirror behind the end
            int64_t until = place + part < FRAME ? place + part : FRAME;
            memcpy(ring + h->ring + place, ring + place, (until - place) * sizeof *ring);
        }
        done += part;
        place = 0;
    }
    for (int64_t block = end / BLOCK; block < (end + size) / BLOCK; block++)
        h->arrived[slot * h->blocks + block % h->blocks] = stamp;
    h->end[slot] = h->solid[slot] = end + size;
    h->highest[slot] = following;
    h->received[slot]++;
    h->seen_at[slot * h->seen + following % h->seen] = following;
    h->timestamp[slot] = (h->timestamp[slot] + size) & 0xFFFFFFFF;
    h->heard_ns[slot] = stamp;
    h->counters[slot * h->counter_columns + PACKETS_IN]++;
    return 1;
}

static void expect(const Hot *h, int64_t slot) {
    __builtin_prefetch(h->counters + slot * h->counter_columns, 1);
    __builtin_prefetch(h->arrived + slot * h->blocks + h->end[slot] / BLOCK % h->blocks, 1);
    fetch(h->pcm + slot * (h->ring + FRAME) + h->end[slot] % h->ring, FRAME * sizeof *h->pcm);
}

// Datagrams in rows; returns how many were not as expected, their rows in `left`.
int64_t hot_ingest(Hot *h, const uint8_t *rows, const int64_t *slots, const int64_t *lengths, const int64_t *stamps,
                   int64_t count, int64_t *left) {
    int64_t kept = 0;
    for (int64_t row = 0; row < count; row++)
        if (!take(h, rows + row * h->row, lengths[row], slots[row], stamps[row])) left[kept++] = row;
    return kept;
}

// When a datagram came, by CLOCK_MONOTONIC. The stamps are the wall clock's: what counts is how long ago each was.
static int64_t stamp_of(struct msghdr *message, int64_t now, int64_t wall) {
    struct cmsghdr *found = CMSG_FIRSTHDR(message);
    if (!found || found->cmsg_level != SOL_SOCKET || found->cmsg_type != SCM_TIMESTAMPNS) return now;
    struct timespec t;
    memcpy(&t, CMSG_DATA(found), sizeof t);
    int64_t age = wall - (t.tv_sec * (int64_t)SECOND + t.tv_nsec);
    return now - (age < 0 ? 0 : age > SECOND ? SECOND : age);
}

// One datagram of each readable socket; those not as expected go to the rows. Returns how many; `read` counts
// all.
int64_t hot_receive(Hot *h, int epoll, const int64_t *fd_slots, uint8_t *rows, int64_t *slots, int64_t *lengths,
                    int64_t *stamps, int64_t room, int64_t *read) {
    static struct epoll_event events[EVENTS];
    int64_t kept = 0;
    *read = 0;
    int ready = epoll_wait(epoll, events, room < EVENTS ? (int)room : EVENTS, 0);
    if (ready <= 0) return 0;
    int64_t now = clock_ns(CLOCK_MONOTONIC), wall = clock_ns(CLOCK_REALTIME);
    for (int i = 0; i < ready; i++) {
        int64_t slot = fd_slots[events[i].data.fd];
        uint8_t control[64];
        uint8_t *row = rows + kept * h->row;
        struct iovec part = {row, h->row};
        struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
        ssize_t length = recvmsg(events[i].data.fd, &message, MSG_DONTWAIT);
        if (length < 0) continue;  // an ICMP error of an earlier packet: the media timeout decides
        int64_t stamp = stamp_of(&message, now, wall);
        ++*read;
        if (take(h, row, length, slot, stamp)) continue;
        slots[kept] = slot;
        lengths[kept] = length;
        stamps[kept++] = stamp;
    }
    return kept;
}

// The slot whose source this is; -1 when it is nobody's.
static int64_t owner(const Shared *s, int64_t port, uint64_t key) {
    int64_t low = s->starts[port], high = s->starts[port + 1];
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (s->keys[middle] < key)
            low = middle + 1;
        else
            high = middle;
    }
    return low < s->starts[port + 1] && s->keys[low] == key ? s->key_slots[low] : -1;
}

static void keep(Shared *s, const uint8_t *packet, int64_t length, int64_t slot, int64_t stamp, const void *sender) {
    memcpy(s->rows + s->kept * ROW, packet, length);
    memcpy(s->senders + s->kept * ADDRESS, sender, ADDRESS);
    s->slots[s->kept] = slot;
    s->lengths[s->kept] = length;
    s->stamps[s->kept++] = stamp;
}

// What has come to the shared ports. Left to the engine are datagrams that are not as expected, with their slot, and
// those of unknown senders, with -1 - port. Returns how many are left.
int64_t hot_receive_shared(Hot *h, Shared *s) {
    static uint8_t packets[AT_ONCE][ROW], controls[AT_ONCE][STAMP] __attribute__((aligned(8)));
    static struct sockaddr_in senders[AT_ONCE];
    static struct iovec parts[AT_ONCE];
    static struct mmsghdr messages[AT_ONCE];
    s->kept = s->strays = s->foreign = 0;
    for (int64_t port = 0; port < s->ports; port++) {
        for (int64_t read = 0; read < MOST_A_TICK && s->kept + AT_ONCE <= s->room;) {
            for (int i = 0; i < AT_ONCE; i++) {
                parts[i] = (struct iovec){packets[i], ROW};
                messages[i].msg_hdr = (struct msghdr){.msg_name = &senders[i], .msg_namelen = sizeof senders[i],
                                                      .msg_iov = &parts[i], .msg_iovlen = 1,
                                                      .msg_control = controls[i], .msg_controllen = STAMP};
            }
            int count = recvmmsg((int)s->fds[port], messages, AT_ONCE, MSG_DONTWAIT, NULL);
            if (count <= 0) break;  // nothing, or an ICMP error of an earlier packet: the media timeout decides
            read += count;
            int64_t now = clock_ns(CLOCK_MONOTONIC), wall = clock_ns(CLOCK_REALTIME), owners[AT_ONCE];
            for (int i = 0; i < count; i++) {
                uint64_t key;
                memcpy(&key, &senders[i], sizeof key);
                owners[i] = owner(s, port, key);
                if (owners[i] >= 0) expect(h, owners[i]);
            }
            for (int i = 0; i < count; i++) {
                int64_t length = messages[i].msg_len;
                int64_t slot = owners[i], stamp = stamp_of(&messages[i].msg_hdr, now, wall);
                if (slot >= 0) {
                    if (!take(h, packets[i], length, slot, stamp)) keep(s, packets[i], length, slot, stamp, &senders[i]);
                } else if (s->strays < s->stray_room) {
                    keep(s, packets[i], length, -1 - port, stamp, &senders[i]);
                    s->strays++;
                } else {
                    s->foreign++;
                }
            }
            if (count < AT_ONCE) break;
        }
    }
    return s->kept;
}

// -dBov, as levels.level counts.
static uint8_t level_of(const int16_t *pcm) {
    int64_t power = 0;  // of integers: sums of floats keep an order, which takes four times as long
    for (int k = 0; k < FRAME; k++) power += (int32_t)pcm[k] * pcm[k];
    float level = rintf(112.345f - 10.0f * log10f((float)power + 1e-3f));
    return level < 0 ? 0 : level > 127 ? 127 : (uint8_t)level;
}

// levels.speech_level
static double speech_level(const uint8_t *levels, int count, int pause, int silence) {
    int loudest = 127, loud = 0;
    double sum = 0;
    for (int i = 0; i < count; i++) loudest = levels[i] < loudest ? levels[i] : loudest;
    if (!count || loudest >= silence) return NAN;
    for (int i = 0; i < count; i++)
        if (levels[i] < loudest + pause) loud++, sum += pow(10, -levels[i] / 10.0);
    return 10 * log10(sum / loud);
}

// levels.received and levels.sent of a line of 8 kHz, NAN for None.
void hot_levels(Hot *h, int64_t slot, int64_t window, int64_t every, int64_t invented, int64_t pause, int64_t silence,
                double *levels) {
    uint8_t in[FRAME], out[FRAME];
    int received = 0, sent = 0;
    int64_t head = h->rx_head[slot];
    for (int64_t at = head > window ? head - window : 0; at < head && sent < FRAME && received < FRAME; at += every) {
        int64_t place = slot * h->rx_frames + at % h->rx_frames, beside = h->rx_beside[place];
        if (!(h->rx_flags[place] & invented)) in[received++] = h->rx_level[place];
        if (beside >= 0)
            out[sent++] = level_of(h->tx_pcm + (slot * h->tx_frames + beside % h->tx_frames) * FRAME);
        else if (beside == MIXED)
            out[sent++] = level_of(h->mix_pcm + place * FRAME);
    }
    levels[0] = speech_level(in, received, (int)pause, (int)silence);
    levels[1] = speech_level(out, sent, (int)pause, (int)silence);
}

// The next frame of each slot to main; returns how many are not simply there, those in `rest`.
int64_t hot_play(Hot *h, const int64_t *slots, int64_t count, int64_t *rest) {
    int64_t kept = 0;
    for (int64_t i = 0; i < count; i++) {
        int64_t slot = slots[i], at = h->position[slot];
        if (!h->hot_out[slot] || at + FRAME > h->solid[slot]) {
            rest[kept++] = slot;
            continue;
        }
        int64_t head = h->rx_head[slot], place = slot * h->rx_frames + head % h->rx_frames;
        int16_t *from = h->pcm + slot * (h->ring + FRAME) + at % h->ring;
        if (i + SOON < count) {
            int64_t next = slots[i + SOON], to = next * h->rx_frames + h->rx_head[next] % h->rx_frames;
            fetch(h->pcm + next * (h->ring + FRAME) + h->position[next] % h->ring, FRAME * sizeof *from);
            fetch(h->rx_pcm + to * FRAME, FRAME * sizeof *from);
        }
        memcpy(h->rx_pcm + place * FRAME, from, FRAME * sizeof *from);
        h->rx_level[place] = level_of(from);
        h->rx_flags[place] = 0;
        h->rx_beside[place] = h->left[slot];
        h->rx_arrival[place] = h->arrived[slot * h->blocks + (at + FRAME - 1) / BLOCK % h->blocks];
        h->position[slot] = at + FRAME;
        __atomic_store_n(&h->rx_head[slot], head + 1, __ATOMIC_RELEASE);
    }
    return kept;
}

// Whether the next packet holds audio or silence; a talkspurt that begins is marked.
static void talk(Hot *h, int64_t slot, int talking) {
    uint8_t *packet = h->packets + slot * PACKET;
    if (talking == h->talking[slot]) return;
    h->talking[slot] = (uint8_t)talking;
    if (talking) {
        packet[1] |= 0x80;
        h->marked[slot] = 1;
    } else {
        memset(packet + HEADER, h->alaw[slot] ? 0xD5 : 0xFF, FRAME);
    }
}

static void encode(Hot *h, int64_t slot, const int16_t *pcm) {
    const uint8_t *table = h->alaw[slot] ? h->to_alaw : h->to_ulaw;
    uint8_t *code = h->packets + slot * PACKET + HEADER;
    for (int k = 0; k < FRAME; k++) code[k] = table[(uint16_t)pcm[k]];
}

static void number(Hot *h, int64_t slot, uint32_t timestamp) {
    uint8_t *packet = h->packets + slot * PACKET;
    uint16_t sequence = h->tx_sequence[slot]++;
    packet[2] = sequence >> 8, packet[3] = sequence & 0xFF;
    packet[4] = timestamp >> 24, packet[5] = timestamp >> 16, packet[6] = timestamp >> 8, packet[7] = timestamp;
    h->counters[slot * h->counter_columns + PACKETS_OUT]++;
}

// Whether there is a frame in the queue that may be played, in this mode; acquires it.
static int has_queued(const Hot *h, int64_t slot, int mode) {
    return !(mode & h->mode[slot] & HELD) && __atomic_load_n(&h->tx_head[slot], __ATOMIC_ACQUIRE) > h->tx_tail[slot];
}

// The next frame of the queue as it is played in this mode; `room` is for one that is not played in full.
static const int16_t *queued(const Hot *h, int64_t slot, int mode, int16_t *room) {
    const int16_t *pcm = h->tx_pcm + (slot * h->tx_frames + h->tx_tail[slot] % h->tx_frames) * FRAME;
    if (!(mode | h->mode[slot])) return pcm;
    const int32_t *ramp = h->ramps + (h->mode[slot] * MODES + mode) * FRAME;
    for (int k = 0; k < FRAME; k++) room[k] = (int16_t)((pcm[k] * ramp[k]) >> UNIT);
    return room;
}

// That frame has been played; one in which the audio faded out stays in the queue.
static void taken(Hot *h, int64_t slot, int mode, int64_t now) {
    int64_t tail = h->tx_tail[slot];
    h->left[slot] = tail;
    if (mode == HELD) return;
    h->tx_sent[slot * h->tx_frames + tail % h->tx_frames] = now;
    __atomic_store_n(&h->tx_tail[slot], tail + 1, __ATOMIC_RELEASE);
}

// What leaves in this tick, where that is not simply a frame of the queue.
static void note(Hot *h, int64_t slot, const int16_t *pcm) {
    memcpy(h->mix_pcm + (slot * h->rx_frames + h->rx_head[slot] % h->rx_frames) * FRAME, pcm, FRAME * sizeof *pcm);
    h->left[slot] = MIXED;
}

// Makes the next packet of those that send; time passes for all. Returns whether a marker is set anywhere.
int64_t hot_prepare(Hot *h, const int64_t *slots, int64_t count, int64_t now) {
    int64_t any = 0;
    for (int64_t i = 0; i < count; i++) {
        int64_t slot = slots[i];
        uint32_t timestamp = h->tx_timestamp[slot];
        if (i + SOON < count) {
            int64_t next = slots[i + SOON];
            fetch(h->tx_pcm + (next * h->tx_frames + h->tx_tail[next] % h->tx_frames) * FRAME, FRAME * sizeof(int16_t));
        }
        h->tx_timestamp[slot] = timestamp + FRAME;
        h->left[slot] = -1;
        if (!h->sending[slot]) continue;
        int mode = h->tx_mode[slot], talking = has_queued(h, slot, mode);
        talk(h, slot, talking);
        any |= h->marked[slot];
        if (talking) {
            int16_t room[FRAME];
            const int16_t *pcm = queued(h, slot, mode, room);
            encode(h, slot, pcm);
            taken(h, slot, mode, now);
            if (pcm == room) note(h, slot, pcm);
        }
        h->mode[slot] = (uint8_t)mode;
        number(h, slot, timestamp);
    }
    return any;
}

// ---- those that hear one another ----

// What is said to these slots in this tick, before it leaves.
void hot_say(Hot *h, Mixing *m, const int64_t *slots, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        int64_t slot = slots[i], tail = h->tx_tail[slot], voice = m->nobody + 1 + slot;
        int mode = h->tx_mode[slot];
        if (!h->sending[slot] || m->waiting[slot] || tail == m->told[slot] || !has_queued(h, slot, mode)) continue;
        if (mode != HELD) m->told[slot] = tail;
        int16_t room[FRAME];
        memcpy(m->frames + voice * FRAME, queued(h, slot, mode, room), sizeof room);
        m->played[voice]++;
    }
}

// The next frame of each, not yet to main. Those whose frames are simply there go to `ready`, the others to `rest`.
void hot_join(Hot *h, Mixing *m, const int64_t *slots, int64_t count) {
    m->ready_count = m->rest_count = 0;
    for (int64_t i = 0; i < count; i++) {
        int64_t slot = slots[i], at = h->position[slot];
        if (!h->hot_out[slot] || at + FRAME > h->solid[slot]) {
            m->rest[m->rest_count++] = slot;
            continue;
        }
        m->ready[m->ready_count++] = slot;
        memcpy(m->frames + slot * FRAME, h->pcm + slot * (h->ring + FRAME) + at % h->ring, FRAME * sizeof(int16_t));
        m->arrival[slot] = h->arrived[slot * h->blocks + (at + FRAME - 1) / BLOCK % h->blocks];
        m->silent[slot] = m->pressed[slot] = 0;
        m->played[slot]++;
        h->position[slot] = at + FRAME;
    }
}

static int16_t saturated(int32_t sample) { return sample > 32767 ? 32767 : sample < -32768 ? -32768 : (int16_t)sample; }

// What one listener hears in this tick.
static void mix(Mixing *m, int64_t slot, int16_t *heard) {
    const int64_t *others = m->others + slot * VOICES;
    int64_t *taken = m->taken + slot * VOICES;
    int32_t sum[FRAME] = {0};
    m->voiced[slot] = 0;
    for (int i = 0; i < VOICES && others[i] != m->nobody; i++) {
        int64_t other = others[i], played = m->played[other];
        int there = played != taken[i] && !(m->muting[slot] && m->pressed[other]);
        taken[i] = played;
        if (!there) continue;
        m->voiced[slot] |= !m->silent[other];
        const int16_t *frame = m->frames + other * FRAME;
        for (int k = 0; k < FRAME; k++) sum[k] += frame[k];
    }
    for (int k = 0; k < FRAME; k++) heard[k] = saturated(sum[k]);
}

// Makes the next packets of listeners, after all joined slots have played. Returns whether a marker is set anywhere.
int64_t hot_mix(Hot *h, Mixing *m, const int64_t *listeners, int64_t count, int64_t now) {
    int64_t any = 0;
    for (int64_t i = 0; i < count; i++) {
        int64_t slot = listeners[i];
        uint32_t timestamp = h->tx_timestamp[slot];
        int16_t pcm[FRAME];
        mix(m, slot, pcm);
        h->tx_timestamp[slot] = timestamp + FRAME;
        h->left[slot] = -1;
        if (!h->sending[slot]) continue;
        int mode = h->tx_mode[slot], own = !m->waiting[slot] && has_queued(h, slot, mode);
        talk(h, slot, own || m->voiced[slot]);
        any |= h->marked[slot];
        if (own) {
            int16_t room[FRAME];
            const int16_t *said = queued(h, slot, mode, room);
            for (int k = 0; k < FRAME; k++) pcm[k] = saturated(pcm[k] + said[k]);
            taken(h, slot, mode, now);
        }
        h->mode[slot] = (uint8_t)mode;
        encode(h, slot, pcm);
        note(h, slot, pcm);
        number(h, slot, timestamp);
    }
    return any;
}

// The frames of those that were `ready`, to main.
void hot_hand_over(Hot *h, const Mixing *m) {
    for (int64_t i = 0; i < m->ready_count; i++) {
        int64_t slot = m->ready[i], head = h->rx_head[slot], place = slot * h->rx_frames + head % h->rx_frames;
        const int16_t *frame = m->frames + slot * FRAME;
        memcpy(h->rx_pcm + place * FRAME, frame, FRAME * sizeof *frame);
        h->rx_level[place] = level_of(frame);
        h->rx_flags[place] = 0;
        h->rx_beside[place] = h->left[slot];
        h->rx_arrival[place] = m->arrival[slot];
        __atomic_store_n(&h->rx_head[slot], head + 1, __ATOMIC_RELEASE);
    }
}

// ---- what goes out, and the ticks ----

static void send_together(Hot *h, int fd, struct mmsghdr *messages, const int64_t *slots, int count) {
    for (int done = 0; done < count;) {
        int sent = sendmmsg(fd, messages + done, count - done, MSG_DONTWAIT);
        if (sent > 0) {
            done += sent;
        } else if (errno != EINTR) {  // what the kernel refuses is this one; the others have their chance
            h->counters[slots[done++] * h->counter_columns + SEND_ERRORS]++;
        }
    }
}

static void send_shared(Hot *h, const int64_t *slots, int64_t count, Shared *s) {
    static struct iovec parts[AT_ONCE];
    static struct mmsghdr messages[AT_ONCE];
    int64_t chosen[AT_ONCE];
    for (int64_t port = 0; port < s->ports; port++) {
        int waiting = 0;
        for (int64_t i = 0; i < count; i++) {
            int64_t slot = slots[i];
            if (s->port_of[slot] != port || !s->aimed[slot]) continue;
            parts[waiting] = (struct iovec){h->packets + slot * PACKET, PACKET};
            messages[waiting].msg_hdr = (struct msghdr){.msg_name = s->targets + slot * ADDRESS, .msg_namelen = ADDRESS,
                                                        .msg_iov = &parts[waiting], .msg_iovlen = 1};
            chosen[waiting++] = slot;
            if (waiting == AT_ONCE) {
                send_together(h, (int)s->fds[port], messages, chosen, waiting);
                waiting = 0;
            }
        }
        send_together(h, (int)s->fds[port], messages, chosen, waiting);
    }
}

static int has_way(const int64_t *fds, const Shared *s, int64_t slot) {
    return fds[slot] >= 0 || (s->ports && s->port_of[slot] >= 0);
}

// Sends the prepared packets of those that have a connected socket or share a port; returns how many have neither,
// those in `rest`.
int64_t hot_send(Hot *h, const int64_t *slots, int64_t count, const int64_t *fds, int64_t *rest, Shared *s) {
    int64_t kept = 0, sharing = 0;
    for (int64_t i = 0; i < count; i++) {
        int64_t slot = slots[i];
        if (!has_way(fds, s, slot))
            rest[kept++] = slot;
        else if (fds[slot] < 0)
            sharing++;
        else if (send((int)fds[slot], h->packets + slot * PACKET, PACKET, MSG_DONTWAIT) < 0)
            h->counters[slot * h->counter_columns + SEND_ERRORS]++;
    }
    if (sharing) send_shared(h, slots, count, s);
    return kept;
}

// Markers are not repeated once their packets have left.
static void unmark(Hot *h, const int64_t *slots, int64_t count, const int64_t *fds, const Shared *s) {
    for (int64_t i = 0; i < count; i++) {
        int64_t slot = slots[i];
        if (!has_way(fds, s, slot) || !h->marked[slot]) continue;
        h->packets[slot * PACKET + 1] &= 0x7F;
        h->marked[slot] = 0;
    }
}

enum { DUE, RECEIVED, PLAYED, BEHIND, ASKED };

// Ticks until the engine is needed, and why it is:
//   DUE       the time is `until`, or something follows from a look (`rest` of the looks); a tick is complete
//   ASKED     a tick is due, and before it main wants something, or a stranger has sent something
//   RECEIVED  a tick has sent (but for `unsent`, and for those that hear others) and received, and what it has received
//             needs a look: packets that are not as expected. The shared ports have been read; each other socket has
//             given one datagram
//   PLAYED    a tick is complete but for those of `unsent` and `rest`, and, when `rest` of the mixing has some, for
//             the packets of listeners and for the frames of those that are joined
//   BEHIND    the schedule has to start over
int64_t hot_run(Hot *h, Run *r, Mixing *m, Shared *s, Looks *l) {
    for (;;) {
        int64_t now = clock_ns(CLOCK_MONOTONIC);
        if (now < r->deadline) {
            struct timespec until = {r->deadline / SECOND, r->deadline % SECOND};
            while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR) {}
            now = clock_ns(CLOCK_MONOTONIC);
        }
        r->now = r->at = now;
        r->lateness = now - r->deadline;
        r->kept = r->unsent_count = r->rest_count = r->marked = m->rest_count = 0;
        if (r->lateness > r->resync) return BEHIND;
        struct epoll_event event;
        if (__atomic_load_n(r->flushes, __ATOMIC_ACQUIRE) != r->flushed || epoll_wait((int)r->attention, &event, 1, 0) > 0)
            return ASKED;

        // What goes out first, at the time it is due, before what comes in takes time of its own.
        r->phase = r->ticks % 2;
        Group *group = &r->groups[r->phase];
        hot_say(h, m, group->saying, group->saying_count);
        r->marked = hot_prepare(h, group->plain, group->plain_count, r->at);
        r->unsent_count = hot_send(h, group->sending, group->senders, r->fds, r->unsent, s);
        if (r->marked) unmark(h, group->sending, group->senders, r->fds, s);

        int64_t passes = r->lateness > r->late || r->ticks / 2 % r->drain == 0 ? r->passes : 1;
        while (passes-- && !r->kept) {
            int64_t read;
            r->kept = hot_receive(h, (int)r->epoll, r->fd_slots, r->rows, r->slots, r->lengths, r->stamps, r->room, &read);
            if (!read) break;
        }
        int awaited = 0;  // by main
        hot_receive_shared(h, s);
        if (r->kept || s->kept || s->foreign) return RECEIVED;

        if (group->count) {
            r->rest_count = hot_play(h, group->alone, group->alone_count, r->rest);
            if (group->joined_count) hot_join(h, m, group->joined, group->joined_count);
            if (group->joined_count && !m->rest_count) {
                int64_t marked = hot_mix(h, m, group->listeners, group->listener_count, r->at);
                r->unsent_count +=
                    hot_send(h, group->speakers, group->speaker_count, r->fds, r->unsent + r->unsent_count, s);
                if (marked) unmark(h, group->speakers, group->speaker_count, r->fds, s);
                r->marked |= marked;
                hot_hand_over(h, m);
            }
            for (int64_t i = 0; i < group->count; i++) {
                int64_t slot = group->slots[i];
                r->ticked[slot] = r->at;
                awaited |= h->rx_head[slot] >= r->rx_wake[slot];
            }
        }
        r->ticks++;
        r->header[r->header_ticks] = r->ticks;
        r->header[r->header_heartbeat] = now;
        if (r->lateness > r->late) {
            r->header[r->header_late]++;
            if (r->lateness > r->header[r->header_worst]) r->header[r->header_worst] = r->lateness;
        }
        r->deadline += r->tick;
        if (!r->groups[r->ticks % 2].count) {  // a phase that nobody is in
            r->ticks++;
            r->deadline += r->tick;
        }
        if (r->unsent_count || r->rest_count || m->rest_count) return PLAYED;
        uint64_t one = 1;
        if (awaited && write((int)r->wake, &one, sizeof one) < 0) {}  // full: main has been told often enough
        if (look(h, l, r->header, r->ticked, now) || now >= r->until) return DUE;
    }
}
