// node scripts/test-totals.mjs REPORT: prints "N passed, N failed" from vitest's JSON report, as the last line of npm test.
// A file that broke outside its tests (in a hook, at import) counts as one failure, and so does a run without any test.
// Tests that did not run fail the run too (exit code 1).
import { readFileSync } from 'node:fs';

let report = { numPassedTests: 0, numFailedTests: 0, numPendingTests: 0, numTodoTests: 0, testResults: [] };
try {
  report = JSON.parse(readFileSync(process.argv[2], 'utf8'));
} catch (error) {
  console.log(`no report of the tests: ${error.message}`);
}
const broken = report.testResults.filter(
  (file) => file.status === 'failed' && !file.assertionResults.some((result) => result.status === 'failed'),
);
for (const file of broken) console.log(`broken outside its tests: ${file.name}: ${file.message.split('\n')[0]}`);
const notRun = report.numPendingTests + report.numTodoTests;
if (notRun > 0) console.log(`${notRun} not run`);
const nothing = report.numPassedTests + report.numFailedTests + broken.length === 0;
const failed = report.numFailedTests + broken.length + (nothing ? 1 : 0);
console.log(`${report.numPassedTests} passed, ${failed} failed`);
process.exitCode = failed > 0 || notRun > 0 ? 1 : 0;
