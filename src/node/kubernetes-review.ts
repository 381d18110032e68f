import type { Clock } from '../clock.ts';
import { MeshError } from '../errors.ts';
import { createTurns } from '../identity/turns.ts';
import { membersOf } from '../spiffe/inspect-json.ts';
import { askHttps } from './kubernetes-call.ts';
import type { KubernetesCluster, TokenReviewJudge } from './kubernetes-cluster.ts';
import {
  isObjectName,
  isUid,
  type KubernetesMachine,
  type Named,
  type ProjectedToken,
  readAccount,
  type Refused,
} from './kubernetes-token.ts';

/**
 * Asks an API server about tokens.
 * @param signal whoever sent the token has gone: once its turn comes nobody is asked about it
 * @throws MeshError `node_attestor_unavailable`
 */
export type ReviewToken = (
  token: ProjectedToken,
  signal?: AbortSignal,
) => Promise<KubernetesMachine | Refused>;

export type ReviewerParts = {
  readonly clock: Clock;
  readonly warn: (message: string, detail: object) => void;
  /** How long all questions about one token may take together. */
  readonly timeoutMs?: number;
};

/** After a question without an answer none is asked for so long: whoever comes meanwhile is sent away at once. */
export const reviewPauseMs = 1_000;

/**
 * Has the API server of a cluster review tokens, then looks up the pod that a token is bound to and the node that it
 * runs on: what counts is what is there now, not what was when the token was made.
 * @see Kubernetes API reference: TokenReview v1, Pod v1, Node v1
 */
export function createReviewer(
  cluster: KubernetesCluster,
  { server, nodeLabels }: TokenReviewJudge,
  { clock, warn, timeoutMs = 8_000 }: ReviewerParts,
): ReviewToken {
  const turns = createTurns(reviewsAtOnce);
  let failedMs: number | undefined;
  // It may stand behind a path of another server.
  const base = server.url.pathname.replace(/\/+$/, '');

  return (token, gone) =>
    turns(async () => {
      if (gone?.aborted === true) throw unavailable();
      if (failedMs !== undefined && Math.abs(clock.now().getTime() - failedMs) < reviewPauseMs)
        throw unavailable();
      const signal = AbortSignal.timeout(timeoutMs);
      const ask: Ask = async (question, expected) => {
        const { status, text } = await askHttps({
          at: server,
          maxBytes: maxAnswerBytes,
          signal,
          ...question,
          path: `${base}${question.path}`,
        }).catch((error: unknown) => {
          failedMs = clock.now().getTime();
          throw error;
        });
        if (expected.includes(status)) return membersOf(JSON.parse(text)) ?? new Map<string, unknown>();
        if (status === 404 && question.method === 'GET') return undefined;
        if (status === 401 || status === 403) throw new Error(`the API server refused: ${status}; ${rights}`);
        throw new Error(`the API server answered ${status}`);
      };
      try {
        return await review(cluster, token, nodeLabels, ask);
      } catch (error) {
        // INVARIANT: whatever goes wrong, the token is not believed.
        warn('a cluster cannot be asked about a token', { cluster: cluster.name, error: String(error) });
        throw unavailable();
      }
    });
}

type Members = ReadonlyMap<string, unknown>;
/** @returns undefined for what is not there */
type Ask = (
  question: { readonly method: 'GET' | 'POST'; readonly path: string; readonly body?: string },
  expected: readonly number[],
) => Promise<Members | undefined>;

async function review(
  { audience, serviceAccounts }: KubernetesCluster,
  { text }: ProjectedToken,
  nodeLabels: readonly string[],
  ask: Ask,
): Promise<KubernetesMachine | Refused> {
  const spec = { token: text, audiences: [audience] };
  const body = JSON.stringify({ apiVersion: 'authentication.k8s.io/v1', kind: 'TokenReview', spec });
  const path = '/apis/authentication.k8s.io/v1/tokenreviews';
  const reviewed = await ask({ method: 'POST', path, body }, [200, 201]);
  const status = membersOf(reviewed?.get('status'));
  if (status === undefined) throw new Error('the API server sent no review');
  // INVARIANT: a token that was not checked to the end does not count, whatever else is said of it.
  const failure = status.get('error') ?? '';
  if (status.get('authenticated') !== true || failure !== '') return { refused: 'k8s_token_rejected' };
  // INVARIANT: an API server that knows nothing of audiences leaves them out, and has then not looked.
  const audiences = status.get('audiences');
  if (!Array.isArray(audiences) || !audiences.includes(audience)) return { refused: 'k8s_token_audience' };
  const user = membersOf(status.get('user'));
  const account = readAccount(user?.get('username'));
  if (account === undefined) return { refused: 'k8s_token_subject' };
  if (!serviceAccounts.has(`${account.namespace}:${account.name}`))
    return { refused: 'k8s_service_account_refused' };
  const extra = membersOf(user?.get('extra')) ?? new Map<string, unknown>();
  const [podName, podUid] = [only(extra, 'pod-name'), only(extra, 'pod-uid')];
  if (!isObjectName(podName) || !isUid(podUid)) return { refused: 'k8s_token_not_pod_bound' };
  const pod = { name: podName, uid: podUid };
  const nodeName = await nodeOfPod(pod, account, ask);
  if (typeof nodeName !== 'string') return nodeName;
  // Younger API servers say which node the token was made on.
  const said = [only(extra, 'node-name'), only(extra, 'node-uid')];
  if (said[0] !== undefined && said[0] !== nodeName) return { refused: 'k8s_node_mismatch' };
  const found = await ask({ method: 'GET', path: `/api/v1/nodes/${nodeName}` }, [200]);
  if (found === undefined) return { refused: 'k8s_node_missing' };
  const metadata = membersOf(found.get('metadata'));
  const uid = metadata?.get('uid');
  if (found.get('kind') !== 'Node' || metadata?.get('name') !== nodeName || !isUid(uid)) {
    throw new Error('the API server sent another node than it was asked for');
  }
  if (said[1] !== undefined && said[1] !== uid) return { refused: 'k8s_node_mismatch' };
  const all = membersOf(metadata.get('labels'));
  const labels = nodeLabels.flatMap((key): (readonly [string, string])[] => {
    const value = all?.get(key);
    return typeof value === 'string' ? [[key, value]] : [];
  });
  return { account, pod, node: { name: nodeName, uid }, labels };
}

/** The node that a pod runs on, if the pod is the one that the token was made for and goes on. */
async function nodeOfPod(
  { name, uid }: Named,
  account: KubernetesMachine['account'],
  ask: Ask,
): Promise<string | Refused> {
  const pod = await ask(
    { method: 'GET', path: `/api/v1/namespaces/${account.namespace}/pods/${name}` },
    [200],
  );
  if (pod === undefined) return { refused: 'k8s_pod_missing' };
  const [metadata, spec] = [membersOf(pod.get('metadata')), membersOf(pod.get('spec'))];
  if (pod.get('kind') !== 'Pod' || metadata?.get('name') !== name) {
    throw new Error('the API server sent another pod than it was asked for');
  }
  // One that was made anew under the same name is another.
  if (metadata.get('uid') !== uid || spec?.get('serviceAccountName') !== account.name) {
    return { refused: 'k8s_pod_mismatch' };
  }
  const phase = membersOf(pod.get('status'))?.get('phase');
  const isEnding = (metadata.get('deletionTimestamp') ?? null) !== null;
  if (isEnding || phase === 'Succeeded' || phase === 'Failed') return { refused: 'k8s_pod_ending' };
  const nodeName = spec.get('nodeName');
  return isObjectName(nodeName) ? nodeName : { refused: 'k8s_pod_unscheduled' };
}

/** The one value of an extra; two of them are none. */
function only(extra: Members, name: string): unknown {
  const values = extra.get(`authentication.kubernetes.io/${name}`);
  if (values === undefined) return undefined;
  return Array.isArray(values) && values.length === 1 ? (values[0] as unknown) : null;
}

function unavailable(): MeshError {
  return new MeshError('node_attestor_unavailable', 'the cluster cannot be asked about the token now', {
    fix: 'try again later',
  });
}

const rights = 'the service account needs create on tokenreviews, and get on pods and nodes';
const reviewsAtOnce = 8;
// An object of Kubernetes has 1.5 MiB at most.
const maxAnswerBytes = 2_097_152;
