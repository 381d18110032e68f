import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    testTimeout: 20_000,
    hookTimeout: 60_000,
    // Real Envoys, real sockets and real disks: two files at a time keep a two-core machine honest.
    maxWorkers: 2,
    reporters: ['default'],
  },
});
