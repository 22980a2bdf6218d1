#!/bin/bash
# npm test: sets up what is missing, builds, checks, and runs all tests, those on real guests included.
# Words after `npm test --` go to vitest (`npm test -- test/lab/lab.test.ts`). Daily work: npm run test:fast.
# The last line is for machines: "N passed, N failed".
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh --lab
lab=${VMCORRAL_LAB_DIR:-.lab}; report=$lab/vitest.json; mkdir -p "$lab"; rm -f "$report"
failed=()
step() { local name=$1; shift; "$@" || failed+=("$name"); }
step lint npm run --silent lint
step 'types of the tests' npm run --silent typecheck:test
step tests ./node_modules/.bin/vitest run --project fast --project lab --reporter=default --reporter=json \
  --outputFile.json="$report" "$@"
[ ${#failed[@]} = 0 ] || printf 'failed: %s\n' "${failed[@]}"
step totals node scripts/test-totals.mjs "$report"
exit $((${#failed[@]} > 0))
