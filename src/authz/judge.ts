import { untold } from './context.ts';
import { decide, denyDecision } from './decide.ts';
import type { AuthzRequest, Decision } from './decision.ts';
import { type Explanation, explainDecision } from './explain.ts';
import { explainLikeIstio } from './explain-istio.ts';
import { decideLikeIstio, type RawCall } from './istio-mode.ts';
import { canonicalizeHttp, canonicalizeTcp, isRejection, type RawHttpRequest } from './request.ts';
import type { Snapshot } from './snapshot.ts';

/** A decision, and the call as it was judged: canonical, or as it was written where that is judged. */
export type Judged = {
  readonly decision: Decision;
  /** Undefined when the call was rejected before any policy. */
  readonly request: AuthzRequest | undefined;
};

/**
 * Judges a call as the doors for proxies do, in the mode of the snapshot. It never throws for bad input.
 * @param onFailure as in `decide`
 */
export function judgeCall(
  snapshot: Snapshot,
  call: RawCall,
  now: Date,
  onFailure?: (error: unknown) => void,
): Judged {
  if (snapshot.mode === 'istio') {
    return { decision: decideLikeIstio(snapshot, call, now, onFailure), request: asWritten(call) };
  }
  const read = call.protocol === 'http' ? canonicalizeHttp(call) : canonicalizeTcp(call);
  if (!isRejection(read)) return { decision: decide(snapshot, read, now, onFailure), request: read };
  return { decision: denyDecision(read.reason, read.why, snapshot.revision), request: undefined };
}

/**
 * Judges a call that {@link judgeCall} has let come to policy by another snapshot of the same mode.
 * @param request what it was judged as
 */
export function judgeAgain(
  snapshot: Snapshot,
  call: RawCall,
  request: AuthzRequest,
  now: Date,
  onFailure?: (error: unknown) => void,
): Decision {
  return snapshot.mode === 'istio'
    ? decideLikeIstio(snapshot, call, now, onFailure)
    : decide(snapshot, request, now, onFailure);
}

type HttpCall = Extract<RawCall, { readonly protocol: 'http' }>;

/** A call that somebody asks about. */
export type AskedCall = Omit<RawHttpRequest, 'authority'> & {
  /** Null: it is not known, and no rule is taken to match or to miss it. */
  readonly authority: string | null;
};

/**
 * Judges an HTTP call as the door for proxies would, and explains it. A call that is denied before policy is shown
 * without any policy, and as it was written when it was rejected.
 * @param standing a denial that holds whatever the policies say
 */
export function explainCall(snapshot: Snapshot, raw: AskedCall, now: Date, standing?: Decision): Explanation {
  const { authority } = raw;
  const call = { protocol: 'http', ...raw, authority: authority ?? '' } as const;
  const { decision, request } =
    authority === null ? judgeWithoutHost(snapshot, call, now) : judgeCall(snapshot, call, now);
  const judged = request ?? asWritten(call);
  const denied = standing ?? (request === undefined ? decision : undefined);
  if (denied !== undefined) {
    const said = { ...denied, mode: snapshot.mode };
    return explainDecision(snapshot, judged, said, now, { policies: [], holds: () => undefined });
  }
  return snapshot.mode === 'istio'
    ? explainLikeIstio(snapshot, call, judged, decision, now)
    : explainDecision(snapshot, judged, decision, now);
}

/** Every call has a host, and a door denies one that has none: so what stands in for it is taken out again. */
function judgeWithoutHost(snapshot: Snapshot, call: HttpCall, now: Date): Judged {
  if (snapshot.mode === 'istio') {
    const sets = snapshot.istio.rulesFor(call.destination);
    if (!sets.some(({ reads }) => reads.deciding.attributes.has('request.host'))) {
      return judgeCall(snapshot, call, now);
    }
    const why = 'a policy reads the host, which is not told';
    const denied = denyDecision('request_ambiguous', why, snapshot.revision);
    return { decision: { ...denied, mode: 'istio' }, request: asWritten(call) };
  }
  const read = canonicalizeHttp({ ...call, authority: 'unknown.invalid' });
  if (isRejection(read)) return judgeCall(snapshot, { ...call, authority: 'unknown.invalid' }, now);
  const request = { ...read, host: '' };
  return { decision: decide(snapshot, request, now), request };
}

function asWritten(call: RawCall): AuthzRequest {
  const { source, destination, protocol, port, context = untold } = call;
  const nothing = { method: '', path: '', host: '', hostPort: null };
  // A query may hold secrets and decides nothing.
  const http =
    call.protocol === 'http'
      ? { method: call.method, path: call.path.replace(/[?#].*$/s, ''), host: call.authority }
      : {};
  return { source, destination, protocol, ...nothing, ...http, port, context };
}
