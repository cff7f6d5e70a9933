# What the other scripts here share: messages, and seeing to what a machine lacks. To be sourced from the top folder.
# shellcheck shell=sh

set -eu

# A fresh rustup is in nobody's PATH until the next log-in.
[ -d "${HOME:-}/.cargo/bin" ] && PATH="$PATH:$HOME/.cargo/bin"

say() { printf '%s\n' "$*" >&2; }

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

has() { command -v "$1" >/dev/null 2>&1; }

can_install() { [ "$(id -u)" = 0 ] && has apt-get; }

# Installs Debian packages, quietly; what apt said is shown when it fails. Nothing that is installed is taken away for it.
apt_install() {
    say "installing $* (apt)"
    for apt_step in update "install --no-remove $*"; do
        # The words of a step are meant to be split.
        # shellcheck disable=SC2086
        if ! apt_said=$(DEBIAN_FRONTEND=noninteractive apt-get -qy -o DPkg::Lock::Timeout=120 $apt_step 2>&1); then
            say "$apt_said"
            return 1
        fi
    done
}

# offer PROGRAM PACKAGE …: sees to a program by Debian packages, where that is possible.
offer() {
    offered=$1
    shift
    has "$offered" && return
    if can_install; then apt_install "$@" || true; fi
    has "$offered"
}

# need PROGRAM PACKAGE: the same for what nothing goes on without.
need() {
    offer "$1" "$2" || fail "failed to find \`$1\`: install it (on Debian and Ubuntu: \`sudo apt-get install $2\`)"
}

# True when `cargo` is there and as new as Cargo.toml asks.
cargo_will_do() {
    cargo_wanted=$(sed -n 's/^rust-version = "1\.\([0-9]*\).*/\1/p' Cargo.toml)
    cargo_found=$(cargo --version 2>/dev/null | sed -n 's/^cargo 1\.\([0-9]*\).*/\1/p')
    [ "${cargo_found:-0}" -ge "$cargo_wanted" ]
}

need_cargo() {
    cargo_will_do && return
    if can_install && apt_install rustc-web cargo-web; then hash -r; fi
    cargo_will_do || fail "failed to find a cargo of 1.$cargo_wanted or later: install one with" \
        "\`curl --proto =https --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y\` and start again"
}

# The formatter and the linter, which are packages of their own.
need_lints() {
    need_cargo
    cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 && return
    if has rustup && rustup component add rustfmt clippy; then return; fi
    if can_install && apt_install rustfmt-web rust-web-clippy; then return; fi
    fail "failed to find rustfmt and clippy: install them (\`rustup component add rustfmt clippy\`)"
}

# child LOG PROGRAM ARGUMENT …: starts a program in the background that Ctrl-C does not reach and that ends with this script,
# however that ends and whatever it becomes by `exec`.
child() {
    has setpriv || fail "failed to find \`setpriv\`: install util-linux"
    child_log=$1
    shift
    setsid setpriv --pdeathsig TERM "$@" </dev/null >"$child_log" 2>&1 &
}

# wait_for SECONDS COMMAND …: until the command succeeds.
wait_for() {
    wait_tenths=$((${1} * 10))
    shift
    until "$@"; do
        wait_tenths=$((wait_tenths - 1))
        [ $wait_tenths -gt 0 ] || return 1
        sleep 0.1
    done
}

# redis_says PORT COMMAND START: true when the Redis there answers with a line that begins so. Needs no redis-cli.
redis_says() {
    # The inner shell is to expand its own words.
    # shellcheck disable=SC2016
    timeout 2 bash -c 'exec 3<>"/dev/tcp/localhost/$0" && printf "%s\r\nQUIT\r\n" "$1" >&3 && cat <&3' "$1" "$2" 2>/dev/null |
        grep -q "^$3"
}

# Starts a Redis of our own, empty and volatile, on the first port from 6380 on that is free; sets `port` and `redis`, its process.
private_redis() {
    need redis-server redis-server
    port=6380
    while [ $port -lt 6480 ]; do
        child /dev/null redis-server --bind 127.0.0.1 --port $port --save '' --appendonly no --dir "${TMPDIR:-/tmp}"
        redis=$!
        # Somebody else's Redis may have that port: it is ours only if it says so.
        wait_for 10 redis_settled && redis_is_ours && return
        port=$((port + 1))
    done
    fail "failed to start \`redis-server\`: no port of 6380 to 6479 would do"
}

redis_is_ours() { redis_says "$port" 'INFO server' "process_id:$redis"; }

# True once our Redis answers, or is gone because its port was taken.
redis_settled() { redis_is_ours || ! kill -0 "$redis" 2>/dev/null; }

# The engine that `docker` would talk to.
engine_url() {
    engine=${DOCKER_HOST:-}
    [ -n "$engine" ] || engine=$(docker context inspect --format '{{.Endpoints.docker.Host}}' 2>/dev/null) || engine=
    engine=${engine:-unix:///var/run/docker.sock}
}

# Says whether there is a Docker engine to watch, and sets `engine`. One that refuses us is an error, never replaced.
have_engine() {
    engine_url
    case $engine in
    unix://*) ;;
    *) return 0 ;;
    esac
    socket=${engine#unix://}
    if [ -S "$socket" ]; then
        [ -w "$socket" ] || fail "failed to open \`$socket\`: permission denied; become a member of its group with" \
            "\`sudo usermod -aG $(stat -c %G "$socket") $(id -un)\` and log in again"
        return 0
    fi
    # Installed but not running, or asked for by name: the agent waits for it.
    [ -n "${DOCKER_HOST:-}" ] || has dockerd || [ -x /usr/sbin/dockerd ]
}

# Starts the engine of our own making, whose containers come and go, and sets `engine`.
fake_engine() {
    cargo build --release --locked --example fake-engine
    socket=${TMPDIR:-/tmp}/docker-cache-fake-$(id -u).sock
    rm -f "$socket"
    child /dev/null target/release/examples/fake-engine --listen "unix://$socket" --churn --containers 3
    wait_for 10 test -S "$socket" || fail "failed to start \`target/release/examples/fake-engine\`"
    engine=unix://$socket
}
