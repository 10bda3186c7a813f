/*
 * hog: a process that needs its memory back unchanged.
 *
 *     hog --size BYTES --source FILE [--passes N] [--order seq|random]
 *         [--rewrite FRACTION] [--seed S] [--seconds S] [--hold] [--heartbeat SECONDS] [--json]
 *
 * Fills anonymous memory with real data, then checks every page again and again. Run in a
 * memory cgroup smaller than --size, it makes the kernel swap, and notices a page that
 * comes back wrong, or not at all.
 *
 *     fill        every page, in address order
 *     verify 1    every page, in the order of --order
 *     rewrite 1   about FRACTION of the pages, each by another one
 *     verify 2    ...                                         up to `verify N`
 *
 * With --seconds the first verify that ends after that time is the last.
 * With --hold it says `filled` after the fill and waits for a line of input, or its end:
 * time to take away the swap device that has the pages.
 *
 * How a page is known to be right. Page `i`, when it is written for the g-th time round
 * (its generation), holds a page of the source file chosen by a hash of (i, g, seed); its
 * first 16 bytes are then replaced by `i` and `g`, so that no two pages are ever equal.
 * The checksum of all 4096 bytes is kept, 8 bytes per page, and no copy is. Pages that
 * are neighbours in memory come from neighbours in the source, in runs of RUN_PAGES:
 * what a store gains from compressing neighbours together stays real.
 *
 * What judges must not lie on the device it judges: the checksums, the buffer and the
 * program are locked, the source is read around the page cache.
 *
 * Exit: 0 all right, 1 a page was wrong, 2 could not run, 3 a page could not be read
 * (SIGBUS, which is how the kernel reports a swap read error).
 */
#define _GNU_SOURCE

#include <fcntl.h>
#include <getopt.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common.h"

#define RUN_PAGES 64u
#define PAGE_WORDS (PAGE_SIZE / sizeof(uint64_t))
#define MAX_PASSES 64
#define REPORTED_MISMATCHES 10

enum { EXIT_MISMATCH = 1, EXIT_READ_ERROR = 3 };

/* What a wrong page holds says where to look for the bug. */
enum fault { ZEROED, MISPLACED, STALE, CORRUPT, FAULTS };

static const char *const fault_names[FAULTS] = {"zeroed", "misplaced", "stale", "corrupt"};

struct stamp {
    uint64_t page;
    uint64_t generation;
};

struct source {
    int descriptor;
    bool cached;          /* O_DIRECT was refused: the page cache must be emptied by hand */
    uint64_t runs;        /* the file's length, in whole runs */
    uint64_t loaded;      /* the run that `buffer` holds, or UINT64_MAX */
    unsigned char *buffer; /* RUN_PAGES pages */
    uint64_t ns;          /* spent reading */
};

struct phase {
    char name[24];
    uint64_t pages;
    uint64_t mismatches;
    uint64_t ns;
    uint64_t source_ns;
    uint64_t slowest_ns; /* the longest that one page took, source aside */
};

struct options {
    uint64_t size;
    const char *source;
    unsigned passes;
    bool random;
    double rewrite;
    uint64_t seed;
    double heartbeat;
    double seconds;
    bool hold;
    bool json;
    bool inject_mismatch;
};

struct hog {
    struct options options;
    struct source source;
    unsigned char *memory;
    uint64_t pages;
    uint64_t *checksums;
    uint64_t generation;
    unsigned pass;
    uint64_t faults[FAULTS];
    struct phase phases[2 * MAX_PASSES];
    unsigned phase_count;
    uint64_t started;
    uint64_t next_heartbeat;
    uint64_t bad_address; /* of the access that raised SIGBUS */
};

/* One per process, like the SIGBUS handler that needs it. */
static struct hog hog = {.options = {.passes = 1, .seed = 1}};
static sigjmp_buf read_error;

/* ---- pages ------------------------------------------------------------------------- */

/*
 * Four independent lanes, because one chain of multiplications would cost 3000 cycles a
 * page. Every step is a bijection of its lane, so a single wrong word is always noticed.
 */
static uint64_t checksum(const void *page)
{
    const uint64_t *word = page;
    uint64_t lane[4] = {1, 2, 3, 4};

    for (size_t i = 0; i < PAGE_WORDS; i += 4) {
        for (size_t j = 0; j < 4; j++) {
            lane[j] = (lane[j] ^ word[i + j]) * 0x9e3779b97f4a7c15u;
            lane[j] ^= lane[j] >> 32;
        }
    }
    return mix(lane[0] + mix(lane[1] + mix(lane[2] + mix(lane[3]))));
}

static uint64_t hash3(uint64_t a, uint64_t b, uint64_t c)
{
    return mix(a + mix(b + mix(c)));
}

static bool rewritten_in(uint64_t page, uint64_t generation)
{
    uint64_t draw = hash3(page, generation, hog.options.seed);

    return (double)(draw >> 11) * 0x1p-53 < hog.options.rewrite;
}

static uint64_t expected_generation(uint64_t page)
{
    uint64_t generation = hog.generation;

    while (generation && !rewritten_in(page, generation))
        generation--;
    return generation;
}

/* ---- the source -------------------------------------------------------------------- */

static void open_source(struct source *source, const char *path)
{
    struct stat attr;

    source->descriptor = open(path, O_RDONLY | O_CLOEXEC | O_DIRECT);
    if (source->descriptor < 0 && errno == EINVAL) {
        source->descriptor = open(path, O_RDONLY | O_CLOEXEC);
        source->cached = true;
    }
    if (source->descriptor < 0 || fstat(source->descriptor, &attr))
        die("hog: %s: %s", path, strerror(errno));
    source->runs = (uint64_t)attr.st_size / (RUN_PAGES * PAGE_SIZE);
    if (!source->runs)
        die("hog: %s: needs at least %u pages", path, RUN_PAGES);
    source->loaded = UINT64_MAX;
    source->buffer = aligned_alloc(PAGE_SIZE, RUN_PAGES * PAGE_SIZE);
    if (!source->buffer)
        die("hog: out of memory");
}

static void load_run(struct source *source, uint64_t run)
{
    const size_t length = RUN_PAGES * PAGE_SIZE;
    const off_t offset = (off_t)(run * length);
    const uint64_t started = now_ns();

    errno = 0;
    if (pread(source->descriptor, source->buffer, length, offset) != (ssize_t)length)
        die("hog: source: %s", errno ? strerror(errno) : "it became shorter");
    if (source->cached)
        posix_fadvise(source->descriptor, offset, (off_t)length, POSIX_FADV_DONTNEED);
    source->loaded = run;
    source->ns += now_ns() - started;
}

/* The stamped content of a page, in the source's buffer. */
static const void *content(uint64_t page, uint64_t generation)
{
    const struct stamp stamp = {page, generation};
    struct source *source = &hog.source;
    uint64_t run =
        hash3(page / RUN_PAGES, generation, ~hog.options.seed) % source->runs;
    void *data = source->buffer + page % RUN_PAGES * PAGE_SIZE;

    if (source->loaded != run)
        load_run(source, run);
    memcpy(data, &stamp, sizeof stamp);
    return data;
}

/* ---- orders ------------------------------------------------------------------------ */

/*
 * A random permutation of 0..pages-1 that needs no memory: a Feistel network over the
 * next power of four, walked again until it lands on a page (at worst 4 times on average).
 */
static uint64_t permuted(uint64_t index, uint64_t pages, uint64_t key)
{
    unsigned half = 1;

    while ((uint64_t)1 << 2 * half < pages)
        half++;
    do {
        const uint64_t mask = ((uint64_t)1 << half) - 1;
        uint64_t left = index >> half, right = index & mask;

        for (uint64_t round = 0; round < 4; round++) {
            uint64_t next = left ^ (hash3(right, round, key) & mask);

            left = right;
            right = next;
        }
        index = left << half | right;
    } while (index >= pages);
    return index;
}

static uint64_t in_address_order(uint64_t index)
{
    return index;
}

static uint64_t in_random_order(uint64_t index)
{
    return permuted(index, hog.pages, hash3(hog.pass, 0, hog.options.seed));
}

/* ---- what is done to a page: returns whether it was touched -------------------------- */

/* The checksum is taken of the locked copy: memory that was swapped proves nothing. */
static bool write_page(uint64_t page)
{
    const void *data = content(page, hog.generation);

    hog.checksums[page] = checksum(data);
    memcpy(hog.memory + page * PAGE_SIZE, data, PAGE_SIZE);
    return true;
}

static bool rewrite_page(uint64_t page)
{
    return rewritten_in(page, hog.generation) && write_page(page);
}

static enum fault diagnose(uint64_t page, const unsigned char *data)
{
    struct stamp stamp;

    memcpy(&stamp, data, sizeof stamp);
    if (!data[0] && !memcmp(data, data + 1, PAGE_SIZE - 1))
        return ZEROED;
    if (stamp.page != page && stamp.page < hog.pages && stamp.generation <= hog.generation)
        return MISPLACED;
    if (stamp.page == page && stamp.generation < expected_generation(page))
        return STALE;
    return CORRUPT;
}

static void report_mismatch(struct phase *phase, uint64_t page)
{
    const unsigned char *data = hog.memory + page * PAGE_SIZE;
    enum fault fault = diagnose(page, data);
    struct stamp stamp;

    memcpy(&stamp, data, sizeof stamp);
    hog.faults[fault]++;
    if (++phase->mismatches <= REPORTED_MISMATCHES)
        fprintf(stderr,
                "%s: page %ju of generation %ju is %s: it says page %ju of generation %ju\n",
                phase->name, (uintmax_t)page, (uintmax_t)expected_generation(page),
                fault_names[fault], (uintmax_t)stamp.page, (uintmax_t)stamp.generation);
}

static bool verify_page(uint64_t page)
{
    if (checksum(hog.memory + page * PAGE_SIZE) != hog.checksums[page])
        report_mismatch(&hog.phases[hog.phase_count - 1], page);
    return true;
}

/* ---- phases ------------------------------------------------------------------------ */

static double pages_per_second(const struct phase *phase)
{
    return phase->ns ? (double)phase->pages * 1e9 / (double)phase->ns : 0;
}

static void print_phase(const struct phase *phase)
{
    printf("%-12s %9ju pages %9.3f s (%.3f s reading the source) %9.0f pages/s  "
           "slowest %.0f us  mismatches %ju\n",
           phase->name, (uintmax_t)phase->pages, (double)phase->ns / 1e9,
           (double)phase->source_ns / 1e9, pages_per_second(phase),
           (double)phase->slowest_ns / 1e3, (uintmax_t)phase->mismatches);
    fflush(stdout);
}

/* Printed between pages: a hog that hangs in a page fault falls silent. */
static void beat(const struct phase *phase, uint64_t now)
{
    if (now < hog.next_heartbeat)
        return;
    fprintf(stderr, "%.1f s: %s: %ju pages of %ju\n", (double)(now - hog.started) / 1e9,
            phase->name, (uintmax_t)phase->pages, (uintmax_t)hog.pages);
    hog.next_heartbeat = now + (uint64_t)(hog.options.heartbeat * 1e9);
}

static struct phase *begin_phase(const char *name, unsigned number)
{
    struct phase *phase = &hog.phases[hog.phase_count++];

    if (number)
        snprintf(phase->name, sizeof phase->name, "%s %u", name, number);
    else
        snprintf(phase->name, sizeof phase->name, "%s", name);
    return phase;
}

static void run_phase(struct phase *phase, uint64_t (*order)(uint64_t), bool (*visit)(uint64_t))
{
    const uint64_t started = now_ns(), source_started = hog.source.ns;
    uint64_t before = started, source_before = source_started;

    for (uint64_t index = 0; index < hog.pages; index++) {
        uint64_t now, took;

        if (!visit(order(index)))
            continue;
        now = now_ns();
        took = now - before - (hog.source.ns - source_before);
        before = now;
        source_before = hog.source.ns;
        phase->pages++;
        phase->ns = now - started;
        phase->source_ns = hog.source.ns - source_started;
        if (took > phase->slowest_ns)
            phase->slowest_ns = took;
        if (hog.options.heartbeat > 0)
            beat(phase, now);
    }
    if (!hog.options.json)
        print_phase(phase);
}

/* Without stdio, whose buffers are not locked. */
static void hold(void)
{
    static const char filled[] = "filled\n";
    char byte = 0;

    if (write(STDOUT_FILENO, filled, sizeof filled - 1) < 0)
        die("hog: stdout: %s", strerror(errno));
    while (byte != '\n' && read(STDIN_FILENO, &byte, 1) > 0)
        ;
}

static void run_all_phases(void)
{
    uint64_t (*order)(uint64_t) = hog.options.random ? in_random_order : in_address_order;

    run_phase(begin_phase("fill", 0), in_address_order, write_page);
    if (hog.options.inject_mismatch)
        hog.memory[hog.pages / 2 * PAGE_SIZE + PAGE_SIZE / 2] ^= 1;
    if (hog.options.hold)
        hold();
    for (hog.pass = 1; hog.pass <= hog.options.passes; hog.pass++) {
        run_phase(begin_phase("verify", hog.pass), order, verify_page);
        if (hog.options.seconds > 0 && now_ns() - hog.started > hog.options.seconds * 1e9)
            break;
        if (hog.pass < hog.options.passes && hog.options.rewrite > 0) {
            hog.generation++;
            run_phase(begin_phase("rewrite", hog.pass), in_address_order, rewrite_page);
        }
    }
}

/* ---- SIGBUS ------------------------------------------------------------------------ */

static void on_sigbus(int number, siginfo_t *info, void *context)
{
    uintptr_t address = (uintptr_t)info->si_addr, start = (uintptr_t)hog.memory;

    (void)context;
    if (address < start || address - start >= hog.options.size) {
        signal(number, SIG_DFL); /* not a page of ours: the access fails again, and kills */
        return;
    }
    hog.bad_address = address;
    siglongjmp(read_error, 1);
}

static void catch_sigbus(void)
{
    struct sigaction action = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO};

    if (sigaction(SIGBUS, &action, NULL))
        die("hog: sigaction: %s", strerror(errno));
}

/* ---- the report -------------------------------------------------------------------- */

static uint64_t all_mismatches(void)
{
    uint64_t sum = 0;

    for (unsigned fault = 0; fault < FAULTS; fault++)
        sum += hog.faults[fault];
    return sum;
}

static int outcome(void)
{
    if (hog.bad_address)
        return EXIT_READ_ERROR;
    return all_mismatches() ? EXIT_MISMATCH : EXIT_SUCCESS;
}

static uint64_t bad_page(void)
{
    return (hog.bad_address - (uintptr_t)hog.memory) / PAGE_SIZE;
}

static void print_phase_json(const struct phase *phase)
{
    printf("{\"phase\": \"%s\", \"pages\": %ju, \"seconds\": %.6f, \"source_seconds\": %.6f, "
           "\"pages_per_second\": %.0f, \"slowest_us\": %.1f, \"mismatches\": %ju}",
           phase->name, (uintmax_t)phase->pages, (double)phase->ns / 1e9,
           (double)phase->source_ns / 1e9, pages_per_second(phase),
           (double)phase->slowest_ns / 1e3, (uintmax_t)phase->mismatches);
}

/* Processor time of the hog's own work: what the kernel does in its name is system time. */
static double user_seconds(void)
{
    struct rusage used;

    getrusage(RUSAGE_SELF, &used);
    return (double)used.ru_utime.tv_sec + (double)used.ru_utime.tv_usec / 1e6;
}

static void print_json(double elapsed)
{
    static const char *const results[] = {
        [EXIT_SUCCESS] = "ok", [EXIT_MISMATCH] = "mismatch", [EXIT_READ_ERROR] = "read error"};

    printf("{\"result\": \"%s\", \"size\": %ju, \"pages\": %ju, \"order\": \"%s\", "
           "\"rewrite\": %g, \"seed\": %ju, \"elapsed\": %.3f, \"user_seconds\": %.3f, "
           "\"phases\": [",
           results[outcome()], (uintmax_t)hog.options.size, (uintmax_t)hog.pages,
           hog.options.random ? "random" : "seq", hog.options.rewrite,
           (uintmax_t)hog.options.seed, elapsed, user_seconds());
    for (unsigned index = 0; index < hog.phase_count; index++) {
        fputs(index ? ", " : "", stdout);
        print_phase_json(&hog.phases[index]);
    }
    printf("], \"mismatches\": %ju", (uintmax_t)all_mismatches());
    for (unsigned fault = 0; fault < FAULTS; fault++)
        printf(", \"%s\": %ju", fault_names[fault], (uintmax_t)hog.faults[fault]);
    if (hog.bad_address)
        printf(", \"error_page\": %ju", (uintmax_t)bad_page());
    puts("}");
}

static void report(void)
{
    const double elapsed = (double)(now_ns() - hog.started) / 1e9;

    if (hog.bad_address)
        fprintf(stderr, "read error at page %ju (%s)\n", (uintmax_t)bad_page(),
                hog.phases[hog.phase_count - 1].name);
    if (hog.options.json)
        print_json(elapsed);
    else
        printf("%ju mismatches, %.3f s\n", (uintmax_t)all_mismatches(), elapsed);
}

/* ---- start ------------------------------------------------------------------------- */

static const char help[] =
    "usage: hog --size BYTES --source FILE [options]\n"
    "  --size BYTES          memory to use, in whole pages (4096, 64M, 1G)\n"
    "  --source FILE         real data to fill it with, at least 256 KiB\n"
    "  --passes N            verify N times (1)\n"
    "  --order seq|random    how a verify pass walks the pages (seq)\n"
    "  --rewrite FRACTION    of the pages to write anew between two passes (0)\n"
    "  --seed S              chooses data, order and the pages rewritten (1)\n"
    "  --hold                say `filled` after the fill and wait for a line of input\n"
    "  --seconds SECONDS     begin no further pass after this time\n"
    "  --heartbeat SECONDS   say on stderr how far it got, as often as this\n"
    "  --json                one line of JSON at the end, and no other report\n"
    "  --inject-mismatch     for testing: flip a bit after the fill, to see it noticed\n";

static const struct option long_options[] = {{"size", required_argument, NULL, 's'},
                                             {"source", required_argument, NULL, 'f'},
                                             {"passes", required_argument, NULL, 'p'},
                                             {"order", required_argument, NULL, 'o'},
                                             {"rewrite", required_argument, NULL, 'r'},
                                             {"seed", required_argument, NULL, 'S'},
                                             {"hold", no_argument, NULL, 'H'},
                                             {"seconds", required_argument, NULL, 't'},
                                             {"heartbeat", required_argument, NULL, 'b'},
                                             {"json", no_argument, NULL, 'j'},
                                             {"inject-mismatch", no_argument, NULL, 'i'},
                                             {"help", no_argument, NULL, 'h'},
                                             {0}};

static bool parse_order(const char *text)
{
    if (strcmp(text, "seq") && strcmp(text, "random"))
        die("--order: '%s' is neither seq nor random", text);
    return !strcmp(text, "random");
}

static void parse_option(struct options *options, int option)
{
    switch (option) {
    case 's': options->size = parse_bytes("--size", optarg); break;
    case 'f': options->source = optarg; break;
    case 'p': options->passes = (unsigned)parse_real("--passes", optarg, 1, MAX_PASSES); break;
    case 'o': options->random = parse_order(optarg); break;
    case 'r': options->rewrite = parse_real("--rewrite", optarg, 0, 1); break;
    case 'S': options->seed = parse_bytes("--seed", optarg); break;
    case 'H': options->hold = true; break;
    case 't': options->seconds = parse_real("--seconds", optarg, 0, 86400); break;
    case 'b': options->heartbeat = parse_real("--heartbeat", optarg, 0, 86400); break;
    case 'j': options->json = true; break;
    case 'i': options->inject_mismatch = true; break;
    case 'h': fputs(help, stdout); exit(EXIT_SUCCESS);
    default: exit(EXIT_USAGE);
    }
}

static void parse_command_line(struct options *options, int argc, char **argv)
{
    int option;

    while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1)
        parse_option(options, option);
    if (optind != argc || !options->source || !options->size || options->size % PAGE_SIZE) {
        fputs(help, stderr);
        exit(EXIT_USAGE);
    }
}

/* In this order: what exists when mlockall is called is locked, the memory itself is not. */
static void take_memory(void)
{
    hog.pages = hog.options.size / PAGE_SIZE;
    hog.checksums = calloc(hog.pages, sizeof *hog.checksums);
    if (!hog.checksums)
        die("hog: out of memory");
    if (mlockall(MCL_CURRENT))
        fprintf(stderr, "hog: cannot lock the checksums (%s): they may be swapped too\n",
                strerror(errno));
    hog.memory = mmap(NULL, hog.options.size, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (hog.memory == MAP_FAILED)
        die("hog: mmap: %s", strerror(errno));
    madvise(hog.memory, hog.options.size, MADV_NOHUGEPAGE);
}

int main(int argc, char **argv)
{
    parse_command_line(&hog.options, argc, argv);
    open_source(&hog.source, hog.options.source);
    take_memory();
    catch_sigbus();
    hog.started = now_ns();
    hog.next_heartbeat = hog.started + (uint64_t)(hog.options.heartbeat * 1e9);
    if (!sigsetjmp(read_error, 1))
        run_all_phases();
    report();
    return outcome();
}
