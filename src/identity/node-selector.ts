import { MeshError, quote } from '../errors.ts';

/** The kinds of selectors that attesting a node can yield; an alias may ask for no others. */
export const nodeSelectorKinds = [
  'join_token',
  'join_token:id',
  'x509pop:certificate',
  'x509pop:ca:fingerprint',
  'x509pop:subject:cn',
  'k8s_psat:cluster',
  'k8s_psat:agent_ns',
  'k8s_psat:agent_sa',
  'k8s_psat:agent_pod_name',
  'k8s_psat:agent_pod_uid',
  'k8s_psat:agent_node_name',
  'k8s_psat:agent_node_uid',
  'k8s_psat:agent_node_label',
] as const;
export type NodeSelectorKind = (typeof nodeSelectorKinds)[number];

/**
 * Checks one attested property of a node, such as `k8s_psat:cluster:prod`, and gives it back unchanged. Two are equal
 * when their texts are.
 * @throws MeshError `selector_invalid`
 */
export function parseNodeSelector(text: string): string {
  // Of two kinds that fit, the longer is meant: no value of `join_token` has a colon.
  const [kind] = nodeSelectorKinds
    .filter((known) => text.startsWith(`${known}:`))
    .sort((a, b) => b.length - a.length);
  if (kind === undefined) {
    throw new MeshError('selector_invalid', `selector ${quote(text)} has a kind that no node has`, {
      fix: `use one of ${nodeSelectorKinds.join(', ')}, for example k8s_psat:cluster:prod`,
    });
  }
  const { pattern, problem, example } = forms[kind];
  if (pattern.test(text.slice(kind.length + 1))) return text;
  throw new MeshError('selector_invalid', `selector ${quote(text)} ${problem}`, {
    fix: `write it as ${kind}:${example}`,
  });
}

/** The selector of what an attestor has seen, or nothing when it is not of the form an alias could ask for. */
export function nodeSelector(kind: NodeSelectorKind, value: string): readonly string[] {
  return forms[kind].pattern.test(value) ? [`${kind}:${value}`] : [];
}

type Form = { readonly pattern: RegExp; readonly problem: string; readonly example: string };

const dnsLabel = '[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?';
const sha256: Form = {
  pattern: /^[0-9a-f]{64}$/,
  problem: 'is not 64 hexadecimal digits in lower case',
  example: 'ab'.repeat(32),
};
const uid: Form = {
  pattern: /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/,
  problem: 'is not a uid of Kubernetes',
  example: '2c48913c-b29f-11e7-9350-020968147796',
};
const objectName = {
  pattern: /^(?=.{1,253}$)[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?$/,
  problem: 'is not a name of Kubernetes',
};

// What each attestor can produce, so that an alias with a slip of the pen is refused rather than never matched.
const forms: Record<NodeSelectorKind, Form> = {
  join_token: {
    pattern: /^[a-z0-9][a-z0-9._-]{0,127}$/,
    problem: 'is not the name of a node',
    example: 'web-1',
  },
  'join_token:id': {
    pattern: /^[0-9a-f]{16}$/,
    problem: 'is not the id of a join token',
    example: '0123456789abcdef',
  },
  'x509pop:certificate': sha256,
  'x509pop:ca:fingerprint': sha256,
  'x509pop:subject:cn': {
    pattern: /^[\x20-\x7e]{1,256}$/,
    problem: 'is not a name of 1 to 256 printable ASCII characters',
    example: 'web-1',
  },
  'k8s_psat:cluster': {
    pattern: new RegExp(`^${dnsLabel}$`),
    problem: 'is not the name of a cluster',
    example: 'prod',
  },
  'k8s_psat:agent_ns': {
    pattern: new RegExp(`^${dnsLabel}$`),
    problem: 'is not a namespace',
    example: 'countersign',
  },
  'k8s_psat:agent_sa': { ...objectName, example: 'agent' },
  'k8s_psat:agent_pod_name': { ...objectName, example: 'agent-x7k2p' },
  'k8s_psat:agent_pod_uid': uid,
  'k8s_psat:agent_node_name': { ...objectName, example: 'node-1' },
  'k8s_psat:agent_node_uid': uid,
  // A key has no colon, so that the first one parts it from the value, which may be empty.
  'k8s_psat:agent_node_label': {
    pattern:
      /^(?:[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?\/)?[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?:(?:[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$/,
    problem: 'is not a key and a value',
    example: 'topology.kubernetes.io/zone:a',
  },
};
