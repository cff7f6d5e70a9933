#!/bin/sh
# Shows it all in half a minute: a private Redis, three containers on the local engine, the README's own redis-cli session with
# what it answers now, and a handler that fires. Whatever happens, everything made here is removed again.
cd "$(dirname "$0")/../.."
. packaging/make/lib.sh

# The README's host, so that its lines work as they stand.
host=ubuntu
label=docker-cache-demo=$$
image=docker-cache-demo:$$
dir=$(mktemp -d)
agent='' listener='' have='' id=''

clean_up() {
    trap '' INT TERM HUP
    # Containers first: the agent is still there to see them go.
    if [ -n "$have" ]; then
        docker ps -aq --filter "label=$label" | xargs -r docker rm -f >/dev/null
        docker rmi -f "$image" >/dev/null 2>&1 || true
    fi
    for process in $listener $agent; do
        kill "$process" 2>/dev/null || true
        wait "$process" 2>/dev/null || true
    done
    rm -rf "$dir"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# The whole image is one static program that waits and ends with code 3, so nothing has to be pulled.
make_image() {
    mkdir "$dir/root"
    rustc -O -C target-feature=+crt-static --crate-name wait -o "$dir/root/wait" - <<'RUST'
fn main() {
    let seconds = std::env::args().nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    std::thread::sleep(std::time::Duration::from_secs(seconds));
    std::process::exit(3);
}
RUST
    tar -C "$dir/root" -c . | setsid docker import - "$image" >/dev/null
}

# start NAME SECONDS; in a session of its own: Ctrl-C must not end `docker` with a container half made.
start() { setsid docker run -d --name "docker-cache-demo-$$-$1" --label "$label" "$image" /wait "$2" >/dev/null; }

reported() {
    count=$(cli scard "docker:hosts:$host:containers")
    [ "${count:-0}" -ge "$1" ]
}

cli() { "$redis_cli" -p "$port" "$@" 2>/dev/null; }

listening() { cli pubsub numsub docker_events | grep -q '^1$'; }

noticed() { grep -q new_container "$dir/notices"; }

handled() { [ -e "$dir/handled" ] && [ "$(wc -l <"$dir/handled")" -ge "$1" ]; }

# Runs one line of the README's session, with the id of a container that runs now.
play() {
    line=$(printf '%s\n' "$1" | sed -E "s/[0-9a-f]{64}/${id:-$(cli srandmember "docker:hosts:$host:containers")}/g")
    printf '\n$ %s\n' "$line"
    case $line in
    *subscribe*)
        # It answers until it is stopped: it gets something to tell, and is stopped once it did.
        sh -c "exec $line" >"$dir/notices" </dev/null &
        listener=$!
        wait_for 10 listening || fail "failed to subscribe: see the line above"
        [ -z "$have" ] || start 4 600
        wait_for 20 noticed || fail "failed to see a notice: none came within 20 s"
        kill "$listener"
        sed '/new_container/q' "$dir/notices"
        ;;
    # A whole inspect would fill the screen.
    *) sh -c "$line" </dev/null | sed -E 's/^(.{400}).+/\1…/' ;;
    esac
}

need_cargo
cargo build --release --locked
need redis-cli redis-tools
redis_cli=$(command -v redis-cli)
private_redis

# The README's `redis-cli` is to ask the private Redis, and to answer as it does at a terminal.
mkdir "$dir/bin"
printf '#!/bin/sh\nexec %s --no-raw -p %s "$@"\n' "$redis_cli" "$port" >"$dir/bin/redis-cli"
chmod +x "$dir/bin/redis-cli"

if have_engine && has docker && docker version >/dev/null 2>&1; then
    have=yes
    make_image
else
    say "No Docker engine here: playing a fake one, whose containers come and go."
    fake_engine
fi

cat >"$dir/events.yml" <<YAML
events:
  - name: demo
    type: die
    command: echo "\$FROM_CONTAINER ended with \$EVENT_EXIT_CODE" | tee -a $dir/handled
YAML
say "
docker-cache -id $host -docker $engine -cache redis://127.0.0.1:$port events.yml"
child "$dir/log" target/release/docker-cache -id $host -docker "$engine" -cache "redis://127.0.0.1:$port" "$dir/events.yml"
agent=$!

if [ -n "$have" ]; then
    for name in 1 2 3; do start $name 600; done
    id=$(docker ps -q --no-trunc --filter "name=docker-cache-demo-$$-1")
fi
wait_for 20 reported 3 || fail "failed to see three containers in Redis within 20 s:
$(cat "$dir/log")"

PATH=$dir/bin:$PATH
grep '^\$ redis-cli ' README.md >"$dir/session"
while IFS= read -r line <&3; do play "${line#\$ }"; done 3<"$dir/session"
PATH=${PATH#*:}

deaths=1
if [ -n "$have" ]; then
    deaths=5
    say "
One container ends by itself, the others are stopped."
    start 5 1
    docker ps -q --filter "label=$label" --filter "name=-[1-4]$" | xargs -r docker stop -t 1 >/dev/null
fi
wait_for 20 handled $deaths || fail "failed to see the handler fire within 20 s:
$(cat "$dir/log")"
say "
What the handler of \`type: die\` was told:"
cat "$dir/handled"
say "
What the agent logged (and a line \`Uncaught event: …\` for each of $(grep -c 'Uncaught event' "$dir/log") events that no entry has a \`type\` for):"
grep -v 'Uncaught event' "$dir/log"
