// RTP load generator and echo meter: N streams of 50 packets a second, G.711 µ-law, 160 bytes each.
//
// Every payload begins with the packet's own sequence number and a check byte, one nibble a sample, coded so that
// they survive µ-law -> linear -> µ-law. What the far end echoes can so be told from concealment and silence.
// Prints one JSON object. Build: gcc -O2 -o rtpgen rtpgen.c -lm
//
//   -n N     streams                     -d S     seconds measured           -w S    seconds of warm-up before
//   -s PORT  first source port           -P FILE  destination ports, one a line
//   -c PID   process whose CPU time is measured   -k CORE  pin to this core  -f      SCHED_FIFO 20
//   -J MS    random delay up to MS per packet     -L PCT   random loss in per cent

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <math.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define WINDOW 512          // packets remembered per stream, to match echoes with sending times
#define WHEEL 1024          // ms of delay that can be simulated
#define PTIME_MS 20
#define DEV_BINS 200001     // pacing deviation, 1 us each
#define RTT_BINS 100001     // round trip, 10 us each

typedef uint64_t u64;
typedef uint32_t u32;
typedef uint16_t u16;
typedef uint8_t u8;

typedef struct {
    int sock;
    u16 seq, rx_seq;
    u32 ts, ssrc;
    int rx_any;
    struct sockaddr_in to;
    u64 last_rx;            // ns, when the last echo came
    u32 sent, returned, concealed, duplicate, broken_seq;
    u64 sent_at[WINDOW];    // ns by sequence number
    u8 measured[WINDOW], seen[WINDOW];
} Stream;

typedef struct { int stream; u16 seq; u32 ts; } Due;
typedef struct { Due *items; int count, room; } Slot;

static Stream *streams;
static Slot wheel[WHEEL];
static u32 deviation[DEV_BINS], round_trip[RTT_BINS];
static u64 deviations, round_trips, late_5ms, late_10ms, late_40ms;
static int measuring;
static u8 tone[160];

static u64 clock_ns(clockid_t which) {
    struct timespec t;
    clock_gettime(which, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

// CPU time of all threads of a process, in seconds, from the scheduler's own account (ns, not ticks).
static double cpu_seconds(int pid) {
    char path[320];
    double total = 0;
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    DIR *tasks = opendir(path);
    if (!tasks) return 0;
    for (struct dirent *entry; (entry = readdir(tasks));) {
        if (entry->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "/proc/%d/task/%s/schedstat", pid, entry->d_name);
        FILE *file = fopen(path, "r");
        unsigned long ns = 0;
        if (file) {
            if (fscanf(file, "%lu", &ns) == 1) total += ns / 1e9;
            fclose(file);
        }
    }
    closedir(tasks);
    return total;
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
    for (int i = 0; i < 160; i++) {
        double x = 3000 * sin(i * 2 * M_PI * 400 / 8000) + 1000 * sin(i * 2 * M_PI * 1150 / 8000);
        int sign = x < 0, magnitude = fabs(x) + 132, exponent = 7;
        for (int mask = 0x4000; exponent > 0 && !(magnitude & mask); mask >>= 1) exponent--;
        tone[i] = ~(sign << 7 | exponent << 4 | (magnitude >> (exponent + 3) & 15));
    }
}

static u8 check_byte(u16 seq) { return seq ^ seq >> 8 ^ 0x5a; }

static void build(u8 *packet, const Stream *stream, u16 seq, u32 ts) {
    u8 check = check_byte(seq);
    packet[0] = 0x80;
    packet[1] = 0;
    *(u16 *)(packet + 2) = htons(seq);
    *(u32 *)(packet + 4) = htonl(ts);
    *(u32 *)(packet + 8) = htonl(stream->ssrc);
    memcpy(packet + 12, tone, 160);
    u8 nibbles[6] = {seq >> 12, seq >> 8 & 15, seq >> 4 & 15, seq & 15, check >> 4, check & 15};
    for (int i = 0; i < 6; i++) packet[12 + i] = 0x90 | nibbles[i];
}

static void echoed(Stream *stream, const u8 *packet, ssize_t length, u64 at) {
    if (length < 172) return;
    const u8 *p = packet + 12;
    u16 rx_seq = packet[2] << 8 | packet[3];
    if (measuring == 1) {
        if (stream->rx_any && (u16)(rx_seq - stream->rx_seq) != 1) stream->broken_seq++;
        if (stream->last_rx) {
            double off = fabs((double)(at - stream->last_rx) - PTIME_MS * 1e6);
            u32 bin = off / 1000;
            deviation[bin < DEV_BINS ? bin : DEV_BINS - 1]++;
            deviations++;
            late_5ms += off > 5e6;
            late_10ms += off > 10e6;
            late_40ms += off > 40e6;
        }
    }
    stream->rx_seq = rx_seq;
    stream->rx_any = 1;
    stream->last_rx = at;

    u16 seq = (p[0] & 15) << 12 | (p[1] & 15) << 8 | (p[2] & 15) << 4 | (p[3] & 15);
    u8 check = (p[4] & 15) << 4 | (p[5] & 15);
    if (p[0] >> 4 != 9 || p[1] >> 4 != 9 || check != check_byte(seq)) {
        stream->concealed += measuring == 1;
        return;
    }
    int place = seq % WINDOW;
    if (!stream->measured[place] || !stream->sent_at[place]) return;
    if (stream->seen[place]) {
        stream->duplicate++;
        return;
    }
    stream->seen[place] = 1;
    stream->returned++;
    u32 bin = (at - stream->sent_at[place]) / 1e4;
    round_trip[bin < RTT_BINS ? bin : RTT_BINS - 1]++;
    round_trips++;
}

static double quantile(const u32 *bins, int count, u64 total, double share, double unit) {
    u64 sum = 0, wanted = ceil(total * share);
    if (!total) return -1;
    for (int i = 0; i < count; i++)
        if ((sum += bins[i]) >= wanted) return (i + 0.5) * unit;
    return count * unit;
}

static double greatest(const u32 *bins, int count, double unit) {
    for (int i = count - 1; i >= 0; i--)
        if (bins[i]) return i * unit;
    return -1;
}

static u64 kernel_arrival(struct msghdr *message) {
    struct cmsghdr *control = CMSG_FIRSTHDR(message);
    if (!control) return clock_ns(CLOCK_REALTIME);
    struct timespec *t = (struct timespec *)CMSG_DATA(control);
    return t->tv_sec * 1000000000ull + t->tv_nsec;
}

int main(int argc, char **argv) {
    int count = 100, seconds = 10, warm_up = 3, first_port = 20000, pid = 0, core = -1, fifo = 0, jitter_ms = 0;
    double loss = 0;
    const char *ports_path = NULL;
    for (int option; (option = getopt(argc, argv, "n:d:w:s:P:c:k:fJ:L:")) != -1;) switch (option) {
        case 'n': count = atoi(optarg); break;
        case 'd': seconds = atoi(optarg); break;
        case 'w': warm_up = atoi(optarg); break;
        case 's': first_port = atoi(optarg); break;
        case 'P': ports_path = optarg; break;
        case 'c': pid = atoi(optarg); break;
        case 'k': core = atoi(optarg); break;
        case 'f': fifo = 1; break;
        case 'J': jitter_ms = atoi(optarg); break;
        case 'L': loss = atof(optarg) / 100; break;
        default: return 2;
    }
    FILE *ports = ports_path ? fopen(ports_path, "r") : NULL;
    if (!ports || jitter_ms >= WHEEL) {
        fprintf(stderr, "rtpgen: needs -P FILE, and -J below %d\n", WHEEL);
        return 2;
    }
    if (core >= 0) {
        cpu_set_t cores;
        CPU_ZERO(&cores);
        CPU_SET(core, &cores);
        sched_setaffinity(0, sizeof cores, &cores);
    }
    struct sched_param priority = {.sched_priority = 20};
    if (fifo && sched_setscheduler(0, SCHED_FIFO, &priority)) perror("rtpgen: SCHED_FIFO");

    make_tone();
    streams = calloc(count, sizeof(Stream));
    int poll_fd = epoll_create1(0), on = 1;
    for (int i = 0; i < count; i++) {
        Stream *stream = &streams[i];
        struct sockaddr_in from = {.sin_family = AF_INET, .sin_port = htons(first_port + 2 * i)};
        from.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        int port;
        if (fscanf(ports, "%d", &port) != 1) {
            fprintf(stderr, "rtpgen: %s has fewer than %d ports\n", ports_path, count);
            return 1;
        }
        stream->sock = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
        if (stream->sock < 0 || bind(stream->sock, (struct sockaddr *)&from, sizeof from)) {
            perror("rtpgen: socket");
            return 1;
        }
        setsockopt(stream->sock, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on);
        stream->to = from;
        stream->to.sin_port = htons(port);
        stream->ssrc = 0x10000000 + i;
        stream->seq = rand();
        stream->ts = rand();
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
        epoll_ctl(poll_fd, EPOLL_CTL_ADD, stream->sock, &event);
    }

    u64 start = clock_ns(CLOCK_MONOTONIC) + 20000000ull, worst_late = 0, began = 0, ended = 0, refused = 0;
    long begin = warm_up * 1000, end = begin + seconds * 1000;
    double cpu_before = 0, cpu_after = 0;
    struct rusage own_before, own_after;
    for (long tick = 0; tick < end + 600; tick++) {
        u64 target = start + tick * 1000000ull, present = clock_ns(CLOCK_MONOTONIC);
        if (present < target) {
            struct timespec t = {target / 1000000000ull, target % 1000000000ull};
            clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
            present = clock_ns(CLOCK_MONOTONIC);
        }
        if (measuring == 1 && present > target && present - target > worst_late) worst_late = present - target;
        if (tick == begin) {
            measuring = 1;
            cpu_before = cpu_seconds(pid);
            began = clock_ns(CLOCK_MONOTONIC);
            getrusage(RUSAGE_SELF, &own_before);
        }
        if (tick == end) {
            measuring = 2;
            cpu_after = cpu_seconds(pid);
            ended = clock_ns(CLOCK_MONOTONIC);
            getrusage(RUSAGE_SELF, &own_after);
        }

        // Stream i sends at millisecond i of every 20: the load is spread as that of independent callers.
        if (tick < end) for (int i = tick % PTIME_MS; i < count; i += PTIME_MS) {
            Stream *stream = &streams[i];
            int place = ++stream->seq % WINDOW;
            stream->ts += 160;
            stream->seen[place] = 0;
            stream->sent_at[place] = 0;
            stream->measured[place] = 0;
            if (loss > 0 && drand48() < loss) continue;
            stream->measured[place] = measuring == 1;
            stream->sent += measuring == 1;
            schedule(tick + (jitter_ms ? (long)(drand48() * (jitter_ms + 1)) : 0), (Due){i, stream->seq, stream->ts});
        }
        Slot *slot = &wheel[tick % WHEEL];
        for (int i = 0; i < slot->count; i++) {
            Due due = slot->items[i];
            Stream *stream = &streams[due.stream];
            u8 packet[172];
            build(packet, stream, due.seq, due.ts);
            stream->sent_at[due.seq % WINDOW] = clock_ns(CLOCK_REALTIME);
            if (sendto(stream->sock, packet, sizeof packet, 0, (void *)&stream->to, sizeof stream->to) < 0) refused++;
        }
        slot->count = 0;

        struct epoll_event events[512];
        int ready;
        do {
            ready = epoll_wait(poll_fd, events, 512, 0);
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
        } while (ready == 512);
    }

    u64 sent = 0, returned = 0, concealed = 0, duplicate = 0, broken = 0;
    int silent = 0;
    for (int i = 0; i < count; i++) {
        sent += streams[i].sent;
        returned += streams[i].returned;
        concealed += streams[i].concealed;
        duplicate += streams[i].duplicate;
        broken += streams[i].broken_seq;
        silent += !streams[i].returned;
    }
    double elapsed = (ended - began) / 1e9;
    double own = own_after.ru_utime.tv_sec - own_before.ru_utime.tv_sec + own_after.ru_stime.tv_sec -
                 own_before.ru_stime.tv_sec + (own_after.ru_utime.tv_usec - own_before.ru_utime.tv_usec +
                 own_after.ru_stime.tv_usec - own_before.ru_stime.tv_usec) / 1e6;
    printf("{\"calls\": %d, \"cpu_us_per_call_s\": %.1f, \"core_percent\": %.1f, ", count,
           (cpu_after - cpu_before) / elapsed / count * 1e6, (cpu_after - cpu_before) / elapsed * 100);
    printf("\"sent\": %lu, \"lost\": %ld, \"concealed\": %lu, \"duplicate\": %lu, \"silent_streams\": %d, ", sent,
           (long)(sent - returned), concealed, duplicate, silent);
    printf("\"broken_sequences\": %lu, \"pacing_p50_ms\": %.3f, \"pacing_p99_ms\": %.3f, \"pacing_max_ms\": %.3f, ",
           broken, quantile(deviation, DEV_BINS, deviations, .5, 1e-3),
           quantile(deviation, DEV_BINS, deviations, .99, 1e-3), greatest(deviation, DEV_BINS, 1e-3));
    printf("\"late_5ms\": %lu, \"late_10ms\": %lu, \"late_40ms\": %lu, ", late_5ms, late_10ms, late_40ms);
    printf("\"round_trip_p50_ms\": %.2f, \"round_trip_max_ms\": %.2f, ",
           quantile(round_trip, RTT_BINS, round_trips, .5, 1e-2), greatest(round_trip, RTT_BINS, 1e-2));
    printf("\"generator_percent\": %.1f, \"generator_worst_late_ms\": %.2f, \"send_errors\": %lu}\n",
           own / elapsed * 100, worst_late / 1e6, refused);
    return 0;
}
