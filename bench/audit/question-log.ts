import { encodeEvent } from '../../src/audit/canonical.ts';
import type { AuditEvent } from '../../src/audit/event.ts';
import { createNoteSigner } from '../../src/audit/note.ts';
import { auditColumns, certificateColumns, tokenColumns } from '../../src/audit/columns.ts';
import { rollupOf } from '../../src/audit/rollup.ts';
import { openForWriting } from '../../src/store/database.ts';
import type { LeafRecord } from '../../src/store/protocol.ts';
import { createBatchWriter } from '../../src/store/writer.ts';
import { generateKeyPairSync } from 'node:crypto';

/** What a log for the bench is like. The same seed makes the same events. */
export type LogShape = { readonly events: number; readonly seed: number; readonly services: number };

/** 30 days of a mesh, until then. */
export const lastMs = Date.UTC(2026, 0, 31, 12);
export const spanMs = 30 * 86_400_000;

/** Service `n`; those with low numbers are the busy ones. */
export function service(n: number): string {
  return `spiffe://example.org/ns/team-${n % 20}/sa/service-${n}`;
}

/** Writes a log through the writer of the store. @returns entries a second, of CPU time too */
export function buildLog(
  dataDir: string,
  shape: LogShape,
): { readonly perSecond: number; readonly perCpuSecond: number } {
  const db = openForWriting(dataDir, new Date(lastMs));
  const signer = createNoteSigner('example.org/audit', generateKeyPairSync('ed25519').privateKey);
  const write = createBatchWriter(db, () => signer);
  const random = randomOf(shape.seed);
  const bytes = new Uint8Array(32);
  let ms = 0;
  let cpuUs = 0;
  for (let at = 0; at < shape.events; at += batch) {
    const leaves = Array.from({ length: Math.min(batch, shape.events - at) }, (_, more) => {
      for (let i = 0; i < 4; i++) bytes[i] = random() * 256;
      return recordOf(eventAt(at + more, shape, random), bytes);
    });
    const [started, before] = [performance.now(), process.cpuUsage()];
    write({ requests: [{ change: { kind: 'none' }, leaves }], nowMs: 0 });
    const { user, system } = process.cpuUsage(before);
    ms += performance.now() - started;
    cpuUs += user + system;
  }
  db.close();
  return { perSecond: (shape.events / ms) * 1_000, perCpuSecond: (shape.events / cpuUs) * 1_000_000 };
}

function recordOf(event: AuditEvent, salt: Uint8Array): LeafRecord {
  const { fitted, leaf, personal } = encodeEvent(event, () => salt);
  return {
    leaf,
    personal,
    columns: auditColumns(fitted),
    certificate: certificateColumns(fitted),
    token: tokenColumns(fitted),
    rollup: rollupOf(fitted),
  };
}

/** 100 events: 80 counts of allowed calls, 11 decisions, 7 certificates, 2 others. */
function eventAt(at: number, { events, services }: LogShape, random: () => number): AuditEvent {
  const time = new Date(lastMs - spanMs + Math.floor((at / events) * spanMs));
  // Zipf, near enough: half of all is about the first few per cent.
  const pick = (): number => Math.floor(services * random() ** 3);
  // Each calls a dozen others.
  const from = pick();
  const to = (from * 7 + Math.floor(12 * random() ** 2)) % services;
  const [source, destination] = [service(from), service(to)];
  const caller = { pid: 4_711, uid: 1_000, gid: 1_000, node: `node-${to % 50}` };
  const hex = (width: number): string =>
    Math.floor(random() * 2 ** 48)
      .toString(16)
      .padStart(width, '0');
  const call = { source, destination, protocol: 'http', method: 'GET', port: 8_080, revision: 3, caller };
  const sourceSerial = (from * 4_096 + Math.floor(at / 50_000)).toString(16).padStart(32, '0');
  const rule = `team-${to % 20}/service-${to} rule[${from % 3}]`;
  const dice = random() * 100;
  if (dice < 80) {
    const [count, pathPattern] = [1 + Math.floor(random() * 200), '/api/*'];
    return {
      ...call,
      type: 'allowed_calls',
      time,
      from: time,
      to: time,
      count,
      reason: 'allow_rule',
      rule,
      pathPattern,
      sourceSerial,
    };
  }
  if (dice < 91) {
    const isDenied = dice < 90;
    const told = isDenied
      ? ({ verdict: 'deny', reason: 'no_allow_rule', rule: '', why: 'no ALLOW rule matched' } as const)
      : ({ verdict: 'allow', reason: 'allow_rule', rule, why: '' } as const);
    const personal = {
      path: { personal: `/api/${at}` },
      sourceAddress: { personal: `10.0.${from % 250}.7:40000` },
    };
    return {
      ...call,
      ...told,
      ...personal,
      type: 'decision',
      time,
      decisionId: hex(32),
      host: 'service',
      sourceSerial,
    };
  }
  if (dice < 98) {
    return {
      type: 'issuance',
      time,
      profile: 'x509-svid',
      spiffeId: source,
      serial: `${hex(16)}${at.toString(16).padStart(16, '0')}`,
      notBefore: time,
      notAfter: new Date(time.getTime() + 3_600_000),
      tbsSha256: hex(64),
      spkiSha256: hex(64),
      issuerKeyId: `${Math.floor(at / 100_000)}`.padStart(40, '0'),
      entryId: `service-${from}`,
      entryRevision: 2,
      selectors: [`unix:path:/srv/service-${from}`, 'unix:uid:1000'],
      caller,
    };
  }
  const actor = {
    kind: 'oidc',
    issuer: 'https://login.example.org',
    subject: `person-${from % 40}`,
    role: 'operator',
  } as const;
  if (dice < 98.8)
    return {
      type: 'admin',
      time,
      action: 'called',
      actor,
      method: 'GET',
      route: '/v1/entries',
      code: '',
      detail: '',
      sourceAddress: { personal: '192.0.2.7' },
    };
  if (dice < 99.3)
    return {
      type: 'refusal',
      time,
      door: 'sds',
      code: 'identity_none',
      message: 'no entry matches',
      resource: 'default',
      selectors: ['unix:uid:1000'],
      caller,
      count: 3,
    };
  if (dice < 99.7)
    return {
      type: 'policy_change',
      time,
      action: 'updated',
      policy: `team-${to % 20}/service-${to}`,
      revision: at,
      actor,
      beforeSha256: hex(64),
      afterSha256: hex(64),
      document: `# change CHG-${at}\n`,
    };
  if (dice < 99.9)
    return {
      type: 'entry_change',
      time,
      action: 'updated',
      entryId: `service-${from}`,
      spiffeId: source,
      revision: at,
      actor,
      before: { ttlSeconds: 3_600 },
      after: { ttlSeconds: 1_800 },
    };
  if (dice < 99.99)
    return {
      type: 'ban',
      time,
      action: 'created',
      kind: 'spiffe-id',
      value: source,
      reason: 'host taken over',
      until: null,
      revision: at,
      actor,
    };
  return dice < 99.997
    ? { type: 'loss', time, what: 'decision', count: 12, from: time, to: time, cause: 'queue_full' }
    : { type: 'lifecycle', time, action: random() < 0.5 ? 'started' : 'stopped', version: '0.1.0' };
}

/** Numbers from 0 to 1 (mulberry32). */
function randomOf(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}

const batch = 2_048;
