import { kubernetesNames } from '../spiffe/id.ts';
import type { AuthzRequest, Decision } from './decision.ts';
import type { Policy, Predicate, StringMatch } from './policy.ts';
import type { SnapshotInput, Workload } from './snapshot.ts';

/**
 * The specification in code: what `decide` must answer, said as plainly as we can and with no thought for speed. It
 * shares no code with the index; tests hold the two against each other.
 */
export function decideNaively(
  mesh: SnapshotInput,
  request: AuthzRequest,
): Pick<Decision, 'verdict' | 'reason' | 'rule'> {
  if (request.source === null) return { verdict: 'deny', reason: 'unauthenticated', rule: '' };
  const policies = mesh.policies
    .filter((policy) => applies(mesh, policy, request))
    .sort((a, b) => (a.key < b.key ? -1 : 1));
  if (policies.length === 0) return { verdict: 'deny', reason: 'no_policy', rule: '' };
  for (const action of ['DENY', 'ALLOW'] as const) {
    for (const rule of policies.filter((policy) => policy.action === action).flatMap(({ rules }) => rules)) {
      // What cannot be judged holds for DENY and fails for ALLOW.
      const holds = (predicate: Predicate): boolean =>
        evaluate(mesh, predicate, request) ?? action === 'DENY';
      const anyHolds = (entries: readonly { readonly predicates: readonly Predicate[] }[]): boolean =>
        entries.length === 0 || entries.some(({ predicates }) => predicates.every(holds));
      if (!anyHolds(rule.from) || !anyHolds(rule.to)) continue;
      return action === 'DENY'
        ? { verdict: 'deny', reason: 'deny_rule', rule: rule.name }
        : { verdict: 'allow', reason: 'allow_rule', rule: rule.name };
    }
  }
  return { verdict: 'deny', reason: 'no_allow_rule', rule: '' };
}

function applies(mesh: SnapshotInput, policy: Policy, { destination }: AuthzRequest): boolean {
  if (destination.trustDomain.name !== mesh.trustDomain.name) return false;
  const known = mesh.workloads.filter(({ id }) => id.text === destination.text);
  const workloads: readonly Workload[] = known.length > 0 ? known : [{ id: destination, labels: {} }];
  const attaches = ({ id, labels }: Workload): boolean => {
    const own = kubernetesNames(id)?.namespace ?? new Map(Object.entries(labels)).get('namespace');
    const inNamespace = policy.namespace === mesh.rootNamespace || policy.namespace === own;
    const carried = new Map(Object.entries(labels));
    return inNamespace && [...policy.selector].every(([key, value]) => carried.get(key) === value);
  };
  return policy.action === 'DENY' ? workloads.some(attaches) : workloads.every(attaches);
}

function evaluate(mesh: SnapshotInput, predicate: Predicate, request: AuthzRequest): boolean | undefined {
  const matched = evaluatePositive(mesh, predicate, request);
  return matched === undefined ? undefined : matched !== predicate.negated;
}

function evaluatePositive(
  mesh: SnapshotInput,
  predicate: Predicate,
  request: AuthzRequest,
): boolean | undefined {
  if (predicate.field === 'ports')
    return request.port === 0 ? undefined : predicate.matches.includes(request.port);
  if (predicate.field === 'hosts') {
    if (request.protocol === 'tcp') return undefined;
    const named = predicate.matches.filter(({ name }) => compare(name, request.host));
    if (named.some(({ port }) => port === null || port === request.hostPort)) return true;
    return named.length > 0 && request.hostPort === null ? undefined : false;
  }
  const { source, protocol } = request;
  const own = source !== null && source.trustDomain.name === mesh.trustDomain.name;
  const text = {
    principals: source?.text.replace('spiffe://', ''),
    namespaces: own ? kubernetesNames(source)?.namespace : undefined,
    methods: protocol === 'http' ? request.method : undefined,
    paths: protocol === 'http' ? request.path : undefined,
  }[predicate.field];
  return text === undefined ? undefined : predicate.matches.some((match) => compare(match, text));
}

function compare(match: StringMatch, text: string): boolean {
  if (match.kind === 'present') return text !== '';
  if (match.kind === 'prefix') return text.startsWith(match.text);
  return match.kind === 'suffix' ? text.endsWith(match.text) : text === match.text;
}
