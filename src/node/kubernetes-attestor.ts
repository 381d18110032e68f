import type { Clock } from '../clock.ts';
import { kubernetesNodeName } from '../identity/node.ts';
import { nodeSelector } from '../identity/node-selector.ts';
import { askHttps, readBounded } from './kubernetes-call.ts';
import type { KubernetesCluster } from './kubernetes-cluster.ts';
import { createKeySource, type FindKey } from './kubernetes-keys.ts';
import { judgeOffline } from './kubernetes-offline.ts';
import { createReviewer, type ReviewToken } from './kubernetes-review.ts';
import { type KubernetesMachine, readProjectedToken, type Refused } from './kubernetes-token.ts';

/** A node of a cluster, as it is let in. */
export type ProvenNode = { readonly name: string; readonly selectors: readonly string[] };

/**
 * Proves which node of a Kubernetes cluster somebody is on.
 * @param signal aborts when whoever asks has gone: what waits for its turn is dropped then
 * @throws MeshError `node_attestor_unavailable` when nobody could say
 */
export type ProveKubernetes = (
  cluster: string,
  token: string,
  signal?: AbortSignal,
) => Promise<ProvenNode | Refused>;

export type KubernetesAttestorParts = {
  readonly clusters: ReadonlyMap<string, KubernetesCluster>;
  readonly clock: Clock;
  /** Takes what an operator has to know, never a token. */
  readonly warn: (message: string, detail: object) => void;
};

export function createKubernetesAttestor({
  clusters,
  clock,
  warn,
}: KubernetesAttestorParts): ProveKubernetes {
  const judges = new Map(
    [...clusters.values()].map((cluster) => [cluster.name, judgeOf(cluster, clock, warn)]),
  );
  return async (clusterName, text, signal) => {
    const [cluster, judge] = [clusters.get(clusterName), judges.get(clusterName)];
    if (cluster === undefined || judge === undefined) return { refused: 'k8s_cluster_unknown' };
    const token = readProjectedToken(text, cluster.audience, clock.now());
    if ('refused' in token) return token;
    const { namespace, name } = token.account;
    if (!cluster.serviceAccounts.has(`${namespace}:${name}`))
      return { refused: 'k8s_service_account_refused' };
    const machine = await judge(token, signal);
    return 'refused' in machine ? machine : provenNode(cluster.name, machine);
  };
}

function judgeOf(
  cluster: KubernetesCluster,
  clock: Clock,
  warn: KubernetesAttestorParts['warn'],
): ReviewToken {
  const { judge } = cluster;
  if (judge.kind === 'token-review') return createReviewer(cluster, judge, { clock, warn });
  const findKey: FindKey = createKeySource({
    fetch: () => fetchKeys(judge.keys),
    clock,
    warn: (message, detail) => warn(message, { cluster: cluster.name, ...detail }),
  });
  return (token) => judgeOffline(cluster, judge, token, findKey, clock.now());
}

async function fetchKeys(
  keys: Extract<KubernetesCluster['judge'], { kind: 'offline' }>['keys'],
): Promise<string> {
  if ('file' in keys) return readBounded(keys.file, maxKeysBytes);
  const { status, text } = await askHttps({
    at: keys,
    method: 'GET',
    path: keys.url.pathname,
    maxBytes: maxKeysBytes,
    signal: AbortSignal.timeout(fetchMs),
  });
  if (status !== 200) throw new Error(`the answer has the status ${status}`);
  return text;
}

function provenNode(cluster: string, { account, pod, node, labels }: KubernetesMachine): ProvenNode {
  return {
    name: kubernetesNodeName(cluster, node.uid),
    selectors: [
      ...nodeSelector('k8s_psat:cluster', cluster),
      ...nodeSelector('k8s_psat:agent_ns', account.namespace),
      ...nodeSelector('k8s_psat:agent_sa', account.name),
      ...nodeSelector('k8s_psat:agent_pod_name', pod.name),
      ...nodeSelector('k8s_psat:agent_pod_uid', pod.uid),
      ...nodeSelector('k8s_psat:agent_node_name', node.name),
      ...nodeSelector('k8s_psat:agent_node_uid', node.uid),
      ...labels.flatMap(([key, value]) => nodeSelector('k8s_psat:agent_node_label', `${key}:${value}`)),
    ],
  };
}

const maxKeysBytes = 262_144;
const fetchMs = 8_000;
