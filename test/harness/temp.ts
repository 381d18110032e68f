import { mkdtempSync, realpathSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Scope } from './scope.ts';

/** A directory that goes with the scope. Its name is short, as it will hold Unix sockets. */
export function makeTempDir(scope: Scope): string {
  const path = realpathSync(mkdtempSync(join(tmpdir(), 'cs-e2e-')));
  scope.defer(() => rmSync(path, { recursive: true, force: true, maxRetries: 3 }));
  return path;
}

/** Loopback ports that nobody listens on, below the range from which the kernel takes ports for clients. */
export async function freePorts(count: number): Promise<number[]> {
  const ports: number[] = [];
  while (ports.length < count) {
    // Each test process walks through a region of its own, so that two rarely meet.
    next = next >= 30_000 ? 10_000 : next + 1;
    if (await isFree(next)) ports.push(next);
  }
  return ports;
}

let next = 10_000 + ((process.pid * 211) % 20_000);

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createServer();
    probe.once('error', () => resolve(false));
    probe.listen(port, '127.0.0.1', () => probe.close(() => resolve(true)));
  });
}
