import { MeshError } from '../errors.ts';
import { membersOf } from '../spiffe/inspect-json.ts';
import { type Jwt, maxTokenBytes, readJwt } from '../spiffe/jwt-token.ts';

/**
 * Why a Kubernetes token lets nobody in. For the log of the server alone: whoever sent it is told that it does not
 * count, and no more.
 */
export const kubernetesRefusals = [
  'k8s_cluster_unknown',
  'k8s_token_malformed',
  'k8s_token_legacy',
  'k8s_token_issuer',
  'k8s_token_audience',
  'k8s_token_expired',
  'k8s_token_not_yet_valid',
  'k8s_token_lifetime',
  'k8s_token_subject',
  'k8s_token_not_pod_bound',
  'k8s_token_not_node_bound',
  'k8s_token_key_unknown',
  'k8s_token_signature',
  'k8s_token_rejected',
  'k8s_service_account_refused',
  'k8s_pod_missing',
  'k8s_pod_mismatch',
  'k8s_pod_ending',
  'k8s_pod_unscheduled',
  'k8s_node_missing',
  'k8s_node_mismatch',
] as const;
export type KubernetesRefusal = (typeof kubernetesRefusals)[number];
export type Refused = { readonly refused: KubernetesRefusal };

/** What a projected service account token says of itself; nothing of it is proven. */
export type ProjectedToken = {
  readonly text: string;
  readonly jwt: Jwt;
  readonly issuer: string;
  /** Of `sub`. */
  readonly account: ServiceAccount;
  /** `kubernetes.io`: what the token is bound to. */
  readonly pod: Named | null;
  readonly node: Named | null;
};

export type ServiceAccount = { readonly namespace: string; readonly name: string };
/** An object of Kubernetes. */
export type Named = { readonly name: string; readonly uid: string };

/** What a token has proven of the machine that its pod runs on. */
export type KubernetesMachine = {
  readonly account: ServiceAccount;
  readonly pod: Named;
  readonly node: Named;
  /** Those of the node that the cluster's document names. */
  readonly labels: readonly (readonly [string, string])[];
};

/** The longest life that a token may have, from now on: that of a projected one is ten minutes to a day. */
export const longestTokenSeconds = 86_400;
/** How far the clock of a cluster may be ahead of ours. */
export const clockLeewaySeconds = 60;

/**
 * Reads a token as strictly as our own: see {@link readJwt}. Its times and its audience are judged here, so that most of
 * what is sent by mistake or in bad faith never costs a question to anybody.
 */
export function readProjectedToken(text: string, audience: string, now: Date): ProjectedToken | Refused {
  let jwt: Jwt;
  try {
    jwt = readJwt(text);
  } catch (error) {
    if (!(error instanceof MeshError)) throw error;
    return { refused: isLegacy(text) ? 'k8s_token_legacy' : 'k8s_token_malformed' };
  }
  const { subject, audiences, expiresAt, issuedAt, notBefore, claims } = jwt.payload;
  const issuer = claims.get('iss');
  if (issuer === legacyIssuer) return { refused: 'k8s_token_legacy' };
  if (typeof issuer !== 'string') return { refused: 'k8s_token_issuer' };
  // INVARIANT: for us alone. One that is for others, too, may come from any of them, and opens their doors from here.
  if (audiences.length !== 1 || audiences[0] !== audience) return { refused: 'k8s_token_audience' };
  const nowMs = now.getTime();
  if (!(nowMs < expiresAt.getTime())) return { refused: 'k8s_token_expired' };
  const latestMs = nowMs + clockLeewaySeconds * 1_000;
  if ([issuedAt, notBefore].some((time) => time !== null && time.getTime() > latestMs)) {
    return { refused: 'k8s_token_not_yet_valid' };
  }
  if (expiresAt.getTime() > latestMs + longestTokenSeconds * 1_000) return { refused: 'k8s_token_lifetime' };
  const account = readAccount(subject);
  const bound = membersOf(claims.get('kubernetes.io'));
  const bearer = membersOf(bound?.get('serviceaccount'));
  // Both say whose it is: a token in which they differ was made by nobody who means well.
  if (
    account === undefined ||
    bound?.get('namespace') !== account.namespace ||
    bearer?.get('name') !== account.name
  ) {
    return { refused: 'k8s_token_subject' };
  }
  return { text, jwt, issuer, account, pod: namedOf(bound.get('pod')), node: namedOf(bound.get('node')) };
}

/** The service account that a user is, or undefined. */
export function readAccount(user: unknown): ServiceAccount | undefined {
  if (typeof user !== 'string' || user.length > maxUserLength) return undefined;
  const [, namespace, name] = serviceAccountUser.exec(user) ?? [];
  return namespace === undefined || name === undefined ? undefined : { namespace, name };
}

/** Whether a text may be the name of an object of Kubernetes, and so stand in a URL. */
export function isObjectName(text: unknown): text is string {
  return typeof text === 'string' && /^(?=.{1,253}$)[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?$/.test(text);
}

/** Whether a text may be the uid of an object that the API server made. */
export function isUid(text: unknown): text is string {
  return typeof text === 'string' && /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(text);
}

function namedOf(value: unknown): Named | null {
  const members = membersOf(value);
  const [name, uid] = [members?.get('name'), members?.get('uid')];
  return isObjectName(name) && isUid(uid) ? { name, uid } : null;
}

/** Tokens of the kind that is kept in a Secret never expire; they are told apart so that the log can say what to do. */
function isLegacy(token: string): boolean {
  if (token.length > maxTokenBytes) return false;
  try {
    const payload: unknown = JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString('utf8'));
    return membersOf(payload)?.get('iss') === legacyIssuer;
  } catch {
    return false;
  }
}

const legacyIssuer = 'kubernetes/serviceaccount';
const maxUserLength = 512;
const serviceAccountUser =
  /^system:serviceaccount:([a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?):((?=.{1,253}$)[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?)$/;
