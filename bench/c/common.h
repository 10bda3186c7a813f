/*
 * What the benchmark programs share: errors, arguments, the clock, a bit mixer.
 *
 * Every program exits with 2 when it cannot do what it was asked to; the other exit
 * codes are its own and stand in its opening comment.
 */
#ifndef VSWAP_BENCH_COMMON_H
#define VSWAP_BENCH_COMMON_H

#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PAGE_SIZE 4096u

enum { EXIT_USAGE = 2 };

__attribute__((format(printf, 1, 2))) static inline _Noreturn void die(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(EXIT_USAGE);
}

/* A whole number with an optional binary suffix: 4096, 64K, 1G. */
static inline uint64_t parse_bytes(const char *option, const char *text)
{
    static const char suffixes[] = "KMGT";
    const char *suffix;
    char *end;
    uint64_t value;
    unsigned shift = 0;

    errno = 0;
    value = strtoull(text, &end, 10);
    if (*end && (suffix = strchr(suffixes, *end))) {
        shift = 10 * (unsigned)(suffix - suffixes + 1);
        end++;
    }
    if (errno || *end || *text < '0' || *text > '9' || value << shift >> shift != value)
        die("%s: '%s' is not a whole number like 4096, 64K or 1G", option, text);
    return value << shift;
}

static inline double parse_real(const char *option, const char *text, double low, double high)
{
    char *end;
    double value = strtod(text, &end);

    if (end == text || *end || !(value >= low && value <= high))
        die("%s: '%s' is not a number from %g to %g", option, text, low, high);
    return value;
}

static inline uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* A bijection of 64-bit words in which every input bit moves about half the output bits. */
static inline uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 32) * 0xd6e8feb86659fd93u;
    x = (x ^ x >> 32) * 0xd6e8feb86659fd93u;
    return x ^ x >> 32;
}

#endif
