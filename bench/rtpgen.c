// RTP load generator and echo meter: N streams of 50 packets a second, G.711 µ-law, 160 bytes each.
//
// Every payload begins with the packet's own sequence number and a check byte, one nibble a sample, coded so that
// they survive µ-law -> linear -> µ-law. What the far end echoes can so be told from concealment and silence, wherever
// in its packets it lies.
// Prints the lines "begin" and "end" when measuring does, then one JSON object. Build: gcc -O2 -o rtpgen rtpgen.c -lm
//
//   -n N     streams                     -d S     seconds measured           -w S    seconds of warm-up before
//   -s PORT  first source port           -P FILE  destination ports, one a line
//   -c PID   process whose CPU time is measured, may be repeated
//   -k CORE  pin to this core            -f       SCHED_FIFO 20
//   -J MS    random delay up to MS per packet     -L PCT   random loss in per cent
//   -x       streams are bridged in pairs: what 2i sends is looked for in what 2i+1 gets, and the other way round
//   -u FILE  µ-law audio that every stream sends instead of marks, over and over, each from a place of its own
//   -l FILE  where loud packets are written down meanwhile: see `Loud`
//
// Two measures of evenness, both by the kernel's stamps of arrival, so that they do not depend on when they are read:
// "pacing" is how far the interval to the packet before is from 20 ms; "off schedule" is how far a packet is from the
// even schedule that its stream's RTP timestamps describe, laid through the median of the stream.
// The generator's own lateness is in the result too: a far end without a clock of its own hands it back.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <math.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define WINDOW 512          // packets remembered per stream, to match echoes with sending times
#define WHEEL 1024          // ms of delay that can be simulated
#define PTIME_MS 20
#define PAYLOAD 160
#define MARK 6              // bytes of a payload that tell its sequence number
#define BINS 200001         // histograms: 1 us each, 10 us for the round trip
#define BATCH 64            // packets read before the clock is looked at again
#define TAIL_MS 1500        // after the last packet sent, for echoes under way
#define MAX_PIDS 16

typedef uint64_t u64;
typedef int64_t i64;
typedef uint32_t u32;
typedef uint16_t u16;
typedef uint8_t u8;

typedef struct {
    int sock;
    u16 seq, rx_seq;
    u32 ts, ssrc, rx_first_ts;
    int rx_any, mark_at;
    u8 tail[MARK - 1];      // end of the last payload: a mark may lie across two packets
    struct sockaddr_in to;
    u64 last_rx, first_rx;  // ns
    u32 sent, returned, filler, duplicate, broken_seq;
    u64 sent_packets;
    u64 sent_at[WINDOW];    // ns by sequence number
    u8 measured[WINDOW], seen[WINDOW];
    float *offsets;         // ms from the schedule through the first packet measured
    int offset_count;
} Stream;

typedef struct { int stream; u16 seq; u32 ts; } Due;
typedef struct { u64 at; u32 stream, received; } Loud;  // CLOCK_REALTIME; a packet above -45 dBFS, sent or received
typedef struct { Due *items; int count, room; } Slot;
typedef struct { u32 bins[BINS]; u64 total; double unit, greatest; } Histogram;  // all in ms

static Stream *streams;
static int count = 100, offsets_room, crossed;
static Slot wheel[WHEEL];
static Histogram pacing = {.unit = 1e-3}, schedule_error = {.unit = 1e-3}, round_trip = {.unit = 1e-2},
                 own_lateness = {.unit = 1e-3};
static u64 late_5ms, late_10ms, late_40ms, off_5ms, off_10ms, own_late_1ms, own_late_5ms, received;
static enum { WARMING, MEASURING, OVER } phase;
static u8 tone[PAYLOAD], *speech;
static long speech_packets;
static FILE *loud_log;
static double squares[256];  // of each code, linear

static u64 clock_ns(clockid_t which) {
    struct timespec t;
    clock_gettime(which, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

// User and system time of a process, all threads, those that have ended too.
static double cpu_seconds(int pid) {
    clockid_t clock;
    return clock_getcpuclockid(pid, &clock) ? 0 : clock_ns(clock) / 1e9;
}

static void note(Histogram *histogram, double ms) {
    u32 bin = ms / histogram->unit;
    histogram->bins[bin < BINS ? bin : BINS - 1]++;
    histogram->total++;
    if (ms > histogram->greatest) histogram->greatest = ms;
}

static double quantile(const Histogram *histogram, double share) {
    u64 sum = 0, wanted = ceil(histogram->total * share);
    for (int i = 0; i < BINS && histogram->total; i++)
        if ((sum += histogram->bins[i]) >= wanted) return (i + 0.5) * histogram->unit;
    return 0;
}

static void *allocate(size_t number, size_t size) {
    void *memory = calloc(number, size);
    if (!memory) {
        perror("rtpgen");
        exit(1);
    }
    return memory;
}

static void schedule(long tick, Due due) {
    Slot *slot = &wheel[tick % WHEEL];
    if (slot->count == slot->room) {
        slot->room = slot->room ? slot->room * 2 : 256;
        slot->items = realloc(slot->items, slot->room * sizeof(Due));
    }
    slot->items[slot->count++] = due;
}

static void make_tone(void) {
    for (int i = 0; i < PAYLOAD; i++) {
        double x = 3000 * sin(i * 2 * M_PI * 400 / 8000) + 1000 * sin(i * 2 * M_PI * 1150 / 8000);
        int sign = x < 0, magnitude = fabs(x) + 132, exponent = 7;
        for (int mask = 0x4000; exponent > 0 && !(magnitude & mask); mask >>= 1) exponent--;
        tone[i] = ~(sign << 7 | exponent << 4 | (magnitude >> (exponent + 3) & 15));
    }
}

static void read_speech(const char *path) {
    FILE *file = fopen(path, "r");
    if (!file || fseek(file, 0, SEEK_END) || !(speech_packets = ftell(file) / PAYLOAD)) {
        fprintf(stderr, "rtpgen: no audio in %s\n", path);
        exit(1);
    }
    rewind(file);
    speech = allocate(speech_packets, PAYLOAD);
    if (fread(speech, PAYLOAD, speech_packets, file) != (size_t)speech_packets) exit(1);
    for (int i = 0; i < 256; i++) {
        u8 code = ~i;
        double magnitude = ((((code & 15) << 3) + 132) << (code >> 4 & 7)) - 132;
        squares[i] = magnitude * magnitude;
    }
}

static void note_loud(const u8 *payload, int stream, int received, u64 at) {
    double sum = 0;
    for (int i = 0; i < PAYLOAD; i++) sum += squares[payload[i]];
    Loud loud = {at, stream, received};
    if (sum / PAYLOAD > 184.0 * 184.0) fwrite(&loud, sizeof loud, 1, loud_log);
}

static u8 check_byte(u16 seq) { return seq ^ seq >> 8 ^ 0x5a; }

static void build(u8 *packet, const Stream *stream, u16 seq, u32 ts) {
    u8 check = check_byte(seq);
    packet[0] = 0x80;
    packet[1] = 0;
    *(u16 *)(packet + 2) = htons(seq);
    *(u32 *)(packet + 4) = htonl(ts);
    *(u32 *)(packet + 8) = htonl(stream->ssrc);
    memcpy(packet + 12, tone, PAYLOAD);
    u8 nibbles[MARK] = {seq >> 12, seq >> 8 & 15, seq >> 4 & 15, seq & 15, check >> 4, check & 15};
    for (int i = 0; i < MARK; i++) packet[12 + i] = 0x90 | nibbles[i];
}

// The sequence number told by the bytes, or -1.
static int read_mark(const u8 *p) {
    for (int i = 0; i < MARK; i++)
        if (p[i] >> 4 != 9) return -1;
    u16 seq = (p[0] & 15) << 12 | (p[1] & 15) << 8 | (p[2] & 15) << 4 | (p[3] & 15);
    return ((p[4] & 15) << 4 | (p[5] & 15)) == check_byte(seq) ? seq : -1;
}

// Looks first where the stream's last mark was: an echo that has changed nothing keeps its place.
static int find_mark(Stream *stream, const u8 *payload) {
    u8 joined[MARK - 1 + PAYLOAD];
    memcpy(joined, stream->tail, MARK - 1);
    memcpy(joined + MARK - 1, payload, PAYLOAD);
    memcpy(stream->tail, payload + PAYLOAD - (MARK - 1), MARK - 1);
    int seq = read_mark(joined + stream->mark_at);
    for (int at = 0; seq < 0 && at < PAYLOAD; at++)
        if ((seq = read_mark(joined + at)) >= 0) stream->mark_at = at;
    return seq;
}

static void time_echo(Stream *stream, u16 rx_seq, u32 rx_ts, u64 at) {
    received++;
    if (stream->rx_any && (u16)(rx_seq - stream->rx_seq) != 1) stream->broken_seq++;
    if (stream->last_rx) {
        double off = fabs((double)((i64)(at - stream->last_rx)) / 1e6 - PTIME_MS);
        note(&pacing, off);
        late_5ms += off > 5;
        late_10ms += off > 10;
        late_40ms += off > 40;
    }
    if (!stream->first_rx) {
        stream->first_rx = at;
        stream->rx_first_ts = rx_ts;
    }
    if (stream->offset_count < offsets_room)
        stream->offsets[stream->offset_count++] =
            (i64)(at - stream->first_rx) / 1e6 - (int32_t)(rx_ts - stream->rx_first_ts) / 8.0;
}

static void echoed(Stream *stream, const u8 *packet, ssize_t length, u64 at) {
    if (length != 12 + PAYLOAD) return;
    u16 rx_seq = packet[2] << 8 | packet[3];
    u32 rx_ts = (u32)packet[4] << 24 | packet[5] << 16 | packet[6] << 8 | packet[7];
    if (phase == MEASURING) time_echo(stream, rx_seq, rx_ts, at);
    if (loud_log) note_loud(packet + 12, stream - streams, 1, at);
    stream->rx_seq = rx_seq;
    stream->rx_any = 1;
    stream->last_rx = at;

    int seq = find_mark(stream, packet + 12);
    if (seq < 0) {
        stream->filler += phase == MEASURING;
        return;
    }
    Stream *from = crossed ? &streams[(stream - streams) ^ 1] : stream;
    int place = seq % WINDOW;
    if (!from->measured[place] || !from->sent_at[place]) return;
    if (from->seen[place]) {
        from->duplicate += phase == MEASURING;  // later it may be the last frame again, in concealment
        return;
    }
    from->seen[place] = 1;
    from->returned++;
    note(&round_trip, (i64)(at - from->sent_at[place]) / 1e6);
}

static int by_value(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void judge_schedule(Stream *stream) {
    if (!stream->offset_count) return;
    qsort(stream->offsets, stream->offset_count, sizeof(float), by_value);
    double middle = stream->offsets[stream->offset_count / 2];
    for (int i = 0; i < stream->offset_count; i++) {
        double off = fabs(stream->offsets[i] - middle);
        note(&schedule_error, off);
        off_5ms += off > 5;
        off_10ms += off > 10;
    }
}

static u64 kernel_arrival(struct msghdr *message) {
    struct cmsghdr *control = CMSG_FIRSTHDR(message);
    if (!control) return clock_ns(CLOCK_REALTIME);
    struct timespec *t = (struct timespec *)CMSG_DATA(control);
    return t->tv_sec * 1000000000ull + t->tv_nsec;
}

static void receive(int poll_fd, u64 until) {
    struct epoll_event events[BATCH];
    int ready;
    do {
        ready = epoll_wait(poll_fd, events, BATCH, 0);
        for (int i = 0; i < ready; i++) {
            Stream *stream = &streams[events[i].data.u32];
            u8 packet[256];
            char control[64];
            struct iovec part = {packet, sizeof packet};
            struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control,
                                     .msg_controllen = sizeof control};
            ssize_t length = recvmsg(stream->sock, &message, 0);
            if (length > 0) echoed(stream, packet, length, kernel_arrival(&message));
        }
        // The next packets to send do not wait for what has come: it bears the kernel's stamp.
    } while (ready == BATCH && clock_ns(CLOCK_MONOTONIC) < until);
}

static int open_streams(int first_port, FILE *ports) {
    int poll_fd = epoll_create1(0), on = 1;
    for (int i = 0; i < count; i++) {
        Stream *stream = &streams[i];
        struct sockaddr_in from = {.sin_family = AF_INET, .sin_port = htons(first_port + 2 * i)};
        from.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        int port;
        if (fscanf(ports, "%d", &port) != 1) {
            fprintf(stderr, "rtpgen: fewer than %d destination ports\n", count);
            exit(1);
        }
        stream->sock = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
        if (stream->sock < 0 || bind(stream->sock, (struct sockaddr *)&from, sizeof from)) {
            perror("rtpgen: socket");
            exit(1);
        }
        setsockopt(stream->sock, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on);
        stream->to = from;
        stream->to.sin_port = htons(port);
        stream->ssrc = 0x10000000 + i;
        stream->seq = rand();
        stream->ts = rand();
        stream->mark_at = MARK - 1;
        stream->offsets = allocate(offsets_room, sizeof(float));
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
        epoll_ctl(poll_fd, EPOLL_CTL_ADD, stream->sock, &event);
    }
    return poll_fd;
}

// Stream i sends at millisecond i of every 20: the load is spread as that of independent callers.
static void plan(long tick, double loss, int jitter_ms) {
    for (int i = tick % PTIME_MS; i < count; i += PTIME_MS) {
        Stream *stream = &streams[i];
        int place = ++stream->seq % WINDOW;
        stream->ts += PAYLOAD;
        stream->seen[place] = 0;
        stream->sent_at[place] = 0;
        stream->measured[place] = 0;
        if (loss > 0 && drand48() < loss) continue;
        stream->measured[place] = phase == MEASURING;
        stream->sent += phase == MEASURING;
        schedule(tick + (jitter_ms ? (long)(drand48() * (jitter_ms + 1)) : 0), (Due){i, stream->seq, stream->ts});
    }
}

// `target`: CLOCK_REALTIME when these were due. Returns how many the kernel refused.
static int send_due(Slot *slot, u64 target) {
    int refused = 0;
    for (int i = 0; i < slot->count; i++) {
        Due due = slot->items[i];
        Stream *stream = &streams[due.stream];
        u8 packet[12 + PAYLOAD];
        build(packet, stream, due.seq, due.ts);
        u64 present = clock_ns(CLOCK_REALTIME);
        stream->sent_at[due.seq % WINDOW] = present;
        if (speech) {
            long place = (stream->sent_packets++ + due.stream * 7919l) % speech_packets;
            memcpy(packet + 12, speech + place * PAYLOAD, PAYLOAD);
            if (loud_log) note_loud(packet + 12, due.stream, 0, present);
        }
        if (phase == MEASURING) {
            double late = present > target ? (present - target) / 1e6 : 0;
            note(&own_lateness, late);
            own_late_1ms += late > 1;
            own_late_5ms += late > 5;
        }
        refused += sendto(stream->sock, packet, sizeof packet, 0, (void *)&stream->to, sizeof stream->to) < 0;
    }
    slot->count = 0;
    return refused;
}

static double own_cpu(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

int main(int argc, char **argv) {
    int seconds = 10, warm_up = 3, first_port = 20000, pids[MAX_PIDS], pid_count = 0, core = -1, fifo = 0;
    int jitter_ms = 0;
    double loss = 0;
    const char *ports_path = NULL;
    for (int option; (option = getopt(argc, argv, "n:d:w:s:P:c:k:fxJ:L:u:l:")) != -1;) switch (option) {
        case 'n': count = atoi(optarg); break;
        case 'd': seconds = atoi(optarg); break;
        case 'w': warm_up = atoi(optarg); break;
        case 's': first_port = atoi(optarg); break;
        case 'P': ports_path = optarg; break;
        case 'c': if (pid_count < MAX_PIDS) pids[pid_count++] = atoi(optarg); break;
        case 'k': core = atoi(optarg); break;
        case 'f': fifo = 1; break;
        case 'x': crossed = 1; break;
        case 'J': jitter_ms = atoi(optarg); break;
        case 'L': loss = atof(optarg) / 100; break;
        case 'u': read_speech(optarg); break;
        case 'l': loud_log = fopen(optarg, "w"); break;
        default: return 2;
    }
    FILE *ports = ports_path ? fopen(ports_path, "r") : NULL;
    if (!ports || jitter_ms >= WHEEL || (crossed && count % 2)) {
        fprintf(stderr, "rtpgen: needs -P FILE, -J below %d, and with -x an even -n\n", WHEEL);
        return 2;
    }
    if (core >= 0) {
        cpu_set_t cores;
        CPU_ZERO(&cores);
        CPU_SET(core, &cores);
        sched_setaffinity(0, sizeof cores, &cores);
    }
    struct sched_param priority = {.sched_priority = 20};
    fifo = fifo && !sched_setscheduler(0, SCHED_FIFO, &priority);

    make_tone();
    streams = allocate(count, sizeof(Stream));
    offsets_room = seconds * 1000 / PTIME_MS + 100;
    int poll_fd = open_streams(first_port, ports);
    mlockall(MCL_CURRENT);  // page faults would be lateness of its own

    u64 start = clock_ns(CLOCK_MONOTONIC) + 20000000ull, began = 0, ended = 0, refused = 0;
    i64 to_wall = clock_ns(CLOCK_REALTIME) - clock_ns(CLOCK_MONOTONIC);
    long begin = warm_up * 1000, end = begin + seconds * 1000;
    double cpu[MAX_PIDS] = {0}, own = 0;
    for (long tick = 0; tick < end + TAIL_MS; tick++) {
        u64 target = start + tick * 1000000ull;
        if (clock_ns(CLOCK_MONOTONIC) < target) {
            struct timespec t = {target / 1000000000ull, target % 1000000000ull};
            clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
        }
        if (tick == begin) {
            phase = MEASURING;
            for (int i = 0; i < pid_count; i++) cpu[i] = -cpu_seconds(pids[i]);
            own = -own_cpu();
            began = clock_ns(CLOCK_MONOTONIC);
            puts("begin");
            fflush(stdout);
        }
        if (tick == end) {
            phase = OVER;
            for (int i = 0; i < pid_count; i++) cpu[i] += cpu_seconds(pids[i]);
            own += own_cpu();
            ended = clock_ns(CLOCK_MONOTONIC);
            puts("end");
            fflush(stdout);
        }
        if (tick < end) plan(tick, loss, jitter_ms);
        refused += send_due(&wheel[tick % WHEEL], target + to_wall);
        receive(poll_fd, target + 1000000ull);
    }
    if (loud_log) fclose(loud_log);
    i64 step = (i64)(clock_ns(CLOCK_REALTIME) - clock_ns(CLOCK_MONOTONIC)) - to_wall;

    u64 sent = 0, returned = 0, filler = 0, duplicate = 0, broken = 0;
    int silent = 0;
    for (int i = 0; i < count; i++) {
        sent += streams[i].sent;
        returned += streams[i].returned;
        filler += streams[i].filler;
        duplicate += streams[i].duplicate;
        broken += streams[i].broken_seq;
        silent += !streams[i].returned;
        judge_schedule(&streams[i]);
    }
    double elapsed = (ended - began) / 1e9, total = 0;
    printf("{\"calls\": %d, \"elapsed_s\": %.3f, \"cpu_s\": [", count, elapsed);
    for (int i = 0; i < pid_count; i++) {
        printf("%s%.6f", i ? ", " : "", cpu[i]);
        total += cpu[i];
    }
    printf("], \"cpu_us_per_call_s\": %.1f, \"core_percent\": %.2f, ", count ? total / elapsed / count * 1e6 : 0,
           total / elapsed * 100);
    printf("\"sent\": %lu, \"received\": %lu, \"lost\": %ld, \"filler\": %lu, \"duplicate\": %lu, ", sent, received,
           (long)(sent - returned), filler, duplicate);
    printf("\"silent_streams\": %d, \"broken_sequences\": %lu, ", silent, broken);
    printf("\"pacing_p50_ms\": %.3f, \"pacing_p99_ms\": %.3f, \"pacing_max_ms\": %.3f, ", quantile(&pacing, .5),
           quantile(&pacing, .99), pacing.greatest);
    printf("\"late_5ms\": %lu, \"late_10ms\": %lu, \"late_40ms\": %lu, ", late_5ms, late_10ms, late_40ms);
    printf("\"off_schedule_p99_ms\": %.3f, \"off_schedule_max_ms\": %.3f, \"off_5ms\": %lu, \"off_10ms\": %lu, ",
           quantile(&schedule_error, .99), schedule_error.greatest, off_5ms, off_10ms);
    printf("\"round_trip_p50_ms\": %.2f, \"round_trip_p99_ms\": %.2f, \"round_trip_max_ms\": %.2f, ",
           quantile(&round_trip, .5), quantile(&round_trip, .99), round_trip.greatest);
    printf("\"generator_percent\": %.1f, \"generator_fifo\": %s, \"generator_late_p99_ms\": %.3f, ",
           own / elapsed * 100, fifo ? "true" : "false", quantile(&own_lateness, .99));
    printf("\"generator_late_max_ms\": %.3f, \"generator_late_1ms\": %lu, \"generator_late_5ms\": %lu, ",
           own_lateness.greatest, own_late_1ms, own_late_5ms);
    printf("\"clock_step_ms\": %.3f, \"send_errors\": %lu}\n", step / 1e6, refused);
    return 0;
}
