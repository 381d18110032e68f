import type { AuthzRequest } from './decision.ts';
import type { Attribute } from './document.ts';
import { type Facts, wayTo } from './facts.ts';
import type { Predicate } from './policy.ts';

/**
 * The values by which a predicate that does not hold would: those that the call has. `missing`: it is known to have none.
 * `unwritable`: it has some that no exact value can stand for.
 */
export function readValues(
  predicate: Predicate,
  request: AuthzRequest,
  facts: Facts,
): readonly string[] | 'missing' | 'unwritable' {
  const values = readers[predicate.attribute](predicate, request, facts);
  if (values.length === 0) return 'missing';
  return values.every(isWritable) ? values : 'unwritable';
}

/** Whether the values of an attribute are for nobody's eyes but the application's. */
export function tellsSecrets(attribute: Attribute): boolean {
  return (
    attribute.startsWith('request.auth.') ||
    attribute === 'request.headers' ||
    attribute === 'filter.metadata'
  );
}

/** A `*` first or last stands for more than itself, and elsewhere it is refused; braces make a template. */
export function isWritable(text: string): boolean {
  return /^[^*{}]+$/.test(text);
}

type Reader = (predicate: Predicate, request: AuthzRequest, facts: Facts) => readonly string[];

const readers: Readonly<Record<Attribute, Reader>> = {
  'source.principal': (_, __, { principal }) => listOf(principal),
  'source.namespace': (_, __, { namespace }) => listOf(namespace),
  'source.serviceAccount': (_, __, { serviceAccount }) => listOf(serviceAccount),
  'source.trustDomain': (_, __, { trustDomain }) => listOf(trustDomain),
  'source.ip': (_, { context }) => listOf(context.sourceIp),
  'remote.ip': (_, { context }) => listOf(context.remoteIp),
  'destination.ip': (_, { context }) => listOf(context.destinationIp),
  'request.auth.principal': (_, __, { token }) => {
    if (token === null || token === undefined) return [];
    const { issuer, subject } = token;
    // A value is divided at its last slash, and has something on both sides of it.
    return [issuer === '' || subject === '' || subject.includes('/') ? '' : `${issuer}/${subject}`];
  },
  'request.auth.audiences': (_, __, facts) => facts.claim(wayTo(['aud']))?.slice(0, 1) ?? [],
  'request.auth.presenter': (_, __, facts) => facts.claim(wayTo(['azp']))?.slice(0, 1) ?? [],
  'request.auth.claims': ({ names }, __, facts) => facts.claim(wayTo(names))?.slice(0, 1) ?? [],
  // Every line of a header must match.
  'request.headers': ({ names: [name = ''] }, _, facts) => facts.headerLines(name) ?? [],
  'request.host': (_, __, { host }) => listOf(host),
  'request.method': (_, __, { method }) => listOf(method),
  'request.path': (_, __, { path }) => listOf(path),
  'destination.port': (_, __, { port }) => listOf(port === undefined ? undefined : String(port)),
  'connection.sni': (_, __, { sni }) => listOf(sni === '' ? undefined : sni),
  time: () => [],
  'filter.metadata': ({ names: [filter = '', key = ''] }, _, facts) => {
    const found = facts.metadata(filter, key);
    if (typeof found === 'string') return [/^\[.*\]$/.test(found) ? '' : found];
    const text: unknown = Array.isArray(found) ? found.find((one) => typeof one === 'string') : undefined;
    return typeof text === 'string' ? [`[${text}]`] : [];
  },
};

function listOf(text: string | undefined): readonly string[] {
  return text === undefined ? [] : [text];
}
