"""The channel to the kernel: the handshake, and the data plane's threads."""

from __future__ import annotations

from vswapd.channel.channel import BUFFER_SIZE, Channel, ChannelStatistics, receive_buffer, signs
from vswapd.channel.handshake import Handshake, handshake
from vswapd.channel.latency import Latencies
from vswapd.channel.outstanding import Outstanding
from vswapd.channel.receiver import CLOSED
from vswapd.channel.router import SWAP_INODE

__all__ = [
    "BUFFER_SIZE",
    "CLOSED",
    "SWAP_INODE",
    "Channel",
    "ChannelStatistics",
    "Handshake",
    "Latencies",
    "Outstanding",
    "handshake",
    "receive_buffer",
    "signs",
]
