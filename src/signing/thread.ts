import { Worker } from 'node:worker_threads';
import { maxCsrBytes, readCsr } from '../ca/csr.ts';
import { type ExpectedLeaf, type LeafIssuer, type LintLeaf, lintLeaf } from '../ca/lint.ts';
import { adoptPublicKey, type PublicKey, type PublicKeyFacts } from '../ca/public-key.ts';
import { type Batch, type IssuerFacts, type Job, restoreFailure, type Verdict } from './thread-protocol.ts';

/** Reads certificate requests and judges leaves on a thread of its own, for as long as that thread lives. */
export type ProofThread = {
  /** As `readCsr`. @throws MeshError what `readCsr` throws */
  readonly readCsr: (input: Uint8Array) => Promise<PublicKey>;
  /** As `lintLeaf`. @throws MeshError `lint_failed` */
  readonly lintLeaf: LintLeaf;
  /** Ends the thread. What is asked afterwards is done by the thread that asks. */
  readonly close: () => Promise<void>;
};

/**
 * Starts the thread at the first question: an agent may never be asked one. Whatever is asked within one turn of the event loop, or while the thread has two batches in hand,
 * goes to it in one message. When it is lost, what it had in hand and all that comes is done by the thread that asks:
 * slower, and by the same rules.
 * @param onLost told the cause when the thread ended by itself
 */
export function startProofThread(onLost: (cause: string) => void = () => undefined): ProofThread {
  // Compiled, this file and the worker are .js; from the sources Node runs the .ts.
  const file = import.meta.url.endsWith('.ts') ? './thread-worker.ts' : './thread-worker.js';
  let worker: Worker | undefined;
  const numbers = new WeakMap<object, number>();
  const inHand: (readonly Waiting[])[] = [];
  let issuers: [number, IssuerFacts][] = [];
  let known = 0;
  const waiting: Waiting[] = [];
  let planned = false;
  let gone = false;

  /** Does here what the thread was asked for and will not answer. */
  function takeBack(): void {
    gone = true;
    const left = [...inHand.splice(0).flat(), ...waiting.splice(0)];
    for (const { here } of left) here();
  }

  function lose(cause: string): void {
    if (gone) return;
    takeBack();
    onLost(cause);
  }

  function start(): Worker {
    const started = new Worker(new URL(file, import.meta.url));
    // A process that has nothing else to do may end.
    started.unref();
    started.on('error', (error) => lose(error.message));
    started.on('messageerror', (error) => lose(error.message));
    started.on('exit', () => lose('the thread ended'));
    started.on('message', (verdicts: readonly Verdict[]) => {
      const batch = inHand.shift() ?? [];
      // The next batch is on its way before this one is looked at.
      send();
      for (const [at, { settle }] of batch.entries()) settle(verdicts[at]);
    });
    return started;
  }

  function plan(): void {
    if (planned || gone) return;
    planned = true;
    setImmediate(() => {
      planned = false;
      send();
    });
  }

  function send(): void {
    if (waiting.length === 0 || inHand.length >= maxInHand || gone) return;
    const batch = waiting.splice(0, maxBatch);
    let size = 0;
    for (const { parts } of batch) for (const part of parts) size += part.length;
    const bytes = new Uint8Array(size);
    let at = 0;
    for (const { parts } of batch) {
      for (const part of parts) {
        bytes.set(part, at);
        at += part.length;
      }
    }
    const message: Batch = { jobs: batch.map(({ job }) => job), bytes, issuers };
    issuers = [];
    inHand.push(batch);
    worker ??= start();
    worker.postMessage(message, [bytes.buffer]);
    send();
  }

  function ask<T>(
    parts: readonly Uint8Array[],
    job: Job,
    here: () => T,
    read: (verdict: PublicKeyFacts | null) => T,
  ): Promise<T> {
    return new Promise((resolve, reject) => {
      const attempt = (work: () => T): void => {
        try {
          resolve(work());
        } catch (error) {
          reject(error);
        }
      };
      waiting.push({
        parts,
        job,
        here: () => attempt(here),
        settle: (verdict) =>
          attempt(() => {
            if (verdict === undefined) return here();
            if (verdict !== null && 'code' in verdict) throw restoreFailure(verdict);
            return read(verdict);
          }),
      });
      plan();
    });
  }

  function numberOf(issuer: LeafIssuer): number {
    const { certificate, hash } = issuer;
    const number = numbers.get(certificate);
    if (number !== undefined) return number;
    known += 1;
    numbers.set(certificate, known);
    const trustDomain = certificate.trustDomain?.name ?? null;
    issuers.push([known, { der: certificate.der, hash, trustDomain }]);
    return known;
  }

  return {
    readCsr: async (input) => {
      if (gone || input.length > maxCsrBytes) return readCsr(input);
      return ask(
        [input],
        { kind: 'csr', sizes: [input.length] },
        () => readCsr(input),
        (facts) => (facts === null ? readCsr(input) : adoptPublicKey(facts)),
      );
    },
    lintLeaf: (der, expected, issuer) => {
      if (gone) return lintLeaf(der, expected, issuer);
      const { spki, keyId } = expected.publicKey;
      const parts = [der, expected.tbs, spki, keyId];
      return ask(
        parts,
        leafJob(der, expected, numberOf(issuer)),
        () => lintLeaf(der, expected, issuer),
        (facts) => {
          if (facts !== null) lintLeaf(der, expected, issuer);
        },
      );
    },
    close: async () => {
      takeBack();
      await worker?.terminate();
    },
  };
}

type Waiting = {
  readonly parts: readonly Uint8Array[];
  readonly job: Job;
  /** Does the work on this thread. */
  readonly here: () => void;
  readonly settle: (verdict: Verdict | undefined) => void;
};

function leafJob(der: Uint8Array, { publicKey, ...expected }: ExpectedLeaf, issuer: number): Job {
  return {
    kind: 'leaf',
    sizes: [der.length, expected.tbs.length, publicKey.spki.length, publicKey.keyId.length],
    issuer,
    keyKind: publicKey.kind,
    spkiSha256: publicKey.spkiSha256,
    id: expected.id.text,
    dnsNames: expected.dnsNames,
    serial: expected.serial,
    notBeforeMs: expected.notBefore.getTime(),
    notAfterMs: expected.notAfter.getTime(),
  };
}

const maxInHand = 2;
// Few enough that the asking thread and the store have something to do meanwhile; many, because waking a thread that
// sleeps costs as much as a signature.
const maxBatch = 32;
