/*
 * nullfs: a file system that does nothing, as fast as libfuse can.
 *
 *     nullfs --size BYTES [--threads N] MOUNTPOINT
 *
 * Its one file, `swap`, reads as zeros and forgets what is written. A swap device behind
 * the same kernel path (loop device, direct I/O, FUSE) can at best be as fast as this, so
 * its figures are the limit that real stores are measured against.
 *
 * Serves in the foreground until it is unmounted or gets SIGINT or SIGTERM.
 */
#include "swapfs.h"

static const char zeros[MAX_WRITE]; /* the kernel never asks for more than max_pages */

static void prepare(uint64_t size)
{
    (void)size;
}

static void on_read(fuse_req_t req, fuse_ino_t inode, size_t size, off_t offset,
                    struct fuse_file_info *file)
{
    (void)inode, (void)file;
    fuse_reply_buf(req, zeros, within(offset, size));
}

static void on_write(fuse_req_t req, fuse_ino_t inode, const char *data, size_t size,
                     off_t offset, struct fuse_file_info *file)
{
    (void)inode, (void)data, (void)offset, (void)file;
    fuse_reply_write(req, size);
}

static void on_fallocate(fuse_req_t req, fuse_ino_t inode, int mode, off_t offset,
                         off_t length, struct fuse_file_info *file)
{
    (void)inode, (void)mode, (void)offset, (void)length, (void)file;
    fuse_reply_err(req, 0);
}

int main(int argc, char **argv)
{
    static const struct keeping nothing = {
        "nullfs", prepare, on_read, on_write, on_fallocate};

    return swapfs_main(&nothing, argc, argv);
}
