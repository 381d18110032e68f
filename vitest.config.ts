import { defineConfig } from 'vitest/config';
import type { Reporter } from 'vitest/node';

/** The last line of a run, for people and for programs that count. */
const closingLine: Reporter = {
  onTestRunEnd: (modules, errors) => {
    const states = modules.flatMap((module) =>
      [...module.children.allTests()].map((one) => one.result().state),
    );
    const count = (state: string) => states.filter((one) => one === state).length;
    const broken = errors.length + modules.filter((module) => module.errors().length > 0).length;
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
    testTimeout: 30_000,
    hookTimeout: 120_000,
    // Real Envoys, real sockets and real disks: two files at a time keep a two-core machine honest.
    maxWorkers: 2,
    reporters: ['default', closingLine],
  },
});
