import type { KeyObject } from 'node:crypto';
import type { AuditEvent, RecordEvents, RecordProven } from '../audit/event.ts';
import type { JwtSlot } from '../ca/jwt-slot.ts';
import type { StoredAuthority, StoredRequest } from '../ca/stored.ts';
import type { Clock } from '../clock.ts';
import { MeshError } from '../errors.ts';
import type { AdminToken } from '../identity/admin-token.ts';
import type { CoverageChange, CoverageRow, IssuedCertificate } from '../identity/coverage.ts';
import type { CommitMesh, LoadMesh, NewPolicyRevision, PolicyDocument } from '../identity/mesh.ts';
import type { PolicyPast } from '../identity/policy-edits.ts';
import type { PolicyRevisionRecord } from '../identity/policy-revision.ts';
import type { NamedCertificates } from '../identity/revoked.ts';
import type { Migration } from './backup.ts';
import { checkedBefore, checkLater, type LaterCheck } from './check-thread.ts';
import type { DecisionRows } from './decision-table.ts';
import { formatLeafProof, leafRecord, leafRecords } from './leaf-record.ts';
import { type DirectoryLock, lockDataDirectory } from './lock.ts';
import { type LogReads, logReads } from './log-reads.ts';
import { banRowOf, entryRowOf, meshOf } from './mesh-rows.ts';
import { type NodeCalls, nodeCalls } from './node-calls.ts';
import type {
  KeptRevision,
  KeyOwner,
  MetaKey,
  NamedQuestion,
  Question,
  QuestionKind,
  Questions,
  Resumption,
  StoreChange,
  WriteAnswer,
  WriterOpened,
} from './protocol.ts';
import { requestOf, requestText } from './request-text.ts';
import { defaultWholeCheckBytes } from './start-check.ts';
import { startThread } from './thread.ts';
import { startThreads } from './threads.ts';
import { paceWal } from './wal-pacing.ts';
import { createWriteQueue } from './write-queue.ts';

/** Whether the store can write. It may again when the disk has room, and after no other failure. */
export type StoreHealth = { readonly ok: true } | { readonly ok: false; readonly cause: string };

/**
 * All that is kept. Every call that changes something takes the events that tell of it and resolves when both are
 * durable, in one transaction; when it rejects with `store_unavailable` neither is known to be. Any call may throw
 * MeshError `store_unavailable`.
 */
export type Store = Calls & {
  readonly recordEvents: RecordEvents;
  readonly recordProven: RecordProven;
  /** The same as `recordEvents` for many that nobody waits for, with rests: what comes meanwhile may come before them. */
  readonly recordAtLeisure: RecordEvents;
  readonly loadMesh: LoadMesh;
  readonly commitMesh: CommitMesh;
  /** A revision of policies; null for one that is not kept. */
  readonly policyRevision: (number: number) => Promise<PolicyRevisionRecord | null>;
  /** Revisions below a number, the latest first. */
  readonly policyRevisions: (below: number, limit: number) => Promise<readonly NewPolicyRevision[]>;
  /** What leads back from the policies in force to those of a revision. */
  readonly policyPast: (number: number) => Promise<PolicyPast>;
  /** The policies of a revision that is kept, by their keys. */
  readonly policiesOf: (number: number) => Promise<ReadonlyMap<string, Omit<PolicyDocument, 'source'>>>;
  readonly policyOf: (number: number, key: string) => Promise<PolicyDocument | null>;
  /** The policies that a revision had in some namespaces. */
  readonly policiesIn: (number: number, namespaces: readonly string[]) => Promise<readonly PolicyDocument[]>;
  /** The policy revision in force at a revision of the mesh, kept or not; null when none was. */
  readonly revisionAt: (meshRevision: number) => Promise<number | null>;
  /** The oldest first. */
  readonly keptRevisions: () => Promise<readonly KeptRevision[]>;
  readonly dropRevisions: (through: number, events: readonly AuditEvent[]) => Promise<void>;
  /** When the last certificate issued under an entry and still valid at `now` runs out; null when none is. */
  readonly latestExpiry: (entryId: string, now: Date) => Promise<Date | null>;
  /** The same for each of these SPIFFE IDs, in their order. */
  readonly latestExpiries: (spiffeIds: readonly string[], now: Date) => Promise<readonly (Date | null)[]>;
  /** The oldest first. */
  readonly loadAuthorities: () => Promise<readonly StoredAuthority[]>;
  /** The key that waits for a certificate from elsewhere. @throws MeshError `store_corrupt` */
  readonly loadRequest: () => Promise<StoredRequest | null>;
  /**
   * Puts authorities by key ID; those not named stay as they are. The sequence is that of the bundle they make, the
   * request takes the place of the one there was.
   */
  readonly commitAuthorities: (
    authorities: readonly StoredAuthority[],
    bundleSequence: number,
    request: StoredRequest | null,
    events: readonly AuditEvent[],
  ) => Promise<void>;
  /** Those published first first. */
  readonly loadJwtKeys: () => Promise<readonly JwtSlot[]>;
  /** Puts JWT keys by key ID; those not named stay as they are. The sequence is that of the bundle they make. */
  readonly commitJwtKeys: (
    slots: readonly JwtSlot[],
    bundleSequence: number,
    events: readonly AuditEvent[],
  ) => Promise<void>;
  /** When the last token recorded under each JWT key expires, signed or not, by key ID. */
  readonly jwtExpiries: () => Promise<ReadonlyMap<string, Date>>;
  /** What proxies have confirmed, as it was last committed. */
  readonly loadCoverage: () => Promise<readonly CoverageRow[]>;
  readonly commitCoverage: (change: CoverageChange) => Promise<void>;
  /** Every certificate that was recorded as issued and is valid at `now`, signed or not. */
  readonly unexpiredCertificates: (now: Date) => Promise<readonly IssuedCertificate[]>;
  /** Whose certificate, valid at `now`, holds which key: the last to expire at the end, 65,536 at most. */
  readonly keyOwners: (now: Date) => Promise<readonly KeyOwner[]>;
  /** Certificates of these identities, serials and keys (SHA-256, lower-case hex) that are valid at `now`. */
  readonly namedCertificates: (names: Omit<NamedQuestion, 'nowMs'>, now: Date) => Promise<NamedCertificates>;
  readonly readMeta: (key: MetaKey) => Promise<string | null>;
  readonly commitMeta: (key: MetaKey, value: string, events: readonly AuditEvent[]) => Promise<void>;
  /** The records of decisions with an ID, the first first: at most `limit`. */
  readonly findDecisions: (id: string, limit: number) => Promise<DecisionRows>;
  /** The number of leaves in the log. */
  readonly auditSize: () => Promise<number>;
  /**
   * From now on every commit that extends the log signs it, in one transaction. Signs it as it is, first.
   * @param name of the key, and origin of the log
   * @param key Ed25519; its bytes stay in this process
   * @param newKeyId `audit_key` of a log that has none: it and `audit_verifier_key` are committed with the checkpoint
   * @returns the key that verifies, as text
   * @throws MeshError `audit_log_damaged` when another key signed it, or the one it has did not sign all of it
   */
  readonly signLog: (name: string, key: KeyObject, newKeyId?: string | null) => Promise<string>;
  readonly createToken: (token: AdminToken, events: readonly AuditEvent[]) => Promise<void>;
  /** @throws MeshError `token_not_found`; then the events are not recorded either */
  readonly revokeToken: (id: string, events: readonly AuditEvent[]) => Promise<void>;
  /** The token of a secret, whether or not it has expired; null when there is none. */
  readonly findToken: (secretSha256: string) => Promise<AdminToken | null>;
  readonly listTokens: () => Promise<readonly AdminToken[]>;
  /** What this start did to the data of an earlier release; null when there was nothing to do. */
  readonly migration: Migration | null;
  /** What this start has left to be checked while it serves: the large tables of a large database. */
  readonly check: Pick<LaterCheck, 'damage' | 'ended'>;
  readonly health: () => StoreHealth;
  /** Commits what waits, closes the database and frees the data directory. Safe to call twice. */
  readonly close: () => Promise<void>;
};

type Calls = LogReads & NodeCalls;

export type StoreOptions = {
  /** Made with mode 0700 when it is missing. */
  readonly dataDir: string;
  readonly clock: Clock;
  /** A cryptographic source: it salts commitments. */
  readonly randomBytes: (count: number) => Uint8Array;
  /** Told once, with the cause, when the thread that keeps the WAL short is gone: commits do its work from then on. */
  readonly onCheckpointerGone?: (cause: string) => void;
  /** A larger database is checked whole only once it serves. */
  readonly wholeCheckBytes?: number;
};

/**
 * Opens the store of a data directory, and holds the directory until `close`.
 * @throws MeshError `store_locked`, `store_newer`, `store_corrupt`, `store_backup_failed`, `file_permissions`,
 *   `platform_unsupported`, `store_unavailable`, `audit_log_damaged`
 */
export async function openStore(options: StoreOptions): Promise<Store> {
  const lock = lockDataDirectory(options.dataDir);
  try {
    return await openLocked(options, lock);
  } catch (error) {
    lock.release();
    throw error;
  }
}

async function openLocked(
  {
    dataDir,
    clock,
    randomBytes,
    onCheckpointerGone = () => undefined,
    wholeCheckBytes = defaultWholeCheckBytes,
  }: StoreOptions,
  lock: DirectoryLock,
): Promise<Store> {
  let lost: string | undefined;
  let isBeyondHelp = false;
  const stop = new AbortController();
  let closed: Promise<void> | undefined;
  let asked = 0;

  function lose(cause: string): void {
    lost ??= cause;
    queue.fail(cause);
  }

  /** Asks every so often whether there is room again. INVARIANT: one at a time, for only one failure starts it. */
  async function awaitRoom(): Promise<void> {
    let answer: Resumption = 'not_yet';
    while (answer === 'not_yet') {
      await clock.sleep(roomMs, stop.signal);
      if (stop.signal.aborted) return;
      answer = await (writer.call({ kind: 'resume' }) as Promise<Resumption>).catch(() => 'never' as const);
    }
    if (answer === 'never' || isBeyondHelp) return;
    lost = undefined;
    queue.resume();
  }

  const queue = createWriteQueue(async (requests) => {
    const batch = { requests, nowMs: clock.now().getTime() };
    const answers = (await writer.call({ kind: 'write', batch })) as readonly WriteAnswer[];
    wal.committed();
    return answers;
  });
  const start = { dataDir, nowMs: clock.now().getTime(), wholeCheckBytes };
  const onLost = (cause: string): void => {
    isBeyondHelp = true;
    lose(cause);
  };
  const threads = await startThreads(start, {
    onWriteLost: (cause) => {
      lose(cause);
      void awaitRoom();
    },
    onLost,
    onCheckpointerGone,
  });
  const { writer, reader, logReader, checkpointer } = threads;
  const wal = paceWal(checkpointer, writer, clock, mayFold);
  const { migration, isLeft } = writer.opened as WriterOpened;
  // It promises nothing: whoever loses it has checked less.
  const startChecker = () => startThread({ ...start, role: 'reader' }, onLost, () => undefined);
  const check = isLeft ? checkLater(startChecker, clock) : checkedBefore;

  async function write(change: StoreChange, events: readonly AuditEvent[]): Promise<number> {
    refuseClosed();
    const leaves = events.map((event) => leafRecord(event, randomBytes));
    return (await queue.push({ change, leaves })).firstIndex;
  }

  async function ask<K extends QuestionKind>(
    kind: K,
    about: Questions[K]['ask'],
  ): Promise<Questions[K]['answer']> {
    refuseClosed();
    if (asked >= maxWaitingQuestions) {
      throw new MeshError('store_unavailable', 'too many questions wait for the store');
    }
    asked++;
    try {
      const question = { kind, ask: about } as Question;
      const thread = logQuestions.has(kind) ? logReader : reader;
      return (await thread.call({ kind: 'read', question })) as Questions[K]['answer'];
    } finally {
      asked--;
    }
  }

  /** After a failure the WAL alone is known to be whole: the next start copies all of it again. */
  function mayFold(): boolean {
    return lost === undefined;
  }

  function refuseClosed(): void {
    if (closed !== undefined) throw new MeshError('store_unavailable', 'the store is closed');
  }

  async function close(): Promise<void> {
    stop.abort();
    await check.close();
    await queue.drained();
    await wal.close();
    await threads.close(mayFold());
    lock.release();
  }

  return {
    recordEvents: async (events) => {
      if (events.length === 0) return [];
      const first = await write({ kind: 'none' }, events);
      return events.map((_, at) => first + at);
    },
    recordAtLeisure: async (events) => {
      const leaves = await leafRecords(events, randomBytes);
      refuseClosed();
      const { firstIndex } = await queue.push({ change: { kind: 'none' }, leaves });
      return events.map((_, at) => firstIndex + at);
    },
    recordProven: async (event) => {
      refuseClosed();
      const record = leafRecord(event, randomBytes);
      return formatLeafProof(
        record,
        await queue.push({ change: { kind: 'none' }, leaves: [record], prove: true }),
      );
    },
    loadMesh: async () => meshOf(await ask('mesh', null)),
    commitMesh: async ({ events, putEntries, putBans, ...step }) => {
      const rows = { putEntries: putEntries.map(entryRowOf), putBans: putBans.map(banRowOf) };
      await write({ ...step, ...rows, kind: 'mesh' }, events);
    },
    policyRevision: (number) => ask('policyRevision', number),
    policyRevisions: (below, limit) => ask('policyRevisions', { below, limit }),
    policyPast: (number) => ask('policyPast', number),
    policiesOf: async (number) =>
      new Map((await ask('policiesOf', number)).map((policy) => [policy.key, policy])),
    policyOf: (number, key) => ask('policyOf', { number, key }),
    policiesIn: (number, namespaces) => ask('policiesIn', { number, namespaces }),
    revisionAt: (meshRevision) => ask('revisionAt', meshRevision),
    keptRevisions: () => ask('keptRevisions', null),
    dropRevisions: async (through, events) => {
      await write({ kind: 'policy_revisions_dropped', through }, events);
    },
    latestExpiry: async (entryId, now) => {
      const expiryMs = await ask('latestExpiry', { entryId, nowMs: now.getTime() });
      return expiryMs === null ? null : new Date(expiryMs);
    },
    latestExpiries: async (spiffeIds, now) => {
      const expiries = await ask('latestExpiries', { spiffeIds, nowMs: now.getTime() });
      return expiries.map((expiryMs) => (expiryMs === null ? null : new Date(expiryMs)));
    },
    loadAuthorities: () => ask('authorities', null),
    loadRequest: async () => requestOf(await ask('meta', 'authority_request')),
    commitAuthorities: async (authorities, bundleSequence, request, events) => {
      await write(
        { kind: 'authorities', authorities, bundleSequence, request: requestText(request) },
        events,
      );
    },
    loadJwtKeys: () => ask('jwtKeys', null),
    commitJwtKeys: async (slots, bundleSequence, events) => {
      await write({ kind: 'jwt_keys', slots, bundleSequence }, events);
    },
    jwtExpiries: () => ask('jwtExpiries', null),
    loadCoverage: () => ask('coverage', null),
    commitCoverage: async (change) => {
      await write({ kind: 'coverage', ...change }, []);
    },
    unexpiredCertificates: (now) => ask('unexpired', now.getTime()),
    keyOwners: (now) => ask('keyOwners', now.getTime()),
    namedCertificates: (names, now) => ask('named', { ...names, nowMs: now.getTime() }),
    readMeta: (key) => ask('meta', key),
    commitMeta: async (key, value, events) => {
      await write({ kind: 'meta', key, value }, events);
    },
    findDecisions: (id, limit) => ask('decisions', { id, limit }),
    auditSize: () => ask('auditSize', null),
    signLog: async (name, key, newKeyId = null) =>
      (await writer.call({ kind: 'sign', name, key, newKeyId })) as string,
    ...logReads(ask, write, wal.fold),
    createToken: async (token, events) => {
      await write({ kind: 'token_created', token }, events);
    },
    revokeToken: async (id, events) => {
      await write({ kind: 'token_revoked', id }, events);
    },
    findToken: (secretSha256) => ask('token', secretSha256),
    listTokens: () => ask('tokens', null),
    ...nodeCalls(ask, write),
    migration,
    check,
    health: () => {
      if (lost !== undefined) return { ok: false, cause: lost };
      return closed === undefined ? { ok: true } : { ok: false, cause: 'the store is closed' };
    },
    close: () => (closed ??= close()),
  };
}

const logQuestions = new Set<QuestionKind>(['auditPage', 'auditCount', 'auditSample', 'recordedCalls']);
const maxWaitingQuestions = 1_000;
const roomMs = 5_000;
