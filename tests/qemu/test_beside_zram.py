"""The same hog in the same guest: once on zram, once on ours, with as much of it swapped out."""

from __future__ import annotations

from qemu.conftest import Boot, Tell
from qemu.stack import MIB, Stack, judged, wait_filled

HOG_MIB = 144
STAYS_MIB = 56
SECONDS = 200.0

ZRAM_ON = """
echo lzo-rle >/sys/block/zram0/comp_algorithm
echo 768M >/sys/block/zram0/disksize
mkswap /dev/zram0 >/dev/null
swapon --discard /dev/zram0
"""


def test_both_give_every_page_back_and_ours_takes_less_memory(boot: Boot, tell: Tell) -> None:
    guest = boot(memory=448, seconds=400.0)
    stack = Stack(guest)

    guest.sh(ZRAM_ON)
    hog = stack.hog_within(STAYS_MIB, HOG_MIB, "--passes", "1")
    wait_filled(hog)
    original, _, used = map(int, guest.sh("cat /sys/block/zram0/mm_stat").split()[:3])
    zram = judged(hog.wait(SECONDS))
    guest.sh("swapoff /dev/zram0; echo 1 >/sys/block/zram0/reset", seconds=SECONDS)

    stack.up("--size", "768M")
    hog = stack.hog_within(STAYS_MIB, HOG_MIB, "--passes", "1")
    wait_filled(hog)
    stats = stack.stats()
    ours = judged(hog.wait(SECONDS))
    stack.check()
    stack.down()
    ratios = original / used, stats["orig_data_size"] / stats["mem_used_total"]
    tell(
        f"zram: {ratios[0]:.2f}, {zram['elapsed']:.0f} s; ours: {ratios[1]:.2f}, "
        f"{ours['elapsed']:.0f} s; memory {ratios[0] / ratios[1]:.2f} of zram's"
    )
    assert min(original, stats["orig_data_size"]) > (HOG_MIB - STAYS_MIB) * MIB * 3 / 4
    assert ratios[1] > ratios[0]
