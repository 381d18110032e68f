import { quote } from '../errors.ts';
import type { YamlDocument } from '../yaml.ts';
import type { YamlNode } from '../yaml-node.ts';
import { type Condition, gatewayGroup, type PolicyDocument, type TargetRef } from './document.ts';
import { parseValues } from './parse-values.ts';
import type { Entry, Policy, PolicyTerms, Predicate, Rule } from './policy.ts';
import { negatedName } from './read-conditions.ts';
import { checkLength, readPolicyDocument } from './read-document.ts';
import { readTerms, termFields } from './read-terms.ts';
import { readTests } from './read-tests.ts';

/** What the documents of this room say of themselves. */
export const policyKind = 'AuthorizationPolicy';
export const policyApiVersions = ['security.istio.io/v1', 'security.istio.io/v1beta1'] as const;

/**
 * Reads an AuthorizationPolicy of Istio's language in strict mode: what Istio refuses, and beyond it whatever could match
 * no request, or would mean less than it seems to; and what Istio has no words for.
 * @throws MeshError with its place and a fix: `document_kind_unknown`, `document_field_unknown`,
 * `document_field_missing`, `document_field_type`, `policy_unsupported`, `policy_invalid`
 */
export function parsePolicy(document: YamlDocument): Policy {
  checkKind(document);
  const top = document.root.mapping(['apiVersion', 'kind', 'metadata', 'spec']);
  checkMetadata(top.required('metadata'));
  const read = readPolicyDocument(document, termFields);
  const { namespace, name, action, provider, dryRun, selector, targetRefs, place } = read;
  const key = `${namespace}/${name}`;
  const spec = top.required('spec');
  checkLength(spec, selector.size);
  for (const target of targetRefs) checkTarget(spec, target);
  const fields = spec.mapping(specFields);
  const terms = readTerms(fields, read);
  return {
    key,
    namespace,
    name,
    action,
    provider,
    dryRun,
    selector,
    targetRefs,
    terms,
    tests: readTests(fields.optional('tests')),
    rules: parseRules(read, spec, key, terms),
    place,
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

function checkMetadata(node: YamlNode): void {
  const metadata = node.mapping(['name', 'namespace', 'labels', 'annotations']);
  for (const list of ['labels', 'annotations']) {
    for (const { value } of metadata.optional(list)?.entries() ?? []) value.string();
  }
  checkName(metadata.required('namespace'), namespaceShape);
  checkName(metadata.required('name'), nameShape);
}

function checkName(node: YamlNode, shape: RegExp): void {
  const text = node.string();
  if (shape.test(text)) return;
  throw node.error(
    'policy_invalid',
    `is ${quote(text)}, which is no Kubernetes name`,
    'use lower-case letters, digits and hyphens, beginning and ending with a letter or digit',
  );
}

/** RFC 1123 label and subdomain, as Kubernetes names namespaces and objects. */
const namespaceShape = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;
const nameShape = /^(?=.{1,253}$)[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*$/;

/** A policy of a service or of a waypoint would protect nothing here, and look as if it did. */
function checkTarget(spec: YamlNode, { group, kind }: TargetRef): void {
  if (group === gatewayGroup && kind === 'Gateway') return;
  throw spec.error(
    'policy_unsupported',
    `has a target of kind ${quote(kind)}, and there are no waypoints here`,
    `select workloads by their labels, or name a Gateway of group ${gatewayGroup}`,
  );
}

function parseRules(
  read: PolicyDocument,
  spec: YamlNode,
  key: string,
  { bounds }: PolicyTerms,
): readonly Rule[] {
  const nodes = spec.mapping(specFields).optional('rules')?.sequence() ?? [];
  return read.rules.map((rule, index): Rule => {
    const when = nodes[index]?.mapping(ruleFields).optional('when');
    if (when !== undefined && rule.when.length === 0) {
      throw when.error('policy_invalid', 'is empty', 'list a condition, or remove when');
    }
    checkLength(when, rule.when.length);
    const entry = (conditions: readonly Condition[]): Entry => ({
      predicates: conditions.flatMap((condition) => parseCondition(condition, read.namespace)),
    });
    const conditions = [...entry(rule.when).predicates, ...bounds];
    return {
      name: `${key} rule[${index}]`,
      from: rule.from.map(entry),
      to: rule.to.map(entry),
      when: conditions.length === 0 ? [] : [{ predicates: conditions }],
      place: rule.place,
    };
  });
}

const specFields = ['selector', 'targetRef', 'targetRefs', 'action', 'provider', 'rules', ...termFields];
const ruleFields = ['from', 'to', 'when'];

/** The predicates of one condition: its values, and those that must not match. @throws MeshError `policy_invalid` */
export function parseCondition(condition: Condition, namespace: string): readonly Predicate[] {
  const { attribute, names, field, written } = condition;
  return (['values', 'notValues'] as const).flatMap((list): readonly Predicate[] => {
    const node = written[list];
    if (node === undefined) return [];
    const values = node.sequence();
    checkLength(node, values.length);
    const negated = list === 'notValues';
    return [
      {
        ...parseValues(condition, values, namespace),
        attribute,
        names,
        field: negated ? nameNegated(field) : field,
        negated,
        values: values.map((value) => value.string()),
        place: node.place,
        length: node.length,
      },
    ];
  });
}

/** Keys of `when` have dots in them, fields of a source or operation have none. */
function nameNegated(field: string): string {
  return field.includes('.') ? `${field} notValues` : negatedName(field);
}
