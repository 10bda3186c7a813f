"""A corpus of real memory: what the heaps of running programs look like.

    python bench/corpus.py --out FILE --mib N

Compression is measured with what will be compressed. Made-up data has the ratio that its
maker gave it, and files on disk have no pointers, no object headers and no free lists. So
this starts a Python, a Node.js and a Java program (those that are installed), each of
which builds a search index over real text (the standard library's sources) and a table of
records parsed from JSON; then it copies their anonymous memory from /proc/PID/mem.

Left out are pages of one repeated word, zeros before all: a swap device never stores
them. Pages come in runs of 64 neighbours, because a store that compresses neighbours
together must find them so, and the programs take turns, so that every part of the corpus
is as mixed as the whole. Nothing is repeated to reach a size; a larger corpus takes more
programs.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import select
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

__all__ = ["CorpusError", "corpus"]

PAGE_SIZE = 4096
RUN_PAGES = 64
WINDOW_PAGES = 8 * RUN_PAGES  # read at once; runs are cut from what is left of it
HEAP_MIB = 128  # what each program builds, roughly
READY_TIMEOUT = 120.0
STOP_TIMEOUT = 10.0
IN_USE = np.uint64(3 << 62)  # present, or swapped: Documentation/admin-guide/mm/pagemap.rst
ANONYMOUS = re.compile(r"([0-9a-f]+)-([0-9a-f]+) rw.p \S+ \S+ 0 *(\[heap\]|\[anon.*|)$")

Pages = npt.NDArray[np.uint64]  # one row for each page, one column for each word
Numbers = npt.NDArray[np.int64]  # of pages: addresses divided by the page size


class CorpusError(Exception):
    """No corpus can be made here. One line that says why."""


# ---- the programs ----------------------------------------------------------------------
#
# All are called with a folder of text, a seed and a size in MiB, build their heap, print
# `ready` and wait for the end of their input. The seed makes two programs of one language
# read other files in another order and make other records.

PYTHON = r"""
import json, pathlib, random, re, resource, sys

folder, seed, mib = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rng = random.Random(seed)
files = sorted(pathlib.Path(folder).rglob("*.py"))
rng.shuffle(files)

class Posting:
    def __init__(self, file, line, column):
        self.file, self.line, self.column = file, line, column

def resident():
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() >> 20

def index(path, words, lines):
    text = path.read_text(errors="replace").splitlines()
    lines[str(path)] = text
    for number, line in enumerate(text):
        for match in re.finditer(r"\w+", line):
            posting = Posting(str(path), number, match.start())
            words.setdefault(match.group(), []).append(posting)

def record(number, names):
    return {
        "id": number,
        "customer": {"name": rng.choice(names) + " " + rng.choice(names),
                     "email": rng.choice(names).lower() + "@example.org",
                     "active": rng.random() < 0.8},
        "items": [{"sku": f"{rng.choice(names)}-{rng.randrange(1000):04d}",
                   "quantity": rng.randrange(1, 9),
                   "price": rng.randrange(100, 20000) / 100}
                  for _ in range(rng.randrange(1, 6))],
        "placed": f"2024-{rng.randrange(1, 13):02d}-{rng.randrange(1, 29):02d}T08:15:00Z",
        "note": None if rng.random() < 0.7 else " ".join(rng.choices(names, k=12)),
    }

words, lines, orders = {}, {}, []
for path in files:
    if resident() > mib // 2:
        break
    index(path, words, lines)
names = sorted(words)
while resident() < mib:
    batch = [record(len(orders) + i, names) for i in range(500)]
    orders.extend(json.loads(json.dumps(batch)))
by_customer = {}
for order in orders:
    by_customer.setdefault(order["customer"]["name"], []).append(order)
print("ready", flush=True)
sys.stdin.read()
"""

NODE = r"""
const fs = require("fs"), path = require("path");
const [folder, seed, mib] = [process.argv[2], +process.argv[3], +process.argv[4]];

let state = seed >>> 0;
function random(limit) {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return Math.floor((state / 4294967296) * limit);
}
const pick = (list) => list[random(list.length)];
const used = () => process.memoryUsage().heapUsed / 1048576;

function sources(directory, found) {
  for (const entry of fs.readdirSync(directory, { withFileTypes: true })) {
    const full = path.join(directory, entry.name);
    if (entry.isDirectory()) sources(full, found);
    else if (entry.name.endsWith(".py")) found.push(full);
  }
  return found;
}

const words = new Map(), lines = new Map(), orders = [];
function index(file) {
  const text = fs.readFileSync(file, "utf8").split("\n");
  lines.set(file, text);
  text.forEach((line, number) => {
    for (const match of line.matchAll(/\w+/g)) {
      if (!words.has(match[0])) words.set(match[0], []);
      words.get(match[0]).push({ file, line: number, column: match.index });
    }
  });
}

function record(id, names) {
  const items = [];
  for (let left = 1 + random(5); left; left--)
    items.push({ sku: `${pick(names)}-${random(1000)}`, quantity: 1 + random(8),
                 price: (100 + random(20000)) / 100 });
  return { id, items, placed: `2024-${1 + random(12)}-${1 + random(28)}T08:15:00Z`,
           customer: { name: `${pick(names)} ${pick(names)}`, active: random(5) > 0,
                       email: `${pick(names).toLowerCase()}@example.org` },
           note: random(10) < 7 ? null : Array.from({ length: 12 }, () => pick(names)).join(" ") };
}

const files = sources(folder, []).sort();
for (let left = files.length; left && used() < mib / 2; left--)
  index(files.splice(random(left), 1)[0]);
const names = [...words.keys()], byCustomer = {};
while (used() < mib) {
  const batch = [];
  for (let i = 0; i < 500; i++) batch.push(record(orders.length + i, names));
  orders.push(...JSON.parse(JSON.stringify(batch)));
}
for (const order of orders) (byCustomer[order.customer.name] ||= []).push(order);
console.log("ready");
process.stdin.resume();
process.stdin.on("end", () => process.exit(orders.length && words.size ? 0 : 1));
"""

JAVA = r"""
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.*;
import java.time.LocalDateTime;
import java.util.*;
import java.util.regex.*;
import java.util.stream.*;

public class Heap {
    record Posting(String file, int line, int column) {}
    record Item(String sku, int quantity, double price) {}
    record Customer(String name, String email, boolean active) {}
    record Order(long id, Customer customer, List<Item> items, LocalDateTime placed,
                 Optional<String> note) {}

    static final Pattern WORD = Pattern.compile("\\w+");
    static final Map<String, List<Posting>> words = new HashMap<>();
    static final Map<String, List<String>> lines = new TreeMap<>();
    static final Map<String, List<Order>> byCustomer = new HashMap<>();
    static final List<Order> orders = new ArrayList<>();
    static Random random;

    static long used() {
        Runtime runtime = Runtime.getRuntime();
        return (runtime.totalMemory() - runtime.freeMemory()) >> 20;
    }

    static void index(Path path) throws IOException {
        String text = new String(Files.readAllBytes(path), StandardCharsets.ISO_8859_1);
        List<String> split = List.of(text.split("\n"));
        lines.put(path.toString(), split);
        for (int number = 0; number < split.size(); number++) {
            Matcher match = WORD.matcher(split.get(number));
            while (match.find())
                words.computeIfAbsent(match.group(), word -> new ArrayList<>())
                     .add(new Posting(path.toString(), number, match.start()));
        }
    }

    static Order order(long id, List<String> names) {
        List<Item> items = new ArrayList<>();
        for (int left = 1 + random.nextInt(5); left > 0; left--)
            items.add(new Item(pick(names) + "-" + random.nextInt(1000), 1 + random.nextInt(8),
                               (100 + random.nextInt(20000)) / 100.0));
        Customer customer = new Customer(pick(names) + " " + pick(names),
            pick(names).toLowerCase() + "@example.org", random.nextInt(5) > 0);
        Optional<String> note = random.nextInt(10) < 7 ? Optional.empty() : Optional.of(
            random.ints(12, 0, names.size()).mapToObj(names::get)
                  .collect(Collectors.joining(" ")));
        return new Order(id, customer, items,
            LocalDateTime.of(2024, 1 + random.nextInt(12), 1 + random.nextInt(28), 8, 15), note);
    }

    static String pick(List<String> names) {
        return names.get(random.nextInt(names.size()));
    }

    public static void main(String[] arguments) throws IOException {
        long mib = Long.parseLong(arguments[2]);
        random = new Random(Long.parseLong(arguments[1]));
        List<Path> files;
        try (Stream<Path> tree = Files.walk(Path.of(arguments[0]))) {
            files = tree.filter(path -> path.toString().endsWith(".py")).sorted()
                        .collect(Collectors.toCollection(ArrayList::new));
        }
        Collections.shuffle(files, random);
        for (Path path : files) {
            if (used() > mib / 2) break;
            index(path);
        }
        List<String> names = new ArrayList<>(words.keySet());
        while (used() < mib) {
            for (int i = 0; i < 500; i++) {
                Order made = order(orders.size(), names);
                orders.add(made);
                byCustomer.computeIfAbsent(made.customer().name(), name -> new ArrayList<>())
                          .add(made);
            }
        }
        System.out.println("ready");
        while (System.in.read() >= 0) {}
    }
}
"""


@dataclass(frozen=True)
class Language:
    """How a program text is run: the words before and after its file's name."""

    name: str
    program: str
    text: str
    file: str
    options: tuple[str, ...] = ()

    def command(self, folder: Path, seed: int) -> list[str]:
        (folder / self.file).write_text(self.text)
        words = [self.program, *self.options, str(folder / self.file)]
        return [*words, sysconfig.get_paths()["stdlib"], str(seed), str(HEAP_MIB)]


LANGUAGES = (
    Language("python", sys.executable, PYTHON, "heap.py"),
    Language("node", "node", NODE, "heap.js", ("--max-old-space-size=512",)),
    Language("java", "java", JAVA, "Heap.java", (f"-Xmx{3 * HEAP_MIB}m",)),
)


def corpus(path: Path, mib: int) -> Path:
    """Make sure that `path` holds a corpus of `mib` MiB, and return it.

    A file of that size is taken as it is. Raises `CorpusError`.
    """
    if not (path.is_file() and path.stat().st_size == mib << 20):
        make(path, mib)
    return path


def make(path: Path, mib: int) -> Counter[str]:
    """Write a new corpus; return how many pages of it each language gave."""
    fresh = path.with_name(path.name + ".new")
    try:
        with fresh.open("wb") as file:
            pages = _collect(file, (mib << 20) // PAGE_SIZE)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    return pages


def _collect(file: BinaryIO, wanted: int) -> Counter[str]:
    pages: Counter[str] = Counter()
    seed = 0
    while pages.total() < wanted:
        seed += 1
        before = pages.total()
        with ExitStack() as programs:
            for name, run in _take_turns(_start_all(programs, seed)):
                file.write(run.tobytes())
                pages[name] += len(run)
                if pages.total() >= wanted:
                    break
        if pages.total() == before:
            raise CorpusError("no program's memory could be had")
    return pages


# ---- running programs --------------------------------------------------------------------


def _start_all(programs: ExitStack, seed: int) -> dict[str, Iterator[Pages]]:
    """Start one program of each language. `programs` ends them."""
    sources = {}
    for language in LANGUAGES:
        try:
            pid = programs.enter_context(_running(language, seed))
        except CorpusError as error:
            print(f"corpus: {error}: going on without it", file=sys.stderr)
        else:
            sources[language.name] = _runs(pid, seed)
    return sources


@contextmanager
def _running(language: Language, seed: int) -> Iterator[int]:
    """The process id of a program that has built its heap and holds still."""
    if shutil.which(language.program) is None:
        raise CorpusError(f"{language.name} is not installed")
    with tempfile.TemporaryDirectory() as folder:
        command = language.command(Path(folder), seed)
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            _wait_until_ready(process, language.name)
            _stop(process.pid)
            yield process.pid
        finally:
            process.kill()
            process.communicate(timeout=STOP_TIMEOUT)


def _wait_until_ready(process: subprocess.Popen[bytes], name: str) -> None:
    assert process.stdout is not None
    readable, _, _ = select.select([process.stdout], [], [], READY_TIMEOUT)
    if not readable:
        raise CorpusError(f"the {name} program took more than {READY_TIMEOUT:.0f} s")
    if process.stdout.readline() != b"ready\n":
        raise CorpusError(f"the {name} program failed")


def _stop(pid: int) -> None:
    """A heap that waits for input is not at rest: collectors return memory in the background."""
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)


def _take_turns(sources: dict[str, Iterator[Pages]]) -> Iterator[tuple[str, Pages]]:
    while sources:
        for name in list(sources):
            run = next(sources[name], None)
            if run is None:
                del sources[name]
            else:
                yield name, run


# ---- their memory --------------------------------------------------------------------------


def _runs(pid: int, seed: int) -> Iterator[Pages]:
    """Runs of 64 neighbours from all over the process's anonymous memory.

    In random order of windows: a short corpus would otherwise hold the low addresses only.
    """
    windows = [window for mapping in _mappings(pid) for window in _windows(pid, *mapping)]
    random.Random(seed).shuffle(windows)
    memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        for window in windows:
            pages = _without_filled(_read(memory, window))
            for start in range(0, len(pages) - RUN_PAGES + 1, RUN_PAGES):
                yield pages[start : start + RUN_PAGES]
    finally:
        os.close(memory)


def _mappings(pid: int) -> Iterator[tuple[int, int]]:
    """First page and number of pages of each private, writable, anonymous mapping."""
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        match = ANONYMOUS.match(line)
        if match:
            first, end = (int(address, 16) // PAGE_SIZE for address in match.group(1, 2))
            yield first, end - first


def _windows(pid: int, first: int, count: int) -> Iterator[Numbers]:
    """The pages in use of a mapping, in address order, some at a time.

    The others are never read: that would make the kernel map zero pages for them.
    """
    with Path(f"/proc/{pid}/pagemap").open("rb", buffering=0) as pagemap:
        entries = np.frombuffer(os.pread(pagemap.fileno(), 8 * count, 8 * first), np.uint64)
    used = first + np.flatnonzero(entries & IN_USE).astype(np.int64)
    for start in range(0, len(used), WINDOW_PAGES):
        yield used[start : start + WINDOW_PAGES]


def _read(memory: int, numbers: Numbers) -> Pages:
    gaps = np.flatnonzero(np.diff(numbers) != 1) + 1
    pieces = [
        os.pread(memory, PAGE_SIZE * len(piece), PAGE_SIZE * int(piece[0]))
        for piece in np.split(numbers, gaps)
    ]
    return np.frombuffer(b"".join(pieces), np.uint64).reshape(-1, PAGE_SIZE // 8)


def _without_filled(pages: Pages) -> Pages:
    """Drop the pages that repeat one word."""
    varied: Pages = pages[(pages != pages[:, :1]).any(axis=1)]
    return varied


def main() -> int:
    parser = argparse.ArgumentParser(description="Copy the memory of real programs to a file.")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    parser.add_argument("--mib", type=int, default=256, metavar="N", help="size (256)")
    arguments = parser.parse_args()
    try:
        pages = make(arguments.out, arguments.mib)
    except (CorpusError, OSError) as error:
        print(f"corpus: {error}", file=sys.stderr)
        return 2
    for name, count in pages.items():
        print(f"{name}: {count} pages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
