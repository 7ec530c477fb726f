#!/usr/bin/env bash
# The runtime's tests in a network namespace that has no interface but loopback: nothing can be reached, by anything.
# Skipped, and said so, where nobody may make one. PYTEST_ARGUMENTS: what to run instead of all.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON_OF_TESTS:-.venv/bin/python}
space=(unshare --net)
"${space[@]}" true 2>/dev/null || space=(unshare --net --user --map-root-user)
if ! "${space[@]}" true 2>/dev/null; then
  echo "hunt-network: skipped: no right to make a network namespace (unshare --net)"
  exit 0
fi
echo "hunt-network: in a network namespace of its own"
exec "${space[@]}" bash -c '
  ip link set lo up || exit 1
  if timeout 3 bash -c "exec 3<>/dev/tcp/192.0.2.1/80" 2>/dev/null; then echo "hunt-network: the network is there" >&2; exit 1; fi
  exec "$@"' hunt-network "$python" -m pytest --without-torch ${PYTEST_ARGUMENTS:-tests}
