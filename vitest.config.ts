import { defineConfig } from 'vitest/config';
import { BaseSequencer, type Reporter, type TestSpecification } from 'vitest/node';

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

/** Rooms that do no I/O and hold no state: their files share workers, which saves their starts and their imports. */
const pure = ['spiffe', 'authz', 'audit', 'ca', 'yaml', 'identity'].map(
  (room) => `test/${room}/**/*.test.ts`,
);

/**
 * Rooms with sockets, databases and threads, which every file of theirs opens and closes itself: they share workers too.
 * Half of the processor time of such a file was its own start.
 */
const doors = [
  'access-log',
  'attest',
  'ext-authz',
  'grpc',
  'http',
  'node',
  'signing',
  'store',
  'workload-api',
  'xds',
].map((room) => `test/${room}/**/*.test.ts`);

/** Whole meshes and the programs of others; `tool/check` leaves them out. */
const whole = ['test/e2e/**/*.test.ts', 'test/interop/**/*.test.ts'];

const shared = { isolate: false, setupFiles: ['test/harness/same-world.ts'] };

/**
 * Files that wait for proxies beside files that start processes, and the short ones last: no core is without work, at the
 * end neither. By path, because a clean clone knows no durations.
 */
class Interleaved extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const sorted = await super.sort(files);
    const waits = sorted.filter(({ moduleId }) =>
      /\/test\/(?:e2e\/|node\/(?:faults|outage)\.)/.test(moduleId),
    );
    const long = sorted.filter(({ moduleId }) => /\/test\/(?:cli\/|up|store\/crash\.)/.test(moduleId));
    const paired = Array.from({ length: Math.max(waits.length, long.length) }, (_, i) =>
      [waits[i], long[i]].filter((one) => one !== undefined),
    );
    // One project after the other: a worker is shared within its own.
    const isolated = sorted.filter(({ project }) => project.config.isolate);
    const open = sorted.filter(({ project }) => project.name === 'doors');
    return [...new Set([...paired.flat(), ...isolated, ...open, ...sorted])];
  }
}

export default defineConfig({
  test: {
    projects: [
      { extends: true, test: { name: 'pure', include: pure, ...shared } },
      { extends: true, test: { name: 'doors', include: doors, ...shared } },
      {
        extends: true,
        test: { name: 'real', include: ['test/**/*.test.ts'], exclude: [...pure, ...doors, ...whole] },
      },
      { extends: true, test: { name: 'whole', include: whole } },
    ],
    sequence: { sequencer: Interleaved },
    testTimeout: 60_000,
    hookTimeout: 120_000,
    // Real Envoys, real sockets and real disks: many wait for each other, so two cores have work for three files.
    maxWorkers: 3,
    reporters: ['default', closingLine],
  },
});
