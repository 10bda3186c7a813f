/*
 * blkload: real data to and from a block device, and how long each request took.
 *
 *     blkload --device DEV --source FILE --block BYTES --streams N --bytes TOTAL
 *             --rw write|read|randwrite|randread [--seconds S] [--seed S] [--json]
 *
 * fio makes its data up, with a compressibility that is a parameter. A store that
 * compresses must be measured with what it will hold; so this writes the source file,
 * which is in memory before the clock starts.
 *
 * Each of the N streams is a thread with one request in flight (O_DIRECT). Sequential
 * streams have a region each and go round in it until they have done their share of
 * TOTAL; random requests go all over the regions, and random writes take random blocks of
 * the source. The regions together are TOTAL bytes or the device, whichever is smaller: a
 * read with the --bytes and --streams of an earlier write finds what that wrote.
 *
 * With --seconds a stream ends with the first request that is done after so long, and TOTAL
 * is the most that is transferred.
 *
 * MB is 1e6 bytes. Exit: 0 done, 1 a request failed, 2 could not run.
 */
#define _GNU_SOURCE

#include <fcntl.h>
#include <getopt.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdbool.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common.h"

#define MAX_STREAMS 256

enum { EXIT_IO_ERROR = 1 };
enum mode { WRITE, READ, RANDWRITE, RANDREAD, MODES };

static const char *const mode_names[MODES] = {"write", "read", "randwrite", "randread"};

struct options {
    const char *device;
    const char *source;
    uint64_t block;
    uint64_t bytes;
    uint64_t ns; /* the time limit; UINT64_MAX: none */
    uint64_t seed;
    unsigned streams;
    enum mode mode;
    bool json;
};

struct stream {
    pthread_t thread;
    unsigned index;
    unsigned char *buffer; /* one block, for reads */
    uint64_t *latencies;   /* ns, one per request */
    uint64_t done;         /* requests */
    uint64_t finished;     /* ns */
    int error;
    off_t error_offset;
};

static struct options options = {
    .block = 128 << 10, .ns = UINT64_MAX, .streams = 1, .seed = 1, .mode = WRITE};
static int device;
static unsigned char *source;
static uint64_t source_blocks;
static uint64_t region_blocks; /* of each stream */
static uint64_t requests;      /* of each stream, at most */
static pthread_barrier_t start_line;

static bool is_write(void)
{
    return options.mode == WRITE || options.mode == RANDWRITE;
}

static bool is_random(void)
{
    return options.mode == RANDWRITE || options.mode == RANDREAD;
}

/* ---- one stream -------------------------------------------------------------------- */

static uint64_t block_of_request(const struct stream *stream, uint64_t number)
{
    if (is_random())
        return mix(number + mix(stream->index + mix(options.seed))) %
               (region_blocks * options.streams);
    return stream->index * region_blocks + number % region_blocks;
}

/*
 * Streams begin at different places of the source, so that they do not write the same.
 * The random block is drawn apart from the random place: the complement makes it another draw.
 */
static const unsigned char *data_of_request(const struct stream *stream, uint64_t number)
{
    uint64_t first = mix(stream->index + mix(options.seed));
    uint64_t block = is_random() ? mix(~(number + first)) : first + number;

    return source + block % source_blocks * options.block;
}

static bool do_request(struct stream *stream, uint64_t number)
{
    const off_t offset = (off_t)(block_of_request(stream, number) * options.block);
    ssize_t done;

    errno = 0;
    if (is_write())
        done = pwrite(device, data_of_request(stream, number), options.block, offset);
    else
        done = pread(device, stream->buffer, options.block, offset);
    if (done == (ssize_t)options.block)
        return true;
    stream->error = errno ? errno : EIO;
    stream->error_offset = offset;
    return false;
}

static void *run_stream(void *argument)
{
    struct stream *stream = argument;
    uint64_t started, before;

    pthread_barrier_wait(&start_line);
    started = before = now_ns();
    while (stream->done < requests && before - started < options.ns &&
           do_request(stream, stream->done)) {
        uint64_t now = now_ns();

        stream->latencies[stream->done++] = now - before;
        before = now;
    }
    stream->finished = before;
    return NULL;
}

/* ---- all streams ------------------------------------------------------------------- */

/* Filled, not only reserved: a page fault inside the measurement would be measured. */
static void *allocate(uint64_t size)
{
    void *memory = aligned_alloc(PAGE_SIZE, (size + PAGE_SIZE - 1) / PAGE_SIZE * PAGE_SIZE);

    if (!memory)
        die("blkload: out of memory");
    return memset(memory, 1, size);
}

static void start_streams(struct stream *streams, uint64_t *latencies)
{
    pthread_barrier_init(&start_line, NULL, options.streams + 1);
    for (unsigned index = 0; index < options.streams; index++) {
        struct stream *stream = &streams[index];

        stream->index = index;
        stream->buffer = allocate(options.block);
        stream->latencies = latencies + index * requests;
        if (pthread_create(&stream->thread, NULL, run_stream, stream))
            die("blkload: cannot start %u threads", options.streams);
    }
}

/* Returns when the last stream finished. Exits if a request failed. */
static uint64_t join_streams(struct stream *streams)
{
    uint64_t last = 0;

    for (unsigned index = 0; index < options.streams; index++) {
        struct stream *stream = &streams[index];

        pthread_join(stream->thread, NULL);
        if (stream->error) {
            fprintf(stderr, "blkload: %s at byte %jd of %s: %s\n", mode_names[options.mode],
                    (intmax_t)stream->error_offset, options.device, strerror(stream->error));
            exit(EXIT_IO_ERROR);
        }
        if (stream->finished > last)
            last = stream->finished;
    }
    return last;
}

/* ---- the report -------------------------------------------------------------------- */

/* What the streams have left room for after their last request is closed up. */
static uint64_t gather(const struct stream *streams, uint64_t *latencies)
{
    uint64_t count = 0;

    for (unsigned index = 0; index < options.streams; index++) {
        const struct stream *stream = &streams[index];

        memmove(latencies + count, stream->latencies, stream->done * sizeof *latencies);
        count += stream->done;
    }
    return count;
}

static int by_value(const void *a, const void *b)
{
    const uint64_t *left = a, *right = b;

    return (*left > *right) - (*left < *right);
}

static double mean(const uint64_t *values, uint64_t count)
{
    double sum = 0;

    for (uint64_t index = 0; index < count; index++)
        sum += (double)values[index];
    return sum / (double)count;
}

static double percentile(const uint64_t *sorted, uint64_t count, unsigned percent)
{
    return (double)sorted[(count - 1) * percent / 100];
}

static void report(double seconds, uint64_t *latencies, uint64_t count)
{
    const uint64_t bytes = count * options.block;

    qsort(latencies, count, sizeof *latencies, by_value);
    printf(options.json
               ? "{\"rw\": \"%s\", \"block\": %ju, \"streams\": %u, \"bytes\": %ju, "
                 "\"seconds\": %.6f, \"mb_per_second\": %.1f, \"iops\": %.0f, "
                 "\"latency_us\": {\"mean\": %.1f, \"p50\": %.1f, \"p99\": %.1f, "
                 "\"max\": %.1f}}\n"
               : "%s of %ju byte blocks, %u streams: %ju bytes in %.3f s, %.1f MB/s, "
                 "%.0f IOPS, latency mean %.1f us, p50 %.1f, p99 %.1f, max %.1f\n",
           mode_names[options.mode], (uintmax_t)options.block, options.streams,
           (uintmax_t)bytes, seconds, (double)bytes / 1e6 / seconds, (double)count / seconds,
           mean(latencies, count) / 1e3, percentile(latencies, count, 50) / 1e3,
           percentile(latencies, count, 99) / 1e3, percentile(latencies, count, 100) / 1e3);
}

/* ---- start ------------------------------------------------------------------------- */

static enum mode parse_mode(const char *text)
{
    for (unsigned mode = 0; mode < MODES; mode++)
        if (!strcmp(text, mode_names[mode]))
            return mode;
    die("--rw: '%s' is neither write, read, randwrite nor randread", text);
}

static const char help[] =
    "usage: blkload --device DEV --bytes TOTAL [options]\n"
    "  --device DEV        a block device (or a file, for a trial); writes destroy it\n"
    "  --bytes TOTAL       to transfer, by all streams together\n"
    "  --rw MODE           write, read, randwrite or randread (write)\n"
    "  --source FILE       the data to write\n"
    "  --block BYTES       of each request (128K)\n"
    "  --streams N         requests in flight (1)\n"
    "  --seconds S         end after so long, whatever is left of TOTAL\n"
    "  --seed S            chooses data and random places (1)\n"
    "  --json              one line of JSON\n";

static const struct option long_options[] = {{"device", required_argument, NULL, 'd'},
                                             {"source", required_argument, NULL, 'f'},
                                             {"block", required_argument, NULL, 'b'},
                                             {"streams", required_argument, NULL, 'n'},
                                             {"bytes", required_argument, NULL, 't'},
                                             {"rw", required_argument, NULL, 'm'},
                                             {"seconds", required_argument, NULL, 'l'},
                                             {"seed", required_argument, NULL, 's'},
                                             {"json", no_argument, NULL, 'j'},
                                             {"help", no_argument, NULL, 'h'},
                                             {0}};

static void parse_option(int option)
{
    switch (option) {
    case 'd': options.device = optarg; break;
    case 'f': options.source = optarg; break;
    case 'b': options.block = parse_bytes("--block", optarg); break;
    case 'n': options.streams = (unsigned)parse_real("--streams", optarg, 1, MAX_STREAMS); break;
    case 't': options.bytes = parse_bytes("--bytes", optarg); break;
    case 'm': options.mode = parse_mode(optarg); break;
    case 'l': options.ns = (uint64_t)(parse_real("--seconds", optarg, 0.001, 86400) * 1e9); break;
    case 's': options.seed = parse_bytes("--seed", optarg); break;
    case 'j': options.json = true; break;
    case 'h': fputs(help, stdout); exit(EXIT_SUCCESS);
    default: exit(EXIT_USAGE);
    }
}

static void parse_command_line(int argc, char **argv)
{
    int option;

    while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1)
        parse_option(option);
    if (optind != argc || !options.device || !options.bytes ||
        (is_write() && !options.source)) {
        fputs(help, stderr);
        exit(EXIT_USAGE);
    }
    if (!options.block || options.block % 512)
        die("--block: must be a multiple of 512");
}

/* O_EXCL makes the kernel refuse a device that is mounted or swapped on. */
static uint64_t open_device(void)
{
    const int access = is_write() ? O_RDWR | O_EXCL : O_RDONLY;
    struct stat attr;
    uint64_t size;

    device = open(options.device, access | O_DIRECT | O_CLOEXEC);
    if (device < 0 || fstat(device, &attr))
        die("blkload: %s: %s", options.device, strerror(errno));
    if (!S_ISBLK(attr.st_mode))
        return (uint64_t)attr.st_size;
    if (ioctl(device, BLKGETSIZE64, &size))
        die("blkload: %s: %s", options.device, strerror(errno));
    return size;
}

static void load_source(void)
{
    int file = open(options.source, O_RDONLY | O_CLOEXEC);
    uint64_t size, done = 0;
    struct stat attr;
    ssize_t step;

    if (file < 0 || fstat(file, &attr))
        die("blkload: %s: %s", options.source, strerror(errno));
    source_blocks = (uint64_t)attr.st_size / options.block;
    if (!source_blocks)
        die("blkload: %s is shorter than one block", options.source);
    size = source_blocks * options.block;
    source = allocate(size);
    while (done < size && (step = read(file, source + done, size - done)) > 0)
        done += (uint64_t)step;
    if (done < size)
        die("blkload: %s: cannot be read whole", options.source);
    close(file);
}

static void share_out(uint64_t device_size)
{
    uint64_t span = options.bytes < device_size ? options.bytes : device_size;

    requests = options.bytes / options.block / options.streams;
    region_blocks = span / options.block / options.streams;
    if (!region_blocks)
        die("blkload: %u streams of %ju byte blocks do not fit %ju bytes", options.streams,
            (uintmax_t)options.block, (uintmax_t)span);
}

int main(int argc, char **argv)
{
    static struct stream streams[MAX_STREAMS];
    uint64_t *latencies;
    uint64_t started, finished;

    parse_command_line(argc, argv);
    share_out(open_device());
    if (is_write())
        load_source();
    latencies = allocate(requests * options.streams * sizeof *latencies);
    start_streams(streams, latencies);
    started = now_ns();
    pthread_barrier_wait(&start_line);
    finished = join_streams(streams);
    report((double)(finished - started) / 1e9, latencies, gather(streams, latencies));
    return EXIT_SUCCESS;
}
