import { decide, denyDecision } from './decide.ts';
import type { AuthzRequest } from './decision.ts';
import { type Explanation, explainDecision } from './explain.ts';
import { canonicalizeHttp, isRejection, type RawHttpRequest } from './request.ts';
import type { Snapshot } from './snapshot.ts';

/**
 * Judges an HTTP call as the door for proxies would, and explains it. A call that is rejected before policy is shown as
 * it was written, and no policy is.
 */
export function explainCall(snapshot: Snapshot, raw: RawHttpRequest): Explanation {
  const request = canonicalizeHttp(raw);
  if (!isRejection(request)) return explainDecision(snapshot, request, decide(snapshot, request));
  const { source, destination, method, path, authority, port } = raw;
  const asWritten: AuthzRequest = {
    source,
    destination,
    protocol: 'http',
    method,
    path,
    host: authority,
    hostPort: null,
    port,
  };
  const denied = denyDecision(request.reason, request.why, snapshot.revision);
  return { ...explainDecision(snapshot, asWritten, denied), policies: [], policiesOmitted: 0 };
}
