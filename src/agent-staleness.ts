import { parsePolicy } from './authz/parse.ts';
import { compileSnapshot, type Snapshot } from './authz/snapshot.ts';
import type { MeshSettings } from './identity/current-mesh.ts';
import type { ViewSettings } from './identity/view.ts';
import { readDocuments } from './yaml.ts';

/**
 * Whether a policy that the server confirmed at `freshAt` is too old to decide by. A confirmation that lies in the future
 * was noted by a clock that went wrong: it is given no more time than one in the past.
 */
export function isStale(
  freshAt: Date,
  now: Date,
  { maxStalenessSeconds }: Pick<ViewSettings, 'maxStalenessSeconds'>,
): boolean {
  return !(Math.abs(now.getTime() - freshAt.getTime()) <= maxStalenessSeconds * 1_000);
}

/**
 * What an agent decides by when the server has not confirmed its policy for too long: every call is denied, and the reason
 * names the rule `countersign-stale-policy`.
 */
export function staleSnapshot(
  { revision }: Pick<Snapshot, 'revision'>,
  { trustDomain, rootNamespace }: MeshSettings,
): Snapshot {
  const known = made.get(rootNamespace);
  if (known !== undefined) return known.at(revision);
  const [document] = readDocuments({
    file: 'countersign',
    text: JSON.stringify({
      apiVersion: 'security.istio.io/v1',
      kind: 'AuthorizationPolicy',
      metadata: { name: 'countersign-stale-policy', namespace: rootNamespace },
      spec: { action: 'DENY', rules: [{}] },
    }),
  });
  const policies = document === undefined ? [] : [parsePolicy(document)];
  const snapshot = compileSnapshot({ revision, trustDomain, rootNamespace, policies, workloads: [] });
  made.set(rootNamespace, snapshot);
  return snapshot;
}

const made = new Map<string, Snapshot>();
