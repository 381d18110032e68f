import { untold } from './context.ts';
import { decide, denyDecision } from './decide.ts';
import type { AuthzRequest, Decision } from './decision.ts';
import { type Explanation, explainDecision } from './explain.ts';
import { canonicalizeHttp, isRejection, type RawHttpRequest } from './request.ts';
import type { Snapshot } from './snapshot.ts';

/**
 * Judges an HTTP call as the door for proxies would, and explains it. A call that is denied before policy is shown
 * without any policy, and as it was written when it was rejected.
 * @param standing a denial that holds whatever the policies say
 */
export function explainCall(snapshot: Snapshot, raw: RawHttpRequest, standing?: Decision): Explanation {
  const read = canonicalizeHttp(raw);
  const rejected = isRejection(read) ? denyDecision(read.reason, read.why, snapshot.revision) : undefined;
  const request = isRejection(read) ? asWritten(raw) : read;
  const denied = standing ?? rejected;
  if (denied === undefined) return explainDecision(snapshot, request, decide(snapshot, request));
  return { ...explainDecision(snapshot, request, denied), policies: [], policiesOmitted: 0 };
}

function asWritten(raw: RawHttpRequest): AuthzRequest {
  const { source, destination, method, path, authority, port, context = untold } = raw;
  return {
    source,
    destination,
    protocol: 'http',
    method,
    path,
    host: authority,
    hostPort: null,
    port,
    context,
  };
}
