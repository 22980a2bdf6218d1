#!/bin/bash
# npm run demo: sets up what is missing, then shows vmcorral at work on a real guest; see demo.mjs.
# `npm run demo -- --keep` keeps the dumps.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[ "$(id -u)" = 0 ] || { echo "demo: needs root: it starts a libvirtd of its own in a mount namespace" >&2; exit 1; }
bash scripts/setup.sh --run
node node_modules/typescript/bin/tsc -p test/lab/harness/tsconfig.json
exec node scripts/demo.mjs "$@"
