import { quote } from '../errors.ts';
import type { YamlMapping, YamlNode } from '../yaml-node.ts';
import { parseCidr } from './cidr.ts';
import { type WrittenAttribute, type Condition, isHttpOnly, type PolicyAction } from './document.ts';
import { templateFault } from './path-template.ts';

const sourceFields = {
  principals: 'source.principal',
  requestPrincipals: 'request.auth.principal',
  namespaces: 'source.namespace',
  serviceAccounts: 'source.serviceAccount',
  ipBlocks: 'source.ip',
  remoteIpBlocks: 'remote.ip',
  trustDomains: 'source.trustDomain',
} as const satisfies Record<string, WrittenAttribute>;

const operationFields = {
  hosts: 'request.host',
  ports: 'destination.port',
  methods: 'request.method',
  paths: 'request.path',
} as const satisfies Record<string, WrittenAttribute>;

/**
 * Reads one `source`.
 * @throws MeshError `policy_invalid`, `document_field_unknown`, `document_field_type`
 */
export function readSource(node: YamlNode, action: PolicyAction): readonly Condition[] {
  const conditions = readFields(node, sourceFields);
  for (const condition of conditions) checkCustom(node, action, condition);
  const used = new Set(conditions.map(({ attribute }) => attribute));
  if (used.has('source.serviceAccount') && (used.has('source.principal') || used.has('source.namespace'))) {
    throw node.error(
      'policy_invalid',
      'has serviceAccounts beside principals or namespaces',
      'keep one of them',
    );
  }
  return conditions;
}

/** Reads one `operation`. @throws MeshError as {@link readSource} */
export function readOperation(node: YamlNode): readonly Condition[] {
  return readFields(node, operationFields);
}

/** Reads one entry of `when`. @throws MeshError as {@link readSource} */
export function readWhen(node: YamlNode, action: PolicyAction): Condition {
  const entry = node.mapping(['key', 'values', 'notValues']);
  const key = entry.required('key');
  const { attribute, names } = readKey(key);
  const written = { values: entry.optional('values'), notValues: entry.optional('notValues') };
  const condition: Condition = {
    attribute,
    names,
    values: readValues(written.values, attribute),
    notValues: readValues(written.notValues, attribute),
    field: key.string(),
    place: node.place,
    written,
  };
  if (condition.values.length + condition.notValues.length === 0) {
    throw node.error('policy_invalid', 'has neither values nor notValues', 'list a value');
  }
  checkCustom(key, action, condition);
  return condition;
}

function readFields(
  node: YamlNode,
  fields: Readonly<Record<string, WrittenAttribute>>,
): readonly Condition[] {
  const names = Object.keys(fields).flatMap((field) => [field, negatedName(field)]);
  const mapping: YamlMapping = node.mapping(names);
  if (mapping.size === 0) {
    throw node.error('policy_invalid', 'is empty', `give it one of ${names.join(', ')}`);
  }
  return Object.entries(fields).flatMap(([field, attribute]): readonly Condition[] => {
    const written = { values: mapping.optional(field), notValues: mapping.optional(negatedName(field)) };
    const values = readValues(written.values, attribute);
    const notValues = readValues(written.notValues, attribute);
    if (values.length + notValues.length === 0) return [];
    const place = written.values?.place ?? written.notValues?.place ?? node.place;
    return [{ attribute, names: [], values, notValues, field, place, written }];
  });
}

/** The `not` form of a field: `notMethods` of `methods`. */
export function negatedName(field: string): string {
  return `not${field.charAt(0).toUpperCase()}${field.slice(1)}`;
}

/** Which key of `when` is which attribute; those that name something in brackets come after. */
const plainKeys: ReadonlyMap<string, WrittenAttribute> = new Map(
  (
    [
      'source.ip',
      'remote.ip',
      'source.namespace',
      'source.serviceAccount',
      'source.trustDomain',
      'source.principal',
      'request.auth.principal',
      'request.auth.audiences',
      'request.auth.presenter',
      'destination.ip',
      'destination.port',
      'connection.sni',
    ] as const
  ).map((key) => [key, key]),
);

function readKey(node: YamlNode): { attribute: WrittenAttribute; names: readonly string[] } {
  const key = node.string();
  const plain = plainKeys.get(key);
  if (plain !== undefined) return { attribute: plain, names: [] };
  const header = /^request\.headers\[([^[\]]+)\]$/.exec(key);
  if (header !== null) return { attribute: 'request.headers', names: [(header[1] ?? '').toLowerCase()] };
  const claims = /^request\.auth\.claims((?:\[[^[\]]+\])+)$/.exec(key);
  if (claims !== null) {
    return { attribute: 'request.auth.claims', names: (claims[1] ?? '').slice(1, -1).split('][') };
  }
  const metadata = /^experimental\.(envoy\.filters\.[^[]+)\[(.+)\]$/.exec(key);
  if (metadata !== null) return { attribute: 'filter.metadata', names: metadata.slice(1, 3) };
  throw node.error(
    'policy_invalid',
    `is ${quote(key)}, which is no key`,
    'use a key of the table in docs/policy.md, with a name in brackets where it takes one',
  );
}

function readValues(node: YamlNode | undefined, attribute: WrittenAttribute): readonly string[] {
  const nodes = node?.sequence() ?? [];
  if (node !== undefined && nodes.length === 0) {
    throw node.error('policy_invalid', 'is empty', 'list a value, or remove the field');
  }
  if (attribute === 'source.serviceAccount' && nodes.length > maxServiceAccounts) {
    throw (node as YamlNode).error(
      'policy_invalid',
      `has more than ${maxServiceAccounts} entries`,
      'split it',
    );
  }
  return nodes.map((value) => {
    const text = value.string();
    const fault = text === '' ? 'is empty' : faultOf(attribute, text);
    if (fault === undefined) return text;
    throw value.error('policy_invalid', `is ${quote(text)}, which ${fault}`, 'correct the value');
  });
}

const maxServiceAccounts = 16;
const maxServiceAccountLength = 320;

function faultOf(attribute: WrittenAttribute, text: string): string | undefined {
  if (attribute === 'request.path') return templateFault(text);
  if (attribute === 'destination.port') {
    return /^[0-9]{1,5}$/.test(text) && Number(text) <= 65_535 ? undefined : 'is no port from 0 to 65535';
  }
  if (attribute === 'source.ip' || attribute === 'remote.ip' || attribute === 'destination.ip') {
    return parseCidr(text) === undefined ? 'is no IP address and no block of them' : undefined;
  }
  if (attribute === 'source.serviceAccount') {
    if (text.includes('*')) return 'has a *, and service accounts have no wildcards';
    if (text.length > maxServiceAccountLength) return `is longer than ${maxServiceAccountLength} characters`;
    return /^[^/]+(?:\/[^/]+)?$/.test(text) ? undefined : 'is neither name nor namespace/name';
  }
  if (attribute === 'source.trustDomain') {
    if (text.includes('/')) return 'has a slash';
    return text.indexOf('*') === text.lastIndexOf('*') ? undefined : 'has more than one *';
  }
  return undefined;
}

/** What the filter in front of a provider cannot know. */
function checkCustom(node: YamlNode, action: PolicyAction, { attribute, field }: Condition): void {
  const isIdentity =
    attribute.startsWith('request.auth.') || (attribute.startsWith('source.') && attribute !== 'source.ip');
  if (action !== 'CUSTOM' || !isIdentity) return;
  throw node.error(
    'policy_invalid',
    `has ${field}, and a policy of action CUSTOM cannot tell who calls`,
    `leave ${field} to an ALLOW or DENY policy${isHttpOnly(attribute) ? '' : ', or use ipBlocks'}`,
  );
}
