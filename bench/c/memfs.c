/*
 * memfs: a file system that keeps its file in memory as it is, as fast as libfuse can.
 *
 *     memfs --size BYTES [--threads N] MOUNTPOINT
 *
 * Its one file, `swap`, is a mapping: a write copies into it, a read is answered out of it,
 * and a discard gives its pages back. A compressed store behind the same kernel path can be
 * faster than this only by not touching memory, so this is what compressing costs, or saves.
 *
 * The kernel may swap to it: what it is made of is locked, so it never waits for a page of
 * its own, and where that is permitted its allocations do not wait for I/O.
 *
 * Serves in the foreground until it is unmounted or gets SIGINT or SIGTERM.
 */
#define _GNU_SOURCE

#include <linux/falloc.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#include "swapfs.h"

#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24 /* Linux 5.18; MADV_DONTNEED refuses what is locked */
#endif

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

static char *memory;
static bool *touched; /* whether a page is in memory: a hint, so it takes no lock */

/*
 * In this order: MCL_ONFAULT locks a page when it is first touched, of this mapping too, and
 * threads inherit PR_SET_IO_FLUSHER.
 *
 * The pages around the file, which nobody may touch, keep the kernel from joining the mapping
 * with a neighbour: /proc/PID/smaps has it as one entry of the file's size, and so tells how
 * much of it is in memory. Huge pages would be taken, and zeroed, for a write of 4 KiB. The
 * last call only finds out whether the kernel can give locked pages back.
 */
static void prepare(uint64_t size)
{
    const size_t around = size + 2 * PAGE_SIZE;

    prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0); /* EPERM without CAP_SYS_RESOURCE: then without */
    if (mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT))
        die("memfs: cannot lock its memory: %s", strerror(errno));
    memory = mmap(NULL, around, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        die("memfs: mmap: %s", strerror(errno));
    memory += PAGE_SIZE;
    if (mprotect(memory, size, PROT_READ | PROT_WRITE) ||
        madvise(memory, size, MADV_NOHUGEPAGE) || madvise(memory, size, MADV_DONTNEED_LOCKED))
        die("memfs: the kernel refuses the mapping: %s", strerror(errno));
    touched = calloc(size / PAGE_SIZE, sizeof *touched);
    if (!touched)
        die("memfs: out of memory");
}

/*
 * Have the kernel put all pages of a write into memory at once. A fault for each of them takes
 * 76 us where this takes 46, for 128 KiB, and asking for what is there already takes 6.
 */
static void populate(uint64_t start, size_t size)
{
    const uint64_t first = start / PAGE_SIZE, end = (start + size + PAGE_SIZE - 1) / PAGE_SIZE;

    if (end - first > 1 && !touched[first])
        madvise(memory + first * PAGE_SIZE, (end - first) * PAGE_SIZE, MADV_POPULATE_WRITE);
    memset(touched + first, true, end - first);
}

static void on_read(fuse_req_t req, fuse_ino_t inode, size_t size, off_t offset,
                    struct fuse_file_info *file)
{
    (void)inode, (void)file;
    fuse_reply_buf(req, memory + offset, within(offset, size));
}

static void on_write(fuse_req_t req, fuse_ino_t inode, const char *data, size_t size,
                     off_t offset, struct fuse_file_info *file)
{
    (void)inode, (void)file;
    if (within(offset, size) != size) {
        fuse_reply_err(req, ENOSPC);
        return;
    }
    populate((uint64_t)offset, size);
    memcpy(memory + offset, data, size);
    fuse_reply_write(req, size);
}

/* Give back the whole pages of a range, and clear what is left of it. */
static int give_back(uint64_t start, uint64_t end)
{
    uint64_t first = (start + PAGE_SIZE - 1) / PAGE_SIZE * PAGE_SIZE;
    uint64_t last = end / PAGE_SIZE * PAGE_SIZE;

    if (first >= last) {
        memset(memory + start, 0, end - start);
        return 0;
    }
    memset(memory + start, 0, first - start);
    memset(memory + last, 0, end - last);
    memset(touched + first / PAGE_SIZE, false, (last - first) / PAGE_SIZE);
    return madvise(memory + first, last - first, MADV_DONTNEED_LOCKED) ? errno : 0;
}

/* What reads as zeros afterwards is all the same, whether the kernel punches or zeroes. */
static void on_fallocate(fuse_req_t req, fuse_ino_t inode, int mode, off_t offset,
                         off_t length, struct fuse_file_info *file)
{
    (void)inode, (void)file;
    if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
        fuse_reply_err(req, give_back((uint64_t)offset,
                                      (uint64_t)offset + within(offset, (uint64_t)length)));
    else
        fuse_reply_err(req, EOPNOTSUPP);
}

int main(int argc, char **argv)
{
    static const struct keeping in_memory = {
        "memfs", prepare, on_read, on_write, on_fallocate};

    return swapfs_main(&in_memory, argc, argv);
}
