"""Mounting a FUSE connection and unmounting it, with privileges or through fusermount3."""

from __future__ import annotations

import array
import errno
import os
import socket
import subprocess

from vswap import libc
from vswap.errors import UserError
from vswap.proto import abi
from vswapd.mounts import FSTYPE

__all__ = ["open_and_mount", "unmount"]

_DEVICE = "/dev/fuse"
_FUSERMOUNT_SECONDS = 10


def open_and_mount(mount_point: str, name: str, as_user: bool) -> int:
    """Mount a new connection at `mount_point`; answers its non-blocking descriptor.

    `name` becomes the mount's source. `as_user` goes through fusermount3, which needs no
    privilege; only the user sees the files then. Raises `UserError`.
    """
    fd = _fusermount(mount_point, name) if as_user else _mount(mount_point, name)
    os.set_blocking(fd, False)
    return fd


def _mount(mount_point: str, name: str) -> int:
    try:
        fd = os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        hint = "load the fuse module, and run as root"
        raise UserError(f"cannot open {_DEVICE} ({error.strerror}): {hint}") from None
    options = (
        f"fd={fd},rootmode=40000,user_id={os.geteuid()},group_id={os.getegid()},"
        f"allow_other,default_permissions,max_read={abi.MAX_WRITE}"
    )
    flags = libc.MS_NOSUID | libc.MS_NODEV | libc.MS_NOEXEC
    try:
        libc.mount(name, mount_point, FSTYPE, flags, options)
    except OSError as error:
        os.close(fd)
        hint = "; run as root" if error.errno == errno.EPERM else ""
        raise UserError(f"cannot mount on {mount_point}: {error.strerror}{hint}") from None
    return fd


def _fusermount(mount_point: str, name: str) -> int:
    """Have fusermount3 mount, and take the descriptor it sends back (libfuse's way)."""
    if os.path.isfile(mount_point):  # noqa: PTH113
        # fusermount3 would take it, as a file to serve. (Path.is_file raises for some strings.)
        raise UserError(f"cannot mount on {mount_point}: Not a directory")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    options = f"fsname={name},subtype=vswap,default_permissions,max_read={abi.MAX_WRITE}"
    with ours, theirs:
        try:
            done = _run_fusermount("-o", options, "--", mount_point, comm_fd=theirs.fileno())
        except FileNotFoundError:
            raise UserError("mounting without root needs fusermount3: install fuse3") from None
        except subprocess.TimeoutExpired:
            raise UserError(f"fusermount3 did not mount {mount_point} in time") from None
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["no reason given"]
            raise UserError(f"cannot mount on {mount_point}: {lines[-1]}")
        theirs.close()  # or we would wait for ourselves if it sent nothing
        return _receive_fd(ours)


def _run_fusermount(
    *arguments: str, comm_fd: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Run fusermount3; `comm_fd` is where it sends the connection to when it mounts."""
    told = {} if comm_fd is None else {"_FUSE_COMMFD": str(comm_fd)}
    return subprocess.run(
        ["fusermount3", *arguments],
        env={**os.environ, **told},
        pass_fds=() if comm_fd is None else (comm_fd,),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=_FUSERMOUNT_SECONDS,
        check=False,
    )


def _receive_fd(sock: socket.socket) -> int:
    fds = array.array("i")
    _, ancillary, _, _ = sock.recvmsg(1, socket.CMSG_LEN(fds.itemsize))
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: fds.itemsize])
            os.set_inheritable(fds[0], False)
            return fds[0]
    raise UserError("fusermount3 sent no descriptor")


def unmount(mount_point: str, as_user: bool, lazy: bool = False) -> None:
    """Take the mount away; if `lazy`, out of the name space only, as long as it is in use.

    Raises `OSError` with EBUSY while something has a file open, unless `lazy`.
    """
    if not as_user:
        libc.umount2(mount_point, libc.MNT_DETACH if lazy else 0)
        return
    try:
        done = _run_fusermount("-uz" if lazy else "-u", "--", mount_point)
    except subprocess.TimeoutExpired:
        raise OSError(errno.ETIMEDOUT, "fusermount3 does not end", mount_point) from None
    if done.returncode:
        raise OSError(errno.EBUSY, done.stderr.strip(), mount_point)
