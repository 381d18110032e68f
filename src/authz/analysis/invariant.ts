import { quote } from '../../errors.ts';
import type { Place } from '../../errors.ts';
import { kubernetesNames } from '../../spiffe/id.ts';
import type { YamlDocument } from '../../yaml.ts';
import type { YamlNode } from '../../yaml-node.ts';
import { namespaceOf } from '../lint-world.ts';
import { compileTexts } from '../match.ts';
import { parseCondition } from '../parse.ts';
import type { Entry, Predicate, Rule, StringMatch } from '../policy.ts';
import { readOperation, readSource, readWhen } from '../read-conditions.ts';
import { checkLength } from '../read-document.ts';
import { parseMatch } from '../string-match.ts';
import type { Destination } from './destinations.ts';

/** What a document must say of itself to be an invariant. */
export const invariantApiVersion = 'countersign.dev/v1';
export const invariantKind = 'PolicyInvariant';

/**
 * What must hold whatever policies there are. `never`: no such call is allowed; `always`: every such call is. What cannot be
 * judged of a call speaks against the policies in both: `never` reads conditions as a DENY rule does, `always` as an ALLOW rule.
 */
export type Invariant = {
  readonly name: string;
  readonly place: Place;
  readonly demand: 'never' | 'always';
  readonly calls: Pick<Rule, 'from' | 'to' | 'when'>;
  readonly to: Selection;
};

/** Destinations: all of the conditions that are given must hold; of a list any value. */
export type Selection = {
  readonly namespaces: readonly StringMatch[];
  readonly labels: ReadonlyMap<string, string>;
  readonly principals: readonly StringMatch[];
};

/**
 * Reads a document of the kind PolicyInvariant.
 * @throws MeshError with its place and a fix: `document_kind_unknown`, `document_field_*`, `policy_invalid`
 */
export function readInvariant(document: YamlDocument): Invariant {
  const top = document.root.mapping(['apiVersion', 'kind', 'metadata', 'spec']);
  if (document.apiVersion !== invariantApiVersion) {
    const fix = `write apiVersion: ${invariantApiVersion}`;
    throw top.required('apiVersion').error('document_kind_unknown', `is not ${invariantApiVersion}`, fix);
  }
  const name = top.required('metadata').mapping(['name']).required('name');
  if (!/^[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?$/.test(name.string())) {
    const why = `is ${quote(name.string())}, which is no name`;
    throw name.error('policy_invalid', why, 'use lower-case letters, digits, dots and hyphens');
  }
  const spec = top.required('spec');
  const { never, always } = {
    never: spec.mapping(demands).optional('never'),
    always: spec.mapping(demands).optional('always'),
  };
  const body = never ?? always;
  if (body === undefined || (never !== undefined && always !== undefined)) {
    throw spec.error('policy_invalid', 'has not exactly one of never and always', 'write calls under one');
  }
  const demand = never === undefined ? 'always' : 'never';
  const { calls, to } = readCalls(body, demand);
  return { name: name.string(), place: document.root.place, demand, calls, to };
}

const demands = ['never', 'always'];

function readCalls(body: YamlNode, demand: Invariant['demand']): Pick<Invariant, 'calls' | 'to'> {
  const fields = body.mapping(['from', 'to', 'when']);
  if (fields.size === 0) throw body.error('policy_invalid', 'is empty', 'say from whom, or to what');
  const action = demand === 'never' ? 'DENY' : 'ALLOW';
  const entry = (conditions: Parameters<typeof parseCondition>[0][]): Entry => ({
    predicates: conditions.flatMap((one): readonly Predicate[] => parseCondition(one, '')),
  });
  const target = fields.optional('to')?.mapping(['namespaces', 'labels', 'principals', 'operation']);
  if (target?.size === 0)
    throw target.node.error('policy_invalid', 'is empty', 'name what is called, or remove it');
  const when = fields.optional('when')?.sequence() ?? [];
  checkLength(fields.optional('when'), when.length);
  if (fields.optional('when') !== undefined && when.length === 0) {
    throw body.error('policy_invalid', 'has an empty when', 'list a condition, or remove when');
  }
  const conditions = when.map((one) => readWhen(one, action));
  return {
    calls: {
      from: oneOrMore(fields.optional('from')).map((one) => entry([...readSource(one, action)])),
      to: oneOrMore(target?.optional('operation')).map((one) => entry([...readOperation(one)])),
      when: conditions.length === 0 ? [] : [entry(conditions)],
    },
    to: {
      namespaces: readNames(target?.optional('namespaces')),
      labels: new Map(
        (target?.optional('labels')?.entries() ?? []).map(({ key, value }) => [key, value.string()]),
      ),
      principals: readNames(target?.optional('principals')),
    },
  };
}

/** A mapping, or a list of which any will do. */
function oneOrMore(node: YamlNode | undefined): readonly YamlNode[] {
  if (node === undefined) return [];
  if (!Array.isArray(node.data())) return [node];
  const nodes = node.sequence();
  if (nodes.length === 0) throw node.error('policy_invalid', 'is empty', 'list something, or remove it');
  checkLength(node, nodes.length);
  return nodes;
}

function readNames(node: YamlNode | undefined): readonly StringMatch[] {
  if (node === undefined) return [];
  const nodes = node.sequence();
  if (nodes.length === 0) throw node.error('policy_invalid', 'is empty', 'list a value, or remove the field');
  checkLength(node, nodes.length);
  return nodes.map((one) => {
    if (one.string().startsWith('spiffe://')) {
      throw one.error('policy_invalid', 'begins with spiffe://', 'leave spiffe:// away');
    }
    return parseMatch(one, one.string());
  });
}

/** Whether an invariant is about calls to a destination: for `always` each of its registrations must be meant. */
export function isAboutDestination({ demand, to }: Invariant, { id, workloads }: Destination): boolean {
  const { namespaces, labels, principals } = to;
  if (principals.length > 0 && !compileTexts(principals)(id.principal)) return false;
  const isNamed = compileTexts(namespaces);
  const fits = workloads.map((workload) => {
    const namespace = kubernetesNames(id)?.namespace ?? namespaceOf(workload);
    if (namespaces.length > 0 && (namespace === undefined || !isNamed(namespace))) return false;
    return [...labels].every(
      ([name, value]) => Object.hasOwn(workload.labels, name) && workload.labels[name] === value,
    );
  });
  return demand === 'never' ? fits.includes(true) : !fits.includes(false);
}
