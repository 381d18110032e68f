import { MeshError } from '../errors.ts';
import { verifyJwt } from '../spiffe/jwt-verify.ts';
import type { KubernetesCluster, OfflineJudge } from './kubernetes-cluster.ts';
import type { FindKey } from './kubernetes-keys.ts';
import {
  clockLeewaySeconds,
  type KubernetesMachine,
  type ProjectedToken,
  type Refused,
} from './kubernetes-token.ts';

/**
 * Believes a token for its signature. All that needs no key is judged first, so that a token which would be refused
 * anyway has no key looked for.
 * @throws MeshError `node_attestor_unavailable` while there are no keys
 */
export async function judgeOffline(
  { audience }: KubernetesCluster,
  { issuer }: OfflineJudge,
  token: ProjectedToken,
  findKey: FindKey,
  now: Date,
): Promise<KubernetesMachine | Refused> {
  if (token.issuer !== issuer) return { refused: 'k8s_token_issuer' };
  const { account, pod, node, jwt } = token;
  if (pod === null) return { refused: 'k8s_token_not_pod_bound' };
  if (node === null) return { refused: 'k8s_token_not_node_bound' };
  const { alg, kid } = jwt.header;
  const key = await findKey(kid);
  if (key === undefined) return { refused: 'k8s_token_key_unknown' };
  if (key.alg !== null && key.alg !== alg) return { refused: 'k8s_token_signature' };
  try {
    await verifyJwt(token.text, key.authority, {
      alg,
      subject: jwt.payload.subject,
      audience,
      now,
      leewaySeconds: clockLeewaySeconds,
    });
  } catch (error) {
    if (!(error instanceof MeshError) || error.code !== 'jwt_invalid') throw error;
    return { refused: 'k8s_token_signature' };
  }
  return { account, pod, node, labels: [] };
}
