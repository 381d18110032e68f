import { MeshError, quote } from '../errors.ts';
import { SpiffeId } from '../spiffe/id.ts';
import type { YamlMapping, YamlNode } from '../yaml-node.ts';
import { parseAddress } from './cidr.ts';
import type { CallContext } from './context.ts';
import { decisionReasons } from './decision.ts';
import { maxTests, type PolicyTest, type TestedCall } from './policy-test.ts';
import { readLine, readTime } from './read-terms.ts';
import { isMethod } from './request.ts';

/**
 * Reads the tests of a policy.
 * @throws MeshError `policy_invalid`, `spiffe_id_*`, `document_field_unknown`, `document_field_missing`,
 * `document_field_type`
 */
export function readTests(node: YamlNode | undefined): readonly PolicyTest[] {
  if (node === undefined) return [];
  const nodes = node.sequence();
  if (nodes.length === 0) throw node.error('policy_invalid', 'is empty', 'list a test, or remove tests');
  if (nodes.length > maxTests) {
    throw node.error('policy_invalid', `has more than ${maxTests} entries`, 'split the policy');
  }
  return nodes.map(readTest);
}

function readTest(node: YamlNode, index: number): PolicyTest {
  const test = node.mapping(['name', 'allow', 'deny', 'rule', 'reason']);
  const [allow, deny] = [test.optional('allow'), test.optional('deny')];
  const call = allow ?? deny;
  if (call === undefined || (allow !== undefined && deny !== undefined)) {
    throw node.error('policy_invalid', 'has not exactly one of allow and deny', 'write a call under one');
  }
  return {
    name: readLine(test.optional('name')) ?? `test[${index}]`,
    want: allow === undefined ? 'deny' : 'allow',
    rule: readLine(test.optional('rule')),
    reason: readReason(test.optional('reason')),
    call: readCall(call),
    place: node.place,
  };
}

function readReason(node: YamlNode | undefined): PolicyTest['reason'] {
  if (node === undefined) return null;
  const text = node.string();
  const reason = decisionReasons.find((known) => known === text);
  if (reason !== undefined) return reason;
  throw node.error(
    'policy_invalid',
    `is ${quote(text)}, which is no reason`,
    `write one of ${decisionReasons.join(', ')}`,
  );
}

function readCall(node: YamlNode): TestedCall {
  const call = node.mapping([...fieldsOfAll, ...fieldsOfHttp]);
  const protocol = readProtocol(call.optional('protocol'));
  if (protocol === 'tcp') {
    for (const field of fieldsOfHttp) {
      const written = call.optional(field);
      if (written !== undefined) {
        throw written.error('policy_invalid', 'is of a call over TCP, which has none', 'remove it');
      }
    }
  }
  const isHttp = protocol === 'http';
  const to = call.optional('to');
  const at = call.optional('at');
  return {
    protocol,
    source: readId(call.required('from')),
    destination: to === undefined ? null : readId(to),
    method: isHttp ? readMethod(call.required('method')) : '',
    path: isHttp ? readText(call.required('path'), 65_536) : '',
    authority: readText(call.optional('host'), 260) || unknownHost,
    port: readPort(call.optional('port')),
    context: readContext(call),
    at: at === undefined ? null : readTime(at),
  };
}

const fieldsOfAll = [
  ...['from', 'to', 'port', 'protocol', 'sourceIp', 'remoteIp', 'destinationIp', 'sni', 'at'],
] as const;
const fieldsOfHttp = ['method', 'path', 'host', 'headers', 'jwt'] as const;
// As in questions: a reserved name (RFC 2606), so that only rules for any host match it.
const unknownHost = 'unknown.invalid';

function readProtocol(node: YamlNode | undefined): 'http' | 'tcp' {
  const text = node?.string() ?? 'http';
  if (text === 'http' || text === 'tcp') return text;
  throw (node as YamlNode).error('policy_invalid', `is ${quote(text)}`, 'write http or tcp');
}

/** With `spiffe://`, or as principals are written, without. */
function readId(node: YamlNode): SpiffeId {
  const text = node.string();
  try {
    return SpiffeId.parseWorkload(text.startsWith('spiffe://') ? text : `spiffe://${text}`);
  } catch (cause) {
    if (!(cause instanceof MeshError)) throw cause;
    throw node.error(
      cause.code,
      `is ${quote(text)}: ${cause.message}`,
      'write spiffe://example.org/ns/a/sa/b',
    );
  }
}

function readMethod(node: YamlNode): string {
  const text = node.string();
  if (isMethod(text)) return text;
  throw node.error('policy_invalid', `is ${quote(text)}, which is no method`, 'write GET, POST or the like');
}

function readText(node: YamlNode | undefined, maxLength: number): string {
  if (node === undefined) return '';
  const text = node.string();
  if (text !== '' && text.length <= maxLength) return text;
  throw node.error('policy_invalid', `is not of 1 to ${maxLength} characters`, 'correct the value');
}

function readPort(node: YamlNode | undefined): number {
  const port = node?.integer() ?? 0;
  if (node === undefined || (port >= 1 && port <= 65_535)) return port;
  throw node.error('policy_invalid', 'is no port from 1 to 65535', 'correct the number');
}

function readContext(call: YamlMapping): CallContext {
  const lines = readHeaders(call.optional('headers'));
  const sourceIp = readAddress(call.optional('sourceIp'));
  const jwt = call.optional('jwt');
  return {
    headerLines: (name) => lines.get(name) ?? [],
    sourceIp,
    remoteIp: readAddress(call.optional('remoteIp')) ?? sourceIp,
    destinationIp: readAddress(call.optional('destinationIp')),
    sni: readText(call.optional('sni'), 255),
    claims: jwt === undefined ? null : new Map(jwt.entries().map(({ key, value }) => [key, value.data()])),
    metadata: undefined,
  };
}

/** Each a text, or a list of texts for a header in several lines. */
function readHeaders(node: YamlNode | undefined): ReadonlyMap<string, readonly string[]> {
  const lines = new Map<string, readonly string[]>();
  for (const { key, value } of node?.entries() ?? []) {
    const name = key.toLowerCase();
    if (lines.has(name)) throw value.error('policy_invalid', 'is there twice', 'list its lines');
    const several = Array.isArray(value.data()) ? value.sequence() : [value];
    lines.set(
      name,
      several.map((line) => line.string()),
    );
  }
  return lines;
}

function readAddress(node: YamlNode | undefined): string | undefined {
  const text = node?.string();
  if (text === undefined || parseAddress(text) !== undefined) return text;
  throw (node as YamlNode).error('policy_invalid', `is ${quote(text)}, which is no IP address`, 'correct it');
}
