import { type ErrorCode, quote } from '../errors.ts';
import type { YamlDocument } from '../yaml.ts';
import type { YamlMapping, YamlNode } from '../yaml-node.ts';
import { parseValues } from './parse-values.ts';
import {
  negatedName,
  operationFields,
  type Operation,
  type Policy,
  type Predicate,
  type PredicateField,
  type Rule,
  type Source,
  sourceFields,
} from './policy.ts';

/** What the documents of this room say of themselves. */
export const policyKind = 'AuthorizationPolicy';
export const policyApiVersions = ['security.istio.io/v1', 'security.istio.io/v1beta1'] as const;

/** The most rules in a policy, entries in a rule, values in a field and labels in a selector. */
export const maxListLength = 512;

/**
 * Reads an AuthorizationPolicy of Istio's language in strict mode. What the language has and we do not is refused, never
 * skipped.
 * @throws MeshError with its place and a fix: `document_kind_unknown`, `document_field_unknown`,
 * `document_field_missing`, `document_field_type`, `policy_unsupported`, `policy_invalid`
 */
export function parsePolicy(document: YamlDocument): Policy {
  checkKind(document);
  const top = document.root.mapping(['apiVersion', 'kind', 'metadata', 'spec']);
  const { namespace, name } = parseMetadata(top.required('metadata'));
  const key = `${namespace}/${name}`;
  const spec = readFields(top.required('spec'), ['selector', 'action', 'rules'], unsupportedInSpec);
  const action = parseAction(spec);
  const rules = parseRules(spec, key);
  if (action === 'DENY' && rules.length === 0) {
    throw spec.node.error('policy_invalid', 'denies and has no rules', 'add rules, or use action ALLOW');
  }
  return {
    key,
    namespace,
    name,
    action,
    selector: parseSelector(spec),
    rules,
    place: document.root.place,
    text: document.text,
    line: document.line,
  };
}

function checkKind(document: YamlDocument): void {
  const { kind, apiVersion } = document;
  const versions: readonly string[] = policyApiVersions;
  if (kind === policyKind && versions.includes(apiVersion)) return;
  throw document.root.error(
    'document_kind_unknown',
    `is of kind ${quote(kind)} and version ${quote(apiVersion)}, not an authorization policy`,
    `write apiVersion: ${policyApiVersions[0]} and kind: ${policyKind}`,
  );
}

function parseMetadata(node: YamlNode): { namespace: string; name: string } {
  const metadata = node.mapping(['name', 'namespace', 'labels', 'annotations']);
  checkStrings(metadata.optional('labels'));
  const annotations = metadata.optional('annotations');
  checkStrings(annotations);
  const dryRun = annotations?.entries().find(({ key }) => key === 'istio.io/dry-run');
  if (dryRun !== undefined) throw unsupported(dryRun.value);
  return {
    namespace: parseName(metadata.required('namespace'), namespaceShape),
    name: parseName(metadata.required('name'), nameShape),
  };
}

function checkStrings(node: YamlNode | undefined): void {
  for (const { value } of node?.entries() ?? []) value.string();
}

function parseName(node: YamlNode, shape: RegExp): string {
  const text = node.string();
  if (shape.test(text)) return text;
  throw node.error(
    'policy_invalid',
    `is ${quote(text)}, which is no Kubernetes name`,
    'use lower-case letters, digits and hyphens, beginning and ending with a letter or digit',
  );
}

/** RFC 1123 label and subdomain, as Kubernetes names namespaces and objects. */
const namespaceShape = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;
const nameShape = /^(?=.{1,253}$)[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*$/;

function parseAction(spec: YamlMapping): 'ALLOW' | 'DENY' {
  const node = spec.optional('action');
  if (node === undefined) return 'ALLOW';
  const action = node.string();
  if (action === 'ALLOW' || action === 'DENY') return action;
  if (action === 'AUDIT' || action === 'CUSTOM') throw unsupported(node, action);
  throw node.error('policy_invalid', `is ${quote(action)}, which is no action`, 'write ALLOW or DENY');
}

function parseSelector(spec: YamlMapping): ReadonlyMap<string, string> {
  const node = spec.optional('selector');
  if (node === undefined) return new Map();
  const labels = node.mapping(['matchLabels']).optional('matchLabels')?.entries() ?? [];
  if (labels.length > maxListLength) throw tooLong(node);
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

function parseRules(spec: YamlMapping, key: string): readonly Rule[] {
  const nodes = spec.optional('rules')?.sequence() ?? [];
  if (nodes.length > maxListLength) throw tooLong(spec.required('rules'));
  return nodes.map((node, index): Rule => {
    const rule = readFields(node, ['from', 'to'], unsupportedInRule);
    return {
      name: `${key} rule[${index}]`,
      from: parseEntries(rule, 'from', 'source', sourceFields, unsupportedInSource),
      to: parseEntries(rule, 'to', 'operation', operationFields, []),
      place: node.place,
    };
  });
}

function parseEntries(
  rule: YamlMapping,
  list: 'from' | 'to',
  inner: 'source' | 'operation',
  fields: readonly PredicateField[],
  refused: readonly string[],
): readonly (Source | Operation)[] {
  const node = rule.optional(list);
  if (node === undefined) return [];
  const entries = node.sequence();
  // INVARIANT: an empty list in a parsed rule means the author wrote no list; a list emptied by mistake must not match all.
  if (entries.length === 0)
    throw node.error('policy_invalid', 'is empty', `list a ${inner}, or remove ${list}`);
  if (entries.length > maxListLength) throw tooLong(node);
  return entries.map((entry) => {
    const body = entry.mapping([inner]).required(inner);
    const names = fields.flatMap((field) => [field, negatedName(field)]);
    const mapping = readFields(body, names, refused);
    if (mapping.size === 0) {
      throw body.error('policy_invalid', 'is empty', `give it one of ${names.join(', ')}`);
    }
    return { predicates: parsePredicates(mapping, fields), place: body.place };
  });
}

function parsePredicates(mapping: YamlMapping, fields: readonly PredicateField[]): readonly Predicate[] {
  const predicates: Predicate[] = [];
  for (const field of fields) {
    for (const negated of [false, true]) {
      const node = mapping.optional(negated ? negatedName(field) : field);
      if (node === undefined) continue;
      const values = node.sequence();
      if (values.length === 0)
        throw node.error('policy_invalid', 'is empty', 'list a value, or remove the field');
      if (values.length > maxListLength) throw tooLong(node);
      predicates.push({
        ...parseValues(field, values),
        negated,
        values: values.map((value) => value.string()),
        place: node.place,
        length: node.length,
      });
    }
  }
  return predicates;
}

/** A mapping whose refused fields are known to us: they are named as not supported rather than unknown. */
function readFields(node: YamlNode, fields: readonly string[], refused: readonly string[]): YamlMapping {
  for (const field of node.entries()) {
    if (refused.includes(field.key)) throw unsupported(field.value);
  }
  return node.mapping(fields);
}

function unsupported(node: YamlNode, value?: string): Error {
  const what = value === undefined ? 'is' : `${value} is`;
  return node.error(
    'policy_unsupported' satisfies ErrorCode,
    `${what} part of Istio's language that is not supported yet`,
    'remove it: a policy is never enforced in part',
  );
}

function tooLong(node: YamlNode): Error {
  return node.error('policy_invalid', `has more than ${maxListLength} entries`, 'split the policy');
}

/** Fields of Istio's AuthorizationPolicy that we recognise and refuse. */
const unsupportedInSpec = ['provider', 'targetRef', 'targetRefs'];
const unsupportedInRule = ['when'];
const unsupportedInSource = [
  'requestPrincipals',
  'serviceAccounts',
  'ipBlocks',
  'remoteIpBlocks',
  'trustDomains',
].flatMap((field) => [field, negatedName(field)]);
