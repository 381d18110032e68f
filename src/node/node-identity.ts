import { createHash } from 'node:crypto';
import { readPublicKey } from '../ca/public-key.ts';
import type { Clock } from '../clock.ts';
import { type ErrorCode, MeshError, publicError } from '../errors.ts';
import type { GenerateKeyPair } from '../identity/keeper.ts';
import { createLatch, createNotice, latchOrSleep } from '../identity/notice.ts';
import { renewalSpreadMs } from '../identity/renewal-spread.ts';
import type { OutgoingIssuer } from '../identity/view.ts';
import { readCertificate } from '../spiffe/certificate.ts';
import { checkX509SvidLeaf } from '../spiffe/svid.ts';
import type { Evidence, NodeIdentity } from './node-client.ts';

/** Why an agent is not as well as it could be, and what it needs; for its log and its status. */
export type Trouble = { readonly code: string; readonly message: string; readonly fix?: string };

/** Keeps the certificate of a node: renews it in time, and attests anew whenever it counts no longer. */
export type IdentityKeeper = {
  readonly current: () => NodeIdentity;
  /** The server has said that this identity does not count. */
  readonly refused: (identity: NodeIdentity) => void;
  /** The server has taken this identity. */
  readonly taken: (identity: NodeIdentity) => void;
  /** Told of the CAs that are on their way out: a certificate of one of them is renewed while it still counts. */
  readonly leave: (issuers: readonly OutgoingIssuer[]) => void;
  /** What stands in the way of a certificate that counts; null when nothing does. */
  readonly trouble: () => Trouble | null;
  /** Calls back when there is another identity. */
  readonly onChange: (listener: () => void) => () => void;
  /** Goes on until the signal ends it. */
  readonly run: () => Promise<void>;
};

export type KeyPair = Awaited<ReturnType<GenerateKeyPair>>;

/** Where the key that a join token is shown with outlasts the process: with it the token may be shown again. */
export type ShownKeys = {
  /** @param digest of the evidence, lower-case hex */
  readonly load: (digest: string) => KeyPair | undefined;
  /** @throws MeshError `store_unavailable`; then nothing is shown */
  readonly save: (digest: string, key: KeyPair) => void;
};

export type IdentityParts = {
  /** Of an earlier process, even when it has expired; null makes the start wait for a first one. */
  readonly kept: NodeIdentity | null;
  /**
   * What the machine can show now: asked for again and again while something is needed, for files are replaced. Null
   * when it has nothing. @throws MeshError of what cannot be read
   */
  readonly evidence: () => Evidence | null | Promise<Evidence | null>;
  /** @throws MeshError what the server refuses it with */
  readonly attest: (evidence: Evidence, key: KeyPair) => Promise<NodeIdentity>;
  /** @throws MeshError what the server refuses it with */
  readonly renew: (identity: NodeIdentity, key: KeyPair) => Promise<NodeIdentity>;
  readonly generateKeyPair: GenerateKeyPair;
  /** Without it a process that ends before its certificate is kept has used its join token up. */
  readonly shownKeys?: ShownKeys | undefined;
  readonly clock: Clock;
  /** 0 to 1, evenly spread. */
  readonly random: () => number;
  /** Told of every failure; most come again and again. */
  readonly complain: (error: unknown) => void;
  readonly signal: AbortSignal;
};

/**
 * Opens it. Without a kept identity it waits for the server and attests; what can pass is tried again.
 * @throws MeshError what cannot pass by itself: evidence that is spent or refused, or none at all
 */
export async function keepIdentity(parts: IdentityParts): Promise<IdentityKeeper> {
  const { clock, random, complain, signal } = parts;
  const notice = createNotice();
  const latch = createLatch();
  let trouble: Trouble | null = null;
  let refused: NodeIdentity | undefined;
  /** Evidence that will never do. */
  let spent = '';
  let attestedAt = Number.NEGATIVE_INFINITY;
  let attestations = 0;
  let identity = parts.kept ?? (await attest(undefined));
  let half = halfLife(identity);
  let leaving: { readonly held: NodeIdentity; readonly urgent: boolean } | undefined;

  function fail(error: unknown): void {
    trouble = troubleOf(error);
    complain(error);
  }

  /** @returns the same identity when it counts after all, or the signal has ended it */
  async function attest(held: NodeIdentity | undefined): Promise<NodeIdentity> {
    let key: KeyPair | undefined;
    let keyIsFor = '';
    let attempt = 0;
    while (!signal.aborted && (held === undefined || isNeeded(held))) {
      let waitMs = pollMs;
      let digest = spent;
      let isJoinToken = false;
      try {
        const evidence = await parts.evidence();
        if (evidence === null) throw nothingToShow();
        digest = digestOf(evidence);
        isJoinToken = evidence.kind === 'join_token';
        if (digest === spent) throw nothingNew();
        // The same key for the same evidence: an answer that was lost on its way is asked for again, not another one.
        if (key === undefined || keyIsFor !== digest)
          [key, keyIsFor] = [await keyFor(digest, isJoinToken), digest];
        const made = await parts.attest(evidence, key);
        [attestedAt, trouble, refused] = [clock.now().getTime(), null, undefined];
        if (isJoinToken) spent = digest;
        return made;
      } catch (error) {
        if (signal.aborted) break;
        fail(error);
        attempt += 1;
        if (mayPass(error)) waitMs = backOff(attempt, random);
        else if (held === undefined) throw error;
        else if (isJoinToken && isCode(error, 'node_evidence_invalid')) spent = digest;
        else if (digest !== spent) waitMs = random() * longestRefusedMs;
      }
      await sleepUnlessChanged(waitMs, digest, held);
    }
    if (held === undefined)
      throw new MeshError('shutting_down', 'the agent is stopped before it was attested');
    return held;
  }

  async function keyFor(digest: string, isJoinToken: boolean): Promise<KeyPair> {
    if (!isJoinToken || parts.shownKeys === undefined) return parts.generateKeyPair();
    const known = parts.shownKeys.load(digest);
    if (known !== undefined) return known;
    const made = await parts.generateKeyPair();
    // INVARIANT: durable before the token is shown with it.
    parts.shownKeys.save(digest, made);
    return made;
  }

  /** New evidence is used soon, however long the wait is for the old one. */
  async function sleepUnlessChanged(
    ms: number,
    digest: string,
    held: NodeIdentity | undefined,
  ): Promise<void> {
    for (let left = ms; left > 0 && !signal.aborted; left -= pollMs) {
      await latchOrSleep(latch, Math.min(left, pollMs), clock, signal);
      if (left <= pollMs || (held !== undefined && !isNeeded(held))) return;
      const now = await Promise.resolve(parts.evidence()).catch(() => null);
      if (now !== null && digestOf(now) !== digest) return;
    }
  }

  function isNeeded(held: NodeIdentity): boolean {
    return refused === held || !isLive(held, clock.now());
  }

  async function renew(held: NodeIdentity): Promise<NodeIdentity> {
    const made = await parts.renew(held, await parts.generateKeyPair());
    [trouble, refused] = [null, undefined];
    return made;
  }

  /** Two machines with the same evidence would else push each other out without an end. */
  async function waitForTurn(): Promise<void> {
    const sinceMs = clock.now().getTime() - attestedAt;
    attestations = sinceMs < settledMs ? attestations + 1 : 0;
    if (attestations === 0) return;
    await clock.sleep(random() * Math.min(longestRefusedMs, firstTurnMs * 2 ** attestations), signal);
  }

  async function run(): Promise<void> {
    let failures = 0;
    while (!signal.aborted) {
      const held = identity;
      try {
        if (isNeeded(held)) {
          await waitForTurn();
          identity = await attest(held);
        } else {
          const dueMs = failures === 0 ? half - clock.now().getTime() : backOff(failures, random);
          await latchOrSleep(latch, Math.max(0, Math.min(dueMs, longestSleepMs)), clock, signal);
          if (signal.aborted || isNeeded(held)) continue;
          if (clock.now().getTime() < half) continue;
          identity = await renew(held);
        }
        failures = 0;
      } catch (error) {
        if (signal.aborted) return;
        failures += 1;
        fail(error);
        if (isCode(error, 'node_refused')) refused = held;
      }
      if (identity === held) continue;
      half = halfLife(identity);
      notice.announce();
    }
  }

  /** Around the middle of its life, so that nodes that started together do not renew together. */
  function halfLife(held: NodeIdentity): number {
    const { notBefore, notAfter } = datesOf(held);
    return notBefore + (notAfter - notBefore) * (0.45 + random() / 10);
  }

  return {
    current: () => identity,
    refused: (held) => {
      if (held !== identity || refused === held) return;
      refused = held;
      latch.raise();
    },
    taken: (held) => {
      if (held !== identity || refused === undefined) return;
      [refused, trouble] = [undefined, null];
      latch.raise();
    },
    leave: (issuers) => {
      const issuer = issuers.find(({ keyId }) => keyId === issuerOf(identity));
      if (issuer === undefined) return;
      const { urgent, nodes } = issuer;
      // What was planned before stays planned as it is.
      if (leaving?.held === identity && (leaving.urgent || !urgent)) return;
      leaving = { held: identity, urgent };
      const nowMs = clock.now().getTime();
      const left = datesOf(identity).notAfter - nowMs;
      half = Math.min(
        half,
        nowMs + random() * Math.min(left / 4, urgent ? urgentMs : renewalSpreadMs(nodes, 0)),
      );
      latch.raise();
    },
    trouble: () => trouble,
    onChange: notice.subscribe,
    run,
  };
}

/** Full jitter: anything from nothing to a bound that doubles, from a quarter of a second to ten. */
export function backOff(failures: number, random: () => number): number {
  return random() * Math.min(longestBackOffMs, firstBackOffMs * 2 ** Math.min(failures, 16));
}

/** Whether the same may be answered otherwise later, with nobody doing anything. */
export function mayPass(error: unknown): boolean {
  if (!(error instanceof MeshError)) return false;
  return passing.has(error.kind) || passing.has(error.code);
}

/** A failure as it may be shown. */
export function troubleOf(error: unknown): Trouble {
  const { code, message, fix } = publicError(error);
  return fix === undefined ? { code, message } : { code, message, fix };
}

function isLive(identity: NodeIdentity, now: Date): boolean {
  return now.getTime() < datesOf(identity).notAfter;
}

function datesOf({ certificates }: NodeIdentity): { readonly notBefore: number; readonly notAfter: number } {
  const { notBefore, notAfter } = checkX509SvidLeaf(certificates[0] ?? new Uint8Array(0));
  return { notBefore: notBefore.getTime(), notAfter: notAfter.getTime() };
}

/** Key id of the CA that signed it, which comes with it; undefined when there is none that we can read. */
function issuerOf({ certificates: [, issuer] }: NodeIdentity): string | undefined {
  if (issuer === undefined) return undefined;
  try {
    return Buffer.from(readPublicKey(readCertificate(issuer).spki).keyId).toString('hex');
  } catch {
    return undefined;
  }
}

function isCode(error: unknown, code: ErrorCode): boolean {
  return error instanceof MeshError && error.code === code;
}

/** Tells evidence from other evidence; kept in memory only. */
function digestOf(evidence: Evidence): string {
  const text = JSON.stringify(evidence, (_, value: unknown) =>
    value instanceof Uint8Array ? Buffer.from(value).toString('base64') : value,
  );
  return createHash('sha256').update(text).digest('hex');
}

function nothingToShow(): MeshError {
  return new MeshError(
    'node_evidence_invalid',
    'this node has no certificate that counts and nothing to show for one',
    { fix: 'give it a join token, or a machine certificate' },
  );
}

function nothingNew(): MeshError {
  return new MeshError(
    'node_evidence_invalid',
    'the certificate of this node does not count, and what it can show was refused',
    { fix: 'write a new join token to its file: it is used within seconds, without a restart' },
  );
}

const passing: ReadonlySet<string> = new Set([
  'unavailable',
  'exhausted',
  'internal',
  'view_gap',
  // The server was asked twice at once, or took too long.
  'node_refused',
  'message_invalid',
]);
const firstBackOffMs = 250;
const longestBackOffMs = 10_000;
const longestSleepMs = 60_000;
// How soon a file that was replaced is looked at.
const pollMs = 2_000;
// A fleet does not ask at once.
const urgentMs = 60_000;
const longestRefusedMs = 300_000;
const firstTurnMs = 1_000;
// A certificate that counted for so long was not pushed out by a rival.
const settledMs = 600_000;
