#!/usr/bin/env bash
# Usage: fresh-machine.sh FOLDER [SUITE [MIRROR]]. The README's two commands in a bare Debian (default: bookworm) that
# debootstrap makes in FOLDER, so that an install step that is missing shows. By hand, as root; 3 GB of disk, no cache.
# A local clone of this checkout's HEAD stands for the published repository. FOLDER is left: look, then remove it.
# Where a proxy signs the network's certificates, SSL_CERT_FILE names the host's file, which is copied in.
set -euo pipefail
cd "$(dirname "$0")/.."
root=${1:?usage: fresh-machine.sh FOLDER [SUITE [MIRROR]]} suite=${2:-bookworm} mirror=${3:-http://deb.debian.org/debian}
[ "$(id -u)" -eq 0 ] || { echo "fresh-machine: needs root (chroot, mount)" >&2; exit 2; }
command -v debootstrap >/dev/null || { echo "fresh-machine: apt-get install debootstrap" >&2; exit 2; }
[ ! -e "$root" ] || { echo "fresh-machine: $root is there already: remove it, or name another folder" >&2; exit 2; }
started=$SECONDS
debootstrap --variant=minbase "$suite" "$root" "$mirror" >/dev/null
root=$(cd "$root" && pwd)
cp /etc/resolv.conf "$root/etc/resolv.conf"
mount --bind /proc "$root/proc"
mount --bind /dev "$root/dev"
trap 'umount "$root/dev" "$root/proc"' EXIT
git clone --quiet --bare . "$root/srv/auricle.git"
inside() { # COMMAND, as a new user would type it; nothing of this machine's environment but PATH
  chroot "$root" /usr/bin/env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    LC_ALL=C.UTF-8 ${SSL_CERT_FILE:+PIP_CERT=/host-certificates.pem SSL_CERT_FILE=/host-certificates.pem} bash -ec "$1"
}
[ -z "${SSL_CERT_FILE:-}" ] || cp "$SSL_CERT_FILE" "$root/host-certificates.pem"
echo "A bare $suite: $((SECONDS - started)) s"
started=$SECONDS
inside "apt-get update -qq && apt-get install -y -qq --no-install-recommends git make ca-certificates >/dev/null 2>&1"
echo "git and make, which the README takes for granted: $((SECONDS - started)) s"
started=$SECONDS
inside "cd /root && git -c safe.directory='*' clone --quiet /srv/auricle.git"
inside "cd /root/auricle && make demo"
echo "fresh-machine: from clone to the demo's last answer $((SECONDS - started)) s, on $(nproc) cores"
