#!/bin/bash
# Does what deploy/vagrant/Vagrantfile says, in the system that `enter` enters, and looks at the hosts and at the wire between
# them. The clone is in /given.
set -euo pipefail
# The first process of a namespace ends by no signal that it does not expect.
trap 'exit 1' INT TERM
step() { printf '==> %s (%s s)\n' "$*" "$SECONDS"; }
fail() {
    printf 'error: %s\n' "$*" >&2
    for host in host-a host-b; do
        printf -- '--- %s\n' "$host" >&2
        on "$host" 'sudo journalctl --no-pager --lines 40; sudo sheath status' >&2 || true
    done
    exit 1
}
# Without the bars that Vagrant draws.
quietly() { "$@" 2>&1 | sed -u 's/\x1b\[K//g; s/.*\r//; /^$/d'; }
on() { vagrant ssh "$1" --command "$2" 2>/dev/null; }

clone=/root/clone
mkdir -p "$clone/deploy" "$clone/target/package"
cp -r /given/deploy/vagrant "$clone/deploy/vagrant"
rm -rf "$clone/deploy/vagrant/ca"
package=$(find /given/target/package -name 'sheath_*_amd64.deb' | sort --version-sort | tail -n 1)
cp "$package" "$clone/target/package/"
dpkg-deb --extract "$package" /root/package
/root/package/usr/bin/sheath ca init --dir "$clone/deploy/vagrant/ca" --trust-domain example.org
cd "$clone/deploy/vagrant"
export SHEATH_BOX=sheath SHEATH_LIBVIRT_DRIVER=qemu VAGRANT_DEFAULT_PROVIDER=libvirt

step "vagrant box add"
quietly vagrant box add --name sheath /given/target/vagrant/sheath.box
step "vagrant up"
quietly vagrant up

step "the client's unit is answered"
for try in $(seq 60); do
    answers=$(on host-a 'sudo journalctl --no-pager --output cat --unit client --lines 20' || true)
    grep -q '^hello, 10.0.1.1:' <<<"$answers" && break
    [ "$try" -lt 60 ] || fail "no answer: $answers"
    sleep 5
done
tail -n 2 <<<"$answers"

step "what is on the wire"
bridge=$(ip -brief -4 address | awk '$3 ~ /^10\.0\.0\.1\// { print $1 }')
timeout --preserve-status 30 tcpdump -q -Z root -i "$bridge" -U -w /root/wire tcp port 8080 2>/dev/null || true
packets=$(tcpdump -r /root/wire 2>/dev/null | wc -l)
[ "$packets" -ge 10 ] || fail "$packets packets in 30 s"
! grep -aq 'GET /\|hello, ' /root/wire || fail "plaintext on the wire"
printf '%s packets, none with a request or an answer\n' "$packets"

step "a stranger"
# The answer is what would be wrong.
if answer=$(on stranger 'curl --silent --show-error --max-time 20 http://10.0.2.1:8080/ 2>&1'); then
    fail "a stranger is answered: $answer"
fi
printf '%s\n' "$answer"
on host-b 'sudo sheath status'

step "vagrant destroy"
quietly vagrant destroy --force
step "done"
