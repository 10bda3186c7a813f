#!/usr/bin/env bash
# Run vswap from its source tree: install what is missing, then do what was asked.
#
#   sudo ./vswap.sh up          a swap device, ready to use
#   sudo ./vswap.sh test        every check and test (further words go to pytest)
#   sudo ./vswap.sh bench       measure it (further words: a benchmark's name, its options)
#   ./vswap.sh COMMAND ...      any other vswap command
#
# The environment is made in .venv (or $VSWAP_VENV) and made anew when the pinned packages
# change. All that this script says goes to stderr: stdout is the command's.
set -euo pipefail

here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
venv=${VSWAP_VENV:-$here/.venv}
run_packages=(python3 python3-dev python3-venv gcc libc6-dev pkg-config libfuse3-dev fuse3 util-linux mount)
test_packages=(chromium fio procps prometheus qemu-system-x86 mandoc mmdebstrap kmod cpio e2fsprogs tmux)
bench_packages=(nbdkit libnbd-bin)

say() { printf 'vswap.sh: %s\n' "$*" >&2; }
die() { say "$*"; exit 2; }

# Debian packages of "$@" that are not installed.
missing_packages() {
    local package
    for package in "$@"; do
        [[ $(dpkg-query -W -f '${Status}' "$package" 2>/dev/null) == *" installed" ]] || echo "$package"
    done
}

install_packages() {
    local missing
    if ! command -v dpkg-query >/dev/null; then
        return 0 # another distribution: what is missing shows when it is used
    fi
    mapfile -t missing < <(missing_packages "$@")
    [[ ${#missing[@]} -gt 0 ]] || return 0
    [[ $EUID -eq 0 ]] || die "these packages are missing: ${missing[*]}; run once with sudo to install them"
    say "installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >&2 ||
        die "apt-get could not install: ${missing[*]}"
    # Debian starts it at once, and listens to everybody; the tests start one of their own.
    if [[ " ${missing[*]} " == *" prometheus "* && -d /run/systemd/system ]]; then
        systemctl disable --quiet --now prometheus >&2 || say "prometheus was started and cannot be stopped"
    fi
}

# Make the environment hold "$@" (names of files in requirements/) and this project.
install_environment() {
    local python=${PYTHON:-} wanted name files=()
    wanted="$(cd "$here" && cat pyproject.toml requirements/*.txt | sha256sum) $here"
    for name in "$@"; do
        [[ $(cat "$venv/.installed-$name" 2>/dev/null) == "$wanted" ]] || files+=(-r "$here/requirements/$name.txt")
    done
    [[ ${#files[@]} -gt 0 ]] || return 0
    # The system's own, which every user can run, before one that a user has installed.
    [[ -n $python ]] || python=$(PATH=/usr/bin:$PATH command -v python3) || die "python3 is missing"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        die "Python 3.11 or newer is needed; set PYTHON to one"
    mkdir -p "$venv" 2>/dev/null || true
    [[ -w $venv ]] || die "$venv cannot be written; run once with sudo, or set VSWAP_VENV"
    say "installing Python packages into $venv (a minute or two)"
    "$python" -m venv "$venv"
    local pip=("$venv/bin/python" -m pip --quiet --disable-pip-version-check install)
    { "${pip[@]}" --require-hashes -r "$here/requirements/build.txt" &&
        "${pip[@]}" --require-hashes --no-build-isolation "${files[@]}" &&
        "${pip[@]}" --no-deps --no-build-isolation --editable "$here"; } >&2 ||
        die "pip could not install the pinned packages (its reason stands above); is PyPI reachable?"
    for name in "$@"; do echo "$wanted" >"$venv/.installed-$name"; done
}

# One at a time: two first runs at once would build into each other's environment.
with_lock() {
    local lock=$venv.lock
    if { exec 9>"$lock"; } 2>/dev/null; then
        flock 9
        "$@" 9>&-
        exec 9>&-
    else
        "$@"
    fi
}

run_tests() {
    cd "$here"
    local bin=$venv/bin
    say "ruff"
    "$bin/ruff" check .
    "$bin/ruff" format --check .
    if (($#)); then
        say "mypy --strict"
        "$bin/mypy"
        say "pytest"
        "$bin/python" -m pytest "$@"
    else
        say "mypy --strict, pytest"
        run_all "$bin/python"
    fi
}

# Two lanes, each of them virtual machines first, which take longest, and then what kills and times
# real devices; and beside them, with what is left of the processors, mypy and all the rest.
run_all() {
    local guests=(tests/qemu/test_pressure.py tests/qemu/test_beside_zram.py) real=(tests/benchmarks tests/swap)
    local rest="tests --ignore=tests/qemu --ignore=tests/mount ${real[*]/#/--ignore=}"
    python=$1 lanes=() outputs=() failed=0
    trap stop_lanes EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    start_lane 0 "pytest ${guests[*]}" "pytest tests/mount"
    start_lane 0 "pytest tests/qemu ${guests[*]/#/--ignore=}" "pytest ${real[*]}"
    start_lane 19 mypy "pytest $rest"
    end_lanes
    return "$failed"
}

# Run what each of the other words says, a module of Python and its arguments, niced by $1, in the
# background and where a terminal's Ctrl-C does not reach it: `stop_lanes` does. What it says is for later.
start_lane() {
    local output
    output=$(mktemp)
    outputs+=("$output")
    setsid nice -n "$1" bash -c '
        failed=0
        for command in "${@:2}"; do
            "$1" -m $command || failed=$?
            ((failed != 2)) || break # interrupted
        done
        exit "$failed"' lane "$python" "${@:2}" </dev/null >"$output" 2>&1 &
    lanes+=($!)
}

# Wait for all lanes, the last one first, and show what they have said.
end_lanes() {
    local lane
    for ((lane = ${#lanes[@]} - 1; lane >= 0; lane--)); do
        wait "${lanes[lane]}" || failed=1
        cat "${outputs[lane]}"
    done
    rm -f "${outputs[@]}"
    lanes=() outputs=()
}

# They clean up, for there are devices, and swap on them.
stop_lanes() {
    [[ ${#lanes[@]} -gt 0 ]] || return 0
    kill -INT "${lanes[@]/#/-}" 2>/dev/null || true
    wait "${lanes[@]}" 2>/dev/null || true
    cat "${outputs[@]}"
    rm -f "${outputs[@]}"
}

case ${1:-} in
test)
    shift
    install_packages "${run_packages[@]}" "${test_packages[@]}"
    with_lock install_environment test bench run # the checks read the plots' code too
    run_tests "$@"
    ;;
bench)
    shift
    install_packages "${run_packages[@]}" "${test_packages[@]}" "${bench_packages[@]}"
    with_lock install_environment bench run
    cd "$here" && exec "$venv/bin/python" -m bench "$@"
    ;;
*)
    install_packages "${run_packages[@]}"
    with_lock install_environment run
    exec "$venv/bin/vswap" "$@"
    ;;
esac
