import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Client, credentials } from '@grpc/grpc-js';
import { httpEntry, message } from '../../test/access-log/entries.ts';
import { printReport, type ReportRow } from '../report.ts';

type Kind = 'ours' | 'bare';
type Round = { readonly seconds: number; readonly cpuSeconds: number };

const rounds = Number(process.env['BENCH_ROUNDS'] ?? 3);
const messages = Number(process.env['BENCH_MESSAGES'] ?? 3_000);
// As Envoy fills a buffer of 16 KiB.
const entriesOfMessage = 20;

/**
 * Entries of allowed calls through the door, decoded and counted, beside a sink on the same listener that drops the bytes. Each
 * serves in a process of its own, whose CPU time is what is compared; they take turns.
 */
export async function measureAccessLog(): Promise<void> {
  const dir = mkdtempSync(join(tmpdir(), 'countersign-bench-als-'));
  const sides = new Map<Kind, ChildProcess>();
  try {
    for (const kind of ['bare', 'ours'] as const) {
      const child = fork(join(import.meta.dirname, 'access-log-server.ts'), [kind, socketOf(dir, kind)]);
      sides.set(kind, child);
      await once(child, 'message');
    }
    const made = makeMessages();
    const all: Record<Kind, Round[]> = { bare: [], ours: [] };
    // The first is for the compiler.
    for (let round = -1; round < rounds; round++) {
      for (const [kind, child] of sides) {
        const taken = await measureRound(child, socketOf(dir, kind), made);
        if (round >= 0) all[kind].push(taken);
      }
    }
    report(all);
  } finally {
    for (const child of sides.values()) child.kill();
    rmSync(dir, { recursive: true, force: true });
  }
}

function report({ ours, bare }: Readonly<Record<Kind, readonly Round[]>>): void {
  const entries = messages * entriesOfMessage;
  const perSecond = (all: readonly Round[], of: keyof Round): number =>
    entries / median(all.map((one) => one[of]));
  const figures: readonly (readonly [string, number, string, string])[] = [
    ['entries through the door', perSecond(ours, 'seconds'), '/s', 'entries_per_second'],
    ['entries to a sink that drops them', perSecond(bare, 'seconds'), '/s', 'bare_per_second'],
    ['through the door, of one core', perSecond(ours, 'cpuSeconds'), '/s', 'entries_per_cpu_second'],
    ['to the sink, of one core', perSecond(bare, 'cpuSeconds'), '/s', 'bare_per_cpu_second'],
    [
      'CPU time beside the sink',
      perSecond(bare, 'cpuSeconds') / perSecond(ours, 'cpuSeconds'),
      'x',
      'cost_ratio',
    ],
  ];
  const rows = figures.map(([name, value, unit]): ReportRow => ({ name, value, unit }));
  const rounded = figures.map(([, value, , metric]) => [metric, Math.round(value * 100) / 100] as const);
  printReport('audit access-log', rows, Object.fromEntries(rounded));
}

async function measureRound(child: ChildProcess, socket: string, made: readonly Buffer[]): Promise<Round> {
  const before = await cpuOf(child);
  const began = performance.now();
  await send(socket, made);
  const seconds = (performance.now() - began) / 1_000;
  return { seconds, cpuSeconds: (await cpuOf(child)) - before };
}

async function cpuOf(child: ChildProcess): Promise<number> {
  child.send('cpu');
  const [seconds] = (await once(child, 'message')) as [number];
  return seconds;
}

/** Sends all on one stream, as one thread of a proxy does, and waits for the answer at its end. */
async function send(socket: string, made: readonly Buffer[]): Promise<void> {
  const client = new Client(`unix:${socket}`, credentials.createInsecure());
  const pass = (bytes: Buffer): Buffer => bytes;
  const answered = Promise.withResolvers<void>();
  const call = client.makeClientStreamRequest<Buffer, Buffer>(
    '/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs',
    pass,
    pass,
    (error) => (error === null ? answered.resolve() : answered.reject(error)),
  );
  for (let at = 0; at < messages; at++) {
    const bytes = made[at % made.length] ?? Buffer.alloc(0);
    if (!call.write(bytes)) await once(call, 'drain');
  }
  call.end();
  await answered.promise;
  client.close();
}

/** Of twenty callers, by three rules. */
function makeMessages(): readonly Buffer[] {
  return Array.from({ length: 40 }, (_, at) => {
    const entries = Array.from({ length: entriesOfMessage }, (_unused, index) =>
      httpEntry({
        peer: `spiffe://mesh.test/ns/shop/sa/caller-${index}`,
        serial: `72409ec3e3fcec52d5791856f75eb776b6837${String(index).padStart(3, '0')}`,
        note: {
          decision_id: `932f10e8256a084d04c8${String(at).padStart(4, '0')}`,
          verdict: 'allow',
          mode: 'strict',
          rule: `shop/orders rule[${index % 3}]`,
          reason: 'allow_rule',
          revision: 7,
          ext_authz_duration: 2,
        },
      }),
    );
    return message('http', ...entries);
  });
}

function socketOf(dir: string, kind: Kind): string {
  return join(dir, `${kind}.sock`);
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? 0;
}
