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
 * Judges an HTTP call as the door for proxies would, and explains it. A call that is denied before policy is shown
 * without any policy, and as it was written when it was rejected.
 * @param standing a denial that holds whatever the policies say
 */
export function explainCall(
  snapshot: Snapshot,
  raw: RawHttpRequest,
  now: Date,
  standing?: Decision,
): Explanation {
  const call: RawCall = { protocol: 'http', ...raw };
  const { decision, request } = judgeCall(snapshot, call, now);
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
