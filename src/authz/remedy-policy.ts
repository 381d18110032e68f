import { createHash } from 'node:crypto';
import { MeshError } from '../errors.ts';
import { kubernetesNames } from '../spiffe/id.ts';
import { readDocuments } from '../yaml.ts';
import type { Label } from './attachment.ts';
import type { AuthzRequest } from './decision.ts';
import { Facts } from './facts.ts';
import { compileRule, ruleHolds } from './match.ts';
import { parsePolicy, policyApiVersions, policyKind } from './parse.ts';
import { isWritable } from './remedy-values.ts';
import type { Snapshot } from './snapshot.ts';

/**
 * A policy that allows one caller one method on one path of one service, on its port if that is known; for a TCP connection
 * all that the caller does on that port. Null when it cannot be written: the destination has no namespace, no labels of its own
 * tell it from other registered workloads, a value has a `*`, or the port of a connection is not known.
 */
export function composePolicy(request: AuthzRequest, snapshot: Snapshot, now: Date): string | null {
  const { source, destination, method, path, port, protocol } = request;
  const labels = snapshot.sharedLabels(destination);
  const namespace = kubernetesNames(destination)?.namespace ?? labels.get('namespace');
  if (source === null || namespace === undefined) return null;
  // Of a connection nothing but its port can narrow the policy.
  if (protocol === 'tcp' ? port === 0 : !(isWritable(method) && isWritable(path))) return null;
  const caller = source.text.slice('spiffe://'.length);
  const operation = [
    ...(protocol === 'http' ? [`methods: [${quoted(method)}]`, `paths: [${quoted(path)}]`] : []),
    ...(port === 0 ? [] : [`ports: [${quoted(String(port))}]`]),
  ];
  const selector = selectorsOf(labels).find((one) => !snapshot.reachesOthers(destination, namespace, one));
  if (selector === undefined) return null;
  const text = [
    `apiVersion: ${policyApiVersions[0]}`,
    `kind: ${policyKind}`,
    'metadata:',
    `  name: ${nameFor([caller, destination.text, method, path, String(port)])}`,
    `  namespace: ${quoted(namespace)}`,
    'spec:',
    ...(selector.length === 0 ? [] : ['  selector:', '    matchLabels:']),
    ...selector.map(([name, value]) => `      ${quoted(name)}: ${quoted(value)}`),
    '  action: ALLOW',
    '  rules:',
    '    - from:',
    '        - source:',
    `            principals: [${quoted(caller)}]`,
    '      to:',
    '        - operation:',
    ...operation.map((field) => `            ${field}`),
    '',
  ].join('\n');
  return allows(text, request, snapshot, now) ? text : null;
}

/** The label by which people select workloads; else all that every workload of that ID carries. */
function selectorsOf(labels: ReadonlyMap<string, string>): readonly (readonly Label[])[] {
  const usual = ['app', 'app.kubernetes.io/name'].flatMap((name): readonly (readonly Label[])[] => {
    const value = labels.get(name);
    return value === undefined ? [] : [[[name, value]]];
  });
  return [...usual, [...labels].slice(0, maxSelectorLabels)];
}

const maxSelectorLabels = 16;

/** The same call gets the same name, so that applying it twice makes one policy. */
function nameFor(parts: readonly string[]): string {
  return `allow-${createHash('sha256').update(JSON.stringify(parts)).digest('hex').slice(0, 10)}`;
}

/** INVARIANT: nobody is told of a policy that was not tried. */
function allows(text: string, request: AuthzRequest, snapshot: Snapshot, now: Date): boolean {
  try {
    const [document] = readDocuments({ file: 'suggestion', text });
    if (document === undefined) return false;
    const policy = parsePolicy(document);
    const facts = new Facts(request, snapshot.trustDomain, now);
    return policy.rules.some((rule, i) => ruleHolds(compileRule(policy, rule, i), facts));
  } catch (error) {
    if (error instanceof MeshError) return false;
    throw error;
  }
}

/** JSON strings are YAML. */
function quoted(text: string): string {
  return JSON.stringify(text);
}
