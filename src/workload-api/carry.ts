import type { ServerWritableStream } from '@grpc/grpc-js';
import type { Clock } from '../clock.ts';
import { MeshError } from '../errors.ts';
import { disconnect } from '../grpc/connections.ts';
import { type Attest, type Attestation, type UnixPeer, stillHolds } from '../identity/evidence.ts';
import type { Answer } from './answer.ts';
import type { WorkloadApiObserver, WorkloadCall } from './observer.ts';

/** A call as far as it is known who makes it, and what for. */
export type Asked = {
  readonly call: WorkloadCall;
  readonly peer: UnixPeer;
  attestation: Attestation | undefined;
  /** The SPIFFE ID that was asked for, or empty. */
  resource: string;
};

/** How long a stream may keep us, or we it. */
export type CarryLimits = {
  /** For the first state of the caller: its certificates may have to be made. */
  readonly firstMs: number;
  /** For the bytes of a message to leave; then the whole connection is cut. */
  readonly writeMs: number;
};

/** What the streams of a service share. */
export type CarryParts = {
  readonly attest: Attest;
  readonly clock: Clock;
  readonly observer: WorkloadApiObserver;
  readonly limits: CarryLimits;
  /** Aborts when the service closes. */
  readonly closing: AbortSignal;
};

/** What is carried: states of a caller, each answered in the light of the one that was answered before. */
export type Cargo<State, Response> = {
  readonly watch: (attestation: Attestation, signal: AbortSignal) => AsyncIterable<State>;
  readonly answer: (before: State | undefined, now: State) => Answer<Response>;
  /** Whether the caller may still have all that a state gives; asked of what holds a key. */
  readonly mayHave: (attestation: Attestation, now: State) => boolean;
};

/**
 * Carries one caller's state to one stream, until the stream is over. One message is under way at a time, and the next
 * is made from the newest state when it has left: a slow reader skips what is old, and holds no more than one.
 *
 * The caller is attested again before each message that holds a key; if anything about it has changed the stream ends.
 * @param signal aborts when the call is over
 * @throws MeshError what the stream ends with: `identity_none`, `identity_banned`, `attestation_failed`,
 * `credentials_pending`, `stream_stalled`, `shutting_down`
 */
export async function carry<State, Response>(
  stream: ServerWritableStream<unknown, Response>,
  asked: Asked,
  signal: AbortSignal,
  { watch, answer, mayHave }: Cargo<State, Response>,
  parts: CarryParts,
): Promise<void> {
  const { attest, clock, observer, limits, closing } = parts;
  const { peer } = asked;
  const late = new AbortController();
  const over = AbortSignal.any([signal, closing, late.signal]);
  const first = new AbortController();
  const attestation = await attest(peer);
  asked.attestation = attestation;
  void expectFirst(AbortSignal.any([first.signal, signal, closing]));
  let before: State | undefined;
  try {
    for await (const now of watch(attestation, over)) {
      first.abort();
      const step = answer(before, now);
      before = now;
      if (step.kind === 'nothing') continue;
      if (step.kind === 'deny') throw new MeshError(step.code, step.message, { fix: fixes[step.code] });
      if (step.delivers.length > 0) await confirm();
      if (over.aborted) break;
      // INVARIANT: what was taken away while the caller was attested again does not leave.
      if (step.delivers.length > 0 && !mayHave(attestation, now)) throw outdated();
      for (const { spiffeId, content } of step.delivers) {
        observer.delivering?.({ peer, name: `workload-api ${spiffeId}`, content, at: clock.now() });
      }
      await write(step.response);
      observer.answered?.(asked.call);
    }
  } finally {
    first.abort();
  }
  if (closing.aborted) throw new MeshError('shutting_down', 'the service is shutting down');
  if (late.signal.aborted) {
    throw new MeshError('credentials_pending', 'the certificate could not be made in time', {
      fix: 'try again',
    });
  }

  function outdated(): MeshError {
    return new MeshError('credentials_pending', 'what the caller may have has changed meanwhile', {
      fix: 'open the stream again',
    });
  }

  async function confirm(): Promise<void> {
    const now = await attest(peer);
    if (peer.isAlive() && stillHolds(attestation, now)) return;
    throw new MeshError('attestation_failed', 'the caller has changed since the stream was opened', {
      fix: 'open the stream again',
    });
  }

  async function write(response: Response): Promise<void> {
    const written = new AbortController();
    stream.write(response, () => written.abort());
    const either = AbortSignal.any([written.signal, over]);
    await clock.sleep(limits.writeMs, either);
    if (either.aborted) return;
    // An orderly end would wait behind the bytes that do not move.
    disconnect(peer);
    throw new MeshError('stream_stalled', 'the stream does not read what it is sent');
  }

  async function expectFirst(either: AbortSignal): Promise<void> {
    await clock.sleep(limits.firstMs, either);
    if (!either.aborted) late.abort();
  }
}

const fixes = {
  identity_none: 'register the caller, for example with countersign entry create',
  identity_banned: 'ask an operator, who sees why with `countersign ban list`',
};
