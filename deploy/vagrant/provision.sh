#!/bin/sh
# Makes a host out of a new machine: the package, the certificate authority, README.md's first configuration.
set -eu

given=/tmp/sheath
missing() {
    echo "missing: $1; make it with: $2; then: vagrant provision" >&2
    exit 1
}
package=$(find "$given/package" -name "sheath_*_$(dpkg --print-architecture).deb" 2>/dev/null | sort -V | tail -n 1)
[ -n "$package" ] || missing "the package" "cargo xtask package"
[ -d "$given/ca" ] || missing "the certificate authority" \
    "target/release/sheath ca init --dir deploy/vagrant/ca --trust-domain example.org"

# A box without a network has these already.
install_missing() {
    for name in "$@"; do
        dpkg --status "$name" >/dev/null 2>&1 && continue
        apt-get -qq update
        DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends "$@"
        return
    done
}

# As the package makes it.
install --directory --mode=0700 /etc/sheath /var/lib/sheath
rm -rf /var/lib/sheath/ca
cp -r "$given/ca" /var/lib/sheath/ca
chown -R root:root /var/lib/sheath
chmod -R go= /var/lib/sheath
case $1 in
host-b)
    install_missing nginx-light
    cat >/etc/nginx/sites-available/default <<'END'
server {
    listen 8080;
    location / { default_type text/plain; return 200 "hello, $remote_addr:$remote_port\n"; }
}
END
    cat >/etc/sheath/sheath.yaml <<'END'
trustDomain: example.org
node: host-b
identity: { ca: { dir: /var/lib/sheath/ca } }
workloads:
  - name: web
    select: { systemdUnit: nginx.service }
    spiffeId: spiffe://example.org/web
    inbound: { mode: strict, ports: [8080], allow: ["spiffe://example.org/client"] }
END
    ;;
host-a)
    install_missing curl
    cat >/etc/systemd/system/client.service <<'END'
[Unit]
Description=Calls the web
After=sheath.service network-online.target

[Service]
ExecStart=/bin/sh -c 'while :; do curl --silent --show-error --max-time 5 http://10.0.2.1:8080/; sleep 2; done'
Restart=always

[Install]
WantedBy=multi-user.target
END
    cat >/etc/sheath/sheath.yaml <<'END'
trustDomain: example.org
node: host-a
identity: { ca: { dir: /var/lib/sheath/ca } }
workloads:
  - name: client
    select: { systemdUnit: client.service }
    spiffeId: spiffe://example.org/client
    outbound: { mode: prefer }
peers:
  - match: ["10.0.2.1/32:8080"]
    spiffeIds: ["spiffe://example.org/web"]
END
    ;;
esac
DEBIAN_FRONTEND=noninteractive dpkg --install --force-confold "$package"
# The authority's key among it.
rm -rf "$given"
systemctl daemon-reload
systemctl enable sheath
systemctl restart sheath
case $1 in
host-b) systemctl enable nginx && systemctl restart nginx ;;
host-a) systemctl enable --now client ;;
esac
sheath status
