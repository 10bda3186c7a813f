/*
 * swapfs: a file system of one file, `swap`, as fast as libfuse can be.
 *
 * A program includes this, defines how the file is read, written and given back, and calls
 * `swapfs_main`. What the programs have in common is what the kernel is told about the file:
 * writes of 1 MiB, many requests at once, direct writes side by side, and discards.
 */
#ifndef VSWAP_BENCH_SWAPFS_H
#define VSWAP_BENCH_SWAPFS_H

#define FUSE_USE_VERSION FUSE_MAKE_VERSION(3, 12)

#include <fuse3/fuse_lowlevel.h>
#include <getopt.h>
#include <linux/fuse.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common.h"

#define MAX_WRITE (1u << 20)
#define MAX_BACKGROUND 128 /* the kernel's default of 12 would cap the queue depth */
#define FOREVER 1e9        /* seconds: nothing here ever changes */

enum { SWAP_INODE = 2 };

/* How a program keeps its file. `prepare` is called once, before anything is mounted. */
struct keeping {
    char *name;
    void (*prepare)(uint64_t size);
    void (*read)(fuse_req_t, fuse_ino_t, size_t, off_t, struct fuse_file_info *);
    void (*write)(fuse_req_t, fuse_ino_t, const char *, size_t, off_t, struct fuse_file_info *);
    void (*fallocate)(fuse_req_t, fuse_ino_t, int, off_t, off_t, struct fuse_file_info *);
};

static uint64_t file_size;

/* How much of a request lies within the file. */
static inline size_t within(off_t offset, uint64_t length)
{
    uint64_t left = (uint64_t)offset < file_size ? file_size - (uint64_t)offset : 0;

    return length < left ? length : left;
}

static int describe(fuse_ino_t inode, struct stat *attr)
{
    memset(attr, 0, sizeof *attr);
    attr->st_ino = inode;
    attr->st_blksize = PAGE_SIZE;
    if (inode == FUSE_ROOT_ID) {
        attr->st_mode = S_IFDIR | 0700;
        attr->st_nlink = 2;
    } else if (inode == SWAP_INODE) {
        attr->st_mode = S_IFREG | 0600;
        attr->st_nlink = 1;
        attr->st_size = (off_t)file_size;
        attr->st_blocks = (blkcnt_t)(file_size / 512);
    } else {
        return ENOENT;
    }
    return 0;
}

static void on_init(void *data, struct fuse_conn_info *connection)
{
    (void)data;
    connection->max_write = MAX_WRITE;
    connection->max_background = MAX_BACKGROUND;
    connection->congestion_threshold = MAX_BACKGROUND;
}

static void on_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct fuse_entry_param entry = {
        .ino = SWAP_INODE, .attr_timeout = FOREVER, .entry_timeout = FOREVER};

    if (parent != FUSE_ROOT_ID || strcmp(name, "swap")) {
        fuse_reply_err(req, ENOENT);
        return;
    }
    describe(SWAP_INODE, &entry.attr);
    fuse_reply_entry(req, &entry);
}

static void on_getattr(fuse_req_t req, fuse_ino_t inode, struct fuse_file_info *file)
{
    struct stat attr;
    int error = describe(inode, &attr);

    (void)file;
    if (error)
        fuse_reply_err(req, error);
    else
        fuse_reply_attr(req, &attr, FOREVER);
}

static void on_readdir(fuse_req_t req, fuse_ino_t inode, size_t size, off_t offset,
                       struct fuse_file_info *file)
{
    char entry[64];
    struct stat attr;
    size_t length;

    (void)inode, (void)file;
    describe(SWAP_INODE, &attr);
    length = fuse_add_direntry(req, entry, sizeof entry, "swap", &attr, 1);
    fuse_reply_buf(req, entry, offset == 0 && length <= size ? length : 0);
}

/*
 * libfuse 3.14 has no field for FOPEN_PARALLEL_DIRECT_WRITES, and this must build
 * with what distributions ship; so the reply is laid out here, as the kernel reads it.
 */
static void on_open(fuse_req_t req, fuse_ino_t inode, struct fuse_file_info *file)
{
    struct fuse_open_out reply = {.open_flags = FOPEN_PARALLEL_DIRECT_WRITES};

    (void)inode, (void)file;
    fuse_reply_buf(req, (const char *)&reply, sizeof reply);
}

/* Without a block size the loop device would offer no discard. */
static void on_statfs(fuse_req_t req, fuse_ino_t inode)
{
    struct statvfs answer = {.f_bsize = PAGE_SIZE,
                             .f_frsize = PAGE_SIZE,
                             .f_blocks = file_size / PAGE_SIZE,
                             .f_namemax = 255};

    (void)inode;
    fuse_reply_statfs(req, &answer);
}

static int serve(struct fuse_session *session, unsigned threads)
{
    struct fuse_loop_config *config = fuse_loop_cfg_create();
    int result;

    fuse_loop_cfg_set_max_threads(config, threads);
    fuse_loop_cfg_set_clone_fd(config, 0);
    result = fuse_session_loop_mt(session, config);
    fuse_loop_cfg_destroy(config);
    return result;
}

static int mount_and_serve(const struct keeping *keeping, const char *mountpoint,
                           unsigned threads)
{
    const struct fuse_lowlevel_ops operations = {
        .init = on_init,
        .lookup = on_lookup,
        .getattr = on_getattr,
        .readdir = on_readdir,
        .open = on_open,
        .read = keeping->read,
        .write = keeping->write,
        .fallocate = keeping->fallocate,
        .statfs = on_statfs,
    };
    char *words[] = {keeping->name, "-ofsname=swapfs"};
    struct fuse_args arguments = FUSE_ARGS_INIT(2, words);
    struct fuse_session *session =
        fuse_session_new(&arguments, &operations, sizeof operations, NULL);
    int result;

    fuse_opt_free_args(&arguments);
    if (!session || fuse_set_signal_handlers(session))
        die("%s: libfuse refused to start", keeping->name);
    if (fuse_session_mount(session, mountpoint))
        die("%s: cannot mount on %s", keeping->name, mountpoint);
    result = serve(session, threads);
    fuse_session_unmount(session);
    fuse_remove_signal_handlers(session);
    fuse_session_destroy(session);
    return result < 0; /* a positive result is the signal that ended it */
}

/* Serve in the foreground until the file system is unmounted, or SIGINT or SIGTERM comes. */
static int swapfs_main(const struct keeping *keeping, int argc, char **argv)
{
    static const struct option options[] = {{"size", required_argument, NULL, 's'},
                                            {"threads", required_argument, NULL, 't'},
                                            {0}};
    unsigned threads = 2;
    int option;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 's')
            file_size = parse_bytes("--size", optarg);
        else if (option == 't')
            threads = (unsigned)parse_real("--threads", optarg, 1, 1024);
        else
            exit(EXIT_USAGE);
    }
    if (optind != argc - 1 || !file_size || file_size % PAGE_SIZE)
        die("usage: %s --size BYTES [--threads N] MOUNTPOINT   (whole pages)", keeping->name);
    keeping->prepare(file_size);
    return mount_and_serve(keeping, argv[optind], threads);
}

#endif
