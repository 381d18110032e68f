import type { handleUnaryCall, sendUnaryData, ServerUnaryCall, ServiceDefinition } from '@grpc/grpc-js';
import type { DecisionEvent } from '../audit/event.ts';
import { denyDecision } from '../authz/decide.ts';
import type { Decision, RolloutVerdict } from '../authz/decision.ts';
import type { RawCall } from '../authz/istio-mode.ts';
import { judgeCall } from '../authz/judge.ts';
import { anyPath, createPathPatterns, type PathPatterns } from '../authz/path-pattern.ts';
import type { Snapshot } from '../authz/snapshot.ts';
import type { Clock } from '../clock.ts';
import { peerOf } from '../grpc/connections.ts';
import type { BanList } from '../identity/ban-list.ts';
import type { LiveRollout } from '../identity/candidate.ts';
import { createRolloutGate } from '../identity/rollout-gate.ts';
import { findStandingDenial } from '../identity/standing-denial.ts';
import type { Attest, Attestation, UnixPeer } from '../identity/evidence.ts';
import type { SpiffeId } from '../spiffe/id.ts';
import { AuthorizationService } from '../wire/authz.ts';
import type { AllowedCall } from './call-counter.ts';
import type { CandidateCall } from './candidate-counter.ts';
import { createCallers } from './callers.ts';
import { allowedCall, candidateCall, decisionEvent, type Judged } from './decision-record.ts';
import { createPeerCertificateReader } from './peer-certificate.ts';
import { type Check, readCheck } from './request.ts';
import { type Answer, type DenyBody, encodeDecision, encodeOutage } from './response.ts';

/** What happens at the door, for metrics and logs. Implementations may not throw. */
export type CheckObserver = {
  /** One answered check; `seconds` from the whole request's arrival to the encoded answer. */
  readonly decided: (decision: Decision, seconds: number) => void;
  /** A check that was answered with an error instead of a decision. */
  readonly outage: (cause: 'shutting_down' | 'overloaded') => void;
  /** An error of ours behind an `engine_failed`, or an attestation that failed. */
  readonly failed: (error: unknown) => void;
};

/** The parts of the service. */
export type ExtAuthzOptions = {
  readonly attest: Attest;
  /** The identities of a caller at this moment, its default one first; from memory, as it is asked at each call. */
  readonly entitledIds: (attestation: Attestation) => readonly SpiffeId[];
  readonly snapshot: () => Snapshot;
  /** The rollout that is under way, of the same moment as the snapshot; null while there is none. */
  readonly rollout?: (() => LiveRollout | null) | undefined;
  /** Takes what its candidate said of a call, like `record`. */
  readonly compare?: ((call: CandidateCall) => void) | undefined;
  readonly bans: () => BanList;
  /** Takes the record of a decision without waiting: see decision-log.ts. When it throws, the answer is a deny. */
  readonly record: (event: DecisionEvent) => void;
  /**
   * Takes an allowed call that needs no record of its own, like `record`; absent when each decision has one. Calls that an
   * AUDIT rule marks, and those that a break-glass grant let pass, always have one.
   */
  readonly count?: ((call: AllowedCall, decisionId: string) => void) | undefined;
  readonly clock: Clock;
  /** Unique, 1 to 64 of `A-Za-z0-9._-`. */
  readonly newDecisionId: () => string;
  readonly observer: CheckObserver;
  /** Text of a denial; see {@link DenyBody}. */
  readonly denyBody?: DenyBody;
  /** Keeps for a check what it is traced by: it is decided in one go with the others of its turn. Default: nothing is kept. */
  readonly inContext?: (serve: () => void) => () => void;
  /** Checks that may wait for an attestation at one time; more are answered with an error. */
  readonly maxWaiting?: number;
};

/** The service, as a gRPC listener takes it. */
export type ExtAuthzService = {
  /** `envoy.service.auth.v3.Authorization`, with bytes for messages: what was proven is what is sent. */
  readonly definition: ServiceDefinition<{ check: handleUnaryCall<Buffer, Buffer> }>;
  readonly implementation: { readonly check: handleUnaryCall<Buffer, Buffer> };
  /** From now on every check is answered with an error, which proxies tell apart from a denial. */
  readonly close: () => void;
};

/**
 * The authorization service of a proxy. Each check yields exactly one decision, recorded or counted once, unless the service
 * is closed or overloaded; nothing on the way waits for a disk or a network, but for the first check of a connection,
 * which waits for the attestation of its process.
 */
export function createExtAuthzService(options: ExtAuthzOptions): ExtAuthzService {
  const { snapshot, clock, observer, maxWaiting = 1_000, inContext = (serve) => serve } = options;
  const readCertificate = createPeerCertificateReader();
  const callers = createCallers({ attest: options.attest, clock });
  const patternOf = createPathPatterns();
  const patternOfCandidate = createPathPatterns();
  const gate = createRolloutGate(observer.failed);
  let closed = false;
  let waiting = 0;
  let gathered: (() => void)[] = [];

  return {
    definition,
    implementation: {
      check: (call, callback) => {
        const arrived = performance.now();
        if (gathered.length === 0) setImmediate(serveGathered);
        const arrival = { request: call.request, peer: peerNow(call), arrived };
        gathered.push(inContext(() => serve(arrival, callback)));
      },
    },
    close: () => {
      closed = true;
    },
  };

  /**
   * The checks of a turn of the event loop, one after the other: between two of them that came alone lies all that a
   * connection does with a call, after which neither code nor policies are in the processor's caches any more.
   */
  function serveGathered(): void {
    const now = gathered;
    gathered = [];
    for (const serveOne of now) {
      try {
        serveOne();
      } catch (error) {
        // INVARIANT: an answer that cannot be sent takes nobody else's along.
        observer.failed(error);
      }
    }
  }

  /** INVARIANT: asked when the check comes: whoever ends its connection in the same turn would be nobody at its end. */
  function peerNow(call: ServerUnaryCall<Buffer, Buffer>): UnixPeer | undefined {
    try {
      return peerOf(call);
    } catch (error) {
      observer.failed(error);
      return undefined;
    }
  }

  function serve(arrival: Arrival, callback: sendUnaryData<Buffer>): void {
    // INVARIANT: nothing is thrown or rejected. Were it, an error is an outage, and Envoy fails closed.
    const failed = (): void => callback(null, encodeOutage());
    let bytes: Buffer | Promise<Buffer>;
    try {
      bytes = answer(arrival);
    } catch {
      return failed();
    }
    if (Buffer.isBuffer(bytes)) return callback(null, bytes);
    bytes.then((late) => callback(null, late), failed);
  }

  /** At once, but for a connection whose process has yet to be attested. */
  function answer({ request, peer, arrived }: Arrival): Buffer | Promise<Buffer> {
    if (closed) return outage('shutting_down');
    if (waiting >= maxWaiting) return outage('overloaded');
    const check = readCheck(request, readCertificate);
    const judged = judge(peer, check);
    return judged instanceof Promise
      ? judged.then((late) => finish(check, late, arrived))
      : finish(check, judged, arrived);
  }

  function finish(check: Check, judged: Judged, arrived: number): Buffer {
    const { bytes, decision } = settle(check, judged);
    observer.decided(decision, (performance.now() - arrived) / 1_000);
    return bytes;
  }

  function outage(cause: 'shutting_down' | 'overloaded'): Buffer {
    observer.outage(cause);
    return encodeOutage();
  }

  /** Decides; it neither throws nor rejects. */
  function judge(peer: UnixPeer | undefined, check: Check): Judged | Promise<Judged> {
    if (peer === undefined) return { ...unjudged(check, peer), decision: unjudgeable() };
    let attestation: Attestation | Promise<Attestation>;
    try {
      attestation = callers.attested(peer);
    } catch (error) {
      return judgeStranger(check, peer, error);
    }
    return attestation instanceof Promise
      ? judgeLater(peer, attestation, check)
      : judgeNow(peer, attestation, check);
  }

  async function judgeLater(peer: UnixPeer, attesting: Promise<Attestation>, check: Check): Promise<Judged> {
    waiting++;
    let attestation: Attestation;
    try {
      attestation = await attesting;
    } catch (error) {
      return judgeStranger(check, peer, error);
    } finally {
      waiting--;
    }
    return judgeNow(peer, attestation, check);
  }

  function judgeNow(peer: UnixPeer, attestation: Attestation, check: Check): Judged {
    try {
      return judgeAttested(peer, attestation, check);
    } catch (error) {
      return judgeFailure(check, peer, error);
    }
  }

  function judgeStranger(check: Check, peer: UnixPeer, error: unknown): Judged {
    observer.failed(error);
    return { ...unjudged(check, peer), decision: deny('caller_unknown', 'the proxy could not be attested') };
  }

  function judgeFailure(check: Check, peer: UnixPeer, error: unknown): Judged {
    observer.failed(error);
    return { ...unjudged(check, peer), decision: unjudgeable() };
  }

  function unjudgeable(): Decision {
    return deny('engine_failed', 'the call could not be judged');
  }

  function judgeAttested(peer: UnixPeer, attestation: Attestation, check: Check): Judged {
    const ids = options.entitledIds(attestation);
    const [own] = ids;
    if (own === undefined) {
      return { ...unjudged(check, peer), decision: deny('caller_unknown', 'the proxy has no identity here') };
    }
    const claimed = check.claimedDestination;
    const destination = claimed === '' ? own : ids.find((id) => id.text === claimed);
    if (destination === undefined) {
      const why = 'the proxy spoke for an identity it is not entitled to';
      return { ...unjudged(check, peer), decision: deny('destination_forged', why) };
    }
    const judged = { peer, destination: destination.text, request: undefined };
    const now = clock.now();
    // INVARIANT: before policy, and before the request is looked at: no rule and no shape of a request outweighs a ban.
    const banned = findStandingDenial(
      options.bans(),
      { id: check.source, serial: check.sourceSerial, spkiSha256: check.sourceKey },
      destination,
      now,
    );
    if (banned !== undefined) return { ...judged, decision: deny('banned', banned) };
    if (check.rejection !== null) {
      return { ...judged, decision: deny(check.rejection.reason, check.rejection.why) };
    }
    const [active, call] = [snapshot(), callOf(check, destination)];
    const decided = judgeCall(active, call, now, observer.failed);
    const live = options.rollout?.() ?? null;
    return { ...judged, ...(live === null ? decided : gate.judge(live, active, call, decided, now)) };
  }

  /** Encodes and records; what is recorded is what is sent. */
  function settle(check: Check, judged: Judged): Answer {
    let decisionId = '';
    try {
      decisionId = options.newDecisionId();
      const answer = encodeDecision(judged.decision, decisionId, check.foreignHeaders, options.denyBody);
      // INVARIANT: what could not be encoded as it was decided is a denial by now, and recorded as one.
      tell({ ...judged, decision: answer.decision }, check, decisionId);
      return answer;
    } catch (error) {
      observer.failed(error);
      return encodeDecision(deny('engine_failed', 'the decision could not be recorded'), decisionId);
    }
  }

  function tell(judged: Judged, check: Check, decisionId: string): void {
    const { decision, request, peer } = judged;
    const { rollout: both } = decision;
    if (both !== undefined) compareQuietly(both, judged, check);
    // What the candidate has decided in place of a rule in force is no kind of call that rules allow.
    const isPlain =
      decision.verdict === 'allow' &&
      decision.breakGlass === '' &&
      decision.audited === '' &&
      both?.applied !== 'candidate';
    if (!isPlain || options.count === undefined || request === undefined || peer === undefined) {
      return options.record(decisionEvent(judged, check, decisionId, clock.now()));
    }
    const pathPattern = patternIn(snapshot(), patternOf, decision, request.path);
    options.count(allowedCall({ ...judged, request, peer }, check, pathPattern, clock.now()), decisionId);
  }

  /** INVARIANT: what a candidate says is for people; that it could not be told denies nobody. */
  function compareQuietly(both: RolloutVerdict, judged: Judged, check: Check): void {
    try {
      compare(both, judged, check);
    } catch (error) {
      observer.failed(error);
    }
  }

  function compare(both: RolloutVerdict, judged: Judged, check: Check): void {
    const { request, peer } = judged;
    if (options.compare === undefined || request === undefined || peer === undefined) return;
    const differs = both.active.verdict !== both.candidate.verdict;
    const live = differs ? options.rollout?.() : undefined;
    const pathPattern =
      both.candidate.verdict === 'allow' && live !== null && live !== undefined
        ? patternIn(live.candidate.snapshot, patternOfCandidate, both.candidate, request.path)
        : differs
          ? patternIn(snapshot(), patternOf, both.active, request.path)
          : anyPath;
    options.compare(candidateCall(both, { ...judged, request, peer }, check, pathPattern, clock.now()));
  }

  function deny(reason: DenyReason, why: string): Decision {
    let revision = 0;
    try {
      revision = snapshot().revision;
    } catch (error) {
      observer.failed(error);
    }
    return denyDecision(reason, why, revision);
  }
}

/** The path as the rule that allowed a call writes it. An edit may have come while the caller was attested. */
function patternIn(
  snapshot: Snapshot,
  patternOf: PathPatterns,
  { rule, revision }: Decision,
  path: string,
): string {
  const isKnown = rule !== '' && path !== '' && snapshot.revision === revision;
  return isKnown ? patternOf(snapshot, rule, path) : anyPath;
}

/** A check as it came. */
type Arrival = {
  readonly request: Buffer;
  readonly peer: UnixPeer | undefined;
  /** As `performance.now` tells it. */
  readonly arrived: number;
};

type DenyReason = Parameters<typeof denyDecision>[0];

function unjudged(check: Check, peer: UnixPeer | undefined): Omit<Judged, 'decision'> {
  return { peer, destination: check.claimedDestination, request: undefined };
}

function callOf(check: Check, destination: SpiffeId): RawCall {
  const { protocol, source, port, method, path, authority, context } = check;
  const of = { source, destination, port, context };
  return protocol === 'http' ? { protocol, ...of, method, path, authority } : { protocol, ...of };
}

const passBytes = (bytes: Buffer): Buffer => bytes;
const definition: ExtAuthzService['definition'] = {
  check: {
    path: AuthorizationService.check.path,
    requestStream: false,
    responseStream: false,
    requestSerialize: passBytes,
    requestDeserialize: passBytes,
    responseSerialize: passBytes,
    responseDeserialize: passBytes,
  },
};
