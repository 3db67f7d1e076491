#!/bin/sh
# Installs Debian's Prometheus, promtool and Alertmanager for the tests of monitoring/, and starts none of their services.
# Costs nothing when they are there. Ends with 3 where it cannot: it takes apt-get, and root or a sudo that does not ask.
set -eu

for program in prometheus promtool prometheus-alertmanager amtool; do
    command -v $program >/dev/null || missing=yes
done
[ "${missing:-no}" = yes ] || exit 0

as_root=""
if [ "$(id -u)" != 0 ]; then
    as_root="sudo -n"
fi
if ! command -v apt-get >/dev/null || ! $as_root true 2>/dev/null; then
    echo "Prometheus is not installed, and cannot be here: that takes Debian's apt-get and root." >&2
    exit 3
fi

install() {
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        prometheus prometheus-alertmanager >/dev/null
}

# Packages ask this program whether to start their service; 101 is no.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    trap '$as_root rm -f $policy' EXIT
    printf '#!/bin/sh\nexit 101\n' | $as_root tee $policy >/dev/null
    $as_root chmod 755 $policy
fi
install 2>/dev/null || {
    $as_root apt-get update -qq
    install
}
