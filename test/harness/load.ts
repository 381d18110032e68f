import { Agent, request } from 'node:http';
import type { Scope } from './scope.ts';

/** Constant load on a loopback port. */
export type Load = {
  /** Requests that were answered 200, and everything else in words, with how often it came. */
  readonly passed: () => number;
  readonly failed: () => ReadonlyMap<string, number>;
  /** When the first of those came, in seconds since the start. */
  readonly failedAt: () => readonly number[];
  /** Requests a second since the start. */
  readonly rate: () => number;
  readonly stop: () => Promise<void>;
};

/**
 * Sends `perSecond` requests a second, over connections that are kept, until it is stopped or the scope ends. When the
 * other side is too slow for that, at most 64 are under way at once.
 */
export function startLoad(scope: Scope, port: number, perSecond: number, path: string): Load {
  const agent = new Agent({ keepAlive: true, maxSockets: 16 });
  const failures = new Map<string, number>();
  const failedAt: number[] = [];
  let [passed, sent, open, stopped] = [0, 0, 0, false];
  const startedAt = performance.now();
  const fail = (why: string): void => {
    failures.set(why, (failures.get(why) ?? 0) + 1);
    if (failedAt.length < 100) failedAt.push((performance.now() - startedAt) / 1_000);
  };
  const send = (): void => {
    open += 1;
    sent += 1;
    let over = false;
    const done = (why: string | null): void => {
      if (over) return;
      over = true;
      open -= 1;
      if (why === null) passed += 1;
      else fail(why);
    };
    const call = request({ host: '127.0.0.1', port, path, agent, timeout: 10_000 }, (response) => {
      const { statusCode } = response;
      let told = '';
      // A proxy says in the body what it was that failed.
      response.on('data', (bytes: Buffer) => {
        if (statusCode !== 200) told = (told + bytes.toString()).slice(0, 200);
      });
      response.on('end', () => done(statusCode === 200 ? null : `status ${statusCode}: ${told}`));
      response.on('error', (error) => done(error.message));
    });
    call.on('timeout', () => call.destroy(new Error('no answer within 10 s')));
    call.on('error', (error) => done(error.message));
    call.end();
  };
  const timer = setInterval(() => {
    const due = ((performance.now() - startedAt) / 1_000) * perSecond;
    while (sent < due && open < 64) send();
  }, 5);
  const stop = async (): Promise<void> => {
    if (stopped) return;
    stopped = true;
    clearInterval(timer);
    while (open > 0) await new Promise((resolve) => setTimeout(resolve, 10));
    agent.destroy();
  };
  scope.defer(stop);
  return {
    passed: () => passed,
    failed: () => failures,
    failedAt: () => failedAt,
    rate: () => (passed / (performance.now() - startedAt)) * 1_000,
    stop,
  };
}
