import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import type { handleUnaryCall, ServiceDefinition } from '@grpc/grpc-js';
import { createUnixAttestor } from '../../src/attest/unix.ts';
import type { Authority } from '../../src/ca/authority.ts';
import { systemClock } from '../../src/clock.ts';
import { startGrpcListener } from '../../src/grpc/listener.ts';
import type { RegistrationEntry } from '../../src/identity/entry.ts';
import { indexBans } from '../../src/identity/ban-list.ts';
import { createIssuer, type IssueX509 } from '../../src/identity/issuer.ts';
import { indexEntries } from '../../src/identity/registry.ts';
import { parseSelector } from '../../src/identity/selector.ts';
import { createSigningService } from '../../src/signing/service.ts';
import type { ProofThread } from '../../src/signing/thread.ts';
import { SpiffeId } from '../../src/spiffe/id.ts';
import { openStore, type Store } from '../../src/store/store.ts';
import { SignX509Request, SigningService } from '../../src/wire/sign.ts';
import { makeCsr } from '../../test/ca/csr-writer.ts';
import type { Caller } from './caller.ts';

/** Real doors before a real store, in a directory that goes away. */
export type Stage = {
  readonly socket: string;
  readonly store: Store;
  readonly issue: IssueX509;
  readonly close: () => Promise<void>;
};

export type CallRate = {
  readonly perSecond: number;
  readonly p99Ms: number;
  /** CPU time of this process for one call, all threads, and of its main thread alone. */
  readonly cpuUs: number;
  readonly mainCpuUs: number;
  readonly loopDelayP99Ms: number;
};

const callInFlight = 128;
const connections = 1;

export async function openStage(authority: Authority, proofs: ProofThread): Promise<Stage> {
  const directory = mkdtempSync(join(tmpdir(), 'cs-bench-'));
  const store = await openStore({
    dataDir: join(directory, 'data'),
    clock: systemClock,
    randomBytes: (size) => new Uint8Array(randomBytes(size)),
  });
  const registry = indexEntries([benchEntry('bench', 'spiffe://example.org/ns/shop/sa/web')]);
  const issue = createIssuer({
    authority: () => authority,
    mayStillSign: () => true,
    record: store.recordProven,
    clock: systemClock,
    isCurrent: () => true,
    bans: () => indexBans([]),
  });
  const signing = createSigningService({
    attest: createUnixAttestor(),
    entitled: ({ selectors }) => registry.match(selectors, systemClock.now()),
    issue,
    readCsr: proofs.readCsr,
    bundle: () => authority.bundle,
    recordRefusal: () => undefined,
    clock: systemClock,
    limits: { perUid: { burst: 1e9, perSecond: 1e9 } },
  });
  const listener = await startGrpcListener({
    path: join(directory, 's'),
    mode: 0o600,
    services: [signing, echo],
  });
  return {
    socket: listener.path,
    store,
    issue,
    close: async () => {
      await listener.close(100);
      await store.close();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

export function benchEntry(id: string, spiffeId: string, ttlSeconds = 3_600): RegistrationEntry {
  return {
    id,
    spiffeId: SpiffeId.parseWorkload(spiffeId),
    selectors: [parseSelector(`unix:uid:${process.getuid?.() ?? 0}`)],
    ttlSeconds,
    dnsNames: [],
    labels: {},
    hint: '',
    expiresAt: null,
    revision: 1,
  };
}

/** Requests of 64 keys, made beforehand: a caller's own arithmetic is not what is measured. */
export function signRequests(): readonly Buffer[] {
  return Array.from({ length: 64 }, () =>
    Buffer.from(
      SignX509Request.encode({ csr: Buffer.from(makeCsr()), spiffeId: '', ttlSeconds: 0n }).finish(),
    ),
  );
}

/** What calls, with what, and for how long. */
export type Load = {
  readonly caller: Caller;
  readonly requests: readonly Buffer[];
  readonly seconds: number;
};

export const measureSigning = (stage: Stage, load: Load) =>
  measure(stage, SigningService.signX509.path, load);
export const measureEcho = (stage: Stage, load: Load) => measure(stage, echoPath, load);

async function measure(
  { socket }: Stage,
  method: string,
  { caller, requests, seconds }: Load,
): Promise<CallRate> {
  const delay = monitorEventLoopDelay({ resolution: 5 });
  delay.enable();
  const [all, main] = [process.cpuUsage(), process.threadCpuUsage()];
  const [file = '', ...first] = caller.command;
  const args = [...first, socket, method, String(seconds), String(callInFlight), String(connections)];
  const output = await new Promise<string>((resolve, reject) => {
    const child = execFile(file, args, { timeout: 60_000 }, (error, stdout) => {
      if (error === null) resolve(stdout);
      else reject(error);
    });
    child.stdin?.end(requests.map((bytes) => `${bytes.toString('base64')}\n`).join(''));
  });
  const [allSpent, mainSpent] = [process.cpuUsage(all), process.threadCpuUsage(main)];
  delay.disable();
  const {
    count,
    seconds: took,
    p99Ms,
  } = JSON.parse(output) as {
    count: number;
    seconds: number;
    p99Ms: number;
  };
  // The client's first 300 ms are a warm-up that it does not count.
  const calls = count * (1 + 0.3 / took);
  return {
    perSecond: count / took,
    p99Ms,
    cpuUs: (allSpent.user + allSpent.system) / calls,
    mainCpuUs: (mainSpent.user + mainSpent.system) / calls,
    loopDelayP99Ms: delay.percentile(99) / 1e6,
  };
}

const pass = (bytes: Buffer): Buffer => bytes;
const echoPath = '/bench.Echo/Echo';
const echoDefinition: ServiceDefinition<{ echo: handleUnaryCall<Buffer, Buffer> }> = {
  echo: {
    path: echoPath,
    requestStream: false,
    responseStream: false,
    requestSerialize: pass,
    requestDeserialize: pass,
    responseSerialize: pass,
    responseDeserialize: pass,
  },
};
const answerEcho: handleUnaryCall<Buffer, Buffer> = (call, callback) => callback(null, call.request);
const echo = { definition: echoDefinition, implementation: { echo: answerEcho } };
