# Two nodes in one machine, each a network namespace and a cgroup, with a wire between them and an agent on each. A client on
# host-a calls a web server on host-b. Run by busybox; the first thing that is not as expected ends it.

export NO_COLOR=1

say() { echo "sheath-arm64: $*"; }

fail() {
    say "not seen: $*"
    local node
    for node in a b; do
        echo "--- host-$node"
        sheath status --config /run/$node.yaml
        tail -n 20 /run/$node.log
    done
    echo "--- kernel"
    dmesg | tail -n 20
    exit 1
}

# What something is called, and the command that must succeed.
expect() {
    local what=$1
    shift
    "$@" || fail "$what"
    say "$what"
}

# The same of what takes an emulated processor a while.
eventually() {
    local what=$1 tries=0
    shift
    until "$@"; do
        tries=$((tries + 1))
        [ $tries -lt 150 ] || fail "$what"
        sleep 1
    done
    say "$what"
}

refused() { ! "$@"; }

# Runs a command on a node, in one of its cgroups.
place() {
    local node=$1 cgroup=/sys/fs/cgroup/$1/$2
    shift 2
    mkdir -p $cgroup
    nsenter -n/run/netns/$node sh -c 'echo 0 >"$0/cgroup.procs" && exec "$@"' $cgroup "$@"
}

mkdir -p /run /www
mount -t tmpfs tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t tracefs tracefs /sys/kernel/tracing

pages=$(awk '/^KernelPageSize/ { print $2 " KiB"; exit }' /proc/self/smaps)
say "kernel $(uname -r) on $(uname -m) with pages of $pages, $(sheath --version)"

mkdir /run/netns
for node in a b; do
    touch /run/netns/$node
    unshare -n sh -c "mount --bind /proc/self/ns/net /run/netns/$node"
done
place b agent sh -c 'echo $$ >/run/pid && exec sleep 1000000' &
until [ -s /run/pid ]; do usleep 100000; done
place a agent ip link add wire type veth
# The other end, which the kernel names.
place a agent ip link set veth0 netns $(cat /run/pid)
place b agent ip link set veth0 name wire
number=1
for node in a b; do
    place $node agent sh -ec "
        echo 0 >/proc/sys/net/ipv6/conf/wire/accept_dad
        ip link set lo up
        ip addr add 10.0.$number.1/16 dev wire
        ip addr add fd00::$number:1/64 dev wire
        ip link set wire up" || fail "a network on host-$node"
    number=$((number + 1))
done

expect "a certificate authority is made" sheath ca init --dir /run/ca-a --trust-domain example.org
cp -a /run/ca-a /run/ca-b
for node in a b; do
    cat >/run/$node.yaml <<END
trustDomain: example.org
node: host-$node
instance: $node
runDir: /run/sheath-$node
identity: { ca: { dir: /run/ca-$node } }
capture: { cgroup: /$node }
log: { format: json }
END
done
cat >>/run/a.yaml <<END
workloads:
  - name: client
    select: { cgroup: /a/client }
    spiffeId: spiffe://example.org/client
    outbound: { mode: require }
peers:
  - match: ["10.0.2.1/32:8080", "[fd00::2:1/128]:8080"]
    spiffeIds: ["spiffe://example.org/web"]
END
cat >>/run/b.yaml <<END
workloads:
  - name: web
    select: { cgroup: /b/web }
    spiffeId: spiffe://example.org/web
    inbound: { mode: strict, ports: [8080], allow: ["spiffe://example.org/client"] }
END

echo hello >/www/hello
dd if=/dev/urandom of=/www/large bs=64k count=64 2>/dev/null
place b web httpd -f -p 8080 -h /www &
place a client sleep 1000000 &

get() { place "$1" "$2" timeout 60 wget -q -O /run/got "http://$3:8080/$4" && cmp -s "/www/$4" /run/got; }
start() {
    for node in a b; do
        place $node agent sheath run --config /run/$node.yaml 2>>/run/$node.log &
    done
}
is_protected() { sheath status --config /run/$1.yaml 2>/dev/null | grep -q "^$2 *protected"; }
# What stands in its access log, in whatever order.
tells_of_mtls() {
    grep '"direction":"inbound"' /run/b.log | grep '"peer_id":"spiffe://example.org/client"' |
        grep '"protection":"mtls"' | grep '"tls_version":"TLSv1.3"' | grep '"outcome":"ok"' | tail -n 1 | grep .
}
in_force() { sheath status --config /run/$1.yaml | grep -q '^programs \([0-9]*\) of \1 observed in force$'; }

eventually "without Sheath, the server is reached" get a stranger 10.0.2.1 hello
for node in a b; do
    expect "sheath check has no errors on host-$node" place $node agent sheath check --config /run/$node.yaml
done
start
eventually "the client is protected" is_protected a client
eventually "the server is protected" is_protected b web
for node in a b; do
    expect "all programs are in force on host-$node" in_force $node
    sheath status --config /run/$node.yaml | head -n 6
done

expect "the client is served by IPv4" get a client 10.0.2.1 hello
expect "the client is served by IPv6" get a client '[fd00::2:1]' hello
expect "4 MiB arrive as they were sent" get a client 10.0.2.1 large
eventually "the server's agent tells of mutual TLS 1.3 with the client" tells_of_mtls
expect "a stranger is refused" refused get a stranger 10.0.2.1 hello

killall -9 sheath
expect "without an agent, the client is refused" refused get a client 10.0.2.1 hello
expect "without an agent, a stranger is refused" refused get a stranger 10.0.2.1 hello
start
eventually "agents start again, and the client is protected" is_protected a client
eventually "the server is protected again" is_protected b web
expect "the client is served again" get a client 10.0.2.1 large

say "everything was seen"
