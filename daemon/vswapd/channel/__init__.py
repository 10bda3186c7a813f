"""The channel to the kernel: /dev/fuse, the handshake, and the data plane's threads."""

from __future__ import annotations

from vswapd.channel.channel import BUFFER_SIZE, Channel, ChannelStatistics, receive_buffer
from vswapd.channel.device import Handshake, handshake, open_and_mount, unmount
from vswapd.channel.receiver import CLOSED
from vswapd.channel.router import SWAP_INODE

__all__ = [
    "BUFFER_SIZE",
    "CLOSED",
    "SWAP_INODE",
    "Channel",
    "ChannelStatistics",
    "Handshake",
    "handshake",
    "open_and_mount",
    "receive_buffer",
    "unmount",
]
