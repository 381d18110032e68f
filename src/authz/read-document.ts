import { quote } from '../errors.ts';
import type { YamlDocument } from '../yaml.ts';
import type { YamlMapping, YamlNode } from '../yaml-node.ts';
import {
  type Condition,
  type DocumentRule,
  type PolicyAction,
  policyActions,
  type PolicyDocument,
  type TargetRef,
} from './document.ts';
import { readOperation, readSource, readWhen } from './read-conditions.ts';

/** The most rules of a policy, entries of each of its lists, values of a field and labels of a selector. */
const maxListLength = 512;
const maxTargetRefs = 16;
const defaultNamespace = 'default';

/**
 * Reads an AuthorizationPolicy of Istio's API v1, the whole language, and refuses what Istio's own validation refuses.
 * Nothing is skipped: a field that the language does not have is an error.
 * @param beyond fields of `spec` that Istio does not have, and that somebody else reads
 * @throws MeshError with its place and a fix: `document_kind_unknown`, `document_field_unknown`,
 * `document_field_missing`, `document_field_type`, `policy_invalid`
 */
export function readPolicyDocument(document: YamlDocument, beyond: readonly string[] = []): PolicyDocument {
  const top = document.root.mapping(['apiVersion', 'kind', 'metadata', 'spec', 'status']);
  const metadata = readMetadata(top.required('metadata'));
  const spec = top
    .required('spec')
    .mapping(['selector', 'targetRef', 'targetRefs', 'action', 'provider', 'rules', ...beyond]);
  const action = readAction(spec);
  const rules = (spec.optional('rules')?.sequence() ?? []).map((node) => readRule(node, action));
  checkLength(spec.optional('rules'), rules.length);
  if ((action === 'DENY' || action === 'CUSTOM') && rules.length === 0) {
    throw spec.node.error('policy_invalid', `is of action ${action} and has no rules`, 'add rules');
  }
  const selector = readSelector(spec);
  const targetRefs = readTargetRefs(spec);
  if (spec.optional('selector') !== undefined && targetRefs.length > 0) {
    throw spec.node.error('policy_invalid', 'has both a selector and targetRefs', 'keep one of the two');
  }
  const { namespace, name, dryRun } = metadata;
  if (dryRun !== null && action !== 'ALLOW' && action !== 'DENY') {
    throw dryRun.error('policy_invalid', `goes with ALLOW and DENY, not with ${action}`, 'remove it');
  }
  return {
    namespace,
    name,
    action,
    provider: readProvider(spec, action),
    selector,
    targetRefs,
    dryRun: dryRun !== null && readGoBoolean(dryRun),
    rules,
    place: document.root.place,
  };
}

function readMetadata(node: YamlNode) {
  const fields = new Map(node.entries().map(({ key, value }) => [key, value]));
  const name = fields.get('name');
  if (name === undefined) throw node.error('document_field_missing', 'has no name', 'add name');
  const annotations = fields.get('annotations')?.entries() ?? [];
  return {
    name: name.string(),
    namespace: fields.get('namespace')?.string() ?? defaultNamespace,
    dryRun: annotations.find(({ key }) => key === 'istio.io/dry-run')?.value ?? null,
  };
}

/** As strconv.ParseBool reads it. */
function readGoBoolean(node: YamlNode): boolean {
  const text = node.string();
  if (/^(?:1|t|T|TRUE|true|True)$/.test(text)) return true;
  if (/^(?:0|f|F|FALSE|false|False)$/.test(text)) return false;
  throw node.error('policy_invalid', `is ${quote(text)}, which is no boolean`, 'write "true" or "false"');
}

function readAction(spec: YamlMapping): PolicyAction {
  const node = spec.optional('action');
  if (node === undefined) return 'ALLOW';
  const text = node.string();
  const action = policyActions.find((known) => known === text);
  if (action !== undefined) return action;
  throw node.error(
    'policy_invalid',
    `is ${quote(text)}, which is no action`,
    `write one of ${policyActions.join(', ')}`,
  );
}

function readProvider(spec: YamlMapping, action: PolicyAction): string | null {
  const node = spec.optional('provider');
  const name = node?.mapping(['name']).required('name').string() ?? null;
  if (node !== undefined && action !== 'CUSTOM') {
    throw node.error('policy_invalid', 'goes with action CUSTOM only', 'remove it');
  }
  if (action === 'CUSTOM' && (name === null || name === '')) {
    throw spec.node.error('policy_invalid', 'is of action CUSTOM and names no provider', 'add provider.name');
  }
  return name;
}

function readSelector(spec: YamlMapping): ReadonlyMap<string, string> {
  const labels = spec.optional('selector')?.mapping(['matchLabels']).optional('matchLabels')?.entries() ?? [];
  const selector = new Map<string, string>();
  for (const { key, value } of labels) {
    const text = value.string();
    if (key === '') throw value.error('policy_invalid', 'has an empty name', 'name the label');
    if (key.includes('*') || text.includes('*')) {
      throw value.error('policy_invalid', 'has a *, and labels have no wildcards', 'write the label in full');
    }
    selector.set(key, text);
  }
  return selector;
}

function readTargetRefs(spec: YamlMapping): readonly TargetRef[] {
  const single = spec.optional('targetRef');
  const several = spec.optional('targetRefs');
  if (single !== undefined && several !== undefined) {
    throw single.error('policy_invalid', 'stands beside targetRefs', 'keep targetRefs');
  }
  const nodes = single === undefined ? (several?.sequence() ?? []) : [single];
  if (nodes.length > maxTargetRefs) {
    throw spec
      .required('targetRefs')
      .error('policy_invalid', `has more than ${maxTargetRefs} entries`, 'split the policy');
  }
  return nodes.map((node) => {
    const ref = node.mapping(['group', 'kind', 'name', 'namespace']);
    return {
      group: ref.optional('group')?.string() ?? '',
      kind: ref.required('kind').string(),
      name: ref.required('name').string(),
      namespace: ref.optional('namespace')?.string() ?? null,
    };
  });
}

function readRule(node: YamlNode, action: PolicyAction): DocumentRule {
  const rule = node.mapping(['from', 'to', 'when']);
  return {
    from: readEntries(rule, 'from', 'source').map((source) => readSource(source, action)),
    to: readEntries(rule, 'to', 'operation').map(readOperation),
    when: (rule.optional('when')?.sequence() ?? []).map((entry): Condition => readWhen(entry, action)),
    place: node.place,
  };
}

function readEntries(
  rule: YamlMapping,
  list: 'from' | 'to',
  inner: 'source' | 'operation',
): readonly YamlNode[] {
  const node = rule.optional(list);
  if (node === undefined) return [];
  const entries = node.sequence();
  // INVARIANT: an empty list in a rule means that none was written; a list emptied by mistake must not match all.
  if (entries.length === 0)
    throw node.error('policy_invalid', 'is empty', `list a ${inner}, or remove ${list}`);
  checkLength(node, entries.length);
  return entries.map((entry) => entry.mapping([inner]).required(inner));
}

/** @throws MeshError `policy_invalid` for a list of more than 512 */
export function checkLength(node: YamlNode | undefined, length: number): void {
  if (node === undefined || length <= maxListLength) return;
  throw node.error('policy_invalid', `has more than ${maxListLength} entries`, 'split the policy');
}
