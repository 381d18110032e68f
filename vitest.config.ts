import { defineConfig } from 'vitest/config';
import type { Reporter } from 'vitest/node';

/** The last line of a run, for people and for programs that count. */
const closingLine: Reporter = {
  onTestRunEnd: (modules, errors) => {
    const tests = modules.map((module) => [...module.children.allTests()].map((one) => one.result().state));
    const count = (state: string) => tests.flat().filter((one) => one === state).length;
    // A file that could not be set up fails without any of its tests having failed.
    const unready = modules.filter(
      (module, index) => module.state() === 'failed' && !(tests[index] ?? []).includes('failed'),
    );
    const broken = errors.length + unready.length;
    const skipped = count('skipped') + count('pending');
    // Vitest's own summary comes after the reporters' turn, so this waits for the end.
    process.once('exit', () => {
      process.stdout.write(
        `${count('passed')} passed, ${count('failed') + broken} failed${skipped > 0 ? `, ${skipped} skipped` : ''}\n`,
      );
    });
  },
};

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    testTimeout: 60_000,
    hookTimeout: 120_000,
    // Real Envoys, real sockets and real disks: two files at a time keep a two-core machine honest.
    maxWorkers: 2,
    reporters: ['default', closingLine],
  },
});
